"""Shared memory and its rings. Sizes and offsets are derived by hand from the layout."""

from __future__ import annotations

import gc
import mmap
import os
import random
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite._ipc.segment import RINGS, BrokenSegmentError, Segment
from tests.support.limits import until, within
from tests.support.processes import mapped_segments

PAGE = 4096
RING_HEADER, RECORD_HEADER = 192, 16
CALLS = PAGE  # offset of the first ring

ECHO = """
import os, sys
from pytriton_lite._ipc.segment import Segment
segment = Segment.attach(int(sys.argv[1]))
calls, answers = segment.consumer("calls"), segment.producer("answers")
while True:
    kind, call, payload = calls.pull()
    if kind == 9:
        os._exit(0)
    answers.push(kind, call, payload[::-1])
"""


def small() -> Segment:
    return Segment.create(ring_bytes=PAGE, arena_bytes=PAGE)


def start_child(segment: Segment, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, str(segment.fd)], pass_fds=[segment.fd])


def in_time() -> int:
    return time.monotonic_ns() + 10_000_000_000


def too_late() -> int:
    return time.monotonic_ns() + 20_000_000


# -- the memory ------------------------------------------------------------------------


def test_layout() -> None:
    segment = Segment.create(ring_bytes=PAGE, arena_bytes=2 * PAGE)
    # A control page and four rings, up to the next full page.
    begin = 6 * PAGE
    assert begin >= PAGE + 4 * (RING_HEADER + PAGE)
    assert segment.arena_begin(False) == begin
    assert segment.arena_begin(True) == begin + 2 * PAGE
    assert segment.size == os.fstat(segment.fd).st_size == begin + 4 * PAGE
    with mmap.mmap(segment.fd, PAGE) as memory:
        assert memory[:32] == b"PTLSTUB1" + struct.pack("<IxxxxQQ", 1, PAGE, 2 * PAGE)


def test_it_has_no_name_and_uses_no_memory() -> None:
    before = set(os.listdir("/dev/shm"))
    segment = Segment.create(arena_bytes=1 << 38)
    assert set(os.listdir("/dev/shm")) == before
    assert segment.size > 1 << 39
    assert segment.resident_bytes() <= 2 * PAGE
    assert not os.get_inheritable(segment.fd)


