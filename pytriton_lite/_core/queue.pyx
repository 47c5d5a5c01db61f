# cython: language_level=3, freethreading_compatible=True
"""Call slots and the queue that instances pull from.

There is no dispatcher thread: a caller appends its slot and rings one idle instance, a
`thread` instance pulls slots until the queue is empty, and an `inline` instance is run by
the callers themselves. Who waits sleeps on the word of its own slot, see sync.pxd.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t

import logging
import os
import threading

from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.sync cimport *
from pytriton_lite.errors import (
    CancelledError, InternalError, RequestTimeoutError, UnavailableError,
)

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef extern from *:
    """
    static int ptl_process_generation = 0;
    """
    int ptl_process_generation

cdef object _log = logging.getLogger("pytriton_lite.scheduler")

# A leader runs at most this many requests of others before it hands the instance on, so
# that no caller serves the others for ever.
cdef enum:
    LEADER_BUDGET = 32


# Python's signal handlers run on the main thread only, which looks for them this often.
cdef enum:
    SIGNAL_SLICE_NS = 200_000_000

cdef unsigned long _main_thread = threading.main_thread().ident


cdef inline int64_t _slice() noexcept:
    return SIGNAL_SLICE_NS if PyThread_get_thread_ident() == _main_thread else 0


def _after_fork():
    global ptl_process_generation, _main_thread
    ptl_process_generation += 1
    _main_thread = PyThread_get_thread_ident()


os.register_at_fork(after_in_child=_after_fork)


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
        if type(outcome) is dict or type(outcome) is InferenceResponse:
            return outcome
        raise outcome

    def get(self):
        """The outcome of a finished slot: an InferenceResponse, or an exception object."""
        return self.outcome

    @property
    def request_id(self):
        """Id of the request, or None."""
        return self.request.id or None

    def is_abandoned(self):
        """Whether the caller gave the request up."""
        return ptl_load(&self.node.word) == PTL_ABANDONED


@cython.final
cdef class Executor:
    """One instance as the queue sees it."""

    def __init__(self, Contract contract):
        self.contract = contract
        self.worker.owner = <void *> self


cdef bint _finish(CallSlot slot, object outcome) except -1:
    """Store the outcome; True when a thread must be woken on the slot's word."""
    if not ptl_move(&slot.node.word, PTL_RUNNING, PTL_FINISHING):
        return False  # given up meanwhile, or failed by a server that stops
    slot.outcome = outcome
    ptl_store(&slot.node.word, PTL_DONE)
    if slot.notify is not None:
        try:
            slot.notify(slot)
        except BaseException:
            _log.exception("a completion callback failed")
        return False
    return slot.node.thread_waits


