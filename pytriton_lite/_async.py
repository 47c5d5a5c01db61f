"""Between an asyncio loop and the instances: few wake-ups in both directions.

All requests that coroutines start within one tick of the loop are queued together at the
end of the tick, so that they ring the instances once; all that finish while the loop is
being woken are delivered by that one wake-up.
"""

from __future__ import annotations

import asyncio
import collections
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from pytriton_lite.errors import RequestTimeoutError

if TYPE_CHECKING:
    from pytriton_lite._core.calls import ResponseStream
    from pytriton_lite._core.reply import InferenceResponse

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
        # A loop does not hold the tasks that wait; so that they live, these are held here.
        self.waiting_streams: set[AsyncResponseStream] = set()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopBridge:
        """The bridge of a loop; one each."""
        bridge = _bridges.get(loop)
        if bridge is None:
            bridge = _bridges[loop] = cls(loop)
        return bridge

    async def run(self, queue: Any, slot: Any, timeout_s: float | None) -> Any:
        """Queue a slot and await its response. Cancelling the task cancels the request."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        slot.notify_when_done(self._finished)
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

    def submit(
        self,
        queue: Any,
        slot: Any,
        future: asyncio.Future[Any],
        convert: Callable[[Any], Any],
    ) -> None:
        """Queue a slot whose outcome, converted, becomes the result of a future of this loop."""
        submitted = _Submitted(slot, future, convert)
        slot.notify_when_done(lambda _: self._finished(submitted))
        future.add_done_callback(lambda done: done.cancelled() and queue.cancel(slot))
        queue.submit_all([slot])

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
        """Deliver a slot, or wake the reader of a stream, on the loop. Called on any thread."""
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
            if isinstance(slot, AsyncResponseStream | _Submitted):
                slot.wake()
                continue
            future = self._futures.pop(slot, None)
            if future is None or future.done():
                continue
            outcome = slot.take_outcome()
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


class _Submitted:
    """A slot whose outcome goes to a future as it is, exceptions included."""

    def __init__(
        self, slot: Any, future: asyncio.Future[Any], convert: Callable[[Any], Any]
    ) -> None:
        self._slot = slot
        self._future = future
        self._convert = convert

    def wake(self) -> None:
        """Deliver."""
        if not self._future.done():
            self._future.set_result(self._convert(self._slot.take_outcome()))


class AsyncResponseStream:
    """Asynchronous iterator over the responses to one request; from `Model.async_stream`.

    Dropping it before the end, `close()`, `cancel()`, the end of an ``async with`` block and
    the cancellation of the task that awaits the next response cancel the request.
    """

    def __init__(
        self, open_stream: Callable[[], ResponseStream], timeout_s: float | None, *, is_lazy: bool
    ) -> None:
        self._open_stream = open_stream
        # An inline model runs while its stream is opened, which must not block the loop.
        self._stream = None if is_lazy else open_stream()
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __anext__(self) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        if self._timeout_s is not None and self._deadline is None:
            self._deadline = loop.time() + self._timeout_s
        stream = self._stream
        if stream is None:
            stream = self._stream = await loop.run_in_executor(None, self._open_stream)
        while True:
            response = stream.try_next()
            if response is not None:
                return response
            if stream.is_finished:
                raise StopAsyncIteration
            self._waiter = loop.create_future()
            # The request leads to the callback while it runs: a strong reference would keep a
            # dropped iterator alive, and with it the request.
            bridge = LoopBridge.of(loop)
            if not stream.arm(partial(_arrived, bridge, weakref.ref(self))):
                continue
            bridge.waiting_streams.add(self)
            try:
                async with asyncio.timeout_at(self._deadline):
                    await self._waiter
            except TimeoutError:
                raise stream.timed_out() from None
            except asyncio.CancelledError:
                stream.close()
                raise
            finally:
                bridge.waiting_streams.discard(self)

    def wake(self) -> None:
        """Look for responses again; on the loop's thread."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def cancel(self) -> None:
        """Cancel the request; the iteration ends. Without effect after the last response."""
        self.close()

    def close(self) -> None:
        """The same as `cancel`."""
        if self._stream is not None:
            self._stream.close()
        self.wake()

    async def aclose(self) -> None:
        """The same as `cancel`, as asynchronous generators call it."""
        self.close()


def _arrived(bridge: LoopBridge, ref: weakref.ref[AsyncResponseStream]) -> None:
    stream = ref()
    if stream is not None:
        bridge._finished(stream)
