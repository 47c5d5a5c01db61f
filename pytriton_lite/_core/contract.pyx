# cython: language_level=3, freethreading_compatible=True
"""The contract of `execute`, written once for every home of an instance.

Calls the model with a list of requests, checks what it returns in Triton's order and
with Triton's texts, and turns every request into one outcome: an `InferenceResponse`
for the caller or the exception to raise there. Nothing that model code does makes
`Contract.run` raise, except a Ctrl-C of the user in inline mode.

Memory: an answer is the caller's. It is handed over without a copy when nobody else
can reach it any more, which reference counts prove after `execute` has returned: then
an array that only its `Tensor` holds, in a `Tensor` that only its response holds, in a
response that only the returned list holds, belongs to nobody else. Inputs that the
model keeps are copied then, since the caller may reuse its own arrays from now on.
"""
from cpython.object cimport PyObject

import inspect

from pytriton_lite._core cimport reply
from pytriton_lite._core.array cimport reference_count
from pytriton_lite._core.dlpack cimport DLPackTensor
from pytriton_lite._core.message cimport InferenceRequest, InferenceResponse, TritonError
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite.errors import InternalError, error_from_code

cdef extern from *:
    """
    /* The contract that the current thread is running, for code that asks "whose model am I in". */
    static __thread PyObject *ptl_current_contract = NULL;
    """
    PyObject *ptl_current_contract


def current_contract():
    """The `Contract` whose model code this thread is running, or None."""
    return None if ptl_current_contract == NULL else <object> ptl_current_contract


