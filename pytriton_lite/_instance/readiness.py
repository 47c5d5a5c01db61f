"""`is_ready` of models: asked on a helper thread, with a limit, one call for all who ask at once.

A call that hangs cannot be ended by Python. It stays the one call in flight of its instance,
which later callers share, so that a stuck model costs one thread and not one per caller.
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytriton_lite._instance.event_loop import InstanceLoop
from pytriton_lite._typing import override
from pytriton_lite.errors import InternalError, TritonError, UnavailableError

if TYPE_CHECKING:
    from pytriton_lite._instance.namespace import ModuleNamespace

_log = logging.getLogger("pytriton_lite.server")

LIMIT_S = 5.0
"""How long a caller waits, on Triton as well."""

# What a call whose time is up gets to end, before it is taken for stuck.
_GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an instance is not ready, in Triton's words.

    Attributes
    ----------
    kind
        Class of the error to raise; each caller gets an object of its own.
    cause
        What `is_ready` raised.
    """

    text: str
    kind: type[TritonError] = UnavailableError
    cause: BaseException | None = None


TIMED_OUT = Refusal("Timed out waiting for user-defined is_ready() response")
SHARED_TIMED_OUT = Refusal("Timed out waiting for in-flight is_ready() response")
_NO_BOOL = Refusal("is_ready() must return a boolean value", InternalError)
CLOSED = Refusal("the model is being unloaded")


class Answer(ABC):
    """What an instance will have said."""

    @abstractmethod
    def wait(self, deadline: float) -> Refusal | None:
        """Wait for it until `deadline` (`time.monotonic`); None means ready."""


class Readiness(ABC):
    """How to ask an instance whether it is ready."""

    @abstractmethod
    def ask(self) -> Answer:
        """Begin to ask; does not wait."""


class _Call:
    """One call of `is_ready`, with all who wait for it."""

    def __init__(self) -> None:
        self.deadline = time.monotonic() + LIMIT_S
        self.is_done = threading.Event()
        self.refusal: Refusal | None = None
        self.thread: threading.Thread | None = None

    def end(self, refusal: Refusal | None) -> None:
        self.refusal = refusal
        self.is_done.set()


class _CallAnswer(Answer):
    def __init__(self, call: _Call, at_limit: Refusal) -> None:
        self._call = call
        self._at_limit = at_limit

    @override
    def wait(self, deadline: float) -> Refusal | None:
        if self._call.is_done.wait(max(0.0, deadline - time.monotonic())):
            return self._call.refusal
        return self._at_limit


class KnownAnswer(Answer):
    """An answer that is there at once."""

    def __init__(self, refusal: Refusal | None) -> None:
        self._refusal = refusal

    @override
    def wait(self, deadline: float) -> Refusal | None:
        return self._refusal


