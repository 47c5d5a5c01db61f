"""One classifier behind the preprocessing; the request's parameter `classifier` names it.

An error of a model that was asked is the error of the request.
"""

import json

import numpy as np
import triton_python_backend_utils as pb_utils

SPECIES = np.array([b"setosa", b"versicolor", b"virginica"], dtype=np.object_)


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        classifier = json.loads(request.parameters()).get("classifier", "nearest_centroid")
        measures = pb_utils.get_input_tensor_by_name(request, "MEASURES")
        scaled, error = self.ask(request, "standardize", measures, "SCALED")
        if error is None:
            probability, error = self.ask(request, classifier, scaled, "PROBABILITY")
        if error is not None:
            return pb_utils.InferenceResponse(error=error)
        label = SPECIES[probability.as_numpy().argmax(axis=1)][:, np.newaxis]
        return pb_utils.InferenceResponse([pb_utils.Tensor("SPECIES", label), probability])

    def ask(self, request, model_name, tensor, output_name):
        """(output, None), or (None, error): what goes wrong in `exec` is not raised."""
        response = pb_utils.InferenceRequest(
            model_name=model_name,
            inputs=[tensor],
            requested_output_names=[output_name],
            request_id=request.request_id(),
        ).exec()
        if response.has_error():
            return None, response.error()
        return pb_utils.get_output_tensor_by_name(response, output_name), None
