# cython: language_level=3, freethreading_compatible=True
"""The queue of a model with dynamic batching: instances pull batches in place of requests.

A batch is formed by who runs it, at the moment when the instance is there. So limits,
timeouts and priorities apply until then, and a batch takes in what comes meanwhile; there is no
dispatcher. The rules are in formation.pxd.

While requests wait for a delay, one thread of those with an idle instance is the *keeper*: it sleeps
until the delay is over and is rung when a batch may be ready before. So no request wakes a thread
for nothing. In `thread` and `process` mode the instances' own threads do this. An `inline`
instance is led by the callers: one that finds it idle waits for the delay itself, runs the batch with
its own request in it, and hands the instance on. Requests that no thread waits for are not kept
waiting for a delay there, since nobody would come to end it.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

import collections
import threading

from pytriton_lite._core.contract cimport PENDING, UNBEGUN, Contract
from pytriton_lite._core.formation cimport *
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport (
    Executor, RequestQueue, defect, process_generation, slice_of,
)
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.slot cimport CallSlot, ResponseOrder, StreamBuffer, settle_empty
from pytriton_lite._core.statistics cimport REASON_CANCELED, REASON_REJECTED, Times, times_of
from pytriton_lite._core.sync cimport *
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite.errors import (
    CancelledError, InvalidArgumentError, RequestTimeoutError, UnavailableError,
)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef enum:
    # What `_push` and `_take` say.
    QUEUED = 0
    CLOSED = 1
    LEVEL_FULL = 2
    REFUSED = -1  # of a node's place
    TAKEN = 0
    ENDED = 1
    INTERRUPTED = 2
    TIRED = 3
    # As for the other queue: requests of others that a leader runs before it hands the instance on.
    LEADER_BUDGET = 32
    # Batches that `explain` tells of.
    RECENT = 256
    # Different shapes that are told apart at a time.
    MOST_KEYS = 4096


cdef inline int _wake_all(Wakes *wakes) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(wakes.count):
        ptl_wake(wakes.words[i])
    wakes.count = 0
    return 0


cdef inline int _wake_worker(ptl_worker *rung) noexcept nogil:
    # Its word was set with the lock. It may have gone since; an address that nobody sleeps at does
    # no harm.
    if rung != NULL:
        ptl_wake(&rung.word)
    return 0


@cython.final
cdef class BatchQueue(RequestQueue):
    """Queue of one model version with dynamic batching, shared by its instances.

    Parameters
    ----------
    model_name, is_inline, is_remote
        As of `RequestQueue`.
    settings
        `DynamicBatchingSettings` of the model.
    max_batch_size
        Of the model; 0: every request runs alone.
    equal_inputs
        Names of inputs whose shapes, without the batch dimension, must be equal in a batch.
    has_optional
        The model has optional inputs, so that all requests of a batch must have the same inputs.
    is_decoupled
        Its responses are streams, which `preserve_ordering` does not hold back.
    timer
        ``arm(queue, at_ns)`` has `expire` called at that time, ``disarm(queue)`` no more.
    """

    def __init__(
        self, str model_name, settings, int max_batch_size, *, bint is_inline, bint is_remote,
        equal_inputs, bint has_optional, bint is_decoupled, timer,
    ):
        RequestQueue.__init__(
            self, model_name, is_inline=is_inline, is_iterative=False, is_remote=is_remote
        )
        arrange(&self.former, settings, max_batch_size)
        self.default_level = max(1, settings.default_priority_level) - 1
        self.has_batch_dim = max_batch_size > 0
        self.equal_inputs = frozenset(equal_inputs)
        self.has_optional = has_optional
        self.has_keys = has_optional or len(self.equal_inputs) > 0
        self.keys = {}
        if settings.preserve_ordering and not is_decoupled:
            self.order = ResponseOrder()
        self.timer = timer
        self.holders = []
        self.recent = collections.deque(maxlen=RECENT)

    def __dealloc__(self):
        ptl_former_free(&self.former)

    # -- what a request is to the batcher ----------------------------------------------

    cdef int _prepare_slot(self, CallSlot slot, int64_t now) except -1:
        cdef InferenceRequest request = slot.request
        cdef ptl_node *node = &slot.node
        cdef int64_t expires
        slot.queued_ns = now
        node.entered_ns = now
        node.batch_size = max(1, request.batch_size)
        node.level = level_of(&self.former, self.default_level, request.details.priority)
        node.key = self._key_of(request) if self.has_keys else 0
        node.expires_ns = expires = expiry_of(&self.former, node.level, request.details.timeout_us, now)
        if expires and not self.former.levels[node.level].keeps_late and (
            self.armed_ns == 0 or expires < self.armed_ns
        ):
            self.armed_ns = expires
            self.timer.arm(self, expires)
        return 0

    cdef uint64_t _key_of(self, InferenceRequest request) except? 0:
        """Number of what must be equal for two requests to be mixed."""
        cdef Tensor tensor
        cdef list parts = []
        for tensor in request.tensors:
            if tensor.tensor_name in self.equal_inputs:
                shape = tensor.wire.shape if tensor.device is None else tensor.device.shape
                parts.append((tensor.tensor_name, shape[1:] if self.has_batch_dim else shape))
            elif self.has_optional:
                parts.append((tensor.tensor_name, None))
        # Callers may name the inputs in any order.
        parts.sort(key=_name_of)
        known = tuple(parts)
        key = self.keys.get(known)
        if key is None:
            if len(self.keys) >= MOST_KEYS:
                self.keys = {}  # numbers are not used again, so nothing is mixed up
            self.last_key += 1
            key = self.keys[known] = self.last_key
        return key

    cdef object _full_error(self, CallSlot slot):
        return UnavailableError(
            f"[request id: {slot.request_id or '<id_unknown>'}] Exceeds maximum queue size",
            model=self.model_name, request_id=slot.request_id,
        )

    # -- with the lock -----------------------------------------------------------------

    cdef ptl_worker *_someone(self, bint is_ready) noexcept nogil:
        """Whom to wake for what is queued: the keeper if a batch may be ready, else an idle worker."""
        cdef ptl_worker *worker = self.keeper
        if self.former.is_held:
            return NULL
        if worker != NULL:
            if not is_ready:
                return NULL
            self.keeper = NULL
        elif self.is_inline:
            return NULL  # no thread sleeps there
        else:
            worker = ptl_pop_idle(&self.queue)
            if worker == NULL:
                return NULL
        ptl_store(&worker.word, 1)
        return worker

    cdef int _unset_idle(self, ptl_worker *worker) noexcept nogil:
        cdef ptl_worker *other
        cdef ptl_worker *kept = NULL
        while True:
            other = ptl_pop_idle(&self.queue)
            if other == worker or other == NULL:
                break
            other.next_idle = kept
            kept = other
        while kept != NULL:
            other = kept
            kept = kept.next_idle
            ptl_set_idle(&self.queue, other)
        return 0

    # -- callers -----------------------------------------------------------------------

    cdef int _push(self, ptl_node *node, ptl_worker **rung, ptl_worker **got) noexcept nogil:
        """Queue a chain of requests; LEVEL_FULL when some were not, whose place is REFUSED.

        `rung` is a worker to wake, `got` an idle inline instance that is now this thread's.
        """
        cdef ptl_node *following
        cdef bint is_ready = False, has_come = False
        cdef int state = QUEUED
        ptl_lock(&self.queue.lock)
        if self.queue.is_closed:
            ptl_unlock(&self.queue.lock)
            return CLOSED
        while node != NULL:
            following = node.next
            node.next = NULL
            if ptl_is_level_full(&self.former, node.level):
                node.place = REFUSED
                state = LEVEL_FULL
            else:
                is_ready |= ptl_enter(&self.former, node)
                has_come = True
            node = following
        self.queue.depth = self.former.count
        if has_come:
            rung[0] = self._someone(is_ready)
            if self.is_inline and rung[0] == NULL and self.keeper == NULL and not self.former.is_held:
                got[0] = ptl_pop_idle(&self.queue)
        ptl_unlock(&self.queue.lock)
        return state

    cdef object call(self, CallSlot slot, int64_t deadline_ns):
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *got = NULL
        cdef int state, woken
        cdef uint32_t word
        cdef int64_t slice_ns
        cdef bint is_from_model = slot.queue is not None
        slot.node.thread_waits = True
        if self.generation != process_generation() and not self.is_inline:
            raise self._forked_error()
        if self.former.is_held:
            self._check_holder()
        self._prepare_slot(slot, ptl_now_ns())
        slice_ns = slice_of(slot)
        Py_INCREF(slot)  # the queue's
        state = self._push(&slot.node, &rung, &got)
        # After the push: who sets it fails what is queued afterwards, so one of the two sees this.
        if self.is_remote and self.refusal is not None and state == QUEUED:
            self.fail_queued(self.refusal)
        if got == NULL:
            with nogil:
                _wake_worker(rung)
                if state == QUEUED and not is_from_model:
                    while True:
                        word = ptl_load(&slot.node.word)
                        if word != PTL_QUEUED and word != PTL_RUNNING:
                            break
                        woken = ptl_sleep(&slot.node.word, word, deadline_ns, slice_ns)
                        if woken != PTL_WOKEN:
                            break
        if state != QUEUED:
            slot.node.place = PTL_NOWHERE
            Py_DECREF(slot)
            if state == CLOSED:
                return None
            raise self._full_error(slot)
        if got != NULL:
            return self._lead_batches(<Executor> got.owner, slot, deadline_ns)
        if ptl_load(&slot.node.word) == PTL_DONE:
            return slot.result()
        if is_from_model and rung == NULL:
            self.check_chain(slot)
        return self._wait(slot, deadline_ns)

    def submit_all(self, list slots):
        cdef CallSlot slot
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *got = NULL
        cdef ptl_node *chain = NULL
        cdef int state
        cdef int64_t now
        cdef Executor executor
        if not slots:
            return True
        if self.generation != process_generation() and not self.is_inline:
            raise self._forked_error()
        now = ptl_now_ns()
        for slot in slots:
            self._prepare_slot(slot, now)
        for slot in reversed(slots):
            slot.node.next = chain
            chain = &slot.node
            Py_INCREF(slot)  # the queue's
        # This thread has more to do before it waits, so it keeps the GIL while it rings.
        state = self._push(chain, &rung, &got)
        _wake_worker(rung)
        if state == CLOSED:
            for slot in slots:
                slot.node.next = NULL
                Py_DECREF(slot)
            return None
        if state == LEVEL_FULL:
            self._refuse_left(slots)
        if self.is_remote and rung == NULL and self.refusal is not None:
            self.fail_queued(self.refusal)
        if got != NULL:
            executor = <Executor> got.owner
            slot = slots[0]
            self._run_others(executor, LEADER_BUDGET if slot.queue is None else 1, None)
        return rung != NULL or got != NULL

    def _refuse_left(self, slots):
        """Answer those that were not queued since their level is full."""
        cdef CallSlot slot
        for slot in slots:
            if slot.node.place == REFUSED:
                slot.node.place = PTL_NOWHERE
                Py_DECREF(slot)  # the queue has none
                if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                    slot.finish_and_wake(self._full_error(slot))
                    slot.request = None

    cdef int _check_holder(self) except -1:
        if threading.get_ident() in self.holders:
            raise InvalidArgumentError(
                f"this thread holds the queue of model '{self.model_name}', so a call that waits for the "
                "answer would wait for ever: use submit() inside of hold_queue(), or another thread",
                model=self.model_name,
            )
        return 0

    cdef bint _unqueue(self, CallSlot slot) except -1:
        cdef ptl_worker *rung = NULL
        cdef bint is_found
        ptl_lock(&self.queue.lock)
        is_found = slot.node.place > PTL_NOWHERE
        if is_found:
            ptl_unlink(&self.former, &slot.node)
            self.queue.depth = self.former.count
            if self.keeper != NULL:
                rung = self._someone(True)  # what was apart may go together now
        ptl_unlock(&self.queue.lock)
        _wake_worker(rung)
        if is_found:
            Py_DECREF(slot)
        return is_found

    cdef ptl_node *_unqueue_first(self) noexcept:
        cdef ptl_node *node
        ptl_lock(&self.queue.lock)
        node = ptl_front(&self.former, False)
        if node != NULL:
            ptl_unlink(&self.former, node)
            self.queue.depth = self.former.count
        ptl_unlock(&self.queue.lock)
        return node

    cdef int _put_back(self, list slots) except -1:
        cdef ptl_worker *rung = NULL
        cdef CallSlot slot
        cdef bint is_refused
        for slot in reversed(slots):
            Py_INCREF(slot)  # the queue's
            ptl_lock(&self.queue.lock)
            is_refused = self.queue.is_closed and not self.queue.worker_count
            if not is_refused:
                ptl_enter_first(&self.former, &slot.node)
                self.queue.depth = self.former.count
                rung = self._someone(True)
            ptl_unlock(&self.queue.lock)
            _wake_worker(rung)
            if is_refused:
                Py_DECREF(slot)
                if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                    slot.finish_and_wake(self.closed_error())
                    slot.request = None
        return 0

    # -- instances ---------------------------------------------------------------------

    cdef int _take(
        self, Executor executor, ptl_batch *batch, ptl_node *own, int64_t deadline_ns, int64_t slice_ns,
        bint sleeps,
    ) noexcept nogil:
        """Sleep until there is a batch, or requests whose time is up; TAKEN then.

        ENDED when there will be none for this instance. A caller that leads gives its `own` request, and
        stops when that has left the queue, when nobody need wait for a delay, or at its deadline.
        Without `sleeps` it is TIRED where it would sleep.
        """
        cdef ptl_worker *worker = &executor.worker
        cdef ptl_worker *rung = NULL
        cdef int64_t now, until
        cdef int state, woken
        cdef bint keeps, is_watched
        while True:
            ptl_lock(&self.queue.lock)
            if worker.is_idle:
                self._unset_idle(worker)
            if self.keeper == worker:
                self.keeper = NULL
            now = ptl_now_ns()
            state = ENDED
            if not (worker.is_retired or executor.is_ended or (own != NULL and (
                own.place == PTL_NOWHERE or 0 < deadline_ns <= now
            ))):
                ptl_form(&self.former, now, self.queue.is_closed, batch)
                self.queue.depth = self.former.count
                if batch.count or batch.rejected != NULL or batch.dropped != NULL:
                    state = TAKEN
                elif own != NULL:
                    if batch.until_ns and self.keeper == NULL:
                        state = INTERRUPTED
                elif not self.queue.is_closed or self.former.count or self.is_remote:
                    state = INTERRUPTED
            if state != INTERRUPTED:
                # The keeper has something to look at: what is left, or whether its own request is.
                if self.former.count or self.keeper != NULL:
                    rung = self._someone(True)
                ptl_unlock(&self.queue.lock)
                _wake_worker(rung)
                return state
            if not sleeps:
                ptl_unlock(&self.queue.lock)
                return TIRED
            ptl_store(&worker.word, 0)
            keeps = batch.until_ns != 0 and self.keeper == NULL
            is_watched = not keeps and self.queue.is_closed
            if keeps:
                self.keeper = worker
            else:
                ptl_set_idle(&self.queue, worker)
            ptl_unlock(&self.queue.lock)
            if is_watched:
                ptl_wake(&self.queue.rest)
            if not keeps:
                while ptl_load(&worker.word) == 0:
                    ptl_sleep(&worker.word, 0, 0, 0)
                continue
            until = batch.until_ns
            if deadline_ns and deadline_ns < until:
                until = deadline_ns
            woken = ptl_sleep(&worker.word, 0, until, slice_ns)
            if woken == PTL_INTERRUPTED and own != NULL:
                return INTERRUPTED

    def serve(self, Executor executor):
        """Pull and run batches on this thread until the queue is closed and empty."""
        self.executors.append(executor)
        self.contracts.append(executor.contract)
        self.queue.worker_count += 1
        self._serve(executor)

    def pump(self, Executor executor):
        """Pull and run batches on an instance in another process, once it is offered, until it is retired."""
        with nogil:
            while ptl_load(&executor.worker.word) == 0:
                ptl_sleep(&executor.worker.word, 0, 0, 0)
        executor.contract.may_leave = False
        executor.contract.deadline_ns = 0
        self._serve(executor)

    cdef int _serve(self, Executor executor) except -1:
        cdef ptl_batch batch
        cdef Wakes wakes
        cdef int state
        cdef bint are_several
        cdef list done = None  # keeps the words alive until they are woken
        memset(&wakes, 0, sizeof(Wakes))
        while True:
            with nogil:
                # Callers are woken without the GIL, else they would only find it taken.
                are_several = wakes.count > 1
                _wake_all(&wakes)
                if are_several:
                    sched_yield()  # those of them who come back at once make the next batch larger
                state = self._take(executor, &batch, NULL, 0, 0, True)
            done = None
            if state == ENDED:
                free(wakes.words)
                return 0
            self._settle(&batch)
            if batch.count:
                done = self._run_batch(executor, &batch, &wakes, NULL)

    cdef int _settle(self, ptl_batch *batch) except -1:
        """Answer those whose time is up, and let go of those that were given up."""
        cdef ptl_node *node = batch.dropped
        cdef CallSlot slot
        while node != NULL:
            slot = <CallSlot> node.owner
            node = node.next
            slot.node.next = NULL
            Py_DECREF(slot)
        node = batch.rejected
        while node != NULL:
            slot = <CallSlot> node.owner
            node = node.next
            slot.node.next = NULL
            Py_DECREF(slot)
            self.statistics.failed(REASON_REJECTED, slot.queued_ns)
            slot.finish_and_wake(RequestTimeoutError(
                "Request timeout expired", model=self.model_name, request_id=slot.request_id,
            ))
            slot.request = None  # afterwards: with it a sender goes, which would answer
        return 0

    def expire(self):
        """Answer queued requests whose time is up; when the next one's is, 0 if there is none."""
        cdef ptl_batch batch
        cdef ptl_worker *rung = NULL
        cdef int64_t closest
        if not self._is_at_home():
            return 0
        # Who queues a request from here on looks after its time himself.
        self.armed_ns = 0
        ptl_lock(&self.queue.lock)
        closest = ptl_expire(&self.former, ptl_now_ns(), &batch)
        self.queue.depth = self.former.count
        if self.keeper != NULL and (batch.rejected != NULL or batch.dropped != NULL):
            rung = self._someone(True)
        ptl_unlock(&self.queue.lock)
        _wake_worker(rung)
        if closest and (self.armed_ns == 0 or closest < self.armed_ns):
            self.armed_ns = closest
        self._settle(&batch)
        return closest

    cdef int _give_ticket(self, CallSlot slot, int64_t ticket) except -1:
        if slot.order is None:
            slot.order = self.order
            slot.ticket = ticket
        else:
            # It was in a batch before, on an instance that died, and keeps its turn.
            settle_empty(self.order, ticket)
        return 0

    cdef list _run_batch(self, Executor executor, ptl_batch *batch, Wakes *wakes, ptl_node *own):
        """Run a batch; its slots, which are answered as far as they can be.

        Adds to `wakes` whom to wake, but for the thread whose request is `own`, which is this one.
        """
        cdef Contract contract = executor.contract
        cdef list slots = [], requests = [], forms = [], outcomes = None, back = None
        cdef list limits = None
        cdef CallSlot slot
        cdef InferenceRequest request
        cdef ptl_node *node = batch.first
        cdef int64_t began, ended
        cdef Py_ssize_t i
        cdef object outcome, interrupt = None
        cdef uint32_t **words
        if wakes.count + batch.count > wakes.room:
            words = <uint32_t **> realloc(wakes.words, (wakes.count + batch.count) * sizeof(uint32_t *))
            if words == NULL:
                raise MemoryError
            wakes.words = words
            wakes.room = wakes.count + batch.count
        began = ptl_now_ns()
        for i in range(batch.count):
            slot = <CallSlot> node.owner
            node = node.next
            slot.node.next = NULL
            slots.append(slot)
            Py_DECREF(slot)  # the queue's reference is ours now, in `slots`
            slot.began_ns = began
            slot.has_failed = slot.is_left_out = False
            request = slot.request
            slot.request = None
            request.slot = slot
            slot.runner = contract
            if self.order is not None:
                self._give_ticket(slot, batch.ticket + i)
            requests.append(request)
            forms.append(slot.form)
        request = None
        executor.batch = slots
        if self.is_inline:
            limits = _unlimited(slots)
        self.recent.append((
            batch.size, batch.count, batch.reason, began - batch.oldest_ns, contract.instance_name,
        ))
        try:
            outcomes = contract.run_batch(requests, forms)
            while outcomes is None:
                outcomes = contract.resume_batch(0)
        except BaseException as error:
            interrupt = error
            outcomes = []
            for _ in slots:
                if self.is_inline:
                    # A Ctrl-C; those for whom this thread led are told.
                    outcome = CancelledError(
                        f"Request to model '{self.model_name}' was interrupted on the thread that ran it",
                        model=self.model_name,
                    )
                    outcome.__cause__ = error
                else:
                    outcome = defect(contract, error)
                outcomes.append(outcome)
        ended = ptl_now_ns()
        if limits is not None:
            _limited_again(limits)
        self._count(contract, slots, outcomes, began, ended)
        for i in range(len(slots)):
            slot = slots[i]
            outcome = outcomes[i]
            outcomes[i] = None
            if outcome is PENDING:
                continue
            if outcome is UNBEGUN:
                if back is None:
                    back = []
                slot.request = requests[i]
                back.append(slot)
                continue
            if slot.finish(outcome) and &slot.node != own:
                wakes.words[wakes.count] = &slot.node.word
                wakes.count += 1
        executor.batch = None
        requests.clear()
        if back is not None:
            self._queue_again_first(executor, back)
        if interrupt is not None and self.is_inline:
            with nogil:
                _wake_all(wakes)
            raise interrupt
        return slots

    cdef int _count(
        self, Contract contract, list slots, list outcomes, int64_t began, int64_t ended
    ) except -1:
        cdef CallSlot slot
        cdef Times times = times_of(began, began, contract.inputs_ns, contract.outputs_ns, ended)
        cdef int64_t rows = 0
        cdef Py_ssize_t i
        for i in range(len(slots)):
            slot = slots[i]
            outcome = outcomes[i]
            if outcome is UNBEGUN:
                continue
            times.queued_ns = slot.queued_ns
            if slot.is_left_out:
                self.statistics.failed(REASON_CANCELED, slot.queued_ns)
                continue
            rows += slot.node.batch_size
            self.statistics.count_request(&times, slot.node.batch_size, slot.has_failed)
            if type(outcome) is InferenceResponse:
                (<InferenceResponse> outcome).times = times
        if rows:
            self.statistics.count_execution(&times, rows)
        return 0

    cdef int _queue_again_first(self, Executor executor, list slots) except -1:
        """Leave requests to another instance, since the process of this one was gone when they came."""
        cdef CallSlot slot
        cdef list back = []
        for slot in slots:
            slot.runner = None
            slot.call = 0
            if not executor.worker.is_retired:  # else they would come back here
                slot.finish_and_wake(UnavailableError(
                    f"the process of instance '{executor.contract.instance_name}' is gone",
                    model=self.model_name,
                ))
            elif ptl_move(&slot.node.word, PTL_RUNNING, PTL_QUEUED):
                back.append(slot)
            else:
                slot.request = None  # given up meanwhile
        return self._put_back(back)

    def end_pump(self, Executor executor):
        """Let the `pump` of an instance return."""
        # With the lock: who is about to sleep sees it, and who sleeps is woken.
        ptl_lock(&self.queue.lock)
        executor.is_ended = True
        ptl_store(&executor.worker.word, 1)
        ptl_unlock(&self.queue.lock)
        ptl_wake(&executor.worker.word)

    def retire(self, Executor executor):
        """The process of an instance is gone, or is to go: it gets no more batches."""
        cdef ptl_worker *rung = NULL
        self.executors.remove(executor)
        self.contracts.remove(executor.contract)
        ptl_lock(&self.queue.lock)
        executor.worker.is_retired = True
        self.queue.worker_count -= 1
        if executor.worker.is_idle:
            self._unset_idle(&executor.worker)
        if self.keeper == &executor.worker:
            self.keeper = NULL
        if self.former.count:
            rung = self._someone(True)
        ptl_store(&self.queue.rest, self.queue.rest + 1)
        ptl_unlock(&self.queue.lock)
        _wake_worker(rung)
        ptl_wake(&self.queue.rest)

    # -- callers that hold an inline instance ------------------------------------------

    cdef object _lead(self, Executor executor, CallSlot slot, int64_t deadline_ns):
        """Lead an instance that was handed to this thread, whose slot left the queue for it."""
        Py_INCREF(slot)  # the queue's
        ptl_lock(&self.queue.lock)
        ptl_store(&slot.node.word, PTL_QUEUED)
        ptl_enter_first(&self.former, &slot.node)
        self.queue.depth = self.former.count
        ptl_unlock(&self.queue.lock)
        return self._lead_batches(executor, slot, deadline_ns)

    cdef object _lead_batches(self, Executor executor, CallSlot slot, int64_t deadline_ns):
        """Run batches until the slot of this thread was in one, then what came meanwhile."""
        cdef ptl_batch batch
        cdef Wakes wakes
        cdef int state
        cdef int64_t slice_ns = slice_of(slot)
        # A thread that waits for a stub may go away before the answer, but not with the instance.
        cdef int64_t until_ns = 0 if slot.waiter is not None else deadline_ns
        cdef list done
        memset(&wakes, 0, sizeof(Wakes))
        try:
            while True:
                # To give the GIL up costs more than all this when other threads want it.
                if wakes.count:
                    with nogil:
                        _wake_all(&wakes)
                done = None
                state = self._take(executor, &batch, &slot.node, until_ns, slice_ns, False)
                if state == TIRED:
                    with nogil:
                        state = self._take(executor, &batch, &slot.node, until_ns, slice_ns, True)
                if state == ENDED:
                    if 0 < until_ns <= ptl_now_ns() and self._give_up(slot):
                        raise self.late_error(slot)
                    break
                if state == INTERRUPTED:
                    PyErr_CheckSignals()
                    continue
                self._settle(&batch)
                if batch.count:
                    self._spread()
                    done = self._run_batch(executor, &batch, &wakes, &slot.node)
        except BaseException:
            self._give_up(slot)
            self._run_others(executor, 0, None)
            raise
        finally:
            free(wakes.words)
        if slot.queue is None:
            self._run_others(executor, LEADER_BUDGET, None)
        else:
            # See the other queue: what the others need may be the instance that waits for this.
            self._run_others(executor, 0, slot)
        return self._wait(slot, deadline_ns)

    cdef ptl_node *_unqueue_waiting(self) noexcept nogil:
        """With the lock: take out the first request that a thread waits for."""
        cdef ptl_node *node = ptl_front(&self.former, True)
        if node != NULL:
            ptl_unlink(&self.former, node)
            self.queue.depth = self.former.count
        return node

    cdef bint _let_node_lead(self, Executor executor, ptl_node *node) except -1:
        cdef CallSlot slot = <CallSlot> node.owner
        Py_DECREF(slot)  # the queue's
        return self._let_lead(executor, slot)

    cdef int _spread(self) except -1:
        """Hand idle instances to threads whose requests were left by the batch just taken."""
        cdef ptl_worker *worker
        cdef ptl_node *node
        while True:
            node = NULL
            ptl_lock(&self.queue.lock)
            worker = NULL
            if self.former.count and self.keeper == NULL and not self.former.is_held:
                worker = ptl_pop_idle(&self.queue)
            if worker != NULL:
                node = self._unqueue_waiting()
                if node == NULL:
                    ptl_set_idle(&self.queue, worker)
            ptl_unlock(&self.queue.lock)
            if node == NULL:
                return 0
            if not self._let_node_lead(<Executor> worker.owner, node):
                self._run_others(<Executor> worker.owner, 0, None)

    cdef object _run_others(self, Executor executor, int budget, CallSlot led):
        """Run what is queued, at most `budget` requests while there are threads to run them.

        A batch that is to wait for a delay is left to a thread that waits for one of its requests.
        """
        cdef ptl_worker *worker = &executor.worker
        cdef ptl_worker *rung
        cdef ptl_node *node
        cdef ptl_batch batch
        cdef Wakes wakes
        cdef object interrupt = None
        cdef bint is_held_up, is_rest, is_watched
        memset(&wakes, 0, sizeof(Wakes))
        while True:
            rung = NULL
            node = NULL
            is_rest = is_watched = False
            ptl_lock(&self.queue.lock)
            if self.keeper == worker:
                self.keeper = NULL
            memset(&batch, 0, sizeof(ptl_batch))
            if self.former.count and not self.former.is_held:
                node = ptl_front(&self.former, True)
                if self.keeper != NULL and budget <= 0:
                    rung = self._someone(True)
                else:
                    if budget > 0 or node == NULL:
                        ptl_form(
                            &self.former, ptl_now_ns(),
                            self.queue.is_closed or (node == NULL and self.keeper == NULL), &batch,
                        )
                        self.queue.depth = self.former.count
                    if batch.count or batch.rejected != NULL or batch.dropped != NULL:
                        node = NULL
                        if self.keeper != NULL:
                            rung = self._someone(True)
                    elif self.keeper == NULL:
                        # It may have been given up while the batch was formed.
                        node = self._unqueue_waiting()
                    else:
                        node = NULL
                if rung != NULL:
                    node = NULL
            if not batch.count and batch.rejected == NULL and batch.dropped == NULL and node == NULL:
                is_rest = True
                is_watched = self.queue.is_closed
                ptl_set_idle(&self.queue, worker)
            ptl_unlock(&self.queue.lock)
            _wake_worker(rung)
            if is_rest:
                if is_watched:
                    ptl_wake(&self.queue.rest)
                break
            if node != NULL:
                if self._let_node_lead(executor, node):
                    break
                continue
            self._settle(&batch)
            if not batch.count:
                continue
            self._spread()
            budget -= batch.count
            # Who made `led` goes on when this is over: if this needs its instance, that is a ring.
            is_held_up = led is not None and led.runner is None
            if is_held_up:
                led.runner = executor.contract
            try:
                done = self._run_batch(executor, &batch, &wakes, NULL)
                if wakes.count:
                    with nogil:
                        _wake_all(&wakes)
                done = None
            except BaseException as error:
                interrupt = error  # a Ctrl-C; the instance must not be lost with it
            if is_held_up:
                led.runner = None
        free(wakes.words)
        if interrupt is not None:
            raise interrupt

    # -- holding, closing, explaining --------------------------------------------------

    def hold(self):
        """Only collect requests, until `release`."""
        self.holders.append(threading.get_ident())
        ptl_lock(&self.queue.lock)
        self.former.is_held = True
        ptl_unlock(&self.queue.lock)

    def release(self):
        """End a `hold`; the last one lets batches be formed of what is there, without a delay."""
        cdef ptl_worker *rung = NULL
        cdef ptl_worker *got = NULL
        if not self.holders:
            return  # closed meanwhile
        ident = threading.get_ident()
        self.holders.remove(ident if ident in self.holders else self.holders[0])
        if self.holders:
            return
        ptl_lock(&self.queue.lock)
        self.former.is_held = False
        self.former.released_ns = ptl_now_ns()
        if self.former.count:
            rung = self._someone(True)
            if self.is_inline and rung == NULL:
                got = ptl_pop_idle(&self.queue)
        ptl_unlock(&self.queue.lock)
        _wake_worker(rung)
        if got != NULL:
            self._run_others(<Executor> got.owner, 0, None)

    def close(self):
        """Refuse new requests; queued ones are still served, without a delay, then `serve` returns."""
        cdef ptl_worker *rung = NULL
        while self.holders:
            self.release()
        RequestQueue.close(self)
        ptl_lock(&self.queue.lock)
        if self.keeper != NULL or self.former.count:
            rung = self._someone(True)
        ptl_unlock(&self.queue.lock)
        _wake_worker(rung)
        self.timer.disarm(self)

    def explain(self):
        """Recent batches, oldest first: (size, requests, reason, ns the oldest waited, instance)."""
        return [
            (size, count, REASONS[reason], waited_ns, instance)
            for size, count, reason, waited_ns, instance in list(self.recent)
        ]


def _name_of(part):
    return part[0]


cdef list _unlimited(list slots):
    """Let streams take all that comes, since who reads them may be this thread; their limits, or None."""
    cdef CallSlot slot
    cdef StreamBuffer stream
    cdef list limits = None
    cdef Py_ssize_t i
    for i in range(len(slots)):
        slot = slots[i]
        stream = slot.stream
        if stream is not None:
            if limits is None:
                limits = []
            limits.append((stream, stream.limit))
            stream.set_limit(0)
    return limits


cdef int _limited_again(list limits) except -1:
    cdef StreamBuffer stream
    for stream, limit in limits:
        stream.set_limit(limit)
    return 0
