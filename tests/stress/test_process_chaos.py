"""Stubs are killed all the time: every call ends, every answer is right, and nothing is left.

Ten seconds, or as many as PYTRITON_LITE_CHAOS_SECONDS says.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core.tensor import live_tensor_count
from pytriton_lite._instance import process
from pytriton_lite._ipc.backoff import Backoff
from tests.support.limits import until, within
from tests.support.processes import (
    children_of,
    mapped_segments,
    open_files,
    opened_since,
    resident_bytes,
)
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

pytestmark = pytest.mark.stress

SECONDS = float(os.environ.get("PYTRITON_LITE_CHAOS_SECONDS", "10"))
CALLERS = 16
KILL_EVERY_S = 0.05
# A call may have to wait for its turn behind many starts of processes; hanging is something else.
PATIENCE_S = 60

CONFIG = """
backend: "python"
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "PID" data_type: TYPE_INT64 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {count} }} ]
{more}
"""
DECOUPLED = "model_transaction_policy { decoupled: true }"
BATCHING = """
max_batch_size: 8
dynamic_batching { max_queue_delay_microseconds: 500 preserve_ordering: true }
"""

TOOLS = """
import os
import time
import numpy as np
import triton_python_backend_utils as pb_utils

PID = np.array([os.getpid()])

def answer(x):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x), pb_utils.Tensor("PID", PID)])
"""

DOUBLE = """
class TritonPythonModel:
    def execute(self, requests):
        request, = requests
        x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if x[0] % 7 == 0:
            time.sleep(0.02)  # long enough to be killed in, or given up
        if x[0] % 5 == 0:
            sender = request.get_response_sender()
            sender.send(answer(2 * x), pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return None
        return [answer(2 * x)]
"""

BATCH = """
class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(r, "IN").as_numpy() for r in requests]
        if any(x[0, 0] % 7 == 0 for x in inputs):
            time.sleep(0.02)
        return [answer(2 * x) for x in inputs]
"""

# As many responses as the input's first number says, each with its own number added.
DRIP = """
class TritonPythonModel:
    def execute(self, requests):
        request, = requests
        x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        sender = request.get_response_sender()
        for n in range(int(x[0])):
            if request.is_cancelled():
                break
            sender.send(answer(x + np.float32(n)))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with hard_limit(int(SECONDS + 3 * PATIENCE_S)):
        yield


