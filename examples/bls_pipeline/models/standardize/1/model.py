"""Preprocessing: brings the four measures of a flower to mean 0 and deviation 1."""

import json
import os

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        with open(os.path.join(pb_utils.get_model_dir(), "scale.json"), encoding="utf-8") as file:
            scale = json.load(file)
        self.mean = np.array(scale["mean"], np.float32)
        self.deviation = np.array(scale["deviation"], np.float32)

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        measures = pb_utils.get_input_tensor_by_name(request, "MEASURES").as_numpy()
        if not np.all(measures > 0):
            error = pb_utils.TritonError("measures are positive", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        scaled = (measures - self.mean) / self.deviation
        return pb_utils.InferenceResponse([pb_utils.Tensor("SCALED", scaled)])
