# ruff: noqa: ANN001, ANN201 - written as users write models
"""Does not answer before its process is killed."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """No input, and no output although one is configured."""

    def execute(self, requests):
        """Wait much longer than a benchmark does."""
        time.sleep(60)
        return [pb_utils.InferenceResponse([]) for _ in requests]
