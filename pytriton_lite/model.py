"""`Model`: what users call."""

from __future__ import annotations

import contextlib
import functools
import numbers
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from pytriton_lite._core.batch_queue import BatchQueue
from pytriton_lite._core.calls import ModelCalls, ServedVersion
from pytriton_lite._core.reply import InferenceResponse, error_response
from pytriton_lite._dtypes import BY_NUMBER
from pytriton_lite.errors import InvalidArgumentError, TritonError, UnsupportedError

if TYPE_CHECKING:
    import concurrent.futures

    from pytriton_lite._async import AsyncResponseStream, LoopBridge
    from pytriton_lite._config.explain import ConfigExplanation
    from pytriton_lite._core.calls import ResponseStream, ServedVersion
    from pytriton_lite._core.future import RequestFuture
    from pytriton_lite._repository import ModelTable

Parameter: TypeAlias = "bool | int | float | str"
Inputs: TypeAlias = "Mapping[str, Any]"


class ModelBatchFlag(IntEnum):
    """How a model batches: not at all, or along the first dimension."""

    UNKNOWN = 1
    FIRST_DIM = 2


class ModelTxnPropertyFlag(IntEnum):
    """How many responses a request gets."""

    ONE_TO_ONE = 1
    DECOUPLED = 2


@dataclass(frozen=True, slots=True)
class FormedBatch:
    """A batch that the dynamic batcher formed; from `Model.explain_batching`.

    Attributes
    ----------
    batch_size
        Sum of the batch sizes of its requests.
    request_count
        How many requests it was.
    reason
        Why it was closed: ``"full"`` (nothing more fits, or what comes next is too much),
        ``"preferred size"``, ``"delay over"``, ``"incompatible"`` (what comes next must not be
        mixed with it), ``"idle instance"`` (there is no delay, and an instance was free) or
        ``"released"`` (by the end of `Model.hold_queue`, or since the model is unloaded).
    queue_ns
        How long its oldest request had waited, in nanoseconds.
    instance_name
        Which instance ran it.
    """

    batch_size: int
    request_count: int
    reason: str
    queue_ns: int
    instance_name: str


@dataclass(slots=True)
class InferenceRequest:
    """A request in the official spelling; from `Model.create_request`.

    Attributes
    ----------
    model
        Who is asked.
    inputs
        Arrays by input name, as for `Model.run`.
    requested_outputs
        Names of the outputs wanted; None means all.
    request_id, correlation_id, flags, priority, timeout, parameters
        As for `Model.run`; `timeout` is Triton's queue timeout in microseconds.
    """

    model: Model
    inputs: Inputs = field(default_factory=dict)
    requested_outputs: Sequence[str] | None = None
    request_id: str | None = None
    correlation_id: int | str | None = None
    flags: int = 0
    priority: int = 0
    timeout: int = 0
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


_SEQUENCE_START, _SEQUENCE_END = 1, 2


