import concurrent.futures
from types import TracebackType
from typing import final

from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._core.reply import InferenceResponse
from pytriton_lite._core.slot import CallSlot

@final
class Condition:
    def acquire(self) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def wait(self, timeout: float | None = None) -> bool: ...
    def notify_all(self) -> None: ...

class RequestFuture(concurrent.futures.Future[InferenceResponse]):
    def __init__(self, queue: RequestQueue, slot: CallSlot) -> None: ...
