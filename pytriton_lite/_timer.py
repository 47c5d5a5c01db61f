"""One thread that ends the waiting of requests whose time in a queue is up.

It is there only while some request has such a time. A request that is answered before leaves its
entry behind; so there is one entry per queue and not per request.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
import weakref
from typing import Protocol

_log = logging.getLogger("pytriton_lite.scheduler")

# Requests that expire one right after the other are answered together.
_LEAST_NS = 1_000_000


class Expiring(Protocol):
    """A queue: see `BatchQueue`."""

    def expire(self) -> int:
        """Answer what has expired; when to ask again (`time.monotonic_ns`), 0 for never."""


class ExpiryTimer:
    """Calls `expire` of queues at the times that they ask for; thread-safe."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._times: dict[int, int] = {}  # id of a queue -> when; entries of the heap may be older
        self._heap: list[tuple[int, int, weakref.ref[Expiring]]] = []
        self._thread: threading.Thread | None = None

    def arm(self, queue: Expiring, at_ns: int) -> None:
        """Have `expire` called at `at_ns`, unless it is to be called earlier anyway."""
        with self._changed:
            if self._times.get(id(queue), at_ns + 1) <= at_ns:
                return
            self._times[id(queue)] = at_ns
            heapq.heappush(self._heap, (at_ns, id(queue), weakref.ref(queue)))
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="queue-timeouts", daemon=True
                )
                self._thread.start()
            elif self._heap[0][0] == at_ns:
                self._changed.notify()

    def disarm(self, queue: Expiring) -> None:
        """Forget a queue; after the last one no thread is left."""
        with self._changed:
            if self._times.pop(id(queue), None) is None:
                return
            self._changed.notify()
            thread = None if self._times else self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)  # another queue may need it from now on

    def _run(self) -> None:
        while True:
            with self._changed:
                queue = self._next()
                if queue is None:
                    self._thread = None
                    return
            try:
                again_ns = queue.expire()
            except Exception:
                _log.exception("a queue could not answer requests whose time is up")
                continue
            if again_ns:
                self.arm(queue, max(again_ns, time.monotonic_ns() + _LEAST_NS))
            del queue

    def _next(self) -> Expiring | None:
        """Wait for the time of the next queue; None when there is none."""
        while self._heap:
            at_ns, key, reference = self._heap[0]
            queue = reference()
            if queue is None or self._times.get(key) != at_ns:
                heapq.heappop(self._heap)
                if queue is None:
                    self._times.pop(key, None)
                continue
            left_ns = at_ns - time.monotonic_ns()
            if left_ns <= 0:
                heapq.heappop(self._heap)
                del self._times[key]
                return queue
            del queue
            self._changed.wait(left_ns / 1e9)
        return None


TIMER = ExpiryTimer()
