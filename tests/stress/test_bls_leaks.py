"""100,000 BLS calls of all kinds leave nothing behind."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.bls import DECOUPLED_CONFIG, source
from tests.support.repository import RepositoryBuilder

SYNC, STREAMED, FAILED, ASYNC = 50_000, 15_000, 10_000, 25_000

CALLER = """
class TritonPythonModel:
    def execute(self, requests):
        sync, streamed, failed, concurrent = (int(n) for n in input_of(requests[0]))
        for n in range(sync):
            assert ask("echo", [n]) == {"OUT": [n]}
        for n in range(streamed):
            responses = make("dec").exec(decoupled=True)
            if n % 10 == 0:
                next(responses)  # and the rest is dropped
            elif n % 10 > 1:
                assert [told(r) for r in responses] == [{"OUT": [1]}, {}]
        for n in range(failed):
            if n % 3 == 0:
                assert "boom" in ask("echo", [-1])[0]
            else:
                model, names = (("absent", ["IN"]), ("echo", []))[n % 3 - 1]
                assert make(model, names=names).exec().has_error()
        return self.concurrently(requests[0], concurrent)

    async def concurrently(self, request, count):
        async def one(count):
            for n in range(count):
                x = -1 if n % 10 == 9 else n
                assert (await make("echo", [x]).async_exec()).has_error() == (x < 0)

        await asyncio.gather(*(one(count // 25) for _ in range(25)))
        return [answer(request, [1])]
"""
ECHO = """
def execute(self, requests):
    x = input_of(requests[0])
    if x[0] < 0:
        raise ValueError("boom")
    return [answer(requests[0], x)]
"""
DEC = """
def execute(self, requests):
    sender = requests[0].get_response_sender()
    sender.send(answer(requests[0], [1]))
    sender.send(flags=1)
"""


@pytest.mark.stress
def test_bls_calls_leave_nothing(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], monkeypatch: Any
) -> None:
    monkeypatch.setattr(threading, "bls", SimpleNamespace(), raising=False)
    repository.model("caller", source(CALLER))
    repository.model("echo", source(methods=ECHO))
    repository.model("dec", source(methods=DEC), config=DECOUPLED_CONFIG)
    caller = serve(execution="thread")["caller"]

    def run(*counts: int) -> None:
        out = caller({"IN": np.float32(counts)}, timeout_s=120)["OUT"]
        assert out.tolist() == [1]

    def held() -> tuple[int, int, int]:
        gc.collect()
        return live_tensor_count(), threading.active_count(), len(os.listdir("/proc/self/fd"))

    run(1000, 1000, 1000, 1000)
    before = held()
    blocks = sys.getallocatedblocks()
    run(SYNC, STREAMED, FAILED, ASYNC)
    assert held() == before
    # 100,000 calls: a leak of one object each would be 100,000 blocks.
    assert sys.getallocatedblocks() - blocks < 5_000
