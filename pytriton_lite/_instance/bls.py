"""BLS requests of one instance, with what asyncio needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytriton_lite._control import InstanceScope
from pytriton_lite._core.bls import BlsScope, iterator_of, response_of, stream_iterator
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
        future = loop.create_future()
        if served is None:
            future.set_result(iterator_of(prepared) if decoupled else prepared)
            return future
        if served.queue.is_inline:  # would run here, and block the loop
            return loop.run_in_executor(None, self.exec, request, decoupled)
        try:
            if decoupled:
                served.queue.submit_all([prepared])
                future.set_result(stream_iterator(served, prepared))
            else:
                LoopBridge.of(loop).submit(served.queue, prepared, future, response_of)
        except TritonError as error:
            failed = response_of(error)
            future.set_result(iterator_of(failed) if decoupled else failed)
        return future
