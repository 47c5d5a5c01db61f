"""What a stream costs: responses per second, and how late a response is.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
from harness import MODELS, Figures, Report, of, throughput

import pytriton_lite as ptl

TOKEN = np.zeros(1, dtype=np.int32)


@contextmanager
def tokens(execution: str = "thread") -> Iterator[ptl.Model]:
    """The model ``tokens`` on a fresh server that has no other."""
    options = {"model_control_mode": "explicit", "startup_models": ["tokens"]}
    with ptl.Server(MODELS, execution=execution, **options) as server:
        yield server["tokens"]


def inputs_of(count: int) -> dict[str, np.ndarray]:
    """Inputs that ask for so many responses."""
    return {"COUNT": np.array([count])}


def make() -> Any:
    """What the model makes for each response."""
    pb_utils = ptl.pb_utils
    return pb_utils.InferenceResponse([pb_utils.Tensor("TOKEN", TOKEN)])


def read(stream: Any) -> int:
    """Read to the end; how many responses there were."""
    count = 0
    for _ in stream:
        count += 1
    return count


def in_threads(work: Callable[[], int], number: int) -> int:
    """Sum of what `work` returns on several threads."""
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(work())) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts)


def through_queue(count: int) -> int:
    """The same objects from one thread to another by a `SimpleQueue`."""
    queue: SimpleQueue[Any] = SimpleQueue()

    def produce() -> None:
        for _ in range(count):
            queue.put(make())
        queue.put(None)

    producer = threading.Thread(target=produce)
    producer.start()
    got = read(iter(queue.get, None))
    producer.join()
    return got


def rates(report: Report, streams: int = 8) -> None:
    """Responses per second."""
    count = report.count(20_000)

    @contextmanager
    def ours(execution: str, number: int = 1) -> Iterator[Callable[[], Figures]]:
        with tokens(execution) as model:
            inputs = inputs_of(count // number)

            def work() -> int:
                return read(model.stream(inputs))

            yield throughput(work if number == 1 else lambda: in_threads(work, number))

    @contextmanager
    def by_coroutine() -> Iterator[Callable[[], Figures]]:
        async def work(model: ptl.Model) -> int:
            got = 0
            async for _ in model.async_stream(inputs_of(count)):
                got += 1
            return got

        loop = asyncio.new_event_loop()
        with tokens() as model:
            yield throughput(lambda: loop.run_until_complete(work(model)))
        loop.close()

    @contextmanager
    def queue(number: int = 1) -> Iterator[Callable[[], Figures]]:
        work = partial(through_queue, count // number)
        yield throughput(work if number == 1 else lambda: in_threads(work, number))

    rounds = report.compare(
        {
            "thread": partial(ours, "thread"),
            "inline": partial(ours, "inline"),
            "coroutine": by_coroutine,
            "streams": partial(ours, "thread", streams),
            "queue": queue,
            "queues": partial(queue, streams),
        }
    )
    one = {"baseline": "SimpleQueue", "base": of(rounds["queue"], "per_s")}
    report.add("thread, 1 stream", "1/s", of(rounds["thread"], "per_s"), least=200_000, **one)
    report.add("inline, 1 stream", "1/s", of(rounds["inline"], "per_s"), **one)
    report.add("thread, read by a coroutine", "1/s", of(rounds["coroutine"], "per_s"), **one)
    report.add(
        f"thread, {streams} streams", "1/s", of(rounds["streams"], "per_s"),
        baseline=f"{streams} SimpleQueue", base=of(rounds["queues"], "per_s"),
    )  # fmt: skip


def latencies(report: Report) -> None:
    """The first response of a stream; and single responses, one a millisecond."""
    count = report.count(500)
    pause = {"COUNT": np.array([count]), "PAUSE": np.array([0.001])}

    def percentiles(times: list[float]) -> Figures:
        times.sort()
        return {"p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100]}

    @contextmanager
    def first() -> Iterator[Callable[[], Figures]]:
        with tokens() as model:
            inputs = inputs_of(1)

            def measure() -> Figures:
                times = []
                for _ in range(count):
                    begin = time.perf_counter_ns()
                    stream = model.stream(inputs)
                    next(stream)
                    times.append((time.perf_counter_ns() - begin) / 1e3)
                    stream.close()
                return percentiles(times)

            yield measure

    @contextmanager
    def single() -> Iterator[Callable[[], Figures]]:
        with tokens() as model:

            def measure() -> Figures:
                times = []
                for response in model.stream(pause):
                    now = time.perf_counter_ns()
                    times.append((now - int(response["SENT"][0])) / 1e3)
                return percentiles(times)

            yield measure

    @contextmanager
    def single_by_queue() -> Iterator[Callable[[], Figures]]:
        def measure() -> Figures:
            queue: SimpleQueue[Any] = SimpleQueue()

            def produce() -> None:
                for _ in range(count):
                    time.sleep(0.001)
                    queue.put(time.perf_counter_ns())
                queue.put(None)

            producer = threading.Thread(target=produce)
            producer.start()
            times = []
            for sent in iter(queue.get, None):
                times.append((time.perf_counter_ns() - sent) / 1e3)
            producer.join()
            return percentiles(times)

        yield measure

    rounds = report.compare({"first": first, "single": single, "queue": single_by_queue}, passes=1)
    for figure in ("p50", "p99"):
        queue = {"baseline": "SimpleQueue", "base": of(rounds["queue"], figure)}
        report.add(f"first response, {figure}", "us", of(rounds["first"], figure), **queue)
        report.add(
            f"one response a millisecond, {figure}", "us", of(rounds["single"], figure), **queue
        )


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of streams.")
    rates(report)
    latencies(report)
    report.finish()


if __name__ == "__main__":
    main()
