"""The interface of an instance, for whoever loads and unloads models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._instance.loader import InstancePlan


class InstanceState(Enum):
    """Life of an instance, in order; DEAD may follow any state."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"


class Instance(ABC):
    """One `TritonPythonModel` object at work on the queue of its model version.

    Parameters
    ----------
    plan
        What to load.
    queue
        Where the requests come from, shared with the version's other instances.
    """

    def __init__(self, plan: InstancePlan, queue: RequestQueue) -> None:
        self.plan = plan
        self.queue = queue
        self.state = InstanceState.LOADING

    @abstractmethod
    def start(self) -> None:
        """Begin to load. Call `wait_loaded` next."""

    @abstractmethod
    def wait_loaded(self) -> None:
        """Wait until the instance takes requests; raises what its load raised."""

    @abstractmethod
    def finish(self, deadline_ns: int) -> bool:
        """Wait until the instance has served the closed queue and finalized.

        Returns False when `deadline_ns` (`time.monotonic_ns`) passed before.
        """
