# cython: language_level=3, freethreading_compatible=True
"""Requests, responses and error values that model code sees: `pb_utils.Inference*`, `TritonError`."""
cimport cython
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

import json
import operator
import sys

from pytriton_lite._core.construct cimport ptl_arrange, ptl_construct, ptl_set_constructor
from pytriton_lite._core.native_enum import ErrorCodeValue, MemoryType
from pytriton_lite._core.tensor cimport Tensor, text_of, wrong_arguments
from pytriton_lite._core.tensor import TritonModelException

# Under which the private builtins of a model's modules hold its scope; see `_instance.namespace`.
SCOPE_KEY = "__pytriton_lite_scope__"

cdef object _INTERNAL = ErrorCodeValue(1)

# Defaults, told by identity: the interpreter has small integers once.
cdef object _ZERO = 0
cdef object _LATEST = -1

cdef extern from *:
    """
    /* The types of model code say that they are Triton's: `type(x).__module__`, reprs and error
       texts show it. For a static type all of these come from tp_name. */
    static int ptl_rename(PyObject *type, const char *name) {
        if (PyType_HasFeature((PyTypeObject *)type, Py_TPFLAGS_HEAPTYPE)) return 0;
        ((PyTypeObject *)type)->tp_name = name;
        PyType_Modified((PyTypeObject *)type);
        return 1;
    }
    """
    bint ptl_rename(object type, const char *name)
    PyObject *PyEval_GetGlobals()


cdef tuple _ERROR = (
    "c_python_backend_utils.TritonError(message: str, code: c_python_backend_utils.__ErrorCode"
    " = <__ErrorCode.INTERNAL: 1>)",
)
cdef tuple _RESPONSE = (
    "c_python_backend_utils.InferenceResponse(output_tensors:"
    " list[c_python_backend_utils.Tensor] = [], error: c_python_backend_utils.TritonError = None,"
    " parameters: object = None)",
)
cdef tuple _REQUEST = (
    "c_python_backend_utils.InferenceRequest(request_id: str = '', correlation_id: object = 0,"
    " inputs: list[c_python_backend_utils.Tensor], requested_output_names: list[str],"
    " model_name: str, model_version: int = -1, flags: int = 0, timeout: int = 0,"
    " preferred_memory: c_python_backend_utils.PreferredMemory = <PreferredMemory>,"
    " trace: c_python_backend_utils.InferenceTrace = <InferenceTrace>,"
    " parameters: object = None)",
)
cdef tuple _MEMORY = (
    "c_python_backend_utils.PreferredMemory(preferred_memory_type:"
    " c_python_backend_utils.MemoryType, preferred_device_id: int = 0)",
)
cdef tuple _SET_FLAGS = ("(self: c_python_backend_utils.InferenceRequest, flags: int) -> None",)
cdef tuple _GET_SENDER = (
    "(self: c_python_backend_utils.InferenceRequest) -> c_python_backend_utils.InferenceResponseSender",
)
cdef tuple _EXEC = (
    "(self: c_python_backend_utils.InferenceRequest, decoupled: bool = False) -> object",
)
cdef tuple _ASYNC_EXEC = _EXEC
cdef tuple _RELEASE = ("(self: c_python_backend_utils.InferenceRequest, arg0: int) -> None",)


@cython.final
cdef class TritonError:
    """Error value for one response: ``TritonError(message, code=TritonError.INTERNAL)``.

    Not an exception. `message` reaches the client unchanged. `code` must be a member
    of the enum (`TritonError.NOT_FOUND`, ...), not an int.
    """

    UNKNOWN = ErrorCodeValue(0)
    INTERNAL = ErrorCodeValue(1)
    NOT_FOUND = ErrorCodeValue(2)
    INVALID_ARG = ErrorCodeValue(3)
    UNAVAILABLE = ErrorCodeValue(4)
    UNSUPPORTED = ErrorCodeValue(5)
    ALREADY_EXISTS = ErrorCodeValue(6)
    CANCELLED = ErrorCodeValue(7)

    def __init__(self, message=None, code=_INTERNAL, *args, **kwargs):
        text = text_of(message)
        if text is None or type(code) is not ErrorCodeValue or args or kwargs:
            raise wrong_arguments("__init__", "constructor", _ERROR, (message, code, *args), kwargs)
        self.text = text
        self.status = code

    def message(self):
        """Text of the error."""
        return self.text

    def code(self):
        """Member of the code enum."""
        return self.status


