from typing import Any

from typing_extensions import disjoint_base

from pytriton_lite._core.contract import Contract
from pytriton_lite._core.slot import StreamBuffer
from pytriton_lite._ipc.wire import Link, Reader

@disjoint_base
class StubContract(Contract):
    def __init__(
        self, model: object, *, link: Link, all_outputs: tuple[str, ...], **options: Any
    ) -> None: ...
    def serve(self) -> None: ...
    def cancelled(self, record: Reader) -> None: ...
    def credited(self, record: Reader) -> None: ...

@disjoint_base
class StubStream(StreamBuffer):
    def credit(self, count: int) -> None: ...
