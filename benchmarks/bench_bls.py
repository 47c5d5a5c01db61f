"""What one call from a model to another one costs, against the callee's own call.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from harness import MODELS, Contender, Figures, Report, latencies, of, throughput, tight

import pytriton_lite as ptl

ADD_SUB = {"INPUT0": np.arange(4, dtype=np.float32), "INPUT1": np.ones(4, dtype=np.float32)}
CALLER, CALLEE = "bls", "add_sub"


@contextmanager
def models(execution: str) -> Iterator[dict[str, ptl.Model]]:
    """Caller and callee in instances of their own."""
    with ptl.Server(
        MODELS, execution=execution, model_control_mode="explicit",
        startup_models=[CALLER, CALLEE],
    ) as server:  # fmt: skip
        yield {name: server.model(name) for name in (CALLER, CALLEE)}


def outside(execution: str, count: int) -> Contender:
    """The callee's own call by a client."""

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            yield tight(partial(served[CALLEE], ADD_SUB), count)

    return contender


def outside_stream(execution: str, count: int) -> Contender:
    """The same with an iterator."""

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            infer = served[CALLEE].infer
            yield tight(lambda: [r.outputs for r in infer(inputs=ADD_SUB)], count)

    return contender


def inner(execution: str, way: str, count: int) -> Contender:
    """`count` calls of the callee inside of one call of the caller: ``ns`` for each."""

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            call = partial(served[CALLER].run, {}, parameters={"way": way, "count": count})

            def measure() -> Figures:
                begin = time.perf_counter_ns()
                call()
                return {"ns": (time.perf_counter_ns() - begin) / count}

            measure()
            yield measure

    return contender


def one_by_one(report: Report, execution: str) -> None:
    """Inner calls one after another."""
    count = report.count(2_000)
    rounds = report.compare(
        {
            "outside": outside(execution, count),
            "ready": inner(execution, "ready", count),
            "exec": inner(execution, "exec", count),
            "infer": outside_stream(execution, count),
            "stream": inner(execution, "stream", count),
        }
    )
    figures = {name: [ns / 1e3 for ns in of(found, "ns")] for name, found in rounds.items()}
    report.add(
        f"{execution} to {execution}, exec()", "us", figures["ready"],
        baseline="callee's own model(...)", base=figures["outside"], most_ratio=1.5,
    )  # fmt: skip
    report.add(
        f"{execution} to {execution}, new request, exec()", "us", figures["exec"],
        baseline="callee's own model(...)", base=figures["outside"],
    )  # fmt: skip
    report.add(
        f"{execution} to {execution}, exec(decoupled=True)", "us", figures["stream"],
        baseline="callee's own infer(...)", base=figures["infer"],
    )  # fmt: skip


def in_flight(report: Report, execution: str, number: int = 32) -> None:
    """Calls per second of 32 coroutines in the caller, and of as many in a client."""
    count = max(report.count(4_000) // number, 2)

    @contextmanager
    def client() -> Iterator[Callable[[], Figures]]:
        async def one(model: ptl.Model) -> None:
            for _ in range(count):
                await model.async_run(ADD_SUB)

        async def all_of_them(model: ptl.Model) -> None:
            await asyncio.gather(*(one(model) for _ in range(number)))

        loop = asyncio.new_event_loop()
        with models(execution) as served:

            def work() -> int:
                loop.run_until_complete(all_of_them(served[CALLEE]))
                return number * count

            yield throughput(work)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    @contextmanager
    def caller() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            order: dict[str, Any] = {"way": "gather", "count": number * count}
            call = partial(served[CALLER].run, {}, parameters=order)

            def work() -> int:
                call()
                return number * count

            yield throughput(work)

    rounds = report.compare({"caller": caller, "client": client}, passes=3)
    report.add(
        f"{execution} to {execution}, async_exec(), {number} in flight", "1/s",
        of(rounds["caller"], "per_s"),
        baseline="callee's own async_run(...)", base=of(rounds["client"], "per_s"),
    )  # fmt: skip


def whole_calls(report: Report, execution: str) -> None:
    """One client call whose model makes one inner call: what that adds to a call without."""
    count = report.count(1_000)

    @contextmanager
    def contender(way: str) -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            order: dict[str, Any] = {"way": way, "count": 1}
            yield latencies(partial(served[CALLER].run, {}, parameters=order), count)

    @contextmanager
    def callee() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            yield latencies(partial(served[CALLEE], ADD_SUB), count)

    rounds = report.compare(
        {
            "with": partial(contender, "exec"),
            "without": partial(contender, "nothing"),
            "own": callee,
        }
    )
    added = [
        one["p50"] - other["p50"]
        for one, other in zip(rounds["with"], rounds["without"], strict=True)
    ]
    report.add(
        f"{execution} to {execution}, added to one call, p50", "us", added,
        baseline="callee's own model(...)", base=of(rounds["own"], "p50"),
    )  # fmt: skip


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of BLS.")
    one_by_one(report, "inline")
    one_by_one(report, "thread")
    whole_calls(report, "inline")
    whole_calls(report, "thread")
    in_flight(report, "thread")
    report.finish()


if __name__ == "__main__":
    main()
