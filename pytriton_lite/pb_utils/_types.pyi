"""The names of `pytriton_lite.pb_utils` and of `triton_python_backend_utils`, as types.

For type checkers and editors only; at run time there is no such module. Behaviour is that of
Triton 2.51 unless a line says otherwise.
"""

import asyncio
import json
import struct
from collections.abc import Iterator, Mapping
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    Never,
    NoReturn,
    NotRequired,
    Protocol,
    SupportsFloat,
    SupportsIndex,
    TypeAlias,
    TypedDict,
    final,
    overload,
    type_check_only,
)

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, CapsuleType

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITON_STRING_TO_NUMPY",
    "InferenceRequest",
    "InferenceResponse",
    "Logger",
    "MetricFamily",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "is_model_ready",
    "json",
    "load_model",
    "np",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "struct",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "unload_model",
    "using_decoupled_model_transaction_policy",
]

# --- Types without a name at run time.

_Text: TypeAlias = str | bytes  # bytes must be UTF-8
_Number: TypeAlias = SupportsFloat | SupportsIndex  # numpy's numbers too
_Parameters: TypeAlias = Mapping[str, bool | int | str]  # a real dict at run time
_Scalar: TypeAlias = np.bool_ | np.integer[Any] | np.floating[Any] | np.object_ | np.bytes_

_DataTypeName: TypeAlias = Literal[
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
]

@type_check_only
class OutputProperties(TypedDict):
    """What `ModelConfig.add_output` takes; a name for annotations only."""

    name: str
    data_type: _DataTypeName
    dims: list[int]

@type_check_only
class InputProperties(OutputProperties):
    """What `ModelConfig.add_input` takes; a name for annotations only."""

    optional: NotRequired[bool]

@type_check_only
class TransactionPolicy(TypedDict):
    """What `ModelConfig.set_model_transaction_policy` takes; a name for annotations only."""

    decoupled: NotRequired[bool]

@type_check_only
class _DLPackProducer(Protocol):
    def __dlpack__(self, *, stream: Any = None) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@type_check_only
class _NativeEnum:
    """Enum of the native module: equal to ints and convertible to them, but not an int."""

    def __init__(self, value: int) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def value(self) -> int: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
@type_check_only
class _ErrorCode(_NativeEnum):
    """Type of `TritonError.INTERNAL` and its neighbours. An int is not accepted in its place."""

@final
@type_check_only
class MemoryType(_NativeEnum):
    """Type of `TRITONSERVER_MEMORY_CPU` and `TRITONSERVER_MEMORY_GPU`; for annotations only."""

@final
@type_check_only
class MetricKind(_NativeEnum):
    """Type of `MetricFamily.COUNTER` and its neighbours; for annotations only."""

@final
@type_check_only
class InferenceTrace:
    """Trace of a request, from `InferenceRequest.trace`; a name for annotations only."""

    def __init__(self, no_constructor: Never, /) -> None: ...
    def get_context(self) -> str | None:
        """OpenTelemetry context as JSON text; None when the request is not traced."""

@final
@type_check_only
class InferenceResponseSender:
    """Sends the responses of one request; a name for annotations only.

    From `InferenceRequest.get_response_sender`. Any thread may use it, also after
    `execute` has returned. A decoupled model sends any number of responses, none
    included, and must end with FINAL; a default-mode model sends exactly one. Where the
    last reference is dropped before FINAL, Triton's client waits for ever; here it gets an
    error.
    """

    def __init__(self, no_constructor: Never, /) -> None: ...
    @overload
    def send(self, response: InferenceResponse, flags: int = 0) -> None: ...
    @overload
    def send(self, response: InferenceResponse | None = None, *, flags: int) -> None: ...
    @overload
    def send(self, response: InferenceResponse | None, flags: int) -> None:
        """Send one response, or the end alone.

        Parameters
        ----------
        response
            May be left out only with FINAL.
        flags
            0, or `TRITONSERVER_RESPONSE_COMPLETE_FINAL` with or after the last response.

        Raises
        ------
        TritonModelException
            The sender is closed (FINAL was sent), `flags` is another number, there is
            neither a response nor FINAL, or a default-mode model sends a second response
            or FINAL before its response.

        Notes
        -----
        Blocks until the runtime has taken the response; the GIL is released. Here also
        while as many responses wait to be read as the server's option `stream_backlog`
        says. The tensors may be changed afterwards (not with ``share_memory=True``).
        """

    def is_cancelled(self) -> bool:
        """Whether the client gave up the request. FINAL is still required then."""

