# cython: language_level=3, freethreading_compatible=True
"""Business logic scripting: requests that a model sends to other models of its server.

What goes wrong is a value, not an exception: an `InferenceResponse` with an error. Texts are
those of Triton 2.51, codes the callee's as in newer versions.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t

from pytriton_lite._core.answer cimport FORM_RESPONSE
from pytriton_lite._core.calls cimport Endpoint, ServedVersion
from pytriton_lite._core.contract cimport Contract, running_contract
from pytriton_lite._core.dlpack cimport DLPackTensor
from pytriton_lite._core.deadlock cimport Watch, begin_wait, end_wait, watch_slice_ns
from pytriton_lite._core.message cimport (
    InferenceRequest, InferenceResponse, RequestDetails, Scope, TritonError, bls_refusal, make_native,
)
from pytriton_lite._core.queue cimport RequestQueue
from pytriton_lite._core.reply cimport InferenceResponse as Reply
from pytriton_lite._core.slot cimport (
    STREAM_INTERRUPTED, STREAM_TIMED_OUT, CallSlot, StreamBuffer,
)
from pytriton_lite._core.sync cimport PTL_QUEUED, ptl_load, ptl_now_ns
from pytriton_lite._core.tensor cimport Tensor, wrong_arguments
from pytriton_lite._core.native_enum import ErrorCodeValue
from pytriton_lite.errors import InternalError
from pytriton_lite.errors import TritonError as PublicError


cdef InferenceResponse _error(str text, object code):
    cdef InferenceResponse made = InferenceResponse.__new__(InferenceResponse)
    cdef TritonError error = TritonError.__new__(TritonError)
    error.text = text
    error.status = code
    made.tensors = []
    made.failure = error
    return made


cdef str target_of(InferenceRequest request):
    """The model that a request asks; a received one asks the model that received it."""
    if request.details.is_self_made:
        return request.details.target_model
    return "" if request.home is None else request.home.model_name


cdef InferenceResponse _error_of(object error):
    return _error(str(error), ErrorCodeValue(int(error.code)))


cdef object refusal_of(InferenceRequest request, object error):
    """What the caller gets for a request that the callee cannot be asked."""
    # Triton's code of whatever happens before the callee gets the request.
    return InternalError(f"Model {target_of(request)} - Error when running inference: {error}")


cdef InferenceResponse _response_of(object outcome):
    """What the caller's code sees of the callee's answer; takes over its memory."""
    cdef InferenceResponse made
    cdef Reply reply
    cdef Tensor tensor
    if type(outcome) is InferenceResponse:
        return outcome
    if type(outcome) is not Reply:
        return _error_of(outcome)
    reply = outcome
    if reply.error is not None:
        return _error_of(reply.error)
    made = InferenceResponse.__new__(InferenceResponse)
    made.tensors = []
    made.parameter_values = reply.parameter_values
    for name, payload in reply.payloads.items():
        tensor = Tensor.__new__(Tensor)
        tensor.tensor_name = name
        tensor.data_type = reply.type_number_of(name)
        if type(payload) is DLPackTensor:
            tensor.device = payload
        else:
            tensor.wire = payload
        made.tensors.append(tensor)
    return made


cdef class BlsScope(Scope):
    """What the BLS requests of one instance go through.

    Parameters
    ----------
    find_endpoint
        ``(model name, version)`` gives the `Endpoint` in the instance's server.

    Attributes
    ----------
    is_open
        From the end of `initialize` to the beginning of `finalize`.
    """

    def __init__(self, find_endpoint):
        self.find_endpoint = find_endpoint
        self.endpoints = {}

    def open(self, Contract contract):
        """Begin to let requests through, those of the instance that `contract` runs."""
        self.contract = contract
        self.is_open = True

    def close(self):
        """Let no more requests through."""
        self.is_open = False

    def begin_pending(self, CallSlot slot, future):
        """Take note of a request that a task waits for."""
        self.contract.pending[slot] = future

    def end_pending(self, CallSlot slot):
        """The request is answered, or nobody waits for it any more."""
        self.contract.pending.pop(slot, None)

    cdef ServedVersion callee_of(self, InferenceRequest request):
        """The callee of a request."""
        cdef RequestDetails details = request.details
        cdef Endpoint endpoint = self.last
        cdef ServedVersion served
        if not self.is_open:
            raise bls_refusal()
        # A model mostly calls the same one again, and names it by the same literal.
        if (endpoint is None or details.target_model is not self.last_name
                or details.target_version != self.last_version):
            endpoint = self._endpoint(target_of(request), details.target_version)
        served = endpoint.served
        if served is None:
            raise InternalError(
                f"Failed for execute the inference request. Model '{target_of(request)}' is not ready."
            )
        return served

    cdef Endpoint _endpoint(self, str name, int64_t version):
        cdef Endpoint endpoint = self.endpoints.get((name, version))
        if endpoint is None:
            endpoint = self.find_endpoint(name, version)
        if endpoint.served is not None:  # names that never were are not collected
            self.endpoints[name, version] = endpoint
            self.last, self.last_name, self.last_version = endpoint, name, version
        return endpoint

    cdef CallSlot slot_of(
        self, ServedVersion served, InferenceRequest request, bint decoupled, bint is_blocking
    ):
        cdef InferenceRequest made
        cdef CallSlot slot
        cdef Tensor tensor
        if served.is_decoupled and not decoupled:
            raise InternalError(
                f"Model {served.model_name} is using the decoupled. The current BLS request call doesn't "
                "support models using the decoupled transaction policy. Please use 'decoupled=True' "
                "argument to the 'exec' or 'async_exec' calls for decoupled models.'"
            )
        made = served.spec.build_for(request)
        if not is_blocking and not served.spec.share_memory:
            # The caller goes on, and may use its arrays anew before the callee has seen them.
            for tensor in made.tensors:
                tensor.detach()
        slot = served.slot_for(made)
        slot.queue = served.queue
        if decoupled:
            slot.stream = StreamBuffer(served.stream_backlog)
        else:
            slot.form = FORM_RESPONSE
        return slot

    cdef ServedVersion successor_of(self, RequestQueue refused, InferenceRequest request):
        """The callee of a request that another one has refused, since it was replaced."""
        cdef ServedVersion served = self.callee_of(request)
        if served.queue is refused:
            raise refused.closed_error()
        return served

    def prepare(self, InferenceRequest request, bint decoupled):
        """(callee, slot) of a request; or (None, response) when the callee cannot be asked.

        The callee gets copies, since the caller does not wait for the answer at once.
        """
        cdef ServedVersion served
        try:
            served = self.callee_of(request)
            return served, self.slot_of(served, request, decoupled, False)
        except PublicError as error:
            return None, _error_of(refusal_of(request, error))

    cdef object exec_request(self, InferenceRequest request, bint decoupled):
        """`InferenceRequest.exec`."""
        cdef ServedVersion served
        cdef CallSlot slot
        while True:
            try:
                served = self.callee_of(request)
                slot = self.slot_of(served, request, decoupled, not decoupled)
            except PublicError as error:
                response = _error_of(refusal_of(request, error))
                return iterator_of(response) if decoupled else response
            response = self._run(served, slot)
            if response is not None:
                return response
            if not self.is_replaced(served, request):
                response = _error_of(served.queue.closed_error())
                return iterator_of(response) if decoupled else response

    def is_replaced(self, ServedVersion served, InferenceRequest request):
        """Whether a request that a callee has refused is to be prepared again."""
        try:
            return self.callee_of(request) is not served
        except PublicError:
            return True  # which will tell why

    def run(self, ServedVersion served, CallSlot slot, InferenceRequest request, bint decoupled):
        """Run a prepared request: its response, or the iterator if its slot has a stream."""
        response = self._run(served, slot)
        return self.exec_request(request, decoupled) if response is None else response

    cdef object _run(self, ServedVersion served, CallSlot slot):
        """None when the callee takes no more requests: see `is_replaced`."""
        cdef Contract own = running_contract()
        cdef CallSlot outer
        try:
            if slot.stream is None:
                outcome = served.queue.call_from_model(slot, own, self.contract)
                return None if outcome is None else _response_of(outcome)
            # An inline callee runs here, before there is anything to read.
            outer = begin_wait(own, self.contract, slot)
            try:
                if served.queue.submit_all([slot]) is None:
                    return None
            finally:
                end_wait(own, self.contract, slot, outer)
            return self.iterator(served, slot)
        except PublicError as error:
            failed = _error_of(error)
            return failed if slot.stream is None else iterator_of(failed)

    def iterator(self, ServedVersion served, CallSlot slot):
        """Iterator over the responses of a slot that was submitted with a stream."""
        cdef ResponseIterator made = ResponseIterator.__new__(ResponseIterator)
        made.served = served
        made.queue = served.queue
        made.slot = slot
        made.maker = self.contract
        made.items = []
        return made


def response_of(outcome):
    """The `InferenceResponse` for model code of a slot's outcome."""
    return _response_of(outcome)


