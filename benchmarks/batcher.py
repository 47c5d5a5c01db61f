"""The dynamic batcher that one would write in Python: `Condition`, `Future` and a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Condition, Thread
from typing import Any


class PythonBatcher:
    """One thread that executes what is queued, up to 32 requests at a time.

    Parameters
    ----------
    execute
        Takes a list of requests, returns as many answers.
    most
        Largest batch.
    """

    def __init__(self, execute: Callable[[list[Any]], list[Any]], most: int = 32) -> None:
        self.batches = 0
        self._execute = execute
        self._most = most
        self._queue: deque[tuple[Any, Future[Any]]] = deque()
        self._changed = Condition()
        self._is_over = False
        self._worker = Thread(target=self._work)
        self._worker.start()

    def submit(self, request: Any) -> Future[Any]:
        """Queue a request."""
        future: Future[Any] = Future()
        with self._changed:
            self._queue.append((request, future))
            self._changed.notify()
        return future

    def call(self, request: Any) -> Any:
        """Queue a request and wait for its answer."""
        return self.submit(request).result()

    def forget(self) -> None:
        """Drop what is queued, without an answer."""
        with self._changed:
            self._queue.clear()

    def stop(self) -> None:
        """End the thread after what is queued."""
        with self._changed:
            self._is_over = True
            self._changed.notify()
        self._worker.join()

    def _work(self) -> None:
        queue = self._queue
        while True:
            with self._changed:
                while not queue:
                    if self._is_over:
                        return
                    self._changed.wait()
                batch = [queue.popleft() for _ in range(min(len(queue), self._most))]
            self.batches += 1
            answers = self._execute([request for request, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)


@contextmanager
def python_batcher(
    execute: Callable[[list[Any]], list[Any]], most: int = 32
) -> Iterator[PythonBatcher]:
    """A fresh batcher, stopped at the end."""
    batcher = PythonBatcher(execute, most)
    try:
        yield batcher
    finally:
        batcher.stop()
