"""Mistakes that a type checker must find in models: every ignore here is needed."""

from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.add_input({"name": "IN", "data_type": "FLOAT", "dims": [1]})  # type: ignore[typeddict-item]
        config.add_input({"name": "IN", "dims": [1]})  # type: ignore[typeddict-item]
        config.add_output({"name": "O", "data_type": "TYPE_FP32", "dims": [1], "optional": True})  # type: ignore[typeddict-unknown-key]
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": (1,)})  # type: ignore[typeddict-item]
        config.set_model_transaction_policy({"streaming": True})  # type: ignore[typeddict-unknown-key]
        config.set_max_batch_size("8")  # type: ignore[arg-type]
        return config.as_dict()  # type: ignore[return-value]

    def initialize(self, args: dict[str, str]) -> None:
        pb_utils.Logger.log_warning("text")  # type: ignore[attr-defined]
        pb_utils.Logger.log("text", 0)  # type: ignore[arg-type]
        pb_utils.Logger.log_info(ValueError("text"))  # type: ignore[arg-type]
        pb_utils.Logger()  # type: ignore[call-arg]
        pb_utils.MetricFamily("name", "text", 0)  # type: ignore[arg-type]
        family = pb_utils.MetricFamily("name", "text", pb_utils.MetricFamily.COUNTER)
        family.metric()  # type: ignore[attr-defined]
        family.Metric(["label"])  # type: ignore[arg-type]
        family.Metric().increment("1")  # type: ignore[arg-type]
        family.Metric().inc()  # type: ignore[attr-defined]
        pb_utils.Metric()  # type: ignore[call-arg]
        pb_utils.get_model_directory()  # type: ignore[attr-defined]
        pb_utils.is_model_ready("name", 1)  # type: ignore[arg-type]
        pb_utils.load_model("name", files={"file:a": "text"})  # type: ignore[dict-item]

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        for request in requests:
            request.shape  # type: ignore[attr-defined]  # noqa: B018
            request.model_name()  # type: ignore[attr-defined]
            request.parameters()["key"]  # type: ignore[index]
            request.requested_output_names()[0]  # type: ignore[index]
            request.set_release_flags(flags=2)  # type: ignore[call-arg]
            pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()  # type: ignore[union-attr]
            tensor = request.inputs()[0]
            tensor.shape[0]  # type: ignore[index]
            tensor.numpy()  # type: ignore[attr-defined]
            len(tensor)  # type: ignore[arg-type]
            pb_utils.Tensor(name="OUT", array=np.zeros(1))  # type: ignore[call-arg]
            pb_utils.Tensor("OUT", [1.0])  # type: ignore[arg-type]
            pb_utils.Tensor("OUT", np.float32(1))  # type: ignore[arg-type]
            text = np.zeros(1, dtype=np.str_)
            pb_utils.Tensor("OUT", text)  # type: ignore[arg-type]
            complex_numbers = np.zeros(1, dtype=np.complex64)
            pb_utils.Tensor("OUT", complex_numbers)  # type: ignore[arg-type]
            pb_utils.Tensor.from_dlpack("OUT", [1.0])  # type: ignore[arg-type]
            pb_utils.TritonError("text", 1)  # type: ignore[arg-type]
            pb_utils.TritonError("text", pb_utils.TritonError.INVALID_ARGUMENT)  # type: ignore[attr-defined]
            number: int = pb_utils.TritonError.INTERNAL  # type: ignore[assignment]
            pb_utils.InferenceResponse(tensor)  # type: ignore[arg-type]
            pb_utils.InferenceResponse([np.zeros(1)])  # type: ignore[list-item]
            pb_utils.InferenceResponse(error="text")  # type: ignore[arg-type]
            pb_utils.InferenceResponse(error=ValueError("text"))  # type: ignore[arg-type]
            pb_utils.InferenceResponse(outputs=[tensor])  # type: ignore[call-arg]
            if number:
                raise pb_utils.TritonError("text")  # type: ignore[misc]
        return pb_utils.InferenceResponse()  # type: ignore[return-value]


def sender(request: pb_utils.InferenceRequest) -> None:
    sender = request.get_response_sender()
    sender.send()  # type: ignore[call-overload]
    sender.send(None)  # type: ignore[call-overload]
    sender.send([pb_utils.InferenceResponse()])  # type: ignore[call-overload]
    sender.send(pb_utils.InferenceResponse(), final=True)  # type: ignore[call-overload]
    sender.send(pb_utils.TritonError("text"), flags=1)  # type: ignore[call-overload]
    sender.send(flags=None)  # type: ignore[call-overload]
    sender.close()  # type: ignore[attr-defined]
    pb_utils.InferenceResponseSender()  # type: ignore[call-arg]


async def bls(tensor: pb_utils.Tensor) -> None:
    pb_utils.InferenceRequest(model_name="m", inputs=[tensor])  # type: ignore[call-arg]
    pb_utils.PreferredMemory(1)  # type: ignore[arg-type]
    request = pb_utils.InferenceRequest(
        model_name="m",
        inputs=[tensor],
        requested_output_names={"OUT"},  # type: ignore[arg-type]
    )
    for _ in request.exec():  # type: ignore[attr-defined]
        pass
    request.exec(decoupled=True).has_error()  # type: ignore[attr-defined]
    request.async_exec().has_error()  # type: ignore[attr-defined]
    request.exec(stream=True)  # type: ignore[call-overload]
    async for _ in await request.async_exec(decoupled=True):  # type: ignore[attr-defined]
        pass
    (await request.async_exec(decoupled=True)).output_tensors()  # type: ignore[attr-defined]
    (await request.async_exec()).as_numpy()  # type: ignore[attr-defined]
    next(request.exec(decoupled=True)).as_numpy()  # type: ignore[attr-defined]
    pb_utils.ResponseIterator()  # type: ignore[call-arg]
