"""`pb_utils` requests and responses: what the other compiled modules use (see message.pyx)."""


cdef class RequestDetails:
    """What few requests have; all others share one object with the defaults. Never changed."""

    cdef object correlation             # int or str
    cdef str target_model               # BLS: the model to call
    cdef long target_version            # BLS: -1 is by policy
    cdef unsigned long timeout_us
    cdef unsigned long priority
    cdef object memory                  # PreferredMemory
    cdef object trace_context           # InferenceTrace
    cdef dict parameters                # or None
    cdef bint is_self_made              # by model code, not received from a caller


cdef RequestDetails NO_DETAILS


cdef class InferenceRequest:
    cdef list tensors                   # of Tensor
    cdef str id
    cdef tuple output_names             # requested, in order, without repeats
    cdef RequestDetails details
    cdef unsigned int request_flags
    cdef bint cancelled
    cdef long batch_size                # first dim of the inputs; 0 without a batch dimension


cdef class InferenceResponse:
    cdef list tensors                   # of Tensor
    cdef object failure                 # TritonError or None
    cdef dict parameter_values          # or None

    cdef int prune(self, tuple names) except -1


cdef class TritonError:
    cdef str text
    cdef object status                  # member of the code enum
