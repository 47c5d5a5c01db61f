# cython: language_level=3, freethreading_compatible=True
"""Call slots: where the outcome of a request goes, and who is told.

A slot takes one outcome. One with a `StreamBuffer` takes any number of responses before
its end instead: that is how decoupled models answer.

Who sends and who reads a stream are threads that mostly run Python. A reader that is
woken finds the GIL taken, and to hand it over for each response costs two switches of
threads. So a sender gives it up for a sleeping reader at most once per `HANDOVER_NS`:
responses that come one by one are read at once, and of those that come in a burst the
reader finds many when it gets its turn.
"""
cimport cython
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint32_t

import logging
import os
import threading

from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.reply import error_response
from pytriton_lite._core.statistics cimport times_of
from pytriton_lite._core.sync cimport *

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef extern from "Python.h":
    # As they are, without the reference counts that Cython's own declarations imply.
    PyObject *PyList_GET_ITEM(object ring, Py_ssize_t place)
    void PyList_SET_ITEM(object ring, Py_ssize_t place, PyObject *item)
    bint PyExceptionInstance_Check(object thing)

cdef extern from "Python.h":
    void PyErr_SetInterrupt()

cdef object _log = logging.getLogger("pytriton_lite.scheduler")

cdef enum:
    HANDOVER_NS = 100_000
    FIRST_SIZE = 16
    # Python's signal handlers run on the main thread only, which looks for them this often.
    SIGNAL_SLICE_NS = 200_000_000

# Responses read, to a sender that need not wait for readers any more.
cdef int64_t NO_LIMIT = <int64_t> 1 << 62
cdef unsigned long _main_thread = threading.main_thread().ident


cdef int64_t signal_slice() noexcept:
    """How long this thread may sleep at a time; 0 is for ever."""
    return SIGNAL_SLICE_NS if PyThread_get_thread_ident() == _main_thread else 0


def _after_fork():
    global _main_thread
    _main_thread = PyThread_get_thread_ident()


os.register_at_fork(after_in_child=_after_fork)