class Model(ModelCalls):
    """A model of a server: call it like a function, or through `run` and its relatives.

    Made by `Server.model`. A model that is loaded anew keeps its `Model` objects working;
    without a version they always reach the greatest ready one.
    """

    def __init__(self, models: ModelTable, name: str, version: int) -> None:
        super().__init__(models.endpoint(name, version))
        self._models = models
        self._name = name
        self._version = version

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._name

    @property
    def version(self) -> int:
        """Version asked for; -1 means the greatest ready one."""
        return self._version

    @property
    def state(self) -> str:
        """State as the repository index names it, such as ``READY``."""
        return self._models.state(self._name, self._version)[0].value

    @property
    def reason(self) -> str:
        """Reason of a state other than READY."""
        return self._models.state(self._name, self._version)[1]

    def __repr__(self) -> str:
        version = "" if self._version == -1 else f" version {self._version}"
        return f"<Model {self._name!r}{version}: {self.state}>"

    # -- calls -------------------------------------------------------------------------

    def run(
        self,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        correlation_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: int = 0,
    ) -> InferenceResponse:
        """Run one request and return its response.

        Parameters
        ----------
        inputs
            Arrays (numpy, or anything with ``__dlpack__``), nested lists, scalars, `str` or
            `bytes`, by input name. Arrays must have the configured data type; lists and
            scalars take it. They must not be changed before the answer is there.
        outputs
            Names of the outputs wanted; None means all.
        parameters
            Custom parameters: bool, int, float or str.
        timeout_s
            Seconds to wait for the answer, without limit when None. An inline model runs on
            the calling thread and is not interrupted; the wait for its turn is limited.
        request_id
            Appears in error texts and in `request.request_id()`.
        priority
            Priority level; without dynamic batching it is ignored, as on Triton.
        correlation_id, sequence_start, sequence_end
            Of a sequence.
        timeout
            Triton's timeout of the request in the queue, in microseconds. The model sees it.

        Returns
        -------
        InferenceResponse
            Its outputs are owned by the caller.

        Raises
        ------
        TritonError
            One subclass per status code. If the model raised, ``__cause__`` is its exception.
        RequestTimeoutError
            No answer within `timeout_s`; the request is cancelled.
        """
        fields = self._fields(
            outputs, parameters, request_id, priority, correlation_id,
            _flags(sequence_start, sequence_end), timeout,
        )  # fmt: skip
        while True:
            served, slot = self._prepare(inputs, fields)
            response = self._run(served, slot, timeout_s)
            if response is not None:
                return response
            self._check_replaced(served)

    def submit(
        self,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str | None = None,
        priority: int = 0,
        correlation_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: int = 0,
    ) -> concurrent.futures.Future[InferenceResponse]:
        """Queue one request and return a future of its response; arguments as for `run`.

        Cancelling the future cancels the request: while it is queued it never reaches the
        model. An inline model that is idle runs the request before this returns.
        """
        fields = self._fields(
            outputs, parameters, request_id, priority, correlation_id,
            _flags(sequence_start, sequence_end), timeout,
        )  # fmt: skip
        while True:
            served, slot = self._prepare(inputs, fields)
            self._check_thread(served)
            future = _future_class()(served.queue, slot)
            if served.queue.submit_all([slot]) is not None:
                return future
            self._check_replaced(served)

    async def async_run(
        self,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        correlation_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: int = 0,
    ) -> InferenceResponse:
        """Await the response to one request; arguments as for `run`.

        Cancelling the task cancels the request. An inline model runs on a thread of the
        loop's default executor, so that it does not block the loop.
        """
        fields = self._fields(
            outputs, parameters, request_id, priority, correlation_id,
            _flags(sequence_start, sequence_end), timeout,
        )  # fmt: skip
        bridge = _bridge_class().of_running()
        response: InferenceResponse | None
        while True:
            served, slot = self._prepare(inputs, fields)
            if served.queue.is_inline:
                import asyncio

                loop = asyncio.get_running_loop()
                try:
                    response = await loop.run_in_executor(None, self._run, served, slot, timeout_s)
                except asyncio.CancelledError:
                    served.queue.cancel(slot)
                    raise
            else:
                response = await bridge.run(served.queue, slot, timeout_s)
            if response is not None:
                return response
            self._check_replaced(served)

    def stream(
        self,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        correlation_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: int = 0,
    ) -> ResponseStream:
        """Start one request and iterate over its responses; arguments as for `run`.

        For decoupled models, which send any number of them; of another model it gives the one.
        An error response is raised where it comes, and the iteration may go on after it.
        Triton's empty final response is left out.

        `timeout_s` limits the time from now to the last response. An inline model runs before
        this returns, and its responses wait without limit.

        Breaking off, by dropping the iterator or its `close`, cancels the request. When
        `stream_backlog` (see `Options`) responses wait to be read, the model's response sender
        blocks; so read several streams of one model side by side, not one after another.
        """
        fields = self._fields(
            outputs, parameters, request_id, priority, correlation_id,
            _flags(sequence_start, sequence_end), timeout,
        )  # fmt: skip
        while True:
            served, slot = self._prepare(inputs, fields)
            self._check_thread(served)
            stream = self._open(served, slot, timeout_s, keeps_empty_final=False, raises=True)
            if stream is not None:
                return stream
            self._check_replaced(served)

    def async_stream(
        self,
        inputs: Inputs,
        *,
        outputs: Sequence[str] | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        timeout_s: float | None = None,
        request_id: str | None = None,
        priority: int = 0,
        correlation_id: int | str | None = None,
        sequence_start: bool = False,
        sequence_end: bool = False,
        timeout: int = 0,
    ) -> AsyncResponseStream:
        """Start one request and iterate asynchronously over its responses, as `stream` does.

        Cancelling the task that awaits a response cancels the request. An inline model runs on
        a thread of the loop's default executor, from the first iteration on.
        """
        fields = self._fields(
            outputs, parameters, request_id, priority, correlation_id,
            _flags(sequence_start, sequence_end), timeout,
        )  # fmt: skip
        return self._async_open(inputs, fields, timeout_s, keeps_empty_final=False, raises=True)

    def _async_open(
        self,
        inputs: Inputs,
        fields: dict[str, Any] | None,
        timeout_s: float | None,
        *,
        keeps_empty_final: bool,
        raises: bool,
    ) -> AsyncResponseStream:
        from pytriton_lite._async import AsyncResponseStream

        prepared = [self._prepare(inputs, fields)]  # at most one

        def open_stream() -> ResponseStream:
            while True:
                served, slot = prepared.pop() if prepared else self._prepare(inputs, fields)
                stream = self._open(
                    served, slot, timeout_s, keeps_empty_final=keeps_empty_final, raises=raises
                )
                if stream is not None:
                    return stream
                self._check_replaced(served)

        return AsyncResponseStream(open_stream, is_lazy=prepared[0][0].queue.is_inline)

    def create_request(self, **fields: Any) -> InferenceRequest:
        """Make an `InferenceRequest` for `infer`; `fields` are its attributes."""
        try:
            return InferenceRequest(self, **fields)
        except TypeError as error:
            raise InvalidArgumentError(str(error), model=self._name) from None

    def infer(
        self, request: InferenceRequest | None = None, *, raise_on_error: bool = True, **fields: Any
    ) -> Iterator[InferenceResponse]:
        """Iterate over the responses to a request, the official form of `run` and `stream`.

        Triton's empty final response of a decoupled model is among them.

        Parameters
        ----------
        request
            From `create_request`; or None, and `fields` are its attributes.
        raise_on_error
            Raise the error of a response; otherwise it is in ``response.error``.
        """
        made = self.create_request(**fields) if request is None else request
        try:
            fields_given = self._request_fields(made)
            while True:
                served, slot = self._prepare(made.inputs, fields_given)
                if served.is_decoupled:
                    self._check_thread(served)
                    stream = self._open(
                        served, slot, None, keeps_empty_final=True, raises=raise_on_error
                    )
                    if stream is not None:
                        return stream
                else:
                    response = self._run(served, slot, None)
                    if response is not None:
                        return iter([response])
                self._check_replaced(served)
        except TritonError as error:
            if raise_on_error:
                raise
            return iter([self._error_response(made, error)])

    async def async_infer(
        self, request: InferenceRequest | None = None, *, raise_on_error: bool = True, **fields: Any
    ) -> AsyncIterator[InferenceResponse]:
        """Iterate asynchronously over the responses to a request; arguments as for `infer`."""
        made = self.create_request(**fields) if request is None else request
        try:
            opened = self._async_open(
                made.inputs,
                self._request_fields(made),
                None,
                keeps_empty_final=True,
                raises=raise_on_error,
            )
        except TritonError as error:
            if raise_on_error:
                raise
            yield self._error_response(made, error)
            return
        async with opened as responses:
            async for response in responses:
                yield response

    def _error_response(self, request: InferenceRequest, error: TritonError) -> InferenceResponse:
        return error_response(error, request.request_id or "", self._name, self._version)

    def _request_fields(self, request: InferenceRequest) -> dict[str, Any] | None:
        return self._fields(
            request.requested_outputs,
            request.parameters,
            request.request_id,
            request.priority,
            request.correlation_id,
            request.flags,
            request.timeout,
        )

    def _fields(  # noqa: PLR0917 - called with all of them, in this order
        self,
        outputs: Sequence[str] | None,
        parameters: Mapping[str, Parameter] | None,
        request_id: str | None,
        priority: int,
        correlation_id: int | str | None,
        flags: int,
        timeout: int,
    ) -> dict[str, Any] | None:
        """Check the arguments of a request that are not tensors; None when all are defaults."""
        if (
            outputs is None
            and parameters is None
            and request_id is None
            and correlation_id is None
            and priority == flags == timeout == 0
        ):
            return None
        for name, value in (("priority", priority), ("timeout", timeout), ("flags", flags)):
            if not isinstance(value, int) or not 0 <= value < 1 << (32 if name == "flags" else 64):
                raise InvalidArgumentError(
                    f"{name} of a request to model '{self._name}' must be a non-negative int, got "
                    f"{value!r}",
                    model=self._name,
                )
        if request_id is not None and not isinstance(request_id, str):
            raise InvalidArgumentError(
                f"request_id of a request to model '{self._name}' must be a str, got "
                f"{request_id!r}",
                model=self._name,
            )
        is_id = isinstance(correlation_id, str) or (
            isinstance(correlation_id, int) and 0 <= correlation_id < 1 << 64
        )
        if correlation_id is not None and not is_id:
            raise InvalidArgumentError(
                f"correlation_id of a request to model '{self._name}' must be a str or an unsigned "
                f"64-bit int, got {correlation_id!r}",
                model=self._name,
            )
        return {
            "outputs": outputs,
            "parameters": _plain_parameters(parameters, self._name) if parameters else None,
            "request_id": request_id or "",
            "priority": priority,
            "correlation_id": 0 if correlation_id is None else correlation_id,
            "flags": flags,
            "timeout": timeout,
        }

    # -- dynamic batching --------------------------------------------------------------

    def explain_batching(self) -> list[FormedBatch]:
        """Say how recent requests were batched, and why; oldest batch first, at most 256.

        Raises
        ------
        UnsupportedError
            The model has no dynamic batching.
        """
        return [FormedBatch(*batch) for batch in self._batch_queue().explain()]

    @contextlib.contextmanager
    def hold_queue(self) -> Iterator[None]:
        """Collect the requests that come within a ``with`` block, and batch them at its end.

        Then exactly those batches are formed that the configuration makes of these requests when
        they are all there and have waited long enough; so a test can force a batch. Requests
        that run already, and batches that were formed before, go on.

        Notes
        -----
        Other threads may call the model as always; they wait. The thread of the block itself uses
        `submit` or `async_run` tasks. Timeouts in the queue go on meanwhile. Blocks may be nested;
        the last one's end counts. A model that is loaded anew takes no part in it.

        Raises
        ------
        UnsupportedError
            The model has no dynamic batching.
        InvalidArgumentError
            From a call that waits for its answer, such as `run`, on the thread of the block: it
            would wait for ever.
        """
        queue = self._batch_queue()
        queue.hold()
        try:
            yield
        finally:
            queue.release()

    def _batch_queue(self) -> BatchQueue:
        served = self._endpoint.served
        if served is None:
            raise self._endpoint.explain()
        if not isinstance(served.queue, BatchQueue):
            raise UnsupportedError(
                f"model '{self._name}' has no dynamic batching: its configuration has no "
                "'dynamic_batching'",
                model=self._name,
            )
        return served.queue

    # -- description -------------------------------------------------------------------

    def ready(self, *, raise_on_error: bool = False) -> bool:
        """Whether a request would be taken now and the model's own `is_ready` agrees.

        Asks every instance that has `is_ready`, side by side and at most 5 s. Inference does
        not: a model that is not ready still serves.

        Parameters
        ----------
        raise_on_error
            Raise what is the matter instead of returning False.

        Raises
        ------
        UnavailableError
            `is_ready` of an instance says no or nothing; or the model is not loaded, which may
            also be a NotFoundError, as in a call.
        InternalError
            `is_ready` failed, with its exception as ``__cause__``, or returned no bool.
        """
        if type(self._endpoint.served) is ServedVersion:
            return True  # without `is_ready`
        error = self._models.why_not_ready(self._name, self._version)
        if error is not None and raise_on_error:
            raise error
        return error is None

    @overload
    def config(self, *, explain: Literal[False] = False) -> dict[str, Any]: ...

    @overload
    def config(self, *, explain: Literal[True]) -> ConfigExplanation: ...

    def config(self, *, explain: bool = False) -> dict[str, Any] | ConfigExplanation:
        """Completed configuration, as Triton's ``/v2/models/<name>/config`` gives it.

        Parameters
        ----------
        explain
            Instead of the values alone, tell where each of them came from: file and line,
            default, `auto_complete_config`, load call, option. ``print`` it, or look up
            ``explanation["input[0].dims"]``.
        """
        loaded = self._models.get(self._name, self._version)
        return loaded.explain_config() if explain else loaded.config()

    def metadata(self) -> dict[str, Any]:
        """Name, ready versions, platform, inputs and outputs, as in the KServe v2 protocol."""
        settings = self._models.get(self._name, self._version).settings
        lead = [-1] if settings.max_batch_size > 0 else []
        inputs, outputs = (
            [
                {
                    "name": tensor.name,
                    "datatype": BY_NUMBER[tensor.data_type].protocol_name,
                    "shape": lead + list(tensor.dims),
                }
                for tensor in tensors
            ]
            for tensors in (settings.inputs, settings.outputs)
        )
        return {
            "name": settings.name,
            "versions": [str(n) for n in self._models.ready_versions(self._name)],
            "platform": settings.platform or settings.backend,
            "inputs": inputs,
            "outputs": outputs,
        }

    def statistics(self) -> dict[str, Any]:
        """Triton's statistics, in the form of ``/v2/models/<name>/stats``.

        ``{"model_stats": [...]}`` with one entry per ready version; of a `Model` with a version, of
        that one. Durations are in nanoseconds, and counters start at 0 with each load.

        Raises
        ------
        InvalidArgumentError
            No such version is ready.
        """
        ready = self._models.ready_versions(self._name)
        if not ready:
            raise InvalidArgumentError(
                f"requested model '{self._name}' is not available", model=self._name
            )
        if self._version != -1 and self._version not in ready:
            raise InvalidArgumentError(
                f"requested model version is not available for model '{self._name}'",
                model=self._name,
            )
        wanted = ready if self._version == -1 else [self._version]
        loaded = [self._models.get(self._name, number) for number in wanted]
        return {"model_stats": [version.statistics_json() for version in loaded]}

    def batch_properties(self) -> ModelBatchFlag:
        """Whether the first dimension of its tensors is a batch."""
        settings = self._models.get(self._name, self._version).settings
        return ModelBatchFlag.FIRST_DIM if settings.max_batch_size > 0 else ModelBatchFlag.UNKNOWN

    def transaction_properties(self) -> ModelTxnPropertyFlag:
        """Whether a request gets exactly one response."""
        settings = self._models.get(self._name, self._version).settings
        return (
            ModelTxnPropertyFlag.DECOUPLED
            if settings.is_decoupled
            else ModelTxnPropertyFlag.ONE_TO_ONE
        )


