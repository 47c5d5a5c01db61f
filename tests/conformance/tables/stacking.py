"""The helpers of `pytriton_lite.batching`, a copy of which lies beside the model on Triton.

The model makes lists of requests itself, so that their sizes and inputs are what a case says.
"""

from __future__ import annotations

from pathlib import Path

from ..schema import Group, ModelFiles, ask, plain

BATCHING = (Path(__file__).parents[3] / "pytriton_lite" / "batching.py").read_text(encoding="utf-8")
MODEL = """
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils
    from batching import split, stack


    def request(**arrays):
        inputs = [pb_utils.Tensor(name, array) for name, array in arrays.items()]
        return pb_utils.InferenceRequest(
            model_name="none", requested_output_names=[], inputs=inputs
        )


    def floats(rows, *inner, start=0):
        shape = (rows, *inner)
        return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


    def texts(*rows):
        return np.array([[text.encode()] for text in rows], dtype=np.object_)


    def plain(array):
        found = array.tolist()
        if array.dtype == np.object_:
            found = [[text.decode() for text in row] for row in found]
        return [str(array.dtype), found]


    def told(batch):
        return {
            "arrays": {name: plain(array) for name, array in batch.items()},
            "sizes": batch.sizes,
            "lengths": {name: array.tolist() for name, array in batch.lengths.items()},
        }


    def answered(responses):
        return [
            {tensor.name(): plain(tensor.as_numpy()) for tensor in response.output_tensors()}
            if not response.has_error()
            else [str(response.error().code().name), response.error().message()]
            for response in responses
        ]


    def ragged():
        return [
            request(IDS=np.array([[1, 2, 3]])),
            request(IDS=np.array([[4], [5]])),
            request(IDS=np.zeros((1, 0), np.int64)),
        ]


    class TritonPythonModel:
        def execute(self, requests):
            words = [
                pb_utils.get_input_tensor_by_name(one, "IN").as_numpy()[0].decode()
                for one in requests
            ]
            responses = []
            for word in words:
                try:
                    text = json.dumps(getattr(self, word)(), sort_keys=True)
                except (KeyError, TypeError, ValueError) as error:
                    text = f"{type(error).__name__}: {error}"
                tensor = pb_utils.Tensor("OUT", np.array([text], dtype=np.object_))
                responses.append(pb_utils.InferenceResponse([tensor]))
            return responses

        def sizes(self):
            batch = stack([request(X=floats(n, 2, start=10 * n)) for n in (1, 3, 2)])
            responses = split(batch, {"SUM": batch["X"].sum(axis=1), "X": batch["X"]})
            return [told(batch), answered(responses)]

        def named(self):
            batch = stack([request(X=floats(2, 1), Y=floats(2, 3)) for _ in "ab"], "Y")
            return told(batch)

        def bytes(self):
            batch = stack([request(TEXT=texts("a", "bcd")), request(TEXT=texts(""))])
            upper = np.array([[row[0].upper()] for row in batch["TEXT"]], dtype=np.object_)
            return [told(batch), answered(split(batch, {"UPPER": upper}))]

        def alone(self):
            one = request(X=floats(2, 2))
            batch = stack([one])
            response = split(batch, {"Y": batch["X"]})[0]
            inside = one.inputs()[0].as_numpy()
            shared = np.shares_memory(inside, response.output_tensors()[0].as_numpy())
            return [batch["X"] is inside, bool(shared)]

        def absent(self):
            batch = stack([request(X=floats(1, 1)), request(X=floats(1, 1))], "X", "MASK")
            return [told(batch), batch.get("MASK") is None, "MASK" in batch]

        def sometimes_absent(self):
            requests = [request(X=floats(1, 1)), request(X=floats(1, 1), MASK=floats(1, 2))]
            return told(stack(requests))

        def default(self):
            requests = [
                request(X=floats(2, 1)),
                request(X=floats(1, 1), MASK=floats(1, 2), TEXT=texts("t")),
            ]
            defaults = {"MASK": 7, "TEXT": b"none", "BOTH": np.array([1, 2], np.int8)}
            return told(stack(requests, defaults=defaults))

        def padded(self):
            batch = stack(ragged(), pad={"IDS": -1})
            doubled = split(batch, {"TWICE": batch["IDS"] * 2}, unpad={"TWICE": "IDS"})
            return [told(batch), answered(doubled)]

        def not_padded(self):
            return told(stack(ragged()))

        def failed(self):
            requests = [request(X=floats(n, 1)) for n in (1, 2, 1)]
            invalid = pb_utils.TritonError("too late", pb_utils.TritonError.INVALID_ARG)
            batch = stack(requests, errors={0: "first"})
            before = told(batch)
            batch.errors[2] = invalid
            return [before, answered(split(batch, {"Y": batch["X"]}))]

        def all_failed(self):
            requests = [request(X=floats(n, 2)) for n in (1, 2)]
            batch = stack(requests, errors={0: "first", 1: "second"})
            return [told(batch), answered(split(batch, {"Y": batch["X"]}))]

        def dtypes_differ(self):
            return told(stack([request(X=floats(1, 1)), request(X=np.array([[1]]))]))

        def batch_sizes_differ(self):
            return told(stack([request(X=floats(1, 1), Y=floats(2, 1))]))

        def too_few_rows(self):
            batch = stack([request(X=floats(n, 1)) for n in (1, 2)])
            return answered(split(batch, {"Y": batch["X"][1:]}))

        def no_array(self):
            batch = stack([request(X=floats(1, 1))])
            return answered(split(batch, {"Y": [1.0]}))

        def dlpack(self):
            requests = [request(X=floats(n, 1), TEXT=texts(*"ab"[:n])) for n in (1, 2)]
            return told(stack(requests, xp=np))
"""
CASES = (
    "sizes", "named", "bytes", "alone", "absent", "sometimes_absent", "default", "padded",
    "not_padded", "failed", "all_failed", "dtypes_differ", "batch_sizes_differ", "too_few_rows",
    "no_array", "dlpack",
)  # fmt: skip


def _model() -> ModelFiles:
    model = plain("stacking", MODEL)
    return ModelFiles(model.name, model.config_pbtxt, {**model.files, "1/batching.py": BATCHING})


STACKING = Group(
    name="stacking",
    models=(_model(),),
    requests=tuple(ask(f"stacking/{case}", "stacking", case) for case in CASES),
)
