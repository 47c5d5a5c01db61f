from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
from typing_extensions import disjoint_base

from pytriton_lite._core.input_spec import InputSpec
from pytriton_lite._core.message import InferenceRequest
from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._core.reply import InferenceResponse

@disjoint_base
class ServedVersion:
    def __init__(
        self, spec: InputSpec, queue: RequestQueue, model_name: str, version: int
    ) -> None: ...
    @property
    def spec(self) -> InputSpec: ...
    @property
    def queue(self) -> RequestQueue: ...
    @property
    def model_name(self) -> str: ...
    @property
    def version(self) -> int: ...

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
    ) -> tuple[ServedVersion, InferenceRequest]: ...
    def _check_thread(self, served: ServedVersion) -> None: ...
    def _run(
        self, served: ServedVersion, request: InferenceRequest, timeout_s: float | None
    ) -> InferenceResponse: ...
