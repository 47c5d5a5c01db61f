# cython: language_level=3, freethreading_compatible=True
"""numpy arrays: facts, copies and views. The only module that uses numpy's C API."""
cimport numpy as np
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t
from libc.string cimport memcpy

np.import_array()

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    /* A reference count read by one thread proves nothing here, so nothing counts as exclusive. */
    #define PTL_REFCNT(op) PY_SSIZE_T_MAX
    #else
    #define PTL_REFCNT(op) Py_REFCNT(op)
    #endif
    #define PTL_WEAKREFS(op) (*(PyObject **)((char *)(op) + Py_TYPE(op)->tp_weaklistoffset))
    """
    Py_ssize_t PTL_REFCNT(PyObject *) noexcept
    PyObject *PTL_WEAKREFS(PyObject *) noexcept

# `Allocator` has the layout of numpy's PyDataMemAllocator, which NEP 49 fixes for version 1.
cdef extern from *:
    """
    #define ptl_handler_version(h) (((PyDataMem_Handler *)(h))->version)
    #define ptl_handler_allocator(h) (&((PyDataMem_Handler *)(h))->allocator)
    """
    PyObject *PyDataMem_DefaultHandler
    int ptl_handler_version(void *)
    void *ptl_handler_allocator(void *)

# `new_array` steals the descriptor.
cdef extern from *:
    """
    #define ptl_descr_of(array) ((PyObject *)PyArray_DESCR((PyArrayObject *)(array)))
    #define ptl_new_array(descr, ndim, dims, strides, data, flags) \
        PyArray_NewFromDescr(&PyArray_Type, (PyArray_Descr *)(descr), ndim, dims, strides, data, flags, NULL)
    """
    PyObject *descr_of "ptl_descr_of"(object)  # borrowed
    object new_array "ptl_new_array"(PyObject *, int, np.npy_intp *, np.npy_intp *, void *, int)

# numpy's limit is 32 in 1.x and 64 in 2.x.
MAX_NDIM = 64

# Below this many bytes, giving up the GIL for a copy costs more than the copy
# (64 bytes: 55 ns held, 389 ns released); from here on other threads gain.
cdef enum:
    RELEASE_GIL_BYTES = 65536

# Private copies up to this size are kept for the next request: making and freeing an
# ndarray costs 130 ns, as much as copying some KiB. Larger ones are not worth their memory.
cdef enum:
    RECYCLED_BYTES = 16384

cdef int64_t[15] _ITEM_SIZES
cdef int[15] _TYPE_NUMBERS
_ITEM_SIZES[:] = [0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0, 2]
_TYPE_NUMBERS[:] = [
    -1, np.NPY_BOOL, np.NPY_UINT8, np.NPY_UINT16, np.NPY_UINT32, np.NPY_UINT64,
    np.NPY_INT8, np.NPY_INT16, np.NPY_INT32, np.NPY_INT64,
    np.NPY_FLOAT16, np.NPY_FLOAT, np.NPY_DOUBLE, np.NPY_OBJECT,
    np.NPY_UINT16,  # BF16 has no numpy type: its bits are kept as uint16
]


cdef Py_ssize_t reference_count(PyObject *thing) noexcept:
    return PTL_REFCNT(thing)


cdef int64_t item_size(int data_type) noexcept nogil:
    return _ITEM_SIZES[data_type]


cdef int _data_type_of(np.ndarray array) noexcept:
    cdef int number = np.PyArray_TYPE(array)
    if not np.PyArray_ISNOTSWAPPED(array):
        return DT_INVALID
    if number == np.NPY_FLOAT:
        return DT_FP32
    if number == np.NPY_BOOL:
        return DT_BOOL
    if number == np.NPY_FLOAT16:
        return DT_FP16
    if number == np.NPY_DOUBLE:
        return DT_FP64
    if number == np.NPY_OBJECT or number == np.NPY_STRING:
        return DT_BYTES
    # C's integer types overlap (int64 is long or long long), so decide by kind and size.
    if np.PyTypeNum_ISSIGNED(number):
        return _integer(np.PyArray_ITEMSIZE(array), DT_INT8)
    if np.PyTypeNum_ISUNSIGNED(number):
        return _integer(np.PyArray_ITEMSIZE(array), DT_UINT8)
    return DT_INVALID


cdef inline int _integer(int size, int first) noexcept:
    if size == 1:
        return first
    if size == 2:
        return first + 1
    if size == 4:
        return first + 2
    if size == 8:
        return first + 3
    return DT_INVALID


cdef bint _is_contiguous(np.ndarray array) noexcept:
    return np.PyArray_IS_C_CONTIGUOUS(array)


cdef bint describe(object array, ArrayView *view) noexcept:
    """Fill `view`; False when `array` is not an ndarray (a subclass is one)."""
    if not np.PyArray_Check(array):
        return False
    cdef np.ndarray nd = <np.ndarray> array
    view.data_type = _data_type_of(nd)
    view.ndim = np.PyArray_NDIM(nd)
    view.dims = <int64_t *> np.PyArray_DIMS(nd)
    view.data = np.PyArray_DATA(nd)
    view.is_contiguous = _is_contiguous(nd)
    view.is_writable = np.PyArray_ISWRITEABLE(nd)
    return True


cdef object private_copy(object array):
    """Copy to a new writable C-ordered base-class array that owns its memory."""
    cdef np.ndarray source = <np.ndarray> array
    cdef np.ndarray copy
    cdef PyObject *descr
    cdef Py_ssize_t size
    if not _is_contiguous(source) or np.PyArray_TYPE(source) == np.NPY_OBJECT:
        Py_INCREF(source)  # stolen by the next call
        return np.PyArray_NewCopy(np.PyArray_EnsureArray(source), np.NPY_CORDER)
    descr = descr_of(source)
    Py_INCREF(<object> descr)  # stolen by the next call
    copy = new_array(descr, np.PyArray_NDIM(source), np.PyArray_DIMS(source), NULL, NULL, 0)
    size = np.PyArray_NBYTES(source)
    cdef void *to = np.PyArray_DATA(copy)
    cdef const void *of = np.PyArray_DATA(source)
    if size < RELEASE_GIL_BYTES:
        memcpy(to, of, size)
    else:
        with nogil:
            memcpy(to, of, size)
    return copy


cdef bint is_recyclable(object array, Py_ssize_t references) noexcept:
    """Whether a `private_copy` may be given out again: it is exclusive, and still of that nature."""
    return (
        is_exclusive(array, references)
        and np.PyArray_CHKFLAGS(<np.ndarray> array, np.NPY_ARRAY_CARRAY)
        and np.PyArray_NBYTES(<np.ndarray> array) <= RECYCLED_BYTES
    )


cdef bint refill(object array, object source) noexcept:
    """Copy `source` (C-contiguous, not object) over an array of the same type and dims; False if it differs."""
    cdef np.ndarray to = <np.ndarray> array
    cdef np.ndarray of = <np.ndarray> source
    cdef int i, ndim = np.PyArray_NDIM(of)
    if np.PyArray_NDIM(to) != ndim or descr_of(to) != descr_of(of):
        return False
    for i in range(ndim):
        if np.PyArray_DIMS(to)[i] != np.PyArray_DIMS(of)[i]:
            return False
    memcpy(np.PyArray_DATA(to), np.PyArray_DATA(of), np.PyArray_NBYTES(of))
    return True


cdef bint is_exclusive(object array, Py_ssize_t references) noexcept:
    """Whether nobody else can reach the memory of an ndarray.

    `references` is how many references the caller knows of, the one in its own
    argument not counted. True only for memory that numpy itself allocated and
    that no other array, view or weak reference leads to; memory of a foreign
    owner (a torch tensor, a bytes object) is never exclusive, since it may be
    shared behind that owner's back; that of a `MemoryOwner` is if only this array holds it.
    """
    cdef PyObject *current = <PyObject *> array
    cdef PyObject *base
    while True:
        if PTL_REFCNT(current) > references:
            return False
        if PTL_WEAKREFS(current) != NULL:
            return False
        base = <PyObject *> np.PyArray_BASE(<np.ndarray> current)
        if base == NULL:
            return np.PyArray_CHKFLAGS(<np.ndarray> current, np.NPY_ARRAY_OWNDATA)
        if isinstance(<object> base, MemoryOwner):
            return PTL_REFCNT(base) <= 1
        if not np.PyArray_CheckExact(<object> base):
            return False
        current = base
        references = 1  # held by the view alone


cdef bint is_small(object array) noexcept:
    """Whether a copy costs next to nothing; so do arrays of objects, which are serialized anyway."""
    return (
        np.PyArray_NBYTES(<np.ndarray> array) <= SMALL_BYTES
        or np.PyArray_TYPE(<np.ndarray> array) == np.NPY_OBJECT
    )


cdef class MemoryOwner:
    pass


cdef MemoryOwner owner_of(object array):
    """The `MemoryOwner` of an ndarray's memory, or None."""
    cdef PyObject *current = <PyObject *> array
    while current != NULL:
        if isinstance(<object> current, MemoryOwner):
            return <MemoryOwner> <object> current
        if not np.PyArray_Check(<object> current):
            return None
        current = <PyObject *> np.PyArray_BASE(<np.ndarray> <object> current)
    return None


