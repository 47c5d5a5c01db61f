# cython: language_level=3, freethreading_compatible=True
"""The queue of a model version whose instances run in other processes, without batches.

Such an instance is led by the callers: the one that holds it talks to the process and waits for
the answer, so that no other thread of this one has to wake up. Slots that no thread waits for, what a
caller leaves behind who gives up, and the short requests of many callers at once go to the instance's
*pump*, a thread that sleeps otherwise.

Who keeps futures in flight, and waits for one after the other, needs no pump: such a thread sends
what it submits to the process itself, and leads while it waits. In between the instance is *adrift*:
it works, and nobody waits for its answers, until its pump finds that it has been so for some
milliseconds. States of `Executor.lead`::

    HELD        the instance is idle, or its pump or a caller leads it
    ADRIFT      it has something to do, and who moves it away from here leads it
    ASSISTED    who submits a request with a future, or waits for one, leads it
"""
cimport cython
from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t

from pytriton_lite._core.contract cimport LEFT, PENDING, UNBEGUN, Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport Executor, RequestQueue, defect, process_generation
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.sync cimport *

cdef enum:
    # An instance is sent so many requests ahead, and so much work and data.
    MOST_AHEAD = 32
    AHEAD_NS = 1_000_000
    AHEAD_BYTES = 262_144
    # What it may take for one of them before the others are taken back, and for one with a future
    # before who waits for it sleeps.
    PATIENCE_NS = 2_000_000
    # When a pump looks whether its instance is adrift: at first, and while it finds it led again and
    # again, since each look gets in the way of threads that are waiting for microseconds.
    FIRST_LOOK_NS = 500_000
    LAST_LOOK_NS = 4_000_000

cdef enum:
    HELD = 0
    ADRIFT = 1
    ASSISTED = 2

# Words of a pump, that sleeps at 0.
cdef enum:
    RUNG = 1
    WATCH = 2

# What `_step` did.
cdef enum:
    STEP_DONE = 0
    STEP_AWAITED = 1  # a thread slept for just this answer
    STEP_LEFT = 2     # the answer is not there yet


