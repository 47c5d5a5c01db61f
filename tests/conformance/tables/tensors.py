"""Tensors on their way in and out: strings, extremes, ranks, layouts."""

from __future__ import annotations

from ..schema import (
    Group,
    InferCase,
    ModelFiles,
    Values,
    ask,
    plain,
    source,
    tensor,
    words,
)

MADE: dict[str, str] = {
    "str": "np.array(['a', 'größe', '', 'z\\0'], object)",
    "bytes": "np.array([b'a', b'\\0\\xff', b'', b'z\\0'], object)",
    "numbers_and_none": "np.array([1, None, 2.5, True], object)",
    "mixed_2d": "np.array([['a', b'b'], [3, '']], object)",
    "nested_list_element": "np.array([[1, 2], None], object)",
    "bytes_dtype": "np.array([b'ab\\0', b'c'], 'S3')",
    "bytes_dtype_2d": "np.array([[b'ab', b'c']], 'S2')",
    "bytes_dtype_empty": "np.array([], 'S1')",
    "unicode_dtype": "np.array(['a'])",
    "strings_empty": "np.array([], object)",
    "strings_empty_2d": "np.zeros((2, 0), object)",
    "strings_0d": "np.array('alone', object)",
    "bytes_dtype_0d": "np.array(b'alone')",
    "strings_transposed": "np.array([['a', 'b'], ['c', 'd']], object).T",
    "numpy_strings": "np.array([np.str_('a'), np.bytes_(b'b')], object)",
    "bytearray_element": "np.array([bytearray(b'ab'), memoryview(b'cd')[:0].tobytes()], object)",
    "bool": "np.array([True, False])",
    "int8": "np.array([-128, 127], 'i1')",
    "int16": "np.array([-32768, 32767], 'i2')",
    "int32": "np.array([-2**31, 2**31 - 1], 'i4')",
    "int64": "np.array([-2**63, 2**63 - 1], 'i8')",
    "uint8": "np.array([0, 255], 'u1')",
    "uint16": "np.array([0, 65535], 'u2')",
    "uint32": "np.array([0, 2**32 - 1], 'u4')",
    "uint64": "np.array([0, 2**64 - 1], 'u8')",
    "fp16": "np.array([1.5, -65504, np.inf], 'f2')",
    "fp32": "np.array([1.5, -np.inf, 2**-149], 'f4')",
    "fp64": "np.array([0.1, 1e308, 5e-324], 'f8')",
    "nan": "np.array([np.nan], 'f4')",
    "negative_zero": "np.array([-0.0], 'f4')",
    "zero_rank": "np.array(3, 'i4')",
    "zero_size": "np.zeros((2, 0, 3), 'f4')",
    "zero_first": "np.zeros((0, 2), 'f4')",
    "eight_dims": "np.zeros((1,) * 8, 'f4')",
    "fortran": "np.asfortranarray(np.arange(6, dtype='i4').reshape(2, 3))",
    "read_only": "np.frombuffer(b'abcd', 'u1')",
    "large": "np.arange(100_000, dtype='u2')[:50_000:10_000]",
}
MAKE = source("""
    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            code = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            tensor = pb_utils.Tensor("OUT", eval(code))
            return [pb_utils.InferenceResponse([tensor])]
""")
LOOK = source("""
    import json

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            return [self.look(request) for request in requests]

        def look(self, request):
            seen = {}
            for tensor in request.inputs():
                array = tensor.as_numpy()
                seen[tensor.name()] = {
                    "shape": tensor.shape(),
                    "array": [array.dtype.str, list(array.shape), repr(array.tolist())],
                    "flags": [array.flags.writeable, array.flags.c_contiguous, array.flags.aligned],
                    "device": [*tensor.__dlpack_device__()],
                }
            text = json.dumps(seen, sort_keys=True)
            tensor = pb_utils.Tensor("OUT", np.array([text], dtype=np.object_))
            return pb_utils.InferenceResponse([tensor])
""")
TYPES = [
    "BOOL",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "FP16",
    "FP32",
    "FP64",
    "STRING",
]


def looked(datatype: str, dims: str = "-1", name: str = "") -> ModelFiles:
    """Return a model that describes its one input."""
    text = f"""
    backend: "python"
    input [ {{ name: "IN" data_type: TYPE_{datatype} dims: [ {dims} ] }} ]
    output [ {{ name: "OUT" data_type: TYPE_STRING dims: [ -1 ] }} ]
    """
    return ModelFiles(name or f"look_{datatype.lower()}", text, {"1/model.py": LOOK})


