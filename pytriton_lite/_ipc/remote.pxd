"""An instance in another process, as this one sees it (see remote.pyx)."""
from libc.stdint cimport uint32_t, uint64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._ipc.bls_port cimport BlsPort
from pytriton_lite._ipc.wire cimport Link, Reader, Writer


cdef class RemoteContract(Contract):
    cdef Link link
    cdef tuple all_outputs
    cdef dict slots                 # call number -> CallSlot, of all that the stub has
    cdef uint64_t calls             # so far
    cdef CallSlot current           # whose outcome is waited for on the ring `answers`
    cdef int form                   # of the answer to `current`, FORM_*
    cdef list batch                 # CallSlots of the batch whose answers are waited for, in order
    cdef list forms                 # of their answers
    cdef list outcomes              # theirs; None: not there yet
    cdef object ruin                # error of a stub that does not keep the rules
    cdef BlsPort bls
    cdef bint is_dead               # `fail_all` was called
    cdef object make_dead_error
    cdef object on_broken
    cdef set recalled               # numbers of calls that were queued again, whose answers are still to come

    cdef uint64_t *_claim(self, uint64_t call) noexcept
    cdef int _forget(self, CallSlot slot) except -1
    cdef object _await(self)
    cdef Reader _receive(self)
    cdef object _outcome(self, Reader record)
    cdef object _lost(self, CallSlot slot, object error)
    cdef bint _take_in(self, InferenceRequest request, CallSlot slot, bint has_claim) except -1
    cdef Writer _call_record(self, InferenceRequest request, CallSlot slot, bint is_again, int flags)
    cdef int _send_batch(self, list requests) except -1
    cdef int _send_surely(self, Writer record, uint32_t kind, uint64_t call, bint is_quiet) except -1
    cdef list _await_batch(self)
    cdef int _send(self, Writer record, bint aside, uint32_t kind, uint64_t call, bint is_quiet=*) except -1
    cdef int _tell(self, Writer record, uint32_t kind, uint64_t call) except -1
    cdef int _fail_pending(self, CallSlot slot) except -1
