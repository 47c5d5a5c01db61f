"""What the code of a loaded model asks of the repository."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pytriton_lite._core.calls import Endpoint
from pytriton_lite._repository.operations import Operation

if TYPE_CHECKING:
    from pytriton_lite._repository.repository import Repository


class RepositoryControl:
    """The `ModelControl` of a model version.

    Parameters
    ----------
    operation
        The load that makes the version. Until that is done, what the version's code asks for is
        part of it.
    """

    def __init__(self, repository: Repository, operation: Operation) -> None:
        self._repository = repository
        self._operation = operation

    def load(self, name: str, parameters: Mapping[str, str | bytes]) -> None:
        """Load a model."""
        parent = None if self._operation.is_done else self._operation
        self._repository.load_for_model(name, parameters, parent)

    def unload(self, name: str) -> None:
        """Unload a model in the background."""
        self._repository.unload_for_model(name)

    def is_ready(self, name: str, version: int) -> bool:
        """Whether a version takes requests."""
        return self._repository.is_ready_for_model(name, version)

    def endpoint(self, name: str, version: int) -> Endpoint:
        """Where requests to a model go."""
        return self._repository.models.endpoint(name, version)
