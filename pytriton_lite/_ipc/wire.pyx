# cython: language_level=3, freethreading_compatible=True
"""What a server and a stub tell each other: records with tensors in them, and who holds the memory.

A record begins with the offsets of blocks that its sender gives back, so that this costs no record
of its own. Small tensors lie in the record, larger ones in a block of shared memory, which
the receiver holds from then on: the array that it gets there keeps the block. There are three kinds:

    the sender's arena      the data was copied into a block; or, of a stub's output that is nobody
                            else's, it was born there (numpy_memory.pyx)
    the receiver's arena    the block came from there before, and is given back as it is: an input
                            that is an output
    callers' memory         the caller made the array with `Server.empty`; the stub reads it there. If
                            models may share memory, an output can lie there, too

Layout of a record's payload; numbers are little-endian and not aligned::

    uint32 n, n x uint64        blocks that are free again: offsets in the receiver's arena or, with
                                CALLERS added, in callers' memory
    ...                         by kind

    text        uint32 bytes, UTF-8 (surrogates pass)
    json        text
    blobs       uint32 n, n x (int64 bytes, bytes): what JSON cannot carry, at the end of a question
    tensor      uint8 data type, uint8 number of dims, uint8 place, int64 bytes, n x int64 dims,
                text name, then the data (place 0), or int64 offset of its block in the sender's arena
                (place 1), in the receiver's arena (place 2), in callers' memory (place 3); in place 3
                then int64 distance from the block's begin
    request     int64 batch size, uint32 flags, text id, json of what few requests have,
                uint32 n, n x tensor
    bls request text model asked, int64 version, uint32 flags, text id, uint32 n, n x text outputs,
                json of what few requests have, uint32 n, n x tensor
    outcome     uint8: 0 response, 1 error; then text id and, of a response, uint8 final, json of its
                parameters, uint32 n, n x tensor; of an error json

What a record says is checked when it is read, in both directions: who writes may be broken. BYTES
travel in Triton's serialized form.
"""
cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

import collections
import json as json_module
import logging
import struct
import threading
import time
from enum import IntEnum

from pytriton_lite._core.array cimport (
    DT_BF16, DT_BYTES, DT_COUNT, MAX_NDIM, SMALL_BYTES, ArrayView, MemoryOwner, array_of_memory, describe,
    item_size, owner_of, private_copy, view_of_memory,
)
from pytriton_lite._core.bytes_tensor import deserialize_bytes_tensor, serialize_byte_tensor
from pytriton_lite._core.dlpack cimport DLPackTensor
from pytriton_lite._core.message cimport NO_DETAILS, InferenceRequest, RequestDetails
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.sync cimport ptl_now_ns
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite._ipc cimport protocol
from pytriton_lite._ipc.arena cimport Arena, Block, Returns
from pytriton_lite._ipc.arena import borrow
from pytriton_lite._ipc.caller_memory cimport CallerMemory
from pytriton_lite._ipc.exceptions import error_to_wire, error_of_wire
from pytriton_lite._ipc.segment cimport Consumer, Producer, Segment, forked_error
from pytriton_lite._ipc.segment import BrokenSegmentError
from pytriton_lite.errors import InternalError, UnavailableError, UnsupportedError

cdef object _log = logging.getLogger("pytriton_lite.ipc")

cdef enum:
    # Up to this size a tensor travels in the record: three copies more, but no block.
    INLINE_BYTES = SMALL_BYTES
    FIRST_CAPACITY = 1024
    # A record whose payload is in a block, since it is too large for a ring.
    KIND_LARGE = 0x80000000
    # So many bytes that wait to be given back are worth a record.
    MANY_BYTES = 64 << 20
    # Without a record for so long a side gives memory back to the system.
    IDLE_NS = 10_000_000_000

cdef uint64_t CALLERS = <uint64_t> 1 << 62

cdef enum:
    PLACE_HERE = 0
    PLACE_ARENA = 1
    PLACE_BACK = 2
    PLACE_CALLERS = 3

# What the array of a tensor that was read is, if its memory is not the reader's own.
cdef enum:
    VIEW_NOT = 0
    VIEW_OF_RECORD = 1
    VIEW_OF_CALLERS = 2


