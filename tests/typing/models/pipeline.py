"""BLS: other models called from a model, one after the other and together."""

from __future__ import annotations

import asyncio
from typing import assert_type

import numpy as np
import triton_python_backend_utils as pb_utils


def ask(model_name: str, tensor: pb_utils.Tensor) -> pb_utils.InferenceRequest:
    return pb_utils.InferenceRequest(
        model_name=model_name,
        requested_output_names=["OUT"],
        inputs=[tensor],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )


def output_of(response: pb_utils.InferenceResponse) -> pb_utils.Tensor:
    error = response.error()
    if error is not None:
        raise pb_utils.TritonModelException(error.message())
    tensor = pb_utils.get_output_tensor_by_name(response, "OUT")
    if tensor is None:
        raise pb_utils.TritonModelException("the callee sent no OUT")
    return tensor


class TritonPythonModel:
    """Two steps, synchronously."""

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        responses = []
        for request in requests:
            (image,) = request.inputs()
            bls_request = pb_utils.InferenceRequest(
                request_id=request.request_id(),
                correlation_id=request.correlation_id(),
                inputs=[image],
                requested_output_names=("OUT",),
                model_name="prepare",
                model_version=2,
                flags=request.flags(),
                timeout=1_000_000,
                trace=request.trace(),
                parameters={"threshold": 3, "mode": "fast", "dry": False},
            )
            prepared = bls_request.exec()
            assert_type(prepared, pb_utils.InferenceResponse)
            if prepared.has_error():
                responses.append(pb_utils.InferenceResponse(error=prepared.error()))
                continue
            classified = ask("classify", output_of(prepared)).exec(decoupled=False)
            assert_type(classified, pb_utils.InferenceResponse)
            out = pb_utils.Tensor.from_dlpack("OUT", output_of(classified).to_dlpack())
            responses.append(pb_utils.InferenceResponse([out]))
        return responses


class Ensemble:
    """Two models together, and a decoupled one."""

    async def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        return [await self.answer(request) for request in requests]

    async def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        (image,) = request.inputs()
        one = await ask("left", image).async_exec()
        assert_type(one, pb_utils.InferenceResponse)
        both = await asyncio.gather(*(ask(name, image).async_exec() for name in ("l", "r")))
        assert_type(both, list[pb_utils.InferenceResponse])
        stream = await ask("streamer", image).async_exec(decoupled=True)
        assert_type(stream, pb_utils.ResponseIterator)
        total = np.zeros(1, dtype=np.float32)
        for part in stream:
            assert_type(part, pb_utils.InferenceResponse)
            if part.output_tensors():
                total += output_of(part).as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", total)])


class DecoupledPipeline:
    """Forwards a stream; ``async def execute`` of a decoupled model returns None."""

    async def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            answers = ask("streamer", request.inputs()[0]).exec(decoupled=True)
            assert_type(answers, pb_utils.ResponseIterator)
            for answer in answers:
                sender.send(answer)
                if sender.is_cancelled():
                    answers.cancel()
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def either(request: pb_utils.InferenceRequest, decoupled: bool) -> None:
    assert_type(request.exec(decoupled), pb_utils.InferenceResponse | pb_utils.ResponseIterator)


def with_fallback(image: pb_utils.Tensor) -> pb_utils.InferenceResponse:
    response = ask("large", image).exec()
    error = response.error()
    if error is not None and error.code() in {
        pb_utils.TritonError.UNAVAILABLE,
        pb_utils.TritonError.NOT_FOUND,
    }:
        pb_utils.Logger.log_warn(f"{error.message()} ({error.code().name})")
        return ask("small", image).exec()
    return response


def first_of(answers: pb_utils.ResponseIterator) -> pb_utils.InferenceResponse:
    first = next(answers)
    assert_type(answers.cancel(), None)
    assert_type(list(answers), list[pb_utils.InferenceResponse])
    return first


async def futures(request: pb_utils.InferenceRequest, decoupled: bool) -> None:
    assert_type(request.async_exec(), asyncio.Future[pb_utils.InferenceResponse])
    assert_type(request.async_exec(decoupled=True), asyncio.Future[pb_utils.ResponseIterator])
    either = await request.async_exec(decoupled)
    assert_type(either, pb_utils.InferenceResponse | pb_utils.ResponseIterator)
    done, pending = await asyncio.wait({request.async_exec()}, timeout=1)
    assert_type(done.pop().result(), pb_utils.InferenceResponse)
    for future in pending:
        future.cancel()


def model_control() -> None:
    assert_type(pb_utils.is_model_ready("classify"), bool)
    if not pb_utils.is_model_ready("classify", "1"):
        pb_utils.load_model("classify", config="{}", files={"file:1/model.onnx": b""})
    pb_utils.unload_model(model_name="classify", unload_dependents=True)
