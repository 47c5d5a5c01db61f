"""From a model folder to a version that serves requests.

The order of steps is Triton's: read the configuration, or that of the load call, fill in
defaults, validate, then per version resolve the backend, complete the configuration by the
model's own `auto_complete_config`, validate inputs and outputs, and make the instances.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytriton_lite._backend import resolve_backend
from pytriton_lite._config.autocomplete import merge_completed
from pytriton_lite._config.explain import ConfigExplanation, ConfigHistory, ConfigStep
from pytriton_lite._config.json_form import to_json
from pytriton_lite._config.model_config import InstanceGroupSettings, ModelSettings, settings_of
from pytriton_lite._config.model_files import check_model_files
from pytriton_lite._config.normalize import (
    deduce_backend,
    fill_defaults,
    override_instance_kind,
    resolve_instance_groups,
)
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite._config.template import ConfigText, fill_template
from pytriton_lite._config.validate import (
    check_agents,
    validate_general,
    validate_io,
    validate_parameters,
)
from pytriton_lite._control import ModelControl
from pytriton_lite._core.batch_queue import BatchQueue
from pytriton_lite._core.calls import ServedVersion
from pytriton_lite._core.input_spec import InputEntry, InputSpec
from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._core.remote_queue import RemoteQueue
from pytriton_lite._core.statistics import VersionStatistics
from pytriton_lite._environment.setting import PARAMETER, environment_setting
from pytriton_lite._instance.base import Instance, Outage
from pytriton_lite._instance.inline import InlineInstance
from pytriton_lite._instance.loader import InstancePlan, ModelCode, auto_complete
from pytriton_lite._instance.output_check import make_output_check
from pytriton_lite._instance.plain_source import has_no_auto_complete
from pytriton_lite._instance.readiness import VersionReadiness
from pytriton_lite._instance.thread import ThreadInstance
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite._options import Options
from pytriton_lite._overrides import OverrideFolder
from pytriton_lite._timer import TIMER
from pytriton_lite.errors import ConfigError, UnavailableError, UnsupportedError

if TYPE_CHECKING:  # what models in processes need is imported for the first one
    from pytriton_lite._environment.cache import EnvironmentCache, ExecutionEnvironment
    from pytriton_lite._instance.process import StubSettings
    from pytriton_lite._ipc.caller_memory import CallerMemory

_log = logging.getLogger("pytriton_lite.server")

# For instances whose requests have just been failed.
_GRACE_NS = 500_000_000

CONFIG_FILE = "config.pbtxt"


def stub_settings(options: Options, environment: ExecutionEnvironment | None) -> StubSettings:
    """How the stubs of a model are started."""
    from pytriton_lite._instance.process import environment_interpreter, own_interpreter

    start_s, load_s = options.stub_timeout_s, options.load_timeout
    if environment is None:
        return own_interpreter(start_timeout_s=start_s, load_timeout_s=load_s)
    return environment_interpreter(environment, start_timeout_s=start_s, load_timeout_s=load_s)


def _new_instance(plan: InstancePlan, queue: RequestQueue, stubs: StubSettings | None) -> Instance:
    """An instance in the home of its model: with `stubs`, in a process."""
    if stubs is not None:
        from pytriton_lite._instance.process import ProcessInstance

        return ProcessInstance(plan, queue, stubs)
    return InlineInstance(plan, queue) if queue.is_inline else ThreadInstance(plan, queue)


def _refuse_environment(setting: str, name: str, mode: str) -> UnsupportedError:
    error = UnsupportedError(
        f"model '{name}' has an execution environment of its own, '{setting}', and cannot run in "
        f"mode '{mode}': only a process has another interpreter",
        model=name,
    )
    error.add_note(
        "Ask for 'process' or 'auto' for this model, as in "
        f"execution={{'{name}': 'process', '*': '{mode}'}}, or take the parameter '{PARAMETER}' "
        "out of its configuration; an empty value also keeps its backend's environment away."
    )
    return error


def config_path(folder: str, config_name: str = "") -> str:
    """Return which file configures a model: ``configs/<config_name>.pbtxt`` if it has that."""
    if config_name:
        path = os.path.join(folder, "configs", f"{config_name}.pbtxt")
        if os.path.exists(path):
            return path
    return os.path.join(folder, CONFIG_FILE)


def read_config(
    name: str,
    folder: str,
    *,
    strict: bool,
    config_name: str = "",
    values: Mapping[str, Any] | None = None,
) -> tuple[Any, ConfigHistory]:
    """Read a model's configuration file; what it leaves out is not filled in.

    Parameters
    ----------
    values
        Of the option ``substitute``; None when the file is no template.

    Returns
    -------
    tuple
        The message, and its history, which has the text.

    Raises
    ------
    ConfigError
        The file is missing though `strict`, does not parse, or wants a value that is not there.
    """
    path = config_path(folder, config_name)
    text: ConfigText | None = None
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read()
    except FileNotFoundError:
        if strict:
            raise ConfigError(
                f"failed to open text file for read {path}: No such file or directory",
                model=name,
                file=path,
            ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"failed to read text proto from {path}: {error}", model=name, file=path
        ) from error
    else:
        if values is None:
            text = ConfigText(source, source, path)
        else:
            text = fill_template(source, values, file=path, model=name)
    message = parse_pbtxt("" if text is None else text, model=name)
    history = ConfigHistory(text)
    history.note(ConfigStep.WRITTEN, message)
    return message, history


def prepare_config(
    message: Any,
    name: str,
    folder: str,
    *,
    strict: bool = False,
    history: ConfigHistory | None = None,
) -> None:
    """Complete a configuration with defaults, in place, and validate it.

    Parameters
    ----------
    strict
        Nothing will be completed later on, so inputs and outputs are validated now.
    history
        Takes note of what is done. An error is placed in its text.

    Raises
    ------
    ConfigError
        It is not valid.
    """
    history = ConfigHistory(None) if history is None else history
    try:
        check_agents(message, model_name=name)
        deduce_backend(message, model_name=name, first_version_files=_first_version_files(folder))
        history.note(ConfigStep.BACKEND, message, "the files of the model")
        fill_defaults(message, model_name=name)
        history.note(ConfigStep.DEFAULTS, message)
        validate_general(message, model_name=name, with_io=strict)
    except ConfigError as error:
        history.place(error)
        raise


def _first_version_files(folder: str) -> list[str]:
    """Files of the first sub-folder in lexicographic order; Triton takes any for a version."""
    subfolders = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    return os.listdir(subfolders[0]) if subfolders else []


def _refuse_unsupported(settings: ModelSettings) -> None:
    missing: str | None = None
    if settings.scheduler == "ensemble_scheduling" or (
        settings.scheduler == "sequence_batching" and not settings.is_iterative
    ):
        missing = settings.scheduler
    elif all(group.is_passive for group in settings.instance_groups):
        missing = "passive instance groups only, so that no instance would ever take a request"
    if missing is not None:
        raise UnsupportedError(
            f"model '{settings.name}' uses {missing}, which is not supported yet",
            model=settings.name,
        )


def _queue_of(settings: ModelSettings, mode: str) -> RequestQueue:
    is_inline, is_remote = mode == "inline", mode == "process"
    if settings.dynamic_batching is None:
        if is_remote:
            return RemoteQueue(settings.name, is_iterative=settings.is_iterative)
        return RequestQueue(settings.name, is_inline=is_inline, is_iterative=settings.is_iterative)
    return BatchQueue(
        settings.name,
        settings.dynamic_batching,
        settings.max_batch_size,
        is_inline=is_inline,
        is_remote=is_remote,
        equal_inputs=[i.name for i in settings.inputs if -1 in i.dims and not i.allow_ragged_batch],
        has_optional=any(i.is_optional for i in settings.inputs),
        is_decoupled=settings.is_decoupled,
        timer=TIMER,
    )


class AskedVersion(ServedVersion):
    """Of a model with `is_ready`; a plain `ServedVersion` is ready because it is there."""


class LoadedVersion:
    """One model version with its instances, ready to serve.

    Parameters
    ----------
    message, history
        From `prepare_config`; they are not changed, but completed in copies.
    name, folder, version
        The model, its folder and the number of the version folder.
    options, metrics
        Of the server.
    control
        The models of the server, for the model's code.
    environments
        Of the server.
    caller_memory
        Gives the memory that callers have inputs in.
    own_folder
        Is `folder` when it belongs to this load; let go when the version has ended.
    identifier, namespace
        What the repository knows the model by; by default its name, in no namespace.

    Attributes
    ----------
    readiness
        Asks the instances that have `is_ready`; None if none has.

    Raises
    ------
    TritonError
        The load failed; every instance that had been made is finalized.
    """

    readiness: VersionReadiness | None = None

    def __init__(
        self,
        message: Any,
        name: str,
        folder: str,
        version: int,
        options: Options,
        *,
        history: ConfigHistory,
        metrics: MetricRegistry,
        control: ModelControl,
        environments: Callable[[], EnvironmentCache],
        caller_memory: Callable[[], CallerMemory],
        own_folder: OverrideFolder | None = None,
        identifier: str = "",
        namespace: str = "",
    ) -> None:
        self.name = name
        self.identifier = identifier or name
        self._namespace = namespace
        self.version = version
        self.backend = resolve_backend(
            model_name=name,
            backend=message.backend,
            runtime=message.runtime,
            default_model_filename=message.default_model_filename,
            model_folder=folder,
            version=version,
            backend_directory=os.path.abspath(options.backend_directory),
        )
        code = ModelCode(name, version, folder, self.backend)
        parameters = {key: value.string_value for key, value in message.parameters.items()}
        setting = environment_setting(parameters, self.backend, folder)
        mode = options.execution_of(name, has_environment=setting is not None)
        environment = None
        if setting is not None:
            if mode != "process":
                raise _refuse_environment(setting, name, mode)
            environment = environments().prepare(setting, model_name=name)
        stubs = stub_settings(options, environment) if mode == "process" else None
        self.folder = folder
        self._prepared = message
        self._history = history.fork()

        def with_groups(message: Any, history: ConfigHistory) -> None:
            _resolve_groups(message, history, options.instance_kind_of(name))

        self._with_groups = with_groups
        message = _completed(message, self._history, code, options, stubs)
        self._completed = message
        self.settings = settings_of(message)
        _refuse_unsupported(self.settings)
        self._exit_timeout = options.exit_timeout
        self._queue = _queue_of(self.settings, mode)
        spec = InputSpec(
            name,
            self.settings.max_batch_size,
            [
                InputEntry(i.name, i.data_type, i.dims, i.reshape, i.is_optional)
                for i in self.settings.inputs
            ],
            tuple(dict.fromkeys(output.name for output in self.settings.outputs)),
            share_memory=options.share_memory,
            # Only tensors in CPU memory go to a stub.
            cpu_only=mode == "process"
            or self.settings.parameters.get("FORCE_CPU_ONLY_INPUT_TENSORS") != "no",
        )
        if stubs is not None:
            stubs = replace(stubs, callers=caller_memory())

        def make_instance(plan: InstancePlan) -> Instance:
            return _new_instance(plan, self._queue, stubs)

        def make_plans(settings: ModelSettings, control: ModelControl) -> list[InstancePlan]:
            return _plans(code, settings, options, metrics, control)

        self._make_instance, self._make_plans = make_instance, make_plans
        self.instances: list[Instance] = [
            make_instance(plan) for plan in make_plans(self.settings, control)
        ]
        self._sorts = _sorts_of(message)
        self._outage_lock = threading.Lock()
        if self._queue.is_remote:
            for instance in self.instances:
                instance.on_outage = self._look_at_outages
        self._own_folder = own_folder
        if own_folder is not None:
            own_folder.add_user(self)
        self._load_instances()
        self._note_readiness()
        kind = ServedVersion if self.readiness is None else AskedVersion
        self.served = kind(
            spec,
            self._queue,
            name,
            version,
            is_decoupled=self.settings.is_decoupled,
            stream_backlog=options.stream_backlog,
        )

    def _load_instances(self) -> None:
        try:
            _load(self.instances)
        except BaseException:
            self.stop()
            raise

    def _note_readiness(self) -> None:
        asked = [(i.plan.name, i.readiness) for i in self.instances if i.readiness is not None]
        self.readiness = VersionReadiness(self.name, self.version, asked) if asked else None

    # -- other instances ---------------------------------------------------------------

    def differs_in_instances(self, message: Any) -> bool:
        """Whether a configuration from `prepare_config` has other instance groups at most.

        The policy that chooses versions does not count. False for queues that cannot do without
        one of their instances.
        """
        if isinstance(self._queue, BatchQueue):
            return False
        return bool(_without_instances(self._prepared) == _without_instances(message))

    def begin_update(
        self, message: Any, history: ConfigHistory, control: ModelControl
    ) -> InstanceUpdate:
        """Load the instances that a configuration wants and that are not there yet.

        They take requests at once. What is there and has the same settings but for name and count
        is kept, under its name.

        Raises
        ------
        TritonError
            An instance failed to load; those that had been loaded are finalized.
        """
        grouped = type(message)()
        grouped.CopyFrom(message)
        grouped.runtime = self._completed.runtime
        history = history.fork()
        history.note(ConfigStep.BACKEND, grouped, f"the backend is {self.backend.model_file}")
        self._with_groups(grouped, history)

        def with_new_groups(before: Any) -> Any:
            """What a later step has made, with what is new in the groups."""
            made = _without_instances(before)
            made.instance_group.MergeFrom(grouped.instance_group)
            made.version_policy.CopyFrom(grouped.version_policy)
            return made

        history.go_on_as(self._history, with_new_groups)
        completed = with_new_groups(self._completed)
        settings = settings_of(completed)
        _refuse_unsupported(settings)
        left = list(zip(self._sorts, self.instances, strict=True))
        kept: list[Instance | None] = []
        sorts = _sorts_of(completed)
        plans = self._make_plans(settings, control)
        for sort in sorts:
            found = next((each for each in left if each[0] == sort), None)
            kept.append(None if found is None else found[1])
            if found is not None:
                left.remove(found)
        names = {instance.plan.name for instance in kept if instance is not None}
        fresh = []
        for index, (plan, instance) in enumerate(zip(plans, kept, strict=True)):
            if instance is None:
                name = _free_name(plan.name, names)
                names.add(name)
                kept[index] = made = self._make_instance(replace(plan, name=name))
                made.on_outage = self._look_at_outages if self._queue.is_remote else None
                fresh.append(made)
        update = InstanceUpdate(
            loaded=self,
            prepared=message,
            completed=completed,
            settings=settings,
            history=history,
            sorts=sorts,
            instances=[instance for instance in kept if instance is not None],
            fresh=fresh,
        )
        try:
            _load(fresh)
        except BaseException:
            update.give_up()
            raise
        return update

    def _look_at_outages(self) -> None:
        """Refuse requests while no instance is alive and attempts to start one fail."""
        with self._outage_lock:
            outages = [instance.outage for instance in self.instances]
            lasting = [outage for outage in outages if outage is not None and outage.is_lasting]
            refusal = None
            if len(lasting) == len(outages):
                # As it is now: an instance may come back before somebody is told.
                refusal = partial(_outage_error, self.name, lasting)
            self._queue.refusal = refusal
        if refusal is not None:
            self._queue.fail_queued(refusal)

    @property
    def outage(self) -> str | None:
        """Why no instance is alive; None if one is."""
        outages = [instance.outage for instance in self.instances]
        return None if None in outages else "; ".join(o.text for o in outages if o is not None)

    def close(self) -> int:
        """Take no more requests, and give those accepted ``exit_timeout`` from now.

        Does not wait. Returns the deadline for `finish`.
        """
        self._queue.close()
        return time.monotonic_ns() + int(self._exit_timeout * 1e9)

    def finish(self, deadline_ns: int) -> None:
        """Wait until what was accepted is served and every instance is finalized.

        What is not done at the deadline fails. Waits without threads of its own, since none
        can be started while the interpreter exits.
        """
        stuck = [instance for instance in self.instances if not instance.finish(deadline_ns)]
        if self._own_folder is not None:
            self._own_folder.remove_user(self)

        def nobody() -> UnavailableError:
            return UnavailableError(
                f"model '{self.name}' was stopped when none of its instances was there",
                model=self.name,
            )

        if not stuck:
            self._queue.fail_queued(nobody)
            return

        def error() -> UnavailableError:
            return UnavailableError(
                f"model '{self.name}' was stopped and did not answer within "
                f"{self._exit_timeout:g} s",
                model=self.name,
            )

        self._queue.fail_queued(error)
        self._queue.fail_running(error)
        for instance in stuck:
            instance.abandon()
        # Who only waited for response senders is free now, and is to be finalized.
        deadline_ns = time.monotonic_ns() + _GRACE_NS
        stuck = [instance for instance in stuck if not instance.finish(deadline_ns)]
        if not stuck:
            return
        _log.warning(
            "model '%s': instance(s) %s still run after %g s and are left behind",
            self.name,
            ", ".join(f"'{instance.plan.name}'" for instance in stuck),
            self._exit_timeout,
        )

    def stop(self) -> None:
        """Close and finish."""
        self.finish(self.close())

    @property
    def statistics(self) -> VersionStatistics:
        """What was served since the load."""
        return self._queue.statistics

    def statistics_json(self) -> dict[str, Any]:
        """`statistics` in Triton's JSON form; a new dict."""
        return {"name": self.name, "version": str(self.version), **self.statistics.to_dict()}

    @property
    def pending_count(self) -> int:
        """Requests that wait for an instance."""
        return self._queue.depth

    @property
    def metric_labels(self) -> dict[str, str]:
        """Labels of its series in Triton's own metrics."""
        labels = {"model": self.name, "version": str(self.version)}
        if self._namespace:
            labels["namespace"] = self._namespace
        return labels | {f"_{key}": value for key, value in self.settings.metric_tags.items()}

    def config(self) -> dict[str, Any]:
        """The completed configuration in Triton's JSON form; a new dict per call."""
        config: dict[str, Any] = json.loads(self.settings.json)
        return config

    def explain_config(self) -> ConfigExplanation:
        """Where each value of `config` came from."""
        return self._history.explain(f"model '{self.name}' version {self.version}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceUpdate:
    """A loaded version with other instances than before; from `LoadedVersion.begin_update`.

    Attributes
    ----------
    prepared, completed, settings, history
        Its configuration.
    instances, sorts
        All that it is to have; what must not change of each, if it is to be kept the next time.
    fresh
        Those of them that were made for it.
    """

    loaded: LoadedVersion
    prepared: Any
    completed: Any
    settings: ModelSettings
    history: ConfigHistory
    sorts: list[bytes]
    instances: list[Instance]
    fresh: list[Instance]

    def commit(self) -> LeavingInstances | None:
        """Make it last; returns the instances that are not wanted any more."""
        loaded = self.loaded
        surplus = [i for i in loaded.instances if i not in self.instances]
        loaded._prepared, loaded._completed = self.prepared, self.completed
        loaded.settings, loaded._history = self.settings, self.history
        loaded._sorts, loaded.instances = self.sorts, self.instances
        loaded._note_readiness()
        return LeavingInstances(loaded, surplus) if surplus else None

    def give_up(self) -> None:
        """Do without the new instances; waits until they are finalized."""
        if self.fresh:
            leaving = LeavingInstances(self.loaded, self.fresh)
            leaving.finish(leaving.close())


class LeavingInstances:
    """Instances that a loaded version goes on without.

    Attributes
    ----------
    name, identifier, version
        Of the loaded version.
    """

    def __init__(self, loaded: LoadedVersion, instances: list[Instance]) -> None:
        self.name, self.version = loaded.name, loaded.version
        self.identifier = loaded.identifier
        self._exit_timeout = loaded._exit_timeout
        self._instances = instances

    def close(self) -> int:
        """Take no more requests; returns the deadline for `finish`. Does not wait."""
        for instance in self._instances:
            instance.dismiss()
        return time.monotonic_ns() + int(self._exit_timeout * 1e9)

    def finish(self, deadline_ns: int) -> None:
        """Wait until what they were at is done and they are finalized."""
        stuck = [instance for instance in self._instances if not instance.finish(deadline_ns)]
        for instance in stuck:
            instance.abandon()
        if stuck:
            _log.warning(
                "model '%s': instance(s) %s are left behind",
                self.name,
                ", ".join(f"'{instance.plan.name}'" for instance in stuck),
            )


_OF_INSTANCES = ("instance_group", "version_policy")


def _without_instances(message: Any) -> Any:
    rest = type(message)()
    rest.CopyFrom(message)
    for part in _OF_INSTANCES:
        rest.ClearField(part)
    return rest


def _sorts_of(message: Any) -> list[bytes]:
    """For each instance what must not change if it is to be kept, in the order of `_plans`."""
    sorts: list[bytes] = []
    for group in message.instance_group:
        if group.passive:
            continue
        rest = type(group)()
        rest.CopyFrom(group)
        for part in ("name", "count", "gpus"):
            rest.ClearField(part)
        text = rest.SerializeToString(deterministic=True)
        for _ in range(group.count):
            sorts.extend(b"%d %s" % (device, text) for device in group.gpus or (0,))
    return sorts


def _free_name(name: str, taken: set[str]) -> str:
    """A name of the same group that no other instance has; on Triton two may have one."""
    group, _, index = name.rpartition("_")
    number = int(index)
    while f"{group}_{number}" in taken:
        number += 1
    return f"{group}_{number}"


def _load(instances: Sequence[Instance]) -> None:
    """Load instances side by side; raises what the first one that failed did."""
    for instance in instances:
        instance.start()
    failures = []
    for instance in instances:
        try:
            instance.wait_loaded()
        except BaseException as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _outage_error(model_name: str, outages: list[Outage]) -> UnavailableError:
    """For requests while no instance is alive, each of them for its reason."""
    texts = "; ".join(outage.text for outage in outages)
    error = UnavailableError(
        f"model '{model_name}' has no instance alive: {texts}", model=model_name
    )
    error.__cause__ = outages[0].cause
    return error


def _resolve_groups(message: Any, history: ConfigHistory, kind: str | None) -> None:
    """Name the instance groups and decide where they are; `kind` is the option's."""
    if kind is not None:
        override_instance_kind(message, kind)
        history.note(ConfigStep.INSTANCE_KIND, message, f"instance_kind={kind!r}")
    resolve_instance_groups(message)
    history.note(ConfigStep.INSTANCE_GROUPS, message, "no GPU here")


def _completed(
    message: Any,
    history: ConfigHistory,
    code: ModelCode,
    options: Options,
    stubs: StubSettings | None,
) -> Any:
    completed = type(message)()
    completed.CopyFrom(message)
    completed.runtime = code.backend.runtime
    history.note(ConfigStep.BACKEND, completed, f"the backend is {code.backend.model_file}")
    _resolve_groups(completed, history, options.instance_kind_of(code.model_name))
    validate_parameters(completed)
    if not options.strict_model_config:
        returned = None
        if stubs is not None:
            # A process takes as long to start as the instance itself.
            if not has_no_auto_complete(code.backend.model_file):
                from pytriton_lite._instance.process import auto_complete_in_stub

                returned = auto_complete_in_stub(code, to_json(completed), stubs)
        else:
            returned = auto_complete(code, to_json(completed))
        if returned is not None:
            completed = merge_completed(completed, returned)
            history.note(ConfigStep.COMPLETED, completed, str(code.backend.model_file))
            fill_defaults(completed, model_name=code.model_name)
            history.note(ConfigStep.DEFAULTS, completed)
            validate_general(completed, model_name=code.model_name)
    validate_io(completed)
    check_model_files(completed, code.model_folder)
    return completed


def _plans(
    code: ModelCode,
    settings: ModelSettings,
    options: Options,
    metrics: MetricRegistry,
    control: ModelControl,
) -> list[InstancePlan]:
    check: Callable[[tuple[str, ...], int, Any], None] | None = None
    if options.strict_outputs:
        check = make_output_check(settings)
    reshapes = {o.name: o.dims for o in settings.outputs if o.reshape is not None}

    def plan(group: InstanceGroupSettings, index: int, device_id: int) -> InstancePlan:
        return InstancePlan(
            code=code,
            name=f"{group.name}_{index}",
            kind=group.kind,
            device_id=device_id,
            config_json=settings.json,
            output_names=tuple(dict.fromkeys(output.name for output in settings.outputs)),
            max_batch_size=settings.max_batch_size,
            is_decoupled=settings.is_decoupled,
            is_iterative=settings.is_iterative,
            share_memory=options.share_memory,
            check_outputs=check,
            output_reshapes=reshapes or None,
            metrics=metrics,
            control=control,
        )

    return [
        plan(group, index, device_id)
        for group in settings.instance_groups
        if not group.is_passive
        for index in range(group.count)
        for device_id in (group.gpus or (0,))
    ]