cdef class StreamBuffer:
    """Responses of one stream that were sent and not read yet, in order.

    Parameters
    ----------
    limit
        Most responses that may wait; then senders block. 0 means no limit.
    """

    def __init__(self, Py_ssize_t limit=0):
        self.limit = limit

    cdef int _grow(self, Py_ssize_t size) except -1:
        # The list is made without the lock: that may run the GC, and with it any Python code.
        cdef list ring = [None] * (2 * size if size else FIRST_SIZE)
        cdef PyObject *taken
        cdef Py_ssize_t i
        ptl_lock(&self.lock)
        if self.size == size:
            for i in range(self.count):
                taken = PyList_GET_ITEM(self.ring, (self.head + i) % size)
                PyList_SET_ITEM(self.ring, (self.head + i) % size, PyList_GET_ITEM(ring, i))
                PyList_SET_ITEM(ring, i, taken)
            self.ring, ring = ring, self.ring
            self.size = PyList_GET_SIZE(self.ring)
            self.head = 0
        ptl_unlock(&self.lock)
        return 0

    cdef int push(self, InferenceResponse response, bint is_last, bint may_overflow) except -1:
        """Append a response; STREAM_FULL when there is no room for it."""
        cdef bint wakes_thread = False, wakes_senders = False
        cdef object notify = None
        cdef Py_ssize_t place
        ptl_lock(&self.lock)
        while True:
            if self.is_discarded or self.is_ended:
                ptl_unlock(&self.lock)
                return STREAM_ENDED
            if self.limit and self.count >= self.limit and not may_overflow:
                ptl_unlock(&self.lock)
                return STREAM_FULL
            if self.count < self.size:
                break
            place = self.size
            ptl_unlock(&self.lock)
            self._grow(place)
            ptl_lock(&self.lock)
        place = (self.head + self.count) % self.size
        Py_XDECREF(PyList_GET_ITEM(self.ring, place))  # None
        Py_INCREF(response)
        PyList_SET_ITEM(self.ring, place, <PyObject *> response)
        self.count += 1
        self.pushed += 1
        self.is_ended = is_last
        if is_last:
            wakes_senders = self._free_senders()
        if self.sleeping_readers:
            self.sleeping_readers = 0
            ptl_store(&self.arrivals, self.arrivals + 1)
            wakes_thread = True
        if self.is_armed:
            self.is_armed = False
            notify = self.notify
            self.notify = None  # it leads to the reader, and from here the model's sender does
        ptl_unlock(&self.lock)
        if wakes_senders:
            ptl_wake(&self.room)
        if wakes_thread or notify is not None:
            self._arrived(wakes_thread, notify)
        return STREAM_OK

    cdef bint _free_senders(self) noexcept:
        """With the lock: let blocked senders try again; True when they are to be woken."""
        if not self.blocked_senders:
            return False
        self.blocked_senders = 0
        ptl_store(&self.room, self.room + 1)
        return True

    cdef int end(self) except -1:
        """Nothing follows: FINAL came without a response."""
        cdef bint wakes_thread, wakes_senders
        cdef object notify = None
        ptl_lock(&self.lock)
        if not self.is_ended:
            self.is_ended = self.ends_empty = True
        wakes_senders = self._free_senders()
        wakes_thread = self.sleeping_readers > 0
        self.sleeping_readers = 0
        ptl_store(&self.arrivals, self.arrivals + 1)
        if self.is_armed:
            self.is_armed = False
            notify = self.notify
            self.notify = None
        ptl_unlock(&self.lock)
        if wakes_senders:
            ptl_wake(&self.room)
        if wakes_thread or notify is not None:
            self._arrived(wakes_thread, notify)
        return 0

    cdef int _arrived(self, bint wakes_thread, object notify) except -1:
        cdef int64_t now
        if wakes_thread:
            now = ptl_now_ns()
            if now - self.last_handover_ns > HANDOVER_NS:
                self.last_handover_ns = now
                with nogil:
                    ptl_wake(&self.arrivals)
            else:
                ptl_wake(&self.arrivals)
        if notify is not None:
            try:
                notify()
            except BaseException:
                _log.exception("a completion callback failed")
        return 0

    cdef int discard(self) except -1:
        """Nobody reads any more: drop what is there and what will come."""
        cdef object notify, report
        cdef bint is_armed
        ptl_lock(&self.lock)
        self.is_discarded = self.is_ended = True
        is_armed = self.is_armed
        self.is_armed = False
        ptl_store(&self.room, self.room + 1)
        ptl_store(&self.arrivals, self.arrivals + 1)
        ptl_unlock(&self.lock)
        report = self.report
        self.report = None
        while self.pop() is not None:
            pass
        notify = self.notify if is_armed else None
        self.notify = None
        ptl_wake(&self.room)
        ptl_wake(&self.arrivals)
        if report is not None:
            report(NO_LIMIT)  # else a sender would wait for ever
        if notify is not None:
            self._arrived(False, notify)
        return 0

    cdef int report_reading(self, object report) except -1:
        """Have `report(n)` called from time to time with the number of responses read so far.

        What a sender in another process sends beyond the limit it has to hold back itself.
        """
        self.report = report
        self.report_at = self.popped + (self.limit + 1) // 2
        return 0

    cdef int set_limit(self, Py_ssize_t limit) except -1:
        """Change the limit; what is too much already stays."""
        ptl_lock(&self.lock)
        self.limit = limit
        ptl_unlock(&self.lock)
        return 0

    cdef int wait_for_room(self) except -1:
        """Sleep until a reader has made room, or has gone, or the stream has ended."""
        cdef uint32_t room
        cdef int64_t slice_ns = signal_slice()
        ptl_lock(&self.lock)
        room = self.room
        if self.is_ended or not self.limit or self.count < self.limit:
            ptl_unlock(&self.lock)
            return 0
        self.blocked_senders += 1
        ptl_unlock(&self.lock)
        with nogil:
            ptl_sleep(&self.room, room, 0, slice_ns)
        return 0

    cdef InferenceResponse pop(self):
        """The next response, or None when none is there."""
        cdef InferenceResponse response = None
        cdef PyObject *taken
        cdef object report = None
        cdef bint wakes = False
        ptl_lock(&self.lock)
        if self.count:
            taken = PyList_GET_ITEM(self.ring, self.head)
            Py_INCREF(None)
            PyList_SET_ITEM(self.ring, self.head, <PyObject *> None)
            self.head = (self.head + 1) % self.size
            self.count -= 1
            self.popped += 1
            if 2 * self.count <= self.limit:
                wakes = self._free_senders()
            if self.report is not None and self.popped >= self.report_at:
                report = self.report
                self.report_at = self.popped + (self.limit + 1) // 2
            ptl_unlock(&self.lock)
            response = <InferenceResponse> taken
            Py_XDECREF(taken)  # the ring's reference
            if wakes:
                ptl_wake(&self.room)
            if report is not None:
                report(self.popped)
            return response
        ptl_unlock(&self.lock)
        return None

    cdef int wait(self, int64_t deadline_ns) except -1:
        """Sleep until something is there to read, the stream has ended or the time is up."""
        cdef uint32_t seen
        cdef int woken
        cdef int64_t slice_ns = signal_slice()
        ptl_lock(&self.lock)
        if self.count or self.is_ended:
            ptl_unlock(&self.lock)
            return STREAM_OK
        seen = self.arrivals
        self.sleeping_readers += 1
        ptl_unlock(&self.lock)
        with nogil:
            woken = ptl_sleep(&self.arrivals, seen, deadline_ns, slice_ns)
        if woken == PTL_TIMED_OUT:
            return STREAM_TIMED_OUT
        return STREAM_INTERRUPTED if woken == PTL_INTERRUPTED else STREAM_OK

    def arm(self, notify):
        """Have `notify()` called, once, by who sends next; False when there is something to read."""
        cdef bint is_there
        self.notify = notify
        ptl_lock(&self.lock)
        is_there = self.count > 0 or self.is_ended
        self.is_armed = not is_there
        ptl_unlock(&self.lock)
        if is_there:
            self.notify = None
        return not is_there


