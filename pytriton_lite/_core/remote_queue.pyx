# cython: language_level=3, freethreading_compatible=True
"""The queue of a model version whose instances run in other processes, without batches.

Such an instance is led by the callers: the one that holds it talks to the process and waits for
the answer, so that no other thread of this one has to wake up. Slots that no thread waits for, what a
caller leaves behind who gives up, and the short requests of many callers at once go to the instance's
*pump*, a thread that sleeps otherwise.
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
    # What it may take for one of them before the others are taken back.
    PATIENCE_NS = 2_000_000


@cython.final
cdef class RemoteQueue(RequestQueue):
    """FIFO queue of one model version whose instances run in other processes.

    Parameters
    ----------
    model_name, is_iterative
        As of `RequestQueue`.
    """

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

    # -- the pump ----------------------------------------------------------------------

    def pump(self, Executor executor):
        """Run what is not led by its caller, whenever there is something, until `end_pump`.

        Several requests are sent ahead, so that the instance need not wait for this thread, nor
        this one for the GIL, between two of them; those that it has not begun with are taken back
        when it turns out to be slow.
        """
        cdef ptl_node *nodes[MOST_AHEAD]
        cdef CallSlot slot
        cdef list slots
        cdef int count, room
        while True:
            slot = None
            with nogil:
                while ptl_load(&executor.worker.word) == 0:
                    ptl_sleep(&executor.worker.word, 0, 0, 0)
            ptl_store(&executor.worker.word, 0)
            executor.contract.may_leave = False
            if executor.left is not None:
                slot = executor.running
                executor.contract.deadline_ns = 0
                self._finish(executor, slot, self._run_surely(executor, slot))
                slot = None
            slots = []
            if executor.handed is not None:
                slots.append(executor.handed)
                executor.handed = None
            while True:
                self._pump_slots(executor, slots)
                if executor.is_ended:
                    return
                room = self._room(executor)
                count = ptl_release_many(&self.queue, &executor.worker, nodes, room)
                if not count:
                    break
                slots = self._slots_of(nodes, count)
                if count > 1:
                    continue
                slot = slots[0]
                if slot.node.thread_waits:
                    slots.clear()
                    if self._let_lead(executor, slot):
                        break
                slot = None

    cdef int _room(self, Executor executor) noexcept:
        """How many requests to send ahead: what takes the instance no more than a moment."""
        cdef int64_t usual_ns = executor.contract.usual_ns
        if self.is_iterative or usual_ns == 0:
            return 1
        return <int> max(1, min(<int64_t> MOST_AHEAD, AHEAD_NS // usual_ns))

    cdef int _pump_slots(self, Executor executor, list slots) except -1:
        """Run queued requests one after another, and what is queued meanwhile; empties `slots`.

        So a slot, and with it the answer, is not kept while others run.
        """
        cdef ptl_node *nodes[MOST_AHEAD]
        cdef Contract contract = executor.contract
        cdef CallSlot slot
        cdef list sent = [], marks = []
        cdef InferenceRequest request
        cdef object outcome
        cdef int room
        cdef Py_ssize_t mark = contract.sent_bytes
        if len(slots) == 1:
            slot = slots.pop()
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                executor.running = slot
                contract.deadline_ns = 0
                self._finish(executor, slot, self._run_surely(executor, slot))
            return 0
        self._send_ahead(executor, slots, sent, marks, mark + AHEAD_BYTES)
        slots.clear()
        while sent:
            request = sent.pop(0)
            mark = marks.pop(0)
            slot = request.slot
            executor.running = slot
            executor.left_ns = ptl_now_ns()
            executor.left = request
            request = None
            contract.deadline_ns = executor.left_ns + PATIENCE_NS if sent else 0
            outcome = self._run_surely(executor, slot)
            if outcome is LEFT or executor.worker.is_retired:
                self._take_back(contract, sent, marks)
            if outcome is LEFT:
                contract.deadline_ns = 0
                outcome = self._run_surely(executor, slot)
            self._finish(executor, slot, outcome)
            slot = outcome = None
            room = self._room(executor)
            if not sent or not self.queue.depth or len(sent) > room // 2:
                continue
            slots = self._slots_of(nodes, ptl_take_more(&self.queue, &executor.worker, nodes, room - len(sent)))
            self._send_ahead(executor, slots, sent, marks, mark + AHEAD_BYTES)
            slots.clear()
        return 0

    cdef list _slots_of(self, ptl_node **nodes, int count):
        cdef CallSlot slot
        cdef list slots = []
        cdef int i
        for i in range(count):
            slot = <CallSlot> nodes[i].owner
            Py_DECREF(slot)  # the queue's reference is ours now, in `slots`
            slots.append(slot)
        return slots

    cdef int _send_ahead(
        self, Executor executor, list slots, list sent, list marks, Py_ssize_t limit
    ) except -1:
        """Send the requests of `slots` to the instance: they are added to `sent`, and to `marks` the
        bytes that it has been sent by then, up to `limit`."""
        cdef Contract contract = executor.contract
        cdef CallSlot slot
        cdef InferenceRequest request
        cdef object outcome
        cdef Py_ssize_t i
        for i in range(len(slots)):
            slot = slots[i]
            if contract.sent_bytes > limit:
                # No more than what surely fits: the instance may wait for us to read its answers.
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
                sent.append(request)
                marks.append(contract.sent_bytes)
            elif outcome is UNBEGUN:
                self._put_back(slots[i + 1:])
                return self._finish(executor, slot, self._queue_first(executor, slot, request))
            else:
                slot.finish_and_wake(outcome)
        return 0

    cdef int _take_back(self, Contract contract, list sent, list marks) except -1:
        """Queue again what was sent ahead and not begun with, and remove it from `sent`."""
        cdef InferenceRequest request
        cdef CallSlot slot
        cdef list back = []
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

    cdef int _finish(self, Executor executor, CallSlot slot, object outcome) except -1:
        executor.running = None
        if outcome is not PENDING:
            slot.finish_and_wake(outcome)
        return 0
