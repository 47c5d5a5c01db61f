"""A stub that writes what it likes: the server neither crashes nor hangs, and callers are told.

Records are made here by hand, from the layouts that ring.pxd and wire.pyx draw.
"""

from __future__ import annotations

import functools
import gc
import json
import mmap
import os
import struct
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite._core.calls import Endpoint, ModelCalls, ServedVersion
from pytriton_lite._core.input_spec import InputEntry, InputSpec
from pytriton_lite._core.queue import Executor
from pytriton_lite._core.remote_queue import RemoteQueue
from pytriton_lite._core.statistics import FAILURE_REASONS
from pytriton_lite._core.tensor import live_tensor_count
from pytriton_lite._instance import process
from pytriton_lite._ipc.backoff import Backoff
from pytriton_lite._ipc.bls_port import BlsPort
from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._ipc.remote import RemoteContract
from pytriton_lite._ipc.segment import BrokenSegmentError, Segment
from pytriton_lite._ipc.wire import Link, RecordKind
from tests.support.limits import until, within
from tests.support.processes import resident_bytes
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

# Kinds of protocol.pxd, and the number of FP32 and BYTES among Triton's data types.
CALL, ANSWER, REPLY, ASK, RESPONSE, TELL = 2, 7, 10, 11, 12, 13
FP32, BYTES = 11, 13
RING = ARENA = 1 << 16
# Where the second arena begins: behind the control page, four rings and the first, in pages.
STUB_ARENA = -(-(4096 + 4 * (192 + RING)) // 4096) * 4096 + ARENA
X = {"IN": np.float32([1, 2])}


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    with hard_limit(100):
        yield


# -- records ------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    encoded = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(encoded)) + encoded


def tensor(
    data: bytes, dims: tuple[int, ...], data_type: int = FP32, *,
    place: int = 0, size: int | None = None,
) -> bytes:  # fmt: skip
    head = struct.pack("<BBBq", data_type, len(dims), place, len(data) if size is None else size)
    return head + struct.pack(f"<{len(dims)}q", *dims) + text("OUT") + data


def response(*tensors: bytes, parameters: object = None) -> bytes:
    values = b"" if parameters is None else json.dumps(parameters)
    count = struct.pack("<I", len(tensors))
    return b"\0" + text("id") + b"\1" + text(values) + count + b"".join(tensors)


def error(wire: object) -> bytes:
    return b"\1" + text("id") + b"\1" + text(json.dumps(wire))


def answer(outcome: bytes = b"", state: int = 0, released: tuple[int, ...] = ()) -> bytes:
    blocks = struct.pack(f"<I{len(released)}q", len(released), *released)
    return blocks + struct.pack("<BBq", state, 0, 1000) + outcome


def sent(outcome: bytes, flags: int = 3) -> bytes:
    """The payload of a RESPONSE."""
    return struct.pack("<IB", 0, flags) + outcome


GOOD = response(tensor(np.float32([3, 4]).tobytes(), (2,)))


class Fake:
    """The server's side of an instance, and the raw memory that a stub would have."""

    def __init__(self, *, is_decoupled: bool = False, backlog: int = 4) -> None:
        segment = Segment.create(ring_bytes=RING, arena_bytes=ARENA)
        self.link = Link(segment, is_stub=False, yield_ns=0)
        self.broken: BaseException | None = None
        self.is_over = False
        self.lock = threading.Lock()
        self.bls = BlsPort(self.link, self.find_endpoint, "m_0")
        self.contract = RemoteContract(
            self.link, bls=self.bls, model_name="m", model_version=1, instance_name="m_0",
            model_file="model.py",
            is_decoupled=is_decoupled, is_iterative=False, all_outputs=("OUT",),
            make_dead_error=lambda: ptl.UnavailableError(f"dead: {self.broken}"),
            on_broken=self.end,
        )  # fmt: skip
        self.queue = RemoteQueue("m", is_iterative=False)
        self.executor = Executor(self.contract)
        entry = InputEntry("IN", FP32, (-1,), None, False)
        spec = InputSpec("m", 0, [entry], ("OUT",), share_memory=False)
        served = ServedVersion(
            spec, self.queue, "m", 1, is_decoupled=is_decoupled, stream_backlog=backlog
        )
        endpoint = Endpoint(lambda: AssertionError("no endpoint"))
        endpoint.served = served
        self.calls = ModelCalls(endpoint)
        self.asker = Asker(self.link, "m")
        self.answerer = Answerer(self.link, "m_0")
        self.segment = Segment.attach(os.dup(segment.fd))
        self.memory = mmap.mmap(segment.fd, 4096 + 4 * (192 + RING))
        self.answers = self.segment.producer("answers")
        self.aside = self.segment.producer("to_server")
        self.pump = threading.Thread(target=self.queue.pump, args=(self.executor,), daemon=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.pump.start()
        self.reader.start()
        self.queue.add_remote(self.executor)

    def find_endpoint(self, name: str, version: int) -> Endpoint:
        raise ptl.NotFoundError(f"no model {name}, {version}")

    def read(self) -> None:
        try:
            self.link.read_aside(
                {
                    RecordKind.RESPONSE: self.contract.responded,
                    RecordKind.REPLY: self.asker.replied,
                    RecordKind.ASK: self.answerer.asked,
                    RecordKind.TELL: self.answerer.told,
                    **self.bls.handlers(),
                }
            )
        except BrokenSegmentError as broken:
            self.end(broken)
        self.contract.fail_all()

    def end(self, broken: BaseException | None = None) -> None:
        """What the server does when a stub dies or is killed, but for a new one."""
        with self.lock:
            self.broken = self.broken or broken
            if self.is_over:
                return
            self.is_over = True
            self.queue.close()
            self.queue.retire(self.executor)
        self.link.close()

    def start(self) -> tuple[threading.Thread, list[Any]]:
        """Call the model on a thread; its outcome will be in the list."""
        found: list[Any] = []

        def call() -> None:
            try:
                found.append(self.calls(X))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        return thread, found

    def close(self) -> None:
        """Everything of it ends."""
        self.end()
        self.queue.fail_queued(lambda: ptl.UnavailableError("stopped"))
        self.queue.end_pump(self.executor)
        for thread in (self.pump, self.reader):
            thread.join(20)
            assert not thread.is_alive()
        self.bls.look_out.close()
        self.answerer.join(5.0)
        self.memory.close()


def outcome_of(*records: tuple[str, int, bytes], is_decoupled: bool = False) -> Any:
    """What a caller gets when a stub puts records into its rings and dies."""
    fake = Fake(is_decoupled=is_decoupled)
    try:
        thread, found = fake.start()
        calls = fake.segment.consumer("calls")
        kind, call, _ = within(20, calls.pull)
        assert (kind, call) == (CALL, 1)
        # The stub has begun with it, so that it is not left to another one.
        struct.pack_into("<Q", fake.memory, 1024 + 8, 4 * 1 + 1)
        for ring, kind, payload in records:
            (fake.answers if ring == "answers" else fake.aside).push(kind, 1, payload)
        fake.end()
        thread.join(20)
        assert found, "the caller hangs"
        return found[0]
    finally:
        fake.close()


def test_a_good_answer() -> None:
    assert outcome_of(("answers", ANSWER, answer(GOOD)))["OUT"].tolist() == [3, 4]
    pending = ("answers", ANSWER, answer(state=1))
    assert outcome_of(("aside", RESPONSE, sent(GOOD)), pending)["OUT"].tolist() == [3, 4]


BIG = 1 << 62
WRONG = {
    "nothing": b"",
    "half a head": answer()[:9],
    "an unknown state": answer(GOOD, state=77),
    "skipped, and not given up": answer(state=3),
    "rescheduled, and not iterative": answer(state=2),
    "blocks that nobody has": answer(GOOD, released=(4096,)),
    "more blocks than bytes": struct.pack("<I", 0xFFFFFFFF) + answer(GOOD),
    "a type that is none": answer(response(tensor(b"", (0,), 200))),
    "a place that is none": answer(response(tensor(b"1234", (1,), place=7))),
    "too many dims": answer(response(tensor(b"", (0,) * 65))),
    "more dims than numpy has": answer(response(tensor(b"1234", (1,) * 64 + (1,)))),
    "a negative dim": answer(response(tensor(b"1234", (-1, -1)))),
    "a product that overflows": answer(response(tensor(b"", (BIG, BIG), size=0))),
    "empty, and larger than any": answer(response(tensor(b"", (0, BIG, BIG)))),
    "more data than the record": answer(response(tensor(b"1234", (1000,), size=4000))),
    "a negative size": answer(response(tensor(b"", (1,), size=-4))),
    "no UTF-8": answer(b"\0" + text(b"\xff\xfe")),
    "no JSON": answer(b"\0" + text("id") + b"\1" + text("{")),
    "deep JSON": answer(b"\0" + text("id") + b"\1" + text("[" * 20_000)),
    "parameters that are none": answer(response(parameters=[1])),
    "more tensors than come": answer(response())[:-4] + struct.pack("<I", 0xFFFFFFFF),
    "BYTES that are none": answer(response(tensor(b"\xff\0\0\0a", (1,), BYTES))),
    "too few BYTES": answer(response(tensor(b"\1\0\0\0a", (2,), BYTES))),
    "a block before the arena": answer(
        response(tensor(struct.pack("<q", 0), (1000,), place=1, size=4000))
    ),
    "a block beyond the arena": answer(
        response(tensor(struct.pack("<q", 1 << 40), (1000,), place=1, size=4000))
    ),
    "a block at a negative offset": answer(
        response(tensor(struct.pack("<q", -4096), (1000,), place=1, size=4000))
    ),
}


@pytest.mark.parametrize("payload", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_answer(payload: bytes) -> None:
    found = outcome_of(("answers", ANSWER, payload))
    assert isinstance(found, ptl.UnavailableError)
    assert str(found) != "dead: None", "the reason is missing"


@pytest.mark.parametrize("payload", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_response_of_a_sender(payload: bytes) -> None:
    # The outcome of the wrong answer, with one head in place of the other.
    outcome = payload[14:]
    found = outcome_of(
        ("answers", ANSWER, answer(state=1)), ("aside", RESPONSE, sent(outcome)),
    )  # fmt: skip
    assert isinstance(found, (ptl.TritonError, dict))


@pytest.mark.parametrize(
    "wire",
    [None, 5, [], {}, {"code": "x"}, {"code": 99, "text": {}}, {"notes": 5}, {"cause": {"args": 3}},
     {"cause": {"module": "builtins", "name": "print", "args": ["x"]}},
     {"cause": {"module": "builtins", "name": "UnicodeDecodeError", "args": [1]}}],
)  # fmt: skip
def test_an_odd_error_is_an_error(wire: object) -> None:
    assert isinstance(outcome_of(("answers", ANSWER, answer(error(wire)))), ptl.TritonError)


def test_wrong_kinds_and_calls() -> None:
    for kind in (*range(1, 16), 0x7FFFFFFF, 0x80000000 | ANSWER, 0xFFFFFFFF):
        if kind != ANSWER:
            found = outcome_of(("answers", kind, answer(GOOD)))
            assert isinstance(found, ptl.UnavailableError)
        found = outcome_of(("aside", kind, answer(GOOD)))
        assert isinstance(found, ptl.UnavailableError)


def test_a_sender_that_closes_without_a_response() -> None:
    found = outcome_of(("answers", ANSWER, answer(state=1)), ("aside", RESPONSE, sent(b"", 2)))
    assert isinstance(found, ptl.UnavailableError)


def test_bytes_that_were_never_written() -> None:
    # Reading them would take as much memory as the stub cares to say.
    segment = Segment.create(arena_bytes=1 << 36)
    begin = segment.arena_begin(of_stub=True)
    link, other = Link(segment, is_stub=False), Link(segment, is_stub=True)
    other.segment.producer("answers").push(
        0x80000000 | ANSWER, 1, struct.pack("<Iqq", 0, 1 << 35, begin)
    )
    before = resident_bytes()
    with pytest.raises(BrokenSegmentError, match="never written"):
        link.next(aside=False)
    assert resident_bytes() - before < 1 << 24
    assert segment.resident_bytes() < 1 << 24


# -- batches ------------------------------------------------------------------------------

MORE = 2


class Batch:
    """Three requests in one `execute` of a stub that has them, and has begun with them or not."""

    def __init__(self, begun: tuple[int, ...] = (1, 2, 3)) -> None:
        self.fake = Fake()
        self.again: list[Any] = []
        self.prepared = [self.fake.calls._prepare(X, None) for _ in range(3)]
        self.slots = [slot for _, slot in self.prepared]
        self.done = [threading.Event() for _ in self.slots]
        for slot, done in zip(self.slots, self.done, strict=True):
            slot.notify_when_done(lambda _slot, done=done: done.set())
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        calls = self.fake.segment.consumer("calls")
        records = [within(20, calls.pull) for _ in range(3)]
        assert [(kind, call) for kind, call, _ in records] == [(CALL, 1), (CALL, 2), (CALL, 3)]
        # Behind the blocks that it gives back, a record begins with its flags.
        assert [payload[4] for _, _, payload in records] == [MORE, MORE, 0]
        for call in begun:
            struct.pack_into("<Q", self.fake.memory, 1024 + 8 * call, 4 * call + 1)

    def _run(self) -> None:
        self.again = self.fake.contract.run_slots(self.slots)

    def cancel(self, place: int) -> None:
        served = self.prepared[place][0]
        assert served.queue.cancel(self.slots[place])

    def claim(self, call: int) -> int:
        (word,) = struct.unpack_from("<Q", self.fake.memory, 1024 + 8 * call)
        return int(word)

    def answer(self, call: int, payload: bytes, kind: int = ANSWER) -> None:
        self.fake.answers.push(kind, call, payload)

    def outcomes(self) -> list[Any]:
        """What the requests get when the stub dies now, "again" of those left to another one."""
        try:
            self.fake.end()
            self.thread.join(20)
            assert not self.thread.is_alive(), "the batch hangs"
            for slot, done in zip(self.slots, self.done, strict=True):
                assert slot in self.again or slot.is_cancelled() or done.wait(20)
            return ["again" if slot in self.again else slot.take_outcome() for slot in self.slots]
        finally:
            self.fake.close()


def value(number: float) -> bytes:
    return answer(response(tensor(np.float32([number]).tobytes(), (1,))))


def test_answers_of_a_batch() -> None:
    batch = Batch()
    for call in (1, 2, 3):
        batch.answer(call, value(call))
    assert [x["OUT"].tolist() for x in batch.outcomes()] == [[1], [2], [3]]


def test_a_stub_that_dies_within_its_answers() -> None:
    batch = Batch()
    batch.answer(1, value(1))
    first, *others = batch.outcomes()
    assert first["OUT"].tolist() == [1]
    assert [type(x) for x in others] == [ptl.UnavailableError] * 2
    assert others[0] is not others[1]


def test_a_stub_that_dies_before_it_begins() -> None:
    assert Batch(begun=()).outcomes() == ["again"] * 3
    # It begins with all at once, and in between it may be killed.
    first, *others = Batch(begun=(1,)).outcomes()
    assert isinstance(first, ptl.UnavailableError)
    assert others == ["again"] * 2


@pytest.mark.parametrize(
    ("call", "payload", "kind"),
    [
        (2, value(2), ANSWER),  # the first one is answered first
        (3, value(3), ANSWER),
        (9, value(9), ANSWER),
        (0, value(0), ANSWER),
        (1, value(1), RESPONSE),
        (1, answer(state=3), ANSWER),  # skipped, which nobody wanted
        (1, answer(b""), ANSWER),
    ],
)
def test_a_wrong_answer_ends_the_stub_and_fails_the_batch(
    call: int, payload: bytes, kind: int
) -> None:
    batch = Batch()
    batch.answer(call, payload, kind)
    for number in (1, 2, 3):  # too late, whatever it says
        batch.answer(number, value(number))
    batch.thread.join(20)
    assert batch.fake.is_over, "it goes on"
    found = batch.outcomes()
    assert [type(x) for x in found] == [ptl.UnavailableError] * 3
    assert "dead: None" not in str(found)


def test_an_answer_that_is_given_twice() -> None:
    batch = Batch()
    for call in (1, 1, 2, 3):
        batch.answer(call, value(call))
    first, *others = batch.outcomes()
    assert first["OUT"].tolist() == [1]
    assert [type(x) for x in others] == [ptl.UnavailableError] * 2


def test_a_request_that_is_cancelled_before_the_stub_begins() -> None:
    batch = Batch(begun=(1, 3))
    batch.cancel(1)
    assert batch.claim(2) == 4 * 2 + 2, "it was not taken back"
    batch.answer(1, value(1))
    batch.answer(2, answer(state=3))
    batch.answer(3, value(3))
    first, _, third = batch.outcomes()
    assert (first["OUT"].tolist(), third["OUT"].tolist()) == ([1], [3])
    assert batch.slots[1].is_cancelled()


def test_a_request_that_was_never_begun_is_no_execution() -> None:
    fake = Fake()
    try:
        _, slot = fake.calls._prepare(X, None)
        fake.queue.submit_all([slot])
        calls = fake.segment.consumer("calls")
        within(20, calls.pull)
        assert fake.queue.cancel(slot)
        fake.answers.push(ANSWER, 1, answer(state=3))
        statistics = fake.queue.statistics
        until(lambda: sum(statistics.failures()) == 1)
        assert statistics.failures()[FAILURE_REASONS.index("CANCELED")] == 1
        assert statistics.counters()["exec_count"] == 0
    finally:
        fake.close()


# -- random bytes -------------------------------------------------------------------------

VALID = [
    answer(GOOD),
    answer(error({"code": 3, "text": "no", "cause": {"module": "builtins", "name": "OSError"}})),
    answer(response(tensor(b"\1\0\0\0a\2\0\0\0bc", (2,), BYTES), parameters={"a": 1})),
    answer(response(tensor(struct.pack("<q", STUB_ARENA), (2,), place=1, size=8))),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid answer, cut off, with bytes replaced and others put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["flip", "number", "insert", "cut"]))
        if what == "flip" and data:
            data[place] = draw(st.integers(0, 255))
        elif what == "number":
            edges = st.sampled_from([0, 1, 64, 65, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
            data[place : place + 4] = struct.pack("<I", draw(edges))
        elif what == "insert":
            data[place:place] = draw(st.binary(max_size=8))
        else:
            del data[place:]
    return bytes(data)


PAYLOADS = st.one_of(mutated(), st.binary(max_size=200))


@settings(max_examples=300, deadline=None)
@given(PAYLOADS)
def test_random_answers(payload: bytes) -> None:
    found = outcome_of(("answers", ANSWER, payload))
    assert isinstance(found, (ptl.TritonError, dict, ptl.InferenceResponse)), found


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([REPLY, ASK, RESPONSE, TELL]), PAYLOADS, st.booleans())
def test_random_records_aside(kind: int, payload: bytes, is_decoupled: bool) -> None:
    pending = ("answers", ANSWER, answer(state=1))
    found = outcome_of(pending, ("aside", kind, payload), is_decoupled=is_decoupled)
    assert isinstance(found, (ptl.TritonError, dict, ptl.InferenceResponse)), found


COUNTERS = [4096 + ring * (192 + RING) + field for ring in range(4) for field in (0, 64, 128, 132)]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.sampled_from(COUNTERS),
                st.integers(0, 4096 + 4 * (192 + RING) - 64),
            ),
            st.one_of(
                st.binary(min_size=1, max_size=64),
                st.sampled_from([0, 1, 16, 17, RING, RING + 16, (1 << 64) - 16, 1 << 63]).map(
                    lambda n: struct.pack("<Q", n)
                ),
            ),
        ),
        max_size=8,
    )
)
def test_random_bytes_anywhere(writes: list[tuple[int, bytes]]) -> None:
    """Control page, counters of rings, records."""
    fake = Fake()
    try:
        thread, found = fake.start()
        within(20, fake.segment.consumer("calls").pull)
        struct.pack_into("<Q", fake.memory, 1024 + 8, 4 * 1 + 1)
        for offset, data in writes:
            fake.memory[offset : offset + len(data)] = data
        fake.end()
        thread.join(20)
        assert found, "the caller hangs"
        assert isinstance(found[0], (ptl.TritonError, dict, ptl.InferenceResponse))
    finally:
        fake.close()


