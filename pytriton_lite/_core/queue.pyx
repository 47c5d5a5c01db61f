# cython: language_level=3, freethreading_compatible=True
"""The queue of a model version, and how its instances run what is in it.

There is no dispatcher thread: a caller appends its slot and rings one idle instance, a
`thread` instance pulls slots until the queue is empty, and an `inline` instance is run by
the callers themselves. Who waits sleeps on the word of its own slot, see sync.pxd.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t

import os

from pytriton_lite._core.contract cimport PENDING, RESCHEDULED, Contract
from pytriton_lite._core.message cimport InferenceRequest, RequestDetails
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.sender cimport InferenceResponseSender
from pytriton_lite._core.slot cimport CallSlot, signal_slice
from pytriton_lite._core.sync cimport *
from pytriton_lite.errors import (
    CancelledError, InternalError, RequestTimeoutError, UnavailableError,
)

cdef extern from *:
    """
    static int ptl_process_generation = 0;
    """
    int ptl_process_generation

# A leader runs at most this many requests of others before it hands the instance on, so
# that no caller serves the others for ever.
cdef enum:
    LEADER_BUDGET = 32
    SEQUENCE_START = 1
    SIGNAL_SLICE_NS = 200_000_000


def _after_fork():
    global ptl_process_generation
    ptl_process_generation += 1


cdef int process_generation() noexcept:
    """Number that is another one in each forked process."""
    return ptl_process_generation


os.register_at_fork(after_in_child=_after_fork)


@cython.final
cdef class Executor:
    """One instance as the queue sees it."""

    def __init__(self, Contract contract):
        self.contract = contract
        self.worker.owner = <void *> self


cdef class RequestQueue:
    """FIFO queue of one model version, shared by its instances.

    Parameters
    ----------
    model_name
        For texts.
    is_inline
        Callers run the instances themselves.
    is_iterative
        A request may be rescheduled; one without a correlation id gets one.
    """

    def __cinit__(self):
        ptl_queue_init(&self.queue)

    def __init__(self, str model_name, *, bint is_inline, bint is_iterative):
        self.model_name = model_name
        self.is_inline = is_inline
        self.is_iterative = is_iterative
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

    cdef object call(self, CallSlot slot, int64_t deadline_ns):
        """Run a request and wait for its answer; raises the outcome when it is an exception."""
        cdef ptl_worker *rung = NULL
        cdef int refused, woken = PTL_WOKEN
        cdef uint32_t word
        cdef int64_t slice_ns
        cdef bint is_from_model = slot.caller is not None
        if self.is_iterative:
            self._begin_sequence(slot)
        slot.node.thread_waits = True
        if self.is_inline:
            return self._call_inline(slot, deadline_ns)
        if self.generation != ptl_process_generation:
            raise self._forked_error()
        slice_ns = signal_slice()
        Py_INCREF(slot)  # the queue's
        with nogil:
            refused = ptl_push(&self.queue, &slot.node, &slot.node, 1, &rung)
            if not refused and (rung != NULL or not is_from_model):
                ptl_ring(rung)
                while True:
                    word = ptl_load(&slot.node.word)
                    if word == PTL_DONE or word == PTL_ABANDONED:
                        break
                    woken = ptl_sleep(&slot.node.word, word, deadline_ns, slice_ns)
                    if woken != PTL_WOKEN:
                        break
        if refused:
            Py_DECREF(slot)
            raise self._closed_error()
        if ptl_load(&slot.node.word) == PTL_DONE:
            return slot.result()
        if is_from_model and rung == NULL:
            self.check_chain(slot)
        return self._wait(slot, deadline_ns)

    cdef object call_from_model(self, CallSlot slot, Contract caller):
        """`call` for a BLS request; `caller` is the contract whose `execute` makes it, or None."""
        cdef CallSlot outer
        if caller is None:
            return self.call(slot, 0)
        outer = caller.waits_for
        caller.waits_for = slot
        slot.caller = caller
        slot.queue = self
        try:
            return self.call(slot, 0)
        finally:
            caller.waits_for = outer

    cdef int check_chain(self, CallSlot slot) except -1:
        """Fail a BLS request that nobody can ever run, since all who could wait for its caller."""
        cdef list chain = []
        if not _is_stuck(slot, set(), chain):
            return 0
        if not self._give_up(slot):
            return 0
        waiting = "; ".join(chain)
        raise UnavailableError(
            f"Model {self.model_name} - Error when running inference: no instance can ever become free "
            f"for the request: {waiting}",
            model=self.model_name,
        )

    cdef object _wait(self, CallSlot slot, int64_t deadline_ns):
        """Sleep until the slot is done, a signal handler raises, or the time is up."""
        cdef int woken = PTL_INTERRUPTED  # a signal may have come before
        cdef int64_t slice_ns = signal_slice()
        cdef uint32_t word
        while True:
            word = ptl_load(&slot.node.word)
            if word == PTL_DONE:
                return slot.result()
            if word == PTL_LEAD:
                return self._lead(<Executor> slot.node.executor, slot, deadline_ns)
            if word == PTL_ABANDONED:
                raise CancelledError(
                    f"Request to model '{self.model_name}' was cancelled",
                    model=self.model_name, request_id=slot.request_id,
                )
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
                    model=self.model_name, request_id=slot.request_id,
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
                slot.is_given_up = True
                # A forked child may have inherited a lock that some thread held.
                if self._is_at_home() and ptl_remove(&self.queue, &slot.node):
                    Py_DECREF(slot)
                slot.request = slot.notify = None
                break
            if ptl_move(&slot.node.word, PTL_RUNNING, PTL_ABANDONED):
                slot.is_given_up = True
                slot.notify = None
                break
            word = ptl_load(&slot.node.word)
            if word != PTL_QUEUED and word != PTL_RUNNING:
                return word == PTL_ABANDONED
        if slot.stream is not None:
            slot.stream.discard()
        elif slot.node.thread_waits:
            ptl_wake(&slot.node.word)
        return True

    cdef bint _is_at_home(self) noexcept:
        return self.is_inline or self.generation == ptl_process_generation

    def cancel(self, CallSlot slot):
        """Cancel a submitted slot; True unless it is done already. Its `notify` is not called."""
        return self._give_up(slot)

    def cancel_softly(self, CallSlot slot):
        """Cancel a slot that goes on taking what the model still sends.

        While it is queued it is answered with CANCELLED.
        """
        slot.is_given_up = True
        if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            if ptl_remove(&self.queue, &slot.node):
                Py_DECREF(slot)
            slot.finish_and_wake(CancelledError("", model=self.model_name))
            slot.request = None  # afterwards: with it a sender goes, which would answer

    cdef int _begin_sequence(self, CallSlot slot) except -1:
        """Iterative sequences: a request without an id is a sequence of its own."""
        cdef RequestDetails given, details
        cdef InferenceRequest request = slot.request
        given = request.details
        if given.correlation == 0 or given.correlation == "":
            self.sequences += 1
            details = given.copy()
            details.correlation = self.sequences
            request.details = details
            request.request_flags |= SEQUENCE_START
        return 0

    def submit_all(self, list slots):
        """Queue slots without waiting, with one look at the queue and one round of wake-ups.

        An inline instance that is idle runs its request at once, on this thread.
        """
        cdef CallSlot slot, before = None
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *idle = NULL
        cdef ptl_node *first
        cdef ptl_node *last
        cdef Py_ssize_t limit = 0
        cdef int refused, count = len(slots)
        cdef object interrupt = None
        if not count:
            return
        if self.generation != ptl_process_generation and not self.is_inline:
            raise self._forked_error()
        for slot in slots:
            if self.is_iterative:
                self._begin_sequence(slot)
            if before is not None:
                before.node.next = &slot.node
            before = slot
            Py_INCREF(slot)  # the queue's
            if self.is_inline and slot.stream is not None:
                limit = slot.stream.limit
                slot.stream.set_limit(0)  # nobody reads as long as it runs on this thread
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
            try:
                self._run_others(<Executor> idle.owner)
            except BaseException as error:
                interrupt = error
        if limit:
            for slot in slots:
                if slot.stream is not None:
                    slot.stream.set_limit(limit)
        if interrupt is not None:
            raise interrupt

    # -- inline ------------------------------------------------------------------------

    cdef object _call_inline(self, CallSlot slot, int64_t deadline_ns):
        cdef int is_closed = 0, state
        cdef ptl_worker *worker = ptl_acquire(&self.queue, &is_closed)
        if worker != NULL:
            return self._lead(<Executor> worker.owner, slot, deadline_ns)
        if is_closed:
            raise self._closed_error()
        Py_INCREF(slot)
        state = ptl_push_or_acquire(&self.queue, &slot.node, &worker)
        if state != 0:
            Py_DECREF(slot)
            if state < 0:
                raise self._closed_error()
            return self._lead(<Executor> worker.owner, slot, deadline_ns)
        if slot.caller is not None:
            self.check_chain(slot)
        return self._wait(slot, deadline_ns)

    cdef object _lead(self, Executor executor, CallSlot slot, int64_t deadline_ns):
        """Run the slot of this thread on an instance that it holds, then those who queued meanwhile."""
        cdef object outcome
        ptl_store(&slot.node.word, PTL_RUNNING)
        try:
            outcome = self._run(executor, slot)
        except BaseException:
            ptl_store(&slot.node.word, PTL_ABANDONED)
            raise
        finally:
            self._run_others(executor)
        if outcome is PENDING:
            return self._wait(slot, deadline_ns)
        ptl_store(&slot.node.word, PTL_DONE)
        if type(outcome) is dict or type(outcome) is InferenceResponse:
            return outcome
        raise outcome

    cdef object _run(self, Executor executor, CallSlot slot):
        """Run a slot that is RUNNING; its outcome, or PENDING when that goes to the slot later."""
        cdef InferenceRequest request = slot.request
        cdef object outcome
        slot.request = None
        request.slot = slot
        slot.runner = executor.contract
        while True:
            # `request` is the only reference that the runtime holds.
            outcome = executor.contract.run(request, 1, slot.wants_arrays)
            if outcome is RESCHEDULED:
                request = executor.contract.again(request, 1)
                if not slot.is_given_up:
                    slot.request = request
                    if self._queue_again(slot):
                        return PENDING
                    slot.request = None
                    continue
                outcome = self._end_again(slot, request)
            if outcome is not PENDING:
                slot.runner = None
            return outcome

    cdef object _end_again(self, CallSlot slot, InferenceRequest request):
        """Outcome of a request that was given up when its model wanted it again."""
        cdef InferenceResponseSender sender = request.sender
        error = CancelledError("", model=self.model_name, request_id=slot.request_id)
        if sender is None:
            return error
        sender.fail(error)
        return PENDING

    cdef bint _queue_again(self, CallSlot slot):
        """Put a rescheduled slot behind the others; False when it must run at once."""
        cdef ptl_worker *rung = NULL
        if self.is_inline or not ptl_move(&slot.node.word, PTL_RUNNING, PTL_QUEUED):
            return False
        Py_INCREF(slot)
        # The last requests of a queue that is closed run to their end without it.
        if ptl_push(&self.queue, &slot.node, &slot.node, 1, &rung):
            Py_DECREF(slot)
            return not ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING)
        ptl_ring(rung)
        return True

    cdef object _run_others(self, Executor executor):
        cdef ptl_node *node
        cdef CallSlot slot
        cdef int budget = LEADER_BUDGET
        cdef object interrupt = None
        while True:
            node = ptl_release(&self.queue, &executor.worker)
            if node == NULL:
                break
            slot = <CallSlot> node.owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slot`
            if budget <= 0 and slot.node.thread_waits:
                slot.node.executor = <void *> executor
                if ptl_move(&slot.node.word, PTL_QUEUED, PTL_LEAD):
                    with nogil:
                        ptl_wake(&slot.node.word)
                    break
                continue
            budget -= 1
            try:
                self._run_slot(executor, slot)
            except BaseException as error:
                interrupt = error  # a Ctrl-C; the instance must not be lost with it
        if interrupt is not None:
            raise interrupt

    cdef object _run_slot(self, Executor executor, CallSlot slot):
        cdef object outcome
        if not ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            return  # cancelled while it waited: it never reaches the model
        try:
            outcome = self._run(executor, slot)
        except BaseException as error:
            # A Ctrl-C while this thread led for another caller: that caller is told.
            outcome = CancelledError(
                f"Request to model '{self.model_name}' was interrupted on the thread that ran it",
                model=self.model_name,
            )
            outcome.__cause__ = error
            slot.finish_and_wake(outcome)
            raise
        if outcome is not PENDING:
            slot.finish_and_wake(outcome)

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
                try:
                    outcome = self._run(executor, slot)
                except BaseException as error:
                    outcome = _defect(executor.contract, error)
                if outcome is not PENDING and slot.finish(outcome):
                    to_wake = &slot.node.word
                    done = slot  # keeps the word alive until it is woken
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
                slot.finish_and_wake(make_error())
                slot.request = None  # afterwards: with it a sender goes, which would answer

    def fail_running(self, make_error):
        """Answer with ``make_error()`` what instances are running or owe an answer to just now:
        their own answers come too late. Returns the names of the running instances."""
        cdef Executor executor
        cdef CallSlot slot
        cdef list names = []
        for executor in self.executors:
            slot = executor.running
            if slot is not None:
                names.append(executor.contract.instance_name)
                slot.is_given_up = True
                slot.finish_and_wake(make_error())
            executor.contract.fail_open(make_error)
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


cdef object _defect(Contract contract, object error):
    failure = InternalError(
        f"defect in pytriton_lite while running instance '{contract.instance_name}', please "
        f"report it: {type(error).__name__}: {error}",
        model=contract.model_name,
    )
    failure.__cause__ = error
    return failure


cdef bint _is_stuck(CallSlot slot, set seen, list chain) except -1:
    """Whether a BLS request can never be answered; `chain` tells why.

    It is so when every instance that could run it waits, in `execute`, for a BLS request of
    its own of which the same is true. Who waits on another thread or coroutine does not count:
    its instance may become free without it. New waits are looked at one after another, so the
    one that closes a ring finds it.
    """
    cdef RequestQueue queue
    cdef Executor executor
    cdef Contract runner
    cdef uint32_t word = ptl_load(&slot.node.word)
    if word == PTL_QUEUED:
        queue = slot.queue
        if not queue.executors:
            return False
        for executor in queue.executors:
            if not _is_waiting(executor.contract, seen, chain):
                return False
        return True
    runner = slot.runner
    if word != PTL_RUNNING or runner is None or slot in runner.open_slots:
        return False
    return _is_waiting(runner, seen, chain)


cdef bint _is_waiting(Contract contract, set seen, list chain) except -1:
    cdef CallSlot slot = contract.waits_for
    if slot is None:
        return False
    if contract in seen:
        return True
    seen.add(contract)
    chain.append(
        f"instance '{contract.instance_name}' waits for model '{(<RequestQueue> slot.queue).model_name}'"
    )
    return _is_stuck(slot, seen, chain)