class RecordKind(IntEnum):
    """Kinds of records that Python code deals with, of protocol.pxd."""

    PLAN = protocol.PLAN
    STOP = protocol.STOP
    LOADED = protocol.LOADED
    FAILED = protocol.FAILED
    CANCEL = protocol.CANCEL
    CREDIT = protocol.CREDIT
    REPLY = protocol.REPLY
    ASK = protocol.ASK
    RESPONSE = protocol.RESPONSE
    TELL = protocol.TELL
    STARTED = protocol.STARTED
    BLS = protocol.BLS
    BLS_RESPONSE = protocol.BLS_RESPONSE
    BLS_CANCEL = protocol.BLS_CANCEL
    BLS_CREDIT = protocol.BLS_CREDIT
    BLS_WAITS = protocol.BLS_WAITS


cdef class Link:
    """One side's ends of everything that a server and a stub share.

    Parameters
    ----------
    segment
        The shared memory.
    is_stub
        Which side this is.
    callers
        Memory that callers have inputs in, or None.
    yield_ns
        How long a reader that the other side waits for looks for a record before it sleeps, in
        nanoseconds, at most. To wake a thread takes 5 to 150 us, depending on the machine, and who
        looks for less than the other side takes to wake up makes that side sleep, too, time and again.
    """

    def __init__(
        self, Segment segment, *, bint is_stub, CallerMemory callers=None, int64_t yield_ns=50_000,
    ):
        self.segment = segment
        self.is_stub = is_stub
        self.arena = Arena(segment, of_stub=is_stub)
        self.put_off = collections.deque()
        self.returns = Returns()
        self.callers = callers
        self.lent = {}
        self.lending = threading.Lock()
        if is_stub:
            self.main_in = segment.consumer("calls", yield_ns=yield_ns)
            self.main_out = segment.producer("answers")
            self.side_in = segment.consumer("to_stub")
            self.side_out = segment.producer("to_server")
        else:
            self.main_out = segment.producer("calls")
            self.main_in = segment.consumer("answers", yield_ns=yield_ns)
            self.side_out = segment.producer("to_stub")
            self.side_in = segment.consumer("to_server", yield_ns=yield_ns)

    @property
    def is_forked(self):
        """Whether this process is a forked child of the one that made the link: it has no part in it."""
        return bool(self.is_inherited())

    cdef bint is_inherited(self) noexcept:
        return self.main_out.is_inherited()

    def close(self):
        """The other process is gone: who waits for it gets UnavailableError, now and later."""
        self.is_closed = True
        self.main_in.close()
        self.main_out.close()
        self.side_in.close()
        self.side_out.close()
        with self.lending:
            lent, self.lent = self.lent, {}
        lent.clear()  # without the lock: blocks go with it

    def post(self, uint32_t kind, uint64_t call, text, data, *, bint aside=True, tuple blobs=()):
        """Send a text and something that JSON can carry, and bytes."""
        cdef Writer record = new_writer(self)
        cdef bytes blob
        if text is not None:
            record.text(text)
        record.json(data)
        if blobs:
            record.u32(len(blobs))
            for blob in blobs:
                record.i64(PyBytes_GET_SIZE(blob))
                memcpy(record.grow(PyBytes_GET_SIZE(blob)), PyBytes_AS_STRING(blob), PyBytes_GET_SIZE(blob))
        self.send(record, aside, kind, call)
        if kind == protocol.TELL:
            self.has_told = True

    def post_quietly(self, uint32_t kind, str text, data):
        """`post` aside something small that the other side reads when it is awake anyway, or wants to."""
        cdef Writer record = new_writer(self)
        record.text(text)
        record.json(data)
        if record.size > self.side_out.largest:
            self.send(record, True, kind, 0)
        else:
            self.side_out.put(kind, 0, record.data, record.size, 0, True)
            record.is_sent = True

    def read_aside(self, dict handlers):
        """Read what does not wait its turn, on this thread, until the link is closed.

        Parameters
        ----------
        handlers
            Kind of record to ``function(record)``.

        Raises
        ------
        BrokenSegmentError
            The other side does not keep the rules.
        """
        cdef Reader record
        while True:
            self.done_aside = self.side_in.ring.mine
            if self.returns.bytes > MANY_BYTES:
                self._give_back()
            try:
                record = self.receive(True, ptl_now_ns() + IDLE_NS)
            except TimeoutError:
                self.arena.settle()
                self._give_back()
                continue
            except UnavailableError:
                return
            if record.kind == protocol.RETURNED:
                continue
            function = handlers.get(record.kind)
            if function is None:
                raise BrokenSegmentError(f"no record of this side has kind {record.kind}")
            try:
                function(record)
            except BrokenSegmentError:
                raise
            except Exception:
                _log.exception("a record of kind %d could not be dealt with; please report this", record.kind)

    def wait_until_read_aside(self, double limit_s):
        """Wait until what the other side has put aside by now has been dealt with.

        What it posted before an answer was put aside before the answer came.
        """
        cdef uint64_t until = self.side_in.ring.head.tail
        cdef int64_t deadline_ns = ptl_now_ns() + <int64_t> (limit_s * 1e9)
        self.side_in.rouse()
        while <int64_t> (until - self.done_aside) > 0 and ptl_now_ns() < deadline_ns:
            time.sleep(100e-6)  # who reads needs no longer than this for all but slow answers

    def next(self, *, bint aside, int64_t deadline_ns=0):
        """`receive` for Python code."""
        return self.receive(aside, deadline_ns)

    def _give_back(self):
        """Send what else would wait for the next record, if there is room."""
        cdef Writer record
        if not self.returns.queue:
            return
        record = new_writer(self)
        try:
            self.side_out.put(protocol.RETURNED, 0, record.data, record.size, ptl_now_ns() + 1_000_000)
            record.is_sent = True
        except (TimeoutError, UnavailableError):
            pass

    cpdef int lend(self, Block block) except -1:
        """The stub holds a block of callers' memory once more."""
        cdef _Lending lending
        with self.lending:
            if self.is_closed:
                raise UnavailableError("the other process is gone")
            lending = self.lent.get(block.offset)
            if lending is None:
                lending = self.lent[block.offset] = _Lending.__new__(_Lending)
                lending.block = block
            lending.count += 1
        return 0

    cdef Block block_lent(self, uint64_t offset):
        """A block of callers' memory that the stub holds."""
        cdef _Lending lending
        with self.lending:
            lending = self.lent.get(offset)
        if lending is None:
            raise BrokenSegmentError(f"no block of callers' memory at offset {offset} is handed out")
        return lending.block

    cdef int end_lending(self, uint64_t offset) except -1:
        """The stub holds it once less."""
        cdef _Lending lending
        with self.lending:
            lending = self.lent.get(offset)
            if lending is None:
                if self.is_closed:
                    return 0
                raise BrokenSegmentError(f"no block of callers' memory at offset {offset} is handed out")
            lending.count -= 1
            if not lending.count:
                del self.lent[offset]
        return 0

    cdef int send(
        self, Writer record, bint aside, uint32_t kind, uint64_t call, int64_t deadline_ns=0,
        bint is_quiet=False,
    ) except -1:
        """Put a record into a ring; its blocks belong to the other side if this does not raise.

        With `is_quiet` who reads it may be left asleep: another record follows at once.
        """
        cdef Producer ring = self.side_out if aside else self.main_out
        cdef Writer outer
        cdef Block block
        if record.size > ring.largest:
            block = self.arena.allocate(record.size)
            if block is None:
                raise _no_room(self, record.size)
            memcpy(block.memory, record.data, record.size)
            outer = new_writer(self)
            outer.lend(block)
            outer.i64(record.size)
            outer.i64(block.offset)
            ring.put(kind | KIND_LARGE, call, outer.data, outer.size, deadline_ns, is_quiet)
            outer.is_sent = True
        else:
            ring.put(kind, call, record.data, record.size, deadline_ns, is_quiet)
        record.is_sent = True
        if record.given_back is not None:
            for block in record.given_back:
                block.returns = None
        return 0

    cdef Reader receive(self, bint aside, int64_t deadline_ns):
        """Take the next record; see `Consumer.pull` for what it raises."""
        cdef Reader made = Reader.__new__(Reader)
        cdef Consumer ring = self.side_in if aside else self.main_in
        cdef int64_t size
        cdef Block block
        made.link = self
        made.open(ring.get(&made.kind, &made.call, deadline_ns))
        if made.kind & KIND_LARGE:
            made.kind &= ~<uint32_t> KIND_LARGE
            size = made.i64()
            if size < 0:
                raise BrokenSegmentError(f"no block has {size} bytes")
            block = made.block(PLACE_ARENA, size)
            made.open(self.copied(block.memory, size))
        return made

    cdef bytes copied(self, const char *data, int64_t size):
        """What lies in a block of the other side, which has written it: that takes memory."""
        if not self.is_stub and size > <int64_t> self.segment.resident_bytes():
            raise BrokenSegmentError(f"{size} bytes in shared memory were never written")
        return PyBytes_FromStringAndSize(data, size)


