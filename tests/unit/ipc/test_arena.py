"""Blocks of shared memory. Expected sizes are derived by hand from the size classes."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytriton_lite._ipc.arena import Arena, Block, borrow
from pytriton_lite._ipc.segment import BrokenSegmentError, Segment

PAGE = 4096
FP32, BYTES, BF16 = 11, 13, 14
MIB = 1 << 20


def in_time() -> int:
    return time.monotonic_ns() + 20_000_000_000


def make(arena_bytes: int = 64 * MIB, **options: int) -> tuple[Segment, Arena]:
    segment = Segment.create(ring_bytes=PAGE, arena_bytes=arena_bytes)
    return segment, Arena(segment, of_stub=False, **options)


def test_an_array_lies_in_the_block_and_keeps_it() -> None:
    segment, arena = make()
    block = arena.allocate(6 * 4)
    assert block is not None
    offset = block.offset
    array = block.array((2, 3), FP32)
    array[:] = 7
    assert (array.shape, array.dtype, array.flags.owndata) == ((2, 3), np.float32, False)
    with open(f"/proc/self/fd/{segment.fd}", "rb") as file:
        file.seek(offset)
        assert file.read(24) == np.full(6, 7, np.float32).tobytes()
    view = array[1:]
    del block, array
    assert arena.used_blocks == 1
    del view
    assert arena.used_blocks == 0


@pytest.mark.parametrize(
    ("size", "taken"),
    [
        (0, 4 * PAGE),
        (1, 4 * PAGE),
        (4 * PAGE, 4 * PAGE),
        (4 * PAGE + 1, 5 * PAGE),
        (5 * PAGE + 1, 6 * PAGE),
        (7 * PAGE + 1, 8 * PAGE),
        (8 * PAGE + 1, 10 * PAGE),
        (MIB, MIB),
        (MIB + 1, MIB * 5 // 4),
    ],
)
def test_size_classes(size: int, taken: int) -> None:
    _, arena = make()
    first, second = arena.allocate(size), arena.allocate(1)
    assert first is not None
    assert second is not None
    assert second.offset - first.offset == taken
    assert first.size == size


def test_a_freed_block_is_the_next_to_be_used() -> None:
    _, arena = make()
    blocks = [arena.allocate(17_000) for _ in range(3)]
    offsets = [block.offset for block in blocks if block is not None]
    del blocks[:]
    gc.collect()
    assert arena.cached_bytes == 3 * 5 * PAGE
    again = arena.allocate(17_100)
    assert again is not None
    assert again.offset in offsets
    assert arena.cached_bytes == 2 * 5 * PAGE


def test_a_full_arena_says_so_and_goes_on() -> None:
    _, arena = make(arena_bytes=8 * PAGE)
    assert arena.allocate(9 * PAGE) is None
    assert arena.allocate(1 << 62) is None
    block = arena.allocate(8 * PAGE)
    assert block is not None
    assert arena.allocate(1) is None
    del block
    assert arena.allocate(8 * PAGE) is not None


def test_memory_beyond_the_limit_goes_back_to_the_system() -> None:
    segment, arena = make(cache_limit=MIB)
    base = segment.resident_bytes()
    blocks = [arena.allocate(MIB) for _ in range(8)]
    for block in blocks:
        assert block is not None
        block.array((MIB // 4,), FP32)[:] = 1
    del block
    assert segment.resident_bytes() - base >= 8 * MIB
    blocks.clear()
    assert arena.cached_bytes == MIB
    assert segment.resident_bytes() - base <= MIB + 16 * PAGE
    assert arena.used_blocks == 0


def test_sizes_that_were_not_used_for_long_give_their_pages_back_first() -> None:
    segment, arena = make(cache_limit=2 * MIB)
    base = segment.resident_bytes()
    for size in (MIB, MIB // 2, MIB):
        blocks = [arena.allocate(size) for _ in range(2)]
        for block in blocks:
            assert block is not None
            block.array((size // 4,), FP32)[:] = 1
        del block, blocks
    assert segment.resident_bytes() - base <= 2 * MIB + 16 * PAGE
    # The two of 1 MiB were used last, so both halves went.
    assert arena.cached_bytes == 2 * MIB
    half = arena.allocate(MIB // 2)
    assert half is not None
    assert not half.array((MIB // 8,), FP32).any()
    assert arena.cached_bytes == 2 * MIB
    large = arena.allocate(3 * MIB)
    assert large is not None
    large.array((3 * MIB // 4,), FP32)[:] = 1
    cached = arena.cached_bytes
    del large  # more than the limit alone: it does not push the others out
    assert arena.cached_bytes == cached == 2 * MIB


def test_an_idle_arena_gives_all_pages_back() -> None:
    segment, arena = make()
    base = segment.resident_bytes()
    block = arena.allocate(MIB)
    assert block is not None
    block.array((MIB // 4,), FP32)[:] = 1
    offset = block.offset
    arena.settle()
    del block
    arena.settle()
    assert arena.cached_bytes == MIB  # something has happened meanwhile
    arena.settle()
    assert arena.cached_bytes == 0
    assert segment.resident_bytes() == base
    again = arena.allocate(MIB)
    assert again is not None
    assert again.offset == offset
    assert not again.array((MIB // 4,), FP32).any()


def test_a_larger_free_block_serves_when_there_is_no_room() -> None:
    _, arena = make(arena_bytes=8 * PAGE)
    block = arena.allocate(8 * PAGE)
    assert block is not None
    del block
    block = arena.allocate(5 * PAGE)
    assert block is not None
    assert arena.allocate(1) is None


def test_handed_over_and_released() -> None:
    _, arena = make()
    block = arena.allocate(10)
    assert block is not None
    offset = block.hand_over()
    del block
    assert arena.used_blocks == 1
    arena.release(offset)
    assert arena.used_blocks == 0
    for wrong in (offset, offset + 1, 0, 2**63):
        with pytest.raises(BrokenSegmentError, match="handed out"):
            arena.release(wrong)


def test_a_borrowed_block_is_given_back_when_the_last_view_goes() -> None:
    segment, _ = make()
    other = Arena(segment, of_stub=True)
    block = other.allocate(MIB)
    assert block is not None
    block.array((4,), FP32)[:] = [1, 2, 3, 4]
    returned: list[int] = []
    offset = block.hand_over()
    array = borrow(segment, offset, 16, of_stub=True, release=returned.append).array(
        (4,), FP32, writable=False
    )
    assert array.tolist() == [1, 2, 3, 4]
    assert not array.flags.writeable
    kept = array[2:]
    del array
    assert returned == []
    del kept
    assert returned == [offset]


def test_what_another_process_says_is_checked() -> None:
    segment, _ = make(arena_bytes=16 * PAGE)
    begin = segment.arena_begin(True)
    end = begin + segment.arena_bytes
    for offset, size in [
        (0, 1), (begin - 1, 1), (segment.arena_begin(False), 1), (end, 1), (end + 1, 0),
        (begin, segment.arena_bytes + 1), (end - 1, 2), (2**64 - 1, 2), (begin, 2**64 - 1),
    ]:  # fmt: skip
        with pytest.raises(BrokenSegmentError):
            borrow(segment, offset, size, of_stub=True, release=print)
    block = borrow(segment, begin, 64, of_stub=True, release=lambda _: None)
    for shape, data_type in [
        ((17,), FP32), ((2, 9), FP32), ((-1,), FP32), ((1 << 62,), FP32), ((1,) * 65, FP32),
        ((1 << 40, 1 << 40), FP32), ((1,), 0), ((1,), 15), ((1,), BYTES), ((33,), BF16),
    ]:  # fmt: skip
        with pytest.raises(BrokenSegmentError):
            block.array(shape, data_type)
    assert block.array((0, 1 << 40), FP32).size == 0
    assert block.array((), FP32).shape == ()
    assert block.array((32,), BF16).dtype == np.uint16


CHILD = """
import sys
from pytriton_lite._ipc.arena import Arena, borrow
from pytriton_lite._ipc.segment import Segment
segment = Segment.attach(int(sys.argv[1]))
arena = Arena(segment, of_stub=True)
calls, answers = segment.consumer("calls"), segment.producer("answers")
for _ in range(50):
    _, size, offset = calls.pull()
    source = borrow(segment, int.from_bytes(offset, "little"), 4 * size, of_stub=False,
                    release=lambda o: answers.push(2, o))
    block = arena.allocate(4 * size)
    block.array((size,), 11)[:] = source.array((size,), 11) * 2
    answers.push(1, block.hand_over())
    del source