@final
@type_check_only
class ResponseIterator(Iterator[InferenceResponse]):
    """Responses of a BLS request with ``decoupled=True``; a name for annotations only.

    The last item is an empty response (no outputs, no error) when the callee sent FINAL
    alone. An error of the callee is an item too. A second iteration replays all items.

    On Triton, dropping it before the end blocks until the callee is done. Here it does not;
    the callee goes on, too, and what it sends is dropped.
    """

    def __init__(self, no_constructor: Never, /) -> None: ...
    def __iter__(self) -> ResponseIterator: ...
    def __next__(self) -> InferenceResponse:
        """Wait for the next response; the GIL is released. `StopIteration` after the last."""

    def cancel(self) -> None:
        """Cancel the callee's request; nothing happens after its end. Newer than Triton 2.51."""

@final
@type_check_only
class Metric:
    """One series of a family, from `MetricFamily.Metric`; a name for annotations only.

    Keep it and its family on ``self``: the series disappears with the last handle.
    Any thread may use it.
    """

    def __init__(self, no_constructor: Never, /) -> None: ...
    def increment(self, value: _Number, /) -> None:
        """Add to a counter (`value` >= 0) or a gauge.

        Raises
        ------
        TritonModelException
            A histogram, a negative step of a counter, or the family is gone.
        """

    def set(self, value: _Number, /) -> None:
        """Replace the value of a gauge.

        Raises
        ------
        TritonModelException
            Not a gauge, or the family is gone.
        """

    def observe(self, value: _Number, /) -> None:
        """Count a value in a histogram.

        Raises
        ------
        TritonModelException
            Not a histogram, or the family is gone.
        """

    def value(self) -> float:
        """Value of a counter or a gauge.

        Raises
        ------
        TritonModelException
            A histogram, or the family is gone.
        """

# Inside the class, `Metric` is its method.
_Metric: TypeAlias = Metric

# --- Constants.

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START: Final = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END: Final = 2
TRITONSERVER_RESPONSE_COMPLETE_FINAL: Final = 1
TRITONSERVER_REQUEST_RELEASE_ALL: Final = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE: Final = 2
TRITONSERVER_MEMORY_GPU: Final[MemoryType]
TRITONSERVER_MEMORY_CPU: Final[MemoryType]

# Without TYPE_BF16; TYPE_BOOL gives Python's bool.
TRITON_STRING_TO_NUMPY: Final[dict[str, type[Any]]]

# --- Native classes.

class TritonModelException(Exception):
    """Raised where model code breaks a rule of this module."""

@final
class TritonError:
    """Error value for one response: ``InferenceResponse(error=TritonError(...))``.

    Not an exception, so it cannot be raised.

    Parameters
    ----------
    message
        What the client sees, unchanged.
    code
        `TritonError.NOT_FOUND` or another member; an int is a TypeError. It becomes
        the status of the call (HTTP 404, gRPC NOT_FOUND, ...). Default INTERNAL.
    """

    UNKNOWN: Final[_ErrorCode]
    INTERNAL: Final[_ErrorCode]
    NOT_FOUND: Final[_ErrorCode]
    INVALID_ARG: Final[_ErrorCode]
    UNAVAILABLE: Final[_ErrorCode]
    UNSUPPORTED: Final[_ErrorCode]
    ALREADY_EXISTS: Final[_ErrorCode]
    CANCELLED: Final[_ErrorCode]
    def __init__(self, message: _Text, code: _ErrorCode = ...) -> None: ...
    def message(self) -> str:
        """Text of the error."""

    def code(self) -> _ErrorCode:
        """Member of the code enum; ``int(code)`` and ``code.name`` work."""

