"""The queue that instances pull from (see queue.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.statistics cimport VersionStatistics
from pytriton_lite._core.sync cimport ptl_node, ptl_queue, ptl_worker


cdef class Executor:
    cdef ptl_worker worker
    cdef Contract contract
    cdef readonly CallSlot running  # what the instance executes; None of an inline one
    cdef list batch                 # slots of the batch that the instance executes; see batch_queue.pyx
    # Of an instance in another process; see remote_queue.pyx:
    cdef CallSlot handed            # what the pump is to run first
    cdef InferenceRequest left      # whose outcome the pump is to wait for, as `running`
    cdef int64_t left_ns            # when that began
    cdef int64_t patience_ns        # until when those behind it are not taken back; 0: they were
    cdef list sent                  # requests that it was sent ahead, to answer after that, in order
    cdef list marks                 # what `contract.sent_bytes` was when each of them had been sent
    cdef Py_ssize_t mark            # what it was when `left` had been sent
    cdef uint32_t lead              # who waits for its answers
    cdef uint64_t drifts            # how often nobody did, so far
    cdef bint is_watched            # its pump looks from time to time whether somebody does
    cdef bint is_assisted           # who waits for futures has led it of late
    cdef uint64_t unassisted        # the last call that was sent to it and has no future
    cdef bint is_ended              # the pump is to end


cdef class RequestQueue:
    cdef ptl_queue queue
    cdef readonly str model_name
    cdef readonly bint is_inline
    cdef readonly bint is_iterative
    cdef readonly bint is_remote
    cdef unsigned long sequences    # ids given to requests of iterative models that had none
    cdef readonly VersionStatistics statistics
    cdef list executors
    cdef public object refusal      # makes the error for requests while no process instance is alive; or None
    cdef readonly list contracts    # of the executors
    cdef int generation             # of the process: a forked child has no worker threads

    cdef object call(self, CallSlot slot, int64_t deadline_ns)
    cdef object _call_leading(self, CallSlot slot, int64_t deadline_ns)
    cdef object _lead(self, Executor executor, CallSlot slot, int64_t deadline_ns)
    cdef bint _let_lead(self, Executor executor, CallSlot slot) except -1
    cdef Executor _led(self, CallSlot slot)
    cdef int _hand_over(self, Executor executor) except -1
    cdef int _put_back(self, list slots) except -1
    cdef object _queue_first(self, Executor executor, CallSlot slot, InferenceRequest request)
    cdef object _run_others(self, Executor executor, int budget, CallSlot led)
    cdef object _run_slot(self, Executor executor, CallSlot slot)
    cdef object _run(self, Executor executor, CallSlot slot)
    cdef object _end_again(self, CallSlot slot, InferenceRequest request)
    cdef bint _is_at_home(self) noexcept
    cdef bint _unqueue(self, CallSlot slot) except -1
    cdef ptl_node *_unqueue_first(self) noexcept
    cdef bint _queue_again(self, CallSlot slot)
    cdef int begin_sequence(self, InferenceRequest request) except -1
    cdef object call_from_model(self, CallSlot slot, Contract own, Contract maker)
    cdef object wait_again(self, CallSlot slot, int64_t deadline_ns)
    cdef int check_chain(self, CallSlot slot) except -1
    cdef int _fail_stuck(self, CallSlot slot, str ring) except -1
    cdef object _wait(self, CallSlot slot, int64_t deadline_ns)
    cdef bint _give_up(self, CallSlot slot) except -1
    cdef object closed_error(self)
    cdef object late_error(self, CallSlot slot)
    cdef int _queued(self, CallSlot slot) except -1
    cdef bint assist(self, CallSlot slot, int64_t deadline_ns) except -1
    cdef int slept(self) except -1


cdef int process_generation() noexcept
cdef int64_t slice_of(CallSlot slot) noexcept
cdef object defect(Contract contract, object error)
