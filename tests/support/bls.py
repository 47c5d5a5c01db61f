"""Models that send requests to other models, for tests.

A caller runs the function `act()` of the test's own and keeps what it returns in
`threading.bls.result`, where the test finds it, also if the caller runs in a process of its own.
"""

from __future__ import annotations

import textwrap
import threading
from typing import Any

from tests.support.repository import ECHO_CONFIG

TOOLS = """
import asyncio
import os
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

from tests.support.shared import connect

shared = connect()

def make(model, x=(1, 2), names=("IN",), outputs=(), **details):
    # One float array for each input name.
    tensors = [pb_utils.Tensor(name, np.array(x, np.float32)) for name in names]
    return pb_utils.InferenceRequest(
        model_name=model, inputs=tensors, requested_output_names=list(outputs), **details)

def told(response):
    # An error as (text, name of its code), else the outputs as lists.
    error = response.error()
    if error is not None:
        return error.message(), error.code().name
    return {t.name(): t.as_numpy().tolist() for t in response.output_tensors()}

def ask(*args, **details):
    return told(make(*args, **details).exec())

def all_of(*args, **details):
    return [told(r) for r in make(*args, **details).exec(decoupled=True)]

def answer(request, x):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(x, np.float32))])

def input_of(request):
    return pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
"""

CALLER = """
class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            shared.result = act()
            responses.append(answer(request, input_of(request)))
        return responses
"""

ASYNC_CALLER = CALLER.replace("def execute", "async def execute").replace("act()", "await act()")

DECOUPLED = "model_transaction_policy { decoupled: true }"
DECOUPLED_CONFIG = ECHO_CONFIG + DECOUPLED


def source(body: str = "", methods: str = "") -> str:
    """Source of a model: the tools, then `body`, then a class with `methods` if there are any."""
    text = TOOLS + textwrap.dedent(body)
    if methods:
        text += "\nclass TritonPythonModel:\n" + textwrap.indent(textwrap.dedent(methods), "    ")
    return text


def caller(body: str) -> str:
    """Source of a model that answers what it got, and calls `act` (a coroutine function or not)."""
    is_async = "async def act" in body
    return TOOLS + textwrap.dedent(body) + (ASYNC_CALLER if is_async else CALLER)


def within(limit_s: float, function: Any, *args: Any, **options: Any) -> Any:
    """Result of a call that must end within `limit_s`, however it is stuck."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function(*args, **options))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(limit_s)
    assert not thread.is_alive(), f"not done within {limit_s} s"
    if errors:
        raise errors[0]
    return results[0]
