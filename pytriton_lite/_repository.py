"""The model repository: folders, versions, states, and which loaded version a call reaches."""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, NamedTuple

from google.protobuf import text_format

from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._config.explain import ConfigHistory, ConfigStep
from pytriton_lite._config.json_form import from_json
from pytriton_lite._config.model_config import select_versions, version_policy_of
from pytriton_lite._core.calls import Endpoint
from pytriton_lite._environment import EnvironmentCache
from pytriton_lite._index import ModelIndexEntry, ModelState
from pytriton_lite._instance.readiness import why_not_ready
from pytriton_lite._ipc.caller_memory import CallerMemory
from pytriton_lite._loading import LoadedVersion, prepare_config, read_config
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite._options import ModelControlMode, Options
from pytriton_lite._overrides import FileTimes, OverrideFolder, file_times, read_parameters
from pytriton_lite._poller import Poller
from pytriton_lite.errors import (
    AlreadyExistsError,
    ConfigError,
    InternalError,
    InvalidArgumentError,
    ModelLoadError,
    NotFoundError,
    TritonError,
    UnavailableError,
    UnsupportedError,
)

_log = logging.getLogger("pytriton_lite.server")

DUPLICATE = "model appears in two or more repositories"

MODEL_CONTROL_OFF = "explicit model load / unload is not allowed if polling is enabled"

# Folders of a model that are no versions and that Triton passes over in silence.
_NOT_VERSIONS = frozenset({"configs", "initial_state", "warmup", "__pycache__"})


# A limit that is none: some 30 years.
_NO_LIMIT_NS = 10**18


class _Phase(Enum):
    STARTING = 0
    RUNNING = 1
    STOPPING = 2


@dataclass(slots=True)
class _Version:
    state: ModelState
    reason: str = ""
    loaded: LoadedVersion | None = None
    # What it was, as long as that serves its last requests; while UNLOADING, the reason why.
    ending: LoadedVersion | None = None

    def shown(self) -> tuple[ModelState, str]:
        """State and reason for the index, where a version without a living instance is not ready.

        Its state stays READY: it comes back by itself.
        """
        loaded = self.loaded
        outage = None if loaded is None else loaded.outage
        if self.state is ModelState.READY and outage is not None:
            return ModelState.UNAVAILABLE, outage
        return self.state, self.reason


@dataclass(slots=True)
class _Model:
    versions: dict[int, _Version] = field(default_factory=dict)
    # The files as what is in force was made of them; None when a load call gave all files.
    files: FileTimes | None = None
    # The files as the last poll, or the load at start, has found them.
    polled: FileTimes | None = None
    # One load or unload of a model at a time, the first one here; the others wait for their turn.
    operations: deque[_Operation] = field(default_factory=deque)


class _Operation:
    """A load or unload of one model.

    Parameters
    ----------
    parent
        The operation that waits for this one: a model asked for it in its `initialize`.
    """

    def __init__(self, name: str, parent: _Operation | None = None) -> None:
        self.name = name
        self.parent = parent
        self.is_done = False

    def lineage(self) -> Iterator[_Operation]:
        """Itself, and all that wait for it."""
        operation: _Operation | None = self
        while operation is not None:
            yield operation
            operation = operation.parent


class _Polled(NamedTuple):
    """A model as it was found: a prepared configuration, and where its files are."""

    message: Any
    history: ConfigHistory
    folder: str
    own_folder: OverrideFolder | None
    files: FileTimes | None = None


class _PollError(Exception):
    """A model could not be read. Its text is Triton's, which has the reason in its log only."""

    def __init__(self, name: str, reason: TritonError) -> None:
        super().__init__(f"failed to load '{name}', failed to poll from model repository")
        self.reason = reason


