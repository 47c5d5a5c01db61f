# cython: language_level=3, freethreading_compatible=True
"""A condition for futures that costs little while nobody waits.

`threading.Condition` makes a lock and a queue of waiters for each future, which takes longer than
the request itself takes to be queued. This one is two words, and who waits sleeps on one of them.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t

from pytriton_lite._core.slot cimport signal_slice
from pytriton_lite._core.sync cimport *

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef enum:
    FREE = 0
    HELD = 1
    CONTENDED = 2  # held, and somebody sleeps for it


@cython.final
@cython.freelist(64)
cdef class Condition:
    """What `concurrent.futures` uses of a `threading.Condition` over an `RLock`.

    `wait` returns only for a `notify_all`, or when its time is up.
    """

    cdef uint32_t lock
    cdef uint32_t changes       # counts what was notified; the waiters sleep on it
    cdef int sleepers
    cdef int depth              # how often its owner has taken it
    cdef unsigned long owner    # thread identifier; 0 while it is free

    cdef int _take(self) except -1:
        cdef unsigned long me = PyThread_get_thread_ident()
        if self.owner == me:
            self.depth += 1
            return 0
        if not ptl_move(&self.lock, FREE, HELD):
            with nogil:
                while not ptl_move(&self.lock, FREE, CONTENDED):
                    if ptl_move(&self.lock, HELD, CONTENDED) or ptl_load(&self.lock) == CONTENDED:
                        ptl_sleep(&self.lock, CONTENDED, 0, 0)
        self.owner = me
        self.depth = 1
        return 0

    cdef int _give_back(self) except -1:
        if self.owner != PyThread_get_thread_ident():
            raise RuntimeError("the condition is not held by this thread")
        self.depth -= 1
        if self.depth == 0:
            self.owner = 0
            if not ptl_move(&self.lock, HELD, FREE):
                ptl_store(&self.lock, FREE)
                ptl_wake(&self.lock)
        return 0

    def acquire(self):
        """Take it, waiting for another thread that has it; the owner may take it again."""
        self._take()
        return True

    def release(self):
        """Give it back; raises RuntimeError if this thread does not have it."""
        self._give_back()

    def __enter__(self):
        self._take()
        return True

    def __exit__(self, kind, error, traceback):
        self._give_back()

    def wait(self, timeout=None):
        """Give it back, sleep until `notify_all`, and take it again.

        Returns False when `timeout` seconds have passed before. A signal handler that raises ends
        the wait.
        """
        cdef int depth = self.depth, woken = PTL_WOKEN
        cdef uint32_t seen = self.changes
        cdef int64_t deadline_ns = 0, slice_ns = signal_slice()
        # Beyond some 30 years a limit is none, and the nanoseconds would not fit.
        if timeout is not None and <double> timeout < 1e9:
            deadline_ns = ptl_now_ns() + max(<int64_t> 0, <int64_t> (<double> timeout * 1e9))
        if self.owner != PyThread_get_thread_ident():
            raise RuntimeError("the condition is not held by this thread")
        self.sleepers += 1
        self.depth = 1
        self._give_back()
        try:
            while ptl_load(&self.changes) == seen:
                with nogil:
                    woken = ptl_sleep(&self.changes, seen, deadline_ns, slice_ns)
                if woken == PTL_TIMED_OUT:
                    break
                PyErr_CheckSignals()
        finally:
            self._take()
            self.depth = depth
            self.sleepers -= 1
        return self.changes != seen

    def notify_all(self):
        """Wake all who wait; they go on when it has been given back."""
        ptl_store(&self.changes, self.changes + 1)
        if self.sleepers:
            ptl_wake(&self.changes)
