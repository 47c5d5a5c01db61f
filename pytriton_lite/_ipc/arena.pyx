# cython: language_level=3, freethreading_compatible=True
"""Arenas: where tensors lie in shared memory.

Each arena belongs to one process, the only one that hands its blocks out, so it needs no
lock in shared memory: its lists are private (heap.pxd). A block is free again when nobody holds it,
here or in the other process, which sends its offset back over a ring.

Sizes are rounded up to classes, four to each power of two, so that at most a quarter of a
block is unused. A freed block is the first to be used again: its pages are in memory,
and a first touch costs many times what copying does. Beyond `cache_limit` the pages of
freed blocks are given back to the system, those of the sizes that were not used for the longest
time first, and the addresses stay. All are given back when the arena is idle, see `settle`.
"""
cimport cython
from libc.stdint cimport int64_t, uint64_t

import collections
import math

from pytriton_lite._core.array cimport (
    DT_BYTES, DT_COUNT, MemoryOwner, item_size, view_of_memory,
)
from pytriton_lite._ipc.heap cimport *
from pytriton_lite._ipc.segment cimport Segment
from pytriton_lite._ipc.segment import BrokenSegmentError


cdef class Arena:
    """Allocator of one arena, in the process that owns it. Thread-safe.

    Parameters
    ----------
    segment
        The shared memory.
    of_stub
        Which of the two arenas.
    cache_limit
        Bytes of free blocks whose pages stay in memory.
    """

    def __init__(self, Segment segment, *, bint of_stub, uint64_t cache_limit=1 << 28):
        cdef uint64_t begin = segment.arena_begin(of_stub)
        _set(self, segment, segment.at(begin, segment.arena_bytes), segment.arena_bytes, begin, cache_limit)

    def __dealloc__(self):
        ptl_heap_close(&self.heap)

    @property
    def size(self):
        """Bytes of the arena, used or not."""
        return self.heap.size

    @property
    def cache_limit(self):
        return self.heap.warm_limit

    @property
    def cached_bytes(self):
        """Bytes of free blocks whose pages are in memory."""
        return self.heap.warm_bytes

    @property
    def used_blocks(self):
        """Number of blocks that somebody holds."""
        return self.heap.used

    def allocate(self, uint64_t size):
        """A block of at least `size` bytes, or None when the arena is full.

        Its content is undefined. It is given back when the object goes, or, after
        `Block.hand_over`, by `release`.
        """
        cdef int is_zero = 0
        cdef uint64_t offset = ptl_heap_allocate(&self.heap, size, &is_zero)
        if offset == PTL_HEAP_NONE:
            return None
        return _own(self, offset, size)

    def release(self, uint64_t offset):
        """Take a block back that was handed over.

        Raises
        ------
        BrokenSegmentError
            No such block is handed out: the other process speaks of what it does not hold.
        """
        self.take_back(offset)

    def settle(self):
        """Give the pages of free blocks back if nothing was allocated or freed since the last call."""
        with nogil:
            ptl_heap_settle(&self.heap)

    def trim(self):
        """Give the pages of all free blocks back to the system."""
        with nogil:
            ptl_heap_trim(&self.heap)

    cdef int lend(self, uint64_t offset) except -1:
        """The other process holds a block from now on; it must not hold it already."""
        if not ptl_heap_lend(&self.heap, offset - self.begin):
            raise BrokenSegmentError(f"the block at offset {offset} cannot be handed out")
        return 0

    cdef int take_back(self, uint64_t offset) except -1:
        if not ptl_heap_come_back(&self.heap, offset - self.begin):
            raise BrokenSegmentError(f"no block at offset {offset} is handed out")
        return 0

    cdef Block adopt(self, uint64_t offset, uint64_t size):
        """A block that comes back with a tensor of `size` bytes in it."""
        if not ptl_heap_adopt(&self.heap, offset - self.begin, size):
            raise BrokenSegmentError(f"no block of {size} bytes at offset {offset} is handed out")
        return _own(self, offset - self.begin, size)

    cdef uint64_t lendable(self, const void *address, uint64_t size) noexcept:
        """Offset of the block that begins at an address and can be handed over; 0 if there is none.

        It must not be much larger than `size`, since what is unused of it would be lent, too.
        """
        cdef uint64_t offset = <const char *> address - self.heap.memory
        cdef uint64_t room
        if <const char *> address < self.heap.memory or offset >= self.heap.size:
            return 0
        room = ptl_heap_room(&self.heap, offset)
        return self.begin + offset if room >= size and room // 2 < size else 0