def test_fillers_without_end() -> None:
    # A ring full of records of kind 0: each but one before the end of the ring is a lie.
    fake = Fake()
    try:
        thread, found = fake.start()
        within(20, fake.segment.consumer("calls").pull)
        begin = 4096 + (192 + RING)
        filler = struct.pack("<IIQ", 16, 0, 0)
        fake.memory[begin + 192 : begin + 192 + RING] = filler * (RING // 16)
        struct.pack_into("<Q", fake.memory, 1024 + 8, 4 * 1 + 1)
        struct.pack_into("<Q", fake.memory, begin + 64, RING)
        fake.end()
        thread.join(20)
        assert isinstance(found[0], ptl.UnavailableError)
        assert "does not hold records" in str(found[0])
    finally:
        fake.close()


def test_a_stream_takes_no_more_than_its_backlog() -> None:
    gc.collect()
    before = live_tensor_count()
    fake = Fake(is_decoupled=True, backlog=4)
    try:
        served, slot = fake.calls._prepare(X, None)
        stream = fake.calls._open(served, slot, 20.0, keeps_empty_final=False, raises=True)
        within(20, fake.segment.consumer("calls").pull)
        part = b"\0" + text("") + b"\0" + GOOD[len(b"\0" + text("id") + b"\1") :]
        for _ in range(100):
            fake.aside.push(RESPONSE, 1, sent(part, 1))
        until(lambda: fake.broken is not None)
        assert "more responses" in str(fake.broken)
        # It had not begun with the request, which is left to another one, and there is none.
        got = []
        with pytest.raises(ptl.UnavailableError, match="Server is stopping"):
            got.extend(next(stream)["OUT"].tolist() for _ in range(100))
        assert len(got) <= 4 + 2
    finally:
        fake.close()
    gc.collect()
    assert live_tensor_count() <= before


# -- a model that does it -----------------------------------------------------------------

EVIL = """
import ctypes, mmap, os, struct, time
import numpy as np
import triton_python_backend_utils as pb_utils

RING = 1 << 20

def memory():
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "memfd:pytriton_lite (" in os.readlink("/proc/self/fd/" + fd):
                return mmap.mmap(int(fd), 4096 + 4 * (192 + RING))
        except OSError:
            pass
    raise AssertionError("the memory is not there")

def ring(n):
    return 4096 + n * (192 + RING)

def word(m, at, value=None):
    if value is not None:
        struct.pack_into("<Q", m, at, value & (1 << 64) - 1)
    return struct.unpack_from("<Q", m, at)[0]

def wake(m, at):
    place = ctypes.c_uint32.from_buffer(m, at)
    place.value = 0
    number = {"x86_64": 202, "aarch64": 98}[os.uname().machine]
    ctypes.CDLL(None).syscall(number, ctypes.byref(place), 1, 1 << 30, 0, 0, 0)

def put(m, n, kind, call, payload, size=None):
    tail = word(m, ring(n) + 64)
    at = ring(n) + 192 + tail % RING
    head = struct.pack("<IIQ", 16 + len(payload) if size is None else size, kind, call)
    m[at:at + len(head) + len(payload)] = head + payload
    word(m, ring(n) + 64, tail + (16 + len(payload) + 15) // 16 * 16)
    wake(m, ring(n) + 128)

class TritonPythonModel:
    def execute(self, requests):
        request, = requests
        m = memory()
        code = pb_utils.get_input_tensor_by_name(request, "CODE").as_numpy()[0].decode()
        exec(code, dict(globals(), m=m))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.float32([1]))])]
"""
CONFIG = """
backend: "python"
input [ { name: "CODE" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ptl.Model]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp("evil"))
    repository.model("m", EVIL, config=CONFIG)
    # The pauses that grow with deaths in a row have tests of their own.
    quick = functools.partial(Backoff, first_s=0.01, limit_s=0.01)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "Backoff", quick)
        with ptl.Server(repository.models, execution="process") as server:
            yield server["m"]


def run(model: ptl.Model, code: str) -> list[float]:
    response = model.run({"CODE": [textwrap.dedent(code)]}, timeout_s=30)
    values: list[float] = response["OUT"].tolist()
    return values


@pytest.mark.parametrize(
    "code",
    [
        "put(m, 3, 99, 1, b'')",
        "put(m, 3, 12, 1, b'\\xff' * 100)",
        "put(m, 3, 12, 1, b'', size=1 << 30)",
        "put(m, 3, 12, 1, b'', size=3)",
        "word(m, ring(3) + 64, -16); wake(m, ring(3) + 128)",
        "word(m, ring(3) + 64, 17); wake(m, ring(3) + 128)",
        "word(m, ring(1) + 64, 1 << 40); wake(m, ring(1) + 128)",
        "put(m, 1, 7, 12345, bytes(100))",
        "m[:ring(4)] = os.urandom(ring(4)); wake(m, ring(3) + 128); wake(m, ring(1) + 128)",
    ],
)
def test_a_malicious_model_is_killed(model: ptl.Model, code: str) -> None:
    with pytest.raises(ptl.UnavailableError, match="broke the rules of the shared memory"):
        within(40, run, model, code + "; time.sleep(100)")
    assert within(40, run, model, "") == [1]


def test_a_reader_that_has_read_too_much(model: ptl.Model) -> None:
    assert within(40, run, model, "word(m, ring(0), 1 << 40)") == [1]
    with pytest.raises(ptl.UnavailableError, match="counted more than was written"):
        within(40, run, model, "")
    assert within(40, run, model, "") == [1]


def test_random_claims_harm_nobody_else(model: ptl.Model) -> None:
    for _ in range(3):
        within(40, run, model, "m[1024:1024 + 512] = os.urandom(512)")
    assert within(40, run, model, "") == [1]


def test_a_flood_of_records(model: ptl.Model) -> None:
    # Questions that nobody answers, and what nobody wants to know; the ring is kept full.
    code = """
    from pytriton_lite._ipc.segment import Segment
    fd = next(int(fd) for fd in os.listdir("/proc/self/fd")
              if "memfd:pytriton_lite (" in os.readlink("/proc/self/fd/" + fd))
    flood = Segment.attach(os.dup(fd)).producer("to_server")
    payload = struct.pack("<I", 0) + struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        flood.push(13, 0, payload)
    """
    gc.collect()
    before = resident_bytes()
    assert within(40, run, model, code) == [1]
    gc.collect()
    assert resident_bytes() - before < 32 << 20