cdef class _Lending:
    """A block of callers' memory that a stub holds so many times."""

    cdef Block block
    cdef Py_ssize_t count


cdef object _no_room(Link link, int64_t size):
    if link.is_inherited():
        return forked_error()
    return InternalError(f"there is no room for {size} bytes in the memory shared with the stub process")


cdef Writer new_writer(Link link):
    cdef Writer made = Writer.__new__(Writer)
    cdef Py_ssize_t count
    made.link = link
    count = len(link.returns.queue)
    if count:
        link.returns.bytes = 0
    made.u32(count)
    while count:
        count -= 1
        made.i64(link.returns.queue.popleft())
    made.begin = made.size
    return made


@cython.final
@cython.freelist(8)
cdef class Writer:
    """A record in the making."""

    def __dealloc__(self):
        cdef uint32_t count = 0
        cdef int64_t token
        if not self.is_sent and self.size >= 4:
            # What it would have given back is given back with the next one, and what it lent is not.
            memcpy(&count, self.data, 4)
            while count and 4 + 8 * <Py_ssize_t> count <= self.size:
                memcpy(&token, self.data + 4 + 8 * (count - 1), 8)
                self.link.returns.queue.append(token)
                count -= 1
            self.unlend()
        free(self.data)

    cdef int rewind(self) except -1:
        """Begin anew: something else is to be sent."""
        # The record itself must go, since it gives blocks back.
        self.size = self.begin
        return self.unlend()

    cdef int unlend(self) except -1:
        """What would have been handed over is not."""
        cdef list lent = self.lent
        cdef int64_t token
        self.lent = self.given_back = None
        if lent is not None:
            for token in lent:
                if token & CALLERS:
                    self.link.end_lending(token ^ CALLERS)
                else:
                    self.link.arena.take_back(token)
        return 0

    cdef int lend(self, Block block) except -1:
        """Hand over a block of this side's arena, or one of callers' memory."""
        if block.arena is self.link.arena:
            return self.lend_at(block.offset)
        self.link.lend(block)
        self._note(block.offset | CALLERS)
        return 0

    cdef int lend_at(self, uint64_t offset) except -1:
        self.link.arena.lend(offset)
        return self._note(offset)

    cdef int _note(self, uint64_t token) except -1:
        if self.lent is None:
            self.lent = []
        self.lent.append(token)
        return 0

    cdef int place_of(self, Block block, const char *data) except -1:
        """How the receiver can have the array of a block at once, or PLACE_HERE. Does what that takes."""
        cdef Link link = self.link
        if self.reads:
            if link.callers is None or block.arena is not link.callers.arena:
                return PLACE_HERE
            self.lend(block)
            return PLACE_CALLERS
        if block.returns is not link.returns:
            return PLACE_HERE
        if block.token & CALLERS:
            if not link.shares_inputs:
                return PLACE_HERE
        elif data != block.memory:
            return PLACE_HERE
        if self.given_back is None:
            self.given_back = []
        self.given_back.append(block)
        return PLACE_CALLERS if block.token & CALLERS else PLACE_BACK

    cdef int head(self, str name, int data_type, ArrayView *view, int place, int64_t size) except -1:
        """All of a tensor but where its data is."""
        self.u8(data_type)
        self.u8(view.ndim)
        self.u8(place)
        self.i64(size)
        memcpy(self.grow(8 * view.ndim), view.dims, 8 * view.ndim)
        return self.text(name)

    cdef char *grow(self, Py_ssize_t count) except NULL:
        """Place for `count` bytes more."""
        cdef char *place
        cdef Py_ssize_t capacity = self.capacity
        if self.size + count > capacity:
            capacity = max(2 * capacity, self.size + count, FIRST_CAPACITY)
            place = <char *> realloc(self.data, capacity)
            if place == NULL:
                raise MemoryError
            self.data = place
            self.capacity = capacity
        place = self.data + self.size
        self.size += count
        return place

    cdef int u8(self, int value) except -1:
        self.grow(1)[0] = <char> value
        return 0

    cdef int u32(self, uint32_t value) except -1:
        memcpy(self.grow(4), &value, 4)
        return 0

    cdef int i64(self, int64_t value) except -1:
        memcpy(self.grow(8), &value, 8)
        return 0

    cdef int text(self, str value) except -1:
        cdef bytes encoded
        try:
            encoded = PyUnicode_AsUTF8String(value)
        except UnicodeEncodeError:
            encoded = value.encode("utf-8", "surrogatepass")
        self.u32(<uint32_t> PyBytes_GET_SIZE(encoded))
        memcpy(self.grow(PyBytes_GET_SIZE(encoded)), PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded))
        return 0

    cdef int json(self, object value) except -1:
        if value is None:
            return self.u32(0)
        return self.text(json_module.dumps(value))

    cdef int tensor(self, str name, object array, int data_type) except -1:
        """Append a tensor. `array` is as `Tensor.wire`.

        Its data is copied, unless `gives` or `reads` allows less.
        """
        cdef ArrayView view
        cdef int64_t size
        cdef int i, place
        cdef Block block = None
        cdef uint64_t offset
        cdef MemoryOwner owner
        cdef bytes serialized = None
        cdef const char *data
        cdef char *to
        if type(array) is DLPackTensor:
            raise UnsupportedError(
                f"tensor '{name}' is on a device: only tensors in CPU memory go to and from a stub process"
            )
        if not describe(array, &view):
            raise InternalError(f"tensor '{name}' holds no array")
        if not view.is_contiguous:
            array = private_copy(array)
            describe(array, &view)
        if data_type == DT_BYTES:
            serialized = serialize_byte_tensor(array) or b""
            data = PyBytes_AS_STRING(serialized)
            size = PyBytes_GET_SIZE(serialized)
        else:
            data = <const char *> view.data
            size = item_size(data_type)
            for i in range(view.ndim):
                size *= view.dims[i]
        if size <= INLINE_BYTES:
            self.head(name, data_type, &view, PLACE_HERE, size)
            memcpy(self.grow(size), data, size)
            return 0
        if serialized is None and (self.gives or self.reads):
            owner = owner_of(array)
            block = <Block> owner if type(owner) is Block else None
            if block is not None:
                place = self.place_of(block, data)
                if place != PLACE_HERE:
                    self.head(name, data_type, &view, place, size)
                    self.i64(block.offset)
                    return self.i64(data - block.memory) if place == PLACE_CALLERS else 0
            offset = self.link.arena.lendable(data, size) if self.gives else 0
            if offset:
                self.lend_at(offset)
                self.head(name, data_type, &view, PLACE_ARENA, size)
                return self.i64(offset)
        block = self.link.arena.allocate(size)
        if block is None:
            raise _no_room(self.link, size)
        to = block.memory
        with nogil:
            memcpy(to, data, size)
        self.lend(block)
        self.head(name, data_type, &view, PLACE_ARENA, size)
        return self.i64(block.offset)

    cdef int request(self, InferenceRequest request, tuple all_outputs) except -1:
        """Append a request. What it asks for is left out if it is `all_outputs`."""
        cdef RequestDetails details = request.details
        self.reads = not self.link.is_stub
        self.i64(request.batch_size)
        self.u32(request.request_flags)
        self.text(request.id)
        if details is NO_DETAILS and request.output_names is all_outputs:
            self.u32(0)
        else:
            self.json(_rare_of(request, all_outputs))
        return self.tensors(request.tensors)

    cdef int bls_request(self, InferenceRequest request, str target) except -1:
        """Append a request of model code to the model `target`."""
        cdef RequestDetails details = request.details
        self.text(target)
        self.i64(details.target_version)
        self.u32(request.request_flags)
        self.text(request.id)
        self.u32(len(request.output_names))
        for name in request.output_names:
            self.text(name)
        self.json(_details_of(details) or None)
        return self.tensors(request.tensors)

    cdef int tensors(self, list tensors) except -1:
        cdef Tensor tensor
        self.u32(len(tensors))
        for tensor in tensors:
            self.tensor(
                tensor.tensor_name, tensor.wire if tensor.device is None else tensor.device, tensor.data_type
            )
        return 0

    cdef int outcome(self, object outcome) except -1:
        cdef Reply reply
        if type(outcome) is not Reply or (<Reply> outcome).error is not None:
            if type(outcome) is Reply:
                reply = outcome
                self.u8(1)
                self.text(reply.request_id)
                self.u8(reply.final)
                return self.json(error_to_wire(reply.error))
            self.u8(1)
            self.text(getattr(outcome, "request_id", None) or "")
            self.u8(1)
            return self.json(error_to_wire(outcome))
        reply = outcome
        # A stub's own answers are nobody else's (`AnswerMaker.make`).
        self.gives = self.link.is_stub
        self.u8(0)
        self.text(reply.request_id)
        self.u8(reply.final)
        self.json(reply.parameter_values or None)
        self.u32(len(reply.payloads))
        for name, payload in reply.payloads.items():
            self.tensor(name, payload, reply.type_number_of(name))
        return 0


