"""BLS requests of the model in a stub, with what asyncio needs."""

from __future__ import annotations

from pytriton_lite._core.bls import BlsScope
from pytriton_lite._core.contract import Contract
from pytriton_lite._instance.bls import BlsCalls
from pytriton_lite._ipc.stub_bls import StubQueue
from pytriton_lite._typing import override


class StubBls(BlsCalls):
    """`BlsCalls` whose requests all go to the server.

    Parameters
    ----------
    queue
        Takes them there.
    """

    def __init__(self, queue: StubQueue) -> None:
        endpoint = queue.endpoint()
        BlsScope.__init__(self, lambda _name, _version: endpoint)
        self._queue = queue

    @override
    def open(self, contract: Contract) -> None:
        self._queue.open(contract)
        super().open(contract)
