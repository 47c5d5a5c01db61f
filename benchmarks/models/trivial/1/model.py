# ruff: noqa: ANN001, ANN201 - written as users write models
"""Answers without a look at the request: what is measured is the way there and back."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One input, and no output although one is configured."""

    def execute(self, requests):
        """An empty response for each request."""
        return [pb_utils.InferenceResponse([]) for _ in requests]
