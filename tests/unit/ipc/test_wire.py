"""Records with tensors in them, written by a stub that is not to be trusted.

The stub is this test: it writes bytes into the ring as wire.pyx draws them.
"""

from __future__ import annotations

import contextlib
import gc
import random
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytriton_lite._core.reply import InferenceResponse
from pytriton_lite._ipc.arena import Block
from pytriton_lite._ipc.caller_memory import CallerMemory
from pytriton_lite._ipc.segment import BrokenSegmentError, Segment
from pytriton_lite._ipc.wire import Link, Reader, RecordKind

PAGE = 4096
MIB = 1 << 20
ANSWER = 7
UINT8, FP32, BYTES, BF16 = 2, 11, 13, 14
HERE, ARENA, BACK, CALLERS = 0, 1, 2, 3
CALLERS_TAG = 1 << 62


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def tensor(
    *, place: int, at: bytes, size: int, dims: list[int], data_type: int = UINT8, name: str = "OUT"
) -> bytes:
    head = struct.pack("<BBBq", data_type, len(dims), place, size)
    return head + struct.pack(f"<{len(dims)}q", *dims) + text(name) + at


def outcome(tensors: list[bytes], returned: list[int]) -> bytes:
    head = struct.pack("<I", len(returned)) + b"".join(struct.pack("<Q", r) for r in returned)
    return (
        head
        + b"\0"
        + text("")
        + b"\1"
        + text("")
        + struct.pack("<I", len(tensors))
        + b"".join(tensors)
    )


class Side:
    """A server's link, and the ring that its stub writes into."""

    def __init__(self, arena_bytes: int = 4 * MIB) -> None:
        self.segment = Segment.create(ring_bytes=1 << 16, arena_bytes=arena_bytes)
        self.callers = CallerMemory.create(size=4 * MIB)
        self.link = Link(self.segment, is_stub=False, callers=self.callers)
        self.ring = self.segment.producer("answers")

    def tell(self, payload: bytes) -> Any:
        self.ring.push(ANSWER, 1, payload)
        return self.link.next(aside=False).outcome("m", 1)

    def lent(self, size: int, value: int = 0) -> Block:
        """A block of the server's arena that both sides hold."""
        block = self.link.arena.allocate(size)
        assert block is not None
        block.array((size,), UINT8)[:] = value
        block.hand_over()
        return block


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def test_a_block_comes_back_with_a_tensor_in_it() -> None:
    side = Side()
    block = side.lent(20_000, value=3)
    offset, begin = block.offset, address(block.array((1,), UINT8))
    del block
    assert side.link.arena.used_blocks == 1
    at = struct.pack("<q", offset)
    reply = side.tell(outcome([tensor(place=BACK, at=at, size=9000, dims=[90, 100])], []))
    assert isinstance(reply, InferenceResponse)
    array = reply["OUT"]
    assert (address(array), array.shape, array.flags.writeable) == (begin, (90, 100), True)
    assert (array == 3).all()
    with pytest.raises(BrokenSegmentError):  # it has nothing to give back any more
        side.tell(outcome([tensor(place=BACK, at=at, size=9000, dims=[9000])], []))
    del reply
    assert side.link.arena.used_blocks == 1
    del array
    assert side.link.arena.used_blocks == 0


@pytest.mark.parametrize(
    "wrong", ["offset", "inside", "size", "free", "stub", "beyond", "negative"]
)
def test_what_is_not_lent_cannot_come_back(wrong: str) -> None:
    side = Side()
    block = side.lent(20_000)
    free = side.link.arena.allocate(20_000)
    assert free is not None
    offset, size = block.offset, 20_000
    if wrong == "offset":
        offset += 1
    elif wrong == "inside":
        offset += PAGE
    elif wrong == "size":
        size = 5 * PAGE + 1  # its size class is 20,480
    elif wrong == "free":
        offset = free.offset
    elif wrong == "stub":
        offset = side.segment.arena_begin(True)
    elif wrong == "beyond":
        offset = side.segment.size + PAGE
    else:
        offset = -PAGE
    at = struct.pack("<q", offset)
    with pytest.raises(BrokenSegmentError):
        side.tell(outcome([tensor(place=BACK, at=at, size=size, dims=[size])], []))
    assert side.link.arena.used_blocks == 2


