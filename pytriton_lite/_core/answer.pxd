"""From a model's response to the caller's (see answer.pyx)."""
from libc.stdint cimport uint32_t

from pytriton_lite._core.message cimport InferenceResponse
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.tensor cimport Tensor

# What an answer may be, besides an exception to raise.
cdef enum:
    FORM_REPLY = 0          # the public `InferenceResponse`
    FORM_ARRAYS = 1         # that, or the dict of arrays by name
    FORM_RESPONSE = 2       # that, or the `InferenceResponse` that model code sees


cdef class AnswerMaker:
    cdef readonly str model_name
    cdef readonly long model_version
    cdef readonly str instance_name
    cdef public object namespace    # of the model's modules; for who asks whose code a thread runs
    cdef object check_outputs       # (names, batch size, response) -> None, raises; or None
    cdef dict output_reshapes       # name -> dims that the client sees; or None
    cdef bint is_batching
    cdef int share_memory           # SHARE_*, of outputs
    cdef bint copies_waiting        # also share no memory with a response that waits for FINAL
    cdef dict open_slots            # slots with a sender that is not closed -> None
    cdef uint32_t answers           # futex: changes with each one closed, while somebody waits
    cdef bint is_awaited

    cdef object make(
        self, InferenceResponse response, tuple names, long batch_size, str request_id,
        Py_ssize_t held, int form, int share,
    )
    cdef InferenceResponse _for_model(
        self, InferenceResponse response, Py_ssize_t references, int share
    )
    cdef object _payload(self, Tensor tensor, Py_ssize_t references, int share)
    cdef object failure(self, str text, object cause, str request_id)
    cdef int answered(self, CallSlot slot) except -1
    cdef str obstacle(self)
    cdef bint is_running_here(self) noexcept
    cdef Reply reply_of(self, object outcome, str request_id)
