"""The queue of a model with dynamic batching (see batch_queue.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.formation cimport ptl_batch, ptl_former
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport Executor, RequestQueue
from pytriton_lite._core.slot cimport CallSlot, ResponseOrder
from pytriton_lite._core.sync cimport ptl_node, ptl_worker


# Words of threads to wake, once the GIL is given up.
ctypedef struct Wakes:
    uint32_t **words
    Py_ssize_t count, room


cdef class BatchQueue(RequestQueue):
    cdef ptl_former former          # guarded by the lock of `queue`, which links no nodes itself
    cdef ptl_worker *keeper         # its thread sleeps until a delay is over; or NULL
    cdef int default_level
    cdef frozenset equal_inputs     # whose shapes must be equal in a batch
    cdef bint has_optional          # requests of a batch must have the same inputs
    cdef bint has_batch_dim
    cdef bint has_keys              # one of the two matters
    cdef dict keys                  # what must be equal -> its number
    cdef uint64_t last_key          # the greatest number so far
    cdef ResponseOrder order        # or None
    cdef object timer               # see `_timer`
    cdef int64_t armed_ns           # when the timer will call; 0: never
    cdef list holders               # threads that hold the queue
    cdef object recent              # deque of what `explain` gives
    cdef object __weakref__

    cdef int _prepare_slot(self, CallSlot slot, int64_t now) except -1
    cdef uint64_t _key_of(self, InferenceRequest request) except? 0
    cdef int _push(self, ptl_node *node, ptl_worker **rung, ptl_worker **got) noexcept nogil
    cdef ptl_worker *_someone(self, bint is_ready) noexcept nogil
    cdef int _unset_idle(self, ptl_worker *worker) noexcept nogil
    cdef int _take(
        self, Executor executor, ptl_batch *batch, ptl_node *own, int64_t deadline_ns, int64_t slice_ns,
        bint sleeps,
    ) noexcept nogil
    cdef int _serve(self, Executor executor) except -1
    cdef int _settle(self, ptl_batch *batch) except -1
    cdef list _run_batch(self, Executor executor, ptl_batch *batch, Wakes *wakes, ptl_node *own)
    cdef int _count(
        self, Contract contract, list slots, list outcomes, int64_t began, int64_t ended
    ) except -1
    cdef int _queue_again_first(self, Executor executor, list slots) except -1
    cdef ptl_node *_unqueue_waiting(self) noexcept nogil
    cdef bint _let_node_lead(self, Executor executor, ptl_node *node) except -1
    cdef int _give_ticket(self, CallSlot slot, int64_t ticket) except -1
    cdef object _lead_batches(self, Executor executor, CallSlot slot, int64_t deadline_ns)
    cdef int _spread(self) except -1
    cdef int _check_holder(self) except -1
    cdef object _full_error(self, CallSlot slot)
