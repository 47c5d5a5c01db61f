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

    cdef RequestDetails copy(self)


cdef RequestDetails NO_DETAILS


cdef class InferenceRequest:
    cdef list tensors                   # of Tensor
    cdef str id
    cdef tuple output_names             # requested, in order, without repeats
    cdef RequestDetails details
    cdef unsigned int request_flags
    cdef long batch_size                # first dim of the inputs; 0 without a batch dimension
    cdef object home                    # Contract that runs it; of a self-made one the BLS scope
    cdef object slot                    # CallSlot that its outcome goes to, while it runs and after
    cdef object sender                  # InferenceResponseSender, once there is one
    cdef long long release_flags

    cdef bint _set(
        self, object request_id, object correlation_id, object inputs, object requested_output_names,
        object model_name, object model_version, object flags, object timeout,
        object preferred_memory, object trace, object parameters,
    ) except -1


cdef class InferenceResponse:
    cdef list tensors                   # of Tensor
    cdef object failure                 # TritonError or None
    cdef dict parameter_values          # or None

    cdef bint _set(self, object output_tensors, object error, object parameters) except -1
    cdef int prune(self, tuple names) except -1


cdef class TritonError:
    cdef str text
    cdef object status                  # member of the code enum


# What BLS requests of one instance go through; `bls.BlsScope` is the only kind.
cdef class Scope:
    cdef object exec_request(self, InferenceRequest request, bint decoupled)


cdef object bls_refusal()
cdef int make_native(object type) except -1