cdef dict _rare_of(InferenceRequest request, tuple all_outputs):
    """What few requests have, as JSON can carry it."""
    cdef RequestDetails details = request.details
    cdef dict rare = _details_of(details)
    if request.output_names != all_outputs:
        rare["outputs"] = request.output_names
    if details.is_self_made:
        rare["model"] = details.target_model
        rare["version"] = details.target_version
    return rare or None


cdef dict _details_of(RequestDetails details):
    cdef dict rare = {}
    if details.correlation != 0:
        rare["correlation"] = details.correlation
    if details.timeout_us:
        rare["timeout"] = details.timeout_us
    if details.priority:
        rare["priority"] = details.priority
    if details.parameters:
        rare["parameters"] = details.parameters
    return rare


cdef RequestDetails _read_details(object rare):
    cdef RequestDetails made = RequestDetails.__new__(RequestDetails)
    if rare is None:
        return made
    try:
        made.correlation = rare.get("correlation", 0)
        made.timeout_us = rare.get("timeout", 0)
        made.priority = rare.get("priority", 0)
        made.parameters = rare.get("parameters")
    except (AttributeError, OverflowError, TypeError) as error:
        raise BrokenSegmentError(f"a request holds no details: {error}") from error
    if type(made.correlation) not in (int, str):
        raise BrokenSegmentError("a request holds no correlation id")
    return made


