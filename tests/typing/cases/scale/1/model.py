"""A model as users write it, with types."""

from __future__ import annotations

import json
from typing import assert_type

import numpy as np
import numpy.typing as npt

from pytriton_lite import pb_utils


class TritonPythonModel:
    """Multiplies by a factor and says how many elements there were."""

    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.set_max_batch_size(0)
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "NOTE", "data_type": "TYPE_STRING", "dims": [1]})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.factor = 3.0
        self.has_note = pb_utils.get_output_config_by_name(config, "NOTE") is not None
        pb_utils.Logger.log_info("ready")

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        found = pb_utils.get_input_tensor_by_name(request, "IN")
        assert_type(found, pb_utils.Tensor | None)
        if found is None:
            error = pb_utils.TritonError("IN is missing", pb_utils.TritonError.INVALID_ARG)
            assert_type(error.message(), str)
            assert_type(int(error.code()), int)
            assert_type(error.code().name, str)
            return pb_utils.InferenceResponse(error=error)
        assert_type(found.name(), str)
        assert_type(found.shape(), list[int])
        assert_type(found.is_cpu(), bool)
        assert_type(request.inputs(), list[pb_utils.Tensor])
        assert_type(request.request_id(), str)
        assert_type(request.correlation_id(), int | str)
        assert_type(request.requested_output_names(), set[str])
        assert_type(request.parameters(), str)
        assert_type(request.is_cancelled(), bool)
        values: npt.NDArray[np.float32] = found.as_numpy()
        again = pb_utils.Tensor.from_dlpack("OUT", found)
        assert_type(again, pb_utils.Tensor)
        note = pb_utils.Tensor("NOTE", np.array([f"{values.size} elements"], dtype=np.object_))
        out = pb_utils.Tensor("OUT", values * np.float32(self.factor))
        response = pb_utils.InferenceResponse(output_tensors=[out, note])
        assert_type(response.output_tensors(), list[pb_utils.Tensor])
        assert_type(response.has_error(), bool)
        assert_type(response.error(), pb_utils.TritonError | None)
        return response

    def finalize(self) -> None:
        del self.factor
