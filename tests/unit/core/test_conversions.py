"""Lists, scalars and texts as inputs: what is converted, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core.input_spec import InputEntry, InputSpec

BYTES, BF16, FP16, FP32, UINT64, INT8 = 13, 14, 10, 11, 5, 6


def spec_of(data_type: int, dims: tuple[int, ...] = (-1,)) -> InputSpec:
    return InputSpec(
        "m", 0, [InputEntry("X", data_type, dims, None, False)], ("Y",), share_memory=False
    )


def converted(data_type: int, value: object) -> list:
    tensor = spec_of(data_type).request({"X": value}).inputs()[0]
    return tensor.as_numpy().tolist()


def refusal(data_type: int, value: object, **options: object) -> str:
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        spec_of(data_type).request({"X": value}, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("data_type", "value"), [(FP32, [1e300]), (FP16, [1e6]), (BF16, [3.5e38]), (INT8, [128])]
)
def test_values_that_do_not_fit_are_refused(data_type, value):
    assert "cannot be converted" in refusal(data_type, value)


def test_infinities_are_values():
    assert converted(FP32, [float("inf"), -1]) == [float("inf"), -1]


def test_unsigned_64_bit_lists():
    assert converted(UINT64, [2**64 - 1, 1]) == [2**64 - 1, 1]
    assert "does not fit" in refusal(UINT64, [2**64, 1])
    assert "does not fit" in refusal(UINT64, [-1, 2**64 - 1])


def test_bytearray_is_text():
    assert converted(BYTES, bytearray(b"ab")) == [b"ab"]
    assert converted(BYTES, [bytearray(b"a"), "b"]) == [b"a", b"b"]
    assert "cannot be converted" in refusal(FP32, bytearray(b"ab"))


def test_numpy_scalars_are_bare_values():
    assert converted(FP32, np.float32(2)) == [2.0]
    assert converted(BYTES, np.str_("a")) == [b"a"]
    assert converted(BYTES, np.bytes_(b"a")) == [b"a"]
    assert "data-type is 'FP64'" in refusal(FP32, np.float64(2))


@pytest.mark.parametrize(
    ("data_type", "value", "words"),
    [
        (BYTES, ["\ud800"], "not UTF-8"),
        (BYTES, np.float32, "is a type"),
        (FP32, np.ma.masked_array([1.0], [True], np.float32), "mask"),
    ],
)
def test_other_refusals(data_type, value, words):
    assert words in refusal(data_type, value)


@pytest.mark.parametrize("outputs", [5, [[]], "Y"])
def test_outputs_must_be_names(outputs):
    assert "must be a list of names" in refusal(FP32, [1.0], outputs=outputs)


def test_inputs_must_be_a_mapping():
    with pytest.raises(ptl.InvalidArgumentError, match="must be a mapping"):
        spec_of(FP32).request([np.array(["X", "a"])])


@pytest.mark.parametrize(
    "arguments",
    [
        ("FOO", [1], bytes(4)),
        (None, [1], bytes(4)),
        (1.5, [1], bytes(1)),
        ("FP32", [2], bytes(7)),
        ("FP32", [-1], bytes(4)),
        ("BYTES", [1], b"\1"),
    ],
)
def test_a_tensor_of_wrong_arguments_is_refused(arguments):
    with pytest.raises(ptl.InvalidArgumentError):
        ptl.Tensor(*arguments)


def test_the_nearest_name_is_a_note():
    for call in (
        lambda: InputSpec(
            "m", 0, [InputEntry("INPUT0", FP32, (1,), None, False)], ("Y",), share_memory=False
        ).request({"INPUT_0": [1.0]}),
        lambda: spec_of(FP32).request({"X": [1.0]}, outputs=["y"]),
    ):
        with pytest.raises(ptl.InvalidArgumentError) as caught:
            call()
        notes = getattr(caught.value, "__notes__", [])
        assert notes == (["did you mean 'INPUT0'?"] if "INPUT_0" in str(caught.value) else [])
