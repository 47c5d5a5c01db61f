# ruff: noqa: ANN001, ANN201 - written as users write models
"""Sum and difference of two tensors, each cast to the configured data type."""

import json

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Two inputs, two outputs."""

    def initialize(self, args):
        """Look the output dtypes up once."""
        config = json.loads(args["model_config"])
        self.sum_dtype, self.difference_dtype = (
            pb_utils.triton_string_to_numpy(
                pb_utils.get_output_config_by_name(config, name)["data_type"]
            )
            for name in ("OUTPUT0", "OUTPUT1")
        )

    def execute(self, requests):
        """Answer each request on its own."""
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            total = pb_utils.Tensor("OUTPUT0", (a + b).astype(self.sum_dtype))
            difference = pb_utils.Tensor("OUTPUT1", (a - b).astype(self.difference_dtype))
            responses.append(pb_utils.InferenceResponse(output_tensors=[total, difference]))
        return responses
