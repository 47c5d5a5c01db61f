"""`Repository`: loads and unloads the models of a server."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from pytriton_lite._backend import PYTHON
from pytriton_lite._config.model_config import select_versions, version_policy_of
from pytriton_lite._loading import CONFIG_FILE, InstanceUpdate, LoadedVersion
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite._options import ModelControlMode, Options
from pytriton_lite._overrides import FILE_PREFIX
from pytriton_lite._repository.control import RepositoryControl
from pytriton_lite._repository.files import (
    FileTimes,
    ReadFiles,
    difference,
    file_times,
    remove_stale_bytecode,
)
from pytriton_lite._repository.folders import RepositoryFolders, version_folders
from pytriton_lite._repository.operations import Operation, Turns
from pytriton_lite._repository.polled import PolledModel, PollError, poll_again, poll_model
from pytriton_lite._repository.poller import Poller
from pytriton_lite._repository.table import Ending, ModelEntry, ModelTable, Phase
from pytriton_lite._repository.watcher import Watcher
from pytriton_lite.errors import (
    ConfigError,
    InternalError,
    InvalidArgumentError,
    ModelLoadError,
    TritonError,
    UnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from pytriton_lite._environment.cache import EnvironmentCache
    from pytriton_lite._ipc.caller_memory import CallerMemory

_log = logging.getLogger("pytriton_lite.server")

MODEL_CONTROL_OFF = "explicit model load / unload is not allowed if polling is enabled"

# A limit that is none: some 30 years.
_NO_LIMIT_NS = 10**18


class Repository:
    """Models of a server: finds, loads and unloads them. Thread-safe.

    A load works outside of the lock, since it runs model code; `_turns` keeps two operations on
    one model apart.

    Attributes
    ----------
    models
        What is loaded, and who answers calls.
    metrics
        The custom metrics of the models.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folders = RepositoryFolders(
            options.repositories, has_namespaces=options.model_namespacing
        )
        self.metrics = MetricRegistry(is_enabled=options.metrics)
        self._environments: EnvironmentCache | None = None
        self.models = ModelTable(self._folders, strict_readiness=options.strict_readiness)
        self._lock = self.models.lock
        self._turns = Turns(self._lock)
        self._background: list[threading.Thread] = []
        self._polling = threading.Lock()  # one poll at a time
        self._poller = Poller(self.poll, options.repository_poll_secs)
        self._watcher: Watcher | None = None
        if options.watch:
            self._watcher = Watcher(self.changed_models, self.watched_roots, self.reload_changed)
        self._caller_memory: CallerMemory | None = None

    # Only models in processes need these two, and what they import.

    def environments(self) -> EnvironmentCache:
        """Execution environments that models of this server use; made when first asked for."""
        from pytriton_lite._environment.cache import EnvironmentCache

        with self._lock:
            if self._environments is None:
                self._environments = EnvironmentCache()
            return self._environments

    def caller_memory(self) -> CallerMemory:
        """Memory for inputs that the stubs of all models can read; made when first asked for."""
        from pytriton_lite._ipc.caller_memory import CallerMemory

        with self._lock:
            if self._caller_memory is None:
                self._caller_memory = CallerMemory.create_largest()
            return self._caller_memory

    # -- folders -----------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of all model folders, sorted. A name in two repositories is listed once."""
        return self._folders.names()

    def has(self, name: str) -> bool:
        """Whether there is a folder of a model of this name, or with this identifier."""
        return name in self.names() or name in self._folders.by_identifier()

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
        self._folders.register(path, name_mapping)

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
        self._folders.unregister(path)

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
        identifiers: Iterable[str] = sorted(self._folders.by_identifier())
        if self._options.model_control_mode is ModelControlMode.EXPLICIT:
            wanted = list(dict.fromkeys(self._options.startup_models))
            if wanted != ["*"]:
                identifiers = [key for name in wanted for key in self._folders.identifiers(name)]
        failures = self._load_all(identifiers)
        with self._lock:
            self.models.phase = Phase.RUNNING
        if self._options.model_control_mode is ModelControlMode.POLL:
            self._poller.start()
        if self._watcher is not None:
            self._watcher.start()
        if failures:
            lines = "".join(
                f"\n  {error.model}: {error.code.status}: {error}" for error in failures
            )
            raise ModelLoadError(f"failed to load all models:{lines}", failures)

    def _is_inline(self, identifier: str) -> bool:
        return self._options.execution_of(self._folders.name_of(identifier)) == "inline"

    def _load_all(self, identifiers: Iterable[str]) -> list[TritonError]:
        """Load models side by side; returns what went wrong."""
        failures: list[TritonError] = []

        def load(identifier: str) -> None:
            try:
                self._load_and_finish(identifier, {})
            except ModelLoadError as error:
                failures.extend(e for e in error.exceptions if isinstance(e, TritonError))

        self._side_by_side(identifiers, load)
        return failures

    def _side_by_side(self, identifiers: Iterable[str], load: Callable[[str], None]) -> None:
        """Call a function with each identifier, as many at a time as models may load."""
        from concurrent.futures import ThreadPoolExecutor

        identifiers = list(identifiers)
        elsewhere = [key for key in identifiers if not self._is_inline(key)]
        here = [key for key in identifiers if key not in elsewhere]
        with ThreadPoolExecutor(
            max(1, self._options.model_load_thread_count), thread_name_prefix="model-load"
        ) as pool:
            list(pool.map(load, elsewhere))
        # Inline models load on the thread that will debug them: this one.
        for identifier in here:
            load(identifier)

    def poll(self) -> None:
        """Load models that are new or changed, and unload those that have gone.

        What fails to load is logged and tried again each time (observed on 2.51); what was loaded
        before then stays.

        Raises
        ------
        UnavailableError
            The server does not run in poll mode, or does not run.
        """
        if self._options.model_control_mode is not ModelControlMode.POLL:
            raise UnavailableError("polling is disabled")
        if self.models.phase is not Phase.RUNNING:
            raise UnavailableError("Server not ready")
        with self._polling:
            self._poll_all()

    def _poll_all(self) -> None:
        found = self._folders.by_identifier()
        changed = []
        for name, folders in sorted(found.items()):
            entry = self.models.entry(name)
            if len(folders) > 1:
                _log.error(
                    "failed to poll model '%s': not unique across all model repositories", name
                )
            elif entry is None or entry.polled != file_times(folders[0]):
                changed.append(name)
        self._load_all(changed)
        for name, _ in self.models.entries():
            if len(found.get(name, ())) != 1:
                with self._turns.take(Operation(name)):
                    ending = self.models.take_out(name)
                self._finish_later(name, ending)

    def load(self, name: str, parameters: Mapping[str, object] | None = None) -> None:
        """Load a model, or load it anew; the old version serves until the new one is ready.

        Returns when the old version has ended. With namespaces all models of the name are loaded,
        as on Triton.

        Raises
        ------
        ModelLoadError
            With Triton's text of a failed load; a version loaded before stays as it was.
        """
        parameters = parameters or {}
        failures = []
        for identifier in self._meant(name, parameters):
            try:
                self._load_and_finish(identifier, parameters)
            except ModelLoadError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ModelLoadError(
                "\n".join(str(error) for error in failures),
                [
                    reason
                    for error in failures
                    for reason in error.exceptions
                    if isinstance(reason, TritonError)
                ],
            )

    def _meant(self, name: str, parameters: Mapping[str, object]) -> list[str]:
        """Identifiers of the models that a load of a name means."""
        # One that is made of given files alone is in no repository, and so in no namespace.
        if any(key.startswith(FILE_PREFIX) for key in parameters):
            return [name]
        return self._folders.identifiers(name)

    def _load_and_finish(self, identifier: str, parameters: Mapping[str, object]) -> None:
        """Load one model and wait for the end of what that replaces."""
        try:
            ending = self._load(identifier, parameters, Operation(identifier))
        except PollError as error:
            raise ModelLoadError(f"{error}: {error.reason}", [error.reason]) from error.reason
        self._finish(ending)

    def _load(
        self, name: str, parameters: Mapping[str, object], operation: Operation
    ) -> list[Ending]:
        """Do a load; returns what it has replaced, which has not ended."""
        with self._lock:
            self._check_loads_models(name)
            entry = self.models.add(name)
        with self._turns.take(operation):
            self._check_loads_models(name)
            if not parameters and self._is_unmodified(name, entry):
                return []
            read = ReadFiles()
            try:
                return self._load_anew(
                    name,
                    entry,
                    operation,
                    read,
                    partial(poll_model, name, parameters, operation),
                )
            except BaseException:
                if not parameters:
                    self._note_read(name, entry, read)
                    entry.last = None
                raise

    def _load_anew(
        self,
        name: str,
        entry: ModelEntry,
        operation: Operation,
        read: ReadFiles,
        poll: Callable[..., PolledModel],
    ) -> list[Ending]:
        """Read a model and load it; returns what was replaced. `read` takes what is read."""
        try:
            polled = poll(folders=self._folders, options=self._options, read=read)
            entry.polled = polled.files
        except TritonError as error:
            entry.polled = None
            _log.error("Poll failed for model '%s': %s", name, error)
            raise PollError(name, error) from error
        try:
            backend_files: FileTimes = {}
            remove_stale_bytecode(polled.folder)
            if polled.message.backend != PYTHON:
                backend = os.path.join(self._options.backend_directory, polled.message.backend)
                read.add(backend)
                backend_files = file_times(backend)
                remove_stale_bytecode(backend)
            for path in self._options.watch_paths:
                read.add(os.fspath(path))
            ending = self._load_polled(name, polled, entry, operation, backend_files)
            entry.files, entry.backend_files = polled.files, backend_files
            self._note_read(name, entry, read)
            entry.last = polled
            return ending
        except BaseException:
            entry.polled = None
            raise
        finally:
            if polled.own_folder is not None:
                polled.own_folder.remove_user(operation)

    def _note_read(self, name: str, entry: ModelEntry, read: ReadFiles) -> None:
        """What a load has read is watched from now on."""
        if not self._options.watch or self.models.phase is Phase.STOPPING:
            return
        last = entry.read
        if last is not None and read.is_empty:
            return  # the folder has gone, and may come back
        read.note_loaded(last)
        entry.read = read
        for path in sorted(read.written - (frozenset() if last is None else last.written)):
            _log.warning(
                "model '%s' writes '%s' each time it is loaded: changes of that file do not count",
                name,
                path,
            )

    # -- hot reload --------------------------------------------------------------------

    def changed_models(self) -> dict[str, FileTimes]:
        """Models whose files have changed since the last load, and those files."""
        found = {}
        for name, entry in self.models.entries():
            read = entry.read
            changes = None if read is None else read.changes()
            if changes:
                found[name] = changes
        return found

    def watched_roots(self) -> frozenset[str]:
        """Files and folders in which changes count."""
        reads = [entry.read for _, entry in self.models.entries()]
        return frozenset().union(*(read.roots for read in reads if read is not None))

    def reload_changed(self, changed: Mapping[str, FileTimes]) -> None:
        """Load models anew whose files have changed; the old ones serve until, and if it fails."""
        for name, files in changed.items():
            _log.info("model '%s' is loaded again, changed: %s", name, ", ".join(sorted(files)))
        self._side_by_side(changed, self._reload)

    def _reload(self, name: str) -> None:
        entry = self.models.add(name)
        operation = Operation(name)
        try:
            with self._turns.take(operation):
                last = entry.read
                changes = {} if last is None else last.changes()
                if last is None or not changes or self.models.phase is Phase.STOPPING:
                    return  # unloaded or loaded meanwhile
                if not _are_inside(changes, entry.last) or entry.has_failed_reload:
                    # What changed is not among the files that tell whether instances may stay.
                    entry.files = None
                read, before = ReadFiles(), last.again()
                poll = partial(poll_again, name, entry.last, operation)
                try:
                    ending = self._load_anew(name, entry, operation, read, poll)
                except PollError:
                    self._note_read(name, entry, before)
                    raise
                except BaseException:
                    self._note_read(name, entry, read)
                    raise
        except PollError as error:
            self._note_failed_reload(name, entry, [error.reason])
        except ModelLoadError as error:
            self._note_failed_reload(name, entry, error.exceptions)
        else:
            self._finish_later(name, ending)

    def _note_failed_reload(
        self, name: str, entry: ModelEntry, errors: Iterable[Exception]
    ) -> None:
        serves = "; what was loaded before goes on serving" if entry.is_loaded else ""
        reasons = []
        for error in errors:
            # The model's own exception says more than our text of it.
            cause = error.__cause__ or error
            _log.error("model '%s' has changed and does not load%s", name, serves, exc_info=cause)
            status = error.code.status if isinstance(error, TritonError) else type(error).__name__
            reasons.append(f"{status}: {error}")
        self.models.note_failed_reload(entry, "reload failed: " + "; ".join(reasons))

    # -- steps of a load ---------------------------------------------------------------

    def _check_loads_models(self, name: str) -> None:
        if self.models.phase is Phase.STOPPING:
            raise UnavailableError("the server is stopping and loads no models", model=name)

    def _is_unmodified(self, name: str, entry: ModelEntry) -> bool:
        """Whether a load without parameters leaves a loaded model as it is.

        So it is on Triton, as long as no file of the model is modified; a configuration that an
        earlier load call gave then stays in force.
        """
        if entry.files is None or not entry.is_loaded:
            return False
        try:
            return file_times(self._folders.find(name)) == entry.files
        except TritonError:
            return False  # the folder has gone, which the load will say

    def _load_polled(
        self,
        name: str,
        polled: PolledModel,
        entry: ModelEntry,
        operation: Operation,
        backend_files: FileTimes,
    ) -> list[Ending]:
        numbers = select_versions(
            version_policy_of(polled.message), version_folders(name, polled.folder)
        )
        if not numbers:
            none = InvalidArgumentError(
                "at least one version must be available under the version policy of model "
                f"'{name}'",
                model=name,
            )
            raise ModelLoadError(f"load failed for model '{name}': {none}\n", [none])
        fresh: dict[int, LoadedVersion] = {}
        updates: dict[int, InstanceUpdate] = {}
        failures: dict[int, TritonError] = {}
        is_same_backend = backend_files == entry.backend_files
        kept = _kept_versions(entry, polled, numbers) if is_same_backend else {}
        # New versions first: instances of those that stay serve as soon as they are loaded.
        for_each = [n for n in numbers if n not in kept] + list(kept)
        try:
            for number in for_each:
                try:
                    if number in kept:
                        control = RepositoryControl(self, operation)
                        updates[number] = kept[number].begin_update(
                            polled.message, polled.history, control
                        )
                        continue
                    self.models.note_loading(entry, number)
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
                raise self._failed_load(name, entry, failures, kept)
            with self._lock:
                self._check_loads_models(name)
                ending = self.models.switch(name, fresh, updates)
        except BaseException:
            # The user's Ctrl-C included: nobody would ever end these.
            for loaded in fresh.values():
                loaded.stop()
            for update in updates.values():
                update.give_up()
            self.models.note_given_up(entry)
            raise
        _log.info("model '%s' version(s) %s ready", name, ", ".join(map(str, numbers)))
        return ending

    def _make_version(
        self, name: str, polled: PolledModel, number: int, operation: Operation
    ) -> LoadedVersion:
        retries = self._options.model_load_retry_count
        while True:
            try:
                return LoadedVersion(
                    polled.message,
                    self._folders.name_of(name),
                    polled.folder,
                    number,
                    self._options,
                    history=polled.history,
                    metrics=self.metrics,
                    control=RepositoryControl(self, operation),
                    environments=self.environments,
                    caller_memory=self.caller_memory,
                    own_folder=polled.own_folder,
                    identifier=name,
                    namespace=self._folders.namespace_of(name),
                )
            except Exception as error:
                if retries <= 0 or self.models.phase is Phase.STOPPING:
                    raise
                retries -= 1
                _log.warning("loading '%s' version %d again after: %s", name, number, error)

    def _failed_load(
        self,
        name: str,
        entry: ModelEntry,
        failures: dict[int, TritonError],
        kept: Container[int],
    ) -> ModelLoadError:
        """Note a failed load in the index; returns the error to raise."""
        text = ""
        for number, error in sorted(failures.items()):
            reason = f"{error.code.status}: {error}"
            _log.error("failed to load '%s' version %d: %s", name, number, reason)
            state = "READY" if number in kept else "UNAVAILABLE"  # as on 2.51
            text += f"version {number} is at {state} state: {reason};"
            self.models.note_failed(entry, number, reason)
        failure = ModelLoadError(f"load failed for model '{name}': {text}\n", [*failures.values()])
        failure.__cause__ = next(iter(failures.values()))
        return failure

    # -- unloading ---------------------------------------------------------------------

    def unload(self, name: str, *, wait: bool) -> None:
        """Stop serving a model; unknown names are no error, as on Triton."""
        for identifier in self.models.identifiers(name):
            with self._turns.take(Operation(identifier)):
                ending = self.models.take_out(identifier)
            if wait or self._is_inline(identifier):
                self._finish(ending)
            else:
                self._finish_later(identifier, ending)

    def _finish(self, ending: list[Ending], limit_ns: int | None = None) -> None:
        """Wait until withdrawn versions have ended; without a limit, ``exit_timeout``."""
        deadlines = [each.close() for each in ending]
        if limit_ns is not None:
            deadlines = [time.monotonic_ns() + limit_ns] * len(ending)
        for each, deadline_ns in zip(ending, deadlines, strict=True):
            each.finish(deadline_ns)
            self.models.note_ended(each)

    def _finish_later(self, name: str, ending: list[Ending]) -> None:
        """`_finish` in the background, for as long as it takes."""
        if ending:
            self._in_background(partial(self._finish, ending, _NO_LIMIT_NS), f"unload-{name}")

    def _in_background(self, function: partial[None], name: str) -> None:
        """Run a function on a thread that `stop` waits for; while it stops, do nothing.

        A daemon: what it waits for may never end, and `stop` gives up at some time.
        """
        with self._lock:
            if self.models.phase is Phase.STOPPING:
                return
            thread = threading.Thread(target=function, name=name, daemon=True)
            self._background = [t for t in self._background if t.is_alive()] + [thread]
            thread.start()

    # -- for model code ----------------------------------------------------------------

    def _check_control(self, *, changes_models: bool = True) -> None:
        """Refuse what model code asks for at the wrong time, or in the wrong mode."""
        if self.models.phase is not Phase.RUNNING:
            raise UnavailableError("Server not ready")
        if changes_models and self._options.model_control_mode is not ModelControlMode.EXPLICIT:
            raise UnavailableError(MODEL_CONTROL_OFF)

    def load_for_model(
        self, name: str, parameters: Mapping[str, str | bytes], parent: Operation | None
    ) -> None:
        """`load`, without waiting for the end of the old version, which may be the caller."""
        self._check_control()
        for identifier in self._meant(name, parameters):
            try:
                ending = self._load(identifier, parameters, Operation(identifier, parent))
            except PollError as error:
                raise ModelLoadError(str(error), [error.reason]) from error.reason
            self._finish_later(identifier, ending)

    def unload_for_model(self, name: str) -> None:
        """`unload`, all in the background."""
        self._check_control()
        for identifier in self.models.identifiers(name):
            with self._lock:
                if self._turns.is_busy(identifier):
                    self._in_background(partial(self._unload_later, identifier), f"unload-{name}")
                    continue
                ending = self.models.take_out(identifier)
            self._finish_later(identifier, ending)

    def _unload_later(self, name: str) -> None:
        with self._turns.take(Operation(name)):
            ending = self.models.take_out(name)
        self._finish(ending, _NO_LIMIT_NS)

    def is_ready_for_model(self, name: str, version: int) -> bool:
        """Whether a version is ready; for -1, whether any is."""
        self._check_control(changes_models=False)
        loaded = self.models.ready(name, version)
        return loaded is not None and loaded.outage is None

    # -- end ---------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more requests, let those in flight finish, and unload everything."""
        self._poller.stop()
        if self._watcher is not None:
            self._watcher.stop()
        ending = self.models.take_out_all()
        until = time.monotonic() + self._options.exit_timeout
        # Those that unloads in the background wait for are among them: their time is limited now.
        self._finish(ending)
        # Loads end what they have made, when they find that the server stops.
        self._turns.wait_until_none(max(0.0, until - time.monotonic()))
        with self._lock:
            background = self._background
        for thread in background:
            thread.join(max(0.0, until - time.monotonic()))
        self._poller.join(max(0.0, until - time.monotonic()))
        if self._watcher is not None:
            self._watcher.join(max(0.0, until - time.monotonic()))
        if self._environments is not None:
            self._environments.close(max(0.0, until - time.monotonic()))
        with self._lock:
            self._caller_memory = None  # arrays in it keep it


