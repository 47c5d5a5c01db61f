"""A model is loaded anew again and again while it is asked: no request fails."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]

# Longer on request: the promise is 30 s.
SECONDS = float(os.environ.get("PYTRITON_LITE_RELOAD_SECONDS", "4"))
CALLERS = 16
PERIOD_S = 0.1
BROKEN = "this is no python"
DECOUPLED = "model_transaction_policy { decoupled: true }"

# Answers by BLS, one after the other in the two ways.
ASKS_M = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    async def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "IN")
            for is_async in (False, True):
                asked = pb_utils.InferenceRequest(
                    model_name="m", inputs=[x], requested_output_names=["OUT"])
                answer = await asked.async_exec() if is_async else asked.exec()
                if answer.has_error():
                    break
            responses.append(answer)
        return responses
"""


def edition(number: int) -> str:
    """A model all elements of whose answers tell the load that made them."""
    return echo_model(f"def answer(x, request): return x * 0 + {number}")


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


class Traffic:
    """Callers that ask until they are told to stop; what they got that is wrong.

    An answer is right if all its elements are one number of an edition that was written by then.
    """

    def __init__(self, server: ptl.Server) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._counts: list[int] = []
        self.written = 0
        self.wrong: list[str] = []
        ways = [self._call, self._run, self._submit, self._stream, self._async, self._bls]
        self._threads = [
            threading.Thread(target=self._work, args=(ways[i % len(ways)], i))
            for i in range(CALLERS)
        ]

    def _work(self, way: Callable[[dict[str, object]], object], number: int) -> None:
        x = {"IN": np.zeros(1 + number, np.float32)}
        count = 0
        while not self._is_over.is_set():
            try:
                found = np.unique(np.asarray(way(x)))
            except Exception as error:
                self.wrong.append(f"{way.__name__}: {type(error).__name__}: {error}")
                continue
            count += 1
            if len(found) != 1 or not 0 <= found[0] <= self.written:
                self.wrong.append(f"{way.__name__}: {found}, of {self.written}")
        self._counts.append(count)

    def _call(self, x: dict[str, object]) -> object:
        return self._server["m"](x)["OUT"]

    def _run(self, x: dict[str, object]) -> object:
        return self._server["m"].run(x, request_id="r")["OUT"]

    def _submit(self, x: dict[str, object]) -> object:
        return self._server["m"].submit(x).result(60)["OUT"]

    def _stream(self, x: dict[str, object]) -> object:
        (response,) = self._server["m"].stream(x)
        return response["OUT"]

    def _async(self, x: dict[str, object]) -> object:
        async def ask() -> list[object]:
            model = self._server["m"]
            asked = [model.async_run(x) for _ in range(4)]
            single = np.unique([(await each)["OUT"] for each in asked])
            async with model.async_stream(x) as responses:
                streamed = [r["OUT"] async for r in responses]
            # The four and the stream may be of different loads.
            assert all(0 <= n <= self.written for n in single)
            return streamed

        return asyncio.run(ask())

    def _bls(self, x: dict[str, object]) -> object:
        return self._server["caller"](x)["OUT"]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        # Each way was gone at all.
        assert self.wrong or min(self._counts) > 0


@pytest.mark.stress
@pytest.mark.parametrize(
    "execution",
    ["inline", "thread", {"caller": "process", "*": "thread"}, "process"],
    ids=["inline", "thread", "process-thread", "process"],
)
def test_reload_under_load(repository: RepositoryBuilder, serve: Serve, execution: Any) -> None:
    repository.model("m", edition(0))
    repository.model("caller", ASKS_M, config=ECHO_CONFIG)
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["*"])
    memory: list[int] = []
    failed = 0
    end = time.monotonic() + SECONDS
    pause = threading.Event()
    with Traffic(server) as traffic:
        # Processes take a second to start on a busy machine.
        while (time.monotonic() < end or traffic.written < 5) and not traffic.wrong:
            number = traffic.written + 1
            is_broken = number % 7 == 3
            traffic.written = number
            repository.model("m", BROKEN if is_broken else edition(number))
            try:
                server.load("m")
            except ptl.ModelLoadError:
                assert is_broken
                failed += 1
            else:
                assert not is_broken
            memory.append(resident_kib())
            pause.wait(PERIOD_S)  # the period of the reloads, not a wait for anything
    gc.collect()
    assert traffic.wrong == []
    assert failed >= 1
    third = len(memory) // 3
    growth = min(memory[-third:]) - max(memory[third : 2 * third])
    # A version left behind would be some 100 KiB.
    assert growth < 2048 + 40 * third, memory


@pytest.mark.stress
def test_streams_while_the_model_is_reloaded(repository: RepositoryBuilder, serve: Serve) -> None:
    def source(number: int) -> str:
        return f"""
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for i in range(5):
                out = pb_utils.Tensor("OUT", np.full(2, {number}, np.float32))
                sender.send(pb_utils.InferenceResponse([out]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""

    repository.model("m", source(0), config=ECHO_CONFIG + DECOUPLED)
    server = serve(model_control_mode="explicit", startup_models=["*"])
    is_over = threading.Event()
    wrong: list[str] = []

    def ask() -> None:
        while not is_over.is_set():
            try:
                found = [float(r["OUT"][0]) for r in server["m"].stream({"IN": np.float32([1])})]
            except ptl.TritonError as error:
                wrong.append(str(error))
                continue
            if len(found) != 5 or len(set(found)) != 1:
                wrong.append(str(found))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(1, 30):
        repository.model("m", source(number), config=ECHO_CONFIG + DECOUPLED)
        server.load("m")
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.stress
@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
def test_instances_come_and_go_under_load(
    repository: RepositoryBuilder, serve: Serve, execution: Any
) -> None:
    repository.model("m", edition(0))
    repository.model("caller", ASKS_M, config=ECHO_CONFIG)
    server = serve(
        execution={"caller": "thread", "*": execution},
        model_control_mode="explicit",
        startup_models=["*"],
    )
    loaded = server._loaded.models.get("m", -1)
    end = time.monotonic() + SECONDS
    rounds = 0
    with Traffic(server) as traffic:
        while (time.monotonic() < end or rounds < 6) and not traffic.wrong:
            rounds += 1
            count = (3, 1, 2, 4, 1)[rounds % 5]
            config = ECHO_CONFIG + f"instance_group {{ count: {count} kind: KIND_CPU }}"
            repository.model("m", config=config)
            server.load("m")
            assert len(loaded.instances) == count
    assert traffic.wrong == []
    # The version was never made anew.
    assert server._loaded.models.get("m", -1) is loaded
    until(lambda: len(loaded._queue.contracts) == len(loaded.instances))
