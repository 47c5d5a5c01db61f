"""Where models are: the folders of the registered repositories, and the names of their models."""

from __future__ import annotations

import difflib
import logging
import os
import threading
from collections.abc import Iterable, Mapping

from pytriton_lite.errors import AlreadyExistsError, InvalidArgumentError, NotFoundError

_log = logging.getLogger("pytriton_lite.server")

# Folders of a model that are no versions and that Triton passes over in silence.
_NOT_VERSIONS = frozenset({"configs", "initial_state", "warmup", "__pycache__"})


class RepositoryFolders:
    """The registered model repositories. Thread-safe.

    Parameters
    ----------
    paths
        Absolute paths of those that are there from the start.
    has_namespaces
        Each repository is a namespace: models of one name in several of them are apart.

    Notes
    -----
    An identifier is what the rest of the package knows a model by. Without namespaces it is the
    name; with them it is ``<path of the repository>::<name>``, as Triton prints it, and the plain
    name for a model of no repository.
    """

    def __init__(self, paths: Iterable[str], *, has_namespaces: bool = False) -> None:
        self.has_namespaces = has_namespaces
        # Namespace and name of each identifier that was ever made; none is ever taken out.
        self._made: dict[str, tuple[str, str]] = {}
        # Path -> names of its models that differ from those of their folders, by folder. Replaced,
        # never changed, so that readers need no lock.
        self._mappings: dict[str, dict[str, str]] = {path: {} for path in paths}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Names of all model folders, sorted. A name in two repositories is listed once."""
        return sorted({self.name_of(identifier) for identifier in self.by_identifier()})

    def name_of(self, identifier: str) -> str:
        """Name of the model with this identifier."""
        return self._made[identifier][1] if identifier in self._made else identifier

    def namespace_of(self, identifier: str) -> str:
        """Path of its repository; empty without namespaces, and for a model of no repository."""
        return self._made[identifier][0] if identifier in self._made else ""

    def _identify(self, repository: str, name: str) -> str:
        if not self.has_namespaces:
            return name
        identifier = f"{repository}::{name}"
        self._made.setdefault(identifier, (repository, name))
        return identifier

    def identifiers(self, name: str) -> list[str]:
        """Which models a load of this name means: one, but with namespaces that of each.

        An identifier is taken for a name, too. What no repository has stands for itself.
        """
        if not self.has_namespaces or name in self._made:
            return [name]
        found = [key for key in self.by_identifier() if self.name_of(key) == name]
        return found or [name]

    def by_identifier(self) -> dict[str, list[str]]:
        """Folders of each model; where there are several, none is used."""
        found: dict[str, list[str]] = {}
        for repository, mapping in self._mappings.items():
            try:
                entries = [entry for entry in os.scandir(repository) if entry.is_dir()]
            except OSError as error:
                raise InvalidArgumentError(
                    f"model repository '{repository}' cannot be read: {error.strerror}"
                ) from error
            for entry in entries:
                key = self._identify(repository, mapping.get(entry.name, entry.name))
                found.setdefault(key, []).append(entry.path)
        return found

    def find(self, identifier: str) -> str:
        """The folder of a model.

        Raises
        ------
        InvalidArgumentError
            The name can be none, or it is in several repositories.
        NotFoundError
            There is no such folder.
        """
        name, namespace = self.name_of(identifier), self.namespace_of(identifier)
        check_name(name)
        folders = [
            os.path.join(repository, folder)
            for repository, mapping in self._mappings.items()
            for folder in (name, *mapping)
            if mapping.get(folder, folder) == name and namespace in ("", repository)
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
        """Add a repository. Texts are Triton's.

        Raises
        ------
        InvalidArgumentError
            There is no such folder.
        AlreadyExistsError
            The repository is registered, or another model has got one of the names by a mapping.
        """
        if not os.path.isdir(path):
            raise InvalidArgumentError(f"failed to register '{path}', repository not found")
        added = os.path.abspath(path)
        with self._lock:
            if added in self._mappings:
                raise AlreadyExistsError(f"model repository '{path}' has already been registered")
            taken = {name for given in self._mappings.values() for name in given.values()}
            for name in name_mapping.values():
                check_name(name)
                if name in taken:
                    raise AlreadyExistsError(
                        f"failed to register '{name}', there is a conflicting mapping for '{name}'"
                    )
                taken.add(name)
            self._mappings = {**self._mappings, added: dict(name_mapping)}
        _log.info("Model repository registered: %s", path)

    def unregister(self, path: str) -> None:
        """Forget a repository.

        Raises
        ------
        InvalidArgumentError
            It is not registered.
        """
        removed = os.path.abspath(path)
        with self._lock:
            if removed not in self._mappings:
                raise InvalidArgumentError(f"failed to unregister '{path}', repository not found")
            self._mappings = {
                known: mapping for known, mapping in self._mappings.items() if known != removed
            }
        _log.info("Model repository unregistered: %s", path)


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model, with InvalidArgumentError."""
    if not name.strip():
        raise InvalidArgumentError(
            "Model name cannot be empty. Please enter a valid name to deploy."
        )
    if "/" in name or name == "..":
        raise InvalidArgumentError(
            f"invalid model name '{name}', model name must not contain path traversal characters"
        )


def version_folders(name: str, folder: str) -> list[int]:
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