class Chaos:
    """What callers and the killer share."""

    def __init__(self, server: ptl.Server, seed: int) -> None:
        self.double = server["double"]
        self.drip = server["drip"]
        self.batch = server["batch"]
        self.seed = seed
        self.ends = threading.Event()
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.alive: set[int] = set()  # processes that have just answered
        self.kills = 0

    def count(self, what: str) -> None:
        with self.lock:
            self.outcomes[what] += 1

    def check(self, response: ptl.InferenceResponse, expected: np.ndarray) -> None:
        np.testing.assert_array_equal(response["OUT"], expected)
        self.alive.add(int(response["PID"][0]))

    def call_for_ever(self, number: int) -> None:
        rng = random.Random(self.seed + number)
        actions = [
            self.run, self.submit, self.cancel, self.time_out, self.stream, self.break_off,
            self.batched, self.batched_ahead,
        ]  # fmt: skip
        try:
            while not self.ends.is_set():
                action = rng.choice(actions)
                try:
                    action(rng)
                except ptl.UnavailableError as error:
                    if "the process of instance" not in str(error):
                        raise
                    self.count(f"{action.__name__}: dead")
                else:
                    self.count(action.__name__)
        except BaseException as error:
            self.failures.append(error)
            self.ends.set()

    def input(self, rng: random.Random) -> np.ndarray:
        # In the record, and in a block of the arena.
        return np.full(rng.choice([1, 16, 4000, 50_000]), rng.randrange(1000), np.float32)

    def run(self, rng: random.Random) -> None:
        x = self.input(rng)
        self.check(self.double.run({"IN": x}, timeout_s=PATIENCE_S), 2 * x)

    def batched(self, rng: random.Random) -> None:
        x = self.input(rng)[None]
        self.check(self.batch.run({"IN": x}, timeout_s=PATIENCE_S), 2 * x)

    def submit(self, rng: random.Random) -> None:
        self.ask_ahead(self.double, [self.input(rng) for _ in range(rng.randrange(1, 40))])

    def batched_ahead(self, rng: random.Random) -> None:
        xs = [
            self.input(rng)[None].repeat(rng.randrange(1, 5), 0) for _ in range(rng.randrange(20))
        ]
        self.ask_ahead(self.batch, xs)

    def ask_ahead(self, model: ptl.Model, xs: list[np.ndarray]) -> None:
        futures = [model.submit({"IN": x}) for x in xs]
        dead: ptl.UnavailableError | None = None
        for x, future in zip(xs, futures, strict=True):
            try:
                self.check(future.result(PATIENCE_S), 2 * x)
            except ptl.UnavailableError as error:
                dead = error
        if dead is not None:
            raise dead

    def cancel(self, rng: random.Random) -> None:
        x = self.input(rng)
        future: Future[Any] = self.double.submit({"IN": x})
        if rng.random() < 0.5:
            self.ends.wait(rng.random() * 0.02)
        if not future.cancel():
            self.check(future.result(PATIENCE_S), 2 * x)
            return
        with pytest.raises((CancelledError, ptl.CancelledError)):
            future.result(PATIENCE_S)

    def time_out(self, rng: random.Random) -> None:
        x = self.input(rng)
        try:
            self.check(self.double.run({"IN": x}, timeout_s=rng.random() * 0.03), 2 * x)
        except ptl.RequestTimeoutError:
            self.count("timed out")

    def stream(self, rng: random.Random) -> None:
        count = rng.choice([0, 1, 5, 300])
        x = np.full(rng.choice([4, 4000]), count, np.float32)
        n = 0
        for response in self.drip.stream({"IN": x}, timeout_s=PATIENCE_S):
            if response.outputs:
                self.check(response, x + np.float32(n))
                n += 1
        assert n == count

    def break_off(self, rng: random.Random) -> None:
        x = np.full(4, 1000, np.float32)
        stream = self.drip.stream({"IN": x}, timeout_s=PATIENCE_S)
        for n, response in enumerate(stream):
            self.check(response, x + np.float32(n))
            if n == 3:
                break
        stream.cancel()

    def kill_for_ever(self) -> None:
        rng = random.Random(self.seed)
        while not self.ends.wait(KILL_EVERY_S):
            # Mostly one that works; else none would ever get so far.
            is_any = rng.random() < 0.1
            candidates = children_of(os.getpid()) if is_any else list(self.alive.copy())
            if not candidates:
                continue
            pid = rng.choice(candidates)
            self.alive.discard(pid)
            # Not one of a process id that is somebody else's by now.
            if pid in children_of(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


def check_memory(server: ptl.Server) -> None:
    """No block of an arena is held for a request that is over."""
    # Stubs give back with what they send next. Each instance has a turn: these take a while.
    for _ in range(2):
        futures = [server["double"].submit({"IN": np.float32([7])}) for _ in range(20)]
        streams = [server["drip"].stream({"IN": np.float32([300])}) for _ in range(12)]
        assert [len(list(stream)) for stream in streams] == [300] * 12
        assert all(future.result(PATIENCE_S)["OUT"].tolist() == [14] for future in futures)
        futures = [server["batch"].submit({"IN": np.float32([[7]])}) for _ in range(160)]
        assert all(future.result(PATIENCE_S)["OUT"].tolist() == [[14]] for future in futures)
    links = [
        instance._stub._link
        for name in ("double", "drip", "batch")
        for instance in server._loaded.models.get(name, 1).instances  # type: ignore[attr-defined]
    ]
    until(lambda: gc.collect() >= 0 and [link.arena.used_blocks for link in links] == [0] * 8)


def test_stubs_are_killed_all_the_time(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A new process at once, however often the last ones died.
    monkeypatch.setattr(process, "Backoff", functools.partial(Backoff, limit_s=0.0))
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    repository.model("double", TOOLS + DOUBLE, config=CONFIG.format(count=4, more=""))
    repository.model("drip", TOOLS + DRIP, config=CONFIG.format(count=2, more=DECOUPLED))
    repository.model("batch", TOOLS + BATCH, config=CONFIG.format(count=2, more=BATCHING))
    files, tensors = open_files(), live_tensor_count()
    server = serve(execution="process")
    chaos = Chaos(server, seed)
    threads = [
        threading.Thread(target=chaos.call_for_ever, args=(n,), daemon=True) for n in range(CALLERS)
    ]
    threads.append(threading.Thread(target=chaos.kill_for_ever, daemon=True))
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    chaos.ends.wait(SECONDS / 2)
    memory = resident_bytes()
    chaos.ends.wait(SECONDS / 2)
    chaos.ends.set()
    end = time.monotonic() + 2 * PATIENCE_S
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    print("ended after", time.monotonic() - begin)
    print(chaos.kills, "kills;", dict(sorted(chaos.outcomes.items())))
    assert not any(thread.is_alive() for thread in threads)
    if chaos.failures:
        raise chaos.failures[0]
    # It has happened what this is about, and all kinds of calls have got through.
    assert chaos.kills > SECONDS / 2
    for action in (
        "run", "submit", "cancel", "time_out", "stream", "break_off", "batched", "batched_ahead",
    ):  # fmt: skip
        assert chaos.outcomes[action] > 0, action
    # The server is as good as new.
    until(server.ready, PATIENCE_S)
    x = np.float32([1])
    assert within(PATIENCE_S, chaos.double.run, {"IN": x})["OUT"].tolist() == [2]
    check_memory(server)
    gc.collect()
    assert resident_bytes() - memory < 64 << 20
    assert len(children_of(os.getpid())) == 8
    until(lambda: gc.collect() >= 0 and mapped_segments() == 8)
    within(PATIENCE_S, server.stop)
    assert children_of(os.getpid()) == []
    until(lambda: gc.collect() >= 0 and mapped_segments() == 0)
    until(lambda: live_tensor_count() <= tensors)
    assert opened_since(files) == []
