"""The documents that are nearest to each query, by the cosine of their BF16 embeddings."""

import json

import torch
import triton_python_backend_utils as pb_utils


def input_of(request, name):
    """An input as torch tensor: no copy, and BF16, which numpy does not have, stays BF16."""
    return torch.from_dlpack(pb_utils.get_input_tensor_by_name(request, name).to_dlpack())


class TritonPythonModel:
    def initialize(self, args):
        outputs = json.loads(args["model_config"])["output"]
        self.count = next(o["dims"][1] for o in outputs if o["name"] == "INDEX")

    @torch.inference_mode()
    def execute(self, requests):
        responses = []
        for request in requests:
            queries, documents = input_of(request, "QUERIES"), input_of(request, "DOCUMENTS")
            if len(documents) < self.count:
                text = f"DOCUMENTS must have {self.count} rows or more, not {len(documents)}"
                error = pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
                continue
            best = self.scores(queries, documents).topk(self.count, dim=1)
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("INDEX", best.indices),
                        pb_utils.Tensor.from_dlpack("SCORE", best.values),
                    ]
                )
            )
        return responses

    def scores(self, queries, documents):
        lengths = torch.outer(queries.float().norm(dim=1), documents.float().norm(dim=1))
        return (queries @ documents.T).float() / lengths
