"""What a call costs: inline, through a thread instance, in bulk, and before the first one.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import importlib.util
import queue
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    MODELS,
    Contender,
    Figures,
    Report,
    copy_model,
    in_fresh_interpreter,
    latencies,
    model_object,
    of,
    ready_request,
    throughput,
    tight,
)
from trivial import TRIVIAL, thread_instance, trivial_execute

import pytriton_lite as ptl

A = np.arange(4, dtype=np.float32)
B = np.ones(4, dtype=np.float32)
ADD_SUB = {"INPUT0": A, "INPUT1": B}
UTILS = "triton_python_backend_utils"

Call = Callable[[], object]


def check(outputs: Any) -> None:
    """Raise unless these are the sum and the difference."""
    total, difference = outputs
    assert np.array_equal(total, A + B)
    assert np.array_equal(difference, A - B)


# -- inline ----------------------------------------------------------------------------


def inline_calls(report: Report) -> None:
    """Inline calls against the model's bare `execute`, and against a direct call with the mock."""
    count = report.count(5_000)

    mock_call = mock_caller()

    @contextmanager
    def served(call_of: Callable[[ptl.Server], Call]) -> Iterator[Callable[[], Figures]]:
        with ptl.Server(MODELS, execution="inline") as server:
            yield tight(call_of(server), count)

    def called(server: ptl.Server) -> Call:
        model = server.model("add_sub")
        check(model(ADD_SUB).values())
        return partial(model, ADD_SUB)

    def run(server: ptl.Server) -> Call:
        return partial(server.model("add_sub").run, ADD_SUB)

    def bare(server: ptl.Server) -> Call:
        execute = model_object("add_sub", server.model("add_sub").config()).execute
        request = ready_request(ADD_SUB, "add_sub")
        check([tensor.as_numpy() for tensor in execute([request])[0].output_tensors()])
        return partial(execute, [request])

    def trivial(server: ptl.Server) -> Call:
        return partial(server.model("trivial"), TRIVIAL)

    def bare_trivial(server: ptl.Server) -> Call:
        return partial(model_object("trivial", {}).execute, [ready_request(TRIVIAL, "trivial")])

    @contextmanager
    def mocked() -> Iterator[Callable[[], Figures]]:
        assert mock_call is not None
        yield tight(mock_call, count)

    contenders: dict[str, Contender] = {
        "call": partial(served, called),
        "run": partial(served, run),
        "bare": partial(served, bare),
        "trivial": partial(served, trivial),
        "bare trivial": partial(served, bare_trivial),
    }
    if mock_call is not None:
        contenders["mock"] = mocked
    rounds = report.compare(contenders, passes=9)
    figures = {name: of(values, "ns") for name, values in rounds.items()}
    bare_name = "bare execute()"
    report.add(
        "inline add_sub, model(...)", "ns", figures["call"],
        baseline=bare_name, base=figures["bare"], most_ratio=1.35,
    )  # fmt: skip
    report.add(
        "inline add_sub, model.run(...)", "ns", figures["run"],
        baseline=bare_name, base=figures["bare"],
    )  # fmt: skip
    if mock_call is not None:
        report.add(
            "inline add_sub, model(...) against the mock", "ns", figures["call"],
            baseline="mock called directly", base=figures["mock"], most_ratio=1.3,
        )  # fmt: skip
    else:
        print("(triton-python-backend-mock-utils is not installed: no comparison with it)")
    report.add(
        "inline trivial, model(...)", "ns", figures["trivial"],
        baseline=bare_name, base=figures["bare trivial"],
    )  # fmt: skip


def mock_caller() -> Call | None:
    """Calls add_sub with the mock package's objects, as a unit test would; None without it."""
    if importlib.util.find_spec(UTILS) is None:
        return None
    # Before any server runs, which would answer to that name itself.
    mock = importlib.import_module(UTILS)
    config = {"output": [{"name": f"OUTPUT{i}", "data_type": "TYPE_FP32"} for i in (0, 1)]}
    execute = model_object("add_sub", config).execute

    def call() -> list[np.ndarray]:
        tensors = [mock.Tensor("INPUT0", A), mock.Tensor("INPUT1", B)]
        response = execute([mock.InferenceRequest(tensors, "", [], 0)])[0]
        return [tensor.as_numpy() for tensor in response.output_tensors()]

    check(call())
    return call


