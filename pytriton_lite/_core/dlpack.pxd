"""DLPack exchange: what the other compiled modules use (see dlpack.pyx)."""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._core.dlpack_abi cimport DLTensor


cdef class DLPackTensor:
    cdef void *managed          # DLManagedTensor or DLManagedTensorVersioned, ours; NULL once released
    cdef bint is_versioned
    cdef DLTensor *tensor       # inside *managed
    cdef readonly int data_type # DT_*
    cdef readonly bint is_read_only

    cdef bint is_on_cpu(self) noexcept
    cdef bint is_contiguous(self) noexcept
    cdef object array(self)


cdef int refuse_negated(object source) except -1
cdef DLPackTensor consume(object capsule)
cdef object export_array(object array, int data_type, bint versioned, uint64_t flags)
cdef object export_device(DLPackTensor source, bint versioned)
