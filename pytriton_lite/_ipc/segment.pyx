# cython: language_level=3, freethreading_compatible=True
"""The memory that a server shares with one stub, and the rings in it.

It is one file in memory without a name, passed on by its descriptor: nothing is left
behind however the processes end, and no mount limits it. The file is sparse, so that the
arenas can be as large as any tensor without using memory, and it is sealed, so that no
process can cut it off under the other.

Layout, offsets in bytes::

    0                   control page
                            0  uint64  MAGIC
                            8  uint32  VERSION of this layout
                           16  uint64  bytes of data of a ring
                           24  uint64  bytes of an arena
                         1024  64 x uint64  claims, see protocol.pxd
    4096                ring `calls`         server to stub: what `execute` is to run
    + 192 + ring        ring `answers`       stub to server: what it returned
    + 192 + ring        ring `to_stub`       server to stub: everything that does not wait its turn
    + 192 + ring        ring `to_server`     stub to server: the same
    next full page      arena of the server  tensors that the server hands to the stub
    + arena             arena of the stub    tensors that the stub hands to the server

Each process writes into its own arena only, and reads both. See ring.pxd for rings, and
arena.pyx for arenas. The server takes nothing in the memory for granted: the sizes are its
own, and what it reads is checked.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock, PyThread_type_lock,
)

import errno
import fcntl
import os

from pytriton_lite._core.slot cimport signal_slice
from pytriton_lite._core.sync cimport ptl_now_ns
from pytriton_lite._ipc.ring cimport *
from pytriton_lite.errors import InternalError, UnavailableError

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<sys/mman.h>":
    int MAP_NORESERVE

cdef extern from *:
    """
    #include <pthread.h>

    static int ptl_segment_generation = 0;      /* another number in each forked process */

    static void ptl_segment_forked(void) { ptl_segment_generation++; }
    static int ptl_segment_watch_forks(void) { return pthread_atfork(NULL, NULL, ptl_segment_forked); }
    """
    int ptl_segment_generation
    int ptl_segment_watch_forks()

if ptl_segment_watch_forks():
    raise MemoryError

cdef enum:
    # A reader that has slept for so long would have slept however long it had looked before.
    LONG_SLEEP_NS = 500_000
    LEAST_LOOK_NS = 5_000
    # How often a reader looks before it gives the CPU away: some 8 us.
    LOOKS = 400

cdef enum:
    PAGE = 4096
    VERSION = 1
    RING_COUNT = 4

cdef uint64_t MAGIC = 0x3142555453_4C5450  # "PTLSTUB1", as it lies in memory

RINGS = ("calls", "answers", "to_stub", "to_server")

# Of fcntl; Python names them from 3.13 on.
_F_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_F_SEAL_SEAL, _F_SEAL_SHRINK, _F_SEAL_GROW = 1, 2, 4


class BrokenSegmentError(InternalError):
    """What lies in the shared memory cannot be: the other process has written over it."""


cdef uint64_t _ring_stride(uint64_t ring_bytes) noexcept:
    return PTL_RING_HEADER + ring_bytes


cdef uint64_t _arenas_begin(uint64_t ring_bytes) noexcept:
    return (PAGE + RING_COUNT * _ring_stride(ring_bytes) + PAGE - 1) // PAGE * PAGE


cdef class Segment:
    """A mapping of the shared memory.

    Make one with `create` in the server, and with `attach` in the stub.

    Attributes
    ----------
    fd
        Its descriptor; closed together with the mapping, when the object goes.
    ring_bytes, arena_bytes
        Sizes of the data of a ring and of an arena, in bytes.
    """

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)
        if self.fd >= 0:
            os.close(self.fd)

    @staticmethod
    def create_largest(*, uint64_t ring_bytes=1 << 20):
        """`create` with the largest arenas, 64 GiB at most, for which there are addresses.

        Those are scarce under a limit (`ulimit -v`) or where the system promises no memory that
        it does not have (``vm.overcommit_memory=2``).
        """
        cdef uint64_t arena_bytes = 1 << 36
        while True:
            try:
                return Segment.create(ring_bytes=ring_bytes, arena_bytes=arena_bytes)
            except OSError:
                if arena_bytes <= 1 << 26:
                    raise
                arena_bytes >>= 2

    @staticmethod
    def create(*, uint64_t ring_bytes=1 << 20, uint64_t arena_bytes=1 << 36):
        """Make the memory.

        Parameters
        ----------
        ring_bytes
            A power of two, at least 4096.
        arena_bytes
            A multiple of 4096. What is not used takes no memory.
        """
        cdef Segment made = Segment.__new__(Segment)
        if ring_bytes < PAGE or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"ring_bytes must be a power of two of at least {PAGE}, got {ring_bytes}")
        if not arena_bytes or arena_bytes % PAGE:
            raise ValueError(f"arena_bytes must be a positive multiple of {PAGE}, got {arena_bytes}")
        made.ring_bytes = ring_bytes
        made.arena_bytes = arena_bytes
        made.size = _arenas_begin(ring_bytes) + 2 * arena_bytes
        made.fd = os.memfd_create("pytriton_lite", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(made.fd, made.size)
        fcntl.fcntl(made.fd, _F_ADD_SEALS, _F_SEAL_SHRINK | _F_SEAL_GROW | _F_SEAL_SEAL)
        made._map()
        memcpy(made.memory, &MAGIC, 8)
        (<uint32_t *> (made.memory + 8))[0] = VERSION
        (<uint64_t *> (made.memory + 16))[0] = ring_bytes
        (<uint64_t *> (made.memory + 24))[0] = arena_bytes
        return made

    @staticmethod
    def attach(int fd):
        """Map the memory behind a descriptor, which belongs to the object from now on.

        Raises
        ------
        BrokenSegmentError
            It is no such memory, or that of another version.
        """
        cdef Segment made = Segment.__new__(Segment)
        cdef uint64_t magic
        cdef bint is_right
        made.fd = fd
        made.size = os.fstat(fd).st_size
        if made.size < PAGE:
            raise BrokenSegmentError("the shared memory of the server is too small")
        made._map()
        memcpy(&magic, made.memory, 8)
        made.ring_bytes = (<uint64_t *> (made.memory + 16))[0]
        made.arena_bytes = (<uint64_t *> (made.memory + 24))[0]
        is_right = (
            magic == MAGIC and (<uint32_t *> (made.memory + 8))[0] == VERSION
            and made.ring_bytes <= made.size and made.arena_bytes <= made.size
            and made.size == _arenas_begin(made.ring_bytes) + 2 * made.arena_bytes
        )
        if not is_right:
            raise BrokenSegmentError(
                "the shared memory of the server has another layout: server and stub must run the same "
                "version of pytriton_lite"
            )
        return made

    cdef int _map(self) except -1:
        cdef void *memory = mmap(
            NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, self.fd, 0
        )
        if memory == MAP_FAILED:
            raise OSError(errno.ENOMEM, f"cannot map {self.size} bytes of shared memory")
        self.memory = <char *> memory
        return 0

    cdef char *at(self, uint64_t offset, uint64_t length) except NULL:
        """Address of a stretch of the memory; checked, since offsets come from the other process."""
        if offset > self.size or length > self.size - offset:
            raise BrokenSegmentError(
                f"{length} bytes at offset {offset} do not lie in shared memory of {self.size} bytes"
            )
        return self.memory + offset

    def arena_begin(self, bint of_stub):
        """Offset of an arena."""
        return _arenas_begin(self.ring_bytes) + (self.arena_bytes if of_stub else 0)

    def resident_bytes(self):
        """Bytes of memory that the segment uses at the moment."""
        return os.fstat(self.fd).st_blocks * 512

    def producer(self, str ring):
        """The writing end of a ring; one process has it, and makes it once."""
        cdef Producer made = Producer.__new__(Producer)
        made.segment = self
        made.generation = ptl_segment_generation
        ptl_ring_init(&made.ring, self._ring(ring), self.ring_bytes)
        return made

    def consumer(self, str ring, *, int64_t yield_ns=0):
        """The reading end of a ring; one process has it, and makes it once.

        `yield_ns` is how long, in nanoseconds, it looks for a record before it sleeps; less while
        records come so rarely that it sleeps for long after all.
        """
        cdef Consumer made = Consumer.__new__(Consumer)
        made.segment = self
        made.yield_ns = made.look_ns = yield_ns
        # On the only CPU, the other side needs it to put the record there.
        made.looks = LOOKS if len(os.sched_getaffinity(0)) > 1 else 1
        made.generation = ptl_segment_generation
        ptl_ring_init(&made.ring, self._ring(ring), self.ring_bytes)
        return made

    cdef char *_ring(self, str name) except NULL:
        return self.memory + PAGE + <uint64_t> RINGS.index(name) * _ring_stride(self.ring_bytes)


cdef class Producer:
    """Writing end of a ring. Thread-safe.

    A forked child of the process that made it can only close it: what the child wrote would go across
    what its parent writes, and a lock of a thread that the child does not have would never be free.
    """

    def __cinit__(self):
        self.lock = _new_lock()

    def __dealloc__(self):
        PyThread_free_lock(self.lock)

    @property
    def largest(self):
        """Largest payload of a record, in bytes."""
        return self.ring.size // 2 - PTL_RECORD_HEADER

    def push(self, uint32_t kind, uint64_t call, payload=b"", *, int64_t deadline_ns=0):
        """Put a record in and wake the consumer; waits while there is no room.

        Parameters
        ----------
        kind
            Not 0.
        payload
            Object with the buffer protocol, contiguous; at most `largest` bytes.
        deadline_ns
            Of `time.monotonic_ns`; 0 means no limit.

        Raises
        ------
        ValueError
            The payload is too large for this ring, or the kind is 0.
        TimeoutError
            There was no room until the deadline.
        UnavailableError
            The ring is closed, or another process's.
        BrokenSegmentError
            The consumer has spoilt the ring.
        """
        cdef const unsigned char[::1] view = payload
        if kind == 0:
            raise ValueError("a record must have a kind")
        self.put(
            kind, call, <const char *> &view[0] if view.shape[0] else NULL, view.shape[0], deadline_ns
        )

    cdef int put(
        self, uint32_t kind, uint64_t call, const char *payload, uint64_t length, int64_t deadline_ns,
        bint is_quiet=False,
    ) except -1:
        """`push`. With `is_quiet` the consumer is left asleep while there is room for more."""
        cdef int state
        cdef uint64_t seen
        cdef int64_t ns
        if self.is_inherited():
            raise forked_error()
        while True:
            _acquire(self.lock)
            try:
                if self.is_closed:
                    raise UnavailableError("the other process is gone")
                seen = self.ring.head.head
                state = ptl_ring_put(&self.ring, kind, call, payload, length)
                if state != PTL_RING_FULL:
                    break
                ns = _nap(deadline_ns)
                self.is_napping = True
                with nogil:
                    ptl_ring_await_room(&self.ring, seen, ns)
                self.is_napping = False
            finally:
                PyThread_release_lock(self.lock)
            PyErr_CheckSignals()  # without the lock: a handler may want the ring, too
        if state == PTL_RING_TOO_LARGE:
            raise ValueError(f"a record of {length} bytes is too large for a ring of {self.ring.size}")
        if state == PTL_RING_BROKEN:
            raise BrokenSegmentError("the reader of a ring has counted more than was written")
        if is_quiet and self.ring.mine - self.ring.head.head < self.ring.size // 4:
            return 0
        if ptl_ring_bell(&self.ring):
            # Without the GIL, else a thread of this process that is woken would find it taken.
            with nogil:
                ptl_ring_wake(&self.ring.head.asleep)
        return 0

    cdef bint is_inherited(self) noexcept:
        return self.generation != ptl_segment_generation

    def close(self):
        """The other process is gone: whoever waits here is told, now and later."""
        self.is_closed = True
        if self.is_inherited():
            return
        while self.is_napping:  # it may have looked at `is_closed` just before
            _rouse(&self.ring.head.full)


cdef class Consumer:
    """Reading end of a ring. Thread-safe; each record goes to one thread.

    Not for forked children, like `Producer`.
    """

    def __cinit__(self):
        self.lock = _new_lock()

    def __dealloc__(self):
        PyThread_free_lock(self.lock)

    def pull(self, *, int64_t deadline_ns=0):
        """Take the next record out; waits for one.

        Returns
        -------
        tuple of (int, int, bytes)
            Kind, call and a copy of the payload.

        Raises
        ------
        TimeoutError
            None came until the deadline, of `time.monotonic_ns`; 0 means no limit.
        UnavailableError
            The ring is closed and empty, or another process's.
        BrokenSegmentError
            The producer has spoilt the ring.
        """
        cdef uint32_t kind
        cdef uint64_t call
        payload = self.get(&kind, &call, deadline_ns)
        return kind, call, payload

    cdef bytes get(self, uint32_t *kind, uint64_t *call, int64_t deadline_ns):
        cdef ptl_record record
        cdef char *where = NULL
        cdef int state
        cdef int64_t ns, asleep_since = 0
        cdef bytes payload
        cdef bint is_waited_for, has_looked = False
        if self.generation != ptl_segment_generation:
            raise forked_error()
        while True:
            _acquire(self.lock)
            try:
                state = ptl_ring_peek(&self.ring, &record, &where)
                if state == PTL_RING_BROKEN:
                    raise BrokenSegmentError("a ring does not hold records")
                if state == PTL_RING_OK:
                    payload = PyBytes_FromStringAndSize(where, record.size - PTL_RECORD_HEADER)
                    is_waited_for = ptl_ring_taken(&self.ring, &record)
                    if has_looked:
                        if not asleep_since or ptl_now_ns() - asleep_since < LONG_SLEEP_NS:
                            self.look_ns = self.yield_ns
                        else:
                            self.look_ns = max(self.look_ns // 2, min(self.yield_ns, <int64_t> LEAST_LOOK_NS))
                    break
                if self.is_closed:
                    raise UnavailableError("the other process is gone")
                if self.yield_ns and not has_looked:
                    has_looked = True
                    with nogil:
                        ptl_ring_look_for_record(&self.ring, self.look_ns, self.looks)
                    continue
                ns = _nap(deadline_ns)
                if not asleep_since:
                    asleep_since = ptl_now_ns()
                self.is_napping = True
                with nogil:
                    ptl_ring_await_record(&self.ring, ns)
                self.is_napping = False
            finally:
                PyThread_release_lock(self.lock)
            PyErr_CheckSignals()  # without the lock: a handler may want the ring, too
        if is_waited_for:
            with nogil:
                ptl_ring_wake(&self.ring.head.full)
        kind[0] = record.kind
        call[0] = record.call
        return payload

    cdef int rouse(self) except -1:
        """Let a thread that sleeps for a record look for one that was put in quietly."""
        if self.generation == ptl_segment_generation and ptl_ring_bell(&self.ring):
            with nogil:
                ptl_ring_wake(&self.ring.head.asleep)
        return 0

    def close(self):
        """The other process is gone: what it has written can still be read."""
        self.is_closed = True
        if self.generation != ptl_segment_generation:
            return
        while self.is_napping:  # it may have looked at `is_closed` just before
            _rouse(&self.ring.head.asleep)


cdef object forked_error():
    """For who uses, in a forked child, what its parent has to talk to another process."""
    return UnavailableError(
        "this process was forked from one that is an instance of a model or has some, and only that one "
        "can talk to the other side: requests, responses, metrics and the like go through the parent"
    )


cdef PyThread_type_lock _new_lock() except NULL:
    cdef PyThread_type_lock lock = PyThread_allocate_lock()
    if lock == NULL:
        raise MemoryError
    return lock


cdef int _acquire(PyThread_type_lock lock) except -1:
    if not PyThread_acquire_lock(lock, NOWAIT_LOCK):
        with nogil:
            PyThread_acquire_lock(lock, WAIT_LOCK)
    return 0


cdef int _rouse(uint32_t *word) except -1:
    word[0] = 0
    with nogil:
        ptl_ring_wake(word)
        sched_yield()
    return 0


cdef int64_t _nap(int64_t deadline_ns) except -1:
    """How long to sleep at a time; raises TimeoutError when the time is up."""
    cdef int64_t slice_ns = signal_slice(), left
    if not deadline_ns:
        return slice_ns
    left = deadline_ns - ptl_now_ns()
    if left <= 0:
        raise TimeoutError("the time is up")
    return left if not slice_ns else min(left, slice_ns)
