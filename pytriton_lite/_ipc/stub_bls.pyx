# cython: language_level=3, freethreading_compatible=True
"""BLS requests of the model in a stub, on the stub's side: see bls_port.pyx.

A `StubQueue` takes the place of the queue of every model that is asked. `BlsScope` and all that
waits for responses are those of models in one process.
"""
from libc.stdint cimport int64_t, uint64_t

import itertools

from pytriton_lite._core.bls cimport target_of
from pytriton_lite._core.calls cimport ServedVersion
from pytriton_lite._core.calls import Endpoint
from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.deadlock cimport awaits_coroutine, begin_wait, end_wait
from pytriton_lite._core.input_spec cimport InputSpec
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport CallSlot, StreamBuffer
from pytriton_lite._core.sync cimport PTL_QUEUED, PTL_RUNNING, ptl_move
from pytriton_lite._ipc.protocol cimport *
from pytriton_lite._ipc.wire cimport Link, Reader, Writer, new_writer
from pytriton_lite.errors import TritonError, UnavailableError


cdef class StubQueue(RequestQueue):
    """Sends BLS requests to the server, and takes the responses.

    Parameters
    ----------
    link
        The stub's end.
    """

    def __init__(self, Link link):
        super().__init__("", is_inline=False, is_iterative=False)
        self.link = link
        self.slots = {}
        self.numbers = itertools.count(1)

    def open(self, Contract contract):
        """Speak for the instance that `contract` runs."""
        self.contract = contract

    cdef object call_from_model(self, CallSlot slot, Contract own, Contract maker):
        cdef CallSlot outer = begin_wait(own, maker, slot)
        try:
            if own is not None:
                return self._call_here(slot)
            slot.node.thread_waits = True
            self._send(slot, True)
            return self._wait(slot, 0)
        finally:
            end_wait(own, maker, slot, outer)

    cdef object _call_here(self, CallSlot slot):
        """Ask on the thread of `execute`, which reads the ring `calls`."""
        cdef uint64_t number = self._send(slot, False)
        cdef Reader record
        while True:
            try:
                record = self.link.receive(False, 0)
            except TritonError:
                raise
            except BaseException:  # of a signal handler
                self.give_up(number, CANCEL_HARD)
                raise
            if record.kind != BLS_RESPONSE:
                self.link.put_off.append(record)  # a call that was sent ahead
                continue
            record.u8()
            outcome = record.outcome("", -1)
            if record.call == number:
                break
        if type(outcome) is not Reply:
            raise outcome
        return outcome

    def submit_all(self, list slots):
        cdef CallSlot slot
        for slot in slots:
            self._send(slot, True)
        return False  # so that who waits calls `check_watched`

    cdef uint64_t _send(self, CallSlot slot, bint aside) except 0:
        """Send the request of a slot; its number."""
        cdef InferenceRequest request = slot.request
        cdef uint64_t number = next(self.numbers)
        cdef Writer record = new_writer(self.link)
        cdef BlsStream stream
        slot.request = None
        slot.call = number
        slot.runner = self.contract
        record.u8(
            (BLS_DECOUPLED if slot.stream is not None else 0)
            | (BLS_HAS_SENDER if self.contract.open_slots else 0)
        )
        record.bls_request(request, target_of(request))
        if aside:
            if slot.stream is not None:
                stream = BlsStream(BLS_WINDOW)
                stream.queue = self
                stream.number = number
                slot.stream = stream
                stream.report_reading(stream)
            self.slots[number] = slot
        try:
            self.link.send(record, aside, BLS, number)
        except BaseException:
            self.slots.pop(number, None)
            raise
        return number

    # -- what who waits does -----------------------------------------------------------

    cdef int check_chain(self, CallSlot slot) except -1:
        return 0  # the server has done it

    def check_watched(self, watch):
        """Tell the server who waits here, which knows whether that can end."""
        cdef Contract contract = self.contract
        cdef Writer record = new_writer(self.link)
        cdef CallSlot slot = contract.waits_for
        cdef list streams = [other for other in list(contract.pending) if _is_stream(other)]
        record.u8(
            (WAITS_AWAITS if awaits_coroutine(contract) else 0)
            | (WAITS_HAS_SENDER if contract.open_slots else 0)
        )
        _write_stream(record, slot if slot is not None and slot.stream is not None else None)
        record.u32(len(streams))
        for slot in streams:
            _write_stream(record, slot)
        try:
            self.link.send(record, True, BLS_WAITS, 0)
        except UnavailableError:
            pass  # the server is gone

    def cancel_softly(self, CallSlot slot):
        slot.is_given_up = True
        self.give_up(slot.call, CANCEL_SOFT)

    cdef int give_up(self, uint64_t number, int how) except -1:
        cdef Writer record = new_writer(self.link)
        if how != CANCEL_SOFT:
            self.slots.pop(number, None)
        record.u8(how)
        try:
            self.link.send(record, True, BLS_CANCEL, number)
        except UnavailableError:
            pass  # the server is gone
        return 0

    # -- what comes aside --------------------------------------------------------------

    def responded(self, Reader record):
        """BLS_RESPONSE."""
        self._take(record)

    cdef int _take(self, Reader record) except -1:
        cdef int flags = record.u8()
        cdef CallSlot slot = self.slots.get(record.call)
        cdef object outcome = None
        cdef Reply reply
        if flags & RESPONSE_HOLDS:  # read in any case, which gives its memory back
            outcome = record.outcome("", -1)
        if slot is None:
            return 0  # nobody waits any more
        if flags & RESPONSE_ENDS:
            self.slots.pop(record.call, None)
            if slot.stream is not None:
                (<BlsStream> slot.stream).has_all = True
        if slot.stream is not None and outcome is not None:
            reply = self.contract.reply_of(outcome, "")
            reply.final = flags & RESPONSE_ENDS
            slot.stream.push(reply, reply.final, True)
            outcome = None
        if flags & RESPONSE_ENDS and ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
            slot.finish_and_wake(outcome)
        return 0

    def close(self):
        """The server is gone: who waits is told."""
        cdef CallSlot slot
        for slot in list(self.slots.values()):
            if ptl_move(&slot.node.word, PTL_QUEUED, PTL_RUNNING):
                slot.finish_and_wake(UnavailableError("the server is gone"))

    def endpoint(self):
        """Where requests to any model go."""
        cdef InputSpec spec = _Unchecked.__new__(_Unchecked)
        spec.share_memory = True  # what is sent is copied anyway
        made = Endpoint(None)
        made.served = ServedVersion(spec, self, "", -1, is_decoupled=False, stream_backlog=0)
        return made


cdef bint _is_stream(CallSlot slot):
    return slot.stream is not None


cdef int _write_stream(Writer record, CallSlot slot) except -1:
    record.i64(0 if slot is None else slot.call)
    record.i64(0 if slot is None else slot.stream.pushed)
    return 0


cdef class _Unchecked(InputSpec):
    """Leaves everything to the server, which knows the model."""

    cdef InferenceRequest build_for(self, InferenceRequest source):
        return source


cdef class BlsStream(StreamBuffer):
    """Responses of a BLS request; tells the server how many were read."""

    def __call__(self, int64_t count):
        cdef Writer record
        if self.has_all:
            return
        record = new_writer(self.queue.link)
        record.i64(count)
        try:
            self.queue.link.send(record, True, BLS_CREDIT, self.number)
        except UnavailableError:
            pass  # the server is gone

    cdef int discard(self) except -1:
        cdef bint had_all = self.has_all
        self.has_all = True
        StreamBuffer.discard(self)
        if not had_all:
            self.queue.give_up(self.number, CANCEL_READER)
        return 0
