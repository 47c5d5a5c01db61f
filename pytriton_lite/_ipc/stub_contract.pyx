# cython: language_level=3, freethreading_compatible=True
"""The stub's side of an instance in a process of its own.

A `StubContract` is the contract itself. It takes its requests from the ring `calls`, one by one or
in batches, and answers into `answers`; what response senders send goes aside. See protocol.pxd.

Memory: inputs belong to the request; one that the model keeps stays as it is, since its block is
given back when the last array over it goes. Small outputs are copied when they are sent. Large ones
that nobody else can reach go over as they are, see wire.pyx, and of all others a copy does; so the
model may use its arrays anew at once.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

import os
import sys
import threading
import traceback

from pytriton_lite._core.answer cimport FORM_REPLY
from pytriton_lite._core.array cimport SHARE_ALL, SHARE_SMALL
from pytriton_lite._core.contract cimport PENDING, RESCHEDULED, Contract
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport (
    STREAM_ENDED, STREAM_FULL, STREAM_OK, CallSlot, StreamBuffer, signal_slice,
)
from pytriton_lite._core.sync cimport *
from pytriton_lite._ipc.protocol cimport *
from pytriton_lite._ipc.segment import BrokenSegmentError
from pytriton_lite._ipc.stub_bls cimport StubQueue
from pytriton_lite._ipc.wire cimport Link, Reader, Writer, new_writer
from pytriton_lite.errors import TritonError, UnavailableError

cdef object _SKIPPED = object()     # of a call that the server has taken back


cdef class StubContract(Contract):
    """`Contract` of the one instance in a stub.

    Parameters
    ----------
    link
        The stub's end.
    all_outputs
        Names that a request asks for which names none, in order.
    """

    def __init__(self, object model, *, Link link, tuple all_outputs, **options):
        super().__init__(model, **options)
        self.link = link
        self.all_outputs = all_outputs
        link.shares_inputs = self.share_memory == SHARE_ALL
        # Small arrays are copied when they are sent; the others must be nobody else's then.
        self.share_memory = SHARE_SMALL
        self.copies_waiting = True
        self.slots = {}
        self.parked = {}
        self.early = set()

    def serve(self):
        """Run what the server sends, on this thread, until it says STOP or is gone."""
        cdef Reader record
        cdef list batch = []
        cdef int flags
        while True:
            if self.link.put_off:
                record = self.link.put_off.popleft()
            else:
                record = self.link.receive(False, 0)
            if record.kind == CALL or record.kind == AGAIN:
                flags = record.u8()
                if not batch and not flags & CALL_MORE:
                    self._run_one(record, flags)
                    continue
                batch.append((record, flags))
                if not flags & CALL_MORE:
                    self._run_all(batch)
                    batch = []
            elif record.kind == BLS_RESPONSE:
                # `execute` was interrupted while it waited for it; reading gives its memory back.
                record.u8()
                record.outcome(self.model_name, self.model_version)
            elif record.kind == STOP:
                return
            else:
                raise BrokenSegmentError(f"no record of the server has kind {record.kind}")

    cdef int _run_one(self, Reader record, int flags) except -1:
        self.began_ns = ptl_now_ns()
        request = self._accept(record, flags)
        record = None
        if type(request) is not InferenceRequest:
            return self._answer(<CallSlot> request, (<CallSlot> request).outcome, False)
        # The variable holds the only reference that the runtime has.
        outcome = self.run(<InferenceRequest> request, 1, FORM_REPLY)
        return self._settled(<InferenceRequest> request, 1, outcome, False)

    cdef int _run_all(self, list records) except -1:
        """Run a batch, without what the server has taken back."""
        cdef list taken = [], requests = [], outcomes
        cdef Py_ssize_t i, at = 0, count = len(records)
        self.began_ns = ptl_now_ns()
        for record, flags in records:
            request = self._accept(record, flags)
            taken.append(request if type(request) is CallSlot else None)
            if type(request) is InferenceRequest:
                requests.append(request)
        record = request = None
        records.clear()
        outcomes = self.run_batch(requests, [FORM_REPLY] * len(requests)) if requests else []
        for i in range(count):
            if taken[i] is not None:
                self._answer(<CallSlot> taken[i], (<CallSlot> taken[i]).outcome, i + 1 < count)
                continue
            request = requests[at]
            self._settled(<InferenceRequest> request, 2, outcomes[at], i + 1 < count)
            at += 1
        return 0

    cdef object _accept(self, Reader record, int flags):
        """Begin with a call: its request; or the slot of one that is not to run, with its outcome."""
        cdef CallSlot slot
        cdef InferenceRequest request
        cdef int64_t limit
        cdef uint64_t *claim = <uint64_t *> (self.link.segment.memory + CLAIMS_BEGIN) + record.call % CLAIMS
        if record.kind == AGAIN:
            request = self.parked.pop(record.call, None)
            if request is not None:
                return request
            slot = CallSlot.__new__(CallSlot)
            slot.call = record.call
            slot.outcome = UnavailableError("the request was cancelled")  # a moment ago
            return slot
        slot = CallSlot.__new__(CallSlot)
        slot.call = self.newest = record.call
        limit = record.i64()
        if not flags & CALL_UNCLAIMED and not ptl_move_64(
            claim, CLAIM_STATES * record.call + CLAIM_OFFERED, CLAIM_STATES * record.call + CLAIM_TAKEN
        ):
            record.request(self.all_outputs)  # gives its blocks back
            self.early.discard(record.call)
            slot.outcome = _SKIPPED
            return slot
        slot.node.word = PTL_RUNNING
        slot.runner = self
        if flags & CALL_STREAMS:
            slot.stream = _stream(self, record.call, limit)
        self.slots[record.call] = slot
        if record.call in self.early:
            self.early.remove(record.call)
            self._abandon(slot, False)
        try:
            request = record.request(self.all_outputs)
        except TritonError as error:  # no memory, say
            slot.has_failed = True
            slot.outcome = error
            return slot
        slot.request_id = request.id or None
        request.slot = slot
        return request

    cdef int _settled(
        self, InferenceRequest request, Py_ssize_t holders, object outcome, bint is_quiet
    ) except -1:
        """Answer with the outcome of a request that has run; `is_quiet` as of `Link.send`."""
        cdef CallSlot slot = request.slot
        cdef Writer record
        if outcome is not PENDING and outcome is not RESCHEDULED:
            return self._answer(slot, outcome, is_quiet)
        if outcome is RESCHEDULED:
            self.parked[slot.call] = self.again(request, holders)
        record = new_writer(self.link)
        self._begin_answer(
            record, slot, ANSWER_PENDING if outcome is PENDING else ANSWER_RESCHEDULED
        )
        return self.link.send(record, False, ANSWER, slot.call, 0, is_quiet)

    cdef object _execute(self, list requests):
        cdef object returned
        try:
            returned = Contract._execute(self, requests)
        except BaseException as error:
            if self.link.is_inherited():
                _end_child(error)
            raise
        if self.link.is_inherited():
            _end_child(None)
        return returned

    cdef int _answer(self, CallSlot slot, object outcome, bint is_quiet) except -1:
        """Answer with what `execute` returned, or why it did not run."""
        cdef Writer record = new_writer(self.link)
        if outcome is _SKIPPED:
            self._begin_answer(record, slot, ANSWER_SKIPPED)
            return self.link.send(record, False, ANSWER, slot.call, 0, is_quiet)
        self.slots.pop(slot.call, None)
        slot.runner = slot.outcome = None
        ptl_store(&slot.node.word, PTL_DONE)
        self._begin_answer(record, slot, ANSWER_OUTCOME)
        try:
            record.outcome(outcome)
        except TritonError as error:  # a tensor on a device; no room
            record.rewind()
            slot.has_failed = True
            self._begin_answer(record, slot, ANSWER_OUTCOME)
            record.outcome(self.failure(str(error), error, slot.request_id or ""))
        self.link.has_told = False
        return self.link.send(record, False, ANSWER, slot.call, 0, is_quiet)

    cdef int _begin_answer(self, Writer record, CallSlot slot, int state) except -1:
        record.u8(state)
        record.u8((ANSWER_FAILED if slot.has_failed else 0) | (ANSWER_TOLD if self.link.has_told else 0))
        record.i64(ptl_now_ns() - self.began_ns)
        return 0

    # -- response senders --------------------------------------------------------------

    cdef str obstacle(self):
        if not self.link.is_inherited():
            return None
        return "Unable to send response. This process is a forked child of the instance's: send there."

    cdef int answered(self, CallSlot slot) except -1:
        """A response sender is closed: send what it has for a caller who takes one response."""
        cdef object outcome = None
        Contract.answered(self, slot)
        self.slots.pop(slot.call, None)
        if slot.stream is None and ptl_load(&slot.node.word) == PTL_DONE:
            outcome = slot.outcome
            slot.outcome = None
        return self._respond(slot.call, outcome, True)

    cdef int _respond(self, uint64_t call, object outcome, bint ends) except -1:
        cdef Writer record = new_writer(self.link)
        record.u8((RESPONSE_HOLDS if outcome is not None else 0) | (RESPONSE_ENDS if ends else 0))
        if outcome is not None:
            try:
                record.outcome(outcome)
            except TritonError as error:
                record.rewind()
                record.u8(RESPONSE_HOLDS | (RESPONSE_ENDS if ends else 0))
                record.outcome(self.failure(str(error), error, ""))
        try:
            self.link.send(record, True, RESPONSE, call)
        except UnavailableError:
            # The server is gone, and this process ends in a moment; or it is a forked child, where
            # senders may go with the rest of its memory.
            pass
        return 0

    # -- what comes at any time --------------------------------------------------------

    def cancelled(self, Reader record):
        """CANCEL: on the thread that reads what comes aside."""
        self._cancel(record)

    cdef int _cancel(self, Reader record) except -1:
        cdef bint is_soft = record.u8()
        cdef CallSlot slot = self.slots.get(record.call)
        if slot is not None:
            self._abandon(slot, is_soft)
        elif record.call > self.newest:
            self.early.add(record.call)
        return 0

    cdef int given_up(self, CallSlot slot, bint is_soft) except -1:
        """The model has given up a BLS request of its own."""
        (<StubQueue> slot.queue).give_up(slot.call, CANCEL_SOFT if is_soft else CANCEL_HARD)
        return 0

    cdef int _abandon(self, CallSlot slot, bint is_soft) except -1:
        """The caller has given a request up; the model can see it, and what it sends is dropped."""
        slot.is_given_up = True
        if is_soft:
            return 0
        ptl_move(&slot.node.word, PTL_RUNNING, PTL_ABANDONED)
        if slot.stream is not None:
            slot.stream.discard()
        self.parked.pop(slot.call, None)
        return 0

    def credited(self, Reader record):
        """CREDIT: on the thread that reads what comes aside."""
        cdef CallSlot slot = self.slots.get(record.call)
        cdef int64_t count = record.i64()
        if slot is not None and slot.stream is not None:
            (<StubStream> slot.stream).credit(count)


cdef class StubStream(StreamBuffer):
    """Sends responses to the server at once, as many as its reader keeps up with."""

    cdef int push(self, Reply response, bint is_last, bint may_overflow) except -1:
        if self.home.link.is_inherited():
            return STREAM_ENDED  # some thread of the parent may have the lock
        with self.order:
            if self.is_discarded or self.is_ended:
                return STREAM_ENDED
            if self.limit and self.pushed - self.credited >= self.limit and not may_overflow:
                return STREAM_FULL
            self.pushed += 1
            response.final = is_last
            self.home._respond(self.call, response, False)
            self.is_ended = is_last
        return STREAM_OK

    cdef int end(self) except -1:
        ptl_lock(&self.lock)
        self.is_ended = True
        ptl_store(&self.room, self.room + 1)
        ptl_unlock(&self.lock)
        ptl_wake(&self.room)
        return 0

    cdef int discard(self) except -1:
        self.is_discarded = True
        return self.end()

    cdef int wait_for_room(self) except -1:
        cdef uint32_t room
        cdef int64_t slice_ns = signal_slice()
        ptl_lock(&self.lock)
        room = self.room
        if self.is_ended or self.pushed - self.credited < self.limit:
            ptl_unlock(&self.lock)
            return 0
        ptl_unlock(&self.lock)
        with nogil:
            ptl_sleep(&self.room, room, 0, slice_ns)
        return 0

    def credit(self, int64_t count):
        """The reader has read so many responses by now."""
        ptl_lock(&self.lock)
        self.credited = count
        ptl_store(&self.room, self.room + 1)
        ptl_unlock(&self.lock)
        ptl_wake(&self.room)


def _end_child(error):
    """End a forked child that has come out of `execute`, where its parent goes on."""
    cdef object code = 1
    if type(error) is SystemExit:
        code = 0 if error.code is None else error.code
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    else:
        if error is not None:
            traceback.print_exception(error)
        print(
            "a forked child of the model's process left `execute`; it must end there, by os._exit()",
            file=sys.stderr,
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


cdef StubStream _stream(StubContract home, uint64_t call, int64_t limit):
    cdef StubStream made = StubStream(limit)
    made.home = home
    made.call = call
    made.order = threading.Lock()
    return made
