"""DLPack in and out, for `pb_utils.Tensor` and for the public `Tensor`.

Producers are made with ctypes (producers.py), so that calls of the deleter are counted and
not inferred. Expected layouts are derived by hand from dlpack.h 1.0.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core import dlpack
from pytriton_lite.pb_utils import TritonModelException

from .producers import (
    BFLOAT,
    BOOL,
    COMPLEX,
    CPU,
    CUDA,
    CUDA_HOST,
    DELETER,
    FLOAT,
    INT,
    LEGACY,
    READ_ONLY,
    UINT,
    USED_LEGACY,
    USED_VERSIONED,
    VERSIONED,
    DLManagedTensor,
    DLManagedTensorVersioned,
    DLTensor,
    Producer,
    VersionedProducer,
    address,
    dims,
    name_of,
    opened,
    strides,
)

# Versioned capsules, and with them read-only arrays, came with numpy 2.1.
NUMPY_KNOWS_VERSIONS = np.lib.NumpyVersion(np.__version__) >= "2.1.0"

# numpy dtype -> DLPack code and bits, from dlpack.h.
DTYPES = {
    "bool": (BOOL, 8),
    "uint8": (UINT, 8),
    "uint16": (UINT, 16),
    "uint32": (UINT, 32),
    "uint64": (UINT, 64),
    "int8": (INT, 8),
    "int16": (INT, 16),
    "int32": (INT, 32),
    "int64": (INT, 64),
    "float16": (FLOAT, 16),
    "float32": (FLOAT, 32),
    "float64": (FLOAT, 64),
}
NOT_CONTIGUOUS = (
    r"^DLPack tensor is not contiguous\. Only contiguous DLPack tensors that are stored in "
    r"C-Order are supported\.$"
)
# The run of nine blanks is in Triton's text.
NOT_DLPACK = (
    r"^Provided tensor is not supported\. Tensor must be a DLPack capsule         or have "
    r"`__dlpack__` and `__dlpack_device__` attributes$"
)


class Backend:
    """One face of the two tensor classes, for tests that hold for both."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name

    def take(self, source):
        if self.name == "pb":
            return pb_utils.Tensor.from_dlpack("T", source)
        return ptl.Tensor.from_dlpack(source)

    def shape(self, tensor):
        return tuple(tensor.shape()) if self.name == "pb" else tensor.shape

    def number(self, tensor):
        return tensor.triton_dtype() if self.name == "pb" else int(tensor.data_type)

    def values(self, tensor):
        """The producer's memory itself, which for a pb tensor only `to_dlpack` shows."""
        return np.from_dlpack(tensor)


FACES = [Backend("pb"), Backend("public")]
both = pytest.mark.parametrize("face", FACES, ids=repr)


@pytest.fixture
def floats():
    return np.arange(6, dtype=np.float32).reshape(2, 3)


# -- structures ------------------------------------------------------------------------


def test_layout_is_that_of_64_bit_linux():
    # By hand: pointers and 64-bit integers on multiples of 8, DLDevice 2 * int32, DLDataType
    # uint8, uint8, uint16.
    assert dlpack.abi_layout() == {
        "DLTensor": 48,
        "DLTensor.device": 8,
        "DLTensor.ndim": 16,
        "DLTensor.dtype": 20,
        "DLTensor.shape": 24,
        "DLTensor.strides": 32,
        "DLTensor.byte_offset": 40,
        "DLManagedTensor": 64,
        "DLManagedTensor.manager_ctx": 48,
        "DLManagedTensor.deleter": 56,
        "DLManagedTensorVersioned": 80,
        "DLManagedTensorVersioned.manager_ctx": 8,
        "DLManagedTensorVersioned.deleter": 16,
        "DLManagedTensorVersioned.flags": 24,
        "DLManagedTensorVersioned.dl_tensor": 32,
    }


def test_layout_is_that_of_ctypes():
    layout = dlpack.abi_layout()
    for kind in (DLTensor, DLManagedTensor, DLManagedTensorVersioned):
        assert layout[kind.__name__] == ctypes.sizeof(kind)
        for key, offset in layout.items():
            owner, _, name = key.partition(".")
            if owner == kind.__name__ and name:
                assert getattr(kind, name).offset == offset, key


