# cython: language_level=3, freethreading_compatible=True
"""Counters of one loaded model version, as Triton's statistics and metrics count.

A request counts when its `execute` has returned, also when a response sender answers it
later, and as a success when its response carries an error; a failure is what `execute` did
not answer (observed on 2.51). Inputs and outputs are passed by reference here, so computing
them takes no time of its own: all of it counts as inference.
"""
from libc.stdint cimport int64_t

cdef extern from *:
    """
    /* With a GIL, which all callers hold, nothing comes between the additions. */
    #ifdef Py_GIL_DISABLED
    #define PTL_ADD(where, n) __atomic_add_fetch(&(where), (n), __ATOMIC_RELAXED)
    #else
    #define PTL_ADD(where, n) ((where) += (n))
    #endif
    """
    int64_t PTL_ADD(int64_t where, int64_t n) noexcept

FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


cdef inline void _add(Duration *sums, int64_t ns) noexcept:
    PTL_ADD(sums.ns, ns)
    PTL_ADD(sums.us, ns // 1000)


cdef class VersionStatistics:
    """Counters of one loaded model version; they start at 0 and only grow."""

    cdef void executed(
        self, int64_t queued_ns, int64_t began_ns, int64_t ended_ns, int64_t batch_size, bint has_failed
    ) noexcept:
        """Count an execution of one request; times are of the monotonic clock."""
        PTL_ADD(self.execution_count, 1)
        if has_failed:
            PTL_ADD(self.failure_counts[<int> REASON_BACKEND], 1)
            return
        PTL_ADD(self.success_count, 1)
        PTL_ADD(self.inference_count, batch_size if batch_size > 0 else 1)
        _add(&self.request, ended_ns - queued_ns)
        _add(&self.queue, began_ns - queued_ns)
        _add(&self.compute_infer, ended_ns - began_ns)

    cdef void failed(self, int reason) noexcept:
        """Count a request that no instance executed."""
        PTL_ADD(self.failure_counts[reason], 1)

    def failures(self):
        """Numbers of failed requests by reason, in the order of `FAILURE_REASONS`."""
        return tuple([self.failure_counts[i] for i in range(REASON_COUNT)])

    def counters(self):
        """The other counters by the end of their metric's name; durations in microseconds."""
        return {
            "request_success": self.success_count,
            "count": self.inference_count,
            "exec_count": self.execution_count,
            "request_duration_us": self.request.us,
            "queue_duration_us": self.queue.us,
            "compute_input_duration_us": 0,
            "compute_infer_duration_us": self.compute_infer.us,
            "compute_output_duration_us": 0,
        }
