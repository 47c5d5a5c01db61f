# cython: language_level=3, freethreading_compatible=True
"""DLPack capsules: taking them in, handing them out.

Ownership: a consumed capsule's managed tensor belongs to one `DLPackTensor`,
whose end calls the producer's deleter exactly once. An exported capsule holds
one reference to the array (or `DLPackTensor`) behind it, given back by our
deleter, which any thread may call.
"""
from cpython.object cimport PyObject
from cpython.pycapsule cimport (
    PyCapsule_GetPointer, PyCapsule_IsValid, PyCapsule_New, PyCapsule_SetName,
)
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

import sys

from pytriton_lite._core cimport array as arrays
from pytriton_lite._core.array cimport (
    DT_BF16, DT_BOOL, DT_FP16, DT_FP32, DT_FP64, DT_INT8, DT_INVALID, DT_UINT8, ArrayView,
)
from pytriton_lite._core.dlpack_abi cimport *

cdef extern from "Python.h":
    bint Py_IsInitialized() noexcept nogil

cdef const char *_LEGACY = "dltensor"
cdef const char *_USED_LEGACY = "used_dltensor"
cdef const char *_VERSIONED = "dltensor_versioned"
cdef const char *_USED_VERSIONED = "used_dltensor_versioned"


cdef int _data_type_of(DLDataType dtype) noexcept:
    cdef int code = dtype.code, bits = dtype.bits
    if dtype.lanes != 1:
        return DT_INVALID
    if code == kDLFloat:
        return DT_FP32 if bits == 32 else DT_FP64 if bits == 64 else DT_FP16 if bits == 16 else DT_INVALID
    if code == kDLBfloat:
        return DT_BF16 if bits == 16 else DT_INVALID
    if code == kDLBool:
        return DT_BOOL if bits == 8 else DT_INVALID
    if code == kDLInt:
        return _by_bits(bits, DT_INT8)
    if code == kDLUInt:
        return _by_bits(bits, DT_UINT8)
    return DT_INVALID


cdef inline int _by_bits(int bits, int first) noexcept:
    return first if bits == 8 else first + 1 if bits == 16 else first + 2 if bits == 32 else \
        first + 3 if bits == 64 else DT_INVALID


cdef DLDataType _dlpack_type(int data_type) noexcept:
    cdef DLDataType dtype
    dtype.lanes = 1
    dtype.bits = <unsigned char> (arrays.item_size(data_type) * 8)
    if data_type == DT_BOOL:
        dtype.code = kDLBool
    elif data_type == DT_BF16:
        dtype.code = kDLBfloat
    elif data_type >= DT_FP16:
        dtype.code = kDLFloat
    elif data_type >= DT_INT8:
        dtype.code = kDLInt
    else:
        dtype.code = kDLUInt
    return dtype


cdef class DLPackTensor:
    """A tensor taken from a DLPack capsule; owns the producer's managed tensor."""

    def __cinit__(self):
        self.managed = NULL
        self.tensor = NULL

    def __dealloc__(self):
        cdef DLManagedTensor *legacy
        cdef DLManagedTensorVersioned *versioned
        if self.managed == NULL:
            return
        if self.is_versioned:
            versioned = <DLManagedTensorVersioned *> self.managed
            if versioned.deleter != NULL:
                versioned.deleter(versioned)
        else:
            legacy = <DLManagedTensor *> self.managed
            if legacy.deleter != NULL:
                legacy.deleter(legacy)

    def __init__(self):
        raise TypeError("a DLPackTensor is made from a capsule only")

    @property
    def shape(self):
        if self.tensor == NULL:
            return ()
        return tuple([self.tensor.shape[i] for i in range(self.tensor.ndim)])

    @property
    def device(self):
        if self.tensor == NULL:
            return (kDLCPU, 0)
        return (self.tensor.device.device_type, self.tensor.device.device_id)

    cdef bint is_on_cpu(self) noexcept:
        return self.tensor.device.device_type in (kDLCPU, kDLCUDAHost)

    cdef bint is_contiguous(self) noexcept:
        # The rule of numpy and the array API: strides of dims <= 1 don't matter, and
        # those of an empty tensor neither.
        cdef int64_t expected = 1
        cdef int i
        if self.tensor.strides == NULL:
            return True
        for i in range(self.tensor.ndim):
            if self.tensor.shape[i] == 0:
                return True
        for i in range(self.tensor.ndim - 1, -1, -1):
            if self.tensor.shape[i] == 1:
                continue
            if self.tensor.strides[i] != expected:
                return False
            expected *= self.tensor.shape[i]
        return True

    cdef object array(self):
        """View of a CPU tensor as an ndarray that keeps this object alive; no copy."""
        return arrays.view_of_memory(
            <char *> self.tensor.data + self.tensor.byte_offset, self.tensor.ndim, self.tensor.shape,
            self.tensor.strides, self.data_type, self, not self.is_read_only,
        )


