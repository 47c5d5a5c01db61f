"""Python-based backend `sklearn`: serves any stored scikit-learn classifier.

A model of this backend is a file `model.joblib` in its version folder. The estimator itself
tells the inputs and outputs: `n_features_in_` and `classes_`.
"""

import os

import joblib
import numpy as np
import triton_python_backend_utils as pb_utils


def load_estimator():
    return joblib.load(os.path.join(pb_utils.get_model_dir(), "model.joblib"))


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        estimator = load_estimator()
        label_type = "TYPE_INT64" if estimator.classes_.dtype.kind in "iu" else "TYPE_STRING"
        config.set_max_batch_size(256)
        config.add_input(
            {"name": "FEATURES", "data_type": "TYPE_FP32", "dims": [estimator.n_features_in_]}
        )
        config.add_output({"name": "LABEL", "data_type": label_type, "dims": [1]})
        config.add_output(
            {"name": "PROBABILITY", "data_type": "TYPE_FP32", "dims": [len(estimator.classes_)]}
        )
        return config

    def initialize(self, args):
        self.estimator = load_estimator()
        classes = self.estimator.classes_
        self.labels = classes.astype(np.int64 if classes.dtype.kind in "iu" else np.object_)

    def execute(self, requests):
        # One prediction for all rows of all requests, then one part for each request.
        rows = [
            pb_utils.get_input_tensor_by_name(request, "FEATURES").as_numpy()
            for request in requests
        ]
        probability = self.estimator.predict_proba(np.concatenate(rows)).astype(np.float32)
        label = self.labels[probability.argmax(axis=1)][:, np.newaxis]
        ends = np.cumsum([len(part) for part in rows])[:-1]
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("LABEL", labels), pb_utils.Tensor("PROBABILITY", probabilities)]
            )
            for labels, probabilities in zip(
                np.split(label, ends), np.split(probability, ends), strict=True
            )
        ]