def test_callers_memory_is_looked_up_in_what_was_lent() -> None:
    side = Side()
    x = side.callers.empty(20_000, np.uint8)
    x[:] = 4
    arena = side.callers.arena
    assert arena is not None
    block = arena.allocate(30_000)
    assert block is not None
    side.link.lend(block)
    side.link.lend(block)

    def tell(offset: int, distance: int, size: int) -> Any:
        at = struct.pack("<qq", offset, distance)
        return side.tell(outcome([tensor(place=CALLERS, at=at, size=size, dims=[size])], []))

    taken = address(block.array((1,), UINT8))
    offset = block.offset
    del block
    for wrong in [
        (0, 0, 9000), (offset + 1, 0, 9000), (offset, 21_001, 9000), (offset, -1, 9000),
        (offset, 2**62, 9000), (offset, 30_001, 0), (-1, 0, 1),
    ]:  # fmt: skip
        with pytest.raises(BrokenSegmentError):
            tell(*wrong)
    array = tell(offset, 21_000, 9000)["OUT"]
    assert (address(array), array.flags.writeable) == (taken + 21_000, False)
    side.tell(outcome([], [offset | CALLERS_TAG]))
    with pytest.raises(BrokenSegmentError, match="callers"):
        side.tell(outcome([], [offset | CALLERS_TAG]))
    with pytest.raises(BrokenSegmentError):
        tell(offset, 0, 9000)
    assert arena.used_blocks == 2
    del array
    assert arena.used_blocks == 1
    assert (x == 4).all()


def test_a_closed_link_lends_nothing_any_more() -> None:
    side = Side()
    arena = side.callers.arena
    assert arena is not None
    block = arena.allocate(30_000)
    assert block is not None
    side.link.lend(block)
    del block
    assert arena.used_blocks == 1
    side.link.close()
    assert arena.used_blocks == 0


def test_memory_goes_back_though_there_is_nothing_to_say() -> None:
    side = Side(arena_bytes=128 * MIB)
    to_stub = side.segment.consumer("to_stub")
    ring = side.segment.producer("to_server")
    begin = side.segment.arena_begin(True)
    seen: list[int] = []

    def responded(record: Reader) -> None:
        reply: Any = record.outcome("m", 1)
        seen.append(reply["OUT"].nbytes)

    reader = threading.Thread(target=side.link.read_aside, args=({RecordKind.RESPONSE: responded},))
    reader.start()
    try:
        for n in range(20):
            at = struct.pack("<q", begin + n * 4 * MIB)
            parts = [tensor(place=ARENA, at=at, size=4 * MIB, dims=[4 * MIB])]
            ring.push(RecordKind.RESPONSE, 1, outcome(parts, []))
        # Of 4 MiB each, 17 are more than the 64 MiB that may wait.
        _, _, payload = to_stub.pull(deadline_ns=time.monotonic_ns() + 20_000_000_000)
        count = struct.unpack_from("<I", payload)[0]
        returned = struct.unpack_from(f"<{count}Q", payload, 4)
        assert 17 <= count <= 20
        assert list(returned) == [begin + n * 4 * MIB for n in range(count)]
    finally:
        side.link.close()
        reader.join(20)
    assert seen == [4 * MIB] * 20


