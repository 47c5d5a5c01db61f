# cython: language_level=3, freethreading_compatible=True
"""`InferenceResponseSender`: answers a request from anywhere, at any time.

Order and words of the checks are Triton's (observed on 2.51). Two things are better: a
sender that is dropped without the FINAL flag answers with an error, where Triton leaves
the caller waiting; and what is sent after the caller has gone is dropped.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t

from pytriton_lite._core.answer cimport AnswerMaker
from pytriton_lite._core.array cimport SHARE_ALL, SHARE_NONE
from pytriton_lite._core.message cimport InferenceRequest, InferenceResponse, make_native
from pytriton_lite._core.slot cimport STREAM_ENDED, STREAM_FULL, STREAM_OK, CallSlot, StreamBuffer, stamp
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.sync cimport *
from pytriton_lite._core.tensor cimport Tensor, wrong_arguments
from pytriton_lite._core.tensor import TritonModelException
from pytriton_lite.errors import UnsupportedError

cdef tuple _SEND = (
    "(self: c_python_backend_utils.InferenceResponseSender, response:"
    " c_python_backend_utils.InferenceResponse = None, flags: int = 0) -> None",
)
cdef str _CLOSED = "Unable to send response. Response sender has been closed."
cdef tuple _IS_CANCELLED = ("(self: c_python_backend_utils.InferenceResponseSender) -> bool",)


@cython.final
@cython.no_gc
cdef class InferenceResponseSender:
    """Sends the response to a request, or the responses of a decoupled model.

    From `InferenceRequest.get_response_sender`. May be used on any thread, also after
    `execute` has returned.
    """

    def __init__(self):
        raise TypeError("c_python_backend_utils.InferenceResponseSender: No constructor defined!")

    def send(self, *args, **kwargs):
        """``send(response=None, flags=0)``: send a response, the FINAL flag, or both.

        Parameters
        ----------
        response
            `InferenceResponse`. Its tensors are copied before this returns, unless the server
            runs with ``share_memory=True``.
        flags
            0, or `TRITONSERVER_RESPONSE_COMPLETE_FINAL` with the last response or after it.

        Raises
        ------
        TritonModelException
            Unknown flags, neither a response nor the flag, or a response too many.
        TypeError
            Arguments of another kind.

        Notes
        -----
        A sender of a stream whose reader is slow blocks while as many responses wait as the
        server's option ``stream_backlog`` says.
        """
        cdef object outcome = None, response = None
        cdef str fault
        cdef unsigned int flags = 0
        cdef Py_ssize_t given = len(args)
        cdef int share
        if given:
            response = args[0]
        elif kwargs:
            response = kwargs.get("response")
        if (
            given > 2 or not (response is None or type(response) is InferenceResponse)
            or not _read_flags(args, kwargs, &flags)
        ):
            raise wrong_arguments("send", "function", _SEND, (self, *args), kwargs)
        if flags > 1:
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if response is None and flags == 0:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        fault = self._fault(response is not None)
        if fault is None:
            fault = self.home.obstacle()
        if fault is not None:
            raise TritonModelException(fault)
        if response is not None and ptl_load(&self.slot.node.word) != PTL_ABANDONED:
            share = self.home.share_memory
            if flags == 0 and not self.is_streaming and self.home.copies_waiting:
                share = SHARE_NONE
            outcome = self.home.make(
                <InferenceResponse> response, self.output_names, self.batch_size, self.request_id, 0,
                self.slot.form, share,
            )
            if type(outcome) is Reply:
                stamp(<Reply> outcome, self.slot)
        elif response is not None:
            outcome = _DROPPED
        if self.is_streaming:
            self._stream(outcome, flags == 1)
        else:
            self._commit(outcome, flags == 1)

    def is_cancelled(self, *args, **kwargs):
        """Whether the caller gave the request up. FINAL is still to be sent."""
        if args or kwargs:
            raise wrong_arguments("is_cancelled", "function", _IS_CANCELLED, (self, *args), kwargs)
        return bool(self.slot.is_given_up)

    cdef str _fault(self, bint has_response):
        """Why nothing of the kind can be sent now, or None."""
        if not self.is_decoupled:
            if has_response and self.sent:
                return "Unable to send response. Non-decoupled model cannot send more than one response."
            if not has_response and not self.sent and not self.is_closed:
                return (
                    "Unable to send response. Non-decoupled model cannot send complete final before "
                    "sending a response."
                )
        if self.is_closed:
            return _CLOSED
        return None

    cdef int _commit(self, object outcome, bint is_final) except -1:
        """Keep the response of a caller who takes one, and answer with FINAL."""
        cdef str fault
        cdef bint is_too_many = False
        ptl_lock(&self.lock)
        fault = self._fault(outcome is not None)
        if fault is None:
            if outcome is not None:
                self.sent += 1
                is_too_many = self.sent > 1
            self.is_closed = is_final
        ptl_unlock(&self.lock)
        if fault is not None:
            raise TritonModelException(fault)
        if is_too_many:
            self.waiting = UnsupportedError(
                f"Model '{self.home.model_name}' is decoupled and sent more than one response: "
                "use stream() or infer() to get all of them",
                model=self.home.model_name, request_id=self.request_id or None,
            )
            self.slot.is_given_up = True
            self._detach_inputs()
            self.slot.finish_and_wake(self.waiting)
        elif outcome is not None:
            self.waiting = outcome
        if is_final:
            outcome = self.waiting
            self.waiting = None
            if outcome is None:
                outcome = UnsupportedError(
                    f"Model '{self.home.model_name}' is decoupled and sent no response: use stream() or "
                    "infer(), for which none is an answer, too",
                    model=self.home.model_name, request_id=self.request_id or None,
                )
            self._close(outcome)
        return 0

    cdef int _stream(self, object outcome, bint is_final) except -1:
        cdef Reply response
        cdef bint was_closed
        cdef int state = STREAM_ENDED
        cdef StreamBuffer stream = self.slot.stream
        if stream is not None and outcome is not None and outcome is not _DROPPED:
            if is_final:
                self._detach_inputs()
            response = self.home.reply_of(outcome, self.request_id)
            response.final = is_final
            while True:
                state = stream.push(response, is_final, self.home.is_running_here())
                if state != STREAM_FULL:
                    break
                stream.wait_for_room()
                PyErr_CheckSignals()
        # What went into the stream came before any FINAL; the rest is for the sender to judge.
        ptl_lock(&self.lock)
        was_closed = self.is_closed
        if state == STREAM_OK or not was_closed:
            self.sent += outcome is not None
            self.is_closed = was_closed or is_final
        ptl_unlock(&self.lock)
        if was_closed and state != STREAM_OK:
            raise TritonModelException(_CLOSED)
        if is_final and not was_closed:
            self._close(None)
        return 0

    cdef int _detach_inputs(self) except -1:
        # With the answer the caller gets its arrays back, while `execute` may still look at them.
        cdef Tensor tensor
        cdef list inputs = self.inputs
        self.inputs = None
        if inputs is not None and self.home.share_memory != SHARE_ALL:
            for tensor in inputs:
                tensor.detach()
        return 0

    cdef int _close(self, object outcome) except -1:
        self._detach_inputs()
        self.slot.finish_and_wake(outcome)
        self.home.answered(self.slot)
        return 0

    cdef bint fail(self, object error) except -1:
        """Answer with an error, whatever was sent; False when FINAL was sent already."""
        cdef bint was_closed
        ptl_lock(&self.lock)
        was_closed = self.is_closed
        self.is_closed = True
        ptl_unlock(&self.lock)
        if was_closed:
            return False
        self.waiting = None
        self._close(error)
        return True

    cdef bint close_by_return(self) except -1:
        """`execute` returns a response; False when one was sent already."""
        cdef bint is_first
        ptl_lock(&self.lock)
        is_first = not self.is_closed and self.sent == 0
        if is_first:
            self.is_closed = True
        ptl_unlock(&self.lock)
        if is_first:
            self.home.answered(self.slot)
        return is_first

    def __del__(self):
        if self.slot is None or self.is_closed:
            return
        if self.sent and not self.is_decoupled:
            what = "sent its response without the FINAL flag"
        elif self.sent:
            what = f"sent {self.sent} response(s), but never the FINAL flag"
        else:
            what = "answered neither by a returned response nor by its response sender"
        self.fail(self.home.failure(
            f"{what}, and dropped the response sender; real Triton would leave the client waiting for ever.",
            None, self.request_id,
        ))


cdef bint _read_flags(tuple args, dict kwargs, unsigned int *flags) except -1:
    """Read the argument `flags`; False when the arguments are none of `send`."""
    cdef Py_ssize_t named = 0
    cdef object value = 0
    if kwargs:
        named = len(kwargs) - ("flags" in kwargs) - ("response" in kwargs)
        if named or ("response" in kwargs and args) or ("flags" in kwargs and len(args) == 2):
            return False
        value = kwargs.get("flags", 0)
    if len(args) == 2:
        value = args[1]
    if not isinstance(value, int):
        if not hasattr(type(value), "__index__"):
            return False
        value = value.__index__()
    if not 0 <= value < 1 << 32:
        return False
    flags[0] = value
    return True


cdef object _DROPPED = object()  # a response that nobody waits for


cdef InferenceResponseSender make_sender(
    AnswerMaker home, CallSlot slot, InferenceRequest request, bint is_decoupled
):
    cdef InferenceResponseSender made = InferenceResponseSender.__new__(InferenceResponseSender)
    cdef uint32_t word = ptl_load(&slot.node.word)
    cdef Tensor tensor
    made.slot = slot
    made.home = home
    made.output_names = request.output_names
    made.request_id = request.id
    made.batch_size = request.batch_size
    made.is_decoupled = is_decoupled
    made.is_streaming = is_decoupled and slot.stream is not None
    made.is_closed = word == PTL_DONE or word == PTL_FINISHING
    for tensor in request.tensors:
        if tensor.is_foreign:
            made.inputs = request.tensors
            break
    return made


make_native(InferenceResponseSender)
