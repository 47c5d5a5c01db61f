"""BLS: how a model's requests find their callee (see bls.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.calls cimport Endpoint, ServedVersion
from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest, Scope
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.slot cimport CallSlot


cdef class BlsScope(Scope):
    cdef object find_endpoint
    cdef dict endpoints
    cdef Contract contract
    cdef Endpoint last              # of the last request that found one, and its key
    cdef str last_name
    cdef int64_t last_version
    cdef readonly bint is_open

    cdef ServedVersion callee_of(self, InferenceRequest request)
    cdef ServedVersion successor_of(self, RequestQueue refused, InferenceRequest request)
    cdef object _run(self, ServedVersion served, CallSlot slot)
    cdef Endpoint _endpoint(self, str name, int64_t version)
    cdef CallSlot slot_of(
        self, ServedVersion served, InferenceRequest request, bint decoupled, bint is_blocking
    )


cdef str target_of(InferenceRequest request)
cdef object refusal_of(InferenceRequest request, object error)
