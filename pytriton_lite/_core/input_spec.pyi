from collections.abc import Iterable, Mapping
from typing import Any

from typing_extensions import disjoint_base

from pytriton_lite._core.message import InferenceRequest

@disjoint_base
class InputEntry:
    def __init__(
        self,
        name: str,
        data_type: int,
        dims: tuple[int, ...],
        reshape: tuple[int, ...] | None,
        is_optional: bool,
    ) -> None: ...

@disjoint_base
class InputSpec:
    def __init__(
        self,
        model_name: str,
        max_batch_size: int,
        entries: list[InputEntry],
        output_names: tuple[str, ...],
        *,
        share_memory: bool,
        cpu_only: bool = ...,
    ) -> None: ...
    @property
    def model_name(self) -> str: ...
    @property
    def max_batch_size(self) -> int: ...
    @property
    def output_names(self) -> tuple[str, ...]: ...
    def request(
        self,
        inputs: Mapping[str, Any],
        *,
        request_id: str = "",
        outputs: Iterable[str] | None = None,
        parameters: dict[str, bool | int | float | str] | None = None,
        correlation_id: int | str = 0,
        flags: int = 0,
        timeout: int = 0,
        priority: int = 0,
    ) -> InferenceRequest: ...
