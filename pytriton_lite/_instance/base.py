"""The interface of an instance, for whoever loads and unloads models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._instance.loader import InstancePlan
from pytriton_lite._instance.readiness import Readiness


class InstanceState(Enum):
    """Life of an instance, in order; DEAD may follow any state."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Outage:
    """Why an instance takes no requests though it was not stopped.

    Attributes
    ----------
    is_lasting
        An attempt to start it again has failed, with `cause`.
    """

    text: str
    is_lasting: bool = False
    cause: BaseException | None = None


class Instance(ABC):
    """One `TritonPythonModel` object at work on the queue of its model version.

    Parameters
    ----------
    plan
        What to load.
    queue
        Where the requests come from, shared with the version's other instances.

    Attributes
    ----------
    readiness
        How to ask it whether it is ready, known when `wait_loaded` has returned; None if there
        is nothing to ask, and the instance is ready.
    on_outage
        Called, if it is not None, when `outage` has changed, on any thread.
    """

    def __init__(self, plan: InstancePlan, queue: RequestQueue) -> None:
        self.plan = plan
        self.queue = queue
        self.state = InstanceState.LOADING
        self.readiness: Readiness | None = None
        self.on_outage: Callable[[], None] | None = None

    @property
    def outage(self) -> Outage | None:
        """Of an instance that can die and come back; None while it serves."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Begin to load. Call `wait_loaded` next."""

    @abstractmethod
    def wait_loaded(self) -> None:
        """Wait until the instance takes requests; raises what its load raised."""

    @abstractmethod
    def dismiss(self) -> None:
        """Take no more requests, while the queue's other instances go on.

        Does not wait. Call `finish` next, which then does not wait for the queue. Safe to call
        again, and when the instance did not load.
        """

    def abandon(self) -> None:  # noqa: B027 - most homes can do nothing
        """Give up what is still running, when `finish` was given its time. Does not wait."""

    @abstractmethod
    def finish(self, deadline_ns: int) -> bool:
        """Wait until the instance has served the closed queue, or what it was at, and finalized.

        Returns False when `deadline_ns` (`time.monotonic_ns`) passed before.
        """