cdef bint set_allocator(const Allocator *wanted, Allocator *before) except -1:
    """Let numpy allocate arrays with `wanted` from now on, in the whole process; `before` is what it had.

    numpy has a handler for each context (NEP 49), and a thread begins with an empty one. So that
    threads of libraries have it, too, this changes the functions of the default handler in place.
    Arrays that exist are freed by `wanted` as well, which must know what is not its own. Returns
    False, and changes nothing, if this numpy's allocator is of another version than NEP 49's.
    """
    cdef void *handler = PyCapsule_GetPointer(<object> PyDataMem_DefaultHandler, "mem_handler")
    cdef Allocator *allocator = <Allocator *> ptl_handler_allocator(handler)
    if ptl_handler_version(handler) != 1:
        return False
    before[0] = allocator[0]
    # In this order: an array that is made meanwhile can be freed.
    allocator.context = wanted.context
    allocator.free = wanted.free
    allocator.realloc = wanted.realloc
    allocator.calloc = wanted.calloc
    allocator.malloc = wanted.malloc
    return True


cdef object view_of_memory(
    void *data, int ndim, int64_t *dims, int64_t *strides, int data_type, object owner, bint writable
):
    """Array over memory that `owner` keeps alive. `strides` are in elements, or NULL."""
    cdef np.npy_intp[64] byte_strides
    cdef np.npy_intp *strides_argument = NULL
    cdef int i
    if strides != NULL:
        for i in range(ndim):
            byte_strides[i] = strides[i] * _ITEM_SIZES[data_type]
        strides_argument = byte_strides
    cdef np.dtype descr = np.PyArray_DescrFromType(_TYPE_NUMBERS[data_type])
    Py_INCREF(descr)  # stolen by the next call
    cdef np.ndarray array = new_array(
        <PyObject *> descr, ndim, <np.npy_intp *> dims, strides_argument, data,
        np.NPY_ARRAY_WRITEABLE if writable else 0,
    )
    np.PyArray_UpdateFlags(
        array,
        np.NPY_ARRAY_C_CONTIGUOUS | np.NPY_ARRAY_F_CONTIGUOUS | np.NPY_ARRAY_ALIGNED,
    )
    np.set_array_base(array, owner)
    return array


cdef object array_of_memory(const void *data, int ndim, int64_t *dims, int data_type):
    """New array with a copy of C-ordered data; not for BYTES."""
    cdef np.dtype descr = np.PyArray_DescrFromType(_TYPE_NUMBERS[data_type])
    Py_INCREF(descr)  # stolen by the next call
    cdef np.ndarray array = new_array(<PyObject *> descr, ndim, <np.npy_intp *> dims, NULL, NULL, 0)
    memcpy(np.PyArray_DATA(array), data, np.PyArray_NBYTES(array))
    return array
