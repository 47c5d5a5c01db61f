"""The models of a server: states of their versions, and which of them a call reaches."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TypeAlias

from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._core.calls import Endpoint
from pytriton_lite._index import ModelIndexEntry, ModelState
from pytriton_lite._instance.readiness import why_not_ready
from pytriton_lite._loading import InstanceUpdate, LeavingInstances, LoadedVersion
from pytriton_lite._repository.files import FileTimes, ReadFiles
from pytriton_lite._repository.folders import RepositoryFolders
from pytriton_lite._repository.polled import PolledModel
from pytriton_lite.errors import (
    InvalidArgumentError,
    NotFoundError,
    TritonError,
    UnavailableError,
)

DUPLICATE = "model appears in two or more repositories"


Ending: TypeAlias = "LoadedVersion | LeavingInstances"


class Phase(Enum):
    """Life of a repository."""

    STARTING = 0
    RUNNING = 1
    STOPPING = 2


@dataclass(slots=True)
class VersionEntry:
    """One version that was ever loaded, or tried.

    Attributes
    ----------
    ending
        What it was, as long as that serves its last requests; while UNLOADING, the reason why.
    failed_reload
        Why what the changed files make has not replaced it, when nobody asked for that but
        `Options.watch`.
    """

    state: ModelState
    reason: str = ""
    failed_reload: str = ""
    loaded: LoadedVersion | None = None
    ending: LoadedVersion | None = None

    def shown(self) -> tuple[ModelState, str]:
        """State and reason for the index, where a version without a living instance is not ready.

        Its state stays READY: it comes back by itself.
        """
        loaded = self.loaded
        outage = None if loaded is None else loaded.outage
        if self.state is ModelState.READY and outage is not None:
            return ModelState.UNAVAILABLE, outage
        if self.state is ModelState.READY:
            return self.state, self.failed_reload
        return self.state, self.reason


@dataclass(slots=True)
class ModelEntry:
    """One model that was ever loaded, or tried.

    Attributes
    ----------
    identifier
        See `RepositoryFolders`.
    versions
        By number. Replaced, never changed, so that readers need no lock.
    files, backend_files
        The files as what is in force was made of them; None when a load call gave all files. Those
        of its Python-based backend.
    polled
        The files as the last poll, or the load at start, has found them; None when that failed.
    read
        What the last load has read, for `Options.watch`; None when there is nothing to watch.
    last
        What that load has made of it; None when it could not read the model. A reload repeats it.
    """

    identifier: str
    versions: dict[int, VersionEntry] = field(default_factory=dict)
    files: FileTimes | None = None
    backend_files: FileTimes = field(default_factory=dict)
    polled: FileTimes | None = None
    read: ReadFiles | None = None
    last: PolledModel | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether any version is."""
        return any(version.loaded is not None for version in self.versions.values())

    @property
    def is_unloaded(self) -> bool:
        """Whether every version was unloaded, or is about to end; also if there is none."""
        return all(
            version.state is ModelState.UNLOADING or version.reason == "unloaded"
            for version in self.versions.values()
        )

    @property
    def has_failed_reload(self) -> bool:
        """Whether what serves is not what the files say."""
        return any(version.failed_reload for version in self.versions.values())