@cython.freelist(64)
@cython.final
cdef class CallSlot:
    """One request on its way: where its outcome goes and who is told."""

    def __cinit__(self):
        self.node.owner = <void *> self
        self.node.word = PTL_QUEUED

    cdef object result(self):
        # Taken out, since the instance that made it may hold the slot a little longer.
        outcome = self.outcome
        self.outcome = None
        return answer_of(outcome)

    def take_outcome(self):
        """The outcome of a finished slot: the answer, or an exception object."""
        # Not kept: an exception leads through its traceback to the request, and back to here.
        outcome = self.outcome
        self.outcome = None
        return outcome

    def notify_when_done(self, notify):
        """Have `notify(slot)` called by who finishes the slot."""
        self.notify = notify

    def is_cancelled(self):
        """Whether nobody waits for the answer any more."""
        return bool(self.is_given_up)

    cdef bint finish(self, object outcome) except -1:
        """Store the outcome; True when a thread must be woken on the slot's word."""
        if self.order is not None:
            self.order.settle(self, outcome)
            return False
        return self._finish_now(outcome)

    cdef bint _finish_now(self, object outcome) except -1:
        cdef object notify, runner
        if not ptl_move(&self.node.word, PTL_RUNNING, PTL_FINISHING):
            return False  # given up meanwhile, or failed by a server that stops
        runner = self.runner
        self.runner = None
        if self.stream is None:
            self.outcome = outcome
        elif outcome is None:
            self.stream.end()
        else:
            if type(outcome) is not InferenceResponse:
                version = -1 if runner is None else runner.model_version
                outcome = error_response(outcome, self.request_id or "", outcome.model or "", version)
            self.stream.push(<InferenceResponse> outcome, True, True)
        if self.has_reader:
            self.stream = None
        ptl_store(&self.node.word, PTL_DONE)
        if self.notify is not None:
            notify = self.notify
            self.notify = None
            try:
                notify(self)
            except KeyboardInterrupt:
                PyErr_SetInterrupt()  # not here: others wait for what this thread does
            except BaseException:
                _log.exception("a completion callback failed")
            return False
        return self.node.thread_waits

    cdef int finish_and_wake(self, object outcome) except -1:
        if self.finish(outcome):
            # The thread is woken without the GIL, else it would only find it taken.
            with nogil:
                ptl_wake(&self.node.word)
        return 0


