"""Which BLS requests can never be answered (see deadlock.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.slot cimport CallSlot


cdef CallSlot begin_wait(Contract own, Contract maker, CallSlot slot)
cdef int end_wait(Contract own, Contract maker, CallSlot slot, CallSlot outer) except -1
cdef bint awaits_coroutine(Contract contract) except -1
cdef str why_stuck(CallSlot slot)
cdef int64_t watch_slice_ns() except -1


cdef class Watch:
    cdef CallSlot slot
    cdef list picture
    cdef int64_t since_ns

    cdef str look(self)
