from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from typing_extensions import disjoint_base

from pytriton_lite._core.answer import AnswerMaker
from pytriton_lite._core.message import InferenceRequest, InferenceResponse
from pytriton_lite._core.sender import InferenceResponseSender
from pytriton_lite._core.slot import CallSlot

def current_contract() -> Contract | None: ...
def is_ctrl_c(error: BaseException) -> bool: ...

class _Loop(Protocol):
    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any: ...
    def start(
        self,
        coroutine: Coroutine[Any, Any, Any],
        done: Callable[[Any, BaseException | None], None],
    ) -> None: ...

@disjoint_base
class Contract(AnswerMaker):
    scope: Any
    def __init__(
        self,
        model: object,
        *,
        model_name: str,
        model_version: int,
        instance_name: str,
        model_file: str,
        describe: Callable[[BaseException], str],
        loop: _Loop,
        check_outputs: Callable[[tuple[str, ...], int, InferenceResponse], None] | None,
        output_reshapes: dict[str, tuple[int, ...]] | None,
        max_batch_size: int,
        is_decoupled: bool,
        is_iterative: bool,
        share_memory: bool,
        is_inline: bool,
    ) -> None: ...
    @property
    def model_file(self) -> str: ...
    @property
    def is_inline(self) -> bool: ...
    @property
    def max_batch_size(self) -> int: ...
    def run_slots(self, slots: list[CallSlot]) -> list[CallSlot]: ...
    def release(self) -> None: ...
    def make_sender(self, request: InferenceRequest) -> InferenceResponseSender: ...
