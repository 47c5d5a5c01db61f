"""Sum and difference: the first model of most authors."""

from __future__ import annotations

import json
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        inputs: list[pb_utils.InputProperties] = [
            {"name": "A", "data_type": "TYPE_FP32", "dims": [-1]},
            {"name": "B", "data_type": "TYPE_FP32", "dims": [-1], "optional": True},
        ]
        for properties in inputs:
            config.add_input(properties)
        for name in ("SUM", "DIFFERENCE"):
            config.add_output({"name": name, "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(0)
        config.set_model_transaction_policy({"decoupled": False})
        assert_type(config.as_dict(), dict[str, Any])
        return config

    def initialize(self, args: dict[str, str]) -> None:
        self.config: dict[str, Any] = json.loads(args["model_config"])
        if pb_utils.using_decoupled_model_transaction_policy(self.config):
            raise pb_utils.TritonModelException("add_sub is not decoupled")
        output = pb_utils.get_output_config_by_name(self.config, "SUM")
        assert_type(output, dict[str, Any] | None)
        assert output is not None
        self.dtype = pb_utils.triton_string_to_numpy(output["data_type"])
        pb_utils.Logger.log_info(f"{args['model_name']} is in {pb_utils.get_model_dir()}")
        pb_utils.Logger.log("ready", pb_utils.Logger.VERBOSE)
        pb_utils.Logger.log("ready", level=pb_utils.Logger.LogLevel.INFO)

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        return [self.answer(request) for request in requests]

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        a = pb_utils.get_input_tensor_by_name(request, "A")
        b = pb_utils.get_input_tensor_by_name(request, "B")
        if a is None:
            return pb_utils.InferenceResponse(
                error=pb_utils.TritonError("A is missing", pb_utils.TritonError.INVALID_ARG)
            )
        left: npt.NDArray[np.float32] = a.as_numpy()
        right: npt.NDArray[np.float32] = np.ones_like(left) if b is None else b.as_numpy()
        if left.shape != right.shape:
            error = pb_utils.TritonError(f"A is {a.shape()}", code=pb_utils.TritonError.UNSUPPORTED)
            assert_type(error.message(), str)
            assert_type(error.code().name, str)
            assert_type(int(error.code()), int)
            return pb_utils.InferenceResponse([], error)
        wanted = request.requested_output_names()
        assert_type(wanted, set[str])
        tensors: list[pb_utils.Tensor] = []
        if "SUM" in wanted:
            tensors.append(pb_utils.Tensor("SUM", (left + right).astype(self.dtype)))
        if "DIFFERENCE" in wanted:
            tensors.append(pb_utils.Tensor("DIFFERENCE", left - right))
        response = pb_utils.InferenceResponse(output_tensors=tensors)
        assert_type(response.output_tensors(), list[pb_utils.Tensor])
        assert_type(response.error(), pb_utils.TritonError | None)
        return response

    def finalize(self) -> None:
        self.config.clear()
