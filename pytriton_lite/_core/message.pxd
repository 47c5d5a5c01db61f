"""`pb_utils` requests and responses: what the other compiled modules use (see message.pyx)."""


cdef class InferenceRequest:
    cdef list tensors                   # of Tensor
    cdef str id
    cdef object correlation             # int or str
    cdef tuple output_names             # requested, in order, without repeats
    cdef str target_model               # BLS: the model to call
    cdef long target_version            # BLS: -1 is by policy
    cdef unsigned int request_flags
    cdef unsigned long timeout_us
    cdef readonly unsigned long priority
    cdef object memory                  # PreferredMemory
    cdef object trace_context           # InferenceTrace
    cdef dict parameter_values          # or None
    cdef str parameter_text             # JSON, made when first asked for
    cdef bint is_received               # came from a caller, not made by model code
    cdef bint cancelled
    cdef readonly long batch_size       # first dim of the inputs; 0 without a batch dimension
    cdef unsigned char holders          # references that the runtime itself holds while it runs


cdef class InferenceResponse:
    cdef list tensors                   # of Tensor
    cdef object failure                 # TritonError or None
    cdef dict parameter_values          # or None

    cdef int prune(self, tuple names) except -1


cdef class TritonError:
    cdef str text
    cdef object status                  # member of the code enum