@pytest.mark.parametrize("version", [None, (1, 0)] if NUMPY_KNOWS_VERSIONS else [None])
def test_the_structures_read_what_numpy_exports(floats, version):
    # Proves producers.py, and with the tests above our own declarations, against numpy.
    capsule = floats.__dlpack__(**({} if version is None else {"max_version": version}))
    struct = opened(capsule)
    tensor = struct.dl_tensor
    assert tensor.data == address(floats)
    assert (tensor.device.device_type, tensor.device.device_id) == CPU
    assert (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes) == (FLOAT, 32, 1)
    assert dims(tensor) == [2, 3]
    assert tensor.byte_offset == 0
    if version is not None:
        assert struct.version.major == 1
        assert struct.flags == 0


# -- export ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3), (1, 3, 1), (2, 0, 3)])
def test_pb_export_says_everything(dtype, shape):
    array = np.zeros(shape, dtype=dtype)
    tensor = pb_utils.Tensor("T", array)
    for capsule in (tensor.to_dlpack(), tensor.__dlpack__(), tensor.__dlpack__(stream=5)):
        assert name_of(capsule) == LEGACY
        exported = opened(capsule).dl_tensor
        assert exported.data == address(array)
        assert exported.byte_offset == 0
        assert dims(exported) == list(shape)
        assert (exported.dtype.code, exported.dtype.bits, exported.dtype.lanes) == (
            *DTYPES[dtype],
            1,
        )
        assert (exported.device.device_type, exported.device.device_id) == CPU


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_public_export_says_everything(dtype, max_version):
    array = np.zeros((2, 3), dtype=dtype)
    tensor = ptl.Tensor.from_dlpack(array)
    capsule = tensor.__dlpack__(max_version=max_version)
    struct = opened(capsule)
    if max_version is None or max_version[0] < 1:
        assert name_of(capsule) == LEGACY
    else:
        assert name_of(capsule) == VERSIONED
        # Never newer than what we know, whatever the consumer takes.
        assert (struct.version.major, struct.version.minor) == (1, 0)
        assert struct.flags == 0
    assert struct.dl_tensor.data == address(array)
    assert dims(struct.dl_tensor) == [2, 3]
    assert (struct.dl_tensor.dtype.code, struct.dl_tensor.dtype.bits) == DTYPES[dtype]


def test_exported_strides_are_in_elements(floats):
    # By hand for C order: (2, 3, 4) -> 12, 4, 1.
    array = np.zeros((2, 3, 4), dtype=np.int16)
    exported = opened(pb_utils.Tensor("T", array).to_dlpack()).dl_tensor
    assert strides(exported) == [12, 4, 1]


def test_numpy_reads_a_pb_tensor(floats):
    tensor = pb_utils.Tensor("T", floats)
    view = np.from_dlpack(tensor)
    assert address(view) == address(floats)
    assert view.dtype == np.float32
    assert view.strides == floats.strides
    np.testing.assert_array_equal(view, floats)
    floats[0, 0] = 42
    assert view[0, 0] == 42


def test_numpy_reads_a_public_tensor(floats):
    tensor = ptl.Tensor.from_dlpack(floats)
    view = np.from_dlpack(tensor)
    assert address(view) == address(floats) == tensor.data_ptr
    assert view.flags.writeable is NUMPY_KNOWS_VERSIONS  # before, its views are read-only
    floats[0, 0] = 42
    assert view[0, 0] == 42


def test_pb_dlpack_takes_no_keywords_but_stream():
    # As Triton: no `max_version`, `dl_device` or `copy`.
    tensor = pb_utils.Tensor("T", np.zeros(1))
    for keyword in ({"max_version": (1, 0)}, {"dl_device": CPU}, {"copy": True}):
        with pytest.raises(TypeError):
            tensor.__dlpack__(**keyword)


def test_public_export_can_copy(floats):
    tensor = ptl.Tensor.from_dlpack(floats)
    struct = opened(tensor.__dlpack__(max_version=(1, 0), copy=True))
    assert struct.flags == 2  # DLPACK_FLAG_BITMASK_IS_COPIED
    assert struct.dl_tensor.data != address(floats)
    assert opened(tensor.__dlpack__(copy=False)).dl_tensor.data == address(floats)