cdef bint _is_among(str name, tuple names) except -1:
    cdef Py_ssize_t i
    for i in range(PyTuple_GET_SIZE(names)):
        # Names of the configuration are interned, and so are literals in model code.
        if <object> PyTuple_GET_ITEM(names, i) is name:
            return True
    return name in names


@cython.final
cdef class PreferredMemory:
    """Where a BLS request wants its outputs: ``PreferredMemory(type, device_id=0)``."""

    cdef readonly object _type
    cdef readonly long _device_id

    def __init__(self, preferred_memory_type=None, preferred_device_id=0, *args, **kwargs):
        try:
            device_id = operator.index(preferred_device_id)
        except TypeError:
            device_id = None
        if (type(preferred_memory_type) is not MemoryType or device_id is None
                or not -(1 << 63) <= device_id < 1 << 63 or args or kwargs):
            raise wrong_arguments(
                "__init__", "constructor", _MEMORY,
                (preferred_memory_type, preferred_device_id, *args), kwargs,
            )
        self._type = preferred_memory_type
        self._device_id = device_id

    def __reduce__(self):
        raise TypeError("cannot pickle 'c_python_backend_utils.PreferredMemory' object")


@cython.final
cdef class InferenceTrace:
    """Trace of a request; from `InferenceRequest.trace()`."""

    cdef object _context

    def get_context(self):
        """OpenTelemetry context as JSON text, or None when the request is not traced."""
        return self._context


cdef object _DEFAULT_MEMORY = PreferredMemory(MemoryType(1))
cdef object _NO_TRACE = InferenceTrace()


@cython.freelist(64)
@cython.final
cdef class RequestDetails:
    def __cinit__(self):
        self.correlation = 0
        self.target_version = -1
        self.memory = _DEFAULT_MEMORY
        self.trace_context = _NO_TRACE

    cdef RequestDetails copy(self):
        cdef RequestDetails made = RequestDetails()
        made.correlation = self.correlation
        made.target_model = self.target_model
        made.target_version = self.target_version
        made.timeout_us = self.timeout_us
        made.priority = self.priority
        made.memory = self.memory
        made.trace_context = self.trace_context
        made.parameters = self.parameters
        made.is_self_made = self.is_self_made
        return made


NO_DETAILS = RequestDetails()


cdef dict _checked_parameters(object parameters):
    """Parameters that model code gives: bool, int or str under str keys."""
    if parameters is None:
        return None
    if not isinstance(parameters, dict):
        raise TritonModelException(f"Expect N8pybind114dictE, got {type(parameters)}")
    for key, value in parameters.items():
        if not isinstance(key, str):
            raise TritonModelException(f"Expect parameters keys to have type str, found type {type(key)}")
        if not isinstance(value, (bool, int, str)):
            raise TritonModelException(
                f"Expect parameters values to have type bool/int/str, found type {type(value)}"
            )
    return dict(parameters)


cdef str _json_of(dict parameters, bint is_spaced):
    # Compact in what a caller sent, with blanks in what model code made (observed on 2.51).
    if not parameters:
        return "{}"
    return json.dumps(parameters, separators=None if is_spaced else (",", ":"), ensure_ascii=False)


cdef tuple _unique_texts(object values):
    """Texts in order, without repeats; None when there is something else among them."""
    cdef list names
    cdef tuple given
    cdef Py_ssize_t i, j
    if not isinstance(values, (list, tuple)):
        return None
    given = tuple(values)
    for i in range(PyTuple_GET_SIZE(given)):
        if type(given[i]) is not str:
            break
        for j in range(i):
            if <str> given[j] == <str> given[i]:
                break
        else:
            continue
        break
    else:
        return given
    names = []
    for value in given:
        name = text_of(value)
        if name is None:
            return None
        if name not in names:
            names.append(name)
    return tuple(names)


cdef list _listed_tensors(object tensors, bint *has_none):
    """A new list of tensors and None; None when there is something else among them."""
    cdef list listed
    has_none[0] = False
    if not isinstance(tensors, (list, tuple)):
        return None
    listed = list(tensors)
    for tensor in listed:
        if type(tensor) is not Tensor:
            if tensor is not None:
                return None
            has_none[0] = True
    return listed


