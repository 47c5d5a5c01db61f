from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, final

import numpy.typing as npt
from typing_extensions import disjoint_base

from pytriton_lite._core.input_spec import InputSpec
from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._core.reply import InferenceResponse
from pytriton_lite._core.slot import CallSlot
from pytriton_lite.errors import RequestTimeoutError

@disjoint_base
class ServedVersion:
    def __init__(
        self,
        spec: InputSpec,
        queue: RequestQueue,
        model_name: str,
        version: int,
        *,
        is_decoupled: bool,
        stream_backlog: int,
    ) -> None: ...
    @property
    def spec(self) -> InputSpec: ...
    @property
    def queue(self) -> RequestQueue: ...
    @property
    def model_name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def is_decoupled(self) -> bool: ...
    @property
    def stream_backlog(self) -> int: ...

@disjoint_base
class Endpoint:
    served: ServedVersion | None
    def __init__(self, explain: Callable[[], BaseException]) -> None: ...
    @property
    def explain(self) -> Callable[[], BaseException]: ...

@disjoint_base
class ModelCalls:
    def __init__(self, endpoint: Endpoint) -> None: ...
    @property
    def _endpoint(self) -> Endpoint: ...
    def __call__(
        self, inputs: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> dict[str, npt.NDArray[Any]]: ...
    def _prepare(
        self, inputs: Mapping[str, Any], options: dict[str, Any] | None
    ) -> tuple[ServedVersion, CallSlot]: ...
    def _check_thread(self, served: ServedVersion) -> None: ...
    def _run(
        self, served: ServedVersion, slot: CallSlot, timeout_s: float | None
    ) -> InferenceResponse: ...
    def _open(
        self,
        served: ServedVersion,
        slot: CallSlot,
        timeout_s: float | None,
        *,
        keeps_empty_final: bool,
        raises: bool,
    ) -> ResponseStream: ...

@final
class ResponseStream:
    @property
    def model_name(self) -> str: ...
    @property
    def is_finished(self) -> bool: ...
    @property
    def seconds_left(self) -> float | None: ...
    def __new__(
        cls,
        served: ServedVersion,
        slot: CallSlot,
        deadline_ns: int,
        keeps_empty_final: bool,
        raises: bool,
    ) -> Self: ...
    def __del__(self) -> None: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> InferenceResponse: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def try_next(self) -> InferenceResponse | None: ...
    def arm(self, notify: Callable[[], object]) -> bool: ...
    def timed_out(self) -> RequestTimeoutError: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
