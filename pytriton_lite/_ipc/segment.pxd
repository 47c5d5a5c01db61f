"""Shared memory of a server and one stub (see segment.pyx)."""
from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._ipc.ring cimport ptl_ring_end


cdef class Segment:
    cdef readonly int fd
    cdef char *memory
    cdef readonly uint64_t size
    cdef readonly uint64_t ring_bytes
    cdef readonly uint64_t arena_bytes

    cdef int _map(self) except -1
    cdef char *_ring(self, str name) except NULL
    cdef char *at(self, uint64_t offset, uint64_t length) except NULL


cdef class Producer:
    cdef Segment segment            # keeps the memory
    cdef ptl_ring_end ring
    cdef PyThread_type_lock lock
    cdef bint is_closed
    cdef bint is_napping            # a thread of this side sleeps, or is about to
    cdef int generation             # of the process that made it: a forked child has no part in it

    cdef bint is_inherited(self) noexcept
    cdef int put(self, uint32_t kind, uint64_t call, const char *payload, uint64_t length, int64_t deadline_ns, bint is_quiet=*) except -1


cdef class Consumer:
    cdef Segment segment
    cdef ptl_ring_end ring
    cdef PyThread_type_lock lock
    cdef bint is_closed
    cdef bint is_napping            # a thread of this side sleeps, or is about to
    cdef int64_t yield_ns           # how long it looks for a record, at most
    cdef readonly int64_t look_ns   # and just now
    cdef int looks                  # how often before it gives the CPU away
    cdef int generation             # as of `Producer`

    cdef bytes get(self, uint32_t *kind, uint64_t *call, int64_t deadline_ns)
    cdef int rouse(self) except -1


cdef object forked_error()
