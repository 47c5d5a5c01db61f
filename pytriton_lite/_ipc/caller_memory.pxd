"""Memory of a server's callers that its stubs can read (see caller_memory.pyx)."""
from libc.stdint cimport uint64_t

from pytriton_lite._ipc.arena cimport Arena, Block, Returns


cdef class CallerMemory:
    cdef readonly int fd            # in the server: the one that stubs get, which is read-only
    cdef char *memory
    cdef readonly uint64_t size
    cdef readonly Arena arena       # in the server; None in a stub

    cdef Block borrowed(self, uint64_t offset, uint64_t size, uint64_t token, Returns returns)
