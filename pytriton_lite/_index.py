"""The repository index: states of model versions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ModelState(Enum):
    """State of a model version, as the repository index names it."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"


@dataclass(frozen=True, slots=True)
class ModelIndexEntry:
    """One line of the repository index.

    Attributes
    ----------
    name
        Model.
    version
        None for a model of which no version was ever loaded.
    state, reason
        The reason of a state other than READY.
    namespace
        Path of the model's repository, with `model_namespacing`; else empty.
    """

    name: str
    version: int | None
    state: ModelState
    reason: str
    namespace: str = ""
