# cython: language_level=3, freethreading_compatible=True
"""Memory for inputs that all stubs of a server can read without a copy.

One sparse file in memory without a name. The server maps it to write and gives it out in arrays
(`Server.empty`); each stub has it from its start and maps it to read. A request whose input lies in it
carries the place alone, and the stub gives the block back like one of the server's arena.

A stub cannot change what callers have in it. Nothing in it is trusted by the server either: what a
stub says about it is looked up in the server's own notes of what that stub was lent (wire.pyx).
"""
from libc.stdint cimport int64_t, uint64_t
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

import errno
import fcntl
import math
import os

import numpy as np

from pytriton_lite._core.array cimport (
    DT_BYTES, DT_INVALID, MAX_NDIM, ArrayView, describe, item_size, view_of_memory,
)
from pytriton_lite._ipc.arena cimport Block, Returns, borrowed_block, new_arena
from pytriton_lite._ipc.segment import BrokenSegmentError
from pytriton_lite.errors import InvalidArgumentError

cdef extern from "<sys/mman.h>":
    int MAP_NORESERVE

cdef enum:
    PAGE = 4096

# Of fcntl; Python names them from 3.13 on.
_F_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4


cdef class CallerMemory:
    """A mapping of the memory; make one with `create` in the server, and with `attach` in a stub.

    Attributes
    ----------
    fd
        Its descriptor, for reading alone; closed together with the mapping, when the object goes.
    arena
        Who gives its blocks out; None in a stub.
    """

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)
        if self.fd >= 0:
            os.close(self.fd)

    @staticmethod
    def create_largest():
        """`create` with the largest size, 64 GiB at most, for which there are addresses."""
        cdef uint64_t size = 1 << 36
        while True:
            try:
                return CallerMemory.create(size=size)
            except OSError:
                if size <= 1 << 26:
                    raise
                size >>= 2

    @staticmethod
    def create(*, uint64_t size=1 << 36, uint64_t cache_limit=1 << 28):
        """Make the memory.

        Parameters
        ----------
        size
            Bytes, a multiple of 4096. What is not used takes no memory.
        cache_limit
            As of `Arena`.
        """
        cdef CallerMemory made = CallerMemory.__new__(CallerMemory)
        cdef CallerMemory keeper = CallerMemory.__new__(CallerMemory)
        if not size or size % PAGE:
            raise ValueError(f"size must be a positive multiple of {PAGE}, got {size}")
        fd = os.memfd_create("pytriton_lite_callers", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_SEAL)
            _map(keeper, fd, size, PROT_READ | PROT_WRITE)
            try:
                made.fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # no /proc: stubs map it to read, without being held to that
                made.fd = os.dup(fd)
        finally:
            os.close(fd)
        # The arena and its blocks keep the mapping; `made` keeps them and the descriptor.
        made.size = size
        made.arena = new_arena(keeper, keeper.memory, size, 0, cache_limit)
        return made

    @staticmethod
    def attach(int fd):
        """Map the memory behind a descriptor, which belongs to the object from now on."""
        cdef CallerMemory made = CallerMemory.__new__(CallerMemory)
        made.fd = fd
        _map(made, fd, os.fstat(fd).st_size, PROT_READ)
        return made

    def empty(self, shape, dtype):
        """A new array; see `Server.empty`."""
        cdef ArrayView view
        cdef int64_t[64] dims
        cdef Block block
        cdef object sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        cdef int i
        if not describe(np.empty(0, dtype), &view) or view.data_type in (DT_INVALID, DT_BYTES):
            raise InvalidArgumentError(f"memory for inputs cannot hold elements of {np.dtype(dtype)}")
        if len(sizes) > MAX_NDIM or any(n < 0 for n in sizes):
            raise InvalidArgumentError(f"no tensor has shape {sizes}")
        size = math.prod(sizes) * item_size(view.data_type)
        if size <= <uint64_t> self.arena.heap.size and all(n < 1 << 62 for n in sizes):
            block = self.arena.allocate(size)
            if block is not None:
                for i, n in enumerate(sizes):
                    dims[i] = n
                return view_of_memory(block.memory, len(sizes), dims, NULL, view.data_type, block, True)
        raise MemoryError(f"the memory for inputs has no room for {size} bytes")

    cdef Block borrowed(self, uint64_t offset, uint64_t size, uint64_t token, Returns returns):
        """A block that the server lends to this stub."""
        if offset > self.size or size > self.size - offset:
            raise BrokenSegmentError(f"{size} bytes at offset {offset} do not lie in the callers' memory")
        return borrowed_block(self, self.memory + offset, offset, size, token, returns)


cdef int _map(CallerMemory memory, int fd, uint64_t size, int access) except -1:
    cdef void *at = mmap(NULL, size, access, MAP_SHARED | MAP_NORESERVE, fd, 0)
    if at == MAP_FAILED:
        raise OSError(errno.ENOMEM, f"cannot map {size} bytes of shared memory")
    memory.memory = <char *> at
    memory.size = size
    return 0
