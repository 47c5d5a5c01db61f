"""Blocks of shared memory (see arena.pyx)."""
from libc.stdint cimport int64_t, uint64_t

from pytriton_lite._ipc.segment cimport Segment


cdef class Arena:
    cdef Segment segment
    cdef readonly uint64_t begin    # offset of the arena in the segment
    cdef readonly uint64_t size
    cdef uint64_t fresh             # offset of what was never used
    cdef readonly uint64_t cached_bytes
    cdef readonly uint64_t cache_limit
    cdef dict used                  # offset -> size class, of blocks that somebody holds
    cdef list free                  # by size class: offsets of free blocks, the last freed at the end
    cdef object lock

    cdef int _give_back(self, uint64_t offset, int size_class) except -1


cdef class Block:
    cdef object __weakref__
    cdef Segment segment
    cdef object release             # called with the offset when the block goes; or None
    cdef readonly uint64_t offset
    cdef readonly uint64_t size
    cdef char *memory
