"""BLS requests of a stub, in the server (see bls_port.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.bls cimport BlsScope
from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._ipc.wire cimport Link, Reader


cdef class BlsPort:
    cdef Link link
    cdef BlsScope scope
    cdef Contract contract          # of the instance that asks
    cdef dict asked                 # number -> _Asked
    cdef readonly object look_out
    cdef bint has_sender            # `execute` has taken response senders; threads may answer with them
    # The request that `execute` itself waits for:
    cdef CallSlot inner             # None if there is none
    cdef InferenceRequest inner_request     # as it came
    cdef uint64_t inner_number
    cdef CallSlot outer             # for `end_wait`
    cdef bint is_submitted

    cdef int begin_inner(self, Reader record) except -1
    cdef object run_inner(self)
    cdef CallSlot _inner_anew(self)
    cdef int answer(self, uint64_t number, object outcome, bint aside, bint ends) except -1
    cdef int _ask(self, Reader record) except -1
    cdef int _take_waits(self, Reader record) except -1
    cdef CallSlot _waited_for(self, Reader record)


cdef class _Asked:
    cdef BlsPort port
    cdef CallSlot slot
    cdef InferenceRequest request   # as it came; None once it is queued
    cdef uint64_t number
    cdef object watch               # `Watch` while nobody runs it
    # Of a stream:
    cdef uint32_t lock              # of the next two
    cdef bint is_busy               # a thread forwards responses
    cdef bint has_more              # it is to look again
    cdef bint is_over
    cdef int64_t sent, credited

    cdef int begin(self) except -1
    cdef int _anew(self) except -1
    cdef int forward(self) except -1
    cdef bint _forward_one(self) except -1
    cdef int end(self) except -1
    cdef int fail(self, object error) except -1