class Garbage:
    """Writes answers that are nearly right, from what is lent and from nothing."""

    def __init__(self, side: Side, seed: int) -> None:
        self.side = side
        self.choose = random.Random(seed)
        self.lent: list[int] = []
        self.called: list[int] = []

    def lend(self) -> None:
        """Some blocks of either kind, for the stub to speak of."""
        arena = self.side.callers.arena
        assert arena is not None
        for _ in range(4):
            self.lent.append(self.side.lent(20_000).offset)
            block = arena.allocate(20_000)
            assert block is not None
            self.side.link.lend(block)
            self.called.append(block.offset)

    def take_back(self) -> None:
        """What of it is still lent."""
        for offset in self.lent:
            with contextlib.suppress(BrokenSegmentError):
                self.side.link.arena.release(offset)
        for offset in self.called:
            with contextlib.suppress(BrokenSegmentError):
                self.side.tell(outcome([], [offset | CALLERS_TAG]))
        self.lent.clear()
        self.called.clear()

    def number(self) -> int:
        segment = self.side.segment
        interesting = [0, 1, PAGE, 20_000, MIB, 4 * MIB, segment.size, 2**31, 2**62, 2**63 - 1]
        interesting += [segment.arena_begin(False), segment.arena_begin(True)]
        value = self.choose.choice([*interesting, *self.lent, *self.called])
        return min(2**63 - 1, value + self.choose.choice([0] * 12 + [1, -1, PAGE, -PAGE]))

    def tensor(self) -> bytes:
        choose = self.choose
        place = choose.choice([HERE, ARENA, ARENA, BACK, BACK, CALLERS, CALLERS, 4, 255])
        size = choose.choice([self.number(), choose.randrange(20_000), choose.randrange(9000)])
        shapes = [[size], [1, size], [self.number(), self.number()], [size // 4], [], [0, 2**62]]
        offsets = [self.number(), *self.lent, *self.called, self.side.segment.arena_begin(True)]
        at = struct.pack("<qq", choose.choice(offsets), choose.choice([0, 0, 0, self.number()]))
        return tensor(
            place=place,
            at=at[: 16 if place == CALLERS else 8],
            size=size,
            dims=choose.choice(shapes),
            data_type=choose.choice([UINT8] * 8 + [FP32, BYTES, BF16, 0, 15, 200]),
        )

    def answer(self) -> bytes:
        choose = self.choose
        returned = [self.number() & (2**64 - 1) for _ in range(choose.choice([0, 0, 0, 0, 1]))]
        payload = outcome([self.tensor() for _ in range(choose.choice([0, 1, 1, 2]))], returned)
        if choose.random() < 0.1:
            payload = payload[: choose.randrange(len(payload))]
        if payload and choose.random() < 0.1:
            at = choose.randrange(len(payload))
            payload = payload[:at] + bytes([choose.randrange(256)]) + payload[at + 1 :]
        return payload


def lies_in(array: Any, begin: int, size: int) -> bool:
    at = address(array)
    return begin <= at and at + array.nbytes <= begin + size


@pytest.mark.parametrize("seed", range(8))
def test_garbage_never_leads_outside(seed: int) -> None:
    side = Side()
    garbage = Garbage(side, seed)
    arenas = address(side.lent(1).array((1,), UINT8))
    caller_array = side.callers.empty(3 * PAGE, np.uint8)
    kept: list[Any] = []
    answered = refused = 0
    for _ in range(1500):
        garbage.lend()
        try:
            reply = side.tell(garbage.answer())
        except BrokenSegmentError:
            refused += 1
        else:
            answered += 1
            arrays = reply.outputs if isinstance(reply, InferenceResponse) else []
            for array in [reply[name] for name in arrays]:
                if array.dtype == object or array.flags.owndata or not array.nbytes:
                    continue
                assert lies_in(array, arenas, 2 * side.segment.arena_bytes) or lies_in(
                    array, address(caller_array), side.callers.size
                )
                array.sum()
                kept.append(array)
        reply = array = None
        garbage.take_back()
        del kept[:-10]
    assert answered > 50
    assert refused > 50
    kept.clear()
    gc.collect()
    arena = side.callers.arena
    assert arena is not None
    assert arena.used_blocks == 1
    assert side.link.arena.used_blocks <= 1  # garbage may have named the first one, too


class BlockMachine(RuleBasedStateMachine):
    """Blocks between the two sides, beside a model of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.side = Side(arena_bytes=64 * 4 * PAGE)
        self.value = 0
        self.here: dict[int, list[Any]] = {}  # offset -> this side's arrays over it
        self.there: set[int] = set()
        self.content: dict[int, tuple[int, int]] = {}  # offset -> size, value

    def _any(self, data: st.DataObject, offsets: Any) -> int:
        return data.draw(st.sampled_from(sorted(offsets)))

    @rule(size=st.integers(1, 12 * 4 * PAGE))
    def allocate(self, size: int) -> None:
        block = self.side.link.arena.allocate(size)
        if block is None:
            return
        assert block.offset not in self.content
        self.value = self.value % 255 + 1
        array = block.array((size,), UINT8)
        array[:] = self.value
        self.here[block.offset] = [array]
        self.content[block.offset] = (size, self.value)

    def _of(self, offset: int) -> Block:
        block: Block = self.here[offset][0].base
        return block

    @precondition(lambda self: set(self.here) - self.there)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        offset = self._any(data, set(self.here) - self.there)
        assert self._of(offset).hand_over() == offset
        self.there.add(offset)

    @precondition(lambda self: set(self.here) & self.there)
    @rule(data=st.data())
    def hand_over_twice(self, data: st.DataObject) -> None:
        with pytest.raises(BrokenSegmentError):
            self._of(self._any(data, set(self.here) & self.there)).hand_over()

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        offset = self._any(data, self.here)
        self.here[offset].pop()
        if not self.here[offset]:
            del self.here[offset]
            if offset not in self.there:
                del self.content[offset]

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        offset = self._any(data, self.there)
        self.side.tell(outcome([], [offset]))
        self.there.remove(offset)
        if offset not in self.here:
            del self.content[offset]

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def come_back_with_a_tensor(self, data: st.DataObject) -> None:
        offset = self._any(data, self.there)
        size = self.content[offset][0]
        at = struct.pack("<q", offset)
        reply = self.side.tell(outcome([tensor(place=BACK, at=at, size=size, dims=[size])], []))
        self.there.remove(offset)
        self.here.setdefault(offset, []).append(reply["OUT"])

    @rule(offset=st.integers(-1, 70).map(lambda n: n * 4 * PAGE), data=st.data())
    def lie(self, offset: int, data: st.DataObject) -> None:
        offset += self.side.link.arena.begin + data.draw(st.sampled_from([0, 0, PAGE, 1]))
        if offset not in self.there:
            with pytest.raises(BrokenSegmentError):
                self.side.tell(outcome([], [offset]))

    @rule()
    def trim(self) -> None:
        self.side.link.arena.trim()
        assert self.side.link.arena.cached_bytes == 0

    @invariant()
    def sound(self) -> None:
        arena = self.side.link.arena
        assert set(self.content) == set(self.here) | self.there
        assert arena.used_blocks == len(self.content)
        end = arena.begin
        for offset, (size, value) in sorted(self.content.items()):
            assert offset >= end
            end = offset + size
            for array in self.here.get(offset, []):
                assert (array == value).all()
        assert end <= arena.begin + arena.size


BlockMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
test_any_sequence = BlockMachine.TestCase
