"""Serialized BYTES tensors: section 3.13; expected bytes are written by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytriton_lite.pb_utils import deserialize_bytes_tensor, serialize_byte_tensor


def objects(*values):
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


@pytest.mark.parametrize(
    ("elements", "encoded"),
    [
        ([b"a"], b"\1\0\0\0a"),
        ([b""], b"\0\0\0\0"),
        ([b"a", b"bc"], b"\1\0\0\0a\2\0\0\0bc"),
        ([b"\0\xff"], b"\2\0\0\0\0\xff"),
        (["é"], b"\2\0\0\0\xc3\xa9"),
        ([1], b"\1\0\0\x001"),
        ([None], b"\4\0\0\0None"),
        ([1.5], b"\3\0\0\x001.5"),
        ([b"x" * 300], b"\x2c\1\0\0" + b"x" * 300),
        ([bytearray(b"a")], b"\x0f\0\0\0bytearray(b'a')"),
    ],
)
def test_serialize(elements, encoded):
    got = serialize_byte_tensor(objects(*elements))
    assert type(got) is bytes
    assert got == encoded


def test_a_subclass_of_bytes_is_its_str():
    # Triton's helper compares types, so that numpy's bytes are not taken raw.
    class Sub(bytes):
        def __str__(self):
            return "text"

    assert serialize_byte_tensor(objects(Sub(b"a"))) == b"\4\0\0\0text"
    assert serialize_byte_tensor(objects(np.bytes_(b"b"))) == b"\4\0\0\0b'b'"


def test_a_numpy_str_is_its_utf8():
    assert serialize_byte_tensor(objects(np.str_("é"))) == b"\2\0\0\0\xc3\xa9"


def test_elements_go_in_c_order():
    array = np.array([[b"a", b"b"], [b"c", b"d"]], dtype=np.object_)
    assert serialize_byte_tensor(array)[4::5] == b"abcd"
    assert serialize_byte_tensor(array.T)[4::5] == b"acbd"
    assert serialize_byte_tensor(array[::-1])[4::5] == b"cdab"
    assert serialize_byte_tensor(np.array(b"z", dtype=np.object_)) == b"\1\0\0\0z"


def test_fixed_width_arrays_lose_trailing_nuls():
    array = np.array([b"ab\0", b"c"], dtype="S3")
    assert serialize_byte_tensor(array) == b"\2\0\0\0ab\1\0\0\0c"


@pytest.mark.parametrize("dtype", ["O", "S1", "f4", "U1"])
def test_an_empty_array_gives_an_empty_tuple(dtype):
    # Triton's oddity, whatever the dtype.
    assert serialize_byte_tensor(np.zeros((2, 0), dtype=dtype)) == ()


@pytest.mark.parametrize("dtype", ["f4", "U1", "i8", "?", "M8[s]"])
def test_other_dtypes_give_none(dtype):
    assert serialize_byte_tensor(np.zeros(2, dtype=dtype)) is None


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_deserialize_takes_any_buffer(kind):
    got = deserialize_bytes_tensor(kind(b"\1\0\0\0a\0\0\0\0\2\0\0\0\0\xff"))
    assert got.dtype == np.object_
    assert got.shape == (3,)
    assert got.tolist() == [b"a", b"", b"\0\xff"]
    assert {type(element) for element in got} == {bytes}


def test_deserialize_nothing():
    got = deserialize_bytes_tensor(b"")
    assert got.shape == (0,)
    assert got.dtype == np.object_


@pytest.mark.parametrize(
    "encoded",
    [
        b"\1",
        b"\1\0\0",
        b"\1\0\0\0",
        b"\2\0\0\0a",
        b"\1\0\0\0a\0",
        b"\xff\xff\xff\xff",
        b"\xff\xff\xff\x7fabc",
        b"\0\0\0\0\5\0\0\0abcd",
    ],
    ids=repr,
)
def test_truncated_input(encoded):
    with pytest.raises(struct.error, match="unpack_from requires"):
        deserialize_bytes_tensor(encoded)


@pytest.mark.parametrize("value", ["text", None, 1.5])
def test_deserialize_of_no_buffer(value):
    with pytest.raises(TypeError):
        deserialize_bytes_tensor(value)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20))
def test_round_trip_of_bytes(elements):
    encoded = serialize_byte_tensor(objects(*elements))
    assert len(encoded) == sum(4 + len(element) for element in elements)
    assert deserialize_bytes_tensor(encoded).tolist() == elements


@given(st.lists(st.text(max_size=50), min_size=1, max_size=10))
def test_round_trip_of_text(elements):
    decoded = deserialize_bytes_tensor(serialize_byte_tensor(objects(*elements)))
    assert [element.decode() for element in decoded] == elements


@given(st.binary(max_size=64))
def test_any_input_is_read_or_refused(encoded):
    # The reference is Triton's own algorithm, written with `struct`.
    offset, elements = 0, []
    try:
        while offset < len(encoded):
            (length,) = struct.unpack_from("<I", encoded, offset)
            offset += 4
            elements.append(struct.unpack_from(f"<{length}s", encoded, offset)[0])
            offset += length
    except struct.error:
        with pytest.raises(struct.error):
            deserialize_bytes_tensor(encoded)
    else:
        assert deserialize_bytes_tensor(encoded).tolist() == elements


def test_a_large_tensor():
    elements = [b"x" * 1000] * 2000
    decoded = deserialize_bytes_tensor(serialize_byte_tensor(objects(*elements)))
    assert decoded.tolist() == elements
