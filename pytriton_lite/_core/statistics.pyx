# cython: language_level=3, freethreading_compatible=True
"""Counters of one loaded model version, as Triton's statistics and metrics count.

A request counts when its `execute` has returned, also when a response sender answers it
later, and as a success when its response carries an error; a failure is what `execute` did
not answer (observed on 2.51). An execution counts whether it succeeded or not. In one execution
all requests have its durations in full.

In this process inputs and outputs are passed by reference, so that computing them takes no time
of its own: all of it counts as inference. To and from another process they are copied.
"""
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

import time

from pytriton_lite._core.sync cimport ptl_lock, ptl_now_ns, ptl_unlock

FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


cdef inline void _add(Duration *sums, int64_t ns) noexcept:
    sums.ns += ns
    sums.us += ns // 1000


cdef dict _sum(int64_t count, int64_t ns):
    return {"count": count, "ns": ns}


cdef class VersionStatistics:
    """Counters of one loaded model version; they start at 0 and only grow."""

    def __dealloc__(self):
        free(self.batches)

    cdef void count_alone(self, const Times *times, int64_t rows, bint has_failed) noexcept:
        """Count an execution of one request of `rows` rows; 0 if it has no batch dimension."""
        ptl_lock(&self.lock)
        self._execution(times, rows)
        self._request(times, rows, has_failed)
        ptl_unlock(&self.lock)

    cpdef void executed(
        self, int64_t queued_ns, int64_t began_ns, int64_t ended_ns, int64_t rows, bint has_failed
    ) noexcept:
        """`count_alone` without steps for inputs and outputs; times are of the monotonic clock."""
        cdef Times times = times_of(queued_ns, began_ns, 0, 0, ended_ns)
        self.count_alone(&times, rows, has_failed)

    cdef void count_execution(self, const Times *times, int64_t rows) noexcept:
        """Count an execution of `rows` rows in all; its requests are counted one by one."""
        ptl_lock(&self.lock)
        self._execution(times, rows)
        ptl_unlock(&self.lock)

    cdef void count_request(self, const Times *times, int64_t rows, bint has_failed) noexcept:
        """Count a request of an execution; `times` are those of the execution but for the queue."""
        ptl_lock(&self.lock)
        self._request(times, rows, has_failed)
        ptl_unlock(&self.lock)

    cdef void failed(self, int reason, int64_t queued_ns=0) noexcept:
        """Count a request that no instance executed, and that was queued at `queued_ns`."""
        cdef int64_t now = ptl_now_ns() if queued_ns else 0
        ptl_lock(&self.lock)
        self.failure_counts[reason] += 1
        _add(&self.fail, now - queued_ns)
        ptl_unlock(&self.lock)

    cdef void _execution(self, const Times *times, int64_t rows) noexcept:
        cdef BatchSums *sums = self._batch(rows if rows > 0 else 1)
        self.execution_count += 1
        if times.ended_ns > self.last_ns:
            self.last_ns = times.ended_ns
        if sums != NULL:
            sums.count += 1
            sums.input_ns += times.inputs_ns - times.began_ns
            sums.infer_ns += times.outputs_ns - times.inputs_ns
            sums.output_ns += times.ended_ns - times.outputs_ns

    cdef void _request(self, const Times *times, int64_t rows, bint has_failed) noexcept:
        if has_failed:
            self.failure_counts[<int> REASON_BACKEND] += 1
            _add(&self.fail, times.ended_ns - times.queued_ns)
            return
        self.success_count += 1
        self.inference_count += rows if rows > 0 else 1
        _add(&self.request, times.ended_ns - times.queued_ns)
        _add(&self.queue, times.began_ns - times.queued_ns)
        _add(&self.compute_input, times.inputs_ns - times.began_ns)
        _add(&self.compute_infer, times.outputs_ns - times.inputs_ns)
        _add(&self.compute_output, times.ended_ns - times.outputs_ns)

    cdef BatchSums *_batch(self, int64_t size) noexcept:
        """Sums of a batch size; NULL when there is no memory for them."""
        cdef BatchSums *grown
        cdef int low = 0, high = self.batch_count, middle
        if self.recent < high and self.batches[self.recent].size == size:
            return &self.batches[self.recent]
        while low < high:
            middle = (low + high) // 2
            if self.batches[middle].size < size:
                low = middle + 1
            else:
                high = middle
        self.recent = low
        if low < self.batch_count and self.batches[low].size == size:
            return &self.batches[low]
        if self.batch_count == self.batch_room:
            grown = <BatchSums *> realloc(self.batches, (2 * self.batch_room + 4) * sizeof(BatchSums))
            if grown == NULL:
                return NULL
            self.batches = grown
            self.batch_room = 2 * self.batch_room + 4
        memmove(
            &self.batches[low + 1], &self.batches[low], (self.batch_count - low) * sizeof(BatchSums)
        )
        memset(&self.batches[low], 0, sizeof(BatchSums))
        self.batches[low].size = size
        self.batch_count += 1
        return &self.batches[low]

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
            "compute_input_duration_us": self.compute_input.us,
            "compute_infer_duration_us": self.compute_infer.us,
            "compute_output_duration_us": self.compute_output.us,
        }

    def to_dict(self):
        """All of them in Triton's JSON form, without the model's name and version; a new dict."""
        cdef BatchSums *sums = NULL
        cdef int i, count, room = 0
        cdef list batches = []
        cdef int64_t success
        while True:  # Python objects are made without the lock, of a copy
            room = self.batch_count + 4
            sums = <BatchSums *> PyMem_Realloc(sums, room * sizeof(BatchSums))
            if sums == NULL:
                raise MemoryError
            ptl_lock(&self.lock)
            count = self.batch_count
            if count <= room:
                break
            ptl_unlock(&self.lock)
        if count:
            memcpy(sums, self.batches, count * sizeof(BatchSums))
        ptl_unlock(&self.lock)
        try:
            for i in range(count):
                batches.append({
                    "batch_size": sums[i].size,
                    "compute_input": _sum(sums[i].count, sums[i].input_ns),
                    "compute_infer": _sum(sums[i].count, sums[i].infer_ns),
                    "compute_output": _sum(sums[i].count, sums[i].output_ns),
                })
        finally:
            PyMem_Free(sums)
        success = self.success_count
        return {
            "last_inference": self._last_inference(),
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {
                "success": _sum(success, self.request.ns),
                "fail": _sum(sum(self.failures()), self.fail.ns),
                "queue": _sum(success, self.queue.ns),
                "compute_input": _sum(success, self.compute_input.ns),
                "compute_infer": _sum(success, self.compute_infer.ns),
                "compute_output": _sum(success, self.compute_output.ns),
                "cache_hit": _sum(0, 0),
                "cache_miss": _sum(0, 0),
            },
            "response_stats": {},
            "batch_stats": batches,
            "memory_usage": [],
        }

    def _last_inference(self):
        """Milliseconds since the epoch of the last execution; 0 when there was none."""
        cdef int64_t last_ns = self.last_ns
        if last_ns != self.told_ns:
            # The clocks drift: what was said once stays.
            self.told_ms = (time.time_ns() - (ptl_now_ns() - last_ns)) // 1_000_000
            self.told_ns = last_ns
        return self.told_ms