# -- thread ----------------------------------------------------------------------------


@contextmanager
def through_our_thread() -> Iterator[Callable[[], Call]]:
    """Makes calls of the trivial model, one for each caller."""
    with thread_instance() as model:
        yield lambda: partial(model, TRIVIAL)


@contextmanager
def through_queue() -> Iterator[Callable[[], Call]]:
    """The same work on a Python thread: `SimpleQueue` there, the caller's `Lock` back."""
    jobs: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()

    def serve() -> None:
        while (job := jobs.get()) is not None:
            job[1] = execute()
            job[0].release()

    def make_call() -> Call:
        done = threading.Lock()
        done.acquire()

        def call() -> object:
            job = [done, None]
            jobs.put(job)
            done.acquire()
            return job[1]

        return call

    with trivial_execute() as execute:
        worker = threading.Thread(target=serve)
        worker.start()
        yield make_call
        jobs.put(None)
        worker.join()


@contextmanager
def through_executor() -> Iterator[Callable[[], Call]]:
    """The same work by ``ThreadPoolExecutor(1).submit().result()``."""
    with trivial_execute() as execute, ThreadPoolExecutor(1) as pool:
        yield lambda: lambda: pool.submit(execute).result()


HANDOFFS = {
    "ours": through_our_thread,
    "queue": through_queue,
    "executor": through_executor,
}


def one_caller(report: Report) -> None:
    """Round trips of one caller through a worker thread."""
    count = report.count(2_000)

    @contextmanager
    def contender(handoff: Any) -> Iterator[Callable[[], Figures]]:
        with handoff() as make_call:
            yield latencies(make_call(), count)

    rounds = report.compare({name: partial(contender, way) for name, way in HANDOFFS.items()})
    for figure, limits in (("p50", {"most": 10, "most_ratio": 0.5}), ("p99", {})):
        report.add(
            f"thread trivial, 1 caller, {figure}", "us", of(rounds["ours"], figure),
            baseline="SimpleQueue + Lock", base=of(rounds["queue"], figure), **limits,
        )  # fmt: skip
    report.add(
        "thread trivial, 1 caller, p50", "us", of(rounds["ours"], "p50"),
        baseline="ThreadPoolExecutor(1)", base=of(rounds["executor"], "p50"),
    )  # fmt: skip