def test_public_export_to_another_device_is_refused():
    tensor = ptl.Tensor.from_dlpack(np.zeros(1))
    with pytest.raises(BufferError, match=r"\(2, 0\).*on \(1, 0\)"):
        tensor.__dlpack__(dl_device=CUDA)
    assert name_of(tensor.__dlpack__(dl_device=CPU)) == LEGACY


def test_public_bytes_tensor_has_no_dlpack_form():
    tensor = ptl.Tensor.from_string_array(np.array(["a"]))
    with pytest.raises(BufferError, match="BYTES"):
        tensor.__dlpack__()
    assert tensor.__dlpack_device__() == CPU


# -- import ----------------------------------------------------------------------------


@both
@pytest.mark.parametrize("version", [None, (1, 0), (1, 7)])
def test_import_does_not_copy(face, floats, version):
    producer = Producer(floats, version=version)
    tensor = face.take(producer.capsule())
    assert face.shape(tensor) == (2, 3)
    assert face.number(tensor) == 11
    view = face.values(tensor)
    assert address(view) == address(floats)
    np.testing.assert_array_equal(view, floats)
    assert producer.deleted == 0
    del view, tensor
    assert producer.deleted == 1


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_import_of_every_dtype(face, dtype):
    array = np.array([0, 1, 1, 0], dtype=dtype)
    code, bits = DTYPES[dtype]
    tensor = face.take(Producer(array, dtype=(code, bits, 1)).capsule())
    view = face.values(tensor)
    assert view.dtype == np.dtype(dtype)
    assert address(view) == address(array)
    np.testing.assert_array_equal(view, array)


@both
def test_import_from_a_producer_object(face, floats):
    producer = Producer(floats)
    tensor = face.take(producer)
    assert address(face.values(tensor)) == address(floats)
    assert producer.stream is None
    del tensor
    assert producer.deleted == 1


def test_public_import_asks_for_the_versioned_form_first(floats):
    producer = VersionedProducer(floats, version=(1, 0))
    tensor = ptl.Tensor.from_dlpack(producer)
    assert producer.max_version == (1, 0)
    assert tensor.data_ptr == address(floats)


def test_public_import_from_numpy_is_not_copied(floats):
    tensor = ptl.Tensor.from_dlpack(floats)
    assert tensor.data_ptr == address(floats)
    assert address(tensor.numpy()) == address(floats)


@both
def test_byte_offset_is_added(face):
    array = np.arange(8, dtype=np.float32)
    tensor = face.take(Producer(array, (4,), byte_offset=16).capsule())
    view = face.values(tensor)
    assert address(view) == address(array) + 16
    np.testing.assert_array_equal(view, [4, 5, 6, 7])


def test_data_pointer_of_the_public_tensor_includes_the_byte_offset():
    array = np.arange(8, dtype=np.float32)
    tensor = ptl.Tensor.from_dlpack(Producer(array, (4,), byte_offset=16).capsule())
    assert tensor.data_ptr == address(array) + 16


@both
@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        ((2, 3), (3, 1)),
        ((2, 3), None),
        ((1, 6), (77, 1)),
        ((6, 1), (1, 77)),
        ((1, 1, 6), (-5, 0, 1)),
        ((1,), (99,)),
        ((0,), (99,)),
        ((2, 0), (7, 7)),
        ((0, 3), (1, 1)),
        ((), ()),
        ((), None),
    ],
)
def test_strides_of_single_and_empty_dims_do_not_matter(face, floats, shape, steps):
    producer = Producer(floats, shape, steps)
    tensor = face.take(producer.capsule())
    assert face.shape(tensor) == shape
    view = face.values(tensor)
    assert view.shape == shape
    np.testing.assert_array_equal(view.reshape(-1), floats.reshape(-1)[: view.size])
    if view.size:
        assert address(view) == address(floats)


LAYOUTS = [((3, 2), (1, 3)), ((3,), (2,)), ((2, 2), (3, 1)), ((2, 3), (0, 1))]


@pytest.mark.parametrize(("shape", "steps"), LAYOUTS)
def test_pb_refuses_other_layouts(floats, shape, steps):
    # Triton 2.51 does not look at the first dimension's stride and reads wrong memory.
    producer = Producer(floats, shape, steps)
    with pytest.raises(TritonModelException, match=NOT_CONTIGUOUS):
        pb_utils.Tensor.from_dlpack("T", producer.capsule())
    assert producer.deleted == 1


