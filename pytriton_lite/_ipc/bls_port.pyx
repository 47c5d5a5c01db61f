# cython: language_level=3, freethreading_compatible=True
"""BLS requests of the instance in a stub, on the server's side.

They come in two ways:

* A thread of the server waits for the answer of `execute` on the ring `answers`. What the stub's
  `execute` asks on its own thread comes there, too: the thread of the server calls the
  other model itself, waits, and puts the response into the ring `calls`, where the stub waits for
  it. So no third thread is woken, and deadlocks are found as in one process. If the caller of
  `execute` gives up meanwhile, the pump of the instance goes on in its place.
* All others, of coroutines and threads of the model and those with streams, come aside. The
  thread that reads them must not wait, so it queues them only; who finishes one sends the response.

Memory: what the stub asks with has been copied by it, so the callee may have it. Responses of a
stream are held back while `BLS_WINDOW` of them are unread in the stub; then the callee's own
limit counts.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t

import threading

from pytriton_lite._core.answer cimport FORM_REPLY
from pytriton_lite._core.bls cimport BlsScope, refusal_of
from pytriton_lite._core.calls cimport ServedVersion
from pytriton_lite._core.contract cimport LEFT, Contract
from pytriton_lite._core.deadlock cimport Watch, begin_wait, end_wait
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer
from pytriton_lite._core.sync cimport ptl_lock, ptl_unlock
from pytriton_lite._ipc.look_out import LookOut
from pytriton_lite._ipc.protocol cimport *
from pytriton_lite._ipc.wire cimport Link, Reader, Writer, new_writer
from pytriton_lite._ipc.wire import RecordKind
from pytriton_lite.errors import TritonError, UnavailableError


cdef class BlsPort:
    """Takes the BLS requests of a stub.

    Parameters
    ----------
    link
        The server's end.
    find_endpoint
        As of `BlsScope`.
    name
        Of the instance, for threads.
    """

    def __init__(self, Link link, find_endpoint, str name):
        self.link = link
        self.scope = BlsScope(find_endpoint)
        self.scope.open(None)  # the stub knows when it may ask
        self.asked = {}
        self.look_out = LookOut(f"{name}-bls")

    def handlers(self):
        """Kinds of records that come aside for this, and what takes them."""
        return {
            RecordKind.BLS: self.ask,
            RecordKind.BLS_CANCEL: self.cancel,
            RecordKind.BLS_CREDIT: self.credit,
            RecordKind.BLS_WAITS: self.take_waits,
        }

    def fail_all(self):
        """The stub is gone: cancel what it has asked other models."""
        cdef CallSlot slot = self.inner
        cdef _Asked asked
        if slot is not None:
            (<RequestQueue> slot.queue).cancel(slot)
        for asked in list(self.asked.values()):
            asked.end()
            (<RequestQueue> asked.slot.queue).cancel(asked.slot)

    # -- what `execute` waits for ------------------------------------------------------

    cdef int begin_inner(self, Reader record) except -1:
        """Take a request that came in the ring `answers`."""
        cdef InferenceRequest request
        cdef ServedVersion served
        cdef CallSlot slot
        self.has_sender = record.u8() & BLS_HAS_SENDER
        request = record.bls_request()
        try:
            served = self.scope.callee_of(request)
            slot = self.scope.slot_of(served, request, False, True)
        except TritonError as error:
            return self.answer(record.call, refusal_of(request, error), False, True)
        slot.form = FORM_REPLY
        slot.waiter = self.contract
        self.is_submitted = False
        self.inner_number = record.call
        self.outer = begin_wait(self.contract, None, slot)
        self.inner = slot
        self.inner_request = request
        if self.link.is_closed:  # a moment ago, so that `fail_all` has not seen it
            (<RequestQueue> slot.queue).cancel(slot)
        return 0

    cdef object run_inner(self):
        """Run `inner` on this thread and send the response; LEFT if this thread is to leave."""
        cdef CallSlot slot = self.inner
        cdef RequestQueue queue = slot.queue
        try:
            if self.is_submitted or slot.is_given_up:
                outcome = queue.wait_again(slot, self.contract.deadline_ns)
            else:
                self.is_submitted = True
                outcome = queue.call(slot, self.contract.deadline_ns)
                while outcome is None:
                    slot = self._inner_anew()
                    queue = slot.queue
                    outcome = queue.call(slot, self.contract.deadline_ns)
            if outcome is LEFT:
                return LEFT
        except TritonError as error:
            outcome = error
        except BaseException as error:  # of a signal handler
            self.contract.interrupt = error
            return LEFT
        end_wait(self.contract, None, slot, self.outer)
        self.inner = self.outer = None
        self.inner_request = None
        slot.waiter = None
        self.answer(self.inner_number, outcome, False, True)
        return None

    cdef CallSlot _inner_anew(self):
        """`inner` for the version that has taken the place of the one that refused it."""
        cdef RequestQueue refused = self.inner.queue
        cdef ServedVersion served
        cdef CallSlot slot
        if self.link.is_closed:
            raise refused.closed_error()
        try:
            served = self.scope.successor_of(refused, self.inner_request)
            slot = self.scope.slot_of(served, self.inner_request, False, True)
        except TritonError as error:
            raise refusal_of(self.inner_request, error)
        slot.form = FORM_REPLY
        slot.waiter = self.contract
        end_wait(self.contract, None, self.inner, self.outer)
        self.outer = begin_wait(self.contract, None, slot)
        self.inner.waiter = None
        self.inner = slot
        return slot

    cdef int answer(self, uint64_t number, object outcome, bint aside, bint ends) except -1:
        """Send a response; None where there is only the end to tell of."""
        cdef Writer record = new_writer(self.link)
        cdef int flags = RESPONSE_ENDS if ends else 0
        record.u8(flags if outcome is None else flags | RESPONSE_HOLDS)
        try:
            if outcome is not None:
                record.outcome(outcome)
        except TritonError as error:  # a tensor on a device; no room
            record.rewind()
            record.u8(flags | RESPONSE_HOLDS)
            record.outcome(error)
        try:
            self.link.send(record, aside, BLS_RESPONSE, number)
        except UnavailableError:
            pass  # the stub is gone
        return 0

    # -- what comes aside, on the thread that reads it ---------------------------------

    def ask(self, Reader record):
        """BLS."""
        self._ask(record)

    cdef int _ask(self, Reader record) except -1:
        cdef bint is_decoupled = record.u8() & BLS_DECOUPLED
        cdef InferenceRequest request = record.bls_request()
        cdef _Asked asked
        cdef ServedVersion served
        cdef CallSlot slot
        try:
            served = self.scope.callee_of(request)
            slot = self.scope.slot_of(served, request, is_decoupled, True)
        except TritonError as error:
            return self.answer(record.call, refusal_of(request, error), True, True)
        slot.form = FORM_REPLY
        asked = _Asked.__new__(_Asked)
        asked.port = self
        asked.slot = slot
        asked.request = request
        asked.number = record.call
        self.asked[record.call] = asked
        if self.link.is_closed:
            self.asked.pop(record.call)
        elif served.queue.is_inline:  # would run here
            threading.Thread(
                target=asked.run, name=f"{self.contract.instance_name}-bls", daemon=True
            ).start()
        else:
            asked.begin()
        return 0

    def cancel(self, Reader record):
        """BLS_CANCEL."""
        cdef _Asked asked = self.asked.get(record.call)
        cdef CallSlot slot = self.inner
        cdef int how = record.u8()
        if slot is not None and record.call == self.inner_number:
            (<RequestQueue> slot.queue).cancel(slot)
        if asked is None:
            return
        slot = asked.slot
        if how == CANCEL_SOFT:
            (<RequestQueue> slot.queue).cancel_softly(slot)
            return
        asked.end()
        if how == CANCEL_READER and slot.stream is not None:
            slot.stream.discard()
        else:
            (<RequestQueue> slot.queue).cancel(slot)

    def credit(self, Reader record):
        """BLS_CREDIT."""
        cdef _Asked asked = self.asked.get(record.call)
        cdef int64_t count = record.i64()
        if asked is not None:
            asked.credited = count
            asked.forward()

    def take_waits(self, Reader record):
        """BLS_WAITS."""
        self._take_waits(record)

    cdef int _take_waits(self, Reader record) except -1:
        cdef int flags = record.u8()
        cdef CallSlot slot = self._waited_for(record)
        cdef uint32_t count = record.u32()
        self.contract.awaits_coroutine = flags & WAITS_AWAITS
        self.has_sender = flags & WAITS_HAS_SENDER
        if slot is not None:
            self.contract.waits_for = slot
        while count:
            count -= 1
            slot = self._waited_for(record)
            if slot is not None:
                self.contract.pending[slot] = None
        return 0

    cdef CallSlot _waited_for(self, Reader record):
        """The stream that a thread of the stub says to wait for, if that is still so."""
        cdef _Asked asked = self.asked.get(<uint64_t> record.i64())
        cdef int64_t came = record.i64()
        return None if asked is None or asked.sent != came else asked.slot


@cython.final
cdef class _Asked:
    """A request that came aside."""

    def run(self):
        """`begin`, on a thread of its own."""
        self.begin()

    def __call__(self, _=None):
        """It is finished, or there are responses; on any thread."""
        cdef CallSlot slot = self.slot
        if slot.stream is not None:
            self.forward()
            return
        self.end()
        self.port.answer(self.number, slot.take_outcome(), True, True)

    cdef int begin(self) except -1:
        """Queue it."""
        cdef CallSlot slot = self.slot
        cdef RequestQueue queue = slot.queue
        if slot.stream is None:
            self.port.contract.pending[slot] = None
            slot.notify_when_done(self)
        try:
            found_idle = queue.submit_all([slot])
            while found_idle is None:
                self._anew()
                if self.is_over:
                    return 0
                slot = self.slot
                queue = slot.queue
                found_idle = queue.submit_all([slot])
            self.request = None
            if not found_idle:
                queue.check_chain(slot)
        except TritonError as error:
            return self.fail(error)
        if not found_idle and not self.is_over:
            self.watch = Watch(slot)
            self.port.look_out.add(self, self.look)
            if self.is_over:
                self.port.look_out.discard(self)
        if slot.stream is not None:
            self.forward()
        return 0

    cdef int _anew(self) except -1:
        """Take the slot for the version that has taken the place of the one that refused it."""
        cdef BlsPort port = self.port
        cdef ServedVersion served
        cdef CallSlot slot
        try:
            served = port.scope.successor_of(<RequestQueue> self.slot.queue, self.request)
            slot = port.scope.slot_of(served, self.request, self.slot.stream is not None, True)
        except TritonError as error:
            raise refusal_of(self.request, error)
        slot.form = FORM_REPLY
        port.contract.pending.pop(self.slot, None)
        self.slot = slot
        if slot.stream is None:
            port.contract.pending[slot] = None
            slot.notify_when_done(self)
        return 0

    def look(self):
        """Fail it if it has been stuck for long."""
        try:
            (<RequestQueue> self.slot.queue).check_watched(self.watch)
        except TritonError as error:
            self.fail(error)

    cdef int fail(self, object error) except -1:
        """Nobody will run it."""
        self.end()
        return self.port.answer(self.number, error, True, True)

    cdef int end(self) except -1:
        """Nothing follows."""
        cdef Contract contract = self.port.contract
        self.is_over = True
        self.port.asked.pop(self.number, None)
        contract.pending.pop(self.slot, None)
        if contract.waits_for is self.slot:
            contract.waits_for = None
        if self.watch is not None:
            self.port.look_out.discard(self)
        return 0

    # -- streams -----------------------------------------------------------------------

    cdef int forward(self) except -1:
        """Send the responses that are there, as many as the stub keeps up with.

        Any thread may call this, also one that does already, since sending may collect garbage
        that sends.
        """
        cdef bint goes_on
        ptl_lock(&self.lock)
        self.has_more = True
        goes_on = not self.is_busy
        self.is_busy = True
        ptl_unlock(&self.lock)
        while goes_on:
            self.has_more = False
            while self._forward_one():
                pass
            ptl_lock(&self.lock)
            goes_on = self.has_more
            self.is_busy = goes_on
            ptl_unlock(&self.lock)
        return 0

    cdef bint _forward_one(self) except -1:
        """Send a response; False when there is none that may be sent."""
        cdef Contract contract = self.port.contract
        cdef StreamBuffer stream = self.slot.stream
        cdef Reply reply
        cdef bint has_ended
        if self.is_over or stream.is_discarded or self.sent - self.credited >= BLS_WINDOW:
            return False
        has_ended = stream.is_ended
        reply = stream.pop()
        if reply is None and not has_ended:
            return not stream.arm(self)
        if contract.waits_for is self.slot:
            contract.waits_for = None
        contract.pending.pop(self.slot, None)
        self.sent += 1
        if reply is None:
            self.end()
            self.port.answer(self.number, None, True, True)
            return False
        if reply.final:
            self.end()
        self.port.answer(self.number, reply, True, reply.final)
        return not reply.final
