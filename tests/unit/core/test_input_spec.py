"""`InputSpec`: request validation and conversion.

Texts and verdicts of the first part are observed on Triton 2.51: the table in section 3 of the
server's contract, as far as arrays can express a row. Where several inputs are wrong, Triton
reports one in the order of a hash table and we report the first of the request.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.input_spec import InputEntry, InputSpec
from pytriton_lite._dtypes import BY_NUMBER, DataType

from .producers import BFLOAT, CUDA, FLOAT, Producer

FP32, INT32, STRING, BOOL, UINT8 = 11, 8, 13, 1, 2
NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)
UNKNOWN = "[request id: <id_unknown>] "


def entry(name, data_type, dims, reshape=None, *, optional=False):
    return InputEntry(name, data_type, dims, reshape, optional)


def make(name, *entries, max_batch_size=0, share_memory=False, cpu_only=True):
    return InputSpec(
        name,
        max_batch_size,
        list(entries),
        ("OUT0", "OUT1"),
        share_memory=share_memory,
        cpu_only=cpu_only,
    )


MODELS = {
    "nb": make("nb", entry("IN0", FP32, (2,)), entry("IN1", FP32, (2,))),
    "b4": make("b4", entry("IN0", FP32, (2,)), entry("IN1", FP32, (2,)), max_batch_size=4),
    "wild": make("wild", entry("IN0", INT32, (-1, 3))),
    "opt": make("opt", entry("IN0", FP32, (2,)), entry("IN1", FP32, (2,), optional=True)),
    "allopt": make("allopt", entry("IN0", FP32, (2,), optional=True)),
    "str": make("str", entry("IN0", STRING, (2,))),
    "boolm": make("boolm", entry("IN0", BOOL, (2,))),
    "f16": make("f16", entry("IN0", 10, (2,))),
    "bf16": make("bf16", entry("IN0", 14, (2,))),
    "resh": make("resh", entry("IN0", FP32, (4,), (2, 2))),
    "scalar": make("scalar", entry("IN0", FP32, (1,), ()), max_batch_size=4),
    "u8": make("u8", entry("IN0", UINT8, (2,))),
}


def f32(*shape):
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)


PAIR = {"IN0": np.float32([1, 2]), "IN1": np.float32([1, 2])}


def taken(request):
    """Name, data type number, shape and values of each input."""
    return [
        (t.name(), t.triton_dtype(), t.shape(), t.as_numpy().tolist()) for t in request.inputs()
    ]


def memory(tensor):
    """Address of the memory behind an input; `as_numpy` would show a private copy."""
    return np.from_dlpack(tensor).ctypes.data


def refused(spec, inputs, **options):
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        spec.request(inputs, **options)
    assert caught.value.model == spec.model_name
    return str(caught.value)


# -- the table -------------------------------------------------------------------------

OK = [
    ("ok", "nb", PAIR, [("IN0", 11, [2], [1, 2]), ("IN1", 11, [2], [1, 2])]),
    (
        "order_of_the_request",
        "nb",
        dict(reversed(PAIR.items())),
        [("IN1", 11, [2], [1, 2]), ("IN0", 11, [2], [1, 2])],
    ),
    ("zero_dim", "wild", {"IN0": np.zeros((0, 3), np.int32)}, [("IN0", 8, [0, 3], [])]),
    ("nested_data", "wild", {"IN0": [[1, 2, 3]]}, [("IN0", 8, [1, 3], [[1, 2, 3]])]),
    ("bool_ok", "boolm", {"IN0": [True, False]}, [("IN0", 1, [2], [True, False])]),
    (
        "b4_ok",
        "b4",
        {"IN0": f32(2, 2), "IN1": f32(2, 2)},
        [("IN0", 11, [2, 2], [[0, 1], [2, 3]]), ("IN1", 11, [2, 2], [[0, 1], [2, 3]])],
    ),
    ("opt_missing_ok", "opt", {"IN0": f32(2)}, [("IN0", 11, [2], [0, 1])]),
    ("opt_only_optional", "opt", {"IN1": f32(2)}, [("IN1", 11, [2], [0, 1])]),
    ("allopt_none", "allopt", {}, []),
    ("str_ok", "str", {"IN0": ["a", "bc"]}, [("IN0", 13, [2], [b"a", b"bc"])]),
    ("reshape_ok", "resh", {"IN0": f32(4)}, [("IN0", 11, [2, 2], [[0, 1], [2, 3]])]),
    ("scalar_ok", "scalar", {"IN0": np.float32([[7]])}, [("IN0", 11, [1], [7])]),
    ("fp16", "f16", {"IN0": np.float16([1, 2])}, [("IN0", 10, [2], [1, 2])]),
    ("u8", "u8", {"IN0": np.uint8([255, 0])}, [("IN0", 2, [2], [255, 0])]),
]

REFUSED = [
    (
        "missing_input",
        "nb",
        {"IN0": f32(2)},
        UNKNOWN + "expected 2 inputs but got 1 inputs for model 'nb'. Got input(s) ['IN0'], but "
        "missing required input(s) ['IN1']. Please provide all required input(s).",
    ),
    (
        "no_inputs",
        "nb",
        {},
        UNKNOWN + "expected 2 inputs but got 0 inputs for model 'nb'. Got input(s) [], but "
        "missing required input(s) ['IN0','IN1']. Please provide all required input(s).",
    ),
    (
        "extra_input",
        "nb",
        {"IN2": f32(2), "IN1": f32(2), "IN0": f32(2)},
        UNKNOWN + "expected 2 inputs but got 3 inputs for model 'nb'. Got input(s) "
        "['IN2','IN1','IN0'], but missing required input(s) ]. "
        "Please provide all required input(s).",
    ),
    (
        "replaced_input",
        "nb",
        {"IN0": f32(2), "ZZ": f32(2)},
        "unexpected inference input 'ZZ' for model 'nb'",
    ),
    (
        "wrong_dtype",
        "nb",
        {"IN0": np.int32([1, 2]), "IN1": f32(2)},
        UNKNOWN + "inference input 'IN0' data-type is 'INT32', but model 'nb' expects 'FP32'",
    ),
    (
        "wrong_rank",
        "nb",
        {"IN0": f32(1, 2), "IN1": f32(2)},
        UNKNOWN + "unexpected shape for input 'IN0' for model 'nb'. Expected [2], got [1,2]. ",
    ),
    (
        "wrong_dim",
        "nb",
        {"IN0": f32(3), "IN1": f32(2)},
        UNKNOWN + "unexpected shape for input 'IN0' for model 'nb'. Expected [2], got [3]. ",
    ),
    (
        "wild_wrong_fixed",
        "wild",
        {"IN0": np.zeros((2, 4), np.int32)},
        UNKNOWN + "unexpected shape for input 'IN0' for model 'wild'. Expected [-1,3], got [2,4]. ",
    ),
    (
        "b4_no_batch_dim",
        "b4",
        {"IN1": f32(2), "IN0": f32(2)},
        UNKNOWN
        + f"unexpected shape for input 'IN1' for model 'b4'. Expected [-1,2], got [2]. {NOTE}",
    ),
    (
        "b4_too_big",
        "b4",
        {"IN0": f32(5, 2), "IN1": f32(5, 2)},
        UNKNOWN + "inference request batch-size must be <= 4 for 'b4'",
    ),
    (
        "b4_mismatch",
        "b4",
        {"IN1": f32(1, 2), "IN0": f32(2, 2)},
        UNKNOWN + "input 'IN0' batch size does not match other inputs for 'b4'",
    ),
    (
        "b4_batch0",
        "b4",
        {"IN1": f32(0, 2), "IN0": f32(0, 2)},
        UNKNOWN + "input byte size mismatch for input 'IN1' for model 'b4'. Expected 8, got 0",
    ),
    (
        "b4_empty_shape",
        "b4",
        {"IN1": np.array(1, np.float32), "IN0": np.array(1, np.float32)},
        UNKNOWN + "input 'IN1' has no shape but model requires batch dimension for 'b4'",
    ),
    (
        "b4_wrong_dim",
        "b4",
        {"IN0": f32(1, 3), "IN1": f32(1, 2)},
        UNKNOWN
        + f"unexpected shape for input 'IN0' for model 'b4'. Expected [-1,2], got [1,3]. {NOTE}",
    ),
    (
        "opt_none",
        "opt",
        {},
        UNKNOWN + "expected number of inputs between 1 and 2 but got 0 inputs for model 'opt'. "
        "Got input(s) [], but missing required input(s) ['IN0']. "
        "Please provide all required input(s).",
    ),
    (
        "opt_extra",
        "opt",
        {"IN2": f32(2), "IN1": f32(2), "IN0": f32(2)},
        UNKNOWN + "expected number of inputs between 1 and 2 but got 3 inputs for model 'opt'. "
        "Got input(s) ['IN2','IN1','IN0'], but missing required input(s) ]. "
        "Please provide all required input(s).",
    ),
    (
        "reshape_client_sends_reshaped",
        "resh",
        {"IN0": f32(2, 2)},
        UNKNOWN + "unexpected shape for input 'IN0' for model 'resh'. Expected [4], got [2,2]. ",
    ),
    (
        "str_dtype",
        "str",
        {"IN0": f32(2)},
        UNKNOWN + "inference input 'IN0' data-type is 'FP32', but model 'str' expects 'BYTES'",
    ),
    (
        "bf16_dtype",
        "bf16",
        {"IN0": np.float16([1, 2])},
        UNKNOWN + "inference input 'IN0' data-type is 'FP16', but model 'bf16' expects 'BF16'",
    ),
]


@pytest.mark.parametrize(("case", "model", "inputs", "wanted"), OK, ids=[row[0] for row in OK])
def test_accepted(case, model, inputs, wanted):
    assert taken(MODELS[model].request(inputs)) == wanted


@pytest.mark.parametrize(
    ("case", "model", "inputs", "text"), REFUSED, ids=[row[0] for row in REFUSED]
)
def test_refused_with_tritons_text(case, model, inputs, text):
    assert refused(MODELS[model], inputs) == text


def test_the_request_id_is_in_the_text():
    text = refused(MODELS["nb"], {"IN0": f32(2)}, request_id="req-7")
    assert text.startswith("[request id: req-7] expected 2 inputs but got 1 inputs")


def test_requested_outputs():
    request = MODELS["nb"].request(PAIR)
    assert request.requested_output_names() == {"OUT0", "OUT1"}
    request = MODELS["nb"].request(PAIR, outputs=["OUT1", "OUT1"])
    assert request.requested_output_names() == {"OUT1"}
    request = MODELS["nb"].request(PAIR, outputs=[])
    assert request.requested_output_names() == {"OUT0", "OUT1"}


def test_unknown_output_comes_first():
    # Triton checks the requested outputs before the inputs.
    for inputs in (PAIR, {}):
        text = refused(MODELS["nb"], inputs, outputs=["OUT1", "ZZ"])
        assert text == "unexpected inference output 'ZZ' for model 'nb'"


def test_outputs_as_one_str_is_a_mistake():
    with pytest.raises(ptl.InvalidArgumentError, match="a list of names, not a str"):
        MODELS["nb"].request(PAIR, outputs="OUT1")


# -- facts of a request ----------------------------------------------------------------


def test_options_of_a_request():
    request = MODELS["nb"].request(
        PAIR,
        request_id="r",
        parameters={"f": 1.5, "b": True},
        correlation_id="seq",
        flags=3,
        timeout=100,
        priority=2,
    )
    assert request.request_id() == "r"
    assert request.parameters() == '{"f":1.5,"b":true}'
    assert request.correlation_id() == "seq"
    assert request.flags() == 3
    assert request.timeout() == 100
    assert not request.is_cancelled()


def test_attributes_of_the_spec():
    spec = MODELS["b4"]
    assert spec.model_name == "b4"
    assert spec.max_batch_size == 4
    assert spec.output_names == ("OUT0", "OUT1")


@pytest.mark.parametrize("inputs", [None, 1, "IN0", [1], [f32(3)], f32(2)], ids=repr)
def test_inputs_must_be_a_mapping(inputs):
    assert "must be a mapping of input names to arrays" in refused(MODELS["nb"], inputs)


def test_any_mapping_is_taken():
    from types import MappingProxyType

    assert len(MODELS["nb"].request(MappingProxyType(PAIR)).inputs()) == 2


@pytest.mark.parametrize("name", [1, None, ("IN0",), b"IN0"], ids=repr)
def test_names_that_are_no_str(name):
    assert "unexpected inference input" in refused(MODELS["u8"], {name: np.uint8([1, 2])})


# -- memory ----------------------------------------------------------------------------


def spec_of(data_type, dims=(-1,), **options):
    return make("m", entry("X", data_type, dims), **options)


NUMERIC = [row for row in BY_NUMBER.values() if row.protocol_name not in ("BYTES", "BF16")]


@pytest.mark.parametrize("row", NUMERIC, ids=lambda row: row.protocol_name)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_fitting_arrays_are_not_copied(row, shape):
    array = np.ones(shape, dtype=row.numpy_dtype)
    (tensor,) = spec_of(row.number, (-1,) * len(shape)).request({"X": array}).inputs()
    assert tensor.triton_dtype() == row.number
    assert tensor.shape() == list(shape)
    if array.size:
        assert memory(tensor) == array.ctypes.data


def test_a_model_sees_a_private_copy():
    array = f32(3)
    (tensor,) = spec_of(FP32).request({"X": array}).inputs()
    shown = tensor.as_numpy()
    assert shown.flags.writeable
    assert shown is tensor.as_numpy()
    assert not np.shares_memory(shown, array)
    shown[...] = -1
    assert array.tolist() == [0, 1, 2]


def test_shared_memory_shows_the_callers_array():
    array = f32(3)
    (tensor,) = spec_of(FP32, share_memory=True).request({"X": array}).inputs()
    assert tensor.as_numpy() is array


def test_a_reshaped_input_is_a_view():
    array = f32(4)
    (tensor,) = MODELS["resh"].request({"IN0": array}).inputs()
    assert memory(tensor) == array.ctypes.data


def test_reshape_carries_variable_sizes_over():
    # dims [-1, 4, -1] as [4, -1, 1, -1]: the sizes 2 and 3 are taken in order.
    spec = make("m", entry("X", FP32, (-1, 4, -1), (4, -1, 1, -1)), max_batch_size=8)
    (tensor,) = spec.request({"X": f32(5, 2, 4, 3)}).inputs()
    assert tensor.shape() == [5, 4, 2, 1, 3]


def test_read_only_array_is_taken_without_a_copy():
    array = f32(3)
    array.flags.writeable = False
    (tensor,) = spec_of(FP32).request({"X": array}).inputs()
    assert tensor.as_numpy().tolist() == [0, 1, 2]
    assert tensor.as_numpy().flags.writeable


def layouts():
    base = f32(4, 6)
    raw = np.zeros(4 * 24 + 1, dtype=np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(4, 6)
    unaligned[...] = base
    return {
        "fortran": np.asfortranarray(base),
        "transposed": base.T,
        "strided": base[:, ::2],
        "reversed": base[::-1],
        "both reversed": base[::-1, ::-1],
        "broadcast": np.broadcast_to(np.float32([1, 2, 3]), (2, 3)),
        "unaligned": unaligned,
        "big endian": base.astype(">f4"),
        "big endian transposed": base.astype(">f4").T,
    }


@pytest.mark.parametrize("layout", layouts())
def test_other_layouts_arrive_with_their_values(layout):
    array = layouts()[layout]
    wanted = array.tolist()
    (tensor,) = spec_of(FP32, (-1, -1)).request({"X": array}).inputs()
    got = tensor.as_numpy()
    assert got.dtype == np.float32
    assert got.dtype.isnative
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert got.tolist() == wanted
    assert not np.shares_memory(got, array)


# -- conversions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data_type", "value", "wanted"),
    [
        (FP32, [1, 2.5], [1, 2.5]),
        (FP32, (1, 2), [1, 2]),
        (FP32, [], []),
        (FP32, [float("inf"), -0.0], [float("inf"), 0]),
        (FP32, [np.float32(1.5), 2], [1.5, 2]),
        (FP32, [True + 0], [1]),
        (FP32, 3, [3]),
        (FP32, 3.5, [3.5]),
        (INT32, 3, [3]),
        (INT32, [np.int64(3)], [3]),
        (INT32, [-(2**31), 2**31 - 1], [-(2**31), 2**31 - 1]),
        (9, [-(2**63), 2**63 - 1], [-(2**63), 2**63 - 1]),
        (5, [2**63], [2**63]),
        (5, [2**64 - 1], [2**64 - 1]),
        (UINT8, [0, 255], [0, 255]),
        (BOOL, True, [True]),
        (BOOL, [False, True], [False, True]),
        (10, [65504.0], [65504.0]),
        (STRING, "text", [b"text"]),
        (STRING, b"\0\xff", [b"\0\xff"]),
        (STRING, ["ü", b"x", ""], ["ü".encode(), b"x", b""]),
        (STRING, np.array(["ü", "abc"]), ["ü".encode(), b"abc"]),
        (STRING, np.array([b"a", b"bc"]), [b"a", b"bc"]),
        (STRING, np.array(["a", b"b", 1, None], dtype=np.object_), [b"a", b"b", b"1", b"None"]),
        (STRING, [], []),
    ],
    ids=repr,
)
def test_lists_and_scalars_take_the_configured_type(data_type, value, wanted):
    ((name, number, shape, got),) = taken(spec_of(data_type).request({"X": value}))
    assert (name, number, shape) == ("X", data_type, [len(wanted)])
    assert got == wanted


def test_a_bare_value_stands_for_one_element_of_the_configured_rank():
    spec = make("m", entry("X", FP32, (1, 1)), max_batch_size=2)
    assert taken(spec.request({"X": 5})) == [("X", 11, [1, 1, 1], [[[5.0]]])]


def test_unicode_array_of_two_dims():
    (tensor,) = spec_of(STRING, (-1, 2)).request({"X": np.array([["a", "b"], ["c", "d"]])}).inputs()
    assert tensor.as_numpy().tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_objects_with_array_are_asked_for_it():
    class Frame:
        def __array__(self, dtype=None, copy=None):
            return f32(2)

    assert taken(spec_of(FP32).request({"X": Frame()})) == [("X", 11, [2], [0, 1])]


def test_zero_dim_arrays_fit_zero_dims():
    assert taken(spec_of(FP32, ()).request({"X": np.float32(2)})) == [("X", 11, [], 2.0)]
    assert taken(spec_of(FP32, ()).request({"X": 2})) == [("X", 11, [], 2.0)]
    text = refused(spec_of(FP32), {"X": np.array(2, dtype=np.float32)})
    assert text.endswith("Expected [-1], got []. ")


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (INT32, [1.5]),
        (INT32, [1.0]),
        (INT32, 2.0),
        (INT32, [2**31]),
        (INT32, [-(2**31) - 1]),
        (INT32, [2**70]),
        (INT32, [float("nan")]),
        (UINT8, [300]),
        (UINT8, [-1]),
        (UINT8, 256),
        (5, [-1]),
        (5, [2**64]),
        (9, [2**63]),
        (INT32, [True]),
        (FP32, [True]),
        (FP32, True),
        (BOOL, [0, 1]),
        (BOOL, 1),
        (BOOL, [1.0]),
        (FP32, ["1"]),
        (FP32, "1"),
        (FP32, b"1"),
        (FP32, [1j]),
        (FP32, [None]),
        (FP32, [2**70]),
        (FP32, [[1], [2, 3]]),
        (STRING, [1]),
        (STRING, 1),
        (STRING, [None]),
        (STRING, [["a"], ["b", "c"]]),
        (STRING, [1.5]),
    ],
    ids=repr,
)
def test_lossy_or_senseless_conversions_are_refused(data_type, value):
    text = refused(spec_of(data_type), {"X": value})
    name = DataType(data_type).name
    assert text.startswith(f"{UNKNOWN}input 'X' of model 'm' cannot be converted to '{name}': ")


@pytest.mark.parametrize(
    "dtype", [np.float64, np.float16, np.int32, np.int64, np.bool_, np.object_, ">f8", "U1", "S1"]
)
def test_arrays_are_never_converted_to_another_type(dtype):
    # Triton compares the data type; 2.51 answers the same for an array of another type.
    text = refused(spec_of(FP32), {"X": np.zeros(2, dtype=dtype)})
    assert "inference input 'X' data-type is '" in text
    assert text.endswith("', but model 'm' expects 'FP32'")


@pytest.mark.parametrize(
    "dtype", ["complex64", "datetime64[s]", "timedelta64[s]", "V3", [("a", "i4")], "longdouble"]
)
def test_dtypes_without_a_triton_type(dtype):
    text = refused(spec_of(FP32), {"X": np.zeros(2, dtype=dtype)})
    assert "has no Triton data type; the model expects 'FP32'" in text


@pytest.mark.parametrize(
    "value",
    [None, object(), {1}, {1: 2}, range(2), iter([1]), int, ..., memoryview(b"a")],
    ids=repr,
)
def test_other_objects_are_refused(value):
    text = refused(spec_of(FP32), {"X": value})
    assert text.startswith(f"{UNKNOWN}input 'X' of model 'm' is a {type(value).__name__}: ")


def test_very_deep_lists_are_refused():
    value = 1.0
    for _ in range(500):
        value = [value]
    assert "cannot be converted" in refused(spec_of(FP32), {"X": value})


# -- BF16 ------------------------------------------------------------------------------


def test_ml_dtypes_arrays_are_bf16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, -2], dtype=ml_dtypes.bfloat16)
    (tensor,) = spec_of(14).request({"X": array}).inputs()
    assert tensor.triton_dtype() == 14
    assert tensor.shape() == [2]
    shown = ptl.Tensor.from_dlpack(tensor)
    assert shown.data_ptr == array.ctypes.data
    assert shown.numpy().astype(np.float32).tolist() == [1, -2]


def test_bf16_from_other_layouts_and_numbers():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.arange(6, dtype=ml_dtypes.bfloat16)[::-2]
    for value, wanted in ((array, [5, 3, 1]), ([1.5, 2], [1.5, 2]), (3, [3])):
        (tensor,) = spec_of(14).request({"X": value}).inputs()
        got = ptl.Tensor.from_dlpack(tensor).numpy()
        assert got.astype(np.float32).tolist() == wanted


def test_bf16_by_dlpack():
    bits = np.array([0x3F80, 0xC000], dtype=np.uint16)  # 1.0 and -2.0 by hand
    (tensor,) = spec_of(14).request({"X": Producer(bits, dtype=(BFLOAT, 16, 1))}).inputs()
    assert tensor.triton_dtype() == 14
    assert ptl.Tensor.from_dlpack(tensor).data_ptr == bits.ctypes.data


# -- tensors and DLPack ----------------------------------------------------------------


def test_public_tensor_is_taken_without_a_copy():
    array = f32(3)
    (tensor,) = spec_of(FP32).request({"X": ptl.Tensor.from_dlpack(array)}).inputs()
    assert memory(tensor) == array.ctypes.data
    made = ptl.Tensor("FP32", [2], np.float32([5, 6]).tobytes())
    assert taken(spec_of(FP32).request({"X": made})) == [("X", 11, [2], [5, 6])]


def test_public_bytes_tensor():
    made = ptl.Tensor.from_string_array(np.array(["a", "ü"]))
    assert taken(spec_of(STRING).request({"X": made})) == [("X", 13, [2], [b"a", "ü".encode()])]


def test_public_tensor_is_checked_like_an_array():
    assert "data-type is 'INT32'" in refused(
        spec_of(FP32), {"X": ptl.Tensor("INT32", [1], bytes(4))}
    )
    assert "Expected [-1], got [1,1]" in refused(
        spec_of(FP32), {"X": ptl.Tensor("FP32", [1, 1], bytes(4))}
    )


def test_dlpack_producer_is_taken_without_a_copy():
    array = f32(3)
    producer = Producer(array)
    request = spec_of(FP32).request({"X": producer})
    assert memory(request.inputs()[0]) == array.ctypes.data
    assert producer.deleted == 0
    del request
    assert producer.deleted == 1


def test_dlpack_producer_of_another_layout_is_copied():
    array = f32(6)
    producer = Producer(array, (3, 2), (1, 3))
    request = spec_of(FP32, (-1, -1)).request({"X": producer})
    assert taken(request) == [("X", 11, [3, 2], [[0, 3], [1, 4], [2, 5]])]
    assert producer.deleted == 1


def test_pb_tensor_is_a_dlpack_producer():
    array = f32(3)
    (tensor,) = spec_of(FP32).request({"X": pb_utils.Tensor("other", array)}).inputs()
    assert tensor.name() == "X"
    assert memory(tensor) == array.ctypes.data


def test_cuda_producer_is_passed_through():
    producer = Producer(0x7F00_0000_1000, (3,), device=CUDA)
    (tensor,) = spec_of(FP32, cpu_only=False).request({"X": producer}).inputs()
    assert tensor.is_cpu() is False
    assert tensor.shape() == [3]
    assert tensor.__dlpack_device__() == CUDA
    del tensor
    assert producer.deleted == 1


def test_public_cuda_tensor_is_passed_through():
    public = ptl.Tensor.from_dlpack(Producer(0x7F00_0000_1000, (3,), device=CUDA))
    (tensor,) = spec_of(FP32, cpu_only=False).request({"X": public}).inputs()
    assert tensor.__dlpack_device__() == CUDA


def test_wrong_cuda_inputs_are_refused_as_on_the_cpu():
    spec = spec_of(FP32, cpu_only=False)
    producer = Producer(0x7F00_0000_1000, (3, 1), device=CUDA)
    with pytest.raises(ptl.InvalidArgumentError, match=r"Expected \[-1\], got \[3,1\]"):
        spec.request({"X": producer})
    assert producer.deleted == 1
    with pytest.raises(ptl.InvalidArgumentError, match="must be C-contiguous"):
        spec.request({"X": Producer(0x7F00_0000_1000, (3,), (2,), device=CUDA)})


class Copying(Producer):
    """A CUDA producer that copies to the CPU itself, as the array API standard describes."""

    asked = None

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None):
        self.asked = dl_device
        if dl_device is None:
            return self.capsule()
        return Producer(f32(3), version=(1, 0)).capsule()


@pytest.mark.parametrize("wrap", [lambda p: p, ptl.Tensor.from_dlpack], ids=["own", "public"])
def test_cuda_input_is_copied_by_its_producer(wrap, fake_library):
    producer = Copying(0x7F00_0000_1000, (3,), device=CUDA)
    fake_library("cupy", from_dlpack=lambda _: types.SimpleNamespace(get=lambda: -f32(3)))
    (tensor,) = spec_of(FP32).request({"X": wrap(producer)}).inputs()
    assert tensor.is_cpu()
    # Wrapped, the producer is out of reach, and a library has to copy.
    assert producer.asked == (None if wrap is ptl.Tensor.from_dlpack else (1, 0))
    sign = -1 if wrap is ptl.Tensor.from_dlpack else 1
    assert tensor.as_numpy().tolist() == [0, sign * 1, sign * 2]


@pytest.fixture
def fake_library(monkeypatch):
    """Put libraries that read devices into `sys.modules`; without one, none can be imported."""
    for name in ("cupy", "torch"):
        monkeypatch.setitem(sys.modules, name, None)

    def install(name, **functions):
        module = types.ModuleType(name)
        module.Tensor = type("Tensor", (), {})
        for key, function in functions.items():
            setattr(module, key, function)
        monkeypatch.setitem(sys.modules, name, module)

    return install


def test_cuda_input_is_copied_by_cupy_then_torch(fake_library):
    seen = []

    def read(source):
        seen.append(source)
        return types.SimpleNamespace(cpu=lambda: f32(2, 3).T)

    def fail(source):
        raise ValueError("no bfloat16")

    fake_library("cupy", from_dlpack=fail)
    fake_library("torch", from_dlpack=read)
    producer = Producer(0x7F00_0000_1000, (3, 2), (1, 3), device=CUDA)
    request = spec_of(FP32, (-1, -1)).request({"X": producer})
    assert taken(request) == [("X", 11, [3, 2], [[0, 3], [1, 4], [2, 5]])]
    assert seen == [producer]


def test_cuda_input_with_no_way_to_copy(fake_library):
    producer = Producer(0x7F00_0000_1000, (3,), device=CUDA)
    with pytest.raises(ptl.UnsupportedError) as caught:
        spec_of(FP32).request({"X": producer}, request_id="r")
    assert str(caught.value) == (
        "[request id: r] input 'X' of model 'm' is on device (2, 0), and to copy it to the CPU "
        "'pytriton_lite[cuda]' (cupy) or torch must be installed; with the model parameter "
        "FORCE_CPU_ONLY_INPUT_TENSORS set to 'no' the model gets it as it is"
    )
    assert caught.value.request_id == "r"

    def fail(source):
        raise RuntimeError("no driver")

    fake_library("cupy", from_dlpack=fail)
    with pytest.raises(ptl.UnsupportedError, match=r"installed \(cupy: RuntimeError: no driver\);"):
        spec_of(FP32).request({"X": producer})


def test_pinned_memory_stays(fake_library):
    array = f32(3)
    producer = Producer(array, device=(3, 0))
    for value in (producer, ptl.Tensor.from_dlpack(producer)):
        (tensor,) = spec_of(FP32).request({"X": value}).inputs()
        assert memory(tensor) == array.ctypes.data


@pytest.mark.parametrize("method", ["__dlpack__", "__dlpack_device__"])
def test_whatever_a_producer_raises_names_the_input(method):
    class Broken(Producer):
        pass

    def fail(self, *args, **kwargs):
        raise RuntimeError("no such layout")

    setattr(Broken, method, fail)
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        spec_of(FP32).request({"X": Broken(f32(3))})
    assert str(caught.value) == (
        f"{UNKNOWN}input 'X' of model 'm' cannot be taken by DLPack: no such layout"
    )
    assert type(caught.value.__cause__) is RuntimeError


def test_refused_producers_get_their_memory_back():
    for producer, text in (
        (Producer(f32(3), dtype=(FLOAT, 64, 1), shape=(1,)), "data-type is 'FP64'"),
        (Producer(f32(3), dtype=(5, 64, 1)), "cannot be taken by DLPack"),
        (Producer(f32(3), version=(9, 0)), "cannot be taken by DLPack"),
        (Producer(f32(4), (2, 2)), "Expected [-1], got [2,2]"),
    ):
        assert text in refused(spec_of(FP32), {"X": producer})
        assert producer.deleted == 1


# -- limits ----------------------------------------------------------------------------


def test_too_many_dims_in_the_configuration():
    with pytest.raises(ptl.InvalidArgumentError, match="at most 63"):
        entry("X", FP32, (1,) * 64)
    spec = make("m", entry("X", FP32, (1,) * 31), max_batch_size=1)
    (tensor,) = spec.request({"X": f32(*(1,) * 32)}).inputs()
    assert tensor.shape() == [1] * 32


def test_of_two_entries_with_one_name_the_first_counts():
    spec = make("m", entry("X", FP32, (2,)), entry("X", INT32, (3,), optional=True))
    assert taken(spec.request({"X": f32(2)})) == [("X", 11, [2], [0, 1])]
