# cython: language_level=3, freethreading_compatible=True
"""The server's side of an instance in another process.

A `RemoteContract` takes the place of the `Contract` that runs in the stub. Its `run` sends the
request and waits for the answer on the thread that calls it. Responses of senders, which come at
any time, are read by one more thread (`Link.read_aside`).

Everything that comes from the stub is checked; one that breaks the rules is ended.
"""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._core.answer cimport FORM_ARRAYS
from pytriton_lite._core.contract cimport LEFT, PENDING, RESCHEDULED, Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.sync cimport *
from pytriton_lite._ipc.protocol cimport *
from pytriton_lite._ipc.segment import BrokenSegmentError
from pytriton_lite._ipc.wire cimport Link, Reader, Writer, new_writer
from pytriton_lite.errors import CancelledError, TritonError


cdef enum:
    # How often a thread that leads for a stub looks whether that stub is still there.
    LOOK_NS = 100_000_000


cdef class RemoteContract(Contract):
    """Runs requests on the stub at the other end of `link`.

    Parameters
    ----------
    link
        The server's end.
    model_name, model_version, instance_name, model_file, is_decoupled, is_iterative
        As of `Contract`.
    all_outputs
        Names that a request asks for which names none, in order.
    bls
        Takes the BLS requests of the instance.
    make_dead_error
        ``make_dead_error()`` gives the error for requests that a dead stub had.
    on_broken
        ``on_broken(error)`` ends a stub that does not keep the rules.
    """

    def __init__(
        self, Link link, *, str model_name, long model_version, str instance_name, str model_file,
        bint is_decoupled, bint is_iterative, tuple all_outputs, BlsPort bls, make_dead_error,
        on_broken,
    ):
        self.link = link
        self.model_name = model_name
        self.model_version = model_version
        self.instance_name = instance_name
        self.model_file = model_file
        self.is_decoupled = is_decoupled
        self.is_iterative = is_iterative
        self.all_outputs = all_outputs
        self.bls = bls
        bls.contract = self
        self.make_dead_error = make_dead_error
        self.on_broken = on_broken
        self.pending = {}
        self.slots = {}
        self.recalled = set()

    # -- execute -----------------------------------------------------------------------

    cdef object run(self, InferenceRequest request, Py_ssize_t holders, int form):
        outcome = self.begin(request, form)
        return self._await() if outcome is None else outcome

    cdef object begin(self, InferenceRequest request, int form):
        cdef CallSlot slot = request.slot
        cdef Writer record
        cdef bint is_again = request.home is self and slot.call in self.slots
        self.has_failed = False
        self.executions += 1
        self.form = form
        if not is_again:
            if slot.call:
                (<RemoteContract> request.home)._forget(slot)
            self.calls += 1
            slot.call = self.calls
            self.slots[slot.call] = slot
            request.home = self
        self.current = slot
        try:
            record = new_writer(self.link)
            if is_again:
                self.link.send(record, False, AGAIN, slot.call)
                return None
            record.u8(0 if slot.stream is None else CALL_STREAMS)
            record.i64(0 if slot.stream is None else slot.stream.limit)
            if slot.stream is not None and slot.stream.limit:
                slot.stream.report_reading(_Credit(self, slot.call))
            record.request(request, self.all_outputs)
            self.sent_bytes += record.size
            ptl_store_64(self._claim(slot.call), CLAIM_STATES * slot.call + CLAIM_OFFERED)
            self.link.send(record, False, CALL, slot.call)
        except TritonError as error:
            return self._lost(error)
        return None

    cdef object resume(self, CallSlot slot, int form, int64_t deadline_ns):
        self.current = slot
        self.form = form
        self.deadline_ns = deadline_ns
        return self._await()

    cdef uint64_t *_claim(self, uint64_t call) noexcept:
        return <uint64_t *> (self.link.segment.memory + CLAIMS_BEGIN) + call % CLAIMS

    cdef bint recall(self, CallSlot slot, bint is_queued_again) except -1:
        if not ptl_move_64(
            self._claim(slot.call), CLAIM_STATES * slot.call + CLAIM_OFFERED,
            CLAIM_STATES * slot.call + CLAIM_RECALLED,
        ):
            return False
        if is_queued_again:
            self.slots.pop(slot.call, None)
            self.recalled.add(slot.call)
        return True

    cdef object _await(self):
        """Wait for the outcome of `current`, and run the BLS requests that it waits for itself."""
        cdef Reader record
        try:
            while True:
                if self.bls.inner is not None and self.bls.run_inner() is LEFT:
                    return LEFT
                record = self._receive()
                if record is None:
                    return LEFT
                if record.kind == BLS:
                    self.bls.begin_inner(record)
                    continue
                if record.call not in self.recalled:
                    return self._outcome(record)
                self.recalled.remove(record.call)
        except TritonError as error:
            return self._lost(error)
        except BaseException as error:  # of a signal handler
            self.interrupt = error
            return LEFT

    cdef Reader _receive(self):
        """The next record, or None when this thread need not wait for it."""
        cdef int64_t limit
        while True:
            limit = self.deadline_ns
            if self.may_leave and self.current.waiter is not None:
                # It may find out at any time that the answer is not wanted; nothing else wakes it.
                limit = ptl_now_ns() + LOOK_NS
                if self.deadline_ns and self.deadline_ns < limit:
                    limit = self.deadline_ns
            try:
                return self.link.receive(False, limit)
            except TimeoutError:
                if limit == self.deadline_ns or self.is_unwanted():
                    return None

    cdef bint is_unwanted(self) except -1:
        cdef CallSlot slot = self.current
        if slot is None or not self.may_leave:
            return False
        if ptl_load(&slot.node.word) != PTL_RUNNING:
            return True
        return slot.waiter is not None and (<Contract> slot.waiter).is_unwanted()

    cdef bint may_be_answered(self, CallSlot slot) except -1:
        return slot in self.open_slots or (slot is self.current and self.bls.has_sender)

    cdef object _outcome(self, Reader record):
        cdef CallSlot slot = self.current
        cdef int state
        if record.kind != ANSWER or record.call != slot.call:
            raise BrokenSegmentError(f"a record of kind {record.kind} came in place of an answer")
        self.current = None
        self.awaits_coroutine = self.bls.has_sender = False
        state = record.u8()
        self.has_failed = record.u8()
        self.usual_ns += (record.i64() - self.usual_ns) // 8
        if state == ANSWER_RESCHEDULED:
            return RESCHEDULED
        if state == ANSWER_PENDING:
            if slot.call in self.slots:  # else the sender has answered meanwhile
                self.open_slots[slot] = None
            return PENDING
        self.slots.pop(slot.call, None)
        if state == ANSWER_SKIPPED:
            return CancelledError("", model=self.model_name, request_id=slot.request_id)
        outcome = record.outcome(self.model_name, self.model_version)
        if self.form == FORM_ARRAYS and type(outcome) is Reply and (<Reply> outcome).bfloat16_names is None:
            return (<Reply> outcome).payloads
        return outcome

    cdef object _lost(self, object error):
        """The outcome of a request that could not be sent, or whose answer does not come."""
        cdef CallSlot slot = self.current
        self.current = None
        self.slots.pop(slot.call, None)
        self.has_failed = True
        if isinstance(error, BrokenSegmentError):
            self.on_broken(error)
        if self.link.is_closed or isinstance(error, BrokenSegmentError):
            failure = self.make_dead_error()
            failure.__cause__ = error if isinstance(error, BrokenSegmentError) else None
            return failure
        return error

    cdef InferenceRequest again(self, InferenceRequest request, Py_ssize_t holders):
        return request

    cdef int _forget(self, CallSlot slot) except -1:
        """A rescheduled request goes on elsewhere."""
        if self.slots.pop(slot.call, None) is not None:
            self.given_up(slot, False)
        return 0

    cdef int given_up(self, CallSlot slot, bint is_soft) except -1:
        cdef Writer record
        if not is_soft:
            self.recall(slot, False)  # else it has begun
        try:
            record = new_writer(self.link)
            record.u8(is_soft)
            self.link.send(record, True, CANCEL, slot.call)
        except TritonError:
            pass  # it is gone
        return 0

    # -- what comes at any time --------------------------------------------------------

    def responded(self, Reader record):
        """RESPONSE: on the thread that reads what comes aside."""
        cdef CallSlot slot = self.slots.get(record.call)
        cdef int flags = record.u8()
        cdef object outcome = None
        cdef Reply reply
        if flags & RESPONSE_HOLDS:
            outcome = record.outcome(self.model_name, self.model_version)
        if slot is None:
            return  # the caller has gone
        if slot.stream is not None and outcome is not None:
            reply = self.reply_of(outcome, slot.request_id or "")
            reply.final = record.is_final
            slot.stream.push(reply, reply.final, True)
            outcome = None
        if not flags & RESPONSE_ENDS:
            return
        self.slots.pop(record.call, None)
        # Without an outcome `execute` returns one, and its thread waits for that.
        if outcome is not None or slot.stream is not None or slot in self.open_slots:
            slot.finish_and_wake(outcome)
        self.answered(slot)

    def fail_all(self):
        """The stub is gone: answer what it had, but for what a thread waits for on the ring."""
        cdef CallSlot slot
        self.bls.fail_all()
        for slot in list(self.slots.values()):
            if slot is not self.current:
                self.slots.pop(slot.call, None)
                slot.finish_and_wake(self.make_dead_error())
                self.answered(slot)


cdef class _Credit:
    """Tells a sender in a stub how many of its responses have been read."""

    cdef RemoteContract contract
    cdef uint64_t call

    def __cinit__(self, RemoteContract contract, uint64_t call):
        self.contract = contract
        self.call = call

    def __call__(self, int64_t count):
        cdef Writer record
        try:
            record = new_writer(self.contract.link)
            record.i64(count)
            self.contract.link.send(record, True, CREDIT, self.call)
        except TritonError:
            pass  # it is gone
