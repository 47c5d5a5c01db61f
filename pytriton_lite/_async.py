"""Between an asyncio loop and the instances: few wake-ups in both directions.

All requests that coroutines start within one tick of the loop are queued together at the
end of the tick, so that they ring the instances once; all that finish while the loop is
being woken are delivered by that one wake-up.
"""

from __future__ import annotations

import asyncio
import collections
import weakref
from typing import Any

from pytriton_lite.errors import RequestTimeoutError

_bridges: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopBridge] = (
    weakref.WeakKeyDictionary()
)


class LoopBridge:
    """Carries requests from one event loop to the queues, and outcomes back."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._starting: dict[Any, list[Any]] = {}  # queue -> slots of this tick
        self._done: collections.deque[Any] = collections.deque()  # filled by any thread
        self._is_woken = False
        self._futures: dict[Any, asyncio.Future[Any]] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopBridge:
        """The bridge of a loop; one each."""
        bridge = _bridges.get(loop)
        if bridge is None:
            bridge = _bridges[loop] = cls(loop)
        return bridge

    async def run(self, queue: Any, request: Any, timeout_s: float | None) -> Any:
        """Queue a request and await its response. Cancelling the task cancels the request."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        slot = queue.new_slot(request, self._finished)
        self._futures[slot] = future
        if not self._starting:
            loop.call_soon(self._start)
        self._starting.setdefault(queue, []).append(slot)
        try:
            if timeout_s is None:
                return await future
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise RequestTimeoutError(
                f"Request to model '{queue.model_name}' was not answered in time and is cancelled",
                model=queue.model_name,
                request_id=slot.request_id,
            ) from None
        finally:
            if self._futures.pop(slot, None) is not None:
                waiting = self._starting.get(queue)
                if waiting is not None and slot in waiting:
                    waiting.remove(slot)
                else:
                    queue.cancel(slot)

    def _start(self) -> None:
        starting, self._starting = self._starting, {}
        for queue, slots in starting.items():
            try:
                queue.submit_all(slots)
            except Exception as error:
                for slot in slots:
                    future = self._futures.pop(slot, None)
                    if future is not None and not future.done():
                        future.set_exception(error)

    def _finished(self, slot: Any) -> None:
        """Called on an instance's thread."""
        self._done.append(slot)
        if self._is_woken:
            return  # `_deliver` is yet to run and will find this slot, too
        self._is_woken = True
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # First this, then the slots: one that is appended from now on wakes the loop again.
        self._is_woken = False
        while self._done:
            slot = self._done.popleft()
            future = self._futures.pop(slot, None)
            if future is None or future.done():
                continue
            outcome = slot.get()
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
