"""Call slots and the queue that instances pull from (see queue.pyx)."""
from libc.stdint cimport int64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.sync cimport ptl_node, ptl_queue, ptl_worker


cdef class CallSlot:
    cdef ptl_node node
    cdef InferenceRequest request
    cdef object outcome             # InferenceResponse, dict if `wants_arrays`, or the exception to raise
    cdef bint wants_arrays          # a dict of arrays is answer enough
    cdef object notify              # called with the slot when done; None when a thread waits

    cdef object result(self)


cdef class Executor:
    cdef ptl_worker worker
    cdef Contract contract
    cdef CallSlot running           # what a thread instance is executing, or None


cdef class RequestQueue:
    cdef ptl_queue queue
    cdef readonly str model_name
    cdef readonly bint is_inline
    cdef list executors
    cdef int generation             # of the process: a forked child has no worker threads

    cdef object call(self, InferenceRequest request, int64_t deadline_ns, bint wants_arrays)
    cdef object _call_inline(self, InferenceRequest request, int64_t deadline_ns, bint wants_arrays)
    cdef object _lead(self, Executor executor, InferenceRequest request, bint wants_arrays)
    cdef object _run_others(self, Executor executor)
    cdef object _run_slot(self, Executor executor, CallSlot slot)
    cdef object _wait(self, CallSlot slot, int64_t deadline_ns)
    cdef bint _give_up(self, CallSlot slot) except -1
    cdef object _closed_error(self)