class ModelTable:
    """Models, their versions and the endpoints of calls to them. Thread-safe.

    `endpoint` gives what a `Model` object holds; its `served` changes when a version is loaded,
    replaced or unloaded.

    Parameters
    ----------
    folders
        What the index lists.
    strict_readiness
        Whether `all_ready` asks at all.

    Attributes
    ----------
    lock
        Held by who changes something that is more than one step.
    phase
        Of the repository.
    """

    def __init__(self, folders: RepositoryFolders, *, strict_readiness: bool) -> None:
        self._folders = folders
        self._strict_readiness = strict_readiness
        self.lock = threading.RLock()
        self.phase = Phase.STARTING
        # Replaced, never changed, so that readers need no lock.
        self._entries: dict[str, ModelEntry] = {}
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        # What a load has replaced, or an unload ended, until somebody has waited for its last
        # requests and its `finalize`.
        self._ending: set[Ending] = set()

    # -- changes -----------------------------------------------------------------------

    def entry(self, name: str) -> ModelEntry | None:
        """The entry of a model; None if nobody ever asked for it."""
        return self._entries.get(name)

    def entries(self) -> Iterable[tuple[str, ModelEntry]]:
        """All models that were ever asked for, by name."""
        return self._entries.items()

    def add(self, name: str) -> ModelEntry:
        """The entry of a model; made if there is none."""
        with self.lock:
            entry = self._entries.get(name)
            if entry is None:
                entry = ModelEntry(name)
                self._entries = {**self._entries, name: entry}
            return entry

    def note_loading(self, entry: ModelEntry, number: int) -> None:
        """A version is being loaded, which is seen if it does not serve meanwhile."""
        with self.lock:
            version = entry.versions.get(number)
            if version is None:
                version = VersionEntry(ModelState.UNKNOWN)
                entry.versions = {**entry.versions, number: version}
            if version.loaded is None:
                version.state, version.reason = ModelState.LOADING, ""
                if self._folders.has_namespaces:  # a name may mean two models now
                    self._refresh_endpoints(entry.identifier)

    def note_failed(self, entry: ModelEntry, number: int, reason: str) -> None:
        """The load of a version has failed, which is seen if it does not serve."""
        with self.lock:
            version = entry.versions[number]
            if version.loaded is None:
                version.state, version.reason = ModelState.UNAVAILABLE, reason

    def note_failed_reload(self, entry: ModelEntry, reason: str) -> None:
        """What serves is not what the files say."""
        with self.lock:
            for version in entry.versions.values():
                if version.loaded is not None:
                    version.failed_reload = reason

    def note_given_up(self, entry: ModelEntry) -> None:
        """A load has ended, whatever became of it; no version is being loaded any more."""
        with self.lock:
            for version in entry.versions.values():
                if version.state is ModelState.LOADING:
                    version.state, version.reason = ModelState.UNAVAILABLE, "unloaded"

    def switch(
        self, name: str, fresh: dict[int, LoadedVersion], updates: dict[int, InstanceUpdate]
    ) -> list[Ending]:
        """Let new versions serve, and those of the updates go on; returns what has to end.

        Called with the lock.
        """
        entry = self._entries[name]
        ending: list[Ending] = []
        for number, update in updates.items():
            leaving = update.commit()
            if leaving is not None:
                ending.append(leaving)
            entry.versions[number].failed_reload = ""
        for number, loaded in fresh.items():
            version = entry.versions[number]
            if version.loaded is not None:
                ending.append(version.loaded)
                version.ending = version.loaded
            # In this order: who looks without the lock finds one of the two ready.
            version.loaded, version.state, version.reason = loaded, ModelState.READY, ""
            version.failed_reload = ""
        self._ending.update(ending)
        ending += self._withdraw(entry, fresh.keys() | updates.keys())
        self._refresh_endpoints(name)
        return ending

    def take_out(self, name: str) -> list[Ending]:
        """Unload a model; returns what it had loaded, which has not ended."""
        with self.lock:
            entry = self._entries[name]
            ending: list[Ending] = []
            if self.phase is not Phase.STOPPING:
                ending = self._withdraw(entry)
            entry.files = entry.polled = entry.read = entry.last = None
            for version in entry.versions.values():
                if version.state is ModelState.UNAVAILABLE:
                    version.reason = "unloaded"  # whatever it was, it does not matter any more
            self._refresh_endpoints(name)
        return ending

    def take_out_all(self) -> list[Ending]:
        """Unload everything, for good; returns all that has not ended."""
        with self.lock:
            self.phase = Phase.STOPPING
            for entry in self._entries.values():
                self._withdraw(entry)
            for name in self._entries:
                self._refresh_endpoints(name)
            return list(self._ending)

    def _withdraw(self, entry: ModelEntry, but: Container[int] = ()) -> list[Ending]:
        """Take loaded versions from a model, all `but` some; called with the lock."""
        ending: list[Ending] = []
        for number, version in entry.versions.items():
            if version.loaded is not None and number not in but:
                ending.append(version.loaded)
                version.loaded, version.ending = None, version.loaded
                version.state, version.reason = ModelState.UNLOADING, ""
                version.failed_reload = ""
        self._ending.update(ending)
        return ending

    def note_ended(self, ending: Ending) -> None:
        """What was taken out has served its last request, and is finalized."""
        with self.lock:
            self._ending.discard(ending)
            version = self._entries[ending.identifier].versions[ending.version]
            if version.ending is ending:
                version.ending = None
                if version.state is ModelState.UNLOADING:
                    version.state, version.reason = ModelState.UNAVAILABLE, "unloaded"

    # -- who answers -------------------------------------------------------------------

    def endpoint(self, name: str, version: int) -> Endpoint:
        """Where calls to a model go; `version` -1 means the greatest ready one."""
        with self.lock:
            key = (name, version)
            if key not in self._endpoints:
                self._endpoints[key] = Endpoint(partial(self._explain, name, version))
        self._refresh_endpoints(name)
        return self._endpoints[key]

    def _refresh_endpoints(self, identifier: str) -> None:
        names = (identifier, self._folders.name_of(identifier))
        with self.lock:
            for (model_name, version), endpoint in self._endpoints.items():
                if model_name in names:
                    loaded = self.ready(model_name, version)
                    endpoint.served = None if loaded is None else loaded.served

    def identifiers(self, name: str) -> list[str]:
        """Models that were ever asked for and that a name, or an identifier, stands for."""
        entries = self._entries
        if not self._folders.has_namespaces or self._folders.namespace_of(name):
            return [name] if name in entries else []
        return [key for key in entries if self._folders.name_of(key) == name]

    def _candidates(self, name: str) -> list[str]:
        """Which of them a call may mean: those that are not unloaded, also if they do not serve."""
        return [key for key in self.identifiers(name) if not self._entries[key].is_unloaded]

    def _entry(self, name: str) -> ModelEntry | None:
        """The entry that a call reaches; None if there is none, or there are several."""
        if not self._folders.has_namespaces:
            return self._entries.get(name)
        candidates = self._candidates(name)
        return self._entries[candidates[0]] if len(candidates) == 1 else None

    def ready(self, name: str, version: int) -> LoadedVersion | None:
        """The loaded version that a call reaches; None when there is none."""
        entry = self._entry(name)
        if entry is None:
            return None
        ready = {n: v.loaded for n, v in entry.versions.items() if v.state is ModelState.READY}
        return ready.get(max(ready, default=0) if version == -1 else version)

    def _explain(self, name: str, version: int) -> TritonError:
        """Why nobody answers; texts of Triton."""
        model = self._folders.name_of(name)
        if self.phase is Phase.STOPPING:
            return UnavailableError(
                "Server is stopping, scheduler for model has stopped accepting new inference "
                "requests",
                model=model,
            )
        if self._folders.has_namespaces:
            candidates = self._candidates(name)
            if len(candidates) != 1:
                return self._explain_identifiers(name, candidates)
            name = candidates[0]
        entry = self._entries.get(name)
        if entry is None or not entry.versions:
            return NotFoundError(f"Request for unknown model: '{name}' is not found", model=model)
        if version == -1:
            return NotFoundError(
                f"Request for unknown model: '{name}' has no available versions", model=model
            )
        if version not in entry.versions:
            return NotFoundError(
                f"Request for unknown model: '{name}' version {version} is not found", model=model
            )
        return UnavailableError(
            f"Request for unknown model: '{name}' version {version} is not at ready state",
            model=model,
        )

    def _explain_identifiers(self, name: str, candidates: list[str]) -> TritonError:
        """Why a name stands for no model, or for several; texts and codes are Triton's."""
        model = self._folders.name_of(name)
        if candidates:
            error = InvalidArgumentError(
                f"There are {len(candidates)} identifiers of model '{name}' in global map, model "
                "namespace must be provided to resolve ambiguity.",
                model=model,
            )
            listed = ", ".join(f"'{candidate}'" for candidate in candidates)
            error.add_note(f"a model can be asked for by its identifier, here one of {listed}")
            return error
        if any(self._entries[key].versions for key in self.identifiers(name)):
            return NotFoundError(
                f"Identifier of model '{name}' is not found in global map", model=model
            )
        return InvalidArgumentError(
            f"Request for unknown model: '{name}' is not found", model=model
        )

    def get(self, name: str, version: int) -> LoadedVersion:
        """The loaded version that a call reaches; raises when there is none."""
        loaded = self.ready(name, version)
        if loaded is None:
            raise self._explain(name, version)
        return loaded

    # -- states ------------------------------------------------------------------------

    def state(self, name: str, version: int) -> tuple[ModelState, str]:
        """State and reason of a model; of its greatest version for -1."""
        entry = self._entry(name)
        if entry is None or not entry.versions:
            return ModelState.UNKNOWN, ""
        if version == -1:
            ready = self.ready(name, -1)
            version = max(entry.versions) if ready is None else ready.version
        found = entry.versions.get(version)
        return (ModelState.UNKNOWN, "") if found is None else found.shown()

    def why_not_ready(self, name: str, version: int) -> TritonError | None:
        """Why a call would not be taken, or what the model's `is_ready` has against it."""
        while True:
            loaded = self.ready(name, version)
            if loaded is None:
                return self._explain(name, version)
            if loaded.readiness is None:
                return None
            errors = why_not_ready([loaded.readiness])
            # Else it was replaced or unloaded meanwhile, which ended the question.
            if self.ready(name, version) is loaded:
                return errors[0] if errors else None

    def ready_versions(self, name: str) -> list[int]:
        """Numbers of the ready versions, ascending."""
        entry = self._entry(name)
        versions = {} if entry is None else entry.versions
        return sorted(n for n, v in versions.items() if v.state is ModelState.READY)

    def loaded_versions(self) -> list[LoadedVersion]:
        """All loaded versions, in load order."""
        return [
            version.loaded
            for entry in self._entries.values()
            for version in entry.versions.values()
            if version.loaded is not None
        ]

    def backends(self) -> list[ResolvedBackend]:
        """Backends of the loaded versions, without repeats, in load order."""
        return list({v.backend.name: v.backend for v in self.loaded_versions()}.values())

    def index(self) -> list[ModelIndexEntry]:
        """The repository index: every model folder and every version ever loaded, sorted.

        A name in several repositories has one entry, without a version, that says so. A model made
        of files alone, without a folder in a repository, is not in it (observed on 2.51). With
        namespaces it is sorted by these first.
        """
        entries = []
        for key, folders in sorted(self._folders.by_identifier().items()):
            entry = self._entries.get(key)
            name, namespace = self._folders.name_of(key), self._folders.namespace_of(key)
            rows: list[tuple[int | None, ModelState, str]]
            if len(folders) > 1:
                rows = [(None, ModelState.UNAVAILABLE, DUPLICATE)]
            elif entry is None or not entry.versions:
                rows = [(None, ModelState.UNKNOWN, "")]
            else:
                rows = [(number, *v.shown()) for number, v in sorted(entry.versions.items())]
            entries += [ModelIndexEntry(name, *row, namespace=namespace) for row in rows]
        return entries

    def all_ready(self) -> bool:
        """Whether every loaded model is ready, Triton's strict readiness.

        Every version is READY, with an `is_ready` that agrees, or was unloaded on purpose. Without
        strict readiness it does not matter.
        """
        if not self._strict_readiness:
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
            for entry in self._entries.values()
            for version in entry.versions.values()
        )