@functools.cache
def _bridge_class() -> type[LoopBridge]:
    # Imported when the first one is asked for; an import statement in each call took 1 to 2 us.
    from pytriton_lite._async import LoopBridge

    return LoopBridge


@functools.cache
def _future_class() -> type[RequestFuture]:
    # Imported when the first one is made: futures bring much along.
    from pytriton_lite._core.future import RequestFuture

    return RequestFuture


def _flags(sequence_start: bool, sequence_end: bool) -> int:
    return (_SEQUENCE_START if sequence_start else 0) | (_SEQUENCE_END if sequence_end else 0)


def _plain_parameters(parameters: Mapping[str, Parameter], model_name: str) -> dict[str, Parameter]:
    """Parameters as plain Python values; numpy scalars and enums are taken for what they are."""
    plain: dict[str, Parameter] = {}
    for key, value in parameters.items():
        if not isinstance(key, str):
            raise InvalidArgumentError(
                f"parameter keys of a request to model '{model_name}' must be str, got {key!r}",
                model=model_name,
            )
        if key.startswith("triton_"):
            raise InvalidArgumentError(
                "parameter keys starting with 'triton_' are reserved for Triton usage and should "
                "not be specified.",
                model=model_name,
            )
        if isinstance(value, bool | np.bool_):
            plain[key] = bool(value)
        elif isinstance(value, numbers.Integral):
            plain[key] = int(value)
        elif isinstance(value, numbers.Real):
            plain[key] = float(value)
        elif isinstance(value, str):
            plain[key] = str(value)
        else:
            raise InvalidArgumentError(
                f"parameter '{key}' has invalid type. It should be either 'int', 'bool', or "
                "'string'.",
                model=model_name,
            )
    return plain