@pytest.mark.parametrize(("shape", "steps"), LAYOUTS)
def test_public_copies_other_layouts_once(floats, shape, steps):
    producer = Producer(floats, shape, steps)
    tensor = ptl.Tensor.from_dlpack(producer.capsule())
    # The producer's memory is not needed any more.
    assert producer.deleted == 1
    wanted = np.lib.stride_tricks.as_strided(floats, shape, [4 * n for n in steps]).tolist()
    got = tensor.numpy()
    assert got.tolist() == wanted
    assert got.flags.c_contiguous
    assert got.flags.owndata
    assert tensor.data_ptr == address(got)


def test_public_copies_a_reversed_array(floats):
    producer = Producer(address(floats) + 20, (6,), (-1,))
    tensor = ptl.Tensor.from_dlpack(producer.capsule())
    np.testing.assert_array_equal(tensor.numpy(), [5, 4, 3, 2, 1, 0])


def test_pb_shows_a_private_copy(floats):
    # `as_numpy()` of a DLPack import is private and writable, section 7.
    tensor = pb_utils.Tensor.from_dlpack("T", Producer(floats).capsule())
    shown = tensor.as_numpy()
    assert shown is tensor.as_numpy()
    assert not np.shares_memory(shown, floats)
    assert shown.flags.writeable
    shown[...] = -1
    np.testing.assert_array_equal(floats, np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(np.from_dlpack(tensor), floats)


def test_pb_tensor_taken_by_another(floats):
    source = pb_utils.Tensor("A", floats)
    tensor = pb_utils.Tensor.from_dlpack("B", source)
    assert tensor.name() == "B"
    assert address(np.from_dlpack(tensor)) == address(floats)


@both
def test_an_empty_tensor_may_have_no_memory(face):
    producer = Producer(0, (0, 3))
    tensor = face.take(producer.capsule())
    assert face.shape(tensor) == (0, 3)
    assert face.values(tensor).shape == (0, 3)
    del tensor
    assert producer.deleted == 1


@both
def test_pinned_memory_counts_as_cpu(face, floats):
    producer = Producer(floats, device=CUDA_HOST)
    tensor = face.take(producer.capsule())
    np.testing.assert_array_equal(face.values(tensor), floats)
    del tensor
    assert producer.deleted == 1


# -- names of capsules -----------------------------------------------------------------


def test_names_after_use_by_pb(floats):
    capsule = Producer(floats).capsule()
    pb_utils.Tensor.from_dlpack("T", capsule)
    assert name_of(capsule) == USED_LEGACY
    capsule = Producer(floats, version=(1, 0)).capsule()
    pb_utils.Tensor.from_dlpack("T", capsule)
    assert name_of(capsule) == USED_VERSIONED


def test_names_after_use_by_the_public_tensor(floats):
    capsule = Producer(floats).capsule()
    ptl.Tensor.from_dlpack(capsule)
    assert name_of(capsule) == USED_LEGACY
    capsule = Producer(floats, version=(1, 0)).capsule()
    ptl.Tensor.from_dlpack(capsule)
    assert name_of(capsule) == USED_VERSIONED


@both
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_used_capsule_is_refused(face, floats, version):
    # Triton's process dies of it.
    producer = Producer(floats, version=version)
    capsule = producer.capsule()
    tensor = face.take(capsule)
    error = TritonModelException if face.name == "pb" else BufferError
    with pytest.raises(error, match="used before"):
        face.take(capsule)
    assert producer.deleted == 0
    np.testing.assert_array_equal(face.values(tensor), floats)
    del tensor
    assert producer.deleted == 1


def test_a_capsule_used_by_the_other_class_is_refused(floats):
    capsule = Producer(floats).capsule()
    kept = pb_utils.Tensor.from_dlpack("T", capsule)
    with pytest.raises(BufferError, match="used before"):
        ptl.Tensor.from_dlpack(capsule)
    assert kept.shape() == [2, 3]


def test_a_capsule_of_something_else_is_refused():
    import datetime

    capsule = datetime.datetime_CAPI
    with pytest.raises(TritonModelException, match="'dltensor'"):
        pb_utils.Tensor.from_dlpack("T", capsule)
    with pytest.raises(BufferError, match="'dltensor'"):
        ptl.Tensor.from_dlpack(capsule)


# -- arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [1.0], object(), {}], ids=repr)
def test_pb_refuses_what_is_no_dlpack_source(value):
    with pytest.raises(TritonModelException, match=NOT_DLPACK):
        pb_utils.Tensor.from_dlpack("T", value)


@pytest.mark.parametrize("value", [None, 1, "x", b"x", [1.0], object(), {}], ids=repr)
def test_public_refuses_what_is_no_dlpack_source(value):
    with pytest.raises(TypeError, match="__dlpack__"):
        ptl.Tensor.from_dlpack(value)


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), (("T",), {}), (("T", 1, 2), {}), ((), {"name": "T", "obj": 1})]
)
def test_pb_takes_two_arguments_by_position(args, kwargs):
    with pytest.raises(
        TypeError, match=r"^from_dlpack\(\): incompatible function arguments\. The following"
    ):
        pb_utils.Tensor.from_dlpack(*args, **kwargs)