@final
class Tensor:
    """A named tensor: ``Tensor(name, array)``, both by position only.

    Parameters
    ----------
    name
        Name of an output of the configuration (or of the callee's input). Not empty.
    array
        A real `numpy.ndarray` of any shape: bool, (u)int8 to 64, float16 to 64,
        ``object`` or ``S``. Lists and numpy scalars (``x.sum()``) are a TypeError.
        ``object`` and ``S`` become BYTES, serialised now: elements that are not
        ``bytes`` are sent as ``str(element)`` in UTF-8.

    Raises
    ------
    TritonModelException
        Empty name, or a dtype that Triton does not have, such as ``U`` (write
        ``np.array(["text"], dtype=object)``) and complex numbers.

    Notes
    -----
    A C-contiguous array is not copied: the tensor holds that very array, and what is
    written into it before the response is sent is sent. Other layouts are copied once.
    """

    def __init__(self, name: _Text, array: npt.NDArray[_Scalar], /) -> None: ...
    def name(self) -> str:
        """Name of the tensor."""

    def shape(self) -> list[int]:
        """Shape as a new list; a method, not an attribute."""

    def as_numpy(self) -> npt.NDArray[Any]:
        """Return the data as an array, the same object at each call.

        Of an input, a private writable copy that stays valid after `execute`; BYTES
        are an ``object`` array of ``bytes``. Of a tensor made from an array, that array.

        Raises
        ------
        TritonModelException
            The tensor is in GPU memory, or BF16: use `to_dlpack`.
        """

    def triton_dtype(self) -> int:
        """Do not use: on Triton every call is a TypeError. See `as_numpy` and its dtype."""

    def is_cpu(self) -> bool:
        """Whether the data is in CPU memory; pinned memory counts."""

    def to_dlpack(self) -> CapsuleType:
        """Return the tensor's own memory as a capsule ``dltensor``; no copy.

        Use the capsule once, for example ``torch.from_dlpack(capsule)``; it keeps the
        memory alive.

        Raises
        ------
        TritonModelException
            A BYTES tensor.
        """

    def __dlpack__(self, stream: Any = None) -> CapsuleType: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    @staticmethod
    def from_dlpack(name: _Text, source: CapsuleType | _DLPackProducer, /) -> Tensor:
        """Wrap memory of another library, without a copy; call it on the class.

        Parameters
        ----------
        name
            Name of the tensor. Not empty.
        source
            An array with ``__dlpack__`` and ``__dlpack_device__``, or a capsule
            ``dltensor`` that nobody has used. C-contiguous; in CPU, pinned or CUDA
            memory; bool, (u)int8 to 64, float16 to 64, bfloat16.

        Raises
        ------
        TritonModelException
            Not a DLPack source, not contiguous, another device, or an empty name.

        Notes
        -----
        The memory stays the producer's and is kept alive by the tensor.
        """

    def __reduce__(self) -> NoReturn: ...

@final
class PreferredMemory:
    """Where a BLS request wants its outputs: ``InferenceRequest(preferred_memory=...)``.

    Parameters
    ----------
    preferred_memory_type
        `TRITONSERVER_MEMORY_CPU` or `TRITONSERVER_MEMORY_GPU`; an int is a TypeError.
    preferred_device_id
        Number of the GPU.
    """

    def __init__(self, preferred_memory_type: MemoryType, preferred_device_id: int = 0) -> None: ...

@final
class InferenceResponse:
    """The answer to one request.

    Parameters
    ----------
    output_tensors
        List or tuple of `Tensor`. Names that the configuration or the client's request
        does not have are dropped without a word.
    error
        A `TritonError`; then only the error is sent. A str or an exception is a TypeError.
    parameters
        Dict of str to bool, int or str for the client. Newer than Triton 2.51.
    """

    def __init__(
        self,
        output_tensors: list[Tensor] | tuple[Tensor, ...] = ...,
        error: TritonError | None = None,
        parameters: _Parameters | None = None,
    ) -> None: ...
    def output_tensors(self) -> list[Tensor]:
        """Outputs, as a new list; empty in an error response of a BLS call."""

    def has_error(self) -> bool:
        """Whether this is an error response. Check it after each BLS call."""

    def error(self) -> TritonError | None:
        """Return the error, or None."""

    def parameters(self) -> str:
        """Parameters as JSON text, ``"{}"`` when there are none. Newer than Triton 2.51."""

