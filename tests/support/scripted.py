"""Models whose `execute` is a function of the test, in the test's process.

Of a model in a stub, too: see `remote`.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np

from pytriton_lite import pb_utils as real_pb_utils
from tests.support.remote import VARIABLE, Remote, Scripts, StubScript, apply
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder

DECOUPLED = "model_transaction_policy { decoupled: true }\n"
ITERATIVE = "sequence_batching { iterative_sequence: true }\n"
FINAL = real_pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
RESCHEDULE = real_pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE

_SOURCE = """
import triton_python_backend_utils as pb_utils
from tests.support.scripted import find_script

class TritonPythonModel:
    def initialize(self, args):
        self.script = find_script({number}, is_async={is_async})
        self.script.log.append("initialize")

    {kind}def execute(self, requests):
        return {await_}self.script.execute(requests)

    def finalize(self):
        self.script.log.append("finalize")
"""


class Script:
    """What a model does: `execute` may be replaced at any time.

    Attributes
    ----------
    log
        ``initialize`` and ``finalize`` of the instances, and what the test adds.
    """

    by_number: ClassVar[WeakValueDictionary[int, Script]] = WeakValueDictionary()
    _numbers = itertools.count()

    def __init__(self) -> None:
        self.execute: Callable[[list[Any]], Any] = lambda requests: None
        self.log: list[Any] = []
        self.number = next(Script._numbers)
        Script.by_number[self.number] = self

    def write(
        self, repository: RepositoryBuilder, name: str, config: str = "", *, is_async: bool = False
    ) -> None:
        """Write the model, with one float input ``IN``, optional, and one output ``OUT``."""
        source = _SOURCE.format(
            number=self.number, is_async=is_async,
            kind="async " * is_async, await_="await " * is_async,
        )  # fmt: skip
        inputs = ECHO_CONFIG.replace("dims: [ -1 ] }", "dims: [ -1 ] optional: true }", 1)
        repository.model(name, source, config=inputs + config)


def find_script(number: int, *, is_async: bool) -> Any:
    """The script of a model; in a stub what stands for it."""
    script = Script.by_number.get(number)
    if script is None and VARIABLE in os.environ:
        return StubScript(number, is_async=is_async)
    return script


_scripts: list[Scripts] = []


def offer_scripts() -> str:
    """Let models in stubs run the scripts of this process; what `VARIABLE` must say there."""

    def execute(number: int, requests: list[Any]) -> Any:
        outcome = Script.by_number[number].execute(requests)
        return asyncio.run(outcome) if inspect.iscoroutine(outcome) else outcome

    def log(number: int, entry: Any) -> None:
        script = Script.by_number.get(number)
        if script is not None:  # else its test is over
            script.log.append(entry)

    if not _scripts:
        _scripts.append(Scripts(execute, log))
    return _scripts[0].address


class _Utils:
    """`pb_utils` for functions that may have a request of a stub."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real_pb_utils, name)

    def get_input_tensor_by_name(self, request: Any, name: str) -> Any:
        """As that of `pb_utils`."""
        return there(_input_of, request, name)


pb_utils: Any = _Utils()


def _input_of(request: Any, name: str) -> Any:
    return real_pb_utils.get_input_tensor_by_name(request, name)


def there(function: Callable[..., Any], thing: Any, *arguments: Any) -> Any:
    """Call a function with a request, sender or tensor, in the process where that is."""
    if isinstance(thing, Remote):
        return apply(thing, function, *arguments)
    return function(thing, *arguments)


def overwrite(request: Any, value: float) -> None:
    """Write into the array of the input ``IN``; for `there`."""
    _input_of(request, "IN").as_numpy()[:] = value


def response(*values: float) -> Any:
    """A response of model code with the values as ``OUT``."""
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.float32(values))])


def error_response(text: str, code: Any = None) -> Any:
    """An error response of model code."""
    code = pb_utils.TritonError.INTERNAL if code is None else code
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))


def value_of(request: Any) -> float:
    """First element of a request's input."""
    return float(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0])


def start_thread(target: Callable[..., Any], *args: Any) -> threading.Thread:
    """A running daemon thread."""
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def wait_for(condition: Callable[[], object]) -> None:
    """Return when it is true; see `hard_limit`."""
    while not condition():
        time.sleep(0.001)


@contextmanager
def hard_limit(seconds: float) -> Iterator[None]:
    """Fail what takes longer, by an exception on the main thread, which every wait lets through."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