def _are_inside(paths: Iterable[str], polled: PolledModel | None) -> bool:
    return polled is not None and all(
        path.startswith(os.path.join(polled.folder, "")) for path in paths
    )


def _kept_versions(
    entry: ModelEntry, polled: PolledModel, numbers: Iterable[int]
) -> dict[int, LoadedVersion]:
    """Versions that a load leaves as they are but for their instances, as on Triton.

    Nothing has changed that they were made of, and the configuration only in its instance groups
    and its version policy. Unlike on Triton, the files of a Python-based backend count, too, which
    is the caller's to look at.
    """
    if entry.files is None or polled.files is None:
        return {}
    inside = os.path.join(polled.folder, "")
    changed = {path.removeprefix(inside) for path in difference(entry.files, polled.files)}
    config_file = (polled.history.file or "").removeprefix(inside)
    changed -= {CONFIG_FILE, config_file}
    tops = {path.partition(os.sep)[0] for path in changed}
    if not all(top.isascii() and top.isdigit() for top in tops):
        return {}
    found = {n: entry.versions[n].loaded for n in numbers if n in entry.versions}
    return {
        number: loaded
        for number, loaded in found.items()
        if loaded is not None
        and str(number) not in tops
        and loaded.folder == polled.folder
        and loaded.differs_in_instances(polled.message)
    }