# A response holds tensors and plain values only, so no cycle can lead through it.
@cython.freelist(64)
@cython.final
@cython.no_gc
cdef class InferenceResponse:
    """One response: ``InferenceResponse(output_tensors=[], error=None, parameters=None)``.

    Parameters
    ----------
    output_tensors
        List or tuple of `Tensor`.
    error
        A `TritonError`; then only the error is sent.
    parameters
        Dict of str to bool, int or str, for the client. Newer than Triton 2.51.
    """

    def __init__(self, output_tensors=(), error=None, parameters=None, *args, **kwargs):
        if args or kwargs or not self._set(output_tensors, error, parameters):
            raise wrong_arguments(
                "__init__", "constructor", _RESPONSE, (output_tensors, error, parameters, *args), kwargs
            )

    cdef bint _set(self, object output_tensors, object error, object parameters) except -1:
        """Fill a new response; False for arguments of another kind."""
        cdef bint has_none
        cdef list tensors = _listed_tensors(output_tensors, &has_none)
        if tensors is None or not (error is None or type(error) is TritonError):
            return False
        if has_none:
            raise TritonModelException("Output tensor for inference response should not be empty.")
        self.tensors = tensors
        self.failure = error
        if parameters is not None:
            self.parameter_values = _checked_parameters(parameters)
        return True

    def output_tensors(self):
        """The tensors as a new list."""
        return list(self.tensors)

    def has_error(self):
        """Whether this is an error response."""
        return self.failure is not None

    def error(self):
        """The `TritonError`, or None."""
        return self.failure

    def parameters(self):
        """The parameters as JSON text."""
        return _json_of(self.parameter_values, True)

    cdef int prune(self, tuple names) except -1:
        """Drop tensors that were not asked for, in place, as Triton does."""
        cdef Tensor tensor
        for tensor in self.tensors:
            if not _is_among(tensor.tensor_name, names):
                self.tensors = [t for t in self.tensors if (<Tensor> t).tensor_name in names]
                return 0
        return 0


cdef class Scope:
    """Where the BLS requests of an instance go: made by `bls.BlsScope`."""

    cdef object exec_request(self, InferenceRequest request, bint decoupled):
        raise NotImplementedError


