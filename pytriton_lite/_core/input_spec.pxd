"""Request validation compiled from a model's configuration (see input_spec.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.tensor cimport SpareArray, Tensor


cdef class InputEntry:
    cdef str name
    cdef int data_type
    cdef int ndim                   # of dims, without the batch dimension
    cdef int64_t[64] dims
    cdef tuple dims_tuple
    cdef tuple reshape              # dims that the model sees, or None
    cdef bint is_optional
    cdef SpareArray spare


cdef class InputSpec:
    cdef readonly str model_name
    cdef readonly int max_batch_size
    cdef readonly tuple output_names
    cdef list entries
    cdef dict by_name
    cdef int required_count
    cdef int total_count
    cdef bint share_memory
    cdef bint cpu_only

    cdef InferenceRequest build(self, object inputs, str request_id)
    cdef InferenceRequest build_for(self, InferenceRequest source)
    cdef list _wrap_all(self, InferenceRequest source, InferenceRequest request)
    cdef Tensor _wrap(self, InputEntry entry, object value, int64_t *batch)
    cdef object _presented(self, InputEntry entry, object wire)
    cdef Tensor _tensor(self, InputEntry entry, object wire, int data_type)
    cdef list _build_slowly(self, object inputs, str request_id, InferenceRequest request)
    cdef list _finish(self, list made, InferenceRequest request, str prefix)
