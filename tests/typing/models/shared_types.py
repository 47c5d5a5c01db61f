"""`pytriton_lite.pb_utils`, `triton_python_backend_utils` and the native module: equal classes."""

from __future__ import annotations

from typing import assert_type

import c_python_backend_utils as native
import numpy as np
import triton_python_backend_utils as pb_utils
from c_python_backend_utils import InferenceResponseSender, ResponseIterator

from pytriton_lite import pb_utils as for_scripts


def double(tensor: pb_utils.Tensor) -> pb_utils.Tensor:
    return pb_utils.Tensor("OUT", tensor.as_numpy() * 2)


def test_double() -> None:
    doubled = double(for_scripts.Tensor("IN", np.ones(1)))
    assert_type(doubled, for_scripts.Tensor)
    assert_type(doubled, native.Tensor)
    request = for_scripts.InferenceRequest(
        model_name="m", inputs=[doubled], requested_output_names=[]
    )
    pb_utils.get_input_tensor_by_name(request, "OUT")
    response: native.InferenceResponse = for_scripts.InferenceResponse([doubled])
    assert pb_utils.get_output_tensor_by_name(response, "OUT") is doubled
    error: pb_utils.TritonError = for_scripts.TritonError("text", pb_utils.TritonError.INTERNAL)
    for_scripts.InferenceResponse(error=error)
    for_scripts.Logger.log("text", native.Logger.WARNING)
    for_scripts.MetricFamily("name", "text", native.COUNTER)


class TritonPythonModel:
    def execute(self, requests: list[native.InferenceRequest]) -> None:
        for request in requests:
            self.stream(request, request.get_response_sender())

    def stream(self, request: native.InferenceRequest, sender: InferenceResponseSender) -> None:
        assert_type(sender, pb_utils.InferenceResponseSender)
        for response in self.ask(request):
            sender.send(response)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def ask(self, request: native.InferenceRequest) -> ResponseIterator:
        answers = request.exec(decoupled=True)
        assert_type(answers, pb_utils.ResponseIterator)
        return answers
