"""Blocks of shared memory (see arena.pyx)."""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._core.array cimport MemoryOwner
from pytriton_lite._ipc.heap cimport ptl_heap
from pytriton_lite._ipc.segment cimport Segment


cdef class Arena:
    cdef ptl_heap heap
    cdef object mapping             # keeps the memory
    cdef readonly uint64_t begin    # offset of the arena in its mapping

    cdef int lend(self, uint64_t offset) except -1
    cdef int take_back(self, uint64_t offset) except -1
    cdef Block adopt(self, uint64_t offset, uint64_t size)
    cdef uint64_t lendable(self, const void *address, uint64_t size) noexcept


cdef class Returns:
    cdef object queue               # deque of tokens
    cdef int64_t bytes              # about; of their blocks


cdef class Block(MemoryOwner):
    cdef Arena arena                # whose it is, if it is of this process
    cdef object mapping             # keeps the memory
    cdef object release             # called with `token` when a block of the other process goes; or None
    cdef Returns returns            # takes `token` then; or None
    cdef readonly uint64_t offset
    cdef readonly uint64_t size
    cdef uint64_t token             # what the other process knows the block by
    cdef char *memory


cdef Arena new_arena(object mapping, char *memory, uint64_t size, uint64_t begin, uint64_t cache_limit)
cdef Block borrowed_block(object mapping, char *memory, uint64_t offset, uint64_t size, uint64_t token, Returns returns)