@final
class InferenceRequest:
    """A request: what `execute` gets, and what BLS sends to another model.

    Parameters
    ----------
    request_id
        Any text.
    correlation_id
        Sequence id, an int >= 0 or a str.
    inputs
        List or tuple of `Tensor`. Required, as are the next two.
    requested_output_names
        List or tuple of str; empty means all outputs.
    model_name
        The model to ask.
    model_version
        -1 leaves the choice to the model's version policy.
    flags
        `TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`, ``..._END``, both added, or 0.
    timeout
        In microseconds; acts in the callee's queue only.
    preferred_memory
        Where to put the outputs.
    trace
        ``request.trace()`` makes this a child of the trace of `request`.
    parameters
        Dict of str to bool, int or str.

    Notes
    -----
    A request may be executed more than once. The callee never writes into the arrays of
    the inputs.
    """

    # Triton puts required arguments behind optional ones, which only keywords can express.
    def __init__(
        self,
        request_id: _Text = "",
        correlation_id: int | str = 0,
        *,
        inputs: list[Tensor] | tuple[Tensor, ...],
        requested_output_names: list[str] | tuple[str, ...],
        model_name: _Text,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory = ...,
        trace: InferenceTrace = ...,
        parameters: _Parameters | None = None,
    ) -> None: ...
    def inputs(self) -> list[Tensor]:
        """Inputs, as a new list; optional ones that were not sent are absent."""

    def request_id(self) -> str:
        """Id that the client gave, or an empty string."""

    def correlation_id(self) -> int | str:
        """Sequence id as sent; 0 when there is none."""

    def flags(self) -> int:
        """Sequence bits: 1 start, 2 end."""

    def set_flags(self, flags: int) -> None:
        """Replace the sequence bits; not negative."""

    def timeout(self) -> int:
        """Timeout in microseconds; 0 when there is none."""

    def parameters(self) -> str:
        """Parameters as JSON text, not a dict: ``json.loads(request.parameters())``."""

    def requested_output_names(self) -> set[str]:
        """Names of the outputs to send; all of them when the client named none."""

    def trace(self) -> InferenceTrace:
        """Trace of the request, for a BLS request's ``trace=``."""

    def is_cancelled(self) -> bool:
        """Whether the client gave up. Only for requests that `execute` got."""

    def get_response_sender(self) -> InferenceResponseSender:
        """Sender of this request's responses, the same object each time.

        Then `execute` returns None (always so in a decoupled model), or None in the
        place of this request. The sender may be kept and used later.
        """

    def set_release_flags(self, flags: int, /) -> None:
        """Ask for this request again in a later `execute` of an iterative sequence.

        Parameters
        ----------
        flags
            `TRITONSERVER_REQUEST_RELEASE_RESCHEDULE`. Set it before `execute` returns,
            and return None in the place of this request.

        Notes
        -----
        Needs ``sequence_batching { iterative_sequence: true }``; without it Triton loses the
        request, and here the caller gets an error. The request comes back as it was, without
        the flag SEQUENCE_START. A decoupled model may send responses each time.
        """

    @overload
    def exec(self, decoupled: Literal[False] = False) -> InferenceResponse: ...
    @overload
    def exec(self, decoupled: Literal[True]) -> ResponseIterator: ...
    @overload
    def exec(self, decoupled: bool) -> InferenceResponse | ResponseIterator:
        """Send the request to another model and wait (BLS).

        Parameters
        ----------
        decoupled
            True gives an iterator over the responses; required for decoupled models.

        Returns
        -------
        InferenceResponse or ResponseIterator
            Failures are error responses, not exceptions: check `has_error`. Their code is
            always INTERNAL on 2.51; here, as on newer versions, it is the callee's.

        Raises
        ------
        TritonModelException
            Called before the end of `initialize` or in `finalize`.

        Notes
        -----
        Blocks with the GIL released; any thread may call it. In ``async def execute``
        it blocks the event loop: use `async_exec`. Calls in a ring that leaves no instance
        free wait for ever on Triton; here the last of them gets an error.
        """

    @overload
    def async_exec(
        self, decoupled: Literal[False] = False
    ) -> asyncio.Future[InferenceResponse]: ...
    @overload
    def async_exec(self, decoupled: Literal[True]) -> asyncio.Future[ResponseIterator]: ...
    @overload
    def async_exec(
        self, decoupled: bool
    ) -> asyncio.Future[InferenceResponse] | asyncio.Future[ResponseIterator]:
        """Send the request to another model from ``async def execute`` (BLS).

        Parameters
        ----------
        decoupled
            True gives an iterator over the responses; required for decoupled models.

        Returns
        -------
        asyncio.Future
            To be awaited or gathered; not a coroutine. Its result is that of `exec`.
            To iterate over a `ResponseIterator` blocks the event loop.

        Raises
        ------
        RuntimeError
            No event loop is running.
        """

