"""BLS requests of one instance, with what asyncio needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytriton_lite._control import InstanceScope
from pytriton_lite._core.bls import BlsScope, iterator_of, response_of
from pytriton_lite._core.message import InferenceRequest
from pytriton_lite.errors import TritonError

if TYPE_CHECKING:
    import asyncio


class BlsCalls(BlsScope):
    """What `InferenceRequest.exec` and `async_exec` of an instance go through.

    Parameters
    ----------
    scope
        The instance's way to the models of its server.
    """

    def __init__(self, scope: InstanceScope) -> None:
        super().__init__(lambda name, version: scope.control().endpoint(name, version))

    def async_exec(self, request: InferenceRequest, decoupled: bool) -> asyncio.Future[Any]:
        """Answer `InferenceRequest.async_exec`. Cancelling the future cancels the request."""
        import asyncio

        from pytriton_lite._async import LoopBridge

        loop = asyncio.get_running_loop()
        served, prepared = self.prepare(request, decoupled)
        if served is None:
            return _done(loop, iterator_of(prepared) if decoupled else prepared)
        queue = served.queue
        if queue.is_inline:  # would run here, and block the loop
            future = loop.run_in_executor(None, self.run, served, prepared, request, decoupled)
            future.add_done_callback(lambda done: done.cancelled() and queue.cancel(prepared))
            return future
        if decoupled:
            return _done(loop, self.run(served, prepared, request, decoupled))
        future = loop.create_future()
        self.begin_pending(prepared, future)
        future.add_done_callback(lambda _: self.end_pending(prepared))
        try:
            if LoopBridge.of(loop).submit(queue, prepared, future, response_of):
                return future
        except TritonError as error:
            future.set_result(response_of(error))
            return future
        # The callee was replaced or unloaded just now, and has not seen the request.
        self.end_pending(prepared)
        if self.is_replaced(served, request):
            return self.async_exec(request, decoupled)
        return _done(loop, self.run(served, prepared, request, decoupled))


def _done(loop: asyncio.AbstractEventLoop, result: object) -> asyncio.Future[Any]:
    future = loop.create_future()
    future.set_result(result)
    return future
