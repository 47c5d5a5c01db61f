"""What it costs to load models whose instances run in processes of their own.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from harness import Figures, Report, copy_model, in_fresh_interpreter, of

# Both in one interpreter, in an order that alternates: files are in the system's cache then.
LOAD = """
import json, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy, pytriton_lite as ptl

folder, execution, count, threads, is_first = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])

def serve():
    begin = time.perf_counter_ns()
    with ptl.Server(folder, execution=execution, model_load_thread_count=threads) as server:
        end = time.perf_counter_ns()
        assert sum(entry.state is ptl.ModelState.READY for entry in server.index()) == count
    return (end - begin) / 1e6

def bare():
    command = [sys.executable, "-P", "-c", "import numpy"]
    begin = time.perf_counter_ns()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda _: subprocess.run(command, check=True), range(count)):
            pass
    return (time.perf_counter_ns() - begin) / 1e6

ways = [("ours", serve), ("bare", bare)]
print(json.dumps({name: way() for name, way in (ways if is_first else ways[::-1])}))
"""

IMPORT = """
import json, sys, time
t0 = time.perf_counter_ns()
import numpy
t1 = time.perf_counter_ns()
import pytriton_lite._instance.stub
t2 = time.perf_counter_ns()
print(json.dumps({"numpy": (t1 - t0) / 1e6, "stub": (t2 - t1) / 1e6}))
"""

NOT_NEEDED = (
    "asyncio",
    "concurrent.futures",
    "google.protobuf",
    "multiprocessing",
    "pytriton_lite.server",
    "subprocess",
    "tempfile",
    "typing_extensions",
)
"""What no stub imports before its model does."""


def loads(report: Report, bytecode: str) -> None:
    """`Server.start` of 1 and of 20 models, and of 20 with other numbers of threads."""
    fresh = partial(in_fresh_interpreter, bytecode=bytecode)
    many = 4 if report.quick else 20
    cases = [(1, "process", 4), (many, "process", 4), (many, "process", 8), (many, "thread", 4)]
    with tempfile.TemporaryDirectory() as folder:
        for count in {1, many}:
            for number in range(count):
                copy_model("add_sub", Path(folder, str(count)), f"add_sub_{number}")
        fresh(LOAD, str(Path(folder, "1")), "process", "1", "4", "1")
        found: dict[tuple[int, str, int], list[Figures]] = {case: [] for case in cases}
        for number in range(report.rounds):
            for case in cases:
                count, execution, threads = case
                order = str(number % 2)
                arguments = (str(Path(folder, str(count))), execution, str(count), str(threads))
                found[case].append(fresh(LOAD, *arguments, order))
    for (count, execution, threads), figures in found.items():
        models = "model" if count == 1 else "models"
        is_target = (execution, threads) == ("process", 4) and count > 1
        report.add(
            f"load of {count} {models}, {execution}, {threads} at a time", "ms",
            of(figures, "ours"),
            baseline=f"{count} x python -c 'import numpy'", base=of(figures, "bare"),
            most_ratio=1.3 if is_target else None,
        )  # fmt: skip


def imports(report: Report, bytecode: str) -> None:
    """What a stub imports before it knows its model."""
    fresh = partial(in_fresh_interpreter, bytecode=bytecode)
    fresh(IMPORT)
    found = [fresh(IMPORT) for _ in range(report.rounds)]
    report.add(
        "import of the stub", "ms", of(found, "stub"),
        baseline="import numpy, before it", base=of(found, "numpy"),
    )  # fmt: skip


def slowest_imports(number: int = 12) -> None:
    """Print where the time of that goes: modules with what they import, in microseconds."""
    code = "import numpy, sys; before = set(sys.modules); import pytriton_lite._instance.stub"
    code += f"; print([name for name in {NOT_NEEDED!r} if name in sys.modules.keys() - before])"
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [line.split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    names = [name.strip() for _, _, name in lines]
    ours = lines[names.index("numpy") + 1 :]
    for _, cumulative, name in sorted(ours, key=lambda line: -int(line[1]))[:number]:
        print(f"    {int(cumulative):>8} {name.rstrip()}")
    print(f"    imported without need: {done.stdout.strip()}")


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of loading.")
    with tempfile.TemporaryDirectory() as bytecode:
        loads(report, bytecode)
        imports(report, bytecode)
    if not report.quick:
        slowest_imports()
    report.finish()


if __name__ == "__main__":
    main()
