# cython: language_level=3, freethreading_compatible=True
"""`BatchFormer`: the rules of formation.pxd for requests that are numbers, with a clock by hand."""
cimport cython
from libc.stdint cimport int64_t

from pytriton_lite._core.formation cimport *
from pytriton_lite._core.sync cimport PTL_ABANDONED, PTL_QUEUED, ptl_move, ptl_node
from pytriton_lite.errors import UnsupportedError

cdef enum:
    MOST_LEVELS = 10_000

# Some 30 years; the nanoseconds still fit.
cdef object _MOST_US = 10**15

REASONS = ("", "full", "preferred size", "delay over", "incompatible", "idle instance", "released")


cdef int arrange(ptl_former *former, settings, int64_t max_batch_size) except -1:
    """Begin to form batches by `DynamicBatchingSettings`."""
    cdef ptl_level *level
    cdef int i, level_count = max(1, min(settings.priority_levels, MOST_LEVELS))
    cdef int64_t delay_ns = min(settings.max_queue_delay_us, _MOST_US) * 1000
    cdef int64_t largest = max(1, max_batch_size)
    if settings.priority_levels > MOST_LEVELS:
        raise UnsupportedError(f"{settings.priority_levels} priority levels, at most {MOST_LEVELS} are supported")
    preferred = sorted(set(settings.preferred_batch_sizes)) or [largest]
    if ptl_former_init(former, level_count, largest, delay_ns, len(preferred)):
        ptl_former_free(former)
        raise MemoryError
    for i in range(len(preferred)):
        former.preferred[i] = preferred[i]
    for i in range(level_count):
        policy = settings.default_queue_policy
        if settings.priority_levels:
            policy = settings.priority_queue_policies.get(i + 1, policy)
        level = &former.levels[i]
        level.most = policy.max_queue_size
        level.timeout_ns = min(policy.default_timeout_us, _MOST_US) * 1000
        level.may_override = policy.allow_timeout_override
        level.keeps_late = policy.is_delay
    return 0


cdef int level_of(ptl_former *former, int default, unsigned long priority) noexcept nogil:
    """Index of the level of a request; a priority that is not given or too great means the default."""
    if priority == 0 or priority > <unsigned long> former.level_count:
        return default
    return <int> (priority - 1)


cdef int64_t expiry_of(
    ptl_former *former, int level, unsigned long timeout_us, int64_t now_ns
) noexcept nogil:
    """When a request that is queued now has waited too long; 0: never."""
    cdef int64_t timeout_ns = former.levels[level].timeout_ns
    if timeout_ns == 0:
        return 0
    if former.levels[level].may_override and 0 < timeout_us < <unsigned long> (timeout_ns // 1000):
        timeout_ns = <int64_t> timeout_us * 1000
    return now_ns + timeout_ns


@cython.final
cdef class _Entry:
    cdef ptl_node node
    cdef object label

    def __cinit__(self):
        self.node.owner = <void *> self
        self.node.word = PTL_QUEUED


@cython.final
cdef class BatchFormer:
    """Forms batches as the dynamic batcher does, without threads; not thread-safe.

    Parameters
    ----------
    settings
        `DynamicBatchingSettings` of a model.
    max_batch_size
        Of the model.
    """

    cdef ptl_former former
    cdef int default_level
    cdef dict entries   # label -> _Entry, of all that is queued

    def __init__(self, settings, max_batch_size):
        arrange(&self.former, settings, max_batch_size)
        self.default_level = max(1, settings.default_priority_level) - 1
        self.entries = {}

    def __dealloc__(self):
        ptl_former_free(&self.former)

    @property
    def count(self):
        """Requests that wait."""
        return self.former.count

    def add(self, label, size=1, *, int64_t now_ns, priority=0, timeout_us=0, key=0):
        """Queue a request; returns whether a batch may be ready now, None if the level is full."""
        cdef _Entry entry = _Entry()
        entry.label = label
        entry.node.batch_size = max(1, size)
        entry.node.level = level_of(&self.former, self.default_level, priority)
        entry.node.key = key
        entry.node.entered_ns = now_ns
        entry.node.expires_ns = expiry_of(&self.former, entry.node.level, timeout_us, now_ns)
        if ptl_is_level_full(&self.former, entry.node.level):
            return None
        self.entries[label] = entry
        return ptl_enter(&self.former, &entry.node)

    def give_up(self, label):
        """A caller has gone; the request is found when a batch is formed."""
        cdef _Entry entry = self.entries[label]
        ptl_move(&entry.node.word, PTL_QUEUED, PTL_ABANDONED)

    def hold(self):
        """Only collect requests."""
        self.former.is_held = True

    def release(self, int64_t now_ns):
        """End a `hold`: no request that is there waits for a delay any longer."""
        self.former.is_held = False
        self.former.released_ns = now_ns

    def form(self, int64_t now_ns, *, is_over=False):
        """What an instance gets that asks for work: (labels, reason, labels rejected, look again at).

        The last is the time to ask again if nothing comes before, 0 if there is none.
        """
        cdef ptl_batch batch
        ptl_form(&self.former, now_ns, is_over, &batch)
        self._take(batch.dropped)
        labels = self._take(batch.first)
        return labels, REASONS[batch.reason], self._take(batch.rejected)[::-1], batch.until_ns

    def expire(self, int64_t now_ns):
        """Labels whose time is up and that are rejected, and when the next one's is (0: none)."""
        cdef ptl_batch batch
        cdef int64_t closest = ptl_expire(&self.former, now_ns, &batch)
        self._take(batch.dropped)
        return self._take(batch.rejected)[::-1], closest

    cdef list _take(self, ptl_node *node):
        cdef list labels = []
        while node != NULL:
            labels.append((<_Entry> node.owner).label)
            node = node.next
        for label in labels:
            del self.entries[label]
        return labels