cdef class RequestQueue:
    """FIFO queue of one model version, shared by its instances.

    Parameters
    ----------
    model_name
        For texts.
    is_inline
        Callers run the instances themselves.
    """

    def __cinit__(self):
        ptl_queue_init(&self.queue)

    def __init__(self, str model_name, *, bint is_inline):
        self.model_name = model_name
        self.is_inline = is_inline
        self.executors = []
        self.generation = ptl_process_generation

    @property
    def depth(self):
        """Number of requests that wait for an instance."""
        return self.queue.depth

    @property
    def is_closed(self):
        """Whether new requests are refused."""
        return bool(self.queue.is_closed)

    # -- callers -----------------------------------------------------------------------

    cdef object call(self, InferenceRequest request, int64_t deadline_ns, bint wants_arrays):
        """Run a request and wait for its answer; raises the outcome when it is an exception."""
        cdef CallSlot slot
        cdef ptl_worker *rung = NULL
        cdef int refused, woken = PTL_WOKEN
        cdef uint32_t word
        cdef int64_t slice_ns = _slice()
        if self.is_inline:
            return self._call_inline(request, deadline_ns, wants_arrays)
        if self.generation != ptl_process_generation:
            raise self._forked_error()
        slot = CallSlot.__new__(CallSlot)
        slot.request = request
        slot.node.thread_waits = True
        slot.wants_arrays = wants_arrays
        Py_INCREF(slot)  # the queue's
        with nogil:
            refused = ptl_push(&self.queue, &slot.node, &slot.node, 1, &rung)
            if not refused:
                ptl_ring(rung)
                while True:
                    word = ptl_load(&slot.node.word)
                    if word == PTL_DONE:
                        break
                    woken = ptl_sleep(&slot.node.word, word, deadline_ns, slice_ns)
                    if woken != PTL_WOKEN:
                        break
        if refused:
            Py_DECREF(slot)
            raise self._closed_error()
        if ptl_load(&slot.node.word) == PTL_DONE:
            return slot.result()
        return self._wait(slot, deadline_ns)

    cdef object _wait(self, CallSlot slot, int64_t deadline_ns):
        """Sleep until the slot is done, a signal handler raises, or the time is up."""
        cdef int woken = PTL_INTERRUPTED  # a signal may have come before
        cdef int64_t slice_ns = _slice()
        cdef uint32_t word
        cdef Executor executor
        cdef InferenceRequest request = slot.request
        while True:
            word = ptl_load(&slot.node.word)
            if word == PTL_DONE:
                return slot.result()
            if word == PTL_LEAD:
                executor = <Executor> slot.node.executor
                slot.request = None
                return self._lead(executor, request, slot.wants_arrays)
            if woken == PTL_INTERRUPTED:
                try:
                    PyErr_CheckSignals()
                except BaseException:
                    self._withdraw(slot)
                    raise
            with nogil:
                woken = ptl_sleep(&slot.node.word, word, deadline_ns, slice_ns)
            if woken == PTL_TIMED_OUT and self._withdraw(slot):
                raise RequestTimeoutError(
                    f"Request to model '{self.model_name}' was not answered in time and is cancelled",
                    model=self.model_name, request_id=request.id or None,
                )

    def _withdraw(self, CallSlot slot):
        """Give up a slot of this thread; False when its outcome is there after all."""
        cdef Executor executor
        if self._give_up(slot):
            return True
        if ptl_load(&slot.node.word) == PTL_LEAD:
            # The instance was handed to us just now: pass it on without using it.
            executor = <Executor> slot.node.executor
            self._run_others(executor)
            return True
        return False

    cdef bint _give_up(self, CallSlot slot) except -1:
        """Cancel: a queued request never reaches the model, a running one is told and let go."""
        cdef uint32_t word
        while True:
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_ABANDONED):
                slot.request.cancelled = True
                if ptl_remove(&self.queue, &slot.node):
                    Py_DECREF(slot)
                return True
            if ptl_move(&slot.node.word, PTL_RUNNING, PTL_ABANDONED):
                slot.request.cancelled = True
                return True
            word = ptl_load(&slot.node.word)
            if word != PTL_QUEUED and word != PTL_RUNNING:
                return word == PTL_ABANDONED

    def cancel(self, CallSlot slot):
        """Cancel a submitted slot; True unless it is done already. Its `notify` is not called."""
        return self._give_up(slot)

    def submit(self, InferenceRequest request, notify):
        """Queue a request without waiting; `notify(slot)` is called by who finishes it.

        An inline instance that is idle runs the request at once, on this thread.
        """
        cdef CallSlot slot = self.new_slot(request, notify)
        self.submit_all([slot])
        return slot

    def new_slot(self, InferenceRequest request, notify):
        """A slot to hand to `submit_all`."""
        cdef CallSlot slot = CallSlot.__new__(CallSlot)
        slot.request = request
        slot.notify = notify
        return slot

    def submit_all(self, list slots):
        """Queue several slots with one look at the queue and one round of wake-ups."""
        cdef CallSlot slot, before = None
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *idle = NULL
        cdef ptl_node *first
        cdef ptl_node *last
        cdef int refused, count = len(slots)
        if not count:
            return
        if self.generation != ptl_process_generation and not self.is_inline:
            raise self._forked_error()
        for slot in slots:
            if before is not None:
                before.node.next = &slot.node
            before = slot
            Py_INCREF(slot)  # the queue's
        slot = slots[0]
        first = &slot.node
        last = &before.node
        # This thread has more to do before it waits, so it keeps the GIL while it rings.
        refused = ptl_push(&self.queue, first, last, count, &rung)
        if not refused and not self.is_inline:
            ptl_ring(rung)
        if refused:
            for slot in slots:
                slot.node.next = NULL
                Py_DECREF(slot)
            raise self._closed_error()
        while self.is_inline and rung != NULL:
            idle = rung
            rung = rung.next_idle
            idle.next_idle = NULL
            self._run_others(<Executor> idle.owner)

    # -- inline ------------------------------------------------------------------------

    cdef object _call_inline(self, InferenceRequest request, int64_t deadline_ns, bint wants_arrays):
        cdef int is_closed = 0, state
        cdef ptl_worker *worker = ptl_acquire(&self.queue, &is_closed)
        cdef CallSlot slot
        if worker != NULL:
            return self._lead(<Executor> worker.owner, request, wants_arrays)
        if is_closed:
            raise self._closed_error()
        slot = CallSlot.__new__(CallSlot)
        slot.request = request
        slot.node.thread_waits = True
        slot.wants_arrays = wants_arrays
        Py_INCREF(slot)
        state = ptl_push_or_acquire(&self.queue, &slot.node, &worker)
        if state != 0:
            Py_DECREF(slot)
            if state < 0:
                raise self._closed_error()
            return self._lead(<Executor> worker.owner, request, wants_arrays)
        return self._wait(slot, deadline_ns)

    cdef object _lead(self, Executor executor, InferenceRequest request, bint wants_arrays):
        """Run one request on an instance that this thread holds, then those who queued meanwhile."""
        cdef object outcome
        try:
            outcome = executor.contract.run(request, 1, wants_arrays)  # held by the call that made it
        finally:
            self._run_others(executor)
        if type(outcome) is dict or type(outcome) is InferenceResponse:
            return outcome
        raise outcome

    cdef object _run_others(self, Executor executor):
        cdef ptl_node *node
        cdef CallSlot slot
        cdef int budget = LEADER_BUDGET
        while True:
            node = ptl_release(&self.queue, &executor.worker)
            if node == NULL:
                return
            slot = <CallSlot> node.owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slot`
            if budget <= 0 and slot.node.thread_waits:
                slot.node.executor = <void *> executor
                if ptl_move(&slot.node.word, PTL_QUEUED, PTL_LEAD):
                    with nogil:
                        ptl_wake(&slot.node.word)
                    return
                continue
            budget -= 1
            self._run_slot(executor, slot)

    cdef object _run_slot(self, Executor executor, CallSlot slot):
        cdef object outcome
        cdef InferenceRequest request = slot.request
        if not ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            return  # cancelled while it waited: it never reaches the model
        try:
            # Held by the slot, the variable here, and the call that waits, if one does.
            outcome = executor.contract.run(request, 2 + slot.node.thread_waits, slot.wants_arrays)
        except BaseException as error:
            # A Ctrl-C while this thread led for another caller: that caller is told.
            outcome = CancelledError(
                f"Request to model '{self.model_name}' was interrupted on the thread that ran it",
                model=self.model_name,
            )
            outcome.__cause__ = error
            if _finish(slot, outcome):
                ptl_wake(&slot.node.word)
            raise
        if _finish(slot, outcome):
            with nogil:
                ptl_wake(&slot.node.word)

    # -- instances ---------------------------------------------------------------------

    def add_inline(self, Executor executor):
        """Offer an initialised inline instance to the callers."""
        self.executors.append(executor)
        self.queue.worker_count += 1
        self._run_others(executor)

    def serve(self, Executor executor):
        """Pull and run requests on this thread until the queue is closed and empty."""
        cdef ptl_node *node
        cdef uint32_t *to_wake = NULL
        cdef CallSlot slot = None, done = None
        cdef InferenceRequest request
        cdef object outcome
        self.executors.append(executor)
        self.queue.worker_count += 1
        while True:
            node = NULL
            if to_wake == NULL:
                node = ptl_take_any(&self.queue)
            if node == NULL:
                # The caller is woken after the GIL is given up, else it would only find it taken.
                with nogil:
                    if to_wake != NULL:
                        ptl_wake(to_wake)
                    node = ptl_take(&self.queue, &executor.worker)
            to_wake = NULL
            done = None
            if node == NULL:
                return
            slot = <CallSlot> node.owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slot`
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                executor.running = slot
                request = slot.request
                outcome = _run(executor.contract, request, 2 + slot.node.thread_waits, slot.wants_arrays)
                request = None
                if _finish(slot, outcome):
                    to_wake = &slot.node.word
                    done = slot  # keeps the word alive until it is woken
                    slot.request = None
                executor.running = outcome = None
            slot = None

    def close(self):
        """Refuse new requests; queued ones are still served, then `serve` returns."""
        with nogil:
            ptl_close(&self.queue, not self.is_inline)

    def wait_until_idle(self, deadline_ns):
        """Inline: wait until no instance is running and nothing is queued.

        Returns False when the time (`time.monotonic_ns`) was up before.
        """
        cdef uint32_t rest
        cdef int64_t deadline = deadline_ns
        cdef int woken
        while True:
            rest = ptl_load(&self.queue.rest)
            if self.queue.idle_count == self.queue.worker_count and self.queue.depth == 0:
                return True
            with nogil:
                woken = ptl_sleep(&self.queue.rest, rest, deadline, SIGNAL_SLICE_NS)
            if woken == PTL_TIMED_OUT:
                return False
            PyErr_CheckSignals()

    def fail_queued(self, make_error):
        """Answer everything still queued with ``make_error()``; returns how many there were."""
        cdef ptl_node *node
        cdef CallSlot slot
        cdef Py_ssize_t count = 0
        while True:
            node = ptl_take_any(&self.queue)
            if node == NULL:
                return count
            slot = <CallSlot> node.owner
            Py_DECREF(slot)
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                count += 1
                if _finish(slot, make_error()):
                    ptl_wake(&slot.node.word)

    def fail_running(self, make_error):
        """Answer what instances are running just now with ``make_error()``: their own answers
        come too late. Returns the names of those instances."""
        cdef Executor executor
        cdef CallSlot slot
        cdef list names = []
        for executor in self.executors:
            slot = executor.running
            if slot is not None:
                slot.request.cancelled = True
                names.append(executor.contract.instance_name)
                if _finish(slot, make_error()):
                    ptl_wake(&slot.node.word)
        return names

    cdef object _closed_error(self):
        return UnavailableError(
            "Server is stopping, scheduler for model has stopped accepting new inference requests",
            model=self.model_name,
        )

    def _forked_error(self):
        return UnavailableError(
            f"Model '{self.model_name}' was loaded before this process was forked, and its "
            "instance threads stayed in the parent: create the Server after the fork",
            model=self.model_name,
        )


cdef object _run(Contract contract, InferenceRequest request, Py_ssize_t holders, bint wants_arrays):
    try:
        return contract.run(request, holders, wants_arrays)
    except BaseException as error:
        failure = InternalError(
            f"defect in pytriton_lite while running instance '{contract.instance_name}', please "
            f"report it: {type(error).__name__}: {error}"
        )
        failure.__cause__ = error
        return failure
