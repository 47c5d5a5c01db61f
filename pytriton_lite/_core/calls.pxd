"""Where calls go (see calls.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.input_spec cimport InputSpec
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer


cdef class ServedVersion:
    cdef readonly InputSpec spec
    cdef readonly RequestQueue queue
    cdef readonly str model_name
    cdef readonly long version
    cdef readonly bint is_decoupled
    cdef readonly Py_ssize_t stream_backlog

    cdef CallSlot slot_for(self, InferenceRequest request)
    cdef InferenceResponse empty_final(self, str request_id)
    cdef InferenceResponse error_reply(self, object error)


cdef class Endpoint:
    cdef public ServedVersion served
    cdef readonly object explain    # () -> the error to raise while `served` is None


cdef class ModelCalls:
    cdef readonly Endpoint _endpoint

    cdef ServedVersion served(self)


cdef class ResponseStream:
    cdef readonly str model_name
    cdef RequestQueue queue
    cdef CallSlot slot
    cdef StreamBuffer buffer
    cdef ServedVersion served
    cdef int64_t deadline_ns
    cdef bint keeps_empty_final, raises, is_done
    cdef int generation             # of the process that opened it

    cdef int _check_process(self) except -1
