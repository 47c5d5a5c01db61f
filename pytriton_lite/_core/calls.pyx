# cython: language_level=3, freethreading_compatible=True
"""The hot part of the public `Model`: calls, and the streams of decoupled models."""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

import sys

from pytriton_lite._core.answer cimport FORM_ARRAYS
from pytriton_lite._core.input_spec cimport InputSpec
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._core.queue cimport RequestQueue, process_generation
from pytriton_lite._core.reply cimport InferenceResponse
from pytriton_lite._core.reply import error_response
from pytriton_lite._core.slot cimport (
    STREAM_INTERRUPTED, STREAM_TIMED_OUT, CallSlot, StreamBuffer, new_slot,
)
from pytriton_lite._core.sync cimport PTL_DONE, ptl_load, ptl_now_ns
from pytriton_lite.errors import RequestTimeoutError, UnavailableError, UnsupportedError

cdef object _get_running_loop = None


cdef bint _is_loop_running() except -1:
    # Importing asyncio would double the import time of this package; who runs a loop has it.
    global _get_running_loop
    if _get_running_loop is None:
        events = sys.modules.get("asyncio.events")
        if events is None:
            return False
        _get_running_loop = events._get_running_loop
    return _get_running_loop() is not None


cdef class ServedVersion:
    """One loaded model version: what a call needs of it."""

    def __init__(
        self, InputSpec spec, RequestQueue queue, str model_name, long version, *, bint is_decoupled,
        Py_ssize_t stream_backlog,
    ):
        self.spec = spec
        self.queue = queue
        self.model_name = model_name
        self.version = version
        self.is_decoupled = is_decoupled
        self.stream_backlog = stream_backlog

    cdef CallSlot slot_for(self, InferenceRequest request):
        if self.queue.is_iterative:
            self.queue.begin_sequence(request)
        return new_slot(request)

    cdef InferenceResponse empty_final(self, str request_id):
        """Triton's last response of a stream that ended with FINAL alone."""
        cdef InferenceResponse made = InferenceResponse.__new__(InferenceResponse)
        made.payloads = {}
        made.final = True
        made.request_id = request_id
        made.model_name = self.model_name
        made.model_version = self.version
        return made

    cdef InferenceResponse error_reply(self, object error):
        return error_response(error, "", self.model_name, self.version)


cdef class Endpoint:
    """Where the calls to one (model name, version) go; shared by all `Model` objects of it.

    The repository sets `served` when a version becomes ready and when it is replaced; None
    while there is none.
    """

    def __init__(self, explain):
        self.explain = explain


cdef class ModelCalls:
    """Base of the public `Model` with the calls that must be fast."""

    def __init__(self, Endpoint endpoint):
        self._endpoint = endpoint

    cdef ServedVersion served(self):
        cdef ServedVersion served = self._endpoint.served
        if served is None:
            raise self._endpoint.explain()
        return served

    def _check_replaced(self, ServedVersion served):
        """After a version refused a request: return if there is another one to ask.

        The repository replaces `Endpoint.served` before it closes the queue of the old version.

        Raises
        ------
        TritonError
            There is none, and why.
        """
        if self.served() is served:
            raise served.queue.closed_error()

    def __call__(self, inputs, *, timeout_s=None):
        """Run one request and return its outputs as ndarrays by name.

        Parameters
        ----------
        inputs
            Mapping of input names to arrays (numpy, or anything with ``__dlpack__``), nested
            lists, scalars, `str` or `bytes`. They must not be changed before this returns.
        timeout_s
            Seconds to wait for the answer; None waits without limit. Then the request is
            cancelled. What runs inline, on this very thread, is not interrupted.

        Returns
        -------
        dict[str, numpy.ndarray]
            Owned by the caller. BYTES gives an object array of `bytes`.

        Raises
        ------
        TritonError
            The subclass of the status code: see `pytriton_lite.errors`. If the model raised,
            ``__cause__`` is its exception.
        RequestTimeoutError
            No answer within `timeout_s`.
        """
        cdef ServedVersion served
        cdef CallSlot slot
        while True:
            served = self.served()
            slot = served.slot_for(served.spec.build(inputs, ""))
            slot.form = FORM_ARRAYS
            outcome = _call(served, slot, timeout_s)
            if type(outcome) is dict:
                return outcome
            if outcome is not None:
                break
            self._check_replaced(served)
        return (<InferenceResponse> outcome).to_arrays()

    def _prepare(self, inputs, options):
        """(served version, slot) of a call; `options` are None when all have their defaults.

        The slot alone holds the request, so that a model that drops it leaves nobody waiting.
        """
        cdef ServedVersion served = self.served()
        if options is None:
            return served, served.slot_for(served.spec.build(inputs, ""))
        return served, served.slot_for(served.spec.request(inputs, **options))

    def _check_thread(self, ServedVersion served):
        """Refuse to run an inline model on a thread whose event loop it would block."""
        _check_thread(served)

    def _run(self, ServedVersion served, CallSlot slot, timeout_s):
        """Response of a prepared call; None when the version takes no more: see `_check_replaced`."""
        return _call(served, slot, timeout_s)

    def _open(self, ServedVersion served, CallSlot slot, timeout_s, *, bint keeps_empty_final, bint raises):
        """Start a request whose responses are read from a stream; None as `_run`."""
        slot.stream = StreamBuffer(served.stream_backlog)
        try:
            if served.queue.submit_all([slot]) is None:
                return None
        except BaseException:
            # Nobody will read: what lies in it may lead back here, past the GC.
            slot.stream.discard()
            raise
        return ResponseStream(served, slot, _deadline(timeout_s), keeps_empty_final, raises)


