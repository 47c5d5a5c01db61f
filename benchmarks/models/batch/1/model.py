# ruff: noqa: ANN001, ANN201 - written as users write models
"""Answers a batch without a look at the requests, at once or after a pause."""

import json
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One input, and no output although one is configured."""

    def initialize(self, args):
        """How long each `execute` takes is a parameter of the configuration."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.pause = float(parameters["pause_s"]["string_value"])

    def execute(self, requests):
        """An empty response for each request."""
        if self.pause:
            time.sleep(self.pause)
        return [pb_utils.InferenceResponse([]) for _ in requests]
