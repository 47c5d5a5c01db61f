"""Several classifiers behind the preprocessing, asked at the same time: their mean counts.

The request's parameter `classifiers` names them. One that does not answer has no vote; only if
none answers the request fails.
"""

import asyncio
import json

import numpy as np
import triton_python_backend_utils as pb_utils

SPECIES = np.array([b"setosa", b"versicolor", b"virginica"], dtype=np.object_)


class TritonPythonModel:
    async def execute(self, requests):
        return await asyncio.gather(*(self.answer(request) for request in requests))

    async def answer(self, request):
        parameters = json.loads(request.parameters())
        names = parameters.get("classifiers", "nearest_centroid,naive_bayes").split(",")
        measures = pb_utils.get_input_tensor_by_name(request, "MEASURES")
        prepared = await self.ask("standardize", measures, "SCALED")
        if prepared.has_error():
            return pb_utils.InferenceResponse(error=prepared.error())
        scaled = pb_utils.get_output_tensor_by_name(prepared, "SCALED")

        votes, errors = [], []
        responses = await asyncio.gather(*(self.ask(n, scaled, "PROBABILITY") for n in names))
        for name, response in zip(names, responses, strict=True):
            if response.has_error():
                errors.append(response.error())
                pb_utils.Logger.log_warn(f"no vote of '{name}': {errors[-1].message()}")
            else:
                vote = pb_utils.get_output_tensor_by_name(response, "PROBABILITY")
                votes.append(vote.as_numpy())
        if not votes:
            return pb_utils.InferenceResponse(error=errors[0])

        probability = np.mean(votes, axis=0)
        label = SPECIES[probability.argmax(axis=1)][:, np.newaxis]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("SPECIES", label), pb_utils.Tensor("PROBABILITY", probability)]
        )

    def ask(self, model_name, tensor, output_name):
        """Future of the response."""
        return pb_utils.InferenceRequest(
            model_name=model_name, inputs=[tensor], requested_output_names=[output_name]
        ).async_exec()
