"""What coroutines get: calls and responses per second on one event loop, and its wake-ups.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from harness import MODELS, Figures, Report, of, throughput
from trivial import TRIVIAL, thread_instance, trivial_execute

import pytriton_lite as ptl

TOKEN = np.zeros(1, dtype=np.int32)


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread made it run something, which may wake it from a wait."""

    wake_ups = 0

    def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
        """As in the base class."""
        self.wake_ups += 1
        return super().call_soon_threadsafe(*args, **options)


def measured(
    work: Callable[[asyncio.AbstractEventLoop], int],
) -> Iterator[Callable[[], Figures]]:
    """Measure of ``per_s``; ``wake_ups`` beside it were counted once, on another loop.

    `work` returns how many calls it made, or how many responses it got.
    """
    counting = CountingLoop()
    number = work(counting)
    counting.close()
    plain = asyncio.new_event_loop()
    timed = throughput(partial(work, plain))
    yield lambda: {**timed(), "wake_ups": counting.wake_ups / number}
    plain.close()


def side_by_side(loop: asyncio.AbstractEventLoop, callers: list[Awaitable[int]]) -> int:
    """Sum of what these coroutines return, which run at the same time."""

    async def all_callers() -> int:
        return sum(await asyncio.gather(*callers))

    return loop.run_until_complete(all_callers())


def calls(report: Report, number: int, least_ratio: float | None = None) -> None:
    """Calls of coroutines, each of which awaits its answer before its next call."""
    count = max(report.count(1_000 if number == 1 else 4_000) // number, 2)

    async def caller(call: Callable[[], Awaitable[object]]) -> int:
        for _ in range(count):
            await call()
        return count

    def work(
        call: Callable[[asyncio.AbstractEventLoop], Awaitable[object]],
        loop: asyncio.AbstractEventLoop,
    ) -> int:
        return side_by_side(loop, [caller(partial(call, loop)) for _ in range(number)])

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with thread_instance() as model:
            yield from measured(partial(work, lambda _: model.async_run(TRIVIAL)))

    @contextmanager
    def wrapped() -> Iterator[Callable[[], Figures]]:
        with trivial_execute() as execute, ThreadPoolExecutor(1) as pool:

            def call(loop: asyncio.AbstractEventLoop) -> Awaitable[object]:
                return asyncio.wrap_future(pool.submit(execute), loop=loop)

            yield from measured(partial(work, call))

    rounds = report.compare({"ours": ours, "wrapped": wrapped}, passes=3)
    name = f"async_run(), {number} coroutine{'s' * (number > 1)}"
    add_both(report, name, rounds["ours"], "asyncio.wrap_future", rounds["wrapped"], least_ratio)


def streams(report: Report, number: int, responses: int) -> None:
    """Responses to coroutines, each of which reads one stream after another."""
    count = max(report.count(2_000 if responses == 1 else 16_000) // number // responses, 2)

    async def reader(read: Callable[[], Awaitable[int]]) -> int:
        return sum([await read() for _ in range(count)])

    def work(read: Callable[[], Awaitable[int]], loop: asyncio.AbstractEventLoop) -> int:
        return side_by_side(loop, [reader(read) for _ in range(number)])

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        inputs = {"COUNT": np.array([responses])}

        async def read() -> int:
            got = 0
            async for _ in model.async_stream(inputs):
                got += 1
            return got

        with ptl.Server(
            MODELS, execution="thread", model_control_mode="explicit", startup_models=["tokens"]
        ) as server:
            model = server["tokens"]
            yield from measured(partial(work, read))

    @contextmanager
    def queued() -> Iterator[Callable[[], Figures]]:
        pb_utils = ptl.pb_utils

        def produce(send: Callable[[object], object]) -> None:
            for _ in range(responses):
                send(pb_utils.InferenceResponse([pb_utils.Tensor("TOKEN", TOKEN)]))
            send(None)

        async def read() -> int:
            queue: asyncio.Queue[object] = asyncio.Queue()
            call_soon = asyncio.get_running_loop().call_soon_threadsafe
            pool.submit(produce, partial(call_soon, queue.put_nowait))
            got = 0
            while await queue.get() is not None:
                got += 1
            return got

        with ThreadPoolExecutor(1) as pool:
            yield from measured(partial(work, read))

    rounds = report.compare({"ours": ours, "queued": queued}, passes=3)
    name = f"async_stream() of {responses}, {number} coroutine{'s' * (number > 1)}"
    add_both(report, name, rounds["ours"], "asyncio.Queue", rounds["queued"])


def add_both(  # noqa: PLR0917 - ours, then the baseline, in the order of `Report.add`
    report: Report,
    name: str,
    ours: list[Figures],
    baseline: str,
    base: list[Figures],
    least_ratio: float | None = None,
) -> None:
    """Rows of the rate and of the wake-ups per call or response."""
    report.add(
        name, "1/s", of(ours, "per_s"),
        baseline=baseline, base=of(base, "per_s"), least_ratio=least_ratio,
    )  # fmt: skip
    report.add(
        f"{name}, each", "wakes", of(ours, "wake_ups"),
        baseline=baseline, base=of(base, "wake_ups"),
    )  # fmt: skip


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of coroutines.")
    calls(report, 1)
    calls(report, 8)
    calls(report, 32, least_ratio=3)
    calls(report, 256)
    for number in (1, 32):
        for responses in (1, 100):
            streams(report, number, responses)
    report.finish()


if __name__ == "__main__":
    main()