@cython.final
cdef class ResponseIterator:
    """Responses to a BLS request; from ``exec(decoupled=True)``.

    Iterating again gives the same responses again. An iterator that is dropped before its end
    lets the callee go on; what it still sends is dropped.
    """

    cdef CallSlot slot
    cdef RequestQueue queue
    cdef ServedVersion served
    cdef Contract maker             # whose request it is
    cdef list items                 # read so far
    cdef Py_ssize_t position
    cdef bint is_complete

    def __init__(self, *args, **kwargs):
        raise wrong_arguments("__init__", "constructor", _ITERATOR, args, kwargs)

    def __iter__(self):
        if self.is_complete and self.position == len(self.items):
            self.position = 0
        return self

    def __next__(self):
        if self.position == len(self.items):
            if self.is_complete or not self._read():
                raise StopIteration("Iteration is done for the responses.")
        self.position += 1
        return self.items[self.position - 1]

    cdef bint _read(self) except -1:
        """Wait for one more response; False at the end."""
        cdef StreamBuffer buffer = self.slot.stream
        cdef Reply reply = buffer.pop()
        if reply is None and not buffer.is_ended:
            try:
                self._wait()
            except PublicError as error:
                reply = self.served.error_reply(error)
                reply.final = True
        if reply is None:
            reply = buffer.pop()
        if reply is not None:
            self.is_complete = reply.final
            self.items.append(_response_of(reply))
            return True
        self.is_complete = True
        if not buffer.ends_empty:
            return False
        self.items.append(_response_of(self.served.empty_final("")))
        return True

    cdef int _wait(self) except -1:
        """Sleep until there is something to read; raises when there never will be."""
        cdef StreamBuffer buffer = self.slot.stream
        cdef Contract own = running_contract()
        cdef CallSlot outer = begin_wait(own, self.maker, self.slot)
        cdef Watch watch = None
        cdef int64_t look_ns = 0  # a wait may end before it, to see signals
        cdef int state
        try:
            if ptl_load(&self.slot.node.word) == PTL_QUEUED:
                self.queue.check_chain(self.slot)
                watch = Watch(self.slot)
                look_ns = ptl_now_ns() + watch_slice_ns()
            while not buffer.count and not buffer.is_ended:
                state = buffer.wait(look_ns)
                if state == STREAM_TIMED_OUT:
                    self.queue.check_watched(watch)
                    look_ns = ptl_now_ns() + watch_slice_ns()
                elif state == STREAM_INTERRUPTED:
                    PyErr_CheckSignals()
        finally:
            end_wait(own, self.maker, self.slot, outer)
        return 0

    def cancel(self):
        """Cancel the callee's request; without effect after its end. Newer than Triton 2.51."""
        if self.queue is not None and not self.is_complete:
            self.queue.cancel_softly(self.slot)

    def __del__(self):
        if self.slot is not None and not self.is_complete:
            self.slot.stream.discard()


def iterator_of(response):
    """Iterator over one response."""
    cdef ResponseIterator made = ResponseIterator.__new__(ResponseIterator)
    made.items = [response]
    made.is_complete = True
    return made


cdef tuple _ITERATOR = ("c_python_backend_utils.ResponseIterator(arg0: InferenceResponse)",)

make_native(ResponseIterator)
