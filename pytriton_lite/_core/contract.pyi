from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import disjoint_base

from pytriton_lite._core.message import InferenceResponse

def current_contract() -> Contract | None: ...
def is_ctrl_c(error: BaseException) -> bool: ...

@disjoint_base
class Contract:
    namespace: Any
    def __init__(
        self,
        model: object,
        *,
        model_name: str,
        model_version: int,
        instance_name: str,
        model_file: str,
        describe: Callable[[BaseException], str],
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any],
        check_outputs: Callable[[tuple[str, ...], int, InferenceResponse], None] | None,
        output_reshapes: dict[str, tuple[int, ...]] | None,
        is_batching: bool,
        share_memory: bool,
        is_inline: bool,
    ) -> None: ...
    @property
    def model_name(self) -> str: ...
    @property
    def model_version(self) -> int: ...
    @property
    def instance_name(self) -> str: ...
    @property
    def model_file(self) -> str: ...
    @property
    def is_inline(self) -> bool: ...
    def release(self) -> None: ...
