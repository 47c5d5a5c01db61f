# cython: language_level=3, freethreading_compatible=True
"""From a model's response to the caller's: pruned, checked, and in memory of the caller's own.

An answer is the caller's. It is handed over without a copy when nobody else can reach
it any more, which reference counts prove after `execute` has returned: then an array
that only its `Tensor` holds, in a `Tensor` that only its response holds, in a response
that only the returned list holds, belongs to nobody else. What a response sender takes
is copied, since the model goes on running with its variables.
"""
from cpython.exc cimport PyErr_CheckSignals
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from pytriton_lite._core cimport reply
from pytriton_lite._core.array cimport DT_BF16, reference_count
from pytriton_lite._core.message cimport InferenceResponse, TritonError
from pytriton_lite._core.reply import error_response
from pytriton_lite._core.slot cimport CallSlot
from pytriton_lite._core.sync cimport *
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite.errors import InternalError, error_from_code


cdef enum:
    SLICE_NS = 200_000_000


cdef bint _is_repeated(list tensors, Py_ssize_t place) except -1:
    """Whether a tensor before this one has the same name."""
    cdef str name = (<Tensor> tensors[place]).tensor_name
    cdef Py_ssize_t i
    for i in range(place):
        if (<Tensor> tensors[i]).tensor_name == name:
            return True
    return False


