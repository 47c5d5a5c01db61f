"""`pb_utils.Tensor`: section 3.3 of the Python backend's contract, observed on Triton 2.51."""

from __future__ import annotations

import copy
import pickle
import sys
import threading

import numpy as np
import pytest

from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count
from pytriton_lite.pb_utils import Tensor, TritonModelException

# From the table of data types in section 3.13.
NUMBERS = {
    "bool": 1,
    "uint8": 2,
    "uint16": 3,
    "uint32": 4,
    "uint64": 5,
    "int8": 6,
    "int16": 7,
    "int32": 8,
    "int64": 9,
    "float16": 10,
    "float32": 11,
    "float64": 12,
}
CONSTRUCTOR = (
    r"^__init__\(\): incompatible constructor arguments\. "
    r"The following argument types are supported:\n    1\. "
)
NO_DTYPE = r"^NumPy dtype is not supported\.$"


def objects(*values):
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


# -- constructor -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3), (1, 1, 1)])
def test_contiguous_array_is_not_copied(dtype, shape):
    array = np.zeros(shape, dtype=dtype)
    tensor = Tensor("T", array)
    assert tensor.name() == "T"
    assert tensor.shape() == list(shape)
    assert tensor.as_numpy() is array
    assert tensor.triton_dtype() == NUMBERS[dtype]
    assert tensor.is_cpu() is True


@pytest.mark.parametrize(("dtype", "number"), [("longlong", 9), ("ulonglong", 5), ("intp", 9)])
def test_integers_that_c_has_twice_count_by_size(dtype, number):
    array = np.zeros(2, dtype=dtype)
    tensor = Tensor("T", array)
    assert tensor.triton_dtype() == number
    assert tensor.as_numpy() is array


def test_writes_show_both_ways():
    array = np.zeros(3, dtype=np.float32)
    tensor = Tensor("T", array)
    array[0] = 1
    assert tensor.as_numpy()[0] == 1
    tensor.as_numpy()[1] = 2
    assert array[1] == 2


def layouts():
    base = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    return {
        "transposed": base.T,
        "strided": base[:, :, ::2],
        "reversed": base[::-1],
        "fortran": np.asfortranarray(base),
        "broadcast": np.broadcast_to(np.int32([1, 2]), (3, 2)),
        "swapped_axes": base.swapaxes(1, 2),
    }


@pytest.mark.parametrize("layout", layouts())
def test_other_layouts_are_copied_once(layout):
    array = layouts()[layout]
    wanted = np.array(array.tolist(), dtype=np.int32)
    tensor = Tensor("T", array)
    got = tensor.as_numpy()
    assert got is tensor.as_numpy()
    assert got is not array
    assert not np.shares_memory(got, array)
    assert got.dtype == np.int32
    assert got.shape == array.shape
    assert got.flags.c_contiguous
    assert got.flags.aligned
    assert got.flags.writeable
    assert got.flags.owndata
    np.testing.assert_array_equal(got, wanted)


def test_a_copied_layout_no_longer_aliases_its_source():
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = Tensor("T", source.T)
    source[0, 1] = 99
    np.testing.assert_array_equal(tensor.as_numpy(), [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("layout", layouts())
def test_copying_leaves_the_reference_count_of_the_source_alone(layout):
    array = layouts()[layout]
    # Spare references, so that one dropped too many is seen and does not end the process.
    spare = [array] * 20
    before = sys.getrefcount(array)
    Tensor("T", array)
    assert sys.getrefcount(array) == before
    del spare


def test_strides_of_single_and_empty_dims_do_not_make_a_copy():
    # numpy itself counts such an array as C-contiguous.
    odd = np.lib.stride_tricks.as_strided(
        np.zeros(8, dtype=np.float64), shape=(1, 8), strides=(8, 8)
    )
    assert Tensor("T", odd).as_numpy() is odd
    empty = np.zeros((4, 0, 6), dtype=np.float64)[::2]
    assert Tensor("T", empty).as_numpy() is empty


def test_unaligned_array_is_not_copied():
    # Triton asks for C order only.
    raw = np.zeros(24 * 4 + 1, dtype=np.uint8)
    array = raw[1:].view(np.int32).reshape(4, 6)
    array[...] = np.arange(24).reshape(4, 6)
    assert not array.flags.aligned
    assert Tensor("T", array).as_numpy() is array
    copied = Tensor("T", array.T).as_numpy()
    assert copied.flags.aligned
    np.testing.assert_array_equal(copied, np.arange(24).reshape(4, 6).T)


def test_read_only_array_stays_read_only():
    array = np.arange(3, dtype=np.int64)
    array.flags.writeable = False
    tensor = Tensor("T", array)
    assert tensor.as_numpy() is array
    assert not tensor.as_numpy().flags.writeable


def test_array_subclasses_are_arrays():
    class Sub(np.ndarray):
        pass

    array = np.zeros(2, dtype=np.float32).view(Sub)
    assert Tensor("T", array).as_numpy() is array
    # A copy is a plain array.
    assert type(Tensor("T", np.zeros((2, 3)).view(Sub).T).as_numpy()) is np.ndarray


def test_masked_arrays_fail_as_on_triton():
    # Its binding asks the array for an attribute that no masked array has.
    text = r"^'numpy\.ndarray' object has no attribute 'c_contiguous'$"
    with pytest.raises(AttributeError, match=text):
        Tensor("T", np.ma.masked_array([1.0, 2.0], [0, 1]))


@pytest.mark.parametrize(
    "value",
    [
        [1.0],
        (1.0,),
        1.0,
        1,
        True,
        b"x",
        "x",
        None,
        np.float32(3),
        np.zeros(2, dtype=np.float32).sum(),
        np.bool_(True),
        memoryview(b"ab"),
        object(),
        np.ndarray,
    ],
    ids=repr,
)
def test_only_real_arrays_are_taken(value):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        Tensor("T", value)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("T",), {}),
        (("T", np.zeros(1), 1), {}),
        ((), {"name": "T", "numpy_array": np.zeros(1)}),
        (("T",), {"numpy_array": np.zeros(1)}),
        ((None, np.zeros(1)), {}),
        ((1, np.zeros(1)), {}),
        ((np.zeros(1), "T"), {}),
    ],
)
def test_arguments_are_two_by_position(args, kwargs):
    with pytest.raises(TypeError, match=CONSTRUCTOR) as caught:
        Tensor(*args, **kwargs)
    assert "\n\nInvoked with: " in str(caught.value)


