"""Statistics of a model version (see statistics.pyx)."""
from libc.stdint cimport int64_t

cdef enum:
    REASON_REJECTED = 0
    REASON_CANCELED = 1
    REASON_BACKEND = 2
    REASON_OTHER = 3
    REASON_COUNT = 4


# Sums of nanoseconds, and of microseconds of which each request's part is rounded down.
ctypedef struct Duration:
    int64_t ns
    int64_t us


cdef class VersionStatistics:
    cdef int64_t success_count
    cdef int64_t[4] failure_counts  # by REASON_*
    cdef int64_t inference_count
    cdef int64_t execution_count
    cdef Duration request, queue, compute_infer

    cdef void executed(
        self, int64_t queued_ns, int64_t began_ns, int64_t ended_ns, int64_t batch_size, bint has_failed
    ) noexcept
    cdef void failed(self, int reason) noexcept