class Logger:
    """The server's log; static methods only, there are no loggers to make.

    Messages are str. File and line of the record are those of the caller.
    """

    @final
    class LogLevel(_NativeEnum):
        """Type of `Logger.INFO` and its neighbours; an int is not accepted in its place."""

        INFO: ClassVar[Logger.LogLevel]
        WARNING: ClassVar[Logger.LogLevel]
        ERROR: ClassVar[Logger.LogLevel]
        VERBOSE: ClassVar[Logger.LogLevel]

    INFO: Final[LogLevel]
    WARNING: Final[LogLevel]
    ERROR: Final[LogLevel]
    VERBOSE: Final[LogLevel]
    def __init__(self, no_constructor: Never, /) -> None: ...
    @staticmethod
    def log(message: _Text, level: LogLevel = ...) -> None:
        """Log at `level`, which is `Logger.INFO` by default."""

    @staticmethod
    def log_info(message: _Text) -> None:
        """Log at INFO."""

    @staticmethod
    def log_warn(message: _Text) -> None:
        """Log at WARNING."""

    @staticmethod
    def log_error(message: _Text) -> None:
        """Log at ERROR."""

    @staticmethod
    def log_verbose(message: _Text) -> None:
        """Log at VERBOSE: shown with ``--log-verbose``, DEBUG in pytriton_lite."""

class MetricFamily:
    """A custom metric; ``family.Metric(labels=...)`` makes its series.

    Parameters
    ----------
    name
        Name of the metric, such as ``"requests_seen"``. The same name and kind give
        another handle of the same family.
    description
        Help text of the metric.
    kind
        `MetricFamily.COUNTER`, `GAUGE` or `HISTOGRAM`; an int is a TypeError.

    Raises
    ------
    TritonModelException
        A bad name, or the name exists with another kind.

    Notes
    -----
    Keep it on ``self``: a metric whose family is gone can no longer be changed.
    """

    COUNTER: Final[MetricKind]
    GAUGE: Final[MetricKind]
    HISTOGRAM: Final[MetricKind]
    def __init__(self, name: _Text, description: _Text, kind: MetricKind) -> None: ...
    def Metric(
        self,
        labels: dict[str, str] | None = None,
        buckets: list[float] | list[int] | None = None,
    ) -> _Metric:
        """Make a series of this family.

        Parameters
        ----------
        labels
            Dict of str to str. The same labels give another handle of the same series.
        buckets
            Upper limits, increasing; required for a histogram, refused for other kinds.

        Raises
        ------
        TritonModelException
            Bad labels, or buckets that are missing or not wanted.
        """

# --- Model control: only with the model control mode ``explicit``.

def load_model(
    model_name: _Text, config: _Text = "", files: dict[str, bytes] | None = None
) -> None:
    """Load a model and wait until it is ready.

    Parameters
    ----------
    model_name
        Name of its folder in a repository.
    config
        JSON that replaces its ``config.pbtxt``; empty to keep it.
    files
        Contents under ``"file:<path in the model folder>"``; need `config`.

    Raises
    ------
    TritonModelException
        The model did not load.
    """

def unload_model(model_name: _Text, unload_dependents: bool = False) -> None:
    """Start to unload a model and return at once; an unknown model is no error."""

def is_model_ready(model_name: _Text, model_version: _Text = "") -> bool:
    """Tell whether a model is ready; False for unknown ones.

    Parameters
    ----------
    model_name
        Name of the model.
    model_version
        A number as a str; empty for the version that the policy chooses.

    Raises
    ------
    TritonModelException
        `model_version` is not a positive number.
    """