cdef object NOTHING = object()  # of a slot that was given up


cdef class ResponseOrder:
    """Lets outcomes out in the order of their tickets, each as soon as all before it have gone."""

    def __dealloc__(self):
        cdef ptl_node *node = self.waiting
        cdef PyObject *owner
        while node != NULL:
            owner = <PyObject *> node.owner
            node = node.next
            Py_XDECREF(owner)

    cdef int settle(self, CallSlot slot, object outcome) except -1:
        """The outcome of a slot has come, or `NOTHING` will: it goes out when its turn comes.

        Who brings one for the turn delivers it, and what follows it; all others leave theirs.
        """
        cdef ptl_node **link = &self.waiting
        cdef ptl_node *node = NULL
        cdef CallSlot other
        slot.held = outcome
        slot.is_settled = True
        ptl_lock(&self.lock)
        if slot.ticket < self.turn:
            ptl_unlock(&self.lock)  # a second one
            slot.held = None
            return 0
        while link[0] != NULL and (<CallSlot> link[0].owner).ticket < slot.ticket:
            link = &link[0].next
        if link[0] != &slot.node:
            slot.node.next = link[0]
            link[0] = &slot.node
            Py_INCREF(slot)
        while True:
            node = self.waiting
            if self.is_delivering or node == NULL or (<CallSlot> node.owner).ticket != self.turn:
                ptl_unlock(&self.lock)
                return 0
            self.waiting = node.next
            node.next = NULL
            self.is_delivering = True
            ptl_unlock(&self.lock)
            other = <CallSlot> node.owner
            Py_XDECREF(<PyObject *> node.owner)  # the list's
            outcome = other.held
            other.held = other.order = None
            if outcome is not NOTHING and other._finish_now(outcome):
                with nogil:
                    ptl_wake(&other.node.word)
            other = None
            ptl_lock(&self.lock)
            self.turn += 1
            self.is_delivering = False


cdef int leave_order(CallSlot slot) except -1:
    """A slot that has a ticket gets no outcome, or gets it out of turn."""
    cdef ResponseOrder order = slot.order
    if order is not None:
        order.settle(slot, NOTHING)
    return 0


cdef int settle_empty(ResponseOrder order, int64_t ticket) except -1:
    """Nothing comes for a ticket."""
    cdef CallSlot slot = CallSlot.__new__(CallSlot)
    slot.ticket = ticket
    return order.settle(slot, NOTHING)


cdef object answer_of(object outcome):
    """The answer; raises an outcome that is an exception."""
    if PyExceptionInstance_Check(outcome):
        raise outcome
    return outcome


cdef CallSlot new_slot(InferenceRequest request):
    cdef CallSlot slot = CallSlot.__new__(CallSlot)
    slot.request = request
    slot.request_id = request.id or None
    return slot


cdef void stamp(InferenceResponse response, CallSlot slot) noexcept:
    """Note the times of a response that a sender has just sent."""
    cdef int64_t now
    if slot.began_ns:  # else it is of a process whose clock counts for nobody
        now = ptl_now_ns()
        response.times = times_of(slot.queued_ns, slot.began_ns, 0, 0, now)
