# cython: language_level=3, freethreading_compatible=True
"""Futures of submitted requests, and a condition for them that costs little while nobody waits.

`threading.Condition` makes a lock and a queue of waiters for each future, which takes longer than
the request itself takes to be queued. This one is two words, and who waits sleeps on one of them.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t

import concurrent.futures

from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.slot cimport CallSlot, signal_slice
from pytriton_lite._core.sync cimport *

cdef extern from "pythread.h":
    unsigned long PyThread_get_thread_ident() noexcept

cdef enum:
    FREE = 0
    HELD = 1
    CONTENDED = 2  # held, and somebody sleeps for it


cdef int64_t _deadline(object timeout) except -1:
    # Beyond some 30 years a limit is none, and the nanoseconds would not fit.
    if timeout is not None and <double> timeout < 1e9:
        return ptl_now_ns() + max(<int64_t> 0, <int64_t> (<double> timeout * 1e9))
    return 0


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
        cdef int64_t deadline_ns = _deadline(timeout), slice_ns = signal_slice()
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


cdef object _Future = concurrent.futures.Future
# States of a future. Their spelling is the standard library's.
cdef str _PENDING = "PENDING"
cdef str _FINISHED = "FINISHED"
# Another Python might have futures of another make, which are then left to their own methods.
cdef bint _are_known = vars(_Future()).keys() == {
    "_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"
}


cdef class FutureState:
    """What a `concurrent.futures.Future` keeps in its `__dict__`, and what is to be fast of it.

    In C, attributes take nanoseconds and a signal handler cannot raise between two of them.
    """

    cdef public object _condition, _state, _result, _exception
    cdef public list _waiters, _done_callbacks
    cdef RequestQueue queue
    cdef CallSlot slot

    def __init__(self, RequestQueue queue, CallSlot slot):
        if _are_known:
            self._condition = Condition.__new__(Condition)
            self._state = _PENDING
            self._waiters = []
            self._done_callbacks = []
        else:
            _Future.__init__(self)
        self.queue = queue
        self.slot = slot
        slot.has_future = True
        slot.notify = self._complete

    def _complete(self, CallSlot slot):
        """Take the outcome of the slot; called by who finished it."""
        cdef Condition condition
        outcome = slot.take_outcome()
        if not _are_known:
            self._complete_unknown(outcome)
            return
        # Straight from pending to finished, and taking the lock once.
        condition = self._condition
        condition._take()
        try:
            if self._state != _PENDING:
                return  # cancelled meanwhile
            if isinstance(outcome, BaseException):
                self._exception = outcome
                self._state = _FINISHED
                for waiter in self._waiters:
                    waiter.add_exception(self)
            else:
                self._result = outcome
                self._state = _FINISHED
                for waiter in self._waiters:
                    waiter.add_result(self)
            condition.notify_all()
        finally:
            condition._give_back()
        if self._done_callbacks:
            self._invoke_callbacks()

    cdef int _complete_unknown(self, object outcome) except -1:
        try:
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except concurrent.futures.InvalidStateError:
            pass  # cancelled meanwhile
        return 0

    def result(self, timeout=None):
        """As of `concurrent.futures.Future`."""
        # The state is the last to change, and for good.
        if self._state == _FINISHED and self._exception is None:
            return self._result
        return self._wait(_Future.result, timeout)

    def exception(self, timeout=None):
        """As of `concurrent.futures.Future`."""
        if self._state == _FINISHED:
            return self._exception
        return self._wait(_Future.exception, timeout)

    cdef object _wait(self, object get, object timeout):
        cdef int64_t deadline_ns = _deadline(timeout)
        cdef bint is_counted = self.queue.assist(self.slot, deadline_ns)
        try:
            if deadline_ns:
                timeout = max(0, deadline_ns - ptl_now_ns()) / 1e9
            return get(self, timeout)
        finally:
            if is_counted:
                self.queue.slept()

    def cancel(self):
        """Cancel the request; False when it is answered already."""
        if not self.queue.cancel(self.slot):
            return False
        if not self.cancelled():
            _Future.cancel(self)
            self.set_running_or_notify_cancel()
        return True


class RequestFuture(FutureState, concurrent.futures.Future):
    """Future of a submitted request; cancelling it cancels the request.

    Parameters
    ----------
    queue, slot
        What `cancel` gives up.
    """