def test_name_may_be_utf8_bytes():
    assert Tensor("Größe".encode(), np.zeros(1)).name() == "Größe"
    assert type(Tensor(b"T", np.zeros(1)).name()) is str


@pytest.mark.parametrize("name", ["", b""])
def test_empty_name_is_refused(name):
    with pytest.raises(TritonModelException, match=r"^Tensor name cannot be an empty string\.$"):
        Tensor(name, np.zeros(1))


@pytest.mark.parametrize(
    "dtype",
    [
        "U3",
        "complex64",
        "complex128",
        "datetime64[s]",
        "timedelta64[s]",
        "V4",
        [("a", "i4")],
        "longdouble",
        ">f4",
        ">i2",
        ">u8",
    ],
    ids=str,
)
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(TritonModelException, match=NO_DTYPE):
        Tensor("T", np.zeros(2, dtype=dtype))


def test_bfloat16_arrays_are_refused():
    # BF16 tensors exist only through DLPack.
    ml_dtypes = pytest.importorskip("ml_dtypes")
    with pytest.raises(TritonModelException, match=NO_DTYPE):
        Tensor("T", np.zeros(2, dtype=ml_dtypes.bfloat16))


def test_unicode_arrays_are_refused_even_when_empty():
    with pytest.raises(TritonModelException, match=NO_DTYPE):
        Tensor("T", np.array([], dtype=np.str_))


def test_the_exception_is_that_of_the_native_module():
    assert TritonModelException.__module__ == "c_python_backend_utils"
    assert TritonModelException.__bases__ == (Exception,)


# -- BYTES -----------------------------------------------------------------------------


def test_object_array_is_shown_as_it_is():
    array = objects("a", b"b", 1, None)
    tensor = Tensor("T", array)
    assert tensor.as_numpy() is array
    assert tensor.triton_dtype() == 13
    assert tensor.shape() == [4]
    assert tensor.is_cpu()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (2, 2)])
def test_object_array_of_any_shape(shape):
    array = np.full(shape, "x", dtype=np.object_)
    tensor = Tensor("T", array)
    assert tensor.as_numpy() is array
    assert tensor.shape() == list(shape)


def test_object_array_of_another_layout():
    array = np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=np.object_)
    tensor = Tensor("T", array.T)
    assert tensor.shape() == [3, 2]
    assert tensor.as_numpy().tolist() == [["a", "d"], ["b", "e"], ["c", "f"]]


def test_fixed_width_bytes_array():
    array = np.array([b"ab", b"c"], dtype="S3")
    tensor = Tensor("T", array)
    assert tensor.as_numpy() is array
    assert tensor.triton_dtype() == 13


def test_later_changes_of_an_object_array_show_in_as_numpy():
    array = objects("old")
    tensor = Tensor("T", array)
    array[0] = "new"
    assert tensor.as_numpy()[0] == "new"


def test_elements_are_serialized_at_construction():
    calls = []

    class Element:
        def __str__(self):
            calls.append(1)
            return "text"

    Tensor("T", objects(Element(), Element()))
    assert len(calls) == 2


