"""The mean vector of a text's words, for all texts of a batch at once."""

import numpy as np
import triton_python_backend_utils as pb_utils

from pytriton_lite.batching import split, stack


class TritonPythonModel:
    def initialize(self, args):
        # Random numbers stand for what a real model has learnt: a vector for each of 1,000 words.
        self.vectors = np.random.default_rng(1).standard_normal((1000, 4), dtype=np.float32)

    def execute(self, requests):
        batch = stack(requests, pad={"IDS": 0}, errors=self.refused(requests))
        lengths = batch.lengths["IDS"][:, None]
        is_word = np.arange(batch["IDS"].shape[1]) < lengths
        sums = (self.vectors[batch["IDS"]] * is_word[..., None]).sum(axis=1)
        return split(batch, {"VECTOR": (sums / lengths).astype(np.float32)})

    def refused(self, requests):
        """Errors by position; the other requests of the batch are answered all the same."""
        errors = {}
        for position, request in enumerate(requests):
            ids = pb_utils.get_input_tensor_by_name(request, "IDS").as_numpy()
            if ids.shape[1] == 0:
                text = "IDS has no words"
            elif ids.min() < 0 or ids.max() >= len(self.vectors):
                text = f"IDS must be within 0 and {len(self.vectors) - 1}"
            else:
                continue
            errors[position] = pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
        return errors
