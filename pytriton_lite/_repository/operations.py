"""Loads and unloads of models, which wait for their turn."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict, deque
from collections.abc import Iterator

from pytriton_lite.errors import UnavailableError


class Operation:
    """A load or unload of one model.

    Parameters
    ----------
    parent
        The operation that waits for this one: a model asked for it in its `initialize`.
    """

    def __init__(self, name: str, parent: Operation | None = None) -> None:
        self.name = name
        self.parent = parent
        self.is_done = False

    def lineage(self) -> Iterator[Operation]:
        """Itself, and all that wait for it."""
        operation: Operation | None = self
        while operation is not None:
            yield operation
            operation = operation.parent


class Turns:
    """One load or unload of a model at a time, in the order in which they came.

    Parameters
    ----------
    lock
        Of the repository; not held while an operation is at work.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._changed = threading.Condition(lock)
        # By model; the first one is at work.
        self._queues: defaultdict[str, deque[Operation]] = defaultdict(deque)
        self._waiting: set[Operation] = set()

    @contextlib.contextmanager
    def take(self, operation: Operation) -> Iterator[None]:
        """Wait until all earlier operations on the model are done, and keep later ones waiting.

        Raises
        ------
        UnavailableError
            One of the earlier ones waits for this one.
        """
        with self._lock:
            if self._waits_for_itself(operation):
                raise UnavailableError(
                    f"model '{operation.name}' cannot be loaded here: its load would wait for the "
                    "one that this code is part of",
                    model=operation.name,
                )
            queue = self._queues[operation.name]
            queue.append(operation)
            self._waiting.add(operation)
            try:
                self._changed.wait_for(lambda: queue[0] is operation)
            except BaseException:
                queue.remove(operation)
                self._changed.notify_all()
                raise
            finally:
                self._waiting.remove(operation)
        try:
            yield
        finally:
            with self._lock:
                operation.is_done, operation.parent = True, None
                queue.remove(operation)
                self._changed.notify_all()

    def is_busy(self, name: str) -> bool:
        """Whether an operation on the model is at work or waits; called with the lock."""
        return bool(self._queues.get(name))

    def wait_until_none(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until no operation is left; whether that is so."""
        with self._lock:
            return self._changed.wait_for(lambda: not any(self._queues.values()), timeout)

    def _waits_for_itself(self, operation: Operation) -> bool:
        """Whether one of the operations before this one waits for it, through whatever others."""
        ours = set(operation.lineage())
        seen: set[Operation] = set()
        earlier = list(self._queues.get(operation.name, ()))
        while earlier:
            other = earlier.pop()
            if other in ours:
                return True
            if other in seen:
                continue
            seen.add(other)
            for waiting in self._waiting:
                if other in waiting.lineage():
                    queue = self._queues[waiting.name]
                    earlier.extend(list(queue)[: queue.index(waiting)])
        return False