cdef int64_t _deadline(object timeout_s) except -1:
    # Beyond some 30 years a limit is none, and the nanoseconds would not fit.
    if timeout_s is not None and <double> timeout_s < 1e9:
        return ptl_now_ns() + <int64_t> (<double> timeout_s * 1e9)
    return 0


cdef object _call(ServedVersion served, CallSlot slot, object timeout_s):
    _check_thread(served)
    return served.queue.call(slot, 0 if timeout_s is None else _deadline(timeout_s))


cdef int _check_thread(ServedVersion served) except -1:
    if served.queue.is_inline and _is_loop_running():
        raise UnsupportedError(
            f"Model '{served.model_name}' runs inline, and this thread runs an event loop that the "
            "call would block: await async_run(), or load it with execution='thread'",
            model=served.model_name,
        )
    return 0


@cython.final
cdef class ResponseStream:
    """Iterator over the responses to one request; from `Model.stream` and `Model.infer`.

    Dropping it before the end, `close()`, `cancel()` and the end of a ``with`` block cancel
    the request: the model sees `is_cancelled()`, and what it still sends is dropped. Each
    thread that iterates gets responses that no other gets.
    """

    def __cinit__(
        self, ServedVersion served, CallSlot slot, int64_t deadline_ns, bint keeps_empty_final,
        bint raises,
    ):
        self.model_name = served.model_name
        self.served = served
        self.queue = served.queue
        self.slot = slot
        self.buffer = slot.stream
        # From an error in the buffer, a traceback may lead to the frame that holds this object,
        # and to the request and its slot, which the GC does not know.
        slot.has_reader = True
        if ptl_load(&slot.node.word) == PTL_DONE:
            slot.stream = None
        self.deadline_ns = deadline_ns
        self.keeps_empty_final = keeps_empty_final
        self.raises = raises
        self.generation = process_generation()

    def __del__(self):
        self.close()

    def __iter__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close()

    def __next__(self):
        cdef int state
        response = self.try_next()
        while response is None:
            if self.is_done:
                raise StopIteration
            self._check_process()
            state = self.buffer.wait(self.deadline_ns)
            if state == STREAM_INTERRUPTED:
                PyErr_CheckSignals()
            elif state == STREAM_TIMED_OUT and not self.buffer.count:
                raise self.timed_out()
            response = self.try_next()
        return response

    def try_next(self):
        """The next response, or None when there is none, yet or any more; see `is_done`.

        Raises
        ------
        TritonError
            The error of an error response, unless errors are wanted in ``response.error``. The
            stream may go on after it.
        RequestTimeoutError
            The time is up, and the model has not sent its last response.
        """
        cdef InferenceResponse response
        if self.is_done:
            return None
        if self.deadline_ns and not self.buffer.is_ended and ptl_now_ns() >= self.deadline_ns:
            raise self.timed_out()
        response = self.buffer.pop()
        if response is None:
            if not self.buffer.is_ended:
                return None
            response = self.buffer.pop()  # one that came just before the end
        if response is None:
            self.is_done = True
            if not self.buffer.ends_empty or not self.keeps_empty_final:
                return None
            return self.served.empty_final(self.slot.request_id or "")
        if response.final:
            self.is_done = True
        if response.error is not None and self.raises:
            raise response.error
        return response

    def arm(self, notify):
        """Have `notify()` called, once, when `try_next` may give more; False when it may now."""
        self._check_process()
        return self.buffer.arm(notify)

    cdef int _check_process(self) except -1:
        """Nothing more comes into a forked child."""
        if self.generation != process_generation():
            raise UnavailableError(
                f"this stream of model '{self.model_name}' was opened before the process was forked, "
                "and its responses go to the parent",
                model=self.model_name, request_id=self.slot.request_id,
            )
        return 0

    @property
    def seconds_left(self):
        """Seconds until the time is up; None when there is no limit."""
        if not self.deadline_ns:
            return None
        return max(0, self.deadline_ns - ptl_now_ns()) / 1e9

    @property
    def is_finished(self):
        """Whether all responses were read."""
        return bool(self.is_done)

    def timed_out(self):
        """Cancel for lack of time; the error to raise."""
        self.close()
        return RequestTimeoutError(
            f"Request to model '{self.model_name}' was not answered in time and is cancelled",
            model=self.model_name, request_id=self.slot.request_id,
        )

    def cancel(self):
        """Cancel the request; the iteration ends. Without effect after the last response."""
        self.close()

    def close(self):
        """The same as `cancel`."""
        if not self.is_done:
            self.is_done = True
            if self.queue is not None and not self.queue.cancel(self.slot):
                self.buffer.discard()
