"""Futures of submitted requests."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from pytriton_lite._core.condition import Condition
from pytriton_lite._core.reply import InferenceResponse
from pytriton_lite._typing import override

_PENDING = "PENDING"
_FINISHED = "FINISHED"
_ATTRIBUTES = {
    "_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks",
}  # fmt: skip
# Another Python might have futures of another make, which then make their own attributes.
_ARE_KNOWN = vars(concurrent.futures.Future()).keys() == _ATTRIBUTES


class RequestFuture(concurrent.futures.Future[InferenceResponse]):
    """Future of a submitted request; cancelling it cancels the request.

    Parameters
    ----------
    queue, slot
        What `cancel` gives up.
    """

    _exception: BaseException | None

    def __init__(self, queue: Any, slot: Any) -> None:
        if _ARE_KNOWN:
            # As the base class does it, but for the condition, which is most of its cost.
            self._condition: Any = Condition()
            self._state = _PENDING
            self._result = self._exception = None
            self._waiters: list[Any] = []
            self._done_callbacks: list[Any] = []
        else:
            super().__init__()
        self._queue = queue
        self._slot = slot

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

    @override
    def result(self, timeout: float | None = None) -> InferenceResponse:
        # The state is the last to change, and for good.
        if self._state == _FINISHED and self._exception is None:
            return self._result  # type: ignore[return-value]  # set before the state
        return super().result(timeout)

    @override
    def cancel(self) -> bool:
        """Cancel the request; False when it is answered already."""
        if not self._queue.cancel(self._slot):
            return False
        if not self.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
        return True
