"""What the other compiled modules may ask of numpy arrays (see array.pyx)."""
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

# Numbers of Triton's data types (inference.DataType), the same as in _dtypes.py.
cdef enum:
    DT_INVALID = 0
    DT_BOOL = 1
    DT_UINT8 = 2
    DT_UINT16 = 3
    DT_UINT32 = 4
    DT_UINT64 = 5
    DT_INT8 = 6
    DT_INT16 = 7
    DT_INT32 = 8
    DT_INT64 = 9
    DT_FP16 = 10
    DT_FP32 = 11
    DT_FP64 = 12
    DT_BYTES = 13
    DT_BF16 = 14
    DT_COUNT = 15

cdef int MAX_NDIM

# How `Tensor.hand_over` gives a model's array away: as its owner's, the array itself, or (where the
# answer is sent, which copies what is small) the array itself if it is small, else as its owner's.
cdef enum:
    SHARE_NONE = 0
    SHARE_ALL = 1
    SHARE_SMALL = 2
    SMALL_BYTES = 8192

# What numpy allocates arrays with; `free` gets what any of the others made.
ctypedef struct Allocator:
    void *context
    void *(*malloc)(void *, size_t) noexcept nogil
    void *(*calloc)(void *, size_t, size_t) noexcept nogil
    void *(*realloc)(void *, void *, size_t) noexcept nogil
    void (*free)(void *, void *, size_t) noexcept nogil


cdef class MemoryOwner:
    """Base of arrays over memory that only they can reach: who holds the owner holds the memory."""


# Facts about one ndarray; `dims` points into the array and lives as long as it.
ctypedef struct ArrayView:
    int data_type           # DT_*; DT_INVALID for a dtype without a Triton type
    int ndim
    int64_t *dims
    void *data
    bint is_contiguous      # C order; sizes 0 and 1 don't care about strides
    bint is_writable

# Py_REFCNT, or "very many" in a build without a GIL, where the number proves nothing.
cdef Py_ssize_t reference_count(PyObject *thing) noexcept
cdef int64_t item_size(int data_type) noexcept nogil
cdef bint describe(object array, ArrayView *view) noexcept
cdef object private_copy(object array)
cdef bint is_recyclable(object array, Py_ssize_t references) noexcept
cdef bint refill(object array, object source) noexcept
cdef bint is_exclusive(object array, Py_ssize_t references) noexcept
cdef bint is_small(object array) noexcept
cdef MemoryOwner owner_of(object array)
cdef bint set_allocator(const Allocator *wanted, Allocator *before) except -1
cdef object view_of_memory(
    void *data, int ndim, int64_t *dims, int64_t *strides, int data_type, object owner, bint writable
)
cdef object array_of_memory(const void *data, int ndim, int64_t *dims, int data_type)