class ReadinessCheck(Readiness):
    """Calls `is_ready` of a model object in this process.

    Parameters
    ----------
    model
        The initialised object. `is_ready` is looked up at each call.
    instance_name
        For texts.
    namespace
        Of the instance, for imports by name.
    describe
        Gives Triton's text of an exception.
    loop
        Runs an `async def is_ready`.
    """

    def __init__(
        self,
        model: Any,
        instance_name: str,
        *,
        namespace: ModuleNamespace,
        describe: Callable[[BaseException], str],
        loop: InstanceLoop,
    ) -> None:
        self._model = model
        self._instance_name = instance_name
        self._namespace = namespace
        self._describe = describe
        self._loop = loop
        self._lock = threading.Lock()
        self._call: _Call | None = None
        self._is_closed = False
        self._has_overrun = False

    @override
    def ask(self) -> Answer:
        with self._lock:
            if self._is_closed:
                return KnownAnswer(CLOSED)
            if self._call is not None:
                return _CallAnswer(self._call, SHARED_TIMED_OUT)
            call = _Call()
            call.thread = threading.Thread(
                target=self._serve,
                args=(call,),
                name=f"{self._instance_name}-is_ready",
                daemon=True,
            )
            try:
                call.thread.start()
            except RuntimeError as error:  # no more threads to be had
                return KnownAnswer(Refusal(str(error), InternalError, error))
            self._call = call
            return _CallAnswer(call, TIMED_OUT)

    def _serve(self, call: _Call) -> None:
        with self._lock:
            if self._is_closed:
                return
            model = self._model
        refusal = self._refusal_of(model, call.deadline)
        with self._lock:
            is_open = not self._is_closed
            if is_open:
                self._call = None
        if is_open:  # else `close` has answered
            call.end(refusal)
        # The frames of an exception reach this one: no cycle shall keep the model in memory.
        del model, call, refusal

    def _refusal_of(self, model: Any, deadline: float) -> Refusal | None:
        try:
            with self._namespace.active():
                is_ready = model.is_ready()
                if inspect.iscoroutine(is_ready):
                    is_ready = self._loop.run(_limited(is_ready, deadline))
        except _LimitPassedError:
            self._has_overrun = True
            return TIMED_OUT
        except BaseException as error:
            return Refusal(self._describe(error), InternalError, error)
        if type(is_ready) is not bool:
            return _NO_BOOL
        if is_ready:
            return None
        return Refusal(f"Model '{self._instance_name}' is not ready (user-defined check failed).")

    def close(self) -> float | None:
        """Make no more calls, and answer all who wait for one.

        Coroutines end when the loop is stopped, for which the caller should allow as many
        seconds as this returns, or any number if None. `join` waits for what else still runs.
        """
        with self._lock:
            self._is_closed = True
            self._model = None
            call = self._call
        if call is None:
            # A cancelled coroutine may have left something that does not end, such as a thread.
            return LIMIT_S if self._has_overrun else None
        call.end(CLOSED)
        return max(_GRACE_S, call.deadline - time.monotonic())

    def join(self) -> None:
        """Wait for the call in flight, which `finalize` shall not meet; but only to its limit."""
        call, self._call = self._call, None
        if call is None or call.thread is None or call.thread is threading.current_thread():
            return
        call.thread.join(max(_GRACE_S, call.deadline - time.monotonic()))


class _LimitPassedError(Exception):
    """A coroutine was cancelled for taking too long."""


async def _limited(coroutine: Coroutine[Any, Any, Any], deadline: float) -> Any:
    import asyncio

    limit = asyncio.timeout(deadline - time.monotonic())
    try:
        async with limit:
            return await coroutine
    except TimeoutError as error:
        if limit.expired():
            raise _LimitPassedError from error
        raise  # the model's own


class VersionReadiness:
    """Asks the instances of a model version that can be asked.

    Parameters
    ----------
    model_name, version
        For texts.
    instances
        With their names, of which several may be the same.
    """

    def __init__(
        self, model_name: str, version: int, instances: Iterable[tuple[str, Readiness]]
    ) -> None:
        self._model_name = model_name
        self._version = version
        self._instances = list(instances)
        self._lock = threading.Lock()
        self._reasons: list[str | None] = [None] * len(self._instances)

    def ask(self) -> list[Answer]:
        """Begin to ask all; gives what `errors` takes."""
        return [instance.ask() for _, instance in self._instances]

    def errors(self, answers: list[Answer], deadline: float) -> list[TritonError]:
        """Wait for the answers; one error per instance that is not ready."""
        errors = []
        for index, answer in enumerate(answers):
            name = self._instances[index][0]
            refusal = answer.wait(deadline)
            self._note(index, refusal)
            if refusal is not None:
                error = refusal.kind(refusal.text, model=self._model_name)
                error.__cause__ = refusal.cause
                error.add_note(
                    f"instance '{name}' of model '{self._model_name}' version {self._version}"
                )
                errors.append(error)
        return errors

    def _note(self, index: int, refusal: Refusal | None) -> None:
        """Log a reason when it is a new one: probes come every few seconds."""
        if refusal is CLOSED:
            return
        reason = None if refusal is None else refusal.text
        with self._lock:
            if self._reasons[index] == reason:
                return
            self._reasons[index] = reason
        name = self._instances[index][0]
        if reason is None:
            _log.info("instance '%s' of model '%s' is ready again", name, self._model_name)
        else:
            _log.warning(
                "instance '%s' of model '%s' is not ready: %s", name, self._model_name, reason
            )


def why_not_ready(versions: Iterable[VersionReadiness]) -> list[TritonError]:
    """Ask versions side by side; one error per instance that is not ready within the limit."""
    deadline = time.monotonic() + LIMIT_S
    asked = [(version, version.ask()) for version in versions]
    return [error for version, answers in asked for error in version.errors(answers, deadline)]