# A request leads to its instance and to the model, a cycle that the unload cuts there.
@cython.freelist(64)
@cython.final
@cython.no_gc
cdef class InferenceRequest:
    """A request: what `execute` receives, and what BLS sends.

    ``InferenceRequest(request_id="", correlation_id=0, inputs, requested_output_names,
    model_name, model_version=-1, flags=0, timeout=0, preferred_memory, trace, parameters=None)``;
    `inputs`, `requested_output_names` and `model_name` are required, so use keywords.
    """

    def __cinit__(self):
        self.details = NO_DETAILS

    def __init__(
        self, request_id="", correlation_id=0, inputs=None, requested_output_names=None,
        model_name=None, model_version=-1, flags=0, timeout=0, preferred_memory=_DEFAULT_MEMORY,
        trace=_NO_TRACE, parameters=None, *args, **kwargs,
    ):
        if args or kwargs or not self._set(
            request_id, correlation_id, inputs, requested_output_names, model_name, model_version,
            flags, timeout, preferred_memory, trace, parameters,
        ):
            given = (
                request_id, correlation_id, inputs, requested_output_names, model_name,
                model_version, flags, timeout, preferred_memory, trace, parameters, *args,
            )
            raise _with_hint(wrong_arguments("__init__", "constructor", _REQUEST, given, kwargs), kwargs)

    cdef bint _set(
        self, object request_id, object correlation_id, object inputs, object requested_output_names,
        object model_name, object model_version, object flags, object timeout,
        object preferred_memory, object trace, object parameters,
    ) except -1:
        """Fill a new request; False for arguments of another kind."""
        cdef bint has_none
        cdef str id = text_of(request_id), target = text_of(model_name)
        cdef list tensors = _listed_tensors(inputs, &has_none)
        cdef tuple names = _unique_texts(requested_output_names)
        cdef RequestDetails details
        if (
            id is None or target is None or correlation_id is None or tensors is None or names is None
            or not (model_version is _LATEST
                    or (isinstance(model_version, int) and -(1 << 63) <= model_version < 1 << 63))
            or not (flags is _ZERO or _is_unsigned(flags))
            or not (timeout is _ZERO or (isinstance(timeout, int) and 0 <= timeout < 1 << 64))
            or type(preferred_memory) is not PreferredMemory or type(trace) is not InferenceTrace
        ):
            return False
        details = RequestDetails.__new__(RequestDetails)
        self.id = id
        self.details = details
        self.home = _lexical_scope()
        details.is_self_made = True
        details.target_model = target
        if correlation_id is not _ZERO:
            details.correlation = _checked_correlation_id(correlation_id)
        if has_none:
            raise TritonModelException(
                f"Input tensor for request with id '{id}' and model name '{target}' should not be empty."
            )
        self.tensors = tensors
        for name in names:
            if not <str> name:
                raise TritonModelException(
                    f"Requested output name for request with id '{id}' and model name '{target}' "
                    "should not be empty."
                )
        self.output_names = names
        if model_version is not _LATEST:
            details.target_version = model_version
        if flags is not _ZERO:
            self.request_flags = flags
        if timeout is not _ZERO:
            details.timeout_us = timeout
        if preferred_memory is not _DEFAULT_MEMORY:
            details.memory = preferred_memory
        if trace is not _NO_TRACE:
            details.trace_context = trace
        if parameters is not None:
            details.parameters = _checked_parameters(parameters)
        return True

    def inputs(self):
        """The input tensors as a new list."""
        return list(self.tensors)

    def request_id(self):
        """The client's id, or an empty string."""
        return self.id

    def correlation_id(self):
        """Sequence id, int or str; 0 when the request has none."""
        return self.details.correlation

    def flags(self):
        """Sequence flags: 1 start, 2 end."""
        return self.request_flags

    def set_flags(self, *args, **kwargs):
        """Replace the sequence flags."""
        flags = kwargs.pop("flags", None) if not args else args[0]
        if len(args) > 1 or kwargs or not _is_unsigned(flags):
            raise wrong_arguments("set_flags", "function", _SET_FLAGS, (self, *args), kwargs)
        self.request_flags = flags

    def timeout(self):
        """Timeout of the request in microseconds; 0 when it has none."""
        return self.details.timeout_us

    def parameters(self):
        """The client's parameters as compact JSON text, ``"{}"`` when there are none."""
        return _json_of(self.details.parameters, self.details.is_self_made)

    def requested_output_names(self):
        """Names of the outputs to send, as a new set; all outputs when the client named none."""
        return set(self.output_names)

    def trace(self):
        """The `InferenceTrace` of the request."""
        return self.details.trace_context

    def is_cancelled(self):
        """Whether the caller gave the request up. False for a request made by model code,
        where Triton 2.51 aborts the server."""
        return self.slot is not None and self.slot.is_cancelled()

    def get_response_sender(self, *args, **kwargs):
        """The `InferenceResponseSender` of a received request; the same object at each call.

        Raises
        ------
        TritonModelException
            The request was made by model code.
        """
        if args or kwargs:
            raise wrong_arguments("get_response_sender", "function", _GET_SENDER, (self, *args), kwargs)
        if self.sender is not None:
            return self.sender
        if self.details.is_self_made or self.home is None:
            raise TritonModelException(
                "get_response_sender() needs a request that execute received, not one made by model code"
            )
        return self.home.make_sender(self)

    def set_release_flags(self, *args, **kwargs):
        """``set_release_flags(flags)``, by position only: what becomes of the request after `execute`.

        `TRITONSERVER_REQUEST_RELEASE_RESCHEDULE` gives the request to `execute` again, in a
        model with iterative sequences; return None in its place.
        """
        if len(args) != 1 or kwargs or not _is_unsigned(args[0]):
            raise wrong_arguments("set_release_flags", "function", _RELEASE, (self, *args), kwargs)
        self.release_flags = <long long> args[0]

    def exec(self, decoupled=False, *args, **kwargs):
        """Run this request on another model of the server, and wait: business logic scripting.

        Parameters
        ----------
        decoupled
            False: `InferenceResponse`, for models that are not decoupled. True: a
            `ResponseIterator`, for any model.

        Returns
        -------
        InferenceResponse or ResponseIterator
            What goes wrong with the request is in ``response.error()``, not raised.

        Raises
        ------
        TritonModelException
            Outside of a model, before `initialize` has returned, or after `finalize` began.
        """
        if args or kwargs or not _is_boolean(decoupled):
            raise wrong_arguments("exec", "function", _EXEC, (self, decoupled, *args), kwargs)
        return (<Scope?> _scope_of(self)).exec_request(self, decoupled)

    def async_exec(self, decoupled=False, *args, **kwargs):
        """As `exec`, but returns a future of the running event loop.

        Raises
        ------
        RuntimeError
            No event loop is running on this thread.
        """
        if args or kwargs or not _is_boolean(decoupled):
            raise wrong_arguments("async_exec", "function", _ASYNC_EXEC, (self, decoupled, *args), kwargs)
        return _scope_of(self).async_exec(self, bool(decoupled))


cdef tuple _RESPONSE_PARAMETERS = ("output_tensors", "error", "parameters")
cdef tuple _REQUEST_PARAMETERS = (
    "request_id", "correlation_id", "inputs", "requested_output_names", "model_name", "model_version",
    "flags", "timeout", "preferred_memory", "trace", "parameters",
)


cdef inline object _or(PyObject *value, object default):
    return default if value == NULL else <object> value


