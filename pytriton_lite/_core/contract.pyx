# cython: language_level=3, freethreading_compatible=True
"""The contract of `execute`, written once for every home of an instance.

Calls the model with a list of requests, checks what it returns in Triton's order and
with Triton's texts, and turns the request into one outcome: an `InferenceResponse` for
the caller or the exception to raise there. Nothing that model code does makes
`Contract.run` raise, except a Ctrl-C of the user in inline mode.

Memory: an answer is the caller's. It is handed over without a copy when nobody else
can reach it any more, which reference counts prove after `execute` has returned: then
an array that only its `Tensor` holds, in a `Tensor` that only its response holds, in a
response that only the returned list holds, belongs to nobody else. Inputs that the
model keeps are copied then, since the caller may reuse its own arrays from now on.
"""
from cpython.list cimport PyList_GET_SIZE
from cpython.object cimport PyObject

import dis
import inspect

from pytriton_lite._core cimport reply
from pytriton_lite._core.array cimport DT_BF16, reference_count
from pytriton_lite._core.message cimport InferenceRequest, InferenceResponse, TritonError
from pytriton_lite._core.tensor cimport Tensor
from pytriton_lite.errors import InternalError, error_from_code

cdef extern from *:
    """
    /* The contract that the current thread is running, for code that asks "whose model am I in". */
    static __thread PyObject *ptl_current_contract __attribute__((tls_model("initial-exec"))) = NULL;
    """
    PyObject *ptl_current_contract

cdef int _RAISE = dis.opmap["RAISE_VARARGS"]


def current_contract():
    """The `Contract` whose model code this thread is running, or None."""
    return None if ptl_current_contract == NULL else <object> ptl_current_contract


def is_ctrl_c(error):
    """Whether an exception is the user's Ctrl-C, and not one that the model raised itself.

    The interpreter raises a Ctrl-C between two instructions; a model's own
    KeyboardInterrupt comes from a `raise`.
    """
    if type(error) is not KeyboardInterrupt or error.__traceback__ is None:
        return False
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return not (0 <= traceback.tb_lasti < len(code) and code[traceback.tb_lasti] == _RAISE)


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
        Dims that the client sees, for outputs with ``reshape``; None when there are none.
    is_batching
        Whether shapes have a batch dimension.
    share_memory
        Hand the model's arrays to the caller without the ownership rule above.
    is_inline
        The caller's thread runs the model.
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

    cdef object run(self, InferenceRequest request, Py_ssize_t holders, bint wants_arrays):
        """Run `execute` on a request; its outcome, an `InferenceResponse` or an exception.

        `holders` is the number of references to `request` that the runtime itself holds.
        With `wants_arrays` the outcome may also be the dict of arrays by name.
        """
        cdef PyObject *outer = ptl_current_contract
        cdef object returned, response
        cdef str text
        set_current(<PyObject *> self)
        try:
            returned = self._execute([request])
        except BaseException as error:
            set_current(outer)
            if self.is_inline and is_ctrl_c(error):
                raise
            self._let_go(request, holders)
            if type(error) is _NoExecute:
                return self._failure(request, str(error), None)
            return self._failure(request, self.describe(error), error)
        set_current(outer)
        self._let_go(request, holders)
        if (type(returned) is list and PyList_GET_SIZE(returned) == 1
                and type((<list> returned)[0]) is InferenceResponse):
            response = (<list> returned)[0]
            # Held by `response` and the list, if nobody but us holds the list.
            return self._outcome(
                request, <InferenceResponse> response,
                2 if reference_count(<PyObject *> returned) == 1 else 0, wants_arrays,
            )
        text = _violation(returned, 1)
        if text is None and returned[0] is not None:
            # An instance of a subclass of list; what it does with its elements is not known.
            return self._outcome(request, <InferenceResponse> returned[0], 0, wants_arrays)
        if text is None:
            text = (
                "execute returned None in place of a response, but no response sender was taken that "
                "could answer the request; real Triton would leave the client waiting for ever."
            )
        return self._failure(request, text, None)

    cdef object _execute(self, list requests):
        try:
            returned = self.model.execute(requests)
        except AttributeError:
            if hasattr(self.model, "execute"):
                raise
            raise _NoExecute(
                f"Python model {self.model_file} does not implement `execute` method."
            ) from None
        if type(returned) is not list and inspect.iscoroutine(returned):
            return self.run_coroutine(returned)
        return returned

    cdef object _outcome(
        self, InferenceRequest request, InferenceResponse response, Py_ssize_t held, bint wants_arrays
    ):
        """Outcome of a response; `held` is how often the runtime holds it, 0 if the model may."""
        cdef reply.InferenceResponse answer
        cdef dict payloads = {}
        cdef set bfloat16_names = None
        cdef bint is_plain = wants_arrays
        cdef Tensor tensor
        cdef Py_ssize_t references
        cdef object payload
        if response.failure is not None:
            return error_from_code(
                int((<TritonError> response.failure).status), (<TritonError> response.failure).text,
                model=self.model_name, request_id=request.id or None,
            )
        response.prune(request.output_names)
        if self.check_outputs is not None:
            try:
                self.check_outputs(request.output_names, request.batch_size, response)
            except Exception as error:
                return error
        # A tensor is held by the response's list and the loop variable, if only we hold the response.
        references = 2 if reference_count(<PyObject *> response) <= held else 0
        for tensor in response.tensors:
            if tensor.device is not None:
                payload = tensor.device
                is_plain = False
            else:
                payload = tensor.hand_over(references, self.share_memory)
                if self.output_reshapes is not None and tensor.tensor_name in self.output_reshapes:
                    try:
                        payload = self._reshaped(tensor.tensor_name, payload)
                    except ValueError as error:
                        return self._failure(request, str(error), error)
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
            variable = iter(payload.shape[len(lead):])
            dims = [next(variable, 1) if d == -1 else d for d in dims]
        return payload.reshape(lead + dims)

    cdef object _failure(self, InferenceRequest request, str text, object cause):
        if self.namespace is not None:
            text = self.namespace.plain(text)
        error = InternalError(
            f"Failed to process the request(s) for model '{self.instance_name}', message: {text}",
            model=self.model_name, request_id=request.id or None,
        )
        if cause is not None:
            error.__cause__ = cause
        return error

    cdef int _let_go(self, InferenceRequest request, Py_ssize_t holders) except -1:
        """Release the inputs; what the model kept becomes independent of the caller's memory."""
        cdef Tensor tensor
        if reference_count(<PyObject *> request) > holders:
            for tensor in request.tensors:
                tensor.detach()
            return 0
        for tensor in request.tensors:
            # Held by the list and the loop variable.
            if reference_count(<PyObject *> tensor) > 2:
                tensor.detach()
            else:
                tensor.give_back()
        request.tensors = _NO_TENSORS
        return 0


# Requests that were answered share it; nobody can reach their list any more.
cdef list _NO_TENSORS = []


cdef str _violation(object returned, Py_ssize_t request_count):
    """Text for a return value that breaks the contract, or None. Triton's order of checks."""
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


class _NoExecute(Exception):
    """The class has no `execute`; carries the text, has no traceback worth showing."""


cdef inline void set_current(PyObject *contract) noexcept:
    global ptl_current_contract
    ptl_current_contract = contract
