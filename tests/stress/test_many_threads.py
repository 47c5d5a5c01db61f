"""Many threads on several instances: every answer right, nothing left behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

THREADS, REQUESTS = 32, 10_000


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.stress
def test_32_threads_on_4_instances(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], execution: str
) -> None:
    body = """
    def answer(x, request):
        if x[0] % 100 == 99:
            raise ValueError("as asked")
        return x * 2
    """
    config = ECHO_CONFIG + "instance_group [ { count: 4 } ]"
    repository.model("m", echo_model(body), config=config)
    model = serve(execution=execution)["m"]
    wrong: list[str] = []

    def work(number: int, requests: int) -> None:
        for i in range(requests):
            x = np.float32([i, number])
            try:
                out = model({"IN": x}, timeout_s=60)["OUT"]
            except ptl.InternalError as error:
                if i % 100 != 99 or "as asked" not in str(error):
                    wrong.append(f"{number}/{i}: {error}")
            else:
                if i % 100 == 99 or out.tolist() != [2 * i, 2 * number]:
                    wrong.append(f"{number}/{i}: {out}")

    def run_all(requests: int) -> None:
        threads = [threading.Thread(target=work, args=(n, requests)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run_all(200)  # thread stacks and caches reach their size
    gc.collect()
    tensors, threads, memory = live_tensor_count(), threading.active_count(), resident_kib()
    run_all(REQUESTS)
    gc.collect()
    assert wrong == []
    # An idle instance keeps nothing of its last request.
    assert live_tensor_count() <= tensors
    assert threading.active_count() == threads
    # 320,000 requests: a leak of 100 bytes each would be 31 MiB.
    assert resident_kib() - memory < 16 * 1024


@pytest.mark.stress
def test_repeated_loads_leave_nothing(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server]
) -> None:
    repository.backend(
        "b", "import utils.big\n" + echo_model(), files={"utils/big.py": "BIG = bytes(1 << 20)"}
    )
    repository.model("m", config=ECHO_CONFIG.replace("python", "b"))
    server = serve(model_control_mode="explicit")

    def cycle(count: int) -> None:
        for _ in range(count):
            server.load("m")({"IN": np.float32([1])})
            server.unload("m", wait_until_unloaded=True)
        gc.collect()

    cycle(20)
    descriptors, memory = len(os.listdir("/proc/self/fd")), resident_kib()
    cycle(100)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert resident_kib() - memory < 50 * 1024  # a leak of each load would be more than 100 MiB
