"""BLS requests of the model in a stub (see stub_bls.pyx)."""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._core.calls cimport ServedVersion
from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.input_spec cimport InputSpec
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer
from pytriton_lite._ipc.wire cimport Link, Reader


cdef class StubQueue(RequestQueue):
    cdef Link link
    cdef Contract contract
    cdef dict slots                 # number -> CallSlot, of all that came aside and are not answered
    cdef object numbers             # iterator

    cdef object _call_here(self, CallSlot slot)
    cdef uint64_t _send(self, CallSlot slot, bint aside) except 0
    cdef int _take(self, Reader record) except -1
    cdef int give_up(self, uint64_t number, int how) except -1


cdef class BlsStream(StreamBuffer):
    cdef StubQueue queue
    cdef uint64_t number
    cdef bint has_all               # the server sends nothing more


cdef class _Unchecked(InputSpec):
    pass