cdef int refuse_negated(object source) except -1:
    """Refuse a torch tensor whose values are the negated memory: torch exports the memory as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor) and source.is_neg():
        raise BufferError("Can't export tensors with the negative bit set, use tensor.resolve_neg()")
    return 0


cdef DLPackTensor consume(object capsule):
    """Take over the managed tensor of a fresh capsule and rename the capsule.

    Raises BufferError for a used capsule, a newer major version, dims that no array can
    have, or a data type without a Triton name. A used legacy capsule is named
    ``used_dltensor``, which its producer looks for; Triton's own ``used_dlpack`` makes
    numpy complain.
    """
    cdef DLPackTensor taken = DLPackTensor.__new__(DLPackTensor)
    cdef DLManagedTensorVersioned *versioned
    cdef void *pointer
    if PyCapsule_IsValid(capsule, _VERSIONED):
        pointer = PyCapsule_GetPointer(capsule, _VERSIONED)
        PyCapsule_SetName(capsule, _USED_VERSIONED)
        # From here on `taken` gives the tensor back, whatever is raised below.
        taken.managed = pointer
        taken.is_versioned = True
        versioned = <DLManagedTensorVersioned *> pointer
        if versioned.version.major != DLPACK_MAJOR:
            raise BufferError(
                f"DLPack version {versioned.version.major}.{versioned.version.minor} is not supported, "
                f"only {DLPACK_MAJOR}.x and the legacy form are"
            )
        taken.tensor = &versioned.dl_tensor
        taken.is_read_only = (versioned.flags & DLPACK_FLAG_READ_ONLY) != 0
    elif PyCapsule_IsValid(capsule, _LEGACY):
        pointer = PyCapsule_GetPointer(capsule, _LEGACY)
        PyCapsule_SetName(capsule, _USED_LEGACY)
        taken.managed = pointer
        taken.tensor = &(<DLManagedTensor *> pointer).dl_tensor
    else:
        raise BufferError(
            "the DLPack capsule was used before, or is not one: a capsule named 'dltensor' or "
            "'dltensor_versioned' is needed, and can be imported once"
        )
    taken.data_type = _data_type_of(taken.tensor.dtype)
    if taken.data_type == DT_INVALID:
        raise BufferError(
            f"DLPack data type with code {taken.tensor.dtype.code}, {taken.tensor.dtype.bits} bits and "
            f"{taken.tensor.dtype.lanes} lanes has no Triton data type"
        )
    if not 0 <= taken.tensor.ndim <= arrays.MAX_NDIM:
        raise BufferError(f"DLPack tensor has {taken.tensor.ndim} dimensions")
    _check_extent(taken)
    return taken


cdef int _check_extent(DLPackTensor taken) except -1:
    cdef DLTensor *tensor = taken.tensor
    cdef int64_t room = (<int64_t> 1 << 62) // arrays.item_size(taken.data_type)
    cdef bint is_empty = False
    cdef int i
    for i in range(tensor.ndim):
        if tensor.shape[i] < 0:
            raise BufferError(f"DLPack tensor has shape {list(taken.shape)}")
        is_empty = is_empty or tensor.shape[i] == 0
    for i in range(tensor.ndim):
        if not is_empty and tensor.shape[i] > room:
            raise BufferError(f"DLPack tensor of shape {list(taken.shape)} is larger than any memory")
        room //= max(tensor.shape[i], 1)
    if tensor.data == NULL and not is_empty:
        raise BufferError(f"DLPack tensor of shape {list(taken.shape)} has no data")
    return 0


# One block: the managed tensor, then shape and strides (int64 each).
ctypedef struct _Legacy:
    DLManagedTensor managed
    PyObject *owner

ctypedef struct _Versioned:
    DLManagedTensorVersioned managed
    PyObject *owner


cdef void _release(PyObject *owner) noexcept with gil:
    Py_DECREF(<object> owner)


cdef void _delete_legacy(DLManagedTensor *managed) noexcept nogil:
    # After the interpreter's end there is nothing left to give the reference back to.
    if Py_IsInitialized():
        _release((<_Legacy *> managed).owner)
    free(managed)


cdef void _delete_versioned(DLManagedTensorVersioned *managed) noexcept nogil:
    if Py_IsInitialized():
        _release((<_Versioned *> managed).owner)
    free(managed)


cdef void _drop_capsule(object capsule) noexcept:
    # A capsule that nobody consumed still owns its managed tensor.
    if PyCapsule_IsValid(capsule, _LEGACY):
        _delete_legacy(<DLManagedTensor *> PyCapsule_GetPointer(capsule, _LEGACY))
    elif PyCapsule_IsValid(capsule, _VERSIONED):
        _delete_versioned(<DLManagedTensorVersioned *> PyCapsule_GetPointer(capsule, _VERSIONED))


cdef object _new_capsule(DLTensor *source, object owner, bint versioned, uint64_t flags):
    cdef size_t header = sizeof(_Versioned) if versioned else sizeof(_Legacy)
    cdef char *block = <char *> malloc(header + 2 * source.ndim * sizeof(int64_t))
    cdef DLTensor *tensor
    cdef int64_t *shape
    cdef int64_t stride = 1
    cdef int i
    if block == NULL:
        raise MemoryError
    shape = <int64_t *> (block + header)
    if versioned:
        (<_Versioned *> block).owner = <PyObject *> owner
        (<_Versioned *> block).managed.version.major = DLPACK_MAJOR
        (<_Versioned *> block).managed.version.minor = DLPACK_MINOR
        (<_Versioned *> block).managed.manager_ctx = NULL
        (<_Versioned *> block).managed.deleter = _delete_versioned
        (<_Versioned *> block).managed.flags = flags
        tensor = &(<_Versioned *> block).managed.dl_tensor
    else:
        (<_Legacy *> block).owner = <PyObject *> owner
        (<_Legacy *> block).managed.manager_ctx = NULL
        (<_Legacy *> block).managed.deleter = _delete_legacy
        tensor = &(<_Legacy *> block).managed.dl_tensor
    tensor[0] = source[0]
    tensor.shape = shape
    tensor.strides = shape + source.ndim
    if source.ndim:
        memcpy(tensor.shape, source.shape, source.ndim * sizeof(int64_t))
    if source.strides != NULL and source.ndim:
        memcpy(tensor.strides, source.strides, source.ndim * sizeof(int64_t))
    else:
        for i in range(source.ndim - 1, -1, -1):
            tensor.strides[i] = stride
            stride *= source.shape[i]
    Py_INCREF(owner)
    try:
        return PyCapsule_New(
            block, _VERSIONED if versioned else _LEGACY, _drop_capsule
        )
    except:
        Py_DECREF(owner)
        free(block)
        raise


cdef object export_array(object array, int data_type, bint versioned, uint64_t flags):
    """Capsule of a C-contiguous CPU array; the capsule keeps the array alive."""
    cdef ArrayView view
    cdef DLTensor tensor
    arrays.describe(array, &view)
    tensor.data = view.data
    tensor.device.device_type = kDLCPU
    tensor.device.device_id = 0
    tensor.ndim = view.ndim
    tensor.dtype = _dlpack_type(data_type)
    tensor.shape = view.dims
    tensor.strides = NULL
    tensor.byte_offset = 0
    return _new_capsule(&tensor, array, versioned, flags)


cdef object export_device(DLPackTensor source, bint versioned):
    """Capsule of a tensor that came in by DLPack and stays where it is."""
    return _new_capsule(
        source.tensor, source, versioned, DLPACK_FLAG_READ_ONLY if source.is_read_only else 0
    )


def abi_layout():
    """Sizes and offsets of our DLPack structures, in bytes; held by a test."""
    cdef DLManagedTensorVersioned v
    cdef DLManagedTensor m
    cdef DLTensor t
    cdef char *vb = <char *> &v
    cdef char *mb = <char *> &m
    cdef char *tb = <char *> &t
    return {
        "DLTensor": sizeof(DLTensor),
        "DLTensor.device": <char *> &t.device - tb,
        "DLTensor.ndim": <char *> &t.ndim - tb,
        "DLTensor.dtype": <char *> &t.dtype - tb,
        "DLTensor.shape": <char *> &t.shape - tb,
        "DLTensor.strides": <char *> &t.strides - tb,
        "DLTensor.byte_offset": <char *> &t.byte_offset - tb,
        "DLManagedTensor": sizeof(DLManagedTensor),
        "DLManagedTensor.manager_ctx": <char *> &m.manager_ctx - mb,
        "DLManagedTensor.deleter": <char *> &m.deleter - mb,
        "DLManagedTensorVersioned": sizeof(DLManagedTensorVersioned),
        "DLManagedTensorVersioned.manager_ctx": <char *> &v.manager_ctx - vb,
        "DLManagedTensorVersioned.deleter": <char *> &v.deleter - vb,
        "DLManagedTensorVersioned.flags": <char *> &v.flags - vb,
        "DLManagedTensorVersioned.dl_tensor": <char *> &v.dl_tensor - vb,
    }
