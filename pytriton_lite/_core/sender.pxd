"""`InferenceResponseSender` (see sender.pyx)."""
from libc.stdint cimport uint32_t

from pytriton_lite._core.answer cimport AnswerMaker
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot


cdef class InferenceResponseSender:
    cdef CallSlot slot
    cdef AnswerMaker home
    cdef tuple output_names
    cdef str request_id
    cdef long batch_size
    cdef bint is_decoupled
    cdef bint is_streaming          # responses go to a stream one by one
    cdef uint32_t lock              # of the next two
    cdef bint is_closed
    cdef Py_ssize_t sent
    cdef list inputs                # of the request, while the caller owns their memory
    cdef object waiting             # the one response that waits for FINAL

    cdef str _fault(self, bint has_response)
    cdef int _commit(self, object outcome, bint is_final) except -1
    cdef int _stream(self, object outcome, bint is_final) except -1
    cdef int _detach_inputs(self) except -1
    cdef int _close(self, object outcome) except -1
    cdef bint fail(self, object error) except -1
    cdef bint close_by_return(self) except -1


cdef InferenceResponseSender make_sender(
    AnswerMaker home, CallSlot slot, InferenceRequest request, bint is_decoupled
)
