"""What the dynamic batcher gives: calls per second, the batches that it forms, and overload.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from os import getpid
from pathlib import Path
from typing import Any

import numpy as np
from batcher import PythonBatcher, python_batcher
from bench_asyncio import side_by_side
from harness import MODELS, Contender, Figures, Report, model_object, of, ready_request
from procfs import private_mib

import pytriton_lite as ptl

INPUTS = {"INPUT0": np.zeros((1, 1), dtype=np.float32)}
PYTHON = "Condition + Future"

Calls = Callable[[], int]
"""Makes many calls; how many."""


@contextmanager
def repository(pause_s: float = 0.0, max_batch: int = 32, policy: str = "") -> Iterator[str]:
    """A repository with the model ``batch``, so configured."""
    with tempfile.TemporaryDirectory() as folder:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(MODELS / "batch", Path(folder, "batch"), ignore=ignored)
        config = Path(folder, "batch", "config.pbtxt")
        text = config.read_text(encoding="utf-8")
        for old, new in (
            ("max_batch_size: 32", f"max_batch_size: {max_batch}"),
            ('string_value: "0"', f'string_value: "{pause_s}"'),
            ("dynamic_batching { }", f"dynamic_batching {{ {policy} }}"),
        ):
            assert old in text
            text = text.replace(old, new)
        config.write_text(text, encoding="utf-8")
        yield folder


@contextmanager
def served(
    execution: str, pause_s: float = 0.0, max_batch: int = 32, policy: str = ""
) -> Iterator[tuple[ptl.Model, Callable[[], int]]]:
    """A fresh instance of the model ``batch``, and how many batches it has executed."""
    with (
        repository(pause_s, max_batch, policy) as folder,
        ptl.Server(folder, execution=execution) as server,
    ):

        def batches() -> int:
            for line in server.metrics().splitlines():
                if line.startswith("nv_inference_exec_count{"):
                    return int(float(line.split()[-1]))
            raise AssertionError("no metric of executions")

        yield server.model("batch"), batches


@contextmanager
def in_python(pause_s: float = 0.0, max_batch: int = 32) -> Iterator[tuple[PythonBatcher, Any]]:
    """A batcher of the model's bare `execute`, and a ready-made request."""
    config = {"parameters": {"pause_s": {"string_value": str(pause_s)}}}
    with ptl.Server(MODELS, model_control_mode="explicit"):
        execute = model_object("batch", config).execute
        with python_batcher(execute, max_batch) as batcher:
            yield batcher, ready_request(INPUTS, "batch")


def rate(work: Calls, batches: Callable[[], int]) -> Callable[[], Figures]:
    """Measure of ``per_s`` and of the average ``batch``."""

    def measure() -> Figures:
        before = batches()
        begin = time.perf_counter_ns()
        calls = work()
        taken = time.perf_counter_ns() - begin
        return {"per_s": calls / taken * 1e9, "batch": calls / (batches() - before)}

    measure()
    return measure


def add_both(
    report: Report, name: str, ours: list[Figures], baseline: str, base: list[Figures], *,
    least_ratio: float | None = None,
) -> None:  # fmt: skip
    """Rows of the rate and of the average batch."""
    report.add(
        name, "1/s", of(ours, "per_s"),
        baseline=baseline, base=of(base, "per_s"), least_ratio=least_ratio,
    )  # fmt: skip
    if "batch" in base[0]:
        report.add(
            f"{name}, average batch", "requests", of(ours, "batch"),
            baseline=baseline, base=of(base, "batch"),
        )  # fmt: skip


# -- callers that wait -------------------------------------------------------------------


def by_threads(call: Callable[[], object], callers: int, count: int) -> int:
    """Call it `count` times on each of several threads."""

    def caller() -> None:
        gate.wait()
        for _ in range(count):
            call()

    gate = threading.Barrier(callers)
    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return callers * count


