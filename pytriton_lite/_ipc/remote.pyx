# cython: language_level=3, freethreading_compatible=True
"""The server's side of an instance in another process.

A `RemoteContract` takes the place of the `Contract` that runs in the stub. Its `run` sends the
request and waits for the answer on the thread that calls it. Responses of senders, which come at
any time, are read by one more thread (`Link.read_aside`).

Everything that comes from the stub is checked; one that breaks the rules is ended.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.answer cimport FORM_ARRAYS
from pytriton_lite._core.contract cimport LEFT, PENDING, RESCHEDULED, UNBEGUN, Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer, stamp
from pytriton_lite._core.sync cimport *
from pytriton_lite._ipc.protocol cimport *
from pytriton_lite._ipc.segment import BrokenSegmentError
from pytriton_lite._ipc.wire cimport Link, Reader, Writer, new_writer
from pytriton_lite.errors import CancelledError, TritonError

cdef enum:
    # What the server sends must fit into a ring within this time: a stub that lives reads, on a
    # thread of its own, what does not wait its turn, and no more calls are sent than fit.
    SENDING_NS = 10_000_000_000
    # How often a thread that leads for a stub looks whether that stub is still there.
    LOOK_NS = 100_000_000

# What `execute` has logged is there when its answer is, unless a log handler is slow.
cdef double TELLING_S = 0.2


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
        cdef bint is_again = self._take_in(request, slot, True)
        self.has_failed = False
        self.executions += 1
        self.form = form
        self.current = slot
        if slot.stream is not None:
            slot.began_ns = ptl_now_ns()  # responses may come before anybody waits for the outcome
        try:
            record = self._call_record(request, slot, is_again, 0)
            self._send(record, False, AGAIN if is_again else CALL, slot.call)
        except TritonError as error:
            return self._lost(slot, error)
        slot.inputs_ns = ptl_now_ns()
        self.outputs_ns = 0
        return None

    cdef bint _take_in(self, InferenceRequest request, CallSlot slot, bint has_claim) except -1:
        """Note a request that is to be sent; whether the stub has it, rescheduled."""
        if request.home is self and slot.call in self.slots:
            return True
        if slot.call:
            (<RemoteContract> request.home)._forget(slot)
        self.calls += 1
        slot.call = self.calls
        self.slots[slot.call] = slot
        request.home = self
        if has_claim:
            ptl_store_64(self._claim(slot.call), CLAIM_STATES * slot.call + CLAIM_OFFERED)
        return False

    cdef Writer _call_record(self, InferenceRequest request, CallSlot slot, bint is_again, int flags):
        cdef StreamBuffer stream = slot.stream
        cdef Writer record = new_writer(self.link)
        if is_again:
            record.u8(flags)
            return record
        record.u8(flags if stream is None else flags | CALL_STREAMS)
        record.i64(0 if stream is None else stream.limit)
        if stream is not None and stream.limit:
            stream.report_reading(_Credit(self, slot.call))
        record.request(request, self.all_outputs)
        self.sent_bytes += record.size
        return record

    cdef list run_batch(self, list requests, list forms):
        cdef InferenceRequest request
        self.has_failed = False
        self.executions += 1
        self.batch = [request.slot for request in requests]
        self.forms = forms
        self.outcomes = [None] * len(requests)
        self._send_batch(requests)
        self.inputs_ns = ptl_now_ns()
        self.outputs_ns = 0
        return None if self.interrupt is not None else self._await_batch()

    cdef list resume_batch(self, int64_t deadline_ns):
        self.deadline_ns = deadline_ns
        return self._await_batch()

    cdef int _send_batch(self, list requests) except -1:
        cdef InferenceRequest request
        cdef CallSlot slot
        cdef Writer record, held = None     # sent when it is known whether another one follows
        cdef uint32_t kind = 0
        cdef uint64_t call = 0
        cdef list again = []
        cdef Py_ssize_t i
        for i in range(len(requests)):
            request = requests[i]
            again.append(self._take_in(request, request.slot, i < CLAIMS))
        try:
            for i in range(len(requests)):
                request = requests[i]
                slot = request.slot
                try:
                    record = self._call_record(
                        request, slot, again[i], CALL_MORE if i < CLAIMS else CALL_MORE | CALL_UNCLAIMED
                    )
                except Exception as error:  # a tensor on a device; no room
                    self.outcomes[i] = self._lost(slot, error)
                    continue
                if held is not None:
                    self._send_surely(held, kind, call, True)
                held = record
                kind = AGAIN if again[i] else CALL
                call = slot.call
            if held is not None:
                held.data[held.begin] &= ~CALL_MORE
                self._send_surely(held, kind, call, False)
        except TritonError as error:
            for i in range(len(requests)):
                if self.outcomes[i] is None:
                    self.outcomes[i] = self._lost(self.batch[i], error)
        return 0

    cdef int _send_surely(self, Writer record, uint32_t kind, uint64_t call, bint is_quiet) except -1:
        """Send one record of a batch, which must not be left half sent when a signal handler raises."""
        while True:
            try:
                self._send(record, False, kind, call, is_quiet)
                return 0
            except TritonError:
                raise
            except BaseException as error:
                self.interrupt = error

    cdef list _await_batch(self):
        """Wait for what is missing of `outcomes`; None when this thread need not wait for it."""
        cdef Py_ssize_t i
        cdef list outcomes = self.outcomes
        for i in range(len(outcomes)):
            if outcomes[i] is not None:
                continue
            if self.ruin is not None:
                outcomes[i] = self._lost(self.batch[i], self.ruin)
                continue
            self.current = self.batch[i]
            self.form = self.forms[i]
            outcome = self._await()
            if outcome is LEFT:
                return None
            outcomes[i] = outcome
        self.batch = self.forms = self.outcomes = None
        return outcomes

    cdef int _send(
        self, Writer record, bint aside, uint32_t kind, uint64_t call, bint is_quiet=False
    ) except -1:
        try:
            self.link.send(record, aside, kind, call, ptl_now_ns() + SENDING_NS, is_quiet)
        except TimeoutError as error:
            raise BrokenSegmentError("the stub has stopped to read what it is sent") from error
        return 0

    cdef int _tell(self, Writer record, uint32_t kind, uint64_t call) except -1:
        """Send what is of no use to a stub that is gone."""
        try:
            self._send(record, True, kind, call)
        except BrokenSegmentError as error:
            self.on_broken(error)
        except TritonError:
            pass
        return 0

    cdef object resume(self, CallSlot slot, int form, int64_t deadline_ns):
        self.current = slot
        self.form = form
        self.deadline_ns = deadline_ns
        self.outputs_ns = 0
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
        while True:
            try:
                if self.bls.inner is not None and self.bls.run_inner() is LEFT:
                    return LEFT
                record = self._receive()
                if record is None:
                    return LEFT
                if record.kind == BLS:
                    self.bls.begin_inner(record)
                    continue
            except TritonError as error:
                return self._lost(self.current, error)
            except BaseException as error:  # of a signal handler
                self.interrupt = error
                return LEFT
            if self.outputs_ns == 0:
                self.outputs_ns = ptl_now_ns()
            if record.call in self.recalled:
                self.recalled.remove(record.call)
                continue
            try:
                outcome = self._outcome(record)
            except BrokenSegmentError as error:
                return self._lost(self.current, error)
            except Exception as error:
                return self._lost(self.current, _unreadable(error))
            self.current = None
            return outcome

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
                if not 0 < limit <= ptl_now_ns():
                    raise  # of a signal handler
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
        cdef int state, flags
        if record.kind != ANSWER or record.call != slot.call:
            raise BrokenSegmentError(f"a record of kind {record.kind} came in place of an answer")
        self.awaits_coroutine = self.bls.has_sender = False
        state = record.u8()
        flags = record.u8()
        if flags & ANSWER_FAILED:
            self.has_failed = slot.has_failed = True
        if flags & ANSWER_TOLD:
            self.link.wait_until_read_aside(TELLING_S)
        self.usual_ns += (max(0, record.i64()) - self.usual_ns) // 8
        if state == ANSWER_RESCHEDULED and self.is_iterative:
            return RESCHEDULED
        if state == ANSWER_PENDING:
            if slot.call in self.slots:  # else the sender has answered meanwhile
                self.open_slots[slot] = None
                if self.is_dead:
                    self._fail_pending(slot)
            elif ptl_load(&slot.node.word) == PTL_RUNNING and not slot.is_settled:
                raise BrokenSegmentError("a response sender was closed without a response")
            return PENDING
        if state != ANSWER_OUTCOME and (state != ANSWER_SKIPPED or not slot.is_given_up):
            raise BrokenSegmentError(f"an answer of state {state} does not fit the request")
        self.slots.pop(slot.call, None)
        if state == ANSWER_SKIPPED:
            slot.is_left_out = True
            return CancelledError("", model=self.model_name, request_id=slot.request_id)
        outcome = record.outcome(self.model_name, self.model_version)
        if self.form == FORM_ARRAYS and type(outcome) is Reply and (<Reply> outcome).bfloat16_names is None:
            return (<Reply> outcome).payloads
        return outcome

    cdef object _lost(self, CallSlot slot, object error):
        """The outcome of a request that could not be sent, or whose answer does not come."""
        self.current = None
        self.slots.pop(slot.call, None)
        if self.link.is_closed and not isinstance(error, BrokenSegmentError) and self.recall(slot, False):
            return UNBEGUN
        self.has_failed = slot.has_failed = True
        if isinstance(error, BrokenSegmentError) and self.ruin is None:
            self.ruin = error
            self.on_broken(error)
        if self.link.is_closed or isinstance(error, BrokenSegmentError):
            failure = self.make_dead_error()
            failure.__cause__ = error if isinstance(error, BrokenSegmentError) else None
            return failure
        if not isinstance(error, TritonError):
            error = self.failure(f"{type(error).__name__}: {error}", error, slot.request_id or "")
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
        record = new_writer(self.link)
        record.u8(is_soft)
        return self._tell(record, CANCEL, slot.call)

    # -- what comes at any time --------------------------------------------------------

    def responded(self, Reader record):
        """RESPONSE: on the thread that reads what comes aside."""
        cdef CallSlot slot = self.slots.get(record.call)
        cdef int flags = record.u8()
        cdef object outcome = None
        cdef StreamBuffer stream
        cdef Reply reply
        if flags & RESPONSE_HOLDS:
            try:
                outcome = record.outcome(self.model_name, self.model_version)
            except BrokenSegmentError:
                raise
            except Exception as error:
                raise _unreadable(error) from error
        if slot is None:
            return  # the caller has gone
        stream = slot.stream  # which the slot may lose at any time
        if type(outcome) is Reply:
            stamp(<Reply> outcome, slot)
        if stream is not None and outcome is not None:
            reply = self.reply_of(outcome, slot.request_id or "")
            reply.final = record.is_final
            stream.push(reply, reply.final, True)
            if stream.limit and stream.count > stream.limit + 1:
                raise BrokenSegmentError("more responses came than a stream may hold")
            outcome = None
        if not flags & RESPONSE_ENDS:
            return
        if stream is None and outcome is None and slot in self.open_slots and not slot.is_given_up:
            raise BrokenSegmentError("a response sender was closed without a response")
        # Without an outcome `execute` returns one, and its thread waits for that.
        if outcome is not None or stream is not None or slot in self.open_slots:
            slot.finish_and_wake(outcome)
        self.slots.pop(record.call, None)  # afterwards: see ANSWER_PENDING
        self.answered(slot)

    def fail_all(self):
        """The stub is gone, and what it said has been read: answer for its response senders.

        A request whose `execute` has not returned is not touched: a thread waits for it on the
        ring, or sees to it that another instance runs it.
        """
        cdef CallSlot slot
        self.bls.fail_all()
        self.is_dead = True
        for slot in list(self.open_slots):
            self._fail_pending(slot)

    def fail_open(self, make_error):
        cdef CallSlot slot
        for slot in list(self.open_slots):
            self.given_up(slot, False)
        Contract.fail_open(self, make_error)

    cdef int _fail_pending(self, CallSlot slot) except -1:
        self.slots.pop(slot.call, None)
        slot.finish_and_wake(self.make_dead_error())
        self.answered(slot)
        return 0


cdef object _unreadable(object error):
    broken = BrokenSegmentError(f"a record cannot be read: {type(error).__name__}: {error}")
    broken.__cause__ = error
    return broken


cdef class _Credit:
    """Tells a sender in a stub how many of its responses have been read."""

    cdef RemoteContract contract
    cdef uint64_t call

    def __cinit__(self, RemoteContract contract, uint64_t call):
        self.contract = contract
        self.call = call

    def __call__(self, int64_t count):
        cdef Writer record = new_writer(self.contract.link)
        record.i64(count)
        self.contract._tell(record, CREDIT, self.call)