def test_pb_name_is_checked_before_the_capsule_is_used(floats):
    producer = Producer(floats)
    capsule = producer.capsule()
    with pytest.raises(TritonModelException, match=r"^Tensor name cannot be an empty string\.$"):
        pb_utils.Tensor.from_dlpack("", capsule)
    with pytest.raises(TypeError):
        pb_utils.Tensor.from_dlpack(None, capsule)
    assert name_of(capsule) == LEGACY
    assert producer.deleted == 0
    pb_utils.Tensor.from_dlpack("T", capsule)
    assert producer.deleted == 1


@both
def test_an_exception_of_the_producer_passes(face):
    class Broken:
        def __dlpack__(self, **_):
            raise RuntimeError("gone")

        def __dlpack_device__(self):
            return CPU

    with pytest.raises(RuntimeError, match="gone"):
        face.take(Broken())


# -- what cannot be taken --------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "dtype",
    [
        (FLOAT, 32, 2),
        (FLOAT, 32, 0),
        (INT, 8, 4),
        (COMPLEX, 64, 1),
        (FLOAT, 8, 1),
        (FLOAT, 128, 1),
        (BFLOAT, 32, 1),
        (INT, 4, 1),
        (UINT, 128, 1),
        (BOOL, 1, 1),
        (3, 64, 1),
        (200, 8, 1),
    ],
)
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_data_types_without_a_triton_name_are_refused(face, floats, dtype, version):
    producer = Producer(floats, dtype=dtype, version=version)
    error = TritonModelException if face.name == "pb" else BufferError
    with pytest.raises(error) as caught:
        face.take(producer.capsule())
    code, bits, lanes = dtype
    assert f"code {code}, {bits} bits and {lanes} lanes" in str(caught.value)
    # The failure, and with it its frames, may not keep the producer's memory.
    caught = None
    gc.collect()
    assert producer.deleted == 1


@both
@pytest.mark.parametrize("version", [(2, 0), (0, 9), (1 << 31, 5)])
def test_another_major_version_is_refused_and_given_back(face, floats, version):
    # The layout behind the version is unknown, so it must not be read: garbage is there.
    producer = Producer(floats, dtype=(200, 1, 7), version=version)
    producer.struct.dl_tensor.ndim = -5
    error = TritonModelException if face.name == "pb" else BufferError
    with pytest.raises(error, match=rf"version {version[0]}\.{version[1]} is not supported"):
        face.take(producer.capsule())
    gc.collect()
    assert producer.deleted == 1


@both
@pytest.mark.parametrize("ndim", [-1, 65, 1 << 30])
def test_absurd_ranks_are_refused(face, floats, ndim):
    producer = Producer(floats)
    producer.struct.dl_tensor.ndim = ndim
    error = TritonModelException if face.name == "pb" else BufferError
    with pytest.raises(error, match=f"{ndim} dimensions"):
        face.take(producer.capsule())
    gc.collect()
    assert producer.deleted == 1


@both
def test_more_dims_than_most_have(face):
    array = np.zeros(1, dtype=np.float32)
    tensor = face.take(Producer(array, (1,) * 32).capsule())
    assert face.shape(tensor) == (1,) * 32
    assert face.values(tensor).shape == (1,) * 32


