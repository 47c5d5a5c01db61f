"""DLPack in both directions, with numpy as the other library."""

from __future__ import annotations

from typing import assert_type

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]})
        return config

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        responses = []
        for request in requests:
            (tensor,) = request.inputs()
            assert_type(tensor.__dlpack_device__(), tuple[int, int])
            assert_type(tensor.is_cpu(), bool)
            doubled = np.asarray(np.from_dlpack(tensor), dtype=np.float32) * 2
            made = pb_utils.Tensor.from_dlpack("OUT", doubled)
            assert_type(made, pb_utils.Tensor)
            again = pb_utils.Tensor.from_dlpack("OUT", made.to_dlpack())
            responses.append(pb_utils.InferenceResponse((again,)))
        return responses