def test_an_element_whose_str_fails_raises_its_exception():
    class Element:
        def __str__(self):
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        Tensor("T", objects("fine", Element()))


def test_an_element_that_utf8_cannot_encode_raises():
    with pytest.raises(UnicodeEncodeError):
        Tensor("T", objects("\ud800"))


# -- methods ---------------------------------------------------------------------------


def test_shape_is_a_new_list_of_int_per_call():
    tensor = Tensor("T", np.zeros((2, 3)))
    first = tensor.shape()
    assert type(first) is list
    assert all(type(n) is int for n in first)
    first.append(7)
    assert tensor.shape() == [2, 3]


def test_as_numpy_is_the_same_object_at_each_call():
    tensor = Tensor("T", np.zeros((2, 3)).T)
    assert tensor.as_numpy() is tensor.as_numpy()


@pytest.mark.parametrize("method", ["name", "shape", "as_numpy", "triton_dtype", "is_cpu"])
def test_accessors_are_methods_without_arguments(method):
    tensor = Tensor("T", np.zeros(1))
    assert callable(getattr(tensor, method))
    with pytest.raises(TypeError):
        getattr(tensor, method)(1)


def test_truth_equality_and_hash_are_those_of_any_object():
    array = np.zeros(0)
    one, other = Tensor("T", array), Tensor("T", array)
    assert bool(one) is True
    assert one == one  # noqa: PLR0124 - identity is what is tested
    assert one != other
    assert len({one, other}) == 2
    with pytest.raises(TypeError, match="has no len"):
        len(one)
    with pytest.raises(TypeError):
        iter(one)


def test_attributes_cannot_be_added():
    with pytest.raises(AttributeError):
        Tensor("T", np.zeros(1)).extra = 1


def test_cannot_be_subclassed():
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (Tensor,), {})


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_cannot_be_pickled_or_copied(way):
    with pytest.raises(TypeError, match="cannot pickle"):
        way(Tensor("T", np.zeros(1)))


def test_bytes_tensor_has_no_dlpack_form():
    tensor = Tensor("T", objects("a"))
    text = r"^DLPack does not have support for string tensors\.$"
    with pytest.raises(TritonModelException, match=text):
        tensor.to_dlpack()
    with pytest.raises(TritonModelException, match=text):
        tensor.__dlpack__()
    assert tensor.__dlpack_device__() == (1, 0)


# -- helpers by name -------------------------------------------------------------------


def test_the_first_tensor_of_a_name_is_found():
    first, second = Tensor("T", np.zeros(1)), Tensor("T", np.ones(1))
    other = Tensor("U", np.ones(1))
    response = pb_utils.InferenceResponse([first, second, other])
    assert pb_utils.get_output_tensor_by_name(response, "T") is first
    assert pb_utils.get_output_tensor_by_name(response, "U") is other
    assert pb_utils.get_output_tensor_by_name(response, "t") is None
    request = pb_utils.InferenceRequest(
        inputs=[other, first, second], requested_output_names=[], model_name="m"
    )
    assert pb_utils.get_input_tensor_by_name(request, "T") is first
    assert pb_utils.get_input_tensor_by_name(request, "") is None


def test_tensors_are_found_in_objects_that_only_look_like_requests():
    class Mock:
        def inputs(self):
            return [Tensor("T", np.zeros(1))]

        output_tensors = inputs

    assert pb_utils.get_input_tensor_by_name(Mock(), "T").name() == "T"
    assert pb_utils.get_output_tensor_by_name(Mock(), "T").name() == "T"


# -- lifetime --------------------------------------------------------------------------


def test_live_count_follows_the_objects():
    start = live_tensor_count()
    made = [Tensor("T", np.zeros(1)) for _ in range(100)]
    assert live_tensor_count() == start + 100
    made.clear()
    assert live_tensor_count() == start
    with pytest.raises(TritonModelException):
        Tensor("", np.zeros(1))
    assert live_tensor_count() == start


def test_tensor_keeps_its_array_and_lets_it_go():
    array = np.zeros(4)
    before = sys.getrefcount(array)
    tensor = Tensor("T", array)
    assert sys.getrefcount(array) > before
    del tensor
    assert sys.getrefcount(array) == before


def test_dropped_in_another_thread():
    array = np.zeros(4)
    before = sys.getrefcount(array)
    start = live_tensor_count()
    box = [Tensor("T", array)]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert sys.getrefcount(array) == before
    assert live_tensor_count() == start


def test_wrong_arguments_leak_nothing():
    start = live_tensor_count()
    array = np.zeros(1, dtype=np.complex64)
    before = sys.getrefcount(array)
    for _ in range(100):
        with pytest.raises(TritonModelException):
            Tensor("T", array)
    assert sys.getrefcount(array) == before
    assert live_tensor_count() == start
