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

from pytriton_lite._core.deadlock import Watch, watch_slice_s
from pytriton_lite.errors import RequestTimeoutError, TritonError

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
        self._watched: dict[_Submitted, Watch] = {}
        self._next_look: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> LoopBridge:
        """The bridge of a loop; one each."""
        bridge = _bridges.get(loop)
        if bridge is None:
            bridge = _bridges[loop] = cls(loop)
        return bridge

    @classmethod
    def of_running(cls) -> LoopBridge:
        """The bridge of the loop that runs on this thread."""
        return cls.of(asyncio.get_running_loop())

    async def run(self, queue: Any, slot: Any, timeout_s: float | None) -> Any:
        """Queue a slot and await its response; None when the queue is closed.

        Cancelling the task cancels the request.
        """
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
    ) -> bool:
        """Queue a slot whose outcome, converted, becomes the result of a future of this loop.

        A BLS request; it fails when no instance can ever become free for it. Returns False when
        the queue is closed, and nothing has happened.
        """
        submitted = _Submitted(queue, slot, future, convert)
        slot.notify_when_done(lambda _: self._finished(submitted))
        found_idle = queue.submit_all([slot])
        if found_idle is None:
            return False
        if found_idle:
            future.add_done_callback(submitted.ended)
            return True
        self._watched[submitted] = Watch(slot)
        future.add_done_callback(partial(self._ended, submitted))
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().call_later(watch_slice_s(), self._look)
        return True

    def _ended(self, submitted: _Submitted, future: asyncio.Future[Any]) -> None:
        self._watched.pop(submitted, None)
        submitted.ended(future)

    def _look(self) -> None:
        """Look at the requests that found no idle instance, and fail those that are stuck."""
        for submitted, watch in list(self._watched.items()):
            submitted.look(watch)
        self._next_look = None
        if self._watched:
            self._next_look = asyncio.get_running_loop().call_later(watch_slice_s(), self._look)

    def _start(self) -> None:
        starting, self._starting = self._starting, {}
        for queue, slots in starting.items():
            refusal: Exception | None = None
            try:
                if queue.submit_all(slots) is not None:
                    continue
            except Exception as error:
                refusal = error
            for slot in slots:
                future = self._futures.pop(slot, None)
                if future is None or future.done():
                    continue
                if refusal is None:
                    future.set_result(None)
                else:
                    future.set_exception(refusal)

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
        done, futures = self._done, self._futures
        while done:
            slot = done.popleft()
            if isinstance(slot, _WOKEN):
                slot.wake()
                continue
            future = futures.pop(slot, None)
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
        self, queue: Any, slot: Any, future: asyncio.Future[Any], convert: Callable[[Any], Any]
    ) -> None:
        self._queue = queue
        self._slot = slot
        self._future = future
        self._convert = convert

    def wake(self) -> None:
        """Deliver."""
        if not self._future.done():
            self._future.set_result(self._convert(self._slot.take_outcome()))

    def ended(self, future: asyncio.Future[Any]) -> None:
        """Cancel the request of a future that was cancelled."""
        if future.cancelled():
            self._queue.cancel(self._slot)

    def look(self, watch: Watch) -> None:
        """Fail the request if it is stuck."""
        if self._future.done():
            return
        try:
            self._queue.check_watched(watch)
        except TritonError as error:
            self._future.set_result(self._convert(error))


class AsyncResponseStream:
    """Asynchronous iterator over the responses to one request; from `Model.async_stream`.

    Dropping it before the end, `close()`, `cancel()`, the end of an ``async with`` block and
    the cancellation of the task that awaits the next response cancel the request.
    """

    def __init__(self, open_stream: Callable[[], ResponseStream], *, is_lazy: bool) -> None:
        self._open_stream = open_stream
        # An inline model runs while its stream is opened, which must not block the loop.
        self._stream = None if is_lazy else open_stream()
        self._opening: asyncio.Future[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def __anext__(self) -> InferenceResponse:
        loop = asyncio.get_running_loop()
        stream = self._stream
        if stream is None:
            await self._open(loop)
            stream = self._stream
            assert stream is not None
        while True:
            response = stream.try_next()
            if response is not None:
                return response
            if stream.is_finished:
                raise StopAsyncIteration
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.add(waiter)
            try:
                if not stream.arm(partial(LoopBridge.of(loop)._finished, self)):
                    continue
                if (seconds := stream.seconds_left) is None:
                    await waiter
                else:
                    async with asyncio.timeout(seconds):
                        await waiter
            except TimeoutError:
                raise stream.timed_out() from None
            except asyncio.CancelledError:
                stream.close()
                raise
            finally:
                self._waiters.discard(waiter)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the stream of an inline model, once, on a thread of the loop's executor."""
        if self._is_closed:
            raise StopAsyncIteration
        if self._opening is None:
            self._opening = loop.run_in_executor(None, self._open_now)
        try:
            await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            self.close()
            raise

    def _open_now(self) -> None:
        self._stream = self._open_stream()
        if self._is_closed:
            self._stream.close()

    def wake(self) -> None:
        """Look for responses again; on the loop's thread."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def cancel(self) -> None:
        """Cancel the request; the iteration ends. Without effect after the last response."""
        self.close()

    def close(self) -> None:
        """The same as `cancel`."""
        self._is_closed = True
        if self._stream is not None:
            self._stream.close()  # which wakes who waits

    async def aclose(self) -> None:
        """The same as `cancel`, as asynchronous generators call it."""
        self.close()


# What is delivered by `wake`; a tuple, since a union would be made anew for each slot.
_WOKEN = (AsyncResponseStream, _Submitted)
