"""The contract in a stub process (see stub_contract.pyx)."""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer
from pytriton_lite._ipc.wire cimport Link, Reader, Writer


cdef class StubContract(Contract):
    cdef Link link
    cdef tuple all_outputs
    cdef dict slots                 # call number -> CallSlot, of all that is not answered
    cdef dict parked                # call number -> InferenceRequest, rescheduled
    cdef set early                  # calls that were cancelled before they came
    cdef uint64_t newest            # number of the newest call that came
    cdef int64_t began_ns           # when the running call was begun with

    cdef str obstacle(self)
    cdef int _run_one(self, Reader record, int flags) except -1
    cdef int _run_all(self, list records) except -1
    cdef object _accept(self, Reader record, int flags)
    cdef int _settled(
        self, InferenceRequest request, Py_ssize_t holders, object outcome, bint is_quiet
    ) except -1
    cdef int _answer(self, CallSlot slot, object outcome, bint is_quiet) except -1
    cdef int _begin_answer(self, Writer record, CallSlot slot, int state) except -1
    cdef int _abandon(self, CallSlot slot, bint is_soft) except -1
    cdef int _cancel(self, Reader record) except -1
    cdef int _respond(self, uint64_t call, object outcome, bint ends) except -1


cdef class StubStream(StreamBuffer):
    cdef StubContract home
    cdef uint64_t call
    cdef int64_t credited           # responses that the reader has read
    cdef object order               # lock: who sends first is first in the ring