cdef object _construct_response(PyObject *type, PyObject **args, size_t count, PyObject *names):
    cdef PyObject *values[3]
    cdef InferenceResponse made
    if ptl_arrange(args, count, names, _RESPONSE_PARAMETERS, values):
        made = InferenceResponse.__new__(InferenceResponse)
        if made._set(_or(values[0], ()), _or(values[1], None), _or(values[2], None)):
            return made
    return ptl_construct(type, args, count, names)


cdef object _construct_request(PyObject *type, PyObject **args, size_t count, PyObject *names):
    cdef PyObject *values[11]
    cdef InferenceRequest made
    if ptl_arrange(args, count, names, _REQUEST_PARAMETERS, values):
        made = InferenceRequest.__new__(InferenceRequest)
        if made._set(
            _or(values[0], ""), _or(values[1], _ZERO), _or(values[2], None), _or(values[3], None),
            _or(values[4], None), _or(values[5], _LATEST), _or(values[6], _ZERO),
            _or(values[7], _ZERO), _or(values[8], _DEFAULT_MEMORY), _or(values[9], _NO_TRACE),
            _or(values[10], None),
        ):
            return made
    return ptl_construct(type, args, count, names)


ptl_set_constructor(InferenceResponse, _construct_response)
ptl_set_constructor(InferenceRequest, _construct_request)


cdef bint _is_boolean(object value):
    # What pybind11 takes for a bool here: whatever has a truth value of its own, but None.
    return value is False or value is True or value is not None and hasattr(type(value), "__bool__")


cdef object bls_refusal():
    """The error of BLS outside of a model, or at the wrong time of its life."""
    return TritonModelException("BLS is only supported during the 'execute' function.")


cdef object _scope_of(InferenceRequest request):
    """Scope of the model whose code made the request, or else calls us."""
    scope = request.home if request.details.is_self_made else None
    if scope is None:
        scope = _calling_scope()
    if scope is None:
        raise bls_refusal()
    return scope


cdef object _lexical_scope():
    """Scope of the model that the calling Python code belongs to, or None."""
    cdef PyObject *names = PyEval_GetGlobals()
    if names == NULL:
        return None
    builtins = (<dict> names).get("__builtins__")
    return (<dict> builtins).get(SCOPE_KEY) if type(builtins) is dict else None


cdef object _calling_scope():
    """Scope of the innermost caller that belongs to a model, or of the model that the thread runs."""
    frame = sys._getframe()
    while frame is not None:
        builtins = frame.f_globals.get("__builtins__")
        if type(builtins) is dict and SCOPE_KEY in builtins:
            return builtins[SCOPE_KEY]
        frame = frame.f_back
    from pytriton_lite._core.contract import current_contract
    contract = current_contract()
    return None if contract is None else contract.scope


cdef bint _is_unsigned(object value) except -1:
    return isinstance(value, int) and 0 <= value < 1 << 32


cdef object _checked_correlation_id(object value):
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise RuntimeError(
                "Unable to cast Python instance of type <class 'int'> to C++ type 'unsigned long'"
            )
        return value
    if isinstance(value, str):
        return value
    raise TritonModelException("Correlation ID must be integer or string")


cdef object _with_hint(object error, dict kwargs):
    """Name the keyword that was probably meant."""
    import difflib
    for key in kwargs:
        near = difflib.get_close_matches(key, _REQUEST_PARAMETERS, 1)
        if near:
            error.add_note(f"unknown keyword {key!r}: did you mean {near[0]!r}?")
    return error


def get_input_tensor_by_name(inference_request, name):
    """First input of that name, or None."""
    cdef Tensor tensor
    if type(inference_request) is InferenceRequest:
        for tensor in (<InferenceRequest> inference_request).tensors:
            if tensor.tensor_name is name or tensor.tensor_name == name:
                return tensor
        return None
    return _first_named(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response, name):
    """First output of that name, or None."""
    return _first_named(inference_response.output_tensors(), name)


cdef object _first_named(tensors, name):
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    return None


cdef list _NATIVE_NAMES = []  # keeps the C strings alive


cdef int make_native(object type) except -1:
    """Let a type say that it is one of Triton's native module."""
    _NATIVE_NAMES.append(f"c_python_backend_utils.{type.__name__}".encode())
    if not ptl_rename(type, <bytes> _NATIVE_NAMES[-1]):
        type.__module__ = "c_python_backend_utils"
    return 0


for _type in (
    Tensor, TritonError, PreferredMemory, InferenceTrace, InferenceResponse, InferenceRequest,
):
    make_native(_type)
