# cython: language_level=3, freethreading_compatible=True
"""The queue of a model version, and how its instances run what is in it.

There is no dispatcher thread: a caller appends its slot and rings one idle instance, a
`thread` instance pulls slots until the queue is empty, and an `inline` instance is run by
the callers themselves. Who waits sleeps on the word of its own slot, see sync.pxd. The queues
of instances in other processes and of dynamic batching are in files of their own.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t

import os

from pytriton_lite._core.contract cimport LEFT, PENDING, RESCHEDULED, UNBEGUN, Contract
from pytriton_lite._core.deadlock cimport (
    Watch, begin_wait, end_wait, watch_slice_ns, why_stuck,
)
from pytriton_lite._core.message cimport InferenceRequest, RequestDetails
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.sender cimport InferenceResponseSender
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer, answer_of, leave_order, signal_slice
from pytriton_lite._core.statistics cimport (
    REASON_CANCELED, REASON_OTHER, Times, VersionStatistics, times_of,
)
from pytriton_lite._core.sync cimport *
from pytriton_lite.errors import (
    CancelledError, InternalError, InvalidArgumentError, RequestTimeoutError, UnavailableError,
)

cdef extern from "Python.h":
    void PyErr_SetInterrupt()

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
    # How often a thread that waits for a stub's BLS request looks whether the stub is still there.
    LOOK_NS = 100_000_000


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
        self.sent = []
        self.marks = []


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
    is_remote
        The instances run in other processes.
    """

    def __cinit__(self):
        ptl_queue_init(&self.queue)

    def __init__(self, str model_name, *, bint is_inline, bint is_iterative, bint is_remote=False):
        self.model_name = model_name
        self.is_inline = is_inline
        self.is_iterative = is_iterative
        self.is_remote = is_remote
        self.executors = []
        self.statistics = VersionStatistics()
        self.contracts = []
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
        """Run a request and wait for its answer; raises the outcome when it is an exception.

        None when the queue is closed: the model was unloaded, or replaced since the caller looked.
        """
        cdef ptl_worker *rung = NULL
        cdef int refused, woken = PTL_WOKEN
        cdef uint32_t word
        cdef int64_t slice_ns
        cdef bint is_from_model = slot.queue is not None
        slot.node.thread_waits = True
        if self.is_inline:
            return self._call_leading(slot, deadline_ns)
        if self.generation != ptl_process_generation:
            raise self._forked_error()
        slice_ns = slice_of(slot)
        slot.queued_ns = ptl_now_ns()
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
            return None
        if ptl_load(&slot.node.word) == PTL_DONE:
            return slot.result()
        if is_from_model and rung == NULL:
            self.check_chain(slot)
        return self._wait(slot, deadline_ns)

    cdef object call_from_model(self, CallSlot slot, Contract own, Contract maker):
        """`call` for a BLS request; see `begin_wait` for the two contracts."""
        cdef CallSlot outer = begin_wait(own, maker, slot)
        try:
            return self.call(slot, 0)
        finally:
            end_wait(own, maker, slot, outer)

    cdef object wait_again(self, CallSlot slot, int64_t deadline_ns):
        """Go on with a `call` that was LEFT, maybe on another thread."""
        return self._wait(slot, deadline_ns)

    cdef bint assist(self, CallSlot slot, int64_t deadline_ns) except -1:
        """Before a thread waits for the future of a slot: whether it is to call `slept` afterwards."""
        return False

    cdef int slept(self) except -1:
        """A thread has waited for a future, or will not."""
        return 0

    cdef int check_chain(self, CallSlot slot) except -1:
        """Fail a BLS request that has just been queued and certainly never gets an instance."""
        return self._fail_stuck(slot, why_stuck(slot))

    def check_watched(self, Watch watch):
        """Fail a BLS request that has been stuck for long; raises its error."""
        self._fail_stuck(watch.slot, watch.look())

    cdef int _fail_stuck(self, CallSlot slot, str ring) except -1:
        if ring is None or not self._give_up(slot):
            return 0
        raise UnavailableError(
            f"Model {self.model_name} - Error when running inference: no instance can ever become free "
            f"for the request: {ring}",
            model=self.model_name,
        )

    cdef object _wait(self, CallSlot slot, int64_t deadline_ns):
        """Sleep until the slot is done, a signal handler raises, or the time is up.

        The last two give the request up. One of a stub goes on instead: the stub waits for it,
        and LEFT is returned.
        """
        cdef int woken = PTL_INTERRUPTED  # a signal may have come before
        cdef int64_t slice_ns = slice_of(slot)
        cdef uint32_t word
        cdef Watch watch = None
        if slot.queue is not None and ptl_load(&slot.node.word) == PTL_QUEUED:
            watch = Watch(slot)
            slice_ns = watch_slice_ns() if slice_ns == 0 else min(slice_ns, watch_slice_ns())
        while True:
            word = ptl_load(&slot.node.word)
            if word == PTL_DONE:
                return slot.result()
            if word == PTL_LEAD:
                return self._lead(self._led(slot), slot, deadline_ns)
            if word == PTL_ABANDONED:
                raise CancelledError(
                    f"Request to model '{self.model_name}' was cancelled",
                    model=self.model_name, request_id=slot.request_id,
                )
            if woken == PTL_INTERRUPTED:
                try:
                    PyErr_CheckSignals()
                except BaseException:
                    if slot.waiter is None:
                        self._withdraw(slot)
                    raise
                if watch is not None:
                    self.check_watched(watch)
                if slot.waiter is not None and (<Contract> slot.waiter).is_unwanted():
                    return LEFT
            with nogil:
                woken = ptl_sleep(&slot.node.word, word, deadline_ns, slice_ns)
            if woken == PTL_TIMED_OUT and slot.waiter is not None:
                return LEFT
            if woken == PTL_TIMED_OUT and self._withdraw(slot):
                raise self.late_error(slot)

    cdef object late_error(self, CallSlot slot):
        return RequestTimeoutError(
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
            executor = self._led(slot)
            self._run_others(executor, 0, None)
            return True
        return False

    cdef bint _let_lead(self, Executor executor, CallSlot slot) except -1:
        """Hand an instance to the thread that waits for a queued slot; False if it has gone."""
        # Kept for it: one in another process may be given up before that thread gets its turn.
        Py_INCREF(executor)
        slot.node.executor = <void *> executor
        if not ptl_move(&slot.node.word, PTL_QUEUED, PTL_LEAD):
            Py_DECREF(executor)
            return False
        with nogil:
            ptl_wake(&slot.node.word)
        return True

    cdef Executor _led(self, CallSlot slot):
        """The instance that was handed to this thread."""
        cdef Executor executor = <Executor> slot.node.executor
        Py_DECREF(executor)
        return executor

    cdef bint _give_up(self, CallSlot slot) except -1:
        """Cancel: a queued request never reaches the model, a running one is told and let go."""
        cdef uint32_t word
        while True:
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_ABANDONED):
                slot.is_given_up = True
                if slot.call and slot.runner is not None:
                    (<Contract> slot.runner).given_up(slot, False)
                self.statistics.failed(REASON_CANCELED, slot.queued_ns)
                # A forked child may have inherited a lock that some thread held.
                if self._is_at_home():
                    self._unqueue(slot)
                slot.request = slot.notify = None
                break
            if ptl_move(&slot.node.word, PTL_RUNNING, PTL_ABANDONED):
                slot.is_given_up = True
                slot.notify = None
                leave_order(slot)
                if slot.call and slot.runner is not None:
                    (<Contract> slot.runner).given_up(slot, False)
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

    cdef bint _unqueue(self, CallSlot slot) except -1:
        """Take a slot out of the queue; False when it is not in it."""
        if not ptl_remove(&self.queue, &slot.node):
            return False
        Py_DECREF(slot)
        return True

    cdef ptl_node *_unqueue_first(self) noexcept:
        """Take the first slot out, with its reference."""
        return ptl_take_any(&self.queue)

    def cancel(self, CallSlot slot):
        """Cancel a submitted slot; True unless it is done already. Its `notify` is not called."""
        return self._give_up(slot)

    def cancel_softly(self, CallSlot slot):
        """Cancel a slot that goes on taking what the model still sends.

        While it is queued it is answered with CANCELLED.
        """
        slot.is_given_up = True
        if slot.call and slot.runner is not None:
            (<Contract> slot.runner).given_up(slot, True)
        if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            self.statistics.failed(REASON_CANCELED, slot.queued_ns)
            self._unqueue(slot)
            slot.finish_and_wake(CancelledError("", model=self.model_name))
            slot.request = None  # afterwards: with it a sender goes, which would answer

    cdef int begin_sequence(self, InferenceRequest request) except -1:
        """Iterative sequences: a request without an id gets one; each request is a sequence."""
        cdef RequestDetails given = request.details, details
        if given.correlation == 0 or given.correlation == "":
            self.sequences += 1
            details = given.copy()
            details.correlation = self.sequences
            request.details = details
            request.request_flags |= SEQUENCE_START
        elif not request.request_flags & SEQUENCE_START:
            raise InvalidArgumentError(
                f"inference request for sequence {given.correlation} to model '{self.model_name}' must "
                "specify the START flag on the first request of the sequence",
                model=self.model_name, request_id=request.id or None,
            )
        return 0

    def submit_all(self, list slots):
        """Queue slots without waiting, with one look at the queue and one round of wake-ups.

        An inline instance that is idle runs its request at once, on this thread.

        Returns whether there was an idle instance; None when the queue is closed, and nothing
        queued.
        """
        cdef CallSlot slot, before = None
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *idle = NULL
        cdef ptl_node *first
        cdef ptl_node *last
        cdef int refused, count = len(slots)
        cdef int64_t now
        cdef object interrupt = None
        cdef bint found_idle, is_from_model
        if not count:
            return True
        if self.generation != ptl_process_generation and not self.is_inline:
            raise self._forked_error()
        now = ptl_now_ns()
        for slot in slots:
            slot.queued_ns = now
            if before is not None:
                before.node.next = &slot.node
            before = slot
            Py_INCREF(slot)  # the queue's
        slot = slots[0]
        is_from_model = slot.queue is not None
        first = &slot.node
        last = &before.node
        # This thread has more to do before it waits, so it keeps the GIL while it rings.
        refused = ptl_push(&self.queue, first, last, count, &rung)
        found_idle = rung != NULL
        if not refused and not self.is_inline:
            ptl_ring(rung)
        if refused:
            for slot in slots:
                slot.node.next = NULL
                Py_DECREF(slot)
            return None
        if self.refusal is not None and not found_idle:
            self.fail_queued(self.refusal)
        while self.is_inline and rung != NULL:
            idle = rung
            rung = rung.next_idle
            idle.next_idle = NULL
            try:
                self._run_others(<Executor> idle.owner, 1 if is_from_model else LEADER_BUDGET, None)
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return found_idle

    # -- callers that hold an instance -------------------------------------------------

    cdef object _call_leading(self, CallSlot slot, int64_t deadline_ns):
        cdef int is_closed = 0, state
        cdef ptl_worker *worker = ptl_acquire(&self.queue, &is_closed)
        if worker != NULL:
            return self._lead(<Executor> worker.owner, slot, deadline_ns)
        if is_closed:
            return None
        slot.queued_ns = ptl_now_ns()
        Py_INCREF(slot)
        state = ptl_push_or_acquire(&self.queue, &slot.node, &worker)
        if state != 0:
            Py_DECREF(slot)
            if state < 0:
                return None
            return self._lead(<Executor> worker.owner, slot, deadline_ns)
        # After the push: who sets it fails what is queued afterwards, so one of the two sees this.
        if self.refusal is not None:
            self.fail_queued(self.refusal)
        else:
            self._queued(slot)
        return self._wait(slot, deadline_ns)

    cdef int _queued(self, CallSlot slot) except -1:
        """A thread is about to wait for this slot, for which there was no instance."""
        if slot.queue is not None:
            self.check_chain(slot)
        return 0

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
            if slot.queue is None:
                self._run_others(executor, LEADER_BUDGET, None)
            else:
                # The instance of a model that calls is not free before this returns, and one of
                # the others may need it: they are run by threads of their own.
                self._run_others(executor, 0, slot)
        if outcome is PENDING:
            return self._wait(slot, deadline_ns)
        ptl_store(&slot.node.word, PTL_DONE)
        return answer_of(outcome)

    cdef int _hand_over(self, Executor executor) except -1:
        """Give an instance in another process to its pump."""
        ptl_store(&executor.worker.word, 1)
        with nogil:
            ptl_wake(&executor.worker.word)
        return 0

    cdef object _run(self, Executor executor, CallSlot slot):
        """Run a slot that is RUNNING; its outcome, or PENDING when that goes to the slot later.

        LEFT when the instance is in another process and this thread does not wait for it.
        """
        cdef InferenceRequest request = slot.request
        cdef int64_t began = ptl_now_ns(), ended
        cdef Times times
        cdef long batch_size
        cdef object outcome = None
        if executor.left is not None:
            request = executor.left
            began = executor.left_ns
            executor.left = None
            outcome = executor.contract.resume(slot, slot.form, executor.contract.deadline_ns)
        slot.request = None
        request.slot = slot
        slot.runner = executor.contract
        batch_size = request.batch_size
        while True:
            slot.began_ns = began
            if outcome is None:
                # `request` is the only reference that the runtime holds.
                outcome = executor.contract.run(request, 1, slot.form)
            if outcome is LEFT:
                executor.left = request
                executor.left_ns = began
                return LEFT
            if outcome is UNBEGUN:
                return self._queue_first(executor, slot, request)
            ended = ptl_now_ns()
            times = times_of(
                slot.queued_ns, began, slot.inputs_ns, executor.contract.outputs_ns, ended
            )
            if slot.is_left_out:
                self.statistics.failed(REASON_CANCELED, times.queued_ns)
            else:
                self.statistics.count_alone(&times, batch_size, slot.has_failed)
            if type(outcome) is InferenceResponse:
                (<InferenceResponse> outcome).times = times
            if outcome is RESCHEDULED:
                request = executor.contract.again(request, 1)
                if not slot.is_given_up:
                    slot.request = request
                    slot.queued_ns = began = ended
                    if self._queue_again(slot):
                        return PENDING
                    slot.request = outcome = None
                    continue
                outcome = self._end_again(slot, request)
            if outcome is not PENDING:
                slot.runner = None
            return outcome

    cdef object _queue_first(self, Executor executor, CallSlot slot, InferenceRequest request):
        """Leave a request to another instance, since the process of this one was gone when it came."""
        if not executor.worker.is_retired:  # else it would come back here
            return UnavailableError(
                f"the process of instance '{executor.contract.instance_name}' is gone", model=self.model_name
            )
        slot.runner = None
        slot.call = 0
        slot.request = request
        if not ptl_move(&slot.node.word, PTL_RUNNING, PTL_QUEUED):
            slot.request = None  # given up meanwhile
        else:
            if executor.running is slot:
                executor.running = None
            self._put_back([slot])
        return PENDING

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

    cdef object _run_others(self, Executor executor, int budget, CallSlot led):
        """Run what is queued, at most `budget` requests of those that have a thread of their own.

        `led` is the BLS request for which this thread has the instance, or None.
        """
        cdef bint is_held_up
        cdef ptl_node *node
        cdef CallSlot slot
        cdef object interrupt = None
        while True:
            node = ptl_release(&self.queue, &executor.worker)
            if node == NULL:
                break
            slot = <CallSlot> node.owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slot`
            if budget <= 0 and slot.node.thread_waits:
                if self._let_lead(executor, slot):
                    break
                continue
            budget -= 1
            # Who made `led` goes on when this is over: if this needs its instance, that is a ring.
            is_held_up = led is not None and led.runner is None
            if is_held_up:
                led.runner = executor.contract
            try:
                self._run_slot(executor, slot)
            except BaseException as error:
                interrupt = error  # a Ctrl-C; the instance must not be lost with it
            if is_held_up:
                led.runner = None
        if interrupt is not None:
            raise interrupt

    cdef object _run_slot(self, Executor executor, CallSlot slot):
        cdef object outcome
        cdef StreamBuffer stream = slot.stream
        cdef Py_ssize_t limit = 0
        if not ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            return  # cancelled while it waited: it never reaches the model
        if stream is not None:
            limit = stream.limit
            stream.set_limit(0)  # who reads may be this thread
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
        finally:
            if stream is not None:
                stream.set_limit(limit)
        if outcome is not PENDING:
            slot.finish_and_wake(outcome)

    # -- instances ---------------------------------------------------------------------

    def add_inline(self, Executor executor):
        """Offer an initialised inline instance to the callers."""
        self.executors.append(executor)
        self.contracts.append(executor.contract)
        self.queue.worker_count += 1
        self._run_others(executor, LEADER_BUDGET, None)

    def add_remote(self, Executor executor):
        """Offer an instance in another process to the callers; `pump` must run on a thread for it."""
        self.executors.append(executor)
        self.contracts.append(executor.contract)
        self.queue.worker_count += 1
        self._hand_over(executor)

    def retire(self, Executor executor):
        """The process of an instance is gone, or is to go: it gets no more requests."""
        cdef ptl_worker *idle = NULL
        self.executors.remove(executor)
        self.contracts.remove(executor.contract)
        # With the GIL: without it others that are rung here may be retired and gone meanwhile.
        ptl_retire(&self.queue, &executor.worker, &idle)
        ptl_ring(idle)

    def dismiss(self, Executor executor):
        """One instance gets no more requests, while the others go on; see `wait_until_out`."""
        cdef ptl_worker *idle = NULL
        with nogil:
            ptl_retire(&self.queue, &executor.worker, &idle)
            ptl_ring(idle)
            if not self.is_inline and not self.is_remote:
                ptl_ring(&executor.worker)  # so that `serve` returns

    def wait_until_out(self, Executor executor, deadline_ns):
        """Wait until a dismissed inline or remote instance is not running any more.

        Returns False when the time (`time.monotonic_ns`) was up before.
        """
        cdef uint32_t rest
        cdef int64_t deadline = deadline_ns
        cdef int woken
        while True:
            rest = ptl_load(&self.queue.rest)
            if executor.worker.is_out:
                return True
            with nogil:
                woken = ptl_sleep(&self.queue.rest, rest, deadline, SIGNAL_SLICE_NS)
            if woken == PTL_TIMED_OUT:
                return False
            PyErr_CheckSignals()

    def forget(self, Executor executor):
        """A dismissed instance has ended."""
        if executor in self.executors:
            self.executors.remove(executor)
            self.contracts.remove(executor.contract)

    def end_pump(self, Executor executor):
        """Let the `pump` of an idle instance, or of a retired one, return."""
        executor.is_ended = True
        self._hand_over(executor)

    def pump(self, Executor executor):
        """Run what no thread waits for, on an instance in another process, until `end_pump`."""
        raise InternalError("the instances of this queue are in this process")

    cdef int _put_back(self, list slots) except -1:
        cdef ptl_worker *idle = NULL
        cdef CallSlot slot
        for slot in reversed(slots):
            Py_INCREF(slot)  # the queue's
            if ptl_push_front(&self.queue, &slot.node, &idle):
                Py_DECREF(slot)
                if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                    slot.finish_and_wake(self.closed_error())
                    slot.request = None
                continue
            ptl_ring(idle)
            idle = NULL
        return 0

    def serve(self, Executor executor):
        """Pull and run requests on this thread until the queue is closed and empty, or the instance
        is dismissed."""
        cdef ptl_node *node
        cdef uint32_t *to_wake = NULL
        cdef CallSlot slot = None, done = None
        cdef object outcome
        self.executors.append(executor)
        self.contracts.append(executor.contract)
        self.queue.worker_count += 1
        while True:
            node = NULL
            if to_wake == NULL and not executor.worker.is_retired:
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
                    outcome = defect(executor.contract, error)
                if outcome is not PENDING and slot.finish(outcome):
                    to_wake = &slot.node.word
                    done = slot  # keeps the word alive until it is woken
                executor.running = outcome = None
            slot = None

    def close(self):
        """Refuse new requests; queued ones are still served, then `serve` returns."""
        with nogil:
            ptl_close(&self.queue, not (self.is_inline or self.is_remote))

    def wait_until_idle(self, deadline_ns):
        """Inline and remote: wait until no instance is running and nothing is queued.

        What is queued when no instance is left is not waited for. Returns False when the time (`time.monotonic_ns`) was up before.
        """
        cdef uint32_t rest
        cdef int64_t deadline = deadline_ns
        cdef int woken
        while True:
            rest = ptl_load(&self.queue.rest)
            if self.queue.idle_count == self.queue.worker_count and (
                self.queue.depth == 0 or self.queue.worker_count == 0
            ):
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
            node = self._unqueue_first()
            if node == NULL:
                return count
            slot = <CallSlot> node.owner
            Py_DECREF(slot)
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                count += 1
                self.statistics.failed(REASON_OTHER, slot.queued_ns)
                slot.finish_and_wake(make_error())
                slot.request = None  # afterwards: with it a sender goes, which would answer

    def fail_running(self, make_error):
        """Answer with ``make_error()`` what instances are running or owe an answer to just now:
        their own answers come too late. Returns the names of the running instances."""
        cdef Executor executor
        cdef CallSlot slot
        cdef list names = []
        for executor in self.executors:
            slots = executor.batch
            if slots is None:
                slots = [] if executor.running is None else [executor.running]
            if slots:
                names.append(executor.contract.instance_name)
            for slot in list(slots):
                slot.is_given_up = True
                if slot._finish_now(make_error()):
                    ptl_wake(&slot.node.word)
                leave_order(slot)
            executor.contract.fail_open(make_error)
        return names

    cdef object closed_error(self):
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


cdef int64_t slice_of(CallSlot slot) noexcept:
    """How long the thread that waits for a slot may sleep at a time; 0 is for ever."""
    cdef int64_t slice_ns = signal_slice()
    if slot.waiter is None:
        return slice_ns
    return LOOK_NS if slice_ns == 0 else min(slice_ns, <int64_t> LOOK_NS)


cdef object defect(Contract contract, object error):
    """The outcome of a request in whose handling something was raised that never should be."""
    if isinstance(error, KeyboardInterrupt):
        PyErr_SetInterrupt()  # once more, where this thread can be interrupted
        failure = CancelledError(
            f"Request to model '{contract.model_name}' was interrupted on the thread that ran it",
            model=contract.model_name,
        )
    else:
        failure = InternalError(
            f"defect in pytriton_lite while running instance '{contract.instance_name}', please "
            f"report it: {type(error).__name__}: {error}",
            model=contract.model_name,
        )
    failure.__cause__ = error
    return failure