def many_callers(report: Report, callers: int) -> None:
    """Calls per second of several threads that wait for their answers."""
    count = max(report.count(4_000) // callers, 2)

    def work(make_call: Callable[[], Call]) -> int:
        def caller() -> None:
            call = make_call()
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
    def contender(handoff: Any) -> Iterator[Callable[[], Figures]]:
        with handoff() as make_call:
            yield throughput(partial(work, make_call))

    rounds = report.compare(
        {name: partial(contender, way) for name, way in HANDOFFS.items()}, passes=3
    )
    for other, baseline in (("queue", "SimpleQueue + Lock"), ("executor", "ThreadPoolExecutor(1)")):
        report.add(
            f"thread trivial, {callers} callers", "1/s", of(rounds["ours"], "per_s"),
            baseline=baseline, base=of(rounds[other], "per_s"),
        )  # fmt: skip


def in_flight(report: Report, depth: int = 32) -> None:
    """Calls per second of one thread that keeps several futures in flight."""
    count = report.count(4_000)

    def work(submit: Callable[[], Any]) -> int:
        futures: deque[Any] = deque()
        for _ in range(count):
            futures.append(submit())
            if len(futures) == depth:
                futures.popleft().result()
        for future in futures:
            future.result()
        return count

    @contextmanager
    def ours() -> Iterator[Callable[[], Figures]]:
        with thread_instance() as model:
            yield throughput(partial(work, partial(model.submit, TRIVIAL)))

    @contextmanager
    def executor() -> Iterator[Callable[[], Figures]]:
        with trivial_execute() as execute, ThreadPoolExecutor(1) as pool:
            yield throughput(partial(work, partial(pool.submit, execute)))

    rounds = report.compare({"ours": ours, "executor": executor}, passes=3)
    report.add(
        f"thread trivial, submit(), {depth} in flight", "1/s", of(rounds["ours"], "per_s"),
        baseline="ThreadPoolExecutor(1)", base=of(rounds["executor"], "per_s"),
    )  # fmt: skip


# -- before the first call -------------------------------------------------------------

IMPORT = """
import json, time
t0 = time.perf_counter_ns()
import numpy
t1 = time.perf_counter_ns()
import pytriton_lite
t2 = time.perf_counter_ns()
print(json.dumps({"numpy": (t1 - t0) / 1e6, "ours": (t2 - t1) / 1e6}))
"""

# Instances are called once, since an instance that never ran has not touched all of its stack.
MEMORY = """
import json, queue, sys, threading
import numpy as np, pytriton_lite as ptl

def private_kib():
    with open("/proc/self/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))

x = {"INPUT0": np.zeros(1, np.float32)}
count = int(sys.argv[2])
with ptl.Server(
    sys.argv[1], execution="thread", model_control_mode="explicit", startup_models=["one"]
) as server:
    for _ in range(200):
        server.model("one")(x)
    before = private_kib()
    many = server.load("many")
    for future in [many.submit(x) for _ in range(20 * count)]:
        future.result()
    ours = private_kib() - before
    jobs = queue.SimpleQueue()
    before = private_kib()
    threads = [threading.Thread(target=jobs.get, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    bare = private_kib() - before
    print(json.dumps({"ours": ours / 1024 / count, "bare": bare / 1024 / count}))
"""

LOAD = """
import json, pathlib, sys, time, types
import numpy, pytriton_lite as ptl

t0 = time.perf_counter_ns()
server = ptl.Server(sys.argv[1], execution="thread").start()
t1 = time.perf_counter_ns()
for path in pathlib.Path(sys.argv[1]).glob("*/1/model.py"):
    module = types.ModuleType("model")
    exec(compile(path.read_bytes(), path, "exec"), vars(module))
t2 = time.perf_counter_ns()
server.stop()
print(json.dumps({"ours": (t1 - t0) / 1e6, "bare": (t2 - t1) / 1e6}))
"""


def start_up(report: Report, instances: int = 50, models: int = 20) -> None:
    """Import, memory of instances and load, each in fresh interpreters."""
    found: dict[str, list[Figures]] = {"import": [], "memory": [], "load": []}
    with tempfile.TemporaryDirectory() as folder:
        for_memory, for_load = Path(folder, "memory"), Path(folder, "load")
        copy_model("trivial", for_memory, "one")
        copy_model("trivial", for_memory, "many", instances)
        for number in range(models):
            copy_model("add_sub", for_load, f"add_sub_{number}")
        fresh = partial(in_fresh_interpreter, bytecode=str(Path(folder, "bytecode")))
        fresh(IMPORT)
        for _ in range(report.rounds):
            found["import"].append(fresh(IMPORT))
            found["memory"].append(fresh(MEMORY, str(for_memory), str(instances)))
            found["load"].append(fresh(LOAD, str(for_load)))
    report.add(
        "import pytriton_lite", "ms", of(found["import"], "ours"),
        baseline="import numpy, before it", base=of(found["import"], "numpy"), most=50,
    )  # fmt: skip
    report.add(
        f"memory of a thread instance, {instances} of them", "MiB", of(found["memory"], "ours"),
        baseline="thread waiting in SimpleQueue", base=of(found["memory"], "bare"), most=0.5,
    )  # fmt: skip
    report.add(
        f"load of {models} models, thread", "ms", of(found["load"], "ours"),
        baseline="compile and exec of their model.py", base=of(found["load"], "bare"),
    )  # fmt: skip


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of calls.")
    inline_calls(report)
    one_caller(report)
    many_callers(report, 8)
    many_callers(report, 32)
    in_flight(report)
    start_up(report)
    report.finish()


if __name__ == "__main__":
    main()