@contextmanager
def through_triton(command: str, callers: int, count: int) -> Iterator[Callable[[], Figures]]:
    """Triton's C API: a program that calls the model on threads of its own."""
    with (
        repository() as folder,
        subprocess.Popen(
            [*shlex.split(command), folder],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as program,
    ):  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None

        def measure() -> Figures:
            # One input of one float32 and no output; a batch dimension.
            print(f"infer batch 1 0 1 1 {callers} {count}", file=program.stdin, flush=True)
            return {"per_s": json.loads(program.stdout.readline())["per_s"]}

        program.stdout.readline()  # loaded
        measure()
        try:
            yield measure
        finally:
            print("quit", file=program.stdin, flush=True)


def many_callers(
    report: Report, callers: int, *, pause_s: float = 0.0, execution: str = "thread",
    least_ratio: float | None = None,
) -> None:  # fmt: skip
    """Calls per second of threads that wait for their answers."""
    count = max(report.count(2_000 if pause_s else 8_000) // (4 if callers == 1 else callers), 2)

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with served(execution, pause_s) as (model, batches):
            yield rate(partial(by_threads, partial(model, INPUTS), callers, count), batches)

    @contextmanager
    def python() -> Iterator[Callable[[], Figures]]:
        with in_python(pause_s) as (batcher, request):
            work = partial(by_threads, partial(batcher.call, request), callers, count)
            yield rate(work, lambda: batcher.batches)

    contenders: dict[str, Contender] = {"ours": ours, "python": python}
    triton = report.given["triton"] if not pause_s and execution == "thread" else None
    if triton is not None:
        contenders["triton"] = partial(through_triton, triton, callers, count)
    rounds = report.compare(contenders, passes=3)
    name = f"{execution}, {callers} caller{'s' * (callers > 1)}" + ", 1 ms" * bool(pause_s)
    add_both(report, name, rounds["ours"], PYTHON, rounds["python"], least_ratio=least_ratio)
    if triton is not None:
        add_both(
            report, name, rounds["ours"], "Triton, C API", rounds["triton"],
            least_ratio=4 if callers == 32 else None,
        )  # fmt: skip


def callers(report: Report) -> None:
    """One, a few and many of them; a model that takes no time, and one that takes 1 ms."""
    many_callers(report, 1)
    many_callers(report, 8)
    many_callers(report, 32, least_ratio=2.5)
    for number in (1, 8, 32):
        many_callers(report, number, pause_s=1e-3)


def inline(report: Report) -> None:
    """Callers that run the batches themselves."""
    many_callers(report, 1, execution="inline")
    many_callers(report, 32, execution="inline")
    many_callers(report, 32, execution="inline", pause_s=1e-3)


def process(report: Report) -> None:
    """Batches that go to a process."""
    many_callers(report, 1, execution="process")
    many_callers(report, 32, execution="process")
    many_callers(report, 32, execution="process", pause_s=1e-3)


# -- coroutines --------------------------------------------------------------------------


def coroutines(report: Report, number: int = 32, pause_s: float = 0.0) -> None:
    """Calls per second of coroutines, each of which awaits its answer before its next call."""
    count = max(report.count(2_000 if pause_s else 8_000) // number, 2)

    async def caller(call: Callable[[], Awaitable[object]]) -> int:
        for _ in range(count):
            await call()
        return count

    @contextmanager
    def working(call: Callable[[], Awaitable[object]]) -> Iterator[Calls]:
        loop = asyncio.new_event_loop()
        yield lambda: side_by_side(loop, [caller(call) for _ in range(number)])
        loop.close()

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with (
            served("thread", pause_s) as (model, batches),
            working(partial(model.async_run, INPUTS)) as work,
        ):
            yield rate(work, batches)

    @contextmanager
    def python() -> Iterator[Callable[[], Figures]]:
        with (
            in_python(pause_s) as (batcher, request),
            working(lambda: asyncio.wrap_future(batcher.submit(request))) as work,
        ):
            yield rate(work, lambda: batcher.batches)

    @contextmanager
    def pool() -> Iterator[Callable[[], Figures]]:
        executed = 0

        def execute() -> object:
            nonlocal executed
            executed += 1
            return model.execute([request])

        config = {"parameters": {"pause_s": {"string_value": str(pause_s)}}}
        with (
            ptl.Server(MODELS, model_control_mode="explicit"),
            ThreadPoolExecutor(1) as threads,
            working(lambda: asyncio.wrap_future(threads.submit(execute))) as work,
        ):
            model, request = model_object("batch", config), ready_request(INPUTS, "batch")
            yield rate(work, lambda: executed)

    rounds = report.compare({"ours": ours, "python": python, "pool": pool}, passes=3)
    name = f"async_run(), {number} coroutines" + ", 1 ms" * bool(pause_s)
    limit = None if pause_s else 3
    add_both(report, name, rounds["ours"], "wrap_future, pool", rounds["pool"], least_ratio=limit)
    add_both(report, name, rounds["ours"], f"wrap_future, {PYTHON}", rounds["python"])


def async_calls(report: Report) -> None:
    """A model that takes no time, and one that takes 1 ms."""
    coroutines(report)
    coroutines(report, pause_s=1e-3)


# -- more than it can do -----------------------------------------------------------------

MAX_BATCH = 8
PAUSE_S = 0.01
MAX_QUEUE_SIZE = 64
SUSTAINABLE = MAX_BATCH / PAUSE_S  # requests a second, if execute took nothing but its pause
# A request that is accepted as the last one of a full queue waits for the batch that runs and for
# all batches before its own, and is executed.
BOUND_S = PAUSE_S * (1 + MAX_QUEUE_SIZE / MAX_BATCH)


def arrivals(submit: Callable[[Callable[[Any], None]], None], seconds: float) -> Figures:
    """Offer ten times what is sustainable, and look at what was answered meanwhile.

    `submit` takes what is to be called with the future of the request.
    """
    latencies: list[float] = []
    refused: list[float] = []
    offered = 0
    clock = time.perf_counter

    def finished(begin: float, future: Any) -> None:
        (latencies if future.exception() is None else refused).append(clock() - begin)

    begin = clock()
    half = None
    while (now := clock() - begin) < seconds:
        while offered < now * SUSTAINABLE * 10:
            submit(partial(finished, clock()))
            offered += 1
        if half is None and now > seconds / 2:
            half = private_mib(getpid())
        time.sleep(1e-3)
    grown = max(private_mib(getpid()) - (half or 0.0), 0.0)
    answered = sorted(latencies)
    return {
        "p50": answered[len(answered) // 2] * 1e3,
        "p99": answered[len(answered) * 99 // 100] * 1e3,
        "offered": offered / seconds,
        "answered": len(answered) / seconds,
        "grown": grown,
    }


def overload(report: Report) -> None:
    """Ten times the sustainable rate, with and without a limit of the queue."""
    seconds = 0.2 if report.quick else 2.0

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        limit = f"default_queue_policy {{ max_queue_size: {MAX_QUEUE_SIZE} }}"
        with served("thread", PAUSE_S, MAX_BATCH, limit) as (model, _):

            def submit(finished: Callable[[Any], None]) -> None:
                model.submit(INPUTS).add_done_callback(finished)

            yield partial(arrivals, submit, seconds)

    @contextmanager
    def python() -> Iterator[Callable[[], Figures]]:
        with in_python(PAUSE_S, MAX_BATCH) as (batcher, request):

            def submit(finished: Callable[[Any], None]) -> None:
                batcher.submit(request).add_done_callback(finished)

            yield partial(arrivals, submit, seconds)
            batcher.forget()

    rounds = report.compare({"ours": ours, "python": python}, passes=1)
    for figure, unit, text, most in (
        ("p50", "ms", "answered, p50", None),
        ("p99", "ms", "answered, p99", 2 * BOUND_S * 1e3),
        ("offered", "1/s", "offered", None),
        ("answered", "1/s", "answered", None),
    ):
        report.add(
            f"overload, {text}", unit, of(rounds["ours"], figure),
            baseline=f"{PYTHON}, no limit", base=of(rounds["python"], figure), most=most,
        )  # fmt: skip
    for name, who in (("ours", ""), ("python", f", {PYTHON}")):
        report.add(f"overload, memory of its last half{who}", "MiB", of(rounds[name], "grown"))


def main() -> None:
    """Run all, or the parts that are named."""
    parts: dict[str, Callable[[Report], None]] = {
        "callers": callers,
        "inline": inline,
        "process": process,
        "coroutines": async_calls,
        "overload": overload,
    }
    report = Report.from_command_line(
        "Benchmarks of the dynamic batcher.",
        {
            "--triton": "command of a program that calls Triton's C API; see README.md",
            "--part": f"only this: {', '.join(parts)}",
        },
    )
    for name, part in parts.items():
        if report.given["part"] in (None, name):
            part(report)
    report.finish()


if __name__ == "__main__":
    main()