class Repository:
    """Models of a server: finds, loads and unloads them.

    Thread-safe. `endpoint` gives what a `Model` object holds; its `served` changes when a
    version is loaded, replaced or unloaded. `metrics` are the custom metrics of the models.

    A load works outside of the lock, since it runs model code; `_turn` keeps two operations on
    one model apart. What a load replaces, or an unload ends, is in `_ending` until somebody has
    waited for its last requests and its `finalize`.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        # Path -> names of its models that differ from those of their folders, by folder. Replaced,
        # never changed, as the next one.
        self._repositories: dict[str, dict[str, str]] = {path: {} for path in options.repositories}
        self.metrics = MetricRegistry(is_enabled=options.metrics)
        self._environments = EnvironmentCache()
        # This dict and that of a model's versions are replaced, never changed, so that readers
        # need no lock.
        self._models: dict[str, _Model] = {}
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._lock = threading.RLock()
        self._phase = _Phase.STARTING
        self._turns = threading.Condition(self._lock)
        self._waiting: set[_Operation] = set()
        self._ending: set[LoadedVersion] = set()
        self._background: list[threading.Thread] = []
        self._polling = threading.Lock()  # one poll at a time
        self._poller = Poller(self.poll, options.repository_poll_secs)
        self._caller_memory: CallerMemory | None = None

    def caller_memory(self) -> CallerMemory:
        """Memory for inputs that the stubs of all models can read; made when first asked for."""
        with self._lock:
            if self._caller_memory is None:
                self._caller_memory = CallerMemory.create_largest()
            return self._caller_memory

    # -- folders -----------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of all model folders, sorted. A name in two repositories is listed once."""
        return sorted(self._folders())

    def _folders(self) -> dict[str, list[str]]:
        """Folders of each model; where there are several, none is used."""
        found: dict[str, list[str]] = {}
        for repository, mapping in self._repositories.items():
            try:
                entries = [entry for entry in os.scandir(repository) if entry.is_dir()]
            except OSError as error:
                raise InvalidArgumentError(
                    f"model repository '{repository}' cannot be read: {error.strerror}"
                ) from error
            for entry in entries:
                found.setdefault(mapping.get(entry.name, entry.name), []).append(entry.path)
        return found

    def _folder(self, name: str) -> str:
        _check_name(name)
        folders = [
            os.path.join(repository, folder)
            for repository, mapping in self._repositories.items()
            for folder in (name, *mapping)
            if mapping.get(folder, folder) == name
        ]
        found = [folder for folder in folders if os.path.isdir(folder)]
        if len(found) > 1:
            raise InvalidArgumentError(
                f"failed to poll model '{name}': not unique across all model repositories",
                model=name,
            )
        if not found:
            raise NotFoundError(
                f"there is no folder of model '{name}', searched: "
                + " ".join(f"'{folder}'" for folder in folders)
                + self._nearest(name),
                model=name,
            )
        return found[0]

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), 1)
        return f"; did you mean '{near[0]}'?" if near else ""

    def register(self, path: str, name_mapping: Mapping[str, str]) -> None:
        """Add a repository; its models are loaded on request. Texts are Triton's.

        Raises
        ------
        UnsupportedError
            The server does not run in explicit mode.
        InvalidArgumentError
            There is no such folder.
        AlreadyExistsError
            The repository is registered, or another model has got one of the names by a mapping.
        """
        self._check_registration("registration")
        if not os.path.isdir(path):
            raise InvalidArgumentError(f"failed to register '{path}', repository not found")
        added = os.path.abspath(path)
        with self._lock:
            if added in self._repositories:
                raise AlreadyExistsError(f"model repository '{path}' has already been registered")
            taken = {name for given in self._repositories.values() for name in given.values()}
            for name in name_mapping.values():
                _check_name(name)
                if name in taken:
                    raise AlreadyExistsError(
                        f"failed to register '{name}', there is a conflicting mapping for '{name}'"
                    )
                taken.add(name)
            self._repositories = {**self._repositories, added: dict(name_mapping)}
        _log.info("Model repository registered: %s", path)

    def unregister(self, path: str) -> None:
        """Forget a repository; what is loaded from it stays loaded.

        Raises
        ------
        UnsupportedError
            The server does not run in explicit mode.
        InvalidArgumentError
            It is not registered.
        """
        self._check_registration("unregistration")
        removed = os.path.abspath(path)
        with self._lock:
            if removed not in self._repositories:
                raise InvalidArgumentError(f"failed to unregister '{path}', repository not found")
            self._repositories = {
                known: mapping for known, mapping in self._repositories.items() if known != removed
            }
        _log.info("Model repository unregistered: %s", path)

    def _check_registration(self, what: str) -> None:
        if self._options.model_control_mode is not ModelControlMode.EXPLICIT:
            raise UnsupportedError(
                f"repository {what} is not allowed if model control mode is not EXPLICIT"
            )

    # -- loading -----------------------------------------------------------------------

    def start(self) -> None:
        """Load the models that the control mode asks for at start.

        Raises
        ------
        ModelLoadError
            At least one failed; the others stay loaded.
        """
        names: Iterable[str] = self.names()
        if self._options.model_control_mode is ModelControlMode.EXPLICIT:
            wanted = list(dict.fromkeys(self._options.startup_models))
            names = names if wanted == ["*"] else wanted
        failures = self._load_all(names)
        with self._lock:
            self._phase = _Phase.RUNNING
        if self._options.model_control_mode is ModelControlMode.POLL:
            self._poller.start()
        if failures:
            lines = "".join(
                f"\n  {error.model}: {error.code.status}: {error}" for error in failures
            )
            raise ModelLoadError(f"failed to load all models:{lines}", failures)

    def _load_all(self, names: Iterable[str]) -> list[TritonError]:
        """Load models side by side; returns what went wrong."""
        from concurrent.futures import ThreadPoolExecutor

        names = list(names)
        elsewhere = [name for name in names if self._options.execution_of(name) != "inline"]
        here = [name for name in names if name not in elsewhere]
        failures: list[TritonError] = []

        def load(name: str) -> None:
            try:
                self.load(name)
            except ModelLoadError as error:
                failures.extend(e for e in error.exceptions if isinstance(e, TritonError))

        with ThreadPoolExecutor(
            max(1, self._options.model_load_thread_count), thread_name_prefix="model-load"
        ) as pool:
            list(pool.map(load, elsewhere))
        # Inline models load on the thread that will debug them: this one.
        for name in here:
            load(name)
        return failures

    def poll(self) -> None:
        """Load models that are new or changed, and unload those that have gone.

        What fails to load is logged; what was loaded before then stays. A model whose load failed
        is tried again when its files change, one whose configuration cannot be read each time
        (both observed on 2.51).

        Raises
        ------
        UnavailableError
            The server does not run in poll mode, or does not run.
        """
        if self._options.model_control_mode is not ModelControlMode.POLL:
            raise UnavailableError("polling is disabled")
        if self._phase is not _Phase.RUNNING:
            raise UnavailableError("Server not ready")
        with self._polling:
            self._poll_all()

    def _poll_all(self) -> None:
        found = self._folders()
        changed = []
        for name, folders in sorted(found.items()):
            model = self._models.get(name)
            if len(folders) > 1:
                _log.error(
                    "failed to poll model '%s': not unique across all model repositories", name
                )
            elif model is None or model.polled != file_times(folders[0]):
                changed.append(name)
        self._load_all(changed)
        for name, model in self._models.items():
            if len(found.get(name, ())) == 1:
                continue
            with self._turn(model, _Operation(name)):
                ending = self._take_out(name, model)
            if ending:
                self._in_background(partial(self._finish, ending, _NO_LIMIT_NS), f"unload-{name}")

    def load(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        """Load a model, or load it anew; the old version serves until the new one is ready.

        Returns when the old version has ended.

        Raises
        ------
        ModelLoadError
            With Triton's text of a failed load; a version loaded before stays as it was.
        """
        operation = _Operation(name)
        try:
            ending = self._load(name, parameters or {}, operation)
        except _PollError as error:
            raise ModelLoadError(f"{error}: {error.reason}", [error.reason]) from error.reason
        self._finish(ending)

    def _load(
        self, name: str, parameters: Mapping[str, object], operation: _Operation
    ) -> list[LoadedVersion]:
        """Do a load; returns what it has replaced, which has not ended."""
        with self._lock:
            self._check_loads_models(name)
            model = self._models.get(name)
            if model is None:
                model = _Model()
                self._models = {**self._models, name: model}
        with self._turn(model, operation):
            self._check_loads_models(name)
            if not parameters and self._is_unmodified(name, model):
                return []
            try:
                polled = self._poll(name, parameters, operation)
                model.polled = polled.files
            except TritonError as error:
                model.polled = None
                _log.error("Poll failed for model '%s': %s", name, error)
                raise _PollError(name, error) from error
            try:
                numbers = select_versions(
                    version_policy_of(polled.message), _version_folders(name, polled.folder)
                )
                if not numbers:
                    none = InvalidArgumentError(
                        "at least one version must be available under the version policy of model "
                        f"'{name}'",
                        model=name,
                    )
                    raise ModelLoadError(f"load failed for model '{name}': {none}\n", [none])
                return self._load_versions(name, polled, model, numbers, operation)
            finally:
                if polled.own_folder is not None:
                    polled.own_folder.remove_user(operation)

    def _check_loads_models(self, name: str) -> None:
        if self._phase is _Phase.STOPPING:
            raise UnavailableError("the server is stopping and loads no models", model=name)

    @contextlib.contextmanager
    def _turn(self, model: _Model, operation: _Operation) -> Iterator[None]:
        """Wait until all earlier operations on the model are done, and keep later ones waiting."""
        with self._lock:
            if self._waits_for_itself(operation, model):
                raise UnavailableError(
                    f"model '{operation.name}' cannot be loaded here: its load would wait for the "
                    "one that this code is part of",
                    model=operation.name,
                )
            model.operations.append(operation)
            self._waiting.add(operation)
            try:
                self._turns.wait_for(lambda: model.operations[0] is operation)
            except BaseException:
                model.operations.remove(operation)
                self._turns.notify_all()
                raise
            finally:
                self._waiting.remove(operation)
        try:
            yield
        finally:
            with self._lock:
                operation.is_done, operation.parent = True, None
                model.operations.remove(operation)
                self._turns.notify_all()

    def _waits_for_itself(self, operation: _Operation, model: _Model) -> bool:
        """Whether one of the operations before this one waits for it, through whatever others."""
        ours = set(operation.lineage())
        seen: set[_Operation] = set()
        earlier = list(model.operations)
        while earlier:
            other = earlier.pop()
            if other in ours:
                return True
            if other in seen:
                continue
            seen.add(other)
            for waiting in self._waiting:
                if other in waiting.lineage():
                    queue = self._models[waiting.name].operations
                    earlier.extend(list(queue)[: queue.index(waiting)])
        return False

    def _poll(self, name: str, parameters: Mapping[str, object], operation: _Operation) -> _Polled:
        given = read_parameters(name, parameters)
        strict = self._options.strict_model_config
        if given.files:
            _check_name(name)
            message, history = _read_override(name, given.config or "")
            own = OverrideFolder(name, given.files, text_format.MessageToString(message))
            own.add_user(operation)
            try:
                prepare_config(message, name, own.path, strict=strict, history=history)
            except BaseException:
                own.remove_user(operation)
                raise
            return _Polled(message, history, own.path, own)
        folder = self._folder(name)
        files = file_times(folder)  # before they are read
        if given.config is not None:
            message, history = _read_override(name, given.config)
        else:
            message, history = read_config(
                name,
                folder,
                strict=strict,
                config_name=self._options.model_config_name,
                values=self._options.substitute_of(name),
            )
            if os.path.basename(folder) != name:
                message.name = name  # a mapping names it, whatever its configuration says
                history.note(ConfigStep.NAMED, message, "name_mapping of the repository")
        prepare_config(message, name, folder, strict=strict, history=history)
        return _Polled(message, history, folder, None, files)

    def _is_unmodified(self, name: str, model: _Model) -> bool:
        """Whether a load without parameters leaves a loaded model as it is.

        So it is on Triton, as long as no file of the model is modified; a configuration that an
        earlier load call gave then stays in force.
        """
        if model.files is None or all(v.loaded is None for v in model.versions.values()):
            return False
        try:
            return file_times(self._folder(name)) == model.files
        except TritonError:
            return False  # the folder has gone, which the load will say

    def _load_versions(
        self,
        name: str,
        polled: _Polled,
        model: _Model,
        numbers: list[int],
        operation: _Operation,
    ) -> list[LoadedVersion]:
        fresh: dict[int, LoadedVersion] = {}
        failures: dict[int, TritonError] = {}
        try:
            for number in numbers:
                self._note_loading(model, number)
                try:
                    fresh[number] = self._make_version(name, polled, number, operation)
                except TritonError as error:
                    if isinstance(error, ConfigError):
                        polled.history.place(error)
                    failures[number] = error
                except Exception as error:
                    failures[number] = InternalError(
                        f"defect in pytriton_lite while loading model '{name}', please report it: "
                        f"{type(error).__name__}: {error}",
                        model=name,
                    )
                    failures[number].__cause__ = error
            if failures:
                raise self._failed_load(name, model, failures)
            ending = self._switch(name, model, fresh)
            model.files = polled.files
        except BaseException:
            # The user's Ctrl-C included: nobody would ever end these.
            for loaded in fresh.values():
                loaded.stop()
            with self._lock:
                for version in model.versions.values():
                    if version.state is ModelState.LOADING:
                        version.state, version.reason = ModelState.UNAVAILABLE, "unloaded"
            raise
        _log.info("model '%s' version(s) %s ready", name, ", ".join(map(str, numbers)))
        return ending

    def _make_version(
        self, name: str, polled: _Polled, number: int, operation: _Operation
    ) -> LoadedVersion:
        retries = self._options.model_load_retry_count
        while True:
            try:
                return LoadedVersion(
                    polled.message,
                    name,
                    polled.folder,
                    number,
                    self._options,
                    history=polled.history,
                    metrics=self.metrics,
                    control=_Control(self, operation),
                    environments=self._environments,
                    caller_memory=self.caller_memory,
                    own_folder=polled.own_folder,
                )
            except Exception as error:
                if retries <= 0 or self._phase is _Phase.STOPPING:
                    raise
                retries -= 1
                _log.warning("loading '%s' version %d again after: %s", name, number, error)

    def _note_loading(self, model: _Model, number: int) -> None:
        with self._lock:
            version = model.versions.get(number)
            if version is None:
                version = _Version(ModelState.UNKNOWN)
                model.versions = {**model.versions, number: version}
            if version.loaded is None:
                version.state, version.reason = ModelState.LOADING, ""

    def _failed_load(
        self, name: str, model: _Model, failures: dict[int, TritonError]
    ) -> ModelLoadError:
        """Note a failed load in the index; returns the error to raise."""
        text = ""
        for number, error in sorted(failures.items()):
            reason = f"{error.code.status}: {error}"
            _log.error("failed to load '%s' version %d: %s", name, number, reason)
            text += f"version {number} is at UNAVAILABLE state: {reason};"
            with self._lock:
                version = model.versions[number]
                if version.loaded is None:
                    version.state, version.reason = ModelState.UNAVAILABLE, reason
        failure = ModelLoadError(f"load failed for model '{name}': {text}\n", [*failures.values()])
        failure.__cause__ = next(iter(failures.values()))
        return failure

    def _switch(
        self, name: str, model: _Model, fresh: dict[int, LoadedVersion]
    ) -> list[LoadedVersion]:
        """Let new versions serve; returns those that served before."""
        with self._lock:
            self._check_loads_models(name)
            ending = []
            for number, loaded in fresh.items():
                version = model.versions[number]
                if version.loaded is not None:
                    ending.append(version.loaded)
                    version.ending = version.loaded
                # In this order: who looks without the lock finds one of the two ready.
                version.loaded, version.state, version.reason = loaded, ModelState.READY, ""
            self._ending.update(ending)
            ending += self._withdraw(model, fresh)
            self._refresh_endpoints(name)
        return ending

    def _withdraw(self, model: _Model, but: Container[int] = ()) -> list[LoadedVersion]:
        """Take loaded versions from a model, all `but` some; called with the lock."""
        ending = []
        for number, version in model.versions.items():
            if version.loaded is not None and number not in but:
                ending.append(version.loaded)
                version.loaded, version.ending = None, version.loaded
                version.state, version.reason = ModelState.UNLOADING, ""
        self._ending.update(ending)
        return ending

    def _finish(self, ending: list[LoadedVersion], limit_ns: int | None = None) -> None:
        """Wait until withdrawn versions have ended; without a limit, ``exit_timeout``."""
        deadlines = [loaded.close() for loaded in ending]
        if limit_ns is not None:
            deadlines = [time.monotonic_ns() + limit_ns] * len(ending)
        for loaded, deadline_ns in zip(ending, deadlines, strict=True):
            loaded.finish(deadline_ns)
            with self._lock:
                self._ending.discard(loaded)
                version = self._models[loaded.name].versions[loaded.version]
                if version.ending is loaded:
                    version.ending = None
                    if version.state is ModelState.UNLOADING:
                        version.state, version.reason = ModelState.UNAVAILABLE, "unloaded"

    def _in_background(self, function: partial[None], name: str) -> None:
        """Run a function on a thread that `stop` waits for; while it stops, do nothing.

        A daemon: what it waits for may never end, and `stop` gives up at some time.
        """
        with self._lock:
            if self._phase is _Phase.STOPPING:
                return
            thread = threading.Thread(target=function, name=name, daemon=True)
            self._background = [t for t in self._background if t.is_alive()] + [thread]
            thread.start()

    def unload(self, name: str, *, wait: bool) -> None:
        """Stop serving a model; unknown names are no error, as on Triton."""
        model = self._models.get(name)
        if model is None:
            return
        with self._turn(model, _Operation(name)):
            ending = self._take_out(name, model)
        if wait or self._options.execution_of(name) == "inline":
            self._finish(ending)
        elif ending:
            self._in_background(partial(self._finish, ending, _NO_LIMIT_NS), f"unload-{name}")

    def _take_out(self, name: str, model: _Model) -> list[LoadedVersion]:
        with self._lock:
            ending = [] if self._phase is _Phase.STOPPING else self._withdraw(model)
            model.files = model.polled = None
            for version in model.versions.values():
                if version.state is ModelState.UNAVAILABLE:
                    version.reason = "unloaded"  # whatever it was, it does not matter any more
            self._refresh_endpoints(name)
        return ending

    # -- for model code ----------------------------------------------------------------

    def _check_control(self, *, changes_models: bool = True) -> None:
        """Refuse what model code asks for at the wrong time, or in the wrong mode."""
        if self._phase is not _Phase.RUNNING:
            raise UnavailableError("Server not ready")
        if changes_models and self._options.model_control_mode is not ModelControlMode.EXPLICIT:
            raise UnavailableError(MODEL_CONTROL_OFF)

    def load_for_model(
        self, name: str, parameters: Mapping[str, str | bytes], parent: _Operation | None
    ) -> None:
        """`load`, without waiting for the end of the old version, which may be the caller."""
        self._check_control()
        operation = _Operation(name, parent)
        try:
            ending = self._load(name, parameters, operation)
        except _PollError as error:
            raise ModelLoadError(str(error), [error.reason]) from error.reason
        if ending:
            self._in_background(partial(self._finish, ending, _NO_LIMIT_NS), f"unload-{name}")

    def unload_for_model(self, name: str) -> None:
        """`unload`, all in the background."""
        self._check_control()
        with self._lock:
            model = self._models.get(name)
            if model is None:
                return
            if model.operations:
                self._in_background(partial(self._unload_later, name, model), f"unload-{name}")
                return
            ending = self._take_out(name, model)
        if ending:
            self._in_background(partial(self._finish, ending, _NO_LIMIT_NS), f"unload-{name}")

    def _unload_later(self, name: str, model: _Model) -> None:
        with self._turn(model, _Operation(name)):
            ending = self._take_out(name, model)
        self._finish(ending, _NO_LIMIT_NS)

    def is_ready_for_model(self, name: str, version: int) -> bool:
        """Whether a version is ready; for -1, whether any is."""
        self._check_control(changes_models=False)
        loaded = self._ready(name, version)
        return loaded is not None and loaded.outage is None

    # -- end ---------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more requests, let those in flight finish, and unload everything."""
        with self._lock:
            self._phase = _Phase.STOPPING
            for model in self._models.values():
                self._withdraw(model)
            for name in self._models:
                self._refresh_endpoints(name)
            ending = list(self._ending)
        until = time.monotonic() + self._options.exit_timeout
        self._poller.stop()
        # Those that unloads in the background wait for are among them: their time is limited now.
        self._finish(ending)
        with self._lock:
            # Loads end what they have made, when they find that the server stops.
            self._turns.wait_for(
                lambda: not any(model.operations for model in self._models.values()),
                max(0.0, until - time.monotonic()),
            )
            background = self._background
        for thread in background:
            thread.join(max(0.0, until - time.monotonic()))
        self._poller.join(max(0.0, until - time.monotonic()))
        self._environments.close()
        with self._lock:
            self._caller_memory = None  # arrays in it keep it

    # -- who answers -------------------------------------------------------------------

    def endpoint(self, name: str, version: int) -> Endpoint:
        """Where calls to a model go; `version` -1 means the greatest ready one."""
        with self._lock:
            key = (name, version)
            if key not in self._endpoints:
                self._endpoints[key] = Endpoint(partial(self._explain, name, version))
        self._refresh_endpoints(name)
        return self._endpoints[key]

    def _refresh_endpoints(self, name: str) -> None:
        with self._lock:
            for (model_name, version), endpoint in self._endpoints.items():
                if model_name == name:
                    loaded = self._ready(name, version)
                    endpoint.served = None if loaded is None else loaded.served

    def _ready(self, name: str, version: int) -> LoadedVersion | None:
        model = self._models.get(name)
        if model is None:
            return None
        ready = {n: v.loaded for n, v in model.versions.items() if v.state is ModelState.READY}
        return ready.get(max(ready, default=0) if version == -1 else version)

    def _explain(self, name: str, version: int) -> TritonError:
        """Why nobody answers; texts of Triton."""
        if self._phase is _Phase.STOPPING:
            return UnavailableError(
                "Server is stopping, scheduler for model has stopped accepting new inference "
                "requests",
                model=name,
            )
        model = self._models.get(name)
        if model is None or not model.versions:
            return NotFoundError(f"Request for unknown model: '{name}' is not found", model=name)
        if version == -1:
            return NotFoundError(
                f"Request for unknown model: '{name}' has no available versions", model=name
            )
        if version not in model.versions:
            return NotFoundError(
                f"Request for unknown model: '{name}' version {version} is not found", model=name
            )
        return UnavailableError(
            f"Request for unknown model: '{name}' version {version} is not at ready state",
            model=name,
        )

    def get(self, name: str, version: int) -> LoadedVersion:
        """The loaded version that a call reaches; raises when there is none."""
        loaded = self._ready(name, version)
        if loaded is None:
            raise self._explain(name, version)
        return loaded

    def state(self, name: str, version: int) -> tuple[ModelState, str]:
        """State and reason of a model; of its greatest version for -1."""
        model = self._models.get(name)
        if model is None or not model.versions:
            return ModelState.UNKNOWN, ""
        if version == -1:
            ready = self._ready(name, -1)
            version = max(model.versions) if ready is None else ready.version
        entry = model.versions.get(version)
        return (ModelState.UNKNOWN, "") if entry is None else entry.shown()

    def why_not_ready(self, name: str, version: int) -> TritonError | None:
        """Why a call would not be taken, or what the model's `is_ready` has against it."""
        while True:
            loaded = self._ready(name, version)
            if loaded is None:
                return self._explain(name, version)
            if loaded.readiness is None:
                return None
            errors = why_not_ready([loaded.readiness])
            # Else it was replaced or unloaded meanwhile, which ended the question.
            if self._ready(name, version) is loaded:
                return errors[0] if errors else None

    def ready_versions(self, name: str) -> list[int]:
        """Numbers of the ready versions, ascending."""
        model = self._models.get(name)
        entries = {} if model is None else model.versions
        return sorted(n for n, v in entries.items() if v.state is ModelState.READY)

    def loaded_versions(self) -> list[LoadedVersion]:
        """All loaded versions, in load order."""
        return [
            v.loaded
            for m in self._models.values()
            for v in m.versions.values()
            if v.loaded is not None
        ]

    def backends(self) -> list[ResolvedBackend]:
        """Backends of the loaded versions, without repeats, in load order."""
        return list({v.backend.name: v.backend for v in self.loaded_versions()}.values())

    def index(self) -> list[ModelIndexEntry]:
        """The repository index: every model folder and every version ever loaded, sorted.

        A name in several repositories has one entry, without a version, that says so. A model made
        of files alone, without a folder in a repository, is not in it (observed on 2.51).
        """
        entries = []
        for name, folders in sorted(self._folders().items()):
            model = self._models.get(name)
            if len(folders) > 1:
                entries.append(ModelIndexEntry(name, None, ModelState.UNAVAILABLE, DUPLICATE))
            elif model is None or not model.versions:
                entries.append(ModelIndexEntry(name, None, ModelState.UNKNOWN, ""))
            else:
                for number, version in sorted(model.versions.items()):
                    entries.append(ModelIndexEntry(name, number, *version.shown()))
        return entries

    def all_ready(self) -> bool:
        """Whether every loaded model is ready, Triton's strict readiness.

        Every version is READY, with an `is_ready` that agrees, or was unloaded on purpose. Without
        strict readiness it does not matter.
        """
        if not self._options.strict_readiness:
            return True
        while self._are_states_ready():
            loaded = self.loaded_versions()
            asked = [v.readiness for v in loaded if v.readiness is not None]
            errors = why_not_ready(asked) if asked else []
            if not asked or self.loaded_versions() == loaded:
                return not errors
        return False

    def _are_states_ready(self) -> bool:
        return all(
            version.state is ModelState.READY or version.reason == "unloaded"
            for model in self._models.values()
            for version in model.versions.values()
        )


def _read_override(name: str, config: str) -> tuple[Any, ConfigHistory]:
    """The configuration that a load call gives."""
    message = from_json(config, model=name)
    history = ConfigHistory(None, load_call=config)
    history.note(ConfigStep.WRITTEN, message)
    return message, history


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgumentError(
            "Model name cannot be empty. Please enter a valid name to deploy."
        )
    if "/" in name or name == "..":
        raise InvalidArgumentError(
            f"invalid model name '{name}', model name must not contain path traversal characters"
        )


def _version_folders(name: str, folder: str) -> list[int]:
    """Numbers of the version folders of a model."""
    numbers = []
    for entry in os.scandir(folder):
        if not entry.is_dir() or entry.name in _NOT_VERSIONS:
            continue
        if not (entry.name.isascii() and entry.name.isdigit()):
            _log.warning(
                "model '%s': ignore version directory '%s' which fails to convert to integral "
                "number",
                name,
                entry.name,
            )
        elif len(entry.name) > 1 and entry.name[0] == "0":
            _log.warning(
                "model '%s': ignore version directory '%s' which contains leading zeros in its "
                "directory name",
                name,
                entry.name,
            )
        else:
            numbers.append(int(entry.name))
    return numbers


class _Control:
    """The `ModelControl` of a model version.

    Parameters
    ----------
    operation
        The load that makes the version. Until that is done, what the version's code asks for is
        part of it.
    """

    def __init__(self, repository: Repository, operation: _Operation) -> None:
        self._repository = repository
        self._operation = operation

    def load(self, name: str, parameters: Mapping[str, str | bytes]) -> None:
        parent = None if self._operation.is_done else self._operation
        self._repository.load_for_model(name, parameters, parent)

    def unload(self, name: str) -> None:
        self._repository.unload_for_model(name)

    def is_ready(self, name: str, version: int) -> bool:
        return self._repository.is_ready_for_model(name, version)

    def endpoint(self, name: str, version: int) -> Endpoint:
        return self._repository.endpoint(name, version)