@pytest.mark.parametrize("device_type", [4, 7, 8, 10, 13, 14])
def test_pb_refuses_other_devices(floats, device_type):
    producer = Producer(floats, device=(device_type, 0))
    # The spelling is Triton's.
    text = rf"^DLDevice type {device_type} is not support by Python backend\.$"
    with pytest.raises(TritonModelException, match=text):
        pb_utils.Tensor.from_dlpack("T", producer)
    assert producer.deleted == 1


# -- devices, without a device ---------------------------------------------------------

NOWHERE = 0x7F00_DEAD_B000  # never read: a CUDA address means nothing to the CPU


def test_pb_passes_cuda_memory_through():
    producer = Producer(NOWHERE, (2, 3), device=(2, 1), byte_offset=64)
    tensor = pb_utils.Tensor.from_dlpack("T", producer)
    # 1 is the legacy default stream of the standard; torch refuses 2, the per-thread one.
    assert producer.stream == 1
    assert tensor.is_cpu() is False
    assert tensor.shape() == [2, 3]
    assert tensor.__dlpack_device__() == (2, 1)
    with pytest.raises(
        TritonModelException,
        match=r"^Tensor is stored in GPU and cannot be converted to NumPy\.$",
    ):
        tensor.as_numpy()
    capsule = tensor.to_dlpack()
    exported = opened(capsule).dl_tensor
    assert exported.data == NOWHERE
    assert exported.byte_offset == 64
    assert dims(exported) == [2, 3]
    assert strides(exported) == [3, 1]
    assert (exported.device.device_type, exported.device.device_id) == (2, 1)
    assert (exported.dtype.code, exported.dtype.bits, exported.dtype.lanes) == (FLOAT, 32, 1)
    del tensor
    assert producer.deleted == 0  # the capsule, never consumed, still holds it
    del capsule, exported
    assert producer.deleted == 1


def test_public_passes_cuda_memory_through():
    producer = Producer(NOWHERE, (4,), device=(2, 3), version=(1, 0), flags=READ_ONLY)
    tensor = ptl.Tensor.from_dlpack(producer.capsule())
    assert tensor.__dlpack_device__() == (2, 3)
    assert tensor.shape == (4,)
    assert tensor.size == 16
    assert tensor.data_ptr == NOWHERE
    with pytest.raises(ptl.UnsupportedError, match="DLPack"):
        tensor.numpy()
    struct = opened(tensor.__dlpack__(max_version=(1, 0)))
    assert struct.dl_tensor.data == NOWHERE
    assert struct.flags == READ_ONLY
    with pytest.raises(BufferError):
        tensor.__dlpack__(copy=True)
    del tensor, struct
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize("kind", [Producer, VersionedProducer])
def test_public_has_a_cuda_producer_wait(kind):
    # Without a stream, torch hands out memory that is still being written.
    producer = kind(NOWHERE, (4,), device=CUDA)
    ptl.Tensor.from_dlpack(producer)
    assert producer.stream == 1


def test_public_names_no_stream_to_a_cpu_producer(floats):
    producer = VersionedProducer(floats, version=(1, 0))
    ptl.Tensor.from_dlpack(producer)
    assert producer.stream is None


def test_cuda_memory_through_both_classes():
    producer = Producer(NOWHERE, (4,), device=CUDA)
    inner = pb_utils.Tensor.from_dlpack("T", producer)
    outer = ptl.Tensor.from_dlpack(inner.to_dlpack())
    again = pb_utils.Tensor.from_dlpack("T", outer)
    assert opened(again.to_dlpack()).dl_tensor.data == NOWHERE
    del inner, outer
    assert producer.deleted == 0
    del again
    assert producer.deleted == 1


def test_public_refuses_strided_cuda_memory():
    producer = Producer(NOWHERE, (2, 3), (1, 2), device=CUDA)
    with pytest.raises(BufferError, match="contiguous"):
        ptl.Tensor.from_dlpack(producer.capsule())
    gc.collect()
    assert producer.deleted == 1


# -- read-only -------------------------------------------------------------------------


@pytest.fixture
def frozen(floats):
    floats.flags.writeable = False
    return floats