def test_neither_process_can_cut_it_off() -> None:
    segment = small()
    for size in (0, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(segment.fd, size)


def test_descriptor_and_mapping_go_with_the_object() -> None:
    gc.collect()  # what earlier tests have left
    before, mapped = len(os.listdir("/proc/self/fd")), mapped_segments()
    for _ in range(50):
        segment = small()
        segment.producer("calls").push(1, 1)
        Segment.attach(os.dup(segment.fd))
    del segment
    assert len(os.listdir("/proc/self/fd")) == before
    assert mapped_segments() == mapped


@pytest.mark.parametrize(
    "sizes",
    [
        {"ring_bytes": 0},
        {"ring_bytes": 2048},
        {"ring_bytes": 5000},
        {"arena_bytes": 0},
        {"arena_bytes": 100},
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(sizes))):
        Segment.create(**sizes)


def test_the_largest_arenas_that_there_are_addresses_for() -> None:
    assert Segment.create_largest().arena_bytes == 1 << 36
    script = (
        "import resource\n"
        "from pytriton_lite._ipc.segment import Segment\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "print(Segment.create_largest().arena_bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert 1 << 26 <= int(done.stdout) < 4 << 30


def test_what_is_no_segment_is_refused() -> None:
    fd = os.memfd_create("other")
    with pytest.raises(BrokenSegmentError, match="too small"):
        Segment.attach(os.dup(fd))
    os.ftruncate(fd, 1 << 20)
    with pytest.raises(BrokenSegmentError, match="same version of pytriton_lite"):
        Segment.attach(fd)


@pytest.mark.parametrize(
    ("offset", "value"), [(0, 1), (8, 2), (16, PAGE * 2), (16, 1 << 63), (24, PAGE * 2)]
)
def test_another_layout_is_refused(offset: int, value: int) -> None:
    segment = small()
    with mmap.mmap(segment.fd, PAGE) as memory:
        memory[offset : offset + 8] = value.to_bytes(8, "little")
    with pytest.raises(BrokenSegmentError, match="another layout"):
        Segment.attach(os.dup(segment.fd))


# -- rings -----------------------------------------------------------------------------


@pytest.mark.parametrize("ring", RINGS)
def test_each_ring_carries_records(ring: str) -> None:
    segment = small()
    producer = segment.producer(ring)
    consumer = Segment.attach(os.dup(segment.fd)).consumer(ring)
    producer.push(3, 2**64 - 1, b"abc")
    producer.push(2**32 - 1, 0)
    producer.push(1, 7, memoryview(bytearray(range(17))))
    assert consumer.pull() == (3, 2**64 - 1, b"abc")
    assert consumer.pull() == (2**32 - 1, 0, b"")
    assert consumer.pull() == (1, 7, bytes(range(17)))
    with pytest.raises(TimeoutError):
        consumer.pull(deadline_ns=too_late())


@settings(max_examples=200)
@given(
    steps=st.lists(
        st.one_of(st.integers(0, PAGE // 2 - RECORD_HEADER), st.none()), min_size=1, max_size=60
    )
)
def test_any_sizes_come_out_as_they_went_in(steps: list[int | None]) -> None:
    segment = small()
    producer, consumer = segment.producer("calls"), segment.consumer("calls")
    there: deque[tuple[int, int, bytes]] = deque()
    for number, size in enumerate(steps):
        if size is None:
            if there:
                assert consumer.pull() == there.popleft()
            continue
        record = (1 + number, number, bytes([number % 256]) * size)
        try:
            producer.push(*record, deadline_ns=1)
        except TimeoutError:
            # What does not fit leaves no trace; an empty ring takes anything.
            assert there
            continue
        there.append(record)
    while there:
        assert consumer.pull() == there.popleft()


def test_what_is_too_large_or_no_record() -> None:
    producer = small().producer("calls")
    assert producer.largest == PAGE // 2 - RECORD_HEADER
    producer.push(1, 0, bytes(producer.largest))
    with pytest.raises(ValueError, match="too large"):
        producer.push(1, 0, bytes(producer.largest + 1))
    with pytest.raises(ValueError, match="kind"):
        producer.push(0, 0)


def test_a_full_ring_waits_for_room() -> None:
    segment = small()
    producer, consumer = segment.producer("calls"), segment.consumer("calls")
    for number in range(2):
        producer.push(1, number, bytes(producer.largest))
    with pytest.raises(TimeoutError):
        producer.push(1, 2, b"x", deadline_ns=too_late())
    timer = threading.Timer(0.05, consumer.pull)
    timer.start()
    producer.push(1, 3, b"x", deadline_ns=in_time())
    timer.join()
    assert [consumer.pull()[1] for _ in range(2)] == [1, 3]


def test_processes_talk() -> None:
    segment = Segment.create(ring_bytes=PAGE, arena_bytes=PAGE)
    child = start_child(segment, ECHO)
    calls, answers = segment.producer("calls"), segment.consumer("answers")
    choose = random.Random(5)
    try:
        for number in range(2_000):
            payload = choose.randbytes(choose.randrange(calls.largest))
            calls.push(1, number, payload, deadline_ns=in_time())
            assert answers.pull(deadline_ns=in_time()) == (1, number, payload[::-1])
        calls.push(9, 0)
        assert child.wait(10) == 0
    finally:
        child.kill()
        child.wait()


def test_many_threads_on_both_ends() -> None:
    segment = Segment.create(ring_bytes=PAGE, arena_bytes=PAGE)
    producer, consumer = segment.producer("calls"), segment.consumer("calls")
    got: list[int] = []

    def read() -> None:
        while (record := consumer.pull(deadline_ns=in_time()))[0] != 2:
            assert record[2] == record[1].to_bytes(4, "little") * 9
            got.append(record[1])

    def write(first: int) -> None:
        for number in range(first, first + 500):
            producer.push(1, number, number.to_bytes(4, "little") * 9, deadline_ns=in_time())

    readers = [threading.Thread(target=read) for _ in range(4)]
    writers = [threading.Thread(target=write, args=(1_000 * n,)) for n in range(8)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join(30)
    for _ in readers:
        producer.push(2, 0)
    for thread in readers:
        thread.join(30)
    assert sorted(got) == sorted(1_000 * n + i for n in range(8) for i in range(500))


@pytest.mark.parametrize("yield_ns", [0, 20_000])
def test_who_waits_is_told_that_the_other_process_is_gone(yield_ns: int) -> None:
    segment = small()
    producer = segment.producer("calls")
    consumer = segment.consumer("answers", yield_ns=yield_ns)
    for _ in range(2):
        producer.push(1, 0, bytes(producer.largest))

    def expect(wait: Callable[[], object]) -> None:
        with pytest.raises(ptl.UnavailableError, match="gone"):
            wait()

    ends = (producer, consumer)
    waits: list[Callable[[], object]] = [lambda: producer.push(1, 0), consumer.pull]
    for end, wait in zip(ends, waits, strict=True):
        thread = threading.Thread(target=expect, args=(wait,))
        thread.start()
        time.sleep(0.05)
        within(10, end.close)
        thread.join(10)
        assert not thread.is_alive()
        expect(wait)


def test_looks_that_are_of_no_use_become_shorter() -> None:
    segment = small()
    producer = segment.producer("calls")
    consumer = segment.consumer("calls", yield_ns=40_000)

    def wait_for_one(seconds: float) -> int:
        thread = threading.Thread(target=consumer.pull)
        thread.start()
        time.sleep(seconds)
        producer.push(1, 0)
        thread.join(10)
        return consumer.look_ns

    assert [wait_for_one(0.05) for _ in range(5)] == [20_000, 10_000, 5_000, 5_000, 5_000]
    # As soon as a record comes while it looks, or just afterwards.
    until(lambda: wait_for_one(0) == 40_000)


def test_what_was_written_before_the_end_is_read() -> None:
    segment = small()
    segment.producer("answers").push(4, 1, b"last words")
    consumer = segment.consumer("answers")
    consumer.close()
    assert consumer.pull() == (4, 1, b"last words")
    with pytest.raises(ptl.UnavailableError):
        consumer.pull()


# -- a process that writes rubbish -----------------------------------------------------


@pytest.mark.parametrize("tail", [1, 8, 24, PAGE + 16, 1 << 40, 2**64 - 16], ids=lambda n: f"{n:x}")
def test_a_counter_that_cannot_be(tail: int) -> None:
    segment = small()
    with mmap.mmap(segment.fd, 6 * PAGE) as memory:
        memory[CALLS + 64 : CALLS + 72] = tail.to_bytes(8, "little")
    with pytest.raises(BrokenSegmentError):
        segment.consumer("calls").pull(deadline_ns=in_time())


@pytest.mark.parametrize("size", [0, 15, 64, PAGE, 2**32 - 1])
def test_a_record_that_cannot_be(size: int) -> None:
    segment = small()
    segment.producer("calls").push(1, 1, bytes(16))  # 32 bytes are there
    with mmap.mmap(segment.fd, 6 * PAGE) as memory:
        memory[CALLS + RING_HEADER : CALLS + RING_HEADER + 4] = size.to_bytes(4, "little")
    with pytest.raises(BrokenSegmentError):
        segment.consumer("calls").pull(deadline_ns=in_time())


def test_a_reader_that_counts_more_than_was_written() -> None:
    segment = small()
    producer = segment.producer("calls")
    with mmap.mmap(segment.fd, 6 * PAGE) as memory:
        memory[CALLS : CALLS + 8] = (160).to_bytes(8, "little")
    with pytest.raises(BrokenSegmentError):
        producer.push(1, 1)


@settings(max_examples=300)
@given(rubbish=st.binary(min_size=64, max_size=64), tail=st.integers(0, 2**64 - 1))
def test_rubbish_never_reads_outside_the_ring(rubbish: bytes, tail: int) -> None:
    segment = small()
    with mmap.mmap(segment.fd, 6 * PAGE) as memory:
        memory[CALLS + 64 : CALLS + 72] = (tail % (2 * PAGE)).to_bytes(8, "little")
        memory[CALLS + RING_HEADER : CALLS + RING_HEADER + 64] = rubbish
    consumer = segment.consumer("calls")
    for _ in range(20):
        try:
            _, _, payload = consumer.pull(deadline_ns=1)
        except (BrokenSegmentError, TimeoutError):
            break
        assert len(payload) <= PAGE
