# cython: language_level=3, freethreading_compatible=True
"""Which BLS requests can never be answered.

A request is stuck when nobody can run it, since every instance that could waits for BLS
requests of its own of which the same is true, or when the instance that runs it waits so.
Every such ring has a request in it that is queued, and that request is the one to fail.

There are two degrees of certainty:

* Instances that wait on their own thread in `exec` cannot go on: certain at once. Waits begin
  one after another, so the one that closes a ring finds it (`why_stuck`).
* An instance whose `execute` is a coroutine that awaits BLS requests, or whose request has a
  response sender, may still go on: another task or thread of the model may answer, or
  give up waiting. Such a ring counts when nothing at all has changed in it for
  `PATIENCE_S` (`Watch`). A request that found an idle instance is never watched, since it is
  not queued.

What a thread does that the model has started itself is not known: its waits count only
beside those of the instance, and an instance that waits for such a thread (`join`) seems busy.
"""
cimport cython
from libc.stdint cimport int64_t, uint32_t

from pytriton_lite._core.contract cimport Contract
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.sync cimport PTL_QUEUED, PTL_RUNNING, ptl_load, ptl_now_ns

# How long a ring that only patience can tell from work must stay as it is. Looks are taken four
# times as often.
PATIENCE_S = 2.0


cdef enum:
    OWN_CALLBACKS = 2  # of `BlsCalls.async_exec` and `LoopBridge.submit`


cdef int64_t watch_slice_ns() except -1:
    """How long a watched request may be left without a look."""
    return <int64_t> (<double> PATIENCE_S * 0.25e9) + 1


def watch_slice_s():
    """`watch_slice_ns` for timers of event loops."""
    return PATIENCE_S * 0.25


cdef CallSlot begin_wait(Contract own, Contract maker, CallSlot slot):
    """A thread begins to wait for a BLS request; what to hand to `end_wait`.

    `own` is the contract whose `execute` the thread runs, None for a thread of the model's own;
    then the request is one more that `maker` has pending.
    """
    cdef CallSlot outer = None
    if own is not None:
        outer = own.waits_for
        own.waits_for = slot
    elif maker is not None:
        maker.pending[slot] = None
    return outer


cdef int end_wait(Contract own, Contract maker, CallSlot slot, CallSlot outer) except -1:
    if own is not None:
        own.waits_for = outer
    elif maker is not None:
        maker.pending.pop(slot, None)
    return 0


cdef bint awaits_coroutine(Contract contract) except -1:
    """Whether `execute` is a coroutine, and one of its requests is awaited."""
    return contract.awaits_coroutine and any(map(_is_awaited, list(contract.pending.values())))


cdef str why_stuck(CallSlot slot):
    """The ring that a request is certainly stuck in, in words, or None."""
    cdef _Ring ring = _Ring(False)
    return ring.text() if ring.is_stuck(slot) else None


@cython.final
cdef class Watch:
    """A queued BLS request that found no idle instance, as who waits for it looks at it."""

    def __init__(self, CallSlot slot):
        self.slot = slot

    cdef str look(self):
        """The ring that the request has been stuck in for long enough, in words, or None."""
        cdef _Ring ring = _Ring(True)
        cdef int64_t now
        if ptl_load(&self.slot.node.word) != PTL_QUEUED or not ring.is_stuck(self.slot):
            self.picture = None
            return None
        now = ptl_now_ns()
        if self.picture is None or self.picture != ring.picture:
            self.picture = ring.picture
            self.since_ns = now
            return None
        if now - self.since_ns < <int64_t> (<double> PATIENCE_S * 1e9):
            return None
        return ring.text()


@cython.final
cdef class _Ring:
    """One look at who waits for whom.

    A contract that was met before counts as blocked: it is if all others are, and one that
    is not ends the look.
    """

    cdef bint is_patient
    cdef dict blocked   # contract -> None, in the order in which they were met
    cdef list picture   # what changes when somebody in it goes on

    def __cinit__(self, bint is_patient):
        self.is_patient = is_patient
        self.blocked = {}
        self.picture = []

    cdef bint is_stuck(self, CallSlot slot) except -1:
        cdef Contract contract
        cdef uint32_t word = ptl_load(&slot.node.word)
        if word == PTL_QUEUED:
            contracts = slot.queue.contracts
            for contract in contracts:
                if not self._is_blocked(contract):
                    return False
            return len(contracts) > 0
        contract = slot.runner
        if word != PTL_RUNNING or contract is None:
            return False
        if contract.may_be_answered(slot):
            if not self.is_patient:
                return False
            if slot.stream is not None:
                self.picture.append(slot.stream.pushed)
        return self._is_blocked(contract)

    cdef bint _is_blocked(self, Contract contract) except -1:
        cdef CallSlot slot
        cdef list waits
        if contract in self.blocked:
            return True
        waits = self._waits_of(contract)
        if not waits:
            return False
        self.blocked[contract] = None
        self.picture.append((contract, contract.executions, waits))
        for slot in waits:
            if not self.is_stuck(slot):
                return False
        return True

    cdef list _waits_of(self, Contract contract):
        """All that keeps an instance from going on; empty when it is not known to wait."""
        cdef CallSlot own = contract.waits_for
        cdef list waits
        if not self.is_patient:
            return [] if own is None else [own]
        if own is None and not awaits_coroutine(contract):
            return []
        waits = list(contract.pending)
        if own is not None:
            waits.append(own)
        return waits

    cdef str text(self):
        cdef Contract contract
        cdef CallSlot slot
        return "; ".join([
            f"instance '{contract.instance_name}' waits for model '{slot.queue.model_name}'"
            for contract in self.blocked for slot in self._waits_of(contract)[-1:]
        ])


def _is_awaited(future):
    # A thread waits for a request without a future. A future has callbacks of ours, and one of
    # each task, `gather`, ... that waits for it.
    return future is None or len(getattr(future, "_callbacks", None) or ()) > OWN_CALLBACKS
