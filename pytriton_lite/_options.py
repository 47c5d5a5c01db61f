"""Options of a server: the official `tritonserver.Options` names, and our own."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any, Literal, TypeAlias

from pytriton_lite._config.template import check_values, values_of
from pytriton_lite._python_settings import stub_timeout_s
from pytriton_lite.errors import InvalidArgumentError

ExecutionMode: TypeAlias = Literal["auto", "inline", "thread", "process"]
StrPath: TypeAlias = "str | os.PathLike[str]"

InstanceKindName: TypeAlias = Literal["cpu", "auto"]
SubstituteValue: TypeAlias = "bool | int | float | str | os.PathLike[str] | Sequence[Any] | None"

_KINDS = ("cpu", "auto")
_MODES = ("auto", "inline", "thread", "process")


class ModelControlMode(Enum):
    """When models are loaded: all at start, also when files change, or on request."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


class CompatibilityWarning(UserWarning):
    """An option of Triton that is accepted and has no meaning here."""


# Official options that configure parts which do not exist in this process.
_WITHOUT_MEANING = {
    "buffer_manager_thread_count": 0,
    "cache_config": {},
    "cache_directory": "/opt/tritonserver/caches",
    "cuda_memory_pool_sizes": {},
    "enable_peer_access": True,
    "host_policies": {},
    "log_file": None,
    "log_format": None,
    "min_supported_compute_capability": None,
    "model_load_device_limits": {},
    "metrics_configuration": {},
    "metrics_interval": 2000,
    "pinned_memory_pool_size": 1 << 28,
    "cuda_virtual_address_sizes": {},
    "rate_limiter_mode": None,
    "rate_limiter_resources": [],
    "repo_agent_directory": "/opt/tritonserver/repoagents",
    "gpu_metrics": False,
    "cpu_metrics": False,
    "log_callback": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a `Server`.

    Attributes
    ----------
    model_repository
        Path of one model repository, or several.
    backend_directory
        Folder with one folder per backend; Python-based backends are looked for there.
    execution
        Where models run: ``"thread"``, ``"inline"``, ``"process"``, or a mapping of model names
        to modes, in which ``"*"`` stands for all others. ``"auto"`` means ``"process"`` for
        models with an execution environment and ``"thread"`` for others.
    share_memory
        Let models see the callers' arrays themselves and callers the models' arrays, without
        the private copies that Triton makes. A model that writes into its inputs, or reuses an
        output buffer, then changes the caller's data. Default False.
    stream_backlog
        Responses of one stream that may wait to be read; then the model's response sender blocks
        until the reader has caught up, has gone, or has cancelled. 0: no limit. Default 4096.
    strict_outputs
        Refuse responses that contradict the configuration. Triton does not look. Default False.
    strict_model_config
        No auto-complete; every model needs a complete ``config.pbtxt``. Default False.
    model_config_name
        Name of a file ``configs/<name>.pbtxt``, which takes the place of ``config.pbtxt`` in the
        models that have one. Default none.
    server_id
        Name of the server in its metadata.
    instance_kind
        What becomes of instance groups of KIND_GPU, so that a repository written for GPUs loads
        on a machine without one: ``"cpu"`` makes them, and those of KIND_AUTO, KIND_CPU;
        ``"auto"`` does so where one of their GPUs is missing, which is everywhere as long as
        servers look for none. Their ``gpus`` are dropped then; names and counts stay, so that a
        group has as many instances as on one GPU. KIND_CPU and KIND_MODEL stay as they are. The
        model sees the kind in force, in its ``model_config`` as in ``model_instance_kind``. Also
        a mapping of model names to these values, in which ``"*"`` stands for all others. Default
        None: as configured.
    substitute
        Values for ``${name}`` in ``config.pbtxt`` files that are templates. A bool, int, float,
        str or path is written as it would be by hand, a list as one of the text format, or with
        commas inside of a string; with None ``${name}`` stays as it is. A value that is a mapping
        itself holds those of the model of that name, or with ``"*"`` those of all models; the
        model's own win. A name without a value is a `ConfigError`. Configurations of load calls
        are no templates. Default None: files are read as they are.
    model_control_mode, startup_models
        ``EXPLICIT`` loads `startup_models` only (``["*"]``: all) and allows `Server.load`, and
        models to use `pb_utils.load_model`. ``POLL`` loads all and looks for new, changed and
        removed models; what Python compiles (``__pycache__``) is no change.
    model_namespacing
        Whether each model repository is a namespace, so that several may have a model of the same
        name. Such a model is reached by its identifier, ``<path of the repository>::<name>``, as
        its name alone is ambiguous; `Server.load` and `Server.unload` of the name mean all of
        them. Without it none of them is loaded. Default False.
    watch
        Hot reload, for development: load a model again when its files, those of its Python-based
        backend or `watch_paths` change. The old version serves meanwhile, and goes on if the new
        one does not load; the error is then logged with its traceback and is the reason of the
        version in the index, which stays READY. It repeats the last load, with the configuration
        and files given to that; what is unloaded stays so, and new folders are no matter of it. A
        model that has never loaded is tried again when it changes. Hidden folders, what Python
        compiles and what editors keep beside an open file do not count, nor does what the model
        itself writes at each load. Within some 0.1 s if the package `watchfiles` is installed
        (extra ``watch``), else files are looked at every 0.5 s. In every `model_control_mode`.
        Default False.
    watch_paths
        More files and folders whose change reloads every model, with `watch`. Modules that models
        import from there are only loaded anew in processes. Default none.
    repository_poll_secs
        Seconds between two looks in poll mode, as tritonserver's ``--repository-poll-secs``; 0:
        only `Server.poll_model_repository` looks. Default 15.
    exit_on_error
        Whether a failed load makes `Server.start` fail. Default True.
    exit_timeout
        Seconds that `Server.stop` gives to requests in flight. Default 30.
    load_timeout
        Seconds that the import of a model and its `initialize` may take in a process. Default 600.
    model_load_thread_count
        Models that load side by side. Default 4.
    model_load_retry_count
        How often a version that failed to load is tried again. Default 0.
    strict_readiness
        Whether `Server.ready` asks for every model. Default True.
    backend_configuration
        ``{"python": {key: value}}``, as ``--backend-config``. ``stub-timeout-seconds`` is the
        limit for the start of a process, before the model's code runs; default 30. The values of
        other keys of Triton are checked as Triton does, and have no effect.
    metrics
        Whether models can make custom metrics, for `Server.metrics`. Default True.
    log_info, log_warn, log_error, log_verbose
        If one is given, the level of the logger ``pytriton_lite`` is set from them. Otherwise
        it stays as the application configured it.
    """

    model_repository: StrPath | Sequence[StrPath]
    backend_directory: StrPath = "/opt/tritonserver/backends"
    execution: ExecutionMode | Mapping[str, ExecutionMode] = "auto"
    share_memory: bool = False
    stream_backlog: int = 4096
    strict_outputs: bool = False
    strict_model_config: bool = False
    model_config_name: str = ""
    server_id: str = "triton"
    instance_kind: InstanceKindName | Mapping[str, InstanceKindName] | None = None
    substitute: Mapping[str, SubstituteValue | Mapping[str, SubstituteValue]] | None = None
    model_control_mode: ModelControlMode | str = ModelControlMode.NONE
    startup_models: Sequence[str] = ()
    model_namespacing: bool = False
    watch: bool = False
    watch_paths: Sequence[StrPath] = ()
    repository_poll_secs: float = 15
    exit_on_error: bool = True
    exit_timeout: float = 30
    load_timeout: float = 600
    model_load_thread_count: int = 4
    model_load_retry_count: int = 0
    strict_readiness: bool = True
    backend_configuration: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    metrics: bool = True
    log_info: bool | None = None
    log_warn: bool | None = None
    log_error: bool | None = None
    log_verbose: int | None = None

    def __post_init__(self) -> None:
        mode = self.model_control_mode
        if isinstance(mode, str):
            try:
                object.__setattr__(self, "model_control_mode", ModelControlMode(mode.lower()))
            except ValueError:
                raise InvalidArgumentError(
                    f"model_control_mode {mode!r} is none of 'none', 'poll', 'explicit'"
                ) from None
        if self.watch_paths and not self.watch:
            raise InvalidArgumentError("watch_paths means nothing without watch=True")
        if isinstance(self.watch_paths, str | os.PathLike):
            raise InvalidArgumentError(
                f"watch_paths is a sequence of paths, got {self.watch_paths!r}"
            )
        if not self.repository_poll_secs >= 0:
            raise InvalidArgumentError(
                f"repository_poll_secs must be >= 0, got {self.repository_poll_secs!r}"
            )
        modes = self.execution.values() if isinstance(self.execution, Mapping) else [self.execution]
        for execution in modes:
            if execution not in _MODES:
                raise InvalidArgumentError(f"execution {execution!r} is none of {_MODES}")
        kind = self.instance_kind
        for name in kind.values() if isinstance(kind, Mapping) else [kind]:
            if name is not None and name not in _KINDS:
                raise InvalidArgumentError(
                    f"instance_kind {name!r} is none of {_KINDS}; other kinds are written into "
                    "config.pbtxt"
                )
        if self.substitute is not None:
            check_values(self.substitute)
        if not isinstance(self.stream_backlog, int) or self.stream_backlog < 0:
            raise InvalidArgumentError(
                f"stream_backlog must be a non-negative int, got {self.stream_backlog!r}"
            )
        stub_timeout_s(self.backend_configuration.get("python", {}))  # raises
        if "*" in self.startup_models and len(self.startup_models) > 1:
            raise InvalidArgumentError(
                "Wildcard model name '*' must be the ONLY startup model if specified at all."
            )

    @property
    def repositories(self) -> tuple[str, ...]:
        """Absolute paths of the model repositories."""
        given = self.model_repository
        paths = [given] if isinstance(given, str | os.PathLike) else list(given)
        return tuple(os.path.abspath(path) for path in paths)

    @property
    def stub_timeout_s(self) -> float:
        """Seconds that a stub has to start."""
        return stub_timeout_s(self.backend_configuration.get("python", {}))

    def instance_kind_of(self, model_name: str) -> InstanceKindName | None:
        """What `instance_kind` says of a model."""
        if isinstance(self.instance_kind, Mapping):
            return self.instance_kind.get(model_name) or self.instance_kind.get("*")
        return self.instance_kind

    def substitute_of(self, model_name: str) -> dict[str, Any] | None:
        """Values for the template of a model; None when files are no templates."""
        return None if self.substitute is None else values_of(self.substitute, model_name)

    def execution_of(self, model_name: str, *, has_environment: bool = False) -> ExecutionMode:
        """Where a model runs, ``auto`` resolved.

        Parameters
        ----------
        has_environment
            Whether it has an execution environment, which only a process can have.
        """
        if isinstance(self.execution, Mapping):
            mode = self.execution.get(model_name) or self.execution.get("*", "auto")
        else:
            mode = self.execution
        if mode != "auto":
            return mode
        return "process" if has_environment else "thread"


def make_options(model_repository: Any, given: dict[str, Any]) -> Options:
    """Make `Options` from the arguments of `Server`.

    Raises
    ------
    TypeError
        An unknown option; the text names the nearest known one.
    """
    if isinstance(model_repository, Options):
        if given:
            raise TypeError(f"options are given twice: in Options and as {', '.join(given)}")
        return model_repository
    if model_repository is not None:
        given = {"model_repository": model_repository, **given}
    known = {option.name for option in fields(Options)}
    ours = {}
    for name, value in given.items():
        if name in known:
            ours[name] = value
        elif name in _WITHOUT_MEANING:
            if value != _WITHOUT_MEANING[name]:
                warnings.warn(
                    f"option {name!r} of Triton has no effect in pytriton_lite",
                    CompatibilityWarning,
                    stacklevel=3,
                )
        else:
            near = difflib.get_close_matches(name, [*known, *_WITHOUT_MEANING], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"Server() got an unexpected option {name!r}{hint}")
    if "model_repository" not in ours:
        raise TypeError("Server() needs a model repository")
    return Options(**ours)
