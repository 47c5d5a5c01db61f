"""The models of this folder as `TritonPythonModel`, and classes that are none."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import add_sub
import dlpack
import metrics
import pipeline
import shared_types
import streamer
import text
import triton_python_backend_utils

import pytriton_lite as ptl
from pytriton_lite import pb_utils


class Untyped:
    def execute(self, requests):
        return [pb_utils.InferenceResponse() for _ in requests]


class ForScripts:
    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        return [pb_utils.InferenceResponse(request.inputs()) for request in requests]


models: list[type[ptl.TritonPythonModel]] = [
    add_sub.TritonPythonModel,
    dlpack.TritonPythonModel,
    metrics.TritonPythonModel,
    pipeline.TritonPythonModel,
    pipeline.Ensemble,
    pipeline.DecoupledPipeline,
    shared_types.TritonPythonModel,
    streamer.TritonPythonModel,
    streamer.Rescheduled,
    streamer.RescheduledStream,
    streamer.Coroutines,
    streamer.Unfinished,
    text.TritonPythonModel,
    Untyped,
    ForScripts,
]


class NoExecute:
    def initialize(self, args: dict[str, str]) -> None: ...


class OneRequest:
    def execute(
        self, request: triton_python_backend_utils.InferenceRequest
    ) -> list[triton_python_backend_utils.InferenceResponse]:
        return []


class NoParameter:
    def execute(self) -> list[triton_python_backend_utils.InferenceResponse]:
        return []


class TwoParameters:
    def execute(
        self, requests: list[triton_python_backend_utils.InferenceRequest], config: Any
    ) -> list[triton_python_backend_utils.InferenceResponse]:
        return []


class OneResponse:
    def execute(
        self, requests: list[triton_python_backend_utils.InferenceRequest]
    ) -> triton_python_backend_utils.InferenceResponse:
        return triton_python_backend_utils.InferenceResponse()


class TupleOfResponses:
    def execute(
        self, requests: list[triton_python_backend_utils.InferenceRequest]
    ) -> tuple[triton_python_backend_utils.InferenceResponse, ...]:
        return ()


class Tensors:
    def execute(
        self, requests: list[triton_python_backend_utils.InferenceRequest]
    ) -> list[triton_python_backend_utils.Tensor]:
        return []


class Errors:
    async def execute(
        self, requests: list[triton_python_backend_utils.InferenceRequest]
    ) -> list[triton_python_backend_utils.TritonError]:
        return []


def mistakes() -> None:
    model: type[ptl.TritonPythonModel]
    model = NoExecute  # type: ignore[assignment]
    model = OneRequest  # type: ignore[assignment]
    model = NoParameter  # type: ignore[assignment]
    model = TwoParameters  # type: ignore[assignment]
    model = OneResponse  # type: ignore[assignment]
    model = TupleOfResponses  # type: ignore[assignment]
    model = Tensors  # type: ignore[assignment]
    model = Errors  # type: ignore[assignment]
    print(model)