"""


def test_tensors_between_processes() -> None:
    segment, arena = make(arena_bytes=1 << 30)  # of the stub's, nothing is given back
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(segment.fd)], pass_fds=[segment.fd])
    calls, answers = segment.producer("calls"), segment.consumer("answers")
    choose = random.Random(1)
    try:
        for _ in range(50):
            size = choose.randrange(1, MIB)
            block = arena.allocate(4 * size)
            assert block is not None
            sent = np.arange(size, dtype=np.float32)
            block.array((size,), FP32)[:] = sent
            calls.push(1, size, block.hand_over().to_bytes(8, "little"))
            del block
            kind, offset, _ = answers.pull(deadline_ns=in_time())
            assert kind == 1
            got = borrow(segment, offset, 4 * size, of_stub=True, release=lambda _: None)
            assert np.array_equal(got.array((size,), FP32), sent * 2)
            kind, offset, _ = answers.pull(deadline_ns=in_time())
            assert kind == 2
            arena.release(offset)
            assert arena.used_blocks == 0
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()


def test_many_threads() -> None:
    _, arena = make(cache_limit=MIB)
    wrong: list[object] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        held = []
        for n in range(400):
            block = arena.allocate(choose.randrange(1, 160_000))
            if block is None:
                held.clear()
                continue
            array = block.array((block.size // 4,), FP32)
            array[:] = seed * 1_000 + n
            held.append((array, seed * 1_000 + n))
            if choose.randrange(2):
                kept, value = held.pop(choose.randrange(len(held)))
                if not (kept == value).all():
                    wrong.append(value)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    gc.collect()
    assert arena.used_blocks == 0


class ArenaMachine(RuleBasedStateMachine):
    """Blocks never overlap, lie in the arena, and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.segment, self.arena = make(arena_bytes=256 * PAGE, cache_limit=32 * PAGE)
        self.held: list[Block] = []
        self.abroad: list[tuple[int, int]] = []

    @rule(size=st.integers(0, 80 * PAGE))
    def allocate(self, size: int) -> None:
        block = self.arena.allocate(size)
        if block is not None:
            self.held.append(block)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    @precondition(lambda self: self.held)
    @rule()
    def hand_over(self) -> None:
        block = self.held.pop()
        self.abroad.append((block.hand_over(), block.size))

    @precondition(lambda self: self.abroad)
    @rule()
    def come_back(self) -> None:
        self.arena.release(self.abroad.pop(0)[0])

    @invariant()
    def sound(self) -> None:
        taken = sorted([(b.offset, b.size) for b in self.held] + self.abroad)
        assert self.arena.used_blocks == len(taken)
        end = self.arena.begin
        for offset, size in taken:
            assert offset >= end
            end = offset + size
        assert end <= self.arena.begin + self.arena.size


ArenaMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_any_sequence = ArenaMachine.TestCase


def test_a_forked_child_leaves_the_memory_to_its_parent() -> None:
    _, arena = make(cache_limit=0)
    block = arena.allocate(MIB)
    assert block is not None
    array = block.array((MIB // 4,), FP32)
    array[:] = 3
    del block
    pid = os.fork()
    if not pid:
        try:
            del array
            arena.trim()
            code = 0 if arena.allocate(1) is None else 2
        except BaseException:
            code = 1
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (array == 3).all()
    assert arena.used_blocks == 1
    del array
    assert arena.used_blocks == 0


def test_nothing_is_left() -> None:
    gc.collect()
    gc.collect()  # what earlier tests have left
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        segment, arena = make()
        block = arena.allocate(MIB)
        assert block is not None
        array = block.array((4,), FP32)
        del segment, arena, block
        array[:] = 3  # the memory is there as long as the array is
        assert array.tolist() == [3, 3, 3, 3]
        del array
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