# --- Functions and `ModelConfig`.

def get_model_dir() -> str:
    """Version folder of the model, not the folder of a Python-based backend's code.

    Exists inside a model only, from `auto_complete_config` and `initialize` on.
    """

def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """First input of that name; None when there is none, as for optional inputs not sent."""

def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """First output of that name in the response of a BLS request; None when there is none."""

def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Entry of an input in ``json.loads(args["model_config"])``; None when there is none."""

def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Entry of an output in ``json.loads(args["model_config"])``; None when there is none."""

def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Tell whether ``json.loads(args["model_config"])`` is that of a decoupled model.

    Raises
    ------
    KeyError
        There is a transaction policy without ``decoupled``.
    """

def triton_to_numpy_type(data_type: int) -> type[Any] | None:
    """Numpy type of a number 1 (BOOL) to 13 (STRING, `np.object_`); None for BF16 and others."""

def numpy_to_triton_type(data_type: npt.DTypeLike) -> int | None:
    """Number of a numpy type such as `np.float32` or of a dtype; None when there is none.

    Compares with ``==``, so ``float`` and ``"float32"`` give None.
    """

def triton_string_to_numpy(triton_type_string: str) -> type[Any]:
    """Numpy type of ``TYPE_FP32`` and its like; ``TYPE_STRING`` gives `np.object_`.

    Raises
    ------
    KeyError
        Unknown names, ``TYPE_BF16``, and names without ``TYPE_``.
    """

# By position only: Triton names the argument unlike pytriton_lite.
def serialize_byte_tensor(input_tensor: npt.NDArray[Any], /) -> bytes | tuple[()] | None:
    """Encode an ``object`` or ``S`` array: 4 bytes of little-endian length before each element.

    Returns
    -------
    bytes, tuple or None
        ``()`` for an array without elements, None for other dtypes.
    """

def deserialize_bytes_tensor(encoded_tensor: Buffer, /) -> npt.NDArray[np.object_]:
    """Decode what `serialize_byte_tensor` makes into an array of ``bytes`` of shape ``[n]``.

    Raises
    ------
    struct.error
        The data ends within an element.
    """

class ModelConfig:
    """The configuration that ``auto_complete_config`` completes and returns.

    Of what is written, the server takes ``max_batch_size``, ``input``, ``output``, the
    scheduler and ``model_transaction_policy``.

    Parameters
    ----------
    model_config
        The configuration in Triton's JSON form.
    """

    def __init__(self, model_config: str) -> None: ...
    def as_dict(self) -> dict[str, Any]:
        """Return the live dict, not a copy."""

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set ``max_batch_size``; does not switch dynamic batching on.

        Raises
        ------
        ValueError
            The configuration has a larger one.
        """

    def set_dynamic_batching(self) -> None:
        """Choose the dynamic batcher; settings that are there stay.

        Raises
        ------
        ValueError
            The configuration has another scheduler.
        """

    def add_input(self, input: InputProperties) -> None:
        """Add an input, or fill in what the configuration leaves out of it.

        Parameters
        ----------
        input
            ``name``, ``data_type`` (such as ``"TYPE_FP32"``; for an unknown one Triton
            drops the whole completion), ``dims`` (without the batch dimension; -1 is
            any size) and, if wanted, ``optional``.

        Raises
        ------
        ValueError
            A key is missing or unknown, or the configuration says otherwise.
        """

    def add_output(self, output: OutputProperties) -> None:
        """Add an output, or fill in what the configuration leaves out of it.

        Parameters
        ----------
        output
            ``name``, ``data_type`` (such as ``"TYPE_FP32"``) and ``dims`` (without the
            batch dimension; -1 is any size).

        Raises
        ------
        ValueError
            A key is missing or unknown, or the configuration says otherwise.
        """

    def set_model_transaction_policy(self, transaction_policy_dict: TransactionPolicy) -> None:
        """Declare whether the model is decoupled.

        Parameters
        ----------
        transaction_policy_dict
            ``{"decoupled": True}`` or ``{"decoupled": False}``.

        Raises
        ------
        ValueError
            There is another key, or the configuration has another value.
        """
