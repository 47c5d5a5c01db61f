"""The model repository: folders, versions, states, and which loaded version a call reaches."""

from __future__ import annotations

import difflib
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._config.model_config import select_versions, version_policy_of
from pytriton_lite._core.calls import Endpoint
from pytriton_lite._index import ModelIndexEntry, ModelState
from pytriton_lite._instance.readiness import why_not_ready
from pytriton_lite._loading import LoadedVersion, read_config
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite._options import ModelControlMode, Options
from pytriton_lite.errors import (
    InternalError,
    InvalidArgumentError,
    ModelLoadError,
    NotFoundError,
    TritonError,
    UnavailableError,
)

_log = logging.getLogger("pytriton_lite.server")

# Folders of a model that are no versions and that Triton passes over in silence.
_NOT_VERSIONS = frozenset({"configs", "initial_state", "warmup", "__pycache__"})


@dataclass(slots=True)
class _Version:
    state: ModelState
    reason: str = ""
    loaded: LoadedVersion | None = None


@dataclass(slots=True)
class _Model:
    versions: dict[int, _Version] = field(default_factory=dict)
    # One load or unload of a model at a time; a newer one waits for its turn.
    lock: threading.RLock = field(default_factory=threading.RLock)


class Repository:
    """Models of a server: finds, loads and unloads them.

    Thread-safe. `endpoint` gives what a `Model` object holds; its `served` changes when a
    version is loaded, replaced or unloaded. `metrics` are the custom metrics of the models.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.metrics = MetricRegistry(is_enabled=options.metrics)
        # This dict and that of a model's versions are replaced, never changed, so that readers
        # need no lock.
        self._models: dict[str, _Model] = {}
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._lock = threading.Lock()
        self._is_stopped = False
        self._unloads: list[threading.Thread] = []

    # -- folders -----------------------------------------------------------------------

    def names(self) -> list[str]:
        """Names of all model folders, sorted. A name in two repositories is listed once."""
        found: set[str] = set()
        for repository in self._options.repositories:
            try:
                found.update(entry.name for entry in os.scandir(repository) if entry.is_dir())
            except OSError as error:
                raise InvalidArgumentError(
                    f"model repository '{repository}' cannot be read: {error.strerror}"
                ) from error
        return sorted(found)

    def _folder(self, name: str) -> str:
        if not name.strip():
            raise InvalidArgumentError(
                "Model name cannot be empty. Please enter a valid name to deploy."
            )
        if "/" in name or name == "..":
            raise InvalidArgumentError(
                f"invalid model name '{name}', model name must not contain path traversal "
                "characters"
            )
        folders = [os.path.join(repository, name) for repository in self._options.repositories]
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
        from concurrent.futures import ThreadPoolExecutor

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
        if failures:
            lines = "".join(
                f"\n  {error.model}: {error.code.status}: {error}" for error in failures
            )
            raise ModelLoadError(f"failed to load all models:{lines}", failures)

    def load(self, name: str) -> None:
        """Load a model, or load it anew; the old version serves until the new one is ready.

        Raises
        ------
        ModelLoadError
            With Triton's text of a failed load; a version loaded before stays as it was.
        """
        with self._lock:
            if self._is_stopped:
                raise UnavailableError("the server is stopping and loads no models", model=name)
            model = self._models.get(name)
            if model is None:
                model = _Model()
                self._models = {**self._models, name: model}
        with model.lock:
            try:
                folder = self._folder(name)
                message = read_config(name, folder, strict=self._options.strict_model_config)
            except TritonError as error:
                _log.error("Poll failed for model '%s': %s", name, error)
                raise ModelLoadError(
                    f"failed to load '{name}', failed to poll from model repository: {error}",
                    [error],
                ) from error
            numbers = select_versions(version_policy_of(message), _version_folders(name, folder))
            if not numbers:
                none = InvalidArgumentError(
                    "at least one version must be available under the version policy of model "
                    f"'{name}'",
                    model=name,
                )
                raise ModelLoadError(f"load failed for model '{name}': {none}\n", [none])
            self._load_versions(name, folder, model, message, numbers)

    def _load_versions(
        self, name: str, folder: str, model: _Model, message: object, numbers: list[int]
    ) -> None:
        fresh: dict[int, LoadedVersion] = {}
        failures: dict[int, TritonError] = {}
        for number in numbers:
            version = model.versions.get(number)
            if version is None:
                version = _Version(ModelState.UNKNOWN)
                model.versions = {**model.versions, number: version}
            if version.loaded is None:
                version.state, version.reason = ModelState.LOADING, ""
            try:
                fresh[number] = LoadedVersion(
                    message, name, folder, number, self._options, metrics=self.metrics
                )
            except TritonError as error:
                failures[number] = error
            except Exception as error:
                failures[number] = InternalError(
                    f"defect in pytriton_lite while loading model '{name}', please report it: "
                    f"{type(error).__name__}: {error}",
                    model=name,
                )
                failures[number].__cause__ = error
        if failures:
            for loaded in fresh.values():
                loaded.stop()
            self._report(name, model, fresh, failures)
        replaced = [v.loaded for v in model.versions.values() if v.loaded is not None]
        for number, version in model.versions.items():
            if number in fresh:
                version.loaded, version.state, version.reason = fresh[number], ModelState.READY, ""
            elif version.loaded is not None:
                version.loaded, version.state = None, ModelState.UNAVAILABLE
                version.reason = "unloaded"
        self._refresh_endpoints(name)
        _log.info("model '%s' version(s) %s ready", name, ", ".join(map(str, numbers)))
        for old in replaced:
            old.stop()

    def _report(
        self,
        name: str,
        model: _Model,
        fresh: dict[int, LoadedVersion],
        failures: dict[int, TritonError],
    ) -> None:
        """Note a failed load in the index and raise it."""
        text = ""
        for number, error in sorted(failures.items()):
            reason = f"{error.code.status}: {error}"
            _log.error("failed to load '%s' version %d: %s", name, number, reason)
            text += f"version {number} is at UNAVAILABLE state: {reason};"
            if model.versions[number].loaded is None:
                model.versions[number].state = ModelState.UNAVAILABLE
                model.versions[number].reason = reason
        for number in fresh:
            if model.versions[number].loaded is None:
                model.versions[number].state = ModelState.UNAVAILABLE
                model.versions[number].reason = "unloaded"
        raise ModelLoadError(
            f"load failed for model '{name}': {text}\n", list(failures.values())
        ) from next(iter(failures.values()))

    def unload(self, name: str, *, wait: bool) -> None:
        """Stop serving a model; unknown names are no error, as on Triton."""
        with self._lock:
            model = self._models.get(name)
        if model is None:
            return
        with model.lock:
            ending = [v for v in model.versions.values() if v.loaded is not None]
            for version in ending:
                version.state = ModelState.UNLOADING
            self._refresh_endpoints(name)
        thread = threading.Thread(
            target=self._finish_unload, args=(model, ending), name=f"unload-{name}"
        )
        inline = self._options.execution_of(name) == "inline"
        if wait or inline:
            self._finish_unload(model, ending)
            return
        with self._lock:
            self._unloads = [t for t in self._unloads if t.is_alive()] + [thread]
        thread.start()

    @staticmethod
    def _finish_unload(model: _Model, ending: list[_Version]) -> None:
        for version in ending:
            loaded = version.loaded
            if loaded is not None:
                loaded.stop()
        with model.lock:
            for version in ending:
                if version.state is ModelState.UNLOADING:
                    version.loaded = None
                    version.state, version.reason = ModelState.UNAVAILABLE, "unloaded"

    def stop(self) -> None:
        """Take no more requests, let those in flight finish, and unload everything."""
        with self._lock:
            self._is_stopped = True
            models = self._models
            unloads = self._unloads
        loaded = [
            v.loaded for m in models.values() for v in m.versions.values() if v.loaded is not None
        ]
        # Closed all at once, so that they serve their last requests side by side.
        deadlines = [version.close() for version in loaded]
        for version, deadline_ns in zip(loaded, deadlines, strict=True):
            version.finish(deadline_ns)
        for thread in unloads:
            thread.join()
        for model in models.values():
            for entry in model.versions.values():
                if entry.loaded is not None:
                    entry.loaded = None
                    entry.state, entry.reason = ModelState.UNAVAILABLE, "unloaded"
        for name in models:
            self._refresh_endpoints(name)

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
        if self._is_stopped:
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
        return (ModelState.UNKNOWN, "") if entry is None else (entry.state, entry.reason)

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
        """The repository index: every model folder and every version ever loaded, sorted."""
        entries = []
        for name in sorted({*self.names(), *self._models}):
            model = self._models.get(name)
            if model is None or not model.versions:
                entries.append(ModelIndexEntry(name, None, ModelState.UNKNOWN, ""))
                continue
            for number, version in sorted(model.versions.items()):
                entries.append(ModelIndexEntry(name, number, version.state, version.reason))
        return entries

    def all_ready(self) -> bool:
        """Whether every loaded model is ready, Triton's strict readiness.

        Every version is READY, with an `is_ready` that agrees, or was unloaded on purpose.
        """
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