cdef class Contract:
    """Runs one `TritonPythonModel` object.

    Parameters
    ----------
    model
        The initialised object. `execute` is looked up at each call, as on Triton.
    model_name, model_version, instance_name, model_file
        For texts.
    describe
        Gives Triton's text of an exception.
    run_coroutine
        Runs a coroutine to its end on the instance's event loop.
    check_outputs
        Raises for a response that contradicts the configuration; None leaves outputs
        unchecked, as Triton does.
    output_reshapes
        Dims that the client sees, for outputs with ``reshape``.
    """

    def __init__(
        self, object model, *, str model_name, long model_version, str instance_name,
        str model_file, describe, run_coroutine, check_outputs, dict output_reshapes,
        bint is_batching, bint share_memory, bint is_inline,
    ):
        self.model = model
        self.model_name = model_name
        self.model_version = model_version
        self.instance_name = instance_name
        self.model_file = model_file
        self.describe = describe
        self.run_coroutine = run_coroutine
        self.check_outputs = check_outputs
        self.output_reshapes = output_reshapes
        self.is_batching = is_batching
        self.share_memory = share_memory
        self.is_inline = is_inline

    def release(self):
        """Drop the model object."""
        self.model = None

    cdef list run(self, list batch):
        """Run `execute` on a batch of `InferenceRequest`; one outcome per request, in order."""
        cdef Py_ssize_t i, n = len(batch)
        cdef list outcomes = [None] * n
        cdef object returned, response
        cdef list responses
        cdef str text
        cdef bint is_kept
        cdef PyObject *outer = ptl_current_contract
        set_current(<PyObject *> self)
        try:
            # A list of its own for the model, which may do with it what it likes.
            returned = self._execute(list(batch))
        except BaseException as error:
            set_current(outer)
            if self.is_inline and type(error) is KeyboardInterrupt and not error.args:
                raise  # the user's Ctrl-C, not the model's exception
            self._fail_all(outcomes, self.describe(error), error)
            self._let_go(batch)
            return outcomes
        set_current(outer)

        text = self._violation(returned, n)
        if text is not None:
            self._fail_all(outcomes, text, None)
            self._let_go(batch)
            return outcomes
        self._let_go(batch)
        responses = <list> returned
        # Our own name for the list is `returned` and `responses`; more means the model kept it.
        is_kept = reference_count(<PyObject *> returned) > 2
        for i in range(n):
            response = responses[i]
            outcomes[i] = self._outcome(<InferenceRequest> batch[i], response, is_kept)
        return outcomes

    cdef object _execute(self, list requests):
        try:
            execute = self.model.execute
        except AttributeError:
            raise _NoExecute(
                f"Python model {self.model_file} does not implement `execute` method."
            ) from None
        returned = execute(requests)
        if type(returned) is list or returned is None:
            return returned
        if inspect.iscoroutine(returned):
            return self.run_coroutine(returned)
        return returned

    def _violation(self, object returned, Py_ssize_t request_count):
        """Text for a return value that breaks the contract, or None."""
        if returned is None:
            return (
                "execute returned None, but no response sender was taken that could answer the "
                "request(s); real Triton would leave the client waiting for ever."
            )
        if not isinstance(returned, list):
            return f"Expected a list in the execute return, found type '{type(returned)}'."
        if len(returned) != request_count:
            return (
                "Number of InferenceResponse objects do not match the number of InferenceRequest "
                f"objects. InferenceRequest(s) size is:{request_count}, and InferenceResponse(s) "
                f"size is:{len(returned)}\n"
            )
        for response in returned:
            if type(response) is not InferenceResponse and response is not None:
                return (
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(response)}'."
                )
        return None

    cdef object _outcome(self, InferenceRequest request, object given, bint is_kept):
        cdef InferenceResponse response
        cdef reply.InferenceResponse answer
        cdef Tensor tensor
        cdef Py_ssize_t references
        cdef object payload
        if given is None:
            return self._failure(
                "execute returned None in place of a response, but no response sender was taken that "
                "could answer the request; real Triton would leave the client waiting for ever.", None,
            )
        response = <InferenceResponse> given
        if response.failure is not None:
            return error_from_code(
                (<TritonError> response.failure).status, (<TritonError> response.failure).text,
                model=self.model_name, request_id=request.id or None,
            )
        response.prune(request.output_names)
        if self.check_outputs is not None:
            try:
                self.check_outputs(request, response)
            except Exception as error:
                return error
        # Held by the returned list, by `given`, `response` and the caller's variable.
        if is_kept or reference_count(<PyObject *> response) > 4:
            references = 0
        else:
            references = 2  # of a tensor: the response's list and the loop variable
        answer = reply.InferenceResponse.__new__(reply.InferenceResponse)
        answer.names = []
        answer.payloads = []
        answer.type_numbers = []
        for tensor in response.tensors:
            if tensor.device is not None:
                payload = tensor.device
            else:
                payload = tensor.hand_over(references, self.share_memory)
                if self.output_reshapes is not None and tensor.tensor_name in self.output_reshapes:
                    try:
                        payload = self._reshaped(tensor.tensor_name, payload)
                    except ValueError as error:
                        return self._failure(str(error), error)
            answer.names.append(tensor.tensor_name)
            answer.payloads.append(payload)
            answer.type_numbers.append(tensor.data_type)
        answer.parameter_values = response.parameter_values
        answer.final = True
        answer.request_id = request.id
        answer.model_name = self.model_name
        answer.model_version = self.model_version
        return answer

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
            variable = iter([d for d in payload.shape[len(lead):]])
            dims = [next(variable, 1) if d == -1 else d for d in dims]
        return payload.reshape(lead + dims)

    def _fail_all(self, list outcomes, str text, cause):
        # One exception object per request: each caller raises and annotates its own.
        cdef Py_ssize_t i
        for i in range(len(outcomes)):
            outcomes[i] = self._failure(text, cause)

    cdef object _failure(self, str text, object cause):
        error = InternalError(
            f"Failed to process the request(s) for model '{self.instance_name}', message: {text}",
            model=self.model_name,
        )
        if cause is not None and type(cause) is not _NoExecute:
            error.__cause__ = cause
        return error

    cdef int _let_go(self, list batch) except -1:
        """Release the inputs; what the model kept becomes independent of the caller's memory."""
        cdef InferenceRequest request
        cdef Tensor tensor
        for request in batch:
            # Held by the list, the loop variable, and the runtime's other holders.
            if reference_count(<PyObject *> request) > 2 + request.holders:
                for tensor in request.tensors:
                    tensor.detach()
            else:
                for tensor in request.tensors:
                    if reference_count(<PyObject *> tensor) > 2:
                        tensor.detach()
                request.tensors = []
        return 0


class _NoExecute(Exception):
    """The class has no `execute`; carries the text, has no traceback worth showing."""


cdef inline void set_current(PyObject *contract) noexcept:
    global ptl_current_contract
    ptl_current_contract = contract