cdef int _set(
    Arena arena, object mapping, char *memory, uint64_t size, uint64_t begin, uint64_t cache_limit
) except -1:
    arena.mapping = mapping
    arena.begin = begin
    ptl_heap_close(&arena.heap)
    if ptl_heap_init(&arena.heap, memory, size, cache_limit) < 0:
        raise MemoryError
    return 0


cdef Arena new_arena(object mapping, char *memory, uint64_t size, uint64_t begin, uint64_t cache_limit):
    """Arena over memory that `mapping` keeps, which has its `begin` there."""
    cdef Arena made = Arena.__new__(Arena)
    _set(made, mapping, memory, size, begin, cache_limit)
    return made


cdef class Returns:
    """What this process has to give back to the other one. Appending takes no lock."""

    def __cinit__(self):
        self.queue = collections.deque()


# Without the collector, which would take from it what it needs to give its memory back.
@cython.no_gc
@cython.final
cdef class Block(MemoryOwner):
    """A stretch of shared memory, given back when the object goes.

    Arrays made by `array` keep it. In the owner's process it is made by `Arena.allocate`, in
    the other one by `borrow`.
    """

    def __dealloc__(self):
        if self.arena is not None:
            ptl_heap_drop(&self.arena.heap, self.offset - self.arena.begin)
        elif self.returns is not None:
            self.returns.bytes += self.size
            self.returns.queue.append(self.token)
        elif self.release is not None:
            self.release(self.offset)

    def hand_over(self):
        """The other process holds the block from now on, too, until `Arena.release`; returns its offset."""
        self.arena.lend(self.offset)
        return self.offset

    def array(self, tuple shape, int data_type, *, bint writable=True):
        """Array over the block, without a copy; it keeps the block.

        Parameters
        ----------
        shape
            Sizes of the dims, at most 64 of them.
        data_type
            Number of a Triton data type, not BYTES. BF16 gives the bits as uint16.

        Raises
        ------
        BrokenSegmentError
            The array would not fit into the block.
        """
        cdef int64_t[64] dims
        cdef int i
        if len(shape) > 64 or not 0 < data_type < DT_COUNT or data_type == DT_BYTES:
            raise BrokenSegmentError(f"no tensor has shape {shape} and data type {data_type}")
        for i, n in enumerate(shape):
            if not 0 <= n < 1 << 62:
                raise BrokenSegmentError(f"no tensor has shape {shape}")
            dims[i] = n
        if math.prod(shape) * item_size(data_type) > self.size:
            raise BrokenSegmentError(
                f"a tensor of shape {list(shape)} does not fit into a block of {self.size} bytes"
            )
        return view_of_memory(self.memory, <int> len(shape), dims, NULL, data_type, self, writable)


cdef Block _own(Arena arena, uint64_t place, uint64_t size):
    cdef Block made = Block.__new__(Block)
    made.memory = arena.heap.memory + place
    made.arena = arena
    made.mapping = arena.mapping
    made.offset = made.token = arena.begin + place
    made.size = size
    return made


cdef Block borrowed_block(object mapping, char *memory, uint64_t offset, uint64_t size, uint64_t token, Returns returns):
    """A block of the other process, already checked; `token` goes to `returns` at its end."""
    cdef Block made = Block.__new__(Block)
    made.memory = memory
    made.mapping = mapping
    made.offset = offset
    made.size = size
    made.token = token
    made.returns = returns
    return made


def borrow(Segment segment, uint64_t offset, uint64_t size, *, bint of_stub, release):
    """A block of the other process.

    Parameters
    ----------
    offset, size
        What the other process has said; they are checked.
    of_stub
        Whose arena it must lie in.
    release
        Called with the offset when nobody here holds the block any more.

    Raises
    ------
    BrokenSegmentError
        The block does not lie in that arena.
    """
    cdef uint64_t begin = segment.arena_begin(of_stub)
    cdef Block made
    if offset < begin or offset - begin > segment.arena_bytes or size > segment.arena_bytes - (offset - begin):
        raise BrokenSegmentError(
            f"{size} bytes at offset {offset} do not lie in the arena of the {'stub' if of_stub else 'server'}"
        )
    made = borrowed_block(segment, segment.at(offset, size), offset, size, offset, None)
    if isinstance(release, Returns):
        made.returns = release
    else:
        made.release = release
    return made