def test_public_read_only_in_and_out(frozen):
    tensor = ptl.Tensor.from_dlpack(frozen)
    assert tensor.data_ptr == address(frozen)
    assert not tensor.numpy().flags.writeable
    struct = opened(tensor.__dlpack__(max_version=(1, 0)))
    assert struct.flags == READ_ONLY
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()
    if NUMPY_KNOWS_VERSIONS:
        view = np.from_dlpack(tensor)
        assert address(view) == address(frozen)
        assert not view.flags.writeable


def test_public_copy_of_a_read_only_tensor_is_writable(frozen):
    struct = opened(ptl.Tensor.from_dlpack(frozen).__dlpack__(max_version=(1, 0), copy=True))
    assert struct.flags == 2


@both
def test_read_only_flag_of_a_producer(face, floats):
    producer = Producer(floats, version=(1, 0), flags=READ_ONLY)
    tensor = face.take(producer.capsule())
    if face.name == "public":
        assert not tensor.numpy().flags.writeable
        assert tensor.data_ptr == address(floats)
        return
    # The legacy capsule cannot say "read-only": pb exports a copy, so that nobody writes here.
    exported = opened(tensor.to_dlpack()).dl_tensor
    assert exported.data != address(floats)
    assert tensor.as_numpy().flags.writeable
    np.testing.assert_array_equal(tensor.as_numpy(), floats)


def test_pb_import_of_a_read_only_numpy_array_is_numpys_error(frozen):
    # numpy's own BufferError, section 7.
    with pytest.raises(BufferError):
        pb_utils.Tensor.from_dlpack("T", frozen)


# -- BF16 ------------------------------------------------------------------------------

# By hand: a bfloat16 is the upper half of a float32; 1.0 = 0x3F800000, -2.0 = 0xC0000000,
# 0.5 = 0x3F000000.
BITS = np.array([0x3F80, 0xC000, 0x3F00], dtype=np.uint16)


def test_pb_bf16_round_trip():
    producer = Producer(BITS, dtype=(BFLOAT, 16, 1))
    tensor = pb_utils.Tensor.from_dlpack("T", producer.capsule())
    assert tensor.triton_dtype() == 14
    assert tensor.shape() == [3]
    assert tensor.is_cpu()
    with pytest.raises(
        TritonModelException,
        match=r"^Tensor dtype is BF16 and cannot be converted to NumPy\. "
        r"Use to_dlpack\(\) and from_dlpack\(\) instead\.$",
    ):
        tensor.as_numpy()
    capsule = tensor.to_dlpack()
    exported = opened(capsule).dl_tensor
    assert exported.data == address(BITS)
    assert (exported.dtype.code, exported.dtype.bits, exported.dtype.lanes) == (BFLOAT, 16, 1)
    again = pb_utils.Tensor.from_dlpack("U", capsule)
    assert again.triton_dtype() == 14
    assert opened(again.to_dlpack()).dl_tensor.data == address(BITS)


def test_public_bf16_is_shown_by_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    tensor = ptl.Tensor.from_dlpack(Producer(BITS, dtype=(BFLOAT, 16, 1)).capsule())
    assert tensor.data_type is ptl.DataType.BF16
    assert tensor.size == 6
    array = tensor.numpy()
    assert array.dtype == ml_dtypes.bfloat16
    assert address(array) == address(BITS)
    assert array.astype(np.float32).tolist() == [1.0, -2.0, 0.5]
    exported = opened(tensor.__dlpack__(max_version=(1, 0))).dl_tensor
    assert exported.data == address(BITS)
    assert exported.dtype.code == BFLOAT


# -- lifetime --------------------------------------------------------------------------


@both
def test_producer_dropped_first(face):
    array = np.arange(4, dtype=np.float32)
    ref = weakref.ref(array)
    tensor = face.take(ptl.Tensor.from_dlpack(array))
    del array
    gc.collect()
    assert ref() is not None
    np.testing.assert_array_equal(face.values(tensor), [0, 1, 2, 3])
    del tensor
    gc.collect()
    assert ref() is None


@both
def test_consumer_dropped_first(face):
    array = np.arange(4, dtype=np.float32)
    before = sys.getrefcount(array)
    tensor = face.take(ptl.Tensor.from_dlpack(array))
    del tensor
    assert sys.getrefcount(array) == before
    np.testing.assert_array_equal(array, [0, 1, 2, 3])


