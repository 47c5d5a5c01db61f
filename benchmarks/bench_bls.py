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
from harness import MODELS, Contender, Figures, Report, in_turn, of, throughput, tight

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
    """The callee's own call by a client, with ready-made inputs."""

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            yield tight(partial(served[CALLEE], ADD_SUB), count)

    return contender


def own_call(callee: ptl.Model) -> Callable[[], object]:
    """A client's call that does what the caller does around an inner one.

    It makes the request, over the same arrays, and reads both outputs.
    """
    a, b = ADD_SUB.values()

    def call() -> object:
        outputs = callee({"INPUT0": a, "INPUT1": b})
        return [outputs["OUTPUT0"], outputs["OUTPUT1"]]

    return call


def outside_new(execution: str, count: int) -> Contender:
    """The callee's own call by a client who makes each request."""

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            yield tight(own_call(served[CALLEE]), count)

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
            "outside, new": outside_new(execution, count),
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
        baseline="callee's own model({...})", base=figures["outside, new"], most_ratio=1.5,
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
    """What one inner call adds to one call of a client.

    The baseline is what the client adds who calls the callee itself after the same call. Both
    come out of the same loop, in turn: a call that follows other work finds less in the caches
    than one of many calls in a row.
    """
    count = report.count(1_000)

    @contextmanager
    def contender() -> Iterator[Callable[[], Figures]]:
        with models(execution) as served:
            run = served[CALLER].run
            without = partial(run, {}, parameters={"way": "nothing", "count": 1})
            own = own_call(served[CALLEE])

            def beside() -> object:
                without()
                return own()

            inside = partial(run, {}, parameters={"way": "exec", "count": 1})
            yield in_turn({"without": without, "inside": inside, "beside": beside}, count)

    rounds = report.compare({"all": contender})["all"]

    def added(name: str) -> list[float]:
        return [figures[name] - figures["without"] for figures in rounds]

    report.add(
        f"{execution} to {execution}, added to one call, p50", "us", added("inside"),
        baseline="added by model({...}) after it", base=added("beside"), most_ratio=1.5,
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
