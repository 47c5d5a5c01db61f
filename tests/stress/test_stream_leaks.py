"""Many streams and senders, half of them broken off: nothing is left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import (
    DECOUPLED,
    FINAL,
    ITERATIVE,
    RESCHEDULE,
    Script,
    error_response,
    hard_limit,
    response,
    start_thread,
    wait_for,
)

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with hard_limit(120):
        yield


class Footprint:
    """What may leak: tensors, memory blocks, threads, descriptors, shared memory."""

    def __init__(self) -> None:
        self.others = self._others()
        # What was broken off last may still be running.
        same = 0
        while same < 10:
            time.sleep(0.02)
            now = self._others()
            same = same + 1 if now == self.others else 0
            self.others = now
        self.blocks = self._blocks()

    @staticmethod
    def _others() -> tuple:
        gc.collect()
        shared = frozenset(os.listdir("/dev/shm"))
        return (
            live_tensor_count(), threading.active_count(), len(os.listdir("/proc/self/fd")), shared,
        )  # fmt: skip

    @staticmethod
    def _blocks() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    def check(self, blocks: int) -> None:
        """Back to the base, with that many blocks of slack, once the model's threads have ended."""
        deadline = time.monotonic() + 20
        while self._others()[:3] != self.others[:3] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self._others()[:3] == self.others[:3]
        assert self._blocks() - self.blocks < blocks


def numbered(requests: list) -> None:
    """As many responses as the first input element says, as fast as they can be sent."""
    for request in requests:
        sender = request.get_response_sender()
        count = int(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0])
        for n in range(count):
            if n % 64 == 0 and sender.is_cancelled():
                break
            sender.send(response(n))
        sender.send(flags=FINAL)


async def numbered_async(requests: list) -> None:
    """The same as a coroutine."""
    await asyncio.sleep(0)
    numbered(requests)


@pytest.mark.stress
@pytest.mark.parametrize("kind", ["thread", "inline", "coroutine"])
def test_streams_leave_nothing(repository: RepositoryBuilder, serve: Serve, kind: str) -> None:
    script = Script()
    script.write(repository, "m", DECOUPLED, is_async=kind == "coroutine")
    script.execute = numbered_async if kind == "coroutine" else numbered
    execution = "inline" if kind == "inline" else "thread"
    model = serve(execution=execution, stream_backlog=64)["m"]
    streams, length = (1_000, 1_000) if kind == "thread" else (150, 500)

    def run(number: int) -> None:
        inputs = {"IN": np.float32([length])}
        for n in range(number):
            stream = model.stream(inputs)
            # Every second one is left after 0, 1, 2, ... responses.
            limit = n // 2 % length if n % 2 else length
            assert len(list(itertools.islice(stream, limit))) == limit
        del stream

    run(40)
    base = Footprint()
    run(streams)
    base.check(2_000)


@pytest.mark.stress
def test_coroutines_that_read_leave_nothing(repository: RepositoryBuilder, serve: Serve) -> None:
    script = Script()
    script.write(repository, "m", DECOUPLED)
    script.execute = numbered
    model = serve(stream_backlog=64)["m"]

    async def read(n: int) -> None:
        seen = 0
        async for _ in model.async_stream({"IN": np.float32([200])}):
            seen += 1
            if n % 2 and seen > n % 100:
                break

    async def run(number: int) -> None:
        for first in range(0, number, 10):
            await asyncio.gather(*(read(first + n) for n in range(10)))

    asyncio.run(run(40))
    base = Footprint()
    asyncio.run(run(400))
    base.check(2_000)


