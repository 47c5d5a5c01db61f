"""Statistics of a model version (see statistics.pyx)."""
from libc.stdint cimport int64_t, uint32_t

cdef enum:
    REASON_REJECTED = 0
    REASON_CANCELED = 1
    REASON_BACKEND = 2
    REASON_OTHER = 3
    REASON_COUNT = 4


# When a request passed which point, on the monotonic clock.
ctypedef struct Times:
    int64_t queued_ns
    int64_t began_ns        # an instance took it
    int64_t inputs_ns       # its inputs are where the model is
    int64_t outputs_ns      # `execute` is over
    int64_t ended_ns        # the answer is there; 0: nothing is known


# Sums of nanoseconds, and of microseconds of which each request's part is rounded down.
ctypedef struct Duration:
    int64_t ns
    int64_t us


# Executions of one total batch size, and sums of their nanoseconds.
ctypedef struct BatchSums:
    int64_t size, count, input_ns, infer_ns, output_ns


cdef class VersionStatistics:
    cdef uint32_t lock              # of all that follows
    cdef int64_t last_ns            # end of the last execution; 0: there was none
    cdef int64_t told_ns, told_ms   # the same when it was last asked for, and as wall time
    cdef int64_t success_count
    cdef int64_t[4] failure_counts  # by REASON_*
    cdef int64_t inference_count
    cdef int64_t execution_count
    cdef Duration request, fail, queue, compute_input, compute_infer, compute_output
    cdef BatchSums *batches         # by size, ascending
    cdef int batch_count, batch_room
    cdef int recent                 # place of the last batch in `batches`

    cdef void count_alone(self, const Times *times, int64_t rows, bint has_failed) noexcept
    cdef void count_execution(self, const Times *times, int64_t rows) noexcept
    cdef void count_request(self, const Times *times, int64_t rows, bint has_failed) noexcept
    cpdef void executed(
        self, int64_t queued_ns, int64_t began_ns, int64_t ended_ns, int64_t rows, bint has_failed
    ) noexcept
    cdef void failed(self, int reason, int64_t queued_ns=*) noexcept
    cdef void _execution(self, const Times *times, int64_t rows) noexcept
    cdef void _request(self, const Times *times, int64_t rows, bint has_failed) noexcept
    cdef BatchSums *_batch(self, int64_t size) noexcept


cdef inline Times times_of(
    int64_t queued_ns, int64_t began_ns, int64_t inputs_ns, int64_t outputs_ns, int64_t ended_ns
) noexcept:
    """Times of an execution; 0 where a step took no time of its own, or `queued_ns` if it was not queued."""
    cdef Times times
    times.queued_ns = queued_ns if queued_ns else began_ns
    times.began_ns = began_ns
    # What was noted before this request began is not about it.
    times.inputs_ns = inputs_ns if began_ns < inputs_ns < ended_ns else began_ns
    times.outputs_ns = outputs_ns if times.inputs_ns <= outputs_ns < ended_ns else ended_ns
    times.ended_ns = ended_ns
    return times
