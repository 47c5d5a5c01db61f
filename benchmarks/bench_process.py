"""What a call costs whose model runs in a process of its own.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    MODELS,
    Contender,
    Figures,
    Report,
    in_turn,
    latencies,
    of,
    page_aligned,
    throughput,
)
from pipe import STREAM, pipe_peer
from procfs import children, cpu_ns, private_mib, switches

import pytriton_lite as ptl

A = np.arange(4, dtype=np.float32)
B = np.ones(4, dtype=np.float32)
ADD_SUB = {"INPUT0": A, "INPUT1": B}
INPUTS = {"add_sub": ADD_SUB, "trivial": {"INPUT0": np.zeros(1, dtype=np.float32)}}
PIPE = "Pipe + pickle"

Call = Callable[[], object]


@contextmanager
def served(*names: str, share_memory: bool = False) -> Iterator[ptl.Server]:
    """A fresh server with these models, each in a process."""
    with ptl.Server(
        MODELS, execution="process", share_memory=share_memory, model_control_mode="explicit",
        startup_models=list(names),
    ) as server:  # fmt: skip
        yield server


def check(outputs: Any) -> None:
    """Raise unless these are the sum and the difference."""
    assert np.array_equal(outputs["OUTPUT0"], A + B)
    assert np.array_equal(outputs["OUTPUT1"], A - B)


# -- one caller ------------------------------------------------------------------------


def round_trips(report: Report) -> None:
    """One caller that waits for each answer: how long, and what it costs both processes."""
    count = report.count(3_000)

    def measured(call: Call, pid: int) -> Callable[[], Figures]:
        measure = latencies(call, count)
        pids = (os.getpid(), pid)

        def with_costs() -> Figures:
            cpu, switched = cpu_ns(pids), switches(pids)
            figures = measure()
            cpu, switched = cpu_ns(pids) - cpu, switches(pids) - switched
            return {**figures, "cpu": cpu / 1e3 / count, "switches": switched / count}

        return with_costs

    @contextmanager
    def ours(name: str) -> Iterator[Callable[[], Figures]]:
        before = children()
        with served(name) as server:
            (pid,) = children() - before
            model = server.model(name)
            if name == "add_sub":
                check(model(ADD_SUB))
            yield measured(partial(model, INPUTS[name]), pid)

    @contextmanager
    def pipe(name: str) -> Iterator[Callable[[], Figures]]:
        with pipe_peer() as peer:
            if name == "add_sub":
                check(peer.call(ADD_SUB))
            yield measured(partial(peer.call, INPUTS[name]), peer.pid)

    for name in INPUTS:
        limits: dict[str, dict[str, float]] = {}
        if name == "add_sub":
            limits = {
                "p50": {"most": 15, "most_ratio": 0.25},
                "cpu": {"most": 35},
                "switches": {"most": 3},
            }
        rounds = report.compare({"ours": partial(ours, name), "pipe": partial(pipe, name)})
        for figure, unit in (("p50", "us"), ("p99", "us"), ("cpu", "us"), ("switches", "wakes")):
            text = {"cpu": "processor time of both", "switches": "context switches of both"}
            report.add(
                f"{name}, 1 caller, {text.get(figure, figure)}", unit, of(rounds["ours"], figure),
                baseline=PIPE, base=of(rounds["pipe"], figure), **limits.get(figure, {}),
            )  # fmt: skip


def beside_triton(report: Report, oracle_file: str) -> None:
    """The same on a real Triton, by its own statistics: `success` is what a request took in it."""
    spec = importlib.util.spec_from_file_location("oracle", oracle_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    count = report.count(2_000)
    inputs = [
        {"name": name, "shape": [4], "datatype": "FP32", "data": array.tolist()}
        for name, array in ADD_SUB.items()
    ]
    body = json.dumps({"inputs": inputs})

    @contextmanager
    def triton() -> Iterator[Callable[[], Figures]]:
        options = ["--model-control-mode=explicit", "--load-model=add_sub"]
        with module.Oracle(models=str(MODELS), args=options) as running:
            connection = http.client.HTTPConnection(running.http)

            def ask(method: str, path: str, data: str | None = None) -> Any:
                connection.request(method, f"/v2/models/add_sub/{path}", data)
                with connection.getresponse() as response:
                    return json.loads(response.read())

            def success() -> dict[str, int]:
                return ask("GET", "stats")["model_stats"][0]["inference_stats"]["success"]

            def measure() -> Figures:
                before = success()
                for _ in range(count):
                    ask("POST", "infer", body)
                after = success()
                assert int(after["count"]) - int(before["count"]) == count
                return {"p50": (int(after["ns"]) - int(before["ns"])) / count / 1e3}

            while "outputs" not in ask("POST", "infer", body):
                time.sleep(0.05)  # it answers before its models are loaded
            measure()
            yield measure
            connection.close()

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with served("add_sub") as server:
            yield latencies(partial(server.model("add_sub"), ADD_SUB), count)

    rounds = report.compare({"ours": ours, "triton": triton}, passes=3)
    report.add(
        "add_sub, 1 caller, p50", "us", of(rounds["ours"], "p50"),
        baseline="Triton, mean of its success time", base=of(rounds["triton"], "p50"),
        most_ratio=0.2,
    )  # fmt: skip


# -- many at once ----------------------------------------------------------------------


def in_flight(report: Report, depth: int = 32) -> None:
    """Calls per second of one thread that keeps several in flight."""
    count = report.count(10_000)

    @contextmanager
    def ours(name: str) -> Iterator[Callable[[], Figures]]:
        with served(name) as server:
            submit = partial(server.model(name).submit, INPUTS[name])

            def work() -> int:
                futures: deque[Any] = deque()
                for _ in range(count):
                    futures.append(submit())
                    if len(futures) == depth:
                        futures.popleft().result()
                for future in futures:
                    future.result()
                return count

            work()
            yield throughput(work)

    @contextmanager
    def pipe(name: str) -> Iterator[Callable[[], Figures]]:
        with pipe_peer() as peer:

            def work() -> int:
                for number in range(count):
                    peer.end.send(INPUTS[name])
                    if number >= depth:
                        peer.end.recv()
                for _ in range(min(depth, count)):
                    peer.end.recv()
                return count

            work()
            yield throughput(work)

    for name in ("trivial", "add_sub"):
        contenders = {"ours": partial(ours, name), "pipe": partial(pipe, name)}
        rounds = report.compare(contenders, passes=3)
        report.add(
            f"{name}, submit(), {depth} in flight", "1/s", of(rounds["ours"], "per_s"),
            baseline=PIPE, base=of(rounds["pipe"], "per_s"),
            least=100_000 if name == "trivial" else None,
        )  # fmt: skip


def in_threads(work: Call, number: int) -> None:
    """Run `work` on several threads at once."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def many_callers(report: Report, callers: int) -> None:
    """Calls per second of several threads that wait for their answers."""
    count = max(report.count(8_000) // callers, 2)

    def rate(call: Call) -> Callable[[], Figures]:
        def calls() -> None:
            for _ in range(count):
                call()

        def work() -> int:
            in_threads(calls, callers)
            return callers * count

        work()
        return throughput(work)

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with served("add_sub") as server:
            yield rate(partial(server.model("add_sub"), ADD_SUB))

    @contextmanager
    def pipe() -> Iterator[Callable[[], Figures]]:
        lock = threading.Lock()
        with pipe_peer() as peer:

            def call() -> object:
                with lock:
                    return peer.call(ADD_SUB)

            yield rate(call)

    rounds = report.compare({"ours": ours, "pipe": pipe}, passes=3)
    report.add(
        f"add_sub, {callers} callers", "1/s", of(rounds["ours"], "per_s"),
        baseline=f"{PIPE}, Lock", base=of(rounds["pipe"], "per_s"),
    )  # fmt: skip


def callers(report: Report) -> None:
    """A few and many of them."""
    many_callers(report, 8)
    many_callers(report, 32)


def add_sub(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model computes, for a pool's process."""
    a, b = inputs["INPUT0"], inputs["INPUT1"]
    return {"OUTPUT0": (a + b).astype(np.float32), "OUTPUT1": (a - b).astype(np.float32)}


def coroutines(report: Report, number: int = 32) -> None:
    """Calls per second of coroutines that wait for their answers."""
    count = max(report.count(8_000) // number, 2)

    @contextmanager
    def rate(call: Callable[[], Any]) -> Iterator[Callable[[], Figures]]:
        async def one() -> None:
            for _ in range(count):
                await call()

        async def all_of_them() -> None:
            await asyncio.gather(*(one() for _ in range(number)))

        def work() -> int:
            asyncio.run(all_of_them())
            return number * count

        work()
        yield throughput(work)

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with (
            served("add_sub") as server,
            rate(partial(server.model("add_sub").async_run, ADD_SUB)) as measure,
        ):
            yield measure

    @contextmanager
    def pool() -> Iterator[Callable[[], Figures]]:
        with ProcessPoolExecutor(1, get_context("spawn")) as executor:

            def call() -> Any:
                return asyncio.wrap_future(executor.submit(add_sub, ADD_SUB))

            with rate(call) as measure:
                yield measure

    rounds = report.compare({"ours": ours, "pool": pool}, passes=3)
    report.add(
        f"add_sub, async_run(), {number} coroutines", "1/s", of(rounds["ours"], "per_s"),
        baseline="ProcessPoolExecutor(1)", base=of(rounds["pool"], "per_s"),
    )  # fmt: skip


def streams(report: Report, number: int = 8) -> None:
    """Small responses per second of a decoupled model."""
    count = report.count(20_000)

    def read(stream: Iterator[Any]) -> int:
        return sum(1 for _ in stream)

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with served("tokens") as server:
            model, inputs = server.model("tokens"), {"COUNT": np.array([count])}
            assert read(model.stream(inputs)) == count
            yield throughput(lambda: read(model.stream(inputs)))

    @contextmanager
    def several() -> Iterator[Callable[[], Figures]]:
        with served("tokens") as server:
            model, inputs = server.model("tokens"), {"COUNT": np.array([count // number])}

            def work() -> int:
                in_threads(lambda: read(model.stream(inputs)), number)
                return count // number * number

            work()
            yield throughput(work)

    @contextmanager
    def pipe() -> Iterator[Callable[[], Figures]]:
        with pipe_peer() as peer:

            def work() -> int:
                peer.end.send((STREAM, count))
                return read(iter(peer.end.recv, None))

            work()
            yield throughput(work)

    rounds = report.compare({"ours": ours, "several": several, "pipe": pipe})
    base = of(rounds["pipe"], "per_s")
    report.add(
        "stream of small responses", "1/s", of(rounds["ours"], "per_s"),
        baseline=PIPE, base=base, least=200_000,
    )  # fmt: skip
    report.add(
        f"{number} streams of small responses", "1/s", of(rounds["several"], "per_s"),
        baseline=PIPE, base=base,
    )  # fmt: skip


# -- sizes -----------------------------------------------------------------------------


def sizes(report: Report) -> None:
    """Identity of large tensors against a copy between touched buffers."""
    for mib in (1,) if report.quick else (1, 16, 64):
        size = mib << 20
        count = max(report.count((1 << 30) // size), 8)
        source = page_aligned(size)

        @contextmanager
        def memcpy(
            source: np.ndarray = source, count: int = count
        ) -> Iterator[Callable[[], Figures]]:
            yield latencies(partial(np.copyto, page_aligned(source.size), source), count)

        @contextmanager
        def identity(
            is_ours: bool, share_memory: bool, source: np.ndarray = source, count: int = count
        ) -> Iterator[Callable[[], Figures]]:
            with served("identity", share_memory=share_memory) as server:
                array = source
                if is_ours:
                    array = server.empty(source.shape, source.dtype)
                    array[:] = source
                yield latencies(partial(server.model("identity"), {"INPUT0": array}), count)

        contenders: dict[str, Contender] = {
            "memcpy": memcpy,
            "plain": partial(identity, False, False),
            "empty": partial(identity, True, False),
            "shared": partial(identity, True, True),
        }
        rounds = report.compare(contenders, passes=3)
        for name, label, limits in (
            ("plain", "", {"most_ratio": 1.5}),
            ("empty", " of server.empty()", {}),
            ("shared", " of server.empty(), share_memory", {"most": 50}),
        ):
            report.add(
                f"{mib} MiB identity{label}", "us", of(rounds[name], "p50"),
                baseline="warm np.copyto", base=of(rounds["memcpy"], "p50"),
                **(limits if mib == 64 else {}),
            )  # fmt: skip


# -- models that call models -----------------------------------------------------------


def inner_calls(report: Report) -> None:
    """What a call of another process's model adds to one call."""
    count = report.count(1_000)

    @contextmanager
    def both() -> Iterator[Callable[[], Figures]]:
        with served("bls", "add_sub") as server:
            run, callee = server.model("bls").run, server.model("add_sub")
            yield in_turn(
                {
                    "without": partial(run, {}, parameters={"way": "nothing", "count": 1}),
                    "inside": partial(run, {}, parameters={"way": "exec", "count": 1}),
                    "callee": partial(callee, ADD_SUB),
                },
                count,
            )

    try:
        with served("bls", "add_sub") as server:
            server.model("bls").run({}, parameters={"way": "exec", "count": 1})
    except ptl.TritonError as error:
        print(f"(no calls from model to model: {str(error).splitlines()[0]})")
        return
    rounds = report.compare({"both": both})["both"]
    report.add(
        "process to process, added to one call, p50", "us",
        [figures["inside"] - figures["without"] for figures in rounds],
        baseline="callee's own model(...)", base=of(rounds, "callee"), most_ratio=2.5,
    )  # fmt: skip


# -- death and memory ------------------------------------------------------------------


def deaths(report: Report) -> None:
    """From SIGKILL to the error of the caller who waits."""

    @contextmanager
    def killed(call: Call, pid: int) -> Iterator[Callable[[], Figures]]:
        def measure() -> Figures:
            ended = []

            def wait() -> None:
                try:
                    call()
                except (ptl.UnavailableError, EOFError, ConnectionError):
                    ended.append(time.perf_counter_ns())

            caller = threading.Thread(target=wait)
            caller.start()
            time.sleep(0.1)  # it is to wait in the kernel, which cannot be seen from here
            begin = time.perf_counter_ns()
            os.kill(pid, signal.SIGKILL)
            caller.join()
            return {"ms": (ended[0] - begin) / 1e6}

        yield measure

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        before = children()
        with served("wait") as server:
            (pid,) = children() - before
            with killed(partial(server.model("wait"), {}), pid) as measure:
                yield measure

    @contextmanager
    def pipe() -> Iterator[Callable[[], Figures]]:
        with pipe_peer() as peer, killed(peer.end.recv, peer.pid) as measure:
            yield measure

    # Once in a life.
    figures: dict[str, list[float]] = {"ours": [], "pipe": []}
    for _ in range(report.rounds):
        for name, contender in (("ours", ours), ("pipe", pipe)):
            with contender() as measure:
                figures[name].append(measure()["ms"])
    report.add(
        "SIGKILL to the caller's error", "ms", figures["ours"],
        baseline=f"{PIPE}, EOFError", base=figures["pipe"],
    )  # fmt: skip


WAITING = "import sys, numpy; print(flush=True); sys.stdin.read()"


def memory(report: Report, number: int = 4) -> None:
    """Private memory of processes that have answered, and what they add to the server's own."""
    found: dict[str, list[float]] = {"stub": [], "server": [], "bare": []}
    for _ in range(report.rounds):
        before = children()
        with ExitStack() as stack:
            one = stack.enter_context(served("add_sub"))
            one.model("add_sub")(ADD_SUB)
            first, own = children() - before, private_mib(os.getpid())
            for _ in range(number - 1):
                stack.enter_context(served("add_sub")).model("add_sub")(ADD_SUB)
            stubs = children() - before
            assert len(stubs) == number
            found["stub"].append(sum(map(private_mib, stubs)) / number)
            added = max(private_mib(os.getpid()) - own, 0.0)
            found["server"].append(added / len(stubs - first))
        with ExitStack() as stack:
            bare = [_waiting(stack) for _ in range(number)]
            found["bare"].append(sum(map(private_mib, bare)) / number)
    base = {"baseline": "interpreter with NumPy", "base": found["bare"]}
    report.add(f"private memory of a stub, {number} of them", "MiB", found["stub"], **base, most=17)
    beyond = [stub - bare for stub, bare in zip(found["stub"], found["bare"], strict=True)]
    report.add("..., beyond an interpreter with NumPy", "MiB", beyond)
    report.add("..., what it adds to the server's process", "MiB", found["server"])


def _waiting(stack: ExitStack) -> int:
    process = stack.enter_context(
        subprocess.Popen(
            [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process.pid


def main() -> None:
    """Run all, or the parts that are named."""
    parts: dict[str, Callable[[Report], None]] = {
        "calls": round_trips,
        "in_flight": in_flight,
        "callers": callers,
        "coroutines": coroutines,
        "streams": streams,
        "sizes": sizes,
        "inner": inner_calls,
        "deaths": deaths,
        "memory": memory,
    }
    report = Report.from_command_line(
        "Benchmarks of processes.",
        {
            "--triton": "Python file with a class Oracle that runs a real Triton; see README.md",
            "--part": f"only this: {', '.join(parts)}",
        },
    )
    # Killed processes are reported there, as they should.
    logging.getLogger("pytriton_lite").addHandler(logging.NullHandler())
    for name, part in parts.items():
        if report.given["part"] in (None, name):
            part(report)
    if report.given["triton"] is not None:
        beside_triton(report, str(Path(report.given["triton"])))
    report.finish()


if __name__ == "__main__":
    main()