cdef class AnswerMaker:
    """What turns responses of one instance into answers, and who waits for them; base of `Contract`."""

    def __cinit__(self):
        self.open_slots = {}

    cdef object make(
        self, InferenceResponse response, tuple names, long batch_size, str request_id,
        Py_ssize_t held, int form, int share,
    ):
        """What the caller gets, see `FORM_REPLY`, or the exception to raise there.

        `names` are the outputs that were asked for. `held` is how often the runtime holds
        `response`, 0 if the model may. With `share` nothing is copied.
        """
        cdef reply.InferenceResponse answer
        cdef dict payloads
        cdef set bfloat16_names = None
        cdef bint is_plain = form == FORM_ARRAYS
        cdef Tensor tensor
        cdef Py_ssize_t references
        cdef object payload
        if response.failure is not None:
            return error_from_code(
                int((<TritonError> response.failure).status), (<TritonError> response.failure).text,
                model=self.model_name, request_id=request_id or None,
            )
        response.prune(names)
        if self.check_outputs is not None:
            try:
                self.check_outputs(names, batch_size, response)
            except Exception as error:
                return error
        # A tensor is held by the response's list and the loop variable, if only we hold the response.
        references = 2 if reference_count(<PyObject *> response) <= held else 0
        if form == FORM_RESPONSE:
            try:
                return self._for_model(response, references, share)
            except ValueError as error:
                return self.failure(str(error), error, request_id)
        payloads = {}
        for tensor in response.tensors:
            if tensor.device is not None:
                payload = tensor.device
                is_plain = False
            else:
                try:
                    payload = self._payload(tensor, references, share)
                except ValueError as error:
                    return self.failure(str(error), error, request_id)
                if tensor.data_type == DT_BF16:
                    is_plain = False
                    if bfloat16_names is None:
                        bfloat16_names = set()
                    bfloat16_names.add(tensor.tensor_name)
            payloads.setdefault(tensor.tensor_name, payload)  # sent twice: the first one counts
        if is_plain:
            return payloads
        answer = reply.InferenceResponse.__new__(reply.InferenceResponse)
        answer.payloads = payloads
        answer.bfloat16_names = bfloat16_names
        answer.parameter_values = response.parameter_values
        answer.final = True
        answer.request_id = request_id
        answer.model_name = self.model_name
        answer.model_version = self.model_version
        return answer

    cdef object _payload(self, Tensor tensor, Py_ssize_t references, int share):
        """The caller's data of a tensor in CPU memory; ValueError when ``reshape`` does not fit it."""
        payload = tensor.hand_over(references, share)
        if self.output_reshapes is not None and tensor.tensor_name in self.output_reshapes:
            return self._reshaped(tensor.tensor_name, payload)
        return payload

    cdef InferenceResponse _for_model(
        self, InferenceResponse response, Py_ssize_t references, int share
    ):
        """The answer for the code of another model, which sees private copies as of its inputs.

        The response goes over as it is where nobody else can reach it, which is most often.
        """
        cdef InferenceResponse made
        cdef Tensor tensor, given
        cdef list tensors = None  # while they are those of the response itself
        cdef Py_ssize_t i
        cdef object payload
        for i in range(PyList_GET_SIZE(response.tensors)):
            tensor = response.tensors[i]
            payload = given = None
            if not _is_repeated(response.tensors, i):  # sent twice: the first one counts
                payload = tensor.device
                if payload is None:
                    payload = self._payload(tensor, references, share)
                # `hand_over` gives the array itself, if it is not shared, where it is nobody else's.
                if references > 0 and not share and payload is tensor.wire:
                    tensor.shown = tensor.spare = None
                    given = tensor
                else:
                    given = Tensor.__new__(Tensor)
                    given.tensor_name = tensor.tensor_name
                    given.data_type = tensor.data_type
                    given.device = tensor.device
                    if tensor.device is None:
                        given.wire = payload
            if tensors is None and given is not tensor:
                tensors = response.tensors[:i]
            if tensors is not None and given is not None:
                tensors.append(given)
        if tensors is None and references > 0:
            return response
        made = InferenceResponse.__new__(InferenceResponse)
        made.tensors = tensors or []
        made.parameter_values = response.parameter_values
        return made

    def _reshaped(self, str name, payload):
        """Turn the model's shape back into the dims that the client sees."""
        dims = list(self.output_reshapes[name])
        lead = list(payload.shape[:1]) if self.is_batching else []
        known = 1
        for n in lead + [d for d in dims if d != -1]:
            known *= n
        if dims.count(-1) == 1 and known:
            dims[dims.index(-1)] = payload.size // known
        elif -1 in dims:
            # Several variable dims: they are the model's variable dims, in order.
            variable = iter(payload.shape[len(lead):])
            dims = [next(variable, 1) if d == -1 else d for d in dims]
        return payload.reshape(lead + dims)

    cdef object failure(self, str text, object cause, str request_id):
        """Error of a whole `execute` call, in Triton's words."""
        if self.namespace is not None:
            text = self.namespace.plain(text)
        error = InternalError(
            f"Failed to process the request(s) for model '{self.instance_name}', message: {text}",
            model=self.model_name, request_id=request_id or None,
        )
        if cause is not None:
            error.__cause__ = cause
        return error

    cdef reply.InferenceResponse reply_of(self, object outcome, str request_id):
        """The outcome as a response of a stream, which carries its error."""
        if type(outcome) is reply.InferenceResponse:
            return <reply.InferenceResponse> outcome
        return error_response(outcome, request_id, self.model_name, self.model_version)

    cdef bint is_running_here(self) noexcept:
        """Whether this thread, which may be the one that reads a stream, is inside `execute`."""
        return False

    cdef str obstacle(self):
        """Why no response can be sent by this process, or None."""
        return None

    # -- requests whose response sender is open ----------------------------------------

    cdef int answered(self, CallSlot slot) except -1:
        """Take note that a slot with a sender is answered."""
        self.open_slots.pop(slot, None)
        if self.is_awaited:
            ptl_store(&self.answers, self.answers + 1)
            ptl_wake(&self.answers)
        return 0

    def wait_until_answered(self, deadline_ns):
        """Wait until no response sender is open; False when the time was up before.

        `deadline_ns` is of `time.monotonic_ns`, 0 means no limit.
        """
        cdef uint32_t seen
        cdef int64_t deadline = deadline_ns
        cdef int woken
        self.is_awaited = True
        while True:
            seen = ptl_load(&self.answers)
            if not self.open_slots:
                return True
            with nogil:
                woken = ptl_sleep(&self.answers, seen, deadline, SLICE_NS)
            if woken == PTL_TIMED_OUT:
                return False
            PyErr_CheckSignals()

    def fail_open(self, make_error):
        """Answer every request whose sender is open with ``make_error()``."""
        cdef CallSlot slot
        for slot in list(self.open_slots):
            slot.is_given_up = True
            slot.finish_and_wake(make_error())
            self.answered(slot)
