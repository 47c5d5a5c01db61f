"""Futures of submitted requests."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from pytriton_lite._core.reply import InferenceResponse


class RequestFuture(concurrent.futures.Future[InferenceResponse]):
    """Future of a submitted request; cancelling it cancels the request."""

    _queue: Any = None
    _slot: Any = None

    def attach(self, queue: Any, slot: Any) -> None:
        """Tell which slot `cancel` gives up."""
        self._queue, self._slot = queue, slot

    def complete(self, slot: Any) -> None:
        """Take the outcome of the slot; called by who finished it."""
        outcome = slot.take_outcome()
        # Straight from pending to finished: each step of a future takes its lock.
        try:
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except concurrent.futures.InvalidStateError:
            return  # cancelled meanwhile

    def cancel(self) -> bool:
        """Cancel the request; False when it is answered already."""
        if self._slot is None or not self._queue.cancel(self._slot):
            return False
        if not self.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        return True
