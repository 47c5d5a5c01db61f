"""Every form of text and parameters, and the helpers around data types."""

from __future__ import annotations

import json
from typing import assert_type

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @classmethod
    def auto_complete_config(cls, config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.add_input({"name": "WORD", "data_type": "TYPE_STRING", "dims": [-1]})
        config.add_output({"name": "UPPER", "data_type": "TYPE_STRING", "dims": [-1]})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        codec()

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        responses = []
        for request in requests:
            tensor = request.inputs()[0]
            words = [word.decode().upper() for word in tensor.as_numpy().ravel()]
            upper = np.array(words, dtype=object).reshape(tensor.shape())
            fixed = np.array([b"a", b"b"], dtype=np.bytes_)
            parameters: dict[str, int] = json.loads(request.parameters())
            assert_type(request.correlation_id(), int | str)
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
                pb_utils.Logger.log_warn(f"sequence {request.correlation_id()} starts")
            outputs = [pb_utils.Tensor("UPPER", upper), pb_utils.Tensor("FIXED", fixed)]
            responses.append(
                pb_utils.InferenceResponse(outputs, parameters={"count": len(words), **parameters})
            )
        return responses


def codec() -> None:
    encoded = pb_utils.serialize_byte_tensor(np.array([b"a"], dtype=object))
    assert_type(encoded, bytes | tuple[()] | None)
    assert isinstance(encoded, bytes)
    decoded = pb_utils.deserialize_bytes_tensor(memoryview(encoded))
    assert decoded.tolist() == [b"a"]
    assert_type(pb_utils.numpy_to_triton_type(np.float32), int | None)
    assert_type(pb_utils.numpy_to_triton_type(np.dtype("int8")), int | None)
    zeros = np.zeros(3, dtype=pb_utils.triton_to_numpy_type(11))
    pb_utils.Tensor("ZEROS", zeros)
    np.zeros(3, dtype=pb_utils.TRITON_STRING_TO_NUMPY["TYPE_FP32"])
    assert pb_utils.json.loads("1") == 1
    assert pb_utils.np.float32(1) == pb_utils.struct.unpack("<f", b"\x00\x00\x80?")[0]
