# cython: language_level=3, freethreading_compatible=True
"""Arenas: where tensors lie in shared memory.

Each arena belongs to one process, the only one that hands its blocks out, so it needs no
lock in shared memory: its lists are private. A block is given back by who holds it last,
here or in the other process; then the offset travels back over a ring.

Sizes are rounded up to classes, four to each power of two, so that at most a quarter of a
block is unused. A freed block is the first to be used again: its pages are in memory,
and a first touch costs many times what copying does. Beyond `cache_limit` the pages of
freed blocks are given back to the system, and the addresses stay.
"""
from libc.stdint cimport int64_t, uint64_t

import math
import threading

from pytriton_lite._core.array cimport DT_BYTES, DT_COUNT, item_size, view_of_memory
from pytriton_lite._ipc.segment cimport Segment
from pytriton_lite._ipc.segment import BrokenSegmentError

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *address, size_t length, int advice)
    int MADV_REMOVE

cdef enum:
    # 16 KiB, so that every class is a whole number of pages. Smaller tensors travel in records.
    SMALLEST_BITS = 14
    CLASS_COUNT = 4 * (64 - SMALLEST_BITS)


cdef uint64_t _class_size(int size_class) noexcept:
    return (<uint64_t> 4 + size_class % 4) << (SMALLEST_BITS - 2 + size_class // 4)


cdef int _class_of(uint64_t size) noexcept:
    """The smallest class that holds `size` bytes."""
    cdef int bits = 0
    cdef int size_class
    if size <= 1 << SMALLEST_BITS:
        return 0
    while size >> (bits + 1):
        bits += 1
    size_class = 4 * (bits - SMALLEST_BITS)
    while _class_size(size_class) < size:
        size_class += 1
    return size_class


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
        self.segment = segment
        self.begin = segment.arena_begin(of_stub)
        self.size = segment.arena_bytes
        self.fresh = self.begin
        self.cache_limit = cache_limit
        self.used = {}
        self.free = [[] for _ in range(CLASS_COUNT)]
        # A block may go while the collector runs inside one of these methods.
        self.lock = threading.RLock()

    @property
    def used_blocks(self):
        """Number of blocks that are handed out."""
        return len(self.used)

    def allocate(self, uint64_t size):
        """A block of at least `size` bytes, or None when the arena is full.

        Its content is undefined. It is given back when the object goes, or, after
        `Block.hand_over`, by `release`.
        """
        cdef int size_class = _class_of(size) if size <= self.size else CLASS_COUNT
        cdef uint64_t offset, rounded
        if size_class >= CLASS_COUNT:
            return None
        rounded = _class_size(size_class)
        with self.lock:
            if self.free[size_class]:
                offset = self.free[size_class].pop()
                self.cached_bytes -= min(rounded, self.cached_bytes)
            elif self.begin + self.size - self.fresh >= rounded:
                offset = self.fresh
                self.fresh += rounded
            else:
                return None
            self.used[offset] = size_class
        return _block(self.segment, offset, size, self.release)

    def release(self, uint64_t offset):
        """Take a block back.

        Raises
        ------
        BrokenSegmentError
            No such block is handed out: the other process speaks of what it does not hold.
        """
        with self.lock:
            size_class = self.used.pop(offset, None)
            if size_class is None:
                raise BrokenSegmentError(f"no block at offset {offset} is handed out")
            self._give_back(offset, size_class)

    cdef int _give_back(self, uint64_t offset, int size_class) except -1:
        cdef uint64_t size = _class_size(size_class)
        if self.cached_bytes + size > self.cache_limit:
            # Without an effect where the system knows no holes in shared memory.
            madvise(self.segment.at(offset, size), size, MADV_REMOVE)
        else:
            self.cached_bytes += size
        self.free[size_class].append(offset)
        return 0


cdef class Block:
    """A stretch of shared memory, given back when the object goes.

    Arrays made by `array` keep it. In the owner's process it is made by `Arena.allocate`, in
    the other one by `borrow`.
    """

    def __dealloc__(self):
        if self.release is not None:
            self.release(self.offset)

    def hand_over(self):
        """Leave the block to the other process, which will give it back; returns its offset."""
        self.release = None
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


cdef Block _block(Segment segment, uint64_t offset, uint64_t size, release):
    cdef Block made = Block.__new__(Block)
    made.memory = segment.at(offset, size)
    made.segment = segment
    made.offset = offset
    made.size = size
    made.release = release
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
    if offset < begin or offset - begin > segment.arena_bytes or size > segment.arena_bytes - (offset - begin):
        raise BrokenSegmentError(
            f"{size} bytes at offset {offset} do not lie in the arena of the {'stub' if of_stub else 'server'}"
        )
    return _block(segment, offset, size, release)
