# ruff: noqa: ANN001, ANN201 - written as users write models
"""Returns its input."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One input, one output."""

    def execute(self, requests):
        """The array of each request's input as its output."""
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", array)]))
        return responses