@both
@pytest.mark.parametrize("order", ["view first", "tensor first"])
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_deleter_is_called_once_when_the_last_user_is_gone(face, floats, order, version):
    producer = Producer(floats, version=version)
    tensor = face.take(producer.capsule())
    view = face.values(tensor)
    if order == "view first":
        del view
        assert producer.deleted == 0
        del tensor
    else:
        del tensor
        assert producer.deleted == 0
        np.testing.assert_array_equal(view, floats)
        del view
    assert producer.deleted == 1


@both
def test_a_slice_of_a_view_keeps_the_memory(face, floats):
    producer = Producer(floats)
    part = face.values(face.take(producer.capsule()))[1:, 1]
    assert producer.deleted == 0
    np.testing.assert_array_equal(part, [4])
    del part
    assert producer.deleted == 1


@both
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_deleter_is_called_in_the_thread_that_drops(face, floats, version):
    producer = Producer(floats, version=version)
    box = [face.take(producer.capsule())]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert producer.deleted == 1


@both
def test_a_missing_deleter_is_allowed(face, floats):
    producer = Producer(floats, has_deleter=False)
    tensor = face.take(producer.capsule())
    np.testing.assert_array_equal(face.values(tensor), floats)
    del tensor
    assert producer.deleted == 0


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_our_capsule_never_consumed(max_version):
    array = np.zeros(4)
    before = sys.getrefcount(array)
    public = ptl.Tensor.from_dlpack(array)
    for _ in range(100):
        public.__dlpack__(max_version=max_version)
        pb_utils.Tensor("T", array).to_dlpack()
    del public
    assert sys.getrefcount(array) == before


def test_our_capsule_never_consumed_keeps_the_memory():
    array = np.zeros(4)
    ref = weakref.ref(array)
    capsule = pb_utils.Tensor("T", array).to_dlpack()
    del array
    assert ref() is not None
    del capsule
    assert ref() is None


@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_our_deleter_called_by_a_foreign_thread(max_version):
    # A consumer in C may call it from a thread that Python never saw; a ctypes call without
    # the GIL is as close as a test in Python comes.
    array = np.zeros(4)
    ref = weakref.ref(array)
    capsule = ptl.Tensor.from_dlpack(array).__dlpack__(max_version=max_version)
    struct = opened(capsule)
    del struct.capsule
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = (ctypes.py_object, ctypes.c_char_p)
    rename(capsule, USED_LEGACY if max_version is None else USED_VERSIONED)
    del array, capsule
    assert ref() is not None
    delete = ctypes.cast(struct.deleter, DELETER)
    thread = threading.Thread(target=delete, args=(ctypes.addressof(struct),))
    thread.start()
    thread.join()
    assert ref() is None


def test_many_round_trips_leave_nothing(floats):
    before = sys.getrefcount(floats)
    producers = []
    for i in range(300):
        producer = Producer(floats, version=(1, 0) if i % 2 else None)
        producers.append(producer)
        inner = pb_utils.Tensor.from_dlpack("T", producer)
        ptl.Tensor.from_dlpack(inner).numpy()
        ptl.Tensor.from_dlpack(pb_utils.Tensor("T", floats).to_dlpack())
    del inner
    assert [producer.deleted for producer in producers] == [1] * 300
    del producer
    # Each producer holds its array.
    assert sys.getrefcount(floats) == before + 300


def test_pb_import_of_a_numpy_array_is_quiet(monkeypatch):
    # numpy's capsule looks for the standard name of a used capsule when it dies.
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    pb_utils.Tensor.from_dlpack("T", np.zeros(2))
    pb_utils.Tensor.from_dlpack("T", np.zeros(2).__dlpack__())
    assert seen == []


def test_a_capsule_without_data_is_refused(floats):
    producer = Producer(0, (4,))
    with pytest.raises(BufferError, match="has no data"):
        ptl.Tensor.from_dlpack(producer.capsule())


def test_impossible_shapes_are_refused(floats):
    for shape in ((-1,), (1 << 62, 1 << 10)):
        with pytest.raises(BufferError, match="DLPack tensor"):
            ptl.Tensor.from_dlpack(Producer(0x1000, shape).capsule())