@cython.final
cdef class RemoteQueue(RequestQueue):
    """FIFO queue of one model version whose instances run in other processes.

    Parameters
    ----------
    model_name, is_iterative
        As of `RequestQueue`.
    """

    cdef int sleepers       # threads that wait for a future and do not lead

    def __init__(self, str model_name, *, bint is_iterative):
        RequestQueue.__init__(
            self, model_name, is_inline=False, is_iterative=is_iterative, is_remote=True
        )

    # -- callers -----------------------------------------------------------------------

    cdef object call(self, CallSlot slot, int64_t deadline_ns):
        slot.node.thread_waits = 1 if slot.queue is None and slot.waiter is None else PTL_MODEL_WAITS
        if self.generation != process_generation():
            raise self._forked_error()
        return self._call_leading(slot, deadline_ns)

    cdef object _lead(self, Executor executor, CallSlot slot, int64_t deadline_ns):
        """Run the slot of this thread on an instance that it holds, and hand that on."""
        cdef object outcome
        ptl_store(&slot.node.word, PTL_RUNNING)
        executor.contract.deadline_ns = deadline_ns
        executor.contract.may_leave = True
        executor.running = slot
        try:
            outcome = self._run(executor, slot)
        except BaseException as error:
            outcome = defect(executor.contract, error)
        if outcome is LEFT:
            # The instance is not free before it has answered, for which its pump waits.
            interrupt = executor.contract.interrupt
            executor.contract.interrupt = None
            self._hand_over(executor)
            if interrupt is not None:
                if slot.waiter is None:
                    self._withdraw(slot)
                raise interrupt
            return self._wait(slot, deadline_ns)
        executor.running = None
        if outcome is not PENDING:
            slot.finish(outcome)  # unless the server stops, and has done it
        self._run_others(executor, 0, None)
        return self._wait(slot, deadline_ns)

    cdef object _run_others(self, Executor executor, int budget, CallSlot led):
        """Hand an instance on: to the thread of the next request, or to its pump."""
        cdef ptl_node *node
        cdef CallSlot slot
        if self.queue.depth > 1 and self._room(executor) > 1:
            # One thread that sends them ahead is faster than many that wake up one after another.
            self._hand_over(executor)
            return
        while True:
            node = ptl_release(&self.queue, &executor.worker)
            if node == NULL:
                return
            slot = <CallSlot> node.owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slot`
            if not slot.node.thread_waits:
                executor.handed = slot
                self._hand_over(executor)
                return
            if self._let_lead(executor, slot):
                return

    cdef int _queued(self, CallSlot slot) except -1:
        self._end_drifts()
        return RequestQueue._queued(self, slot)

    # -- futures -----------------------------------------------------------------------

    def submit_all(self, list slots):
        """`RequestQueue.submit_all`. Who submits a single request with a future may send it at once."""
        cdef CallSlot slot
        if len(slots) == 1:
            slot = slots[0]
            if slot.has_future and self._send_now(slot):
                return True
            found_idle = RequestQueue.submit_all(self, slots)
            if slot.has_future:
                return found_idle
        else:
            found_idle = RequestQueue.submit_all(self, slots)
        self._end_drifts()
        return found_idle

    cdef bint _send_now(self, CallSlot slot) except -1:
        """Send a request of this thread to an instance that has little to do, if it need not wait."""
        cdef Executor executor
        cdef ptl_worker *worker
        cdef int is_closed = 0
        if self.generation != process_generation() or self.queue.is_closed or self.queue.depth:
            return False
        for executor in self.executors:
            if ptl_load(&executor.lead) != ADRIFT or not self._has_space(executor):
                continue
            if len(executor.sent) + 1 < self._room(executor) and ptl_move(&executor.lead, ADRIFT, ASSISTED):
                break
        else:
            worker = ptl_acquire(&self.queue, &is_closed)
            if worker == NULL:
                return False
            executor = <Executor> worker.owner
            ptl_store(&executor.lead, ASSISTED)
        try:
            slot.queued_ns = ptl_now_ns()
            self._send_ahead(executor, [slot])
        finally:
            self._leave(executor)
        return True

    cdef bint assist(self, CallSlot slot, int64_t deadline_ns) except -1:
        """Lead the instance that has a slot, if nobody else does, until the slot is done.

        True when somebody else does, or the slot takes its time: this thread is to sleep for the
        future, and to call `slept`.
        """
        cdef Executor executor
        cdef bint is_asleep = False
        cdef uint32_t word
        if self.generation != process_generation():
            return False
        while True:
            word = ptl_load(&slot.node.word)
            if word != PTL_QUEUED and word != PTL_RUNNING:
                break
            executor = self._adrift(slot)
            if executor is None:
                if is_asleep:
                    return True
                # Who leaves it from now on knows that this thread sleeps; one may have left before.
                is_asleep = slot.is_awaited = True
                self._count_sleeper(1)
                continue
            if is_asleep:
                is_asleep = False
                self._count_sleeper(-1)
            self._lead_for(executor, slot, deadline_ns)
            if deadline_ns and ptl_now_ns() >= deadline_ns:
                break
        if is_asleep:
            self._count_sleeper(-1)
        return False

    cdef int slept(self) except -1:
        self._count_sleeper(-1)
        return 0

    cdef void _count_sleeper(self, int change) noexcept:
        ptl_lock(&self.queue.lock)
        self.sleepers += change
        ptl_unlock(&self.queue.lock)
        ptl_fence()

    cdef Executor _adrift(self, CallSlot slot):
        """The instance that has a slot, if it is adrift: it is not any more."""
        cdef Executor executor
        for executor in self.executors:
            if slot.runner is executor.contract:
                return executor if ptl_move(&executor.lead, ADRIFT, ASSISTED) else None
        return None

    cdef int _lead_for(self, Executor executor, CallSlot slot, int64_t deadline_ns) except -1:
        """Lead an instance until a slot is done, or another one is slow, which is left to the pump."""
        cdef Contract contract = executor.contract
        cdef object interrupt
        cdef int64_t limit_ns
        contract.may_leave = False
        executor.is_assisted = True
        try:
            while ptl_load(&slot.node.word) == PTL_RUNNING and slot.runner is contract:
                self._promote(executor)
                limit_ns = executor.left_ns + PATIENCE_NS
                if deadline_ns and deadline_ns < limit_ns:
                    limit_ns = deadline_ns
                if self._step(executor, limit_ns) == STEP_LEFT:
                    executor.is_assisted = False
                    break
        finally:
            interrupt = contract.interrupt
            contract.interrupt = None
            self._leave(executor)
        if interrupt is not None:
            raise interrupt
        return 0

    cdef int _leave(self, Executor executor) except -1:
        """Hand an instance on that was led for a future."""
        if self.queue.depth and executor.is_assisted:
            self._top_up(executor)
        if executor.is_assisted and self._may_drift(executor, 0):
            self._set_adrift(executor)
            if not self.sleepers or not ptl_move(&executor.lead, ADRIFT, HELD):
                return 0
        ptl_store(&executor.lead, HELD)
        self._promote(executor)
        if executor.is_ended or executor.left is not None:
            # This thread has more to do before it waits, so it keeps the GIL.
            ptl_store(&executor.worker.word, RUNG)
            ptl_wake(&executor.worker.word)
        else:
            self._run_others(executor, 0, None)
        return 0

    cdef bint _may_drift(self, Executor executor, int sleepers) except -1:
        """Whether what an instance has to do is short, and all for futures that are still waited for."""
        self._promote(executor)
        return (
            executor.left is not None and executor.running.call > executor.unassisted
            and self.sleepers == sleepers and self._room(executor) > 1
            and not executor.is_ended and not executor.worker.is_retired
        )

    cdef int _set_adrift(self, Executor executor) except -1:
        executor.drifts += 1
        ptl_store(&executor.lead, ADRIFT)
        ptl_fence()
        if not executor.is_watched and ptl_move(&executor.worker.word, 0, WATCH):
            ptl_wake(&executor.worker.word)
        return 0

    cdef int _end_drifts(self) except -1:
        """Something is queued that has no future."""
        cdef Executor executor
        for executor in self.executors:
            if ptl_load(&executor.lead) == ADRIFT and ptl_move(&executor.lead, ADRIFT, HELD):
                self._hand_over(executor)
        return 0

    # -- the pump ----------------------------------------------------------------------

    def pump(self, Executor executor):
        """Run what is not led by its caller, whenever there is something, until `end_pump`.

        Several requests are sent ahead, so that the instance need not wait for this thread, nor
        this one for the GIL, between two of them; those that it has not begun with are taken back
        when it turns out to be slow.
        """
        while True:
            self._rest(executor)
            self._pump(executor)
            if executor.is_ended:
                return

    cdef void _rest(self, Executor executor) noexcept:
        """Sleep until the pump is to lead its instance, or finds it adrift."""
        cdef uint32_t *word = &executor.worker.word
        cdef uint64_t seen = executor.drifts
        cdef int64_t look_ns = FIRST_LOOK_NS
        with nogil:
            while True:
                if ptl_move(word, RUNG, 0):
                    # While somebody else leads, it is rung for its end only, and then again.
                    if ptl_load(&executor.lead) != ASSISTED:
                        ptl_move(&executor.lead, ADRIFT, HELD)
                        break
                ptl_move(word, WATCH, 0)
                if ptl_load(&executor.lead) == ADRIFT or executor.drifts != seen:
                    executor.is_watched = True
                    seen = executor.drifts
                    ptl_sleep(word, 0, 0, look_ns)
                    if executor.drifts == seen and ptl_move(&executor.lead, ADRIFT, HELD):
                        executor.is_assisted = False
                        break
                    look_ns = min(2 * look_ns, <int64_t> LAST_LOOK_NS)
                    continue
                look_ns = FIRST_LOOK_NS
                executor.is_watched = False
                ptl_fence()
                if ptl_load(&executor.lead) != ADRIFT:
                    ptl_sleep(word, 0, 0, 0)

    cdef int _pump(self, Executor executor) except -1:
        cdef ptl_node *nodes[MOST_AHEAD]
        cdef CallSlot slot
        cdef list slots = []
        cdef int count
        executor.contract.may_leave = False
        if executor.handed is not None:
            slots.append(executor.handed)
            executor.handed = None
        while True:
            self._send_ahead(executor, slots)
            slots.clear()
            while executor.left is not None or executor.sent:
                if self._step(executor, 0) == STEP_AWAITED and self._may_drift(executor, 1):
                    self._set_adrift(executor)  # who slept for it most likely waits for the next, too
                    return 0
            if executor.is_ended:
                return 0
            count = ptl_release_many(&self.queue, &executor.worker, nodes, self._room(executor))
            if not count:
                return 0
            slots = self._slots_of(nodes, count)
            if count > 1:
                continue
            slot = slots[0]
            if slot.node.thread_waits:
                slots.clear()
                if self._let_lead(executor, slot):
                    return 0
            slot = None

    # -- what an instance is sent ahead ------------------------------------------------

    cdef int _room(self, Executor executor) noexcept:
        """How many requests to send ahead: what takes the instance no more than a moment."""
        cdef int64_t usual_ns = executor.contract.usual_ns
        if self.is_iterative or usual_ns == 0:
            return 1
        return <int> max(1, min(<int64_t> MOST_AHEAD, AHEAD_NS // usual_ns))

    cdef bint _has_space(self, Executor executor) noexcept:
        # No more than what surely fits: the instance may wait for us to read its answers.
        return executor.contract.sent_bytes <= executor.mark + AHEAD_BYTES

    cdef int _promote(self, Executor executor, int64_t now=0) except -1:
        """Make the first request that was sent ahead the one to wait for, if there is none."""
        cdef InferenceRequest request
        if executor.left is None and executor.sent:
            request = executor.sent.pop(0)
            executor.mark = executor.marks.pop(0)
            executor.left = request
            executor.left_ns = now or ptl_now_ns()
            executor.patience_ns = executor.left_ns + PATIENCE_NS
            executor.running = request.slot
        return 0

    cdef int _step(self, Executor executor, int64_t deadline_ns) except -1:
        """Wait for the next answer of an instance that has something to do, deliver it and send more."""
        cdef CallSlot slot
        cdef object outcome
        cdef int64_t patience_ns
        cdef int done
        self._promote(executor)
        slot = executor.running
        patience_ns = executor.patience_ns if executor.sent else 0
        if patience_ns and (not deadline_ns or patience_ns < deadline_ns):
            deadline_ns = patience_ns
        executor.contract.deadline_ns = deadline_ns
        outcome = self._run_surely(executor, slot)
        if executor.worker.is_retired or (
            patience_ns and outcome is LEFT and ptl_now_ns() >= patience_ns
        ):
            self._take_back(executor)
            executor.patience_ns = 0
        if outcome is LEFT:
            return STEP_LEFT
        done = STEP_AWAITED if slot.is_awaited and self.sleepers == 1 else STEP_DONE
        executor.is_assisted = slot.is_awaited or (executor.is_assisted and slot.has_future)
        executor.running = None
        if outcome is not PENDING:
            slot.finish_and_wake(outcome)
        slot = outcome = None
        if executor.sent and self.queue.depth:
            self._top_up(executor)
        return done

    cdef int _top_up(self, Executor executor) except -1:
        """Send an instance that has little to do what is queued."""
        cdef ptl_node *nodes[MOST_AHEAD]
        cdef int room = self._room(executor), count = <int> len(executor.sent)
        if count > room // 2:
            return 0
        count = ptl_take_more(&self.queue, &executor.worker, nodes, room - count)
        return self._send_ahead(executor, self._slots_of(nodes, count))

    cdef list _slots_of(self, ptl_node **nodes, int count):
        cdef CallSlot slot
        cdef list slots = []
        cdef int i
        for i in range(count):
            slot = <CallSlot> nodes[i].owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slots`
            slots.append(slot)
        return slots

    cdef int _send_ahead(self, Executor executor, list slots) except -1:
        """Send the requests of slots to the instance: they are added to `Executor.sent`."""
        cdef Contract contract = executor.contract
        cdef CallSlot slot
        cdef InferenceRequest request
        cdef object outcome
        cdef Py_ssize_t i
        cdef int64_t began = 0
        if executor.left is None and not executor.sent:
            executor.mark = contract.sent_bytes
            began = ptl_now_ns()
        for i in range(len(slots)):
            slot = slots[i]
            if not self._has_space(executor):
                return self._put_back(slots[i:])
            if not ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                continue
            request = slot.request
            slot.request = None
            request.slot = slot
            slot.runner = contract
            try:
                outcome = contract.begin(request, slot.form)
            except BaseException as error:
                outcome = defect(contract, error)
            if outcome is None:
                executor.sent.append(request)
                executor.marks.append(contract.sent_bytes)
                if began:  # it is not ahead of others
                    self._promote(executor, began)
                    began = 0
                if not slot.has_future:
                    executor.unassisted = max(executor.unassisted, slot.call)
                continue
            if outcome is UNBEGUN:
                self._put_back(slots[i + 1:])
                outcome = self._queue_first(executor, slot, request)
                if outcome is not PENDING:
                    slot.finish_and_wake(outcome)
                return 0
            slot.finish_and_wake(outcome)
        return 0

    cdef int _take_back(self, Executor executor) except -1:
        """Queue again what was sent ahead and not begun with."""
        cdef Contract contract = executor.contract
        cdef InferenceRequest request
        cdef CallSlot slot
        cdef list back = [], sent = executor.sent, marks = executor.marks
        cdef Py_ssize_t i, kept = 0
        for i in range(len(sent)):
            request = sent[i]
            slot = request.slot
            if not contract.recall(slot, True):
                sent[kept] = request
                marks[kept] = marks[i]
                kept += 1
                continue
            slot.runner = None
            slot.request = request
            slot.call = 0
            if ptl_move(&slot.node.word, PTL_RUNNING, PTL_QUEUED):
                back.append(slot)
            else:
                slot.request = None  # given up meanwhile
        request = None
        del sent[kept:], marks[kept:]
        return self._put_back(back)

    cdef object _run_surely(self, Executor executor, CallSlot slot):
        try:
            return self._run(executor, slot)
        except BaseException as error:
            return defect(executor.contract, error)