def look(case_id: str, model: str, values: Values) -> InferCase:
    """Return a request whose input is described."""
    return InferCase(f"{model}/{case_id}", model, {"IN": values})


MUTATE = ModelFiles(
    "mutate",
    """
    backend: "python"
    input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    input [ { name: "HOW" data_type: TYPE_STRING dims: [ 1 ] } ]
    output [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
    """,
    {
        "1/model.py": source("""
            import triton_python_backend_utils as pb_utils


            class TritonPythonModel:
                kept = None

                def execute(self, requests):
                    how = pb_utils.get_input_tensor_by_name(requests[0], "HOW").as_numpy()[0]
                    tensor = pb_utils.get_input_tensor_by_name(requests[0], "X")
                    if how == b"alias":
                        tensor = pb_utils.Tensor("X", tensor.as_numpy())
                    elif how == b"write":
                        tensor.as_numpy()[0] = -1
                    elif how == b"write_then_wrap":
                        tensor.as_numpy()[0] = -1
                        tensor = pb_utils.Tensor("X", tensor.as_numpy())
                    elif how == b"keep":
                        self.kept = tensor.as_numpy()
                    elif how == b"kept":
                        tensor = pb_utils.Tensor("X", self.kept)
                    elif how == b"dlpack":
                        tensor = pb_utils.Tensor.from_dlpack("X", tensor.to_dlpack())
                    elif how == b"write_then_dlpack":
                        tensor.as_numpy()[0] = -1
                        tensor = pb_utils.Tensor.from_dlpack("X", tensor.to_dlpack())
                    return [pb_utils.InferenceResponse([tensor])]
        """)
    },
)
TYPED = {
    "bool": tensor("BOOL", (2,), True, False),
    "int8": tensor("INT8", (2,), -128, 127),
    "int16": tensor("INT16", (2,), -32768, 32767),
    "int32": tensor("INT32", (2,), -(2**31), 2**31 - 1),
    "int64": tensor("INT64", (2,), -(2**63), 2**63 - 1),
    "uint8": tensor("UINT8", (2,), 0, 255),
    "uint16": tensor("UINT16", (2,), 0, 65535),
    "uint32": tensor("UINT32", (2,), 0, 2**32 - 1),
    "uint64": tensor("UINT64", (2,), 0, 2**64 - 1),
    "fp16": tensor("FP16", (2,), 1.5, -65504.0),
    "fp32": tensor("FP32", (2,), 1.5, -0.0),
    "fp64": tensor("FP64", (2,), 0.1, 1e308),
    "string": words("a", "größe", "", b"\xff\x00"),
}

TENSORS = Group(
    "tensors",
    models=(
        plain("make", MAKE),
        *(looked(datatype) for datatype in TYPES),
        looked("STRING", "-1, -1", "look_string_2d"),
        looked("FP32", "-1, 3", "look_fp32_2d"),
        MUTATE,
    ),
    requests=(
        *(ask(f"make/{name}", "make", code) for name, code in MADE.items()),
        *(look("values", f"look_{name}", values) for name, values in TYPED.items()),
        look("zero_size", "look_fp32", tensor("FP32", (0,))),
        look("zero_size", "look_string", words()),
        look("long", "look_string", words("x" * 3000, "y")),
        look("trailing_nul", "look_string", words(b"ab\0", b"\0")),
        look("four", "look_string_2d", words("a", "bc", "", b"\xff", shape=(2, 2))),
        look("zero_size", "look_string_2d", words(shape=(0, 2))),
        look("two_rows", "look_fp32_2d", tensor("FP32", (2, 3), *map(float, range(6)))),
        look("no_rows", "look_fp32_2d", tensor("FP32", (0, 3))),
        *(
            InferCase(
                f"mutate/{how}", "mutate", {"X": tensor("FP32", (2,), 1.0, 2.0), "HOW": words(how)}
            )
            for how in [
                "pass",
                "alias",
                "write",
                "write_then_wrap",
                "keep",
                "dlpack",
                "write_then_dlpack",
            ]
        ),
        InferCase(
            "mutate/kept", "mutate", {"X": tensor("FP32", (2,), 7.0, 8.0), "HOW": words("kept")}
        ),
    ),
)