@pytest.mark.stress
def test_senders_in_default_mode_leave_nothing(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    script = Script()
    script.write(repository, "m")

    def execute(requests: list) -> None:
        requests[0].get_response_sender().send(response(1), FINAL)

    script.execute = execute
    model = serve(execution=execution)["m"]

    def run(number: int) -> None:
        for _ in range(number):
            model({"IN": X})

    run(500)
    base = Footprint()
    run(10_000)
    base.check(2_000)


# -- reference cycles ------------------------------------------------------------------


def returned(requests: list) -> Any:
    return [response(1)]


def sent(requests: list) -> None:
    sender = requests[0].get_response_sender()
    sender.send(response(1), FINAL)


def sent_by_a_thread(requests: list) -> None:
    kept = requests[0]
    start_thread(lambda: kept.get_response_sender().send(response(1), FINAL))


def raised(requests: list) -> None:
    requests[0].get_response_sender()
    raise ValueError("boom")


def raised_after_send(requests: list) -> None:
    requests[0].get_response_sender().send(response(1))
    raise ValueError("boom")


def raised_after_final(requests: list) -> None:
    sent(requests)
    raise ValueError("boom")


def dropped(requests: list) -> None:
    requests[0].get_response_sender()


def failed(requests: list) -> None:
    requests[0].get_response_sender().send(error_response("bad"), FINAL)


def rescheduled(requests: list) -> Any:
    if requests[0].flags():
        requests[0].set_release_flags(RESCHEDULE)
        return None
    return sent(requests)


def rescheduled_then_raised(requests: list) -> Any:
    if requests[0].flags():
        requests[0].set_release_flags(RESCHEDULE)
        return None
    raise ValueError("boom")


SCENARIOS = [
    returned, sent, sent_by_a_thread, raised, raised_after_send, raised_after_final, dropped,
    failed, rescheduled, rescheduled_then_raised,
]  # fmt: skip


@pytest.mark.parametrize("mode", ["default", "decoupled"])
@pytest.mark.parametrize("form", ["run", "submit", "stream", "unread", "infer", "async"])
def test_no_cycle_survives(
    repository: RepositoryBuilder, serve: Serve, execution: str, mode: str, form: str
) -> None:
    script = Script()
    for name, config in (("m", ""), ("iterative", ITERATIVE)):
        script.write(repository, name, config + DECOUPLED * (mode == "decoupled"))
    server = serve(execution=execution)
    tensors = live_tensor_count()
    for scenario in SCENARIOS:
        script.execute = scenario
        is_iterative = scenario.__name__.startswith("rescheduled")
        call_all(server["iterative" if is_iterative else "m"], form)
    deadline = time.monotonic() + 10
    while live_tensor_count() > tensors and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.001)
    assert live_tensor_count() <= tensors
    gc.collect()
    kept = (ptl.TritonError, pb_utils.InferenceRequest, pb_utils.InferenceResponse)
    assert [o for o in gc.get_objects() if isinstance(o, kept)] == []
    assert not gc.garbage


def call_all(model: ptl.Model, form: str) -> None:
    async def read() -> None:
        async for _ in model.async_stream({"IN": X}):
            pass

    def call() -> None:
        try:
            if form == "run":
                model.run({"IN": X}, timeout_s=20)
            elif form == "submit":
                model.submit({"IN": X}).result(20)
            elif form == "stream":
                list(model.stream({"IN": X}))
            elif form == "unread":
                stream = model.stream({"IN": X})
                next(stream)
            elif form == "infer":
                list(model.infer(inputs={"IN": X}, raise_on_error=False))
            else:
                asyncio.run(read())
        except (ptl.TritonError, StopIteration):
            pass

    for _ in range(3):
        call()


def test_a_model_that_keeps_its_requests_is_collected_after_the_unload(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    # A request leads to its instance and the model, which leads back to the request.
    script = Script()
    script.write(repository, "m")
    kept: list[Any] = []

    class Model:
        def execute(self, requests: list) -> None:
            kept.append(self)
            self.requests = requests
            self.senders = [r.get_response_sender() for r in requests]
            self.senders[0].send(response(1), FINAL)

    script.execute = Model().execute
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    before = live_tensor_count()
    server["m"]({"IN": X})
    wait_for(lambda: kept)
    kept.clear()
    server.unload("m", wait_until_unloaded=True)
    script.execute = returned
    gc.collect()
    assert live_tensor_count() == before