@cython.final
@cython.freelist(8)
cdef class Reader:
    """A record that came, and what of it was not read yet."""

    cdef int open(self, bytes payload) except -1:
        """Begin to read: take back what the other side gives back."""
        cdef uint32_t count
        cdef uint64_t token
        self.payload = payload
        self.at = PyBytes_AS_STRING(payload)
        self.left = PyBytes_GET_SIZE(payload)
        count = self.u32()
        while count:
            token = self.i64()
            count -= 1
            if token & CALLERS and not self.link.is_stub:
                self.link.end_lending(token ^ CALLERS)
            else:
                self.link.arena.take_back(token)
        return 0

    cdef const char *take(self, Py_ssize_t count) except NULL:
        cdef const char *here = self.at
        if count < 0 or count > self.left:
            raise BrokenSegmentError(f"a record ends {count - self.left} bytes too early")
        self.at += count
        self.left -= count
        return here

    cdef int u8(self) except -1:
        return <uint8_t> self.take(1)[0]

    cdef uint32_t u32(self) except? 0xFFFFFFFF:
        cdef uint32_t value
        memcpy(&value, self.take(4), 4)
        return value

    cdef int64_t i64(self) except? -1:
        cdef int64_t value
        memcpy(&value, self.take(8), 8)
        return value

    cpdef str text(self):
        cdef uint32_t count = self.u32()
        try:
            return PyUnicode_DecodeUTF8(self.take(count), count, "surrogatepass")
        except UnicodeDecodeError as error:
            raise BrokenSegmentError("a record holds text that is no UTF-8") from error

    cpdef object json(self):
        cdef str text = self.text()
        if not text:
            return None
        try:
            return json_module.loads(text)
        except (ValueError, RecursionError) as error:
            raise BrokenSegmentError("a record holds text that is no JSON") from error

    def blobs(self):
        """What `Link.post` was given beside its data, if this is all that is left."""
        cdef list found = []
        cdef uint32_t count = self.u32() if self.left else 0
        cdef int64_t size
        while count:
            count -= 1
            size = self.i64()
            found.append(PyBytes_FromStringAndSize(self.take(size), size))
        return tuple(found)

    cdef object array(self, bint may_view):
        """The next tensor: its array, whose memory belongs to who reads; sets `name` and `data_type`.

        With `may_view` it may also be a read-only view of the record; then `is_view` is set.
        """
        cdef int64_t[64] dims
        cdef int i, data_type, ndim, place
        cdef int64_t size, expected, count = 1
        cdef const char *data
        cdef object array
        cdef Block block
        data_type = self.data_type = self.u8()
        ndim = self.u8()
        place = self.u8()
        size = self.i64()
        if not 0 < data_type < DT_COUNT or ndim > MAX_NDIM or place > PLACE_CALLERS:
            raise BrokenSegmentError(f"no tensor has data type {data_type} and {ndim} dims")
        memcpy(dims, self.take(8 * ndim), 8 * ndim)
        self.name = self.text()
        self.is_view = VIEW_NOT
        for i in range(ndim):
            if dims[i] < 0 or (dims[i] and count > (<int64_t> 1 << 60) // dims[i]):
                raise BrokenSegmentError(f"no tensor has shape {[dims[j] for j in range(ndim)]}")
            count *= dims[i]
        expected = size if data_type == DT_BYTES else count * item_size(data_type)
        if size < 0 or size != expected:
            raise BrokenSegmentError(f"tensor '{self.name}' needs {expected} bytes, and {size} came")
        if place == PLACE_HERE:
            data = self.take(size)
            if data_type != DT_BYTES:
                self.is_view = VIEW_OF_RECORD if may_view else VIEW_NOT
                if may_view:
                    return view_of_memory(<void *> data, ndim, dims, NULL, data_type, self.payload, False)
                return array_of_memory(data, ndim, dims, data_type)
            encoded = PyBytes_FromStringAndSize(data, size)
        else:
            block = self.block(place, size)
            data = block.memory + self.distance
            self.is_view = VIEW_OF_CALLERS if place == PLACE_CALLERS else VIEW_NOT
            if data_type != DT_BYTES:
                return view_of_memory(<void *> data, ndim, dims, NULL, data_type, block, self.is_view == VIEW_NOT)
            encoded = self.link.copied(data, size)
        try:
            array = deserialize_bytes_tensor(encoded)
        except struct.error as error:
            raise BrokenSegmentError(f"tensor '{self.name}' holds no BYTES elements: {error}") from error
        if array.size != count:
            raise BrokenSegmentError(f"tensor '{self.name}' needs {count} elements, and {array.size} came")
        return array.reshape([dims[i] for i in range(ndim)])

    cdef Block block(self, int place, int64_t size):
        """The block of the tensor at hand; sets `distance`, where in it the tensor begins."""
        cdef Link link = self.link
        cdef int64_t offset = self.i64()
        cdef Block block
        self.distance = 0
        if offset < 0:
            raise BrokenSegmentError(f"no block is at offset {offset}")
        if place == PLACE_ARENA:
            return borrow(link.segment, offset, size, of_stub=not link.is_stub, release=link.returns)
        if place == PLACE_BACK:
            return link.arena.adopt(offset, size)
        if place != PLACE_CALLERS or link.callers is None:
            raise BrokenSegmentError(f"no tensor is in a place of kind {place}")
        self.distance = self.i64()
        if self.distance < 0 or self.distance > (<int64_t> 1 << 61) or size > (<int64_t> 1 << 61):
            raise BrokenSegmentError(f"no tensor begins at byte {self.distance} of a block")
        if link.is_stub:
            return link.callers.borrowed(offset, self.distance + size, offset | CALLERS, link.returns)
        block = link.block_lent(offset)
        if self.distance + size > <int64_t> block.size:
            raise BrokenSegmentError(
                f"{size} bytes at byte {self.distance} do not lie in a block of {block.size} bytes"
            )
        link.end_lending(offset)
        return block

    cdef list tensors(self):
        """Tensors for model code, as inputs of a request.

        Of one that was copied into a block, `as_numpy()` gives the memory itself, which nobody else
        uses. A small one and one in callers' memory are as in process: `as_numpy()` gives a private
        copy, or with `share_memory` the memory.
        """
        cdef uint32_t count = self.u32()
        cdef list made = []
        cdef Tensor tensor
        cdef bint is_shown
        while count:
            count -= 1
            tensor = Tensor.__new__(Tensor)
            tensor.wire = self.array(True)
            tensor.tensor_name = self.name
            tensor.data_type = self.data_type
            tensor.is_foreign = self.is_view != VIEW_NOT
            is_shown = self.is_view == VIEW_NOT or self.is_view == VIEW_OF_CALLERS and self.link.shares_inputs
            if is_shown and tensor.data_type != DT_BF16 and tensor.data_type != DT_BYTES:
                tensor.shown = tensor.wire
            made.append(tensor)
        return made

    cdef InferenceRequest request(self, tuple all_outputs):
        """A request; `all_outputs` are the names that it asks for if it says nothing of them."""
        cdef InferenceRequest made = InferenceRequest.__new__(InferenceRequest)
        cdef RequestDetails details
        made.batch_size = self.i64()
        made.request_flags = self.u32()
        made.id = self.text()
        made.output_names = all_outputs
        rare = self.json()
        if rare is not None:
            made.output_names = tuple(rare.get("outputs", all_outputs))
            details = _read_details(rare)
            if "model" in rare:
                details.is_self_made = True
                details.target_model = rare["model"]
                details.target_version = rare["version"]
            made.details = details
        made.tensors = self.tensors()
        return made

    cdef InferenceRequest bls_request(self):
        """What `Writer.bls_request` wrote, as model code would have made it in this process."""
        cdef InferenceRequest made = InferenceRequest.__new__(InferenceRequest)
        cdef RequestDetails details
        cdef uint32_t count
        cdef str target = self.text()
        cdef int64_t version = self.i64()
        made.request_flags = self.u32()
        made.id = self.text()
        count = self.u32()
        made.output_names = tuple([self.text() for _ in range(count)])
        details = _read_details(self.json())
        details.is_self_made = True
        details.target_model = target
        details.target_version = version
        made.details = details
        made.tensors = self.tensors()
        return made

    cpdef object outcome(self, str model_name, long model_version):
        """What `Writer.outcome` wrote, a `Reply` or an exception; sets `is_final`."""
        cdef Reply reply
        cdef uint32_t count
        cdef int is_error = self.u8()
        cdef str request_id = self.text()
        self.is_final = self.u8()
        if is_error:
            return error_of_wire(self.json(), model_name, request_id or None)
        reply = Reply.__new__(Reply)
        reply.request_id = request_id
        reply.final = self.is_final
        reply.parameter_values = self.json()
        reply.model_name = model_name
        reply.model_version = model_version
        reply.payloads = {}
        count = self.u32()
        while count:
            count -= 1
            array = self.array(False)
            reply.payloads[self.name] = array
            if self.data_type == DT_BF16:
                if reply.bfloat16_names is None:
                    reply.bfloat16_names = set()
                reply.bfloat16_names.add(self.name)
        return reply
