"""Call slots and the buffers of streams (see slot.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.sync cimport ptl_node

# What `StreamBuffer.push` and `StreamBuffer.wait` found.
cdef enum:
    STREAM_OK = 0
    STREAM_FULL = 1
    STREAM_ENDED = 2
    STREAM_TIMED_OUT = 3
    STREAM_INTERRUPTED = 4


cdef class StreamBuffer:
    cdef uint32_t lock
    cdef list ring                      # a list for the GC: what a response leads to may lead back
    cdef Py_ssize_t size, head, count   # of the ring
    cdef readonly Py_ssize_t limit      # most responses that wait in it; 0: no limit
    cdef uint32_t arrivals              # futex of the readers
    cdef uint32_t room                  # futex of blocked senders
    cdef int sleeping_readers, blocked_senders
    cdef int64_t last_handover_ns
    cdef object notify                  # called without the lock when something arrives for who armed it
    cdef bint is_armed
    cdef bint is_ended                  # nothing follows what is in the ring
    cdef bint ends_empty                # ended by a FINAL of its own
    cdef bint is_discarded              # nobody reads any more
    cdef Py_ssize_t pushed              # responses so far
    cdef Py_ssize_t popped, report_at   # responses read, and how many of them to report next
    cdef object report                  # called with `popped`, for a sender in another process; or None

    cdef int push(self, InferenceResponse response, bint is_last, bint may_overflow) except -1
    cdef int end(self) except -1
    cdef int discard(self) except -1
    cdef int report_reading(self, object report) except -1
    cdef int set_limit(self, Py_ssize_t limit) except -1
    cdef bint _free_senders(self) noexcept
    cdef int wait_for_room(self) except -1
    cdef InferenceResponse pop(self)
    cdef int wait(self, int64_t deadline_ns) except -1
    cdef int _grow(self, Py_ssize_t size) except -1
    cdef int _arrived(self, bint wakes_thread, object notify) except -1


cdef class CallSlot:
    cdef ptl_node node
    cdef InferenceRequest request   # until an instance takes it
    cdef readonly str request_id    # None when it has none
    cdef int64_t queued_ns          # when it was queued; 0 for a caller who runs it at once
    cdef int64_t began_ns           # when an instance took it
    cdef int64_t inputs_ns          # when the process of one had been sent it; 0 in this process
    cdef object outcome             # the answer, or the exception to raise
    cdef int form                   # what the answer may be, FORM_* of answer.pxd
    cdef object notify              # called with the slot when done; None when a thread waits
    cdef StreamBuffer stream        # where responses go instead of `outcome`; or None
    cdef object runner              # Contract whose instance runs it
    cdef object queue               # RequestQueue of a BLS request; None of all others
    cdef bint has_reader            # who holds `stream`, so that it is dropped here at the end
    cdef bint has_failed            # `execute`, or what it returned, for its request
    cdef bint is_left_out           # given up before its instance had begun with it
    cdef bint is_given_up           # by the caller, or failed by a server that stops
    cdef uint64_t call              # its number in the process of its instance; 0 in this one
    cdef object waiter              # Contract of the stub whose BLS request it is, on the thread that
                                    # waits for `execute` there; may be left and waited for again
    cdef ResponseOrder order        # who lets its answer out; or None
    cdef int64_t ticket             # its number there
    cdef object held                # the outcome, while earlier ones are awaited
    cdef bint is_settled            # `order` has had its outcome
    cdef bint has_future            # it completes one
    cdef bint is_awaited            # for which a thread sleeps, or has slept

    cdef object result(self)
    cdef bint finish(self, object outcome) except -1
    cdef bint _finish_now(self, object outcome) except -1
    cdef int finish_and_wake(self, object outcome) except -1


cdef class ResponseOrder:
    cdef uint32_t lock
    cdef ptl_node *waiting          # slots with `held` outcomes by ascending ticket; one reference each
    cdef int64_t turn               # ticket whose outcome goes out next
    cdef bint is_delivering

    cdef int settle(self, CallSlot slot, object outcome) except -1


cdef int leave_order(CallSlot slot) except -1
cdef int settle_empty(ResponseOrder order, int64_t ticket) except -1
cdef object answer_of(object outcome)
cdef CallSlot new_slot(InferenceRequest request)
cdef int64_t signal_slice() noexcept
cdef void stamp(InferenceResponse response, CallSlot slot) noexcept
