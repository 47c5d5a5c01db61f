"""Rounds of interleaved measurements, and the table that states them.

A *contender* is a function that returns a context manager: entering makes a fresh instance and
warms it up, the value is a function that measures once and returns its figures, leaving ends
the instance. Within a round every contender of a comparison lives at the same time and is
measured several times in turn (A B C A B C); its figures of the round are the medians of those.
A ratio is taken inside a round, so that a busy machine slows both sides of it; what is reported
is the median over the rounds.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import pytriton_lite

MODELS = Path(__file__).parent / "models"

Figures = dict[str, float]
Contender = Callable[[], AbstractContextManager[Callable[[], Figures]]]
Rounds = dict[str, list[Figures]]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    value, best
        Median and best of the rounds' figures, in `unit`; of a rate, and of
        a number of requests in a batch, the best is the greatest.
    baseline, baseline_value
        Who it is compared to, and the median of its figures.
    ratio, ratio_best
        Median and best of the rounds' ratios, value to baseline.
    target, is_met
        As text; None when the row has none. The check uses the medians.
    """

    name: str
    value: float
    best: float
    unit: str
    baseline: str | None = None
    baseline_value: float | None = None
    ratio: float | None = None
    ratio_best: float | None = None
    target: str | None = None
    is_met: bool | None = None


@dataclass(slots=True)
class Report:
    """Command line, rounds and rows of one benchmark program."""

    description: str
    quick: bool = False
    rounds: int = 9
    json_file: str | None = None
    rows: list[Row] = field(default_factory=list)
    given: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def from_command_line(cls, description: str, options: Mapping[str, str] = {}) -> Report:
        """Read ``--rounds``, ``--quick``, ``--json`` and `options`, which are name to help."""
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        parser.add_argument("--rounds", type=int, default=9, help="fresh instances (default 9)")
        parser.add_argument(
            "--quick", action="store_true", help="a few seconds; figures mean little"
        )
        parser.add_argument("--json", metavar="FILE", help="write machine and rows there")
        for name, text in options.items():
            parser.add_argument(name, help=text)
        given = parser.parse_args()
        report = cls(description, given.quick, 2 if given.quick else given.rounds, given.json)
        report.given = {name[2:]: getattr(given, name[2:]) for name in options}
        print("  ".join(f"{key}: {value}" for key, value in machine().items()), flush=True)
        return report

    def count(self, calls: int) -> int:
        """Number of calls to measure: fewer of them with ``--quick``."""
        return max(calls // 50, 2) if self.quick else calls

    def compare(self, contenders: Mapping[str, Contender], *, passes: int = 5) -> Rounds:
        """Measure contenders against each other; figures by name, one entry a round."""
        rounds: Rounds = {name: [] for name in contenders}
        names = list(contenders)
        for number in range(self.rounds):
            with ExitStack() as stack:
                order = names if number % 2 == 0 else names[::-1]
                measures = {name: stack.enter_context(contenders[name]()) for name in order}
                seen: Rounds = {name: [] for name in names}
                for _ in range(1 if self.quick else passes):
                    for name, measure in measures.items():
                        seen[name].append(measure())
            for name, figures in seen.items():
                keys = figures[0]
                rounds[name].append({key: median(f[key] for f in figures) for key in keys})
            gc.collect()
        return rounds

    def add(
        self,
        name: str,
        unit: str,
        values: Sequence[float],
        *,
        baseline: str | None = None,
        base: Sequence[float] = (),
        most: float | None = None,
        least: float | None = None,
        most_ratio: float | None = None,
        least_ratio: float | None = None,
    ) -> None:
        """Add a row and print it; the four limits are its target."""
        ratios = [value / other for value, other in zip(values, base, strict=True)] if base else []
        ratio = median(ratios) if ratios else None
        value = median(values)
        wanted = []
        if most_ratio is not None and ratio is not None:
            wanted.append((f"<= {most_ratio:g} x", ratio <= most_ratio))
        if least_ratio is not None and ratio is not None:
            wanted.append((f">= {least_ratio:g} x", ratio >= least_ratio))
        if most is not None:
            wanted.append((f"<= {most:g} {unit}", value <= most))
        if least is not None:
            wanted.append((f">= {least:,.0f} {unit}", value >= least))
        best = max if unit.endswith("/s") or unit == "requests" else min
        row = Row(
            name, value, best(values), unit, baseline, median(base) if base else None, ratio,
            best(ratios) if ratios else None,
            " and ".join(text for text, _ in wanted) or None,
            all(is_met for _, is_met in wanted) if wanted else None,
        )  # fmt: skip
        if not self.rows:
            print(_LINE.format("", "median", "best", "unit", "ratio", "best", "baseline", "target"))
        self.rows.append(row)
        print(_formatted(row), flush=True)

    def finish(self) -> None:
        """Write the JSON file, if one was asked for."""
        print("load average at the end:", *(f"{load:.1f}" for load in os.getloadavg()))
        if self.json_file is not None:
            rows = [asdict(row) for row in self.rows]
            result = {
                "machine": machine(),
                "rounds": self.rounds,
                "quick": self.quick,
                "rows": rows,
            }
            Path(self.json_file).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


_LINE = "{:46} {:>10} {:>10} {:7} {:>6} {:>6}  {:34} {}"


def _formatted(row: Row) -> str:
    def number(value: float | None, digits: int = 4) -> str:
        if value is None:
            return ""
        return f"{value:,.0f}" if value >= 1000 else f"{value:.{digits}g}"

    baseline = "" if row.baseline is None else f"{number(row.baseline_value)} {row.baseline}"
    verdict = "" if row.target is None else f"{row.target}: {'met' if row.is_met else 'NOT MET'}"
    return _LINE.format(
        row.name, number(row.value), number(row.best), row.unit,
        number(row.ratio, 3), number(row.ratio_best, 3), baseline, verdict,
    ).rstrip()  # fmt: skip


def of(rounds: list[Figures], figure: str) -> list[float]:
    """One figure of a contender over the rounds."""
    return [figures[figure] for figures in rounds]


def tight(call: Callable[[], object], count: int) -> Callable[[], Figures]:
    """Measure of ``ns`` per call in a loop of `count` calls, each near the clock's own cost."""

    def measure() -> Figures:
        begin = time.perf_counter_ns()
        for _ in repeat(None, count):
            call()
        return {"ns": (time.perf_counter_ns() - begin) / count}

    call()
    measure()
    return measure


def latencies(call: Callable[[], object], count: int) -> Callable[[], Figures]:
    """Measure of the percentiles ``p50`` and ``p99``, in microseconds, of `count` single calls."""
    clock = time.perf_counter_ns

    def measure() -> Figures:
        times = []
        for _ in repeat(None, count):
            begin = clock()
            call()
            times.append(clock() - begin)
        times.sort()
        return {"p50": times[count // 2] / 1e3, "p99": times[count * 99 // 100] / 1e3}

    measure()
    return measure


def in_turn(calls: Mapping[str, Callable[[], object]], count: int) -> Callable[[], Figures]:
    """Measure of the medians, in microseconds, of `count` calls of each, one of each in turn."""
    clock = time.perf_counter_ns

    def measure() -> Figures:
        times: dict[str, list[int]] = {name: [] for name in calls}
        for _ in repeat(None, count):
            for name, call in calls.items():
                begin = clock()
                call()
                times[name].append(clock() - begin)
        return {name: median(taken) / 1e3 for name, taken in times.items()}

    measure()
    return measure


def throughput(work: Callable[[], int]) -> Callable[[], Figures]:
    """Measure of ``per_s`` of `work`, which returns how many calls it made."""

    def measure() -> Figures:
        begin = time.perf_counter_ns()
        return {"per_s": work() / (time.perf_counter_ns() - begin) * 1e9}

    measure()
    return measure


def page_aligned(size: int) -> np.ndarray:
    """Touched bytes that begin on a page.

    Some processors copy ten times slower between two addresses that differ by a little modulo
    the page size, as neighbours on the heap do; the baseline is not to depend on that.
    """
    raw = np.ones(size + 4096, dtype=np.uint8)
    begin = -raw.ctypes.data % 4096
    return raw[begin : begin + size]


def copy_model(name: str, repository: Path, new_name: str, instances: int = 1) -> None:
    """Copy of a model here, under another name and with a number of instances."""
    target = repository / new_name
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(MODELS / name, target, ignore=ignored)
    config = target / "config.pbtxt"
    text = config.read_text(encoding="utf-8")
    text = text.replace("kind: KIND_CPU", f"kind: KIND_CPU count: {instances}")
    config.write_text(text, encoding="utf-8")


def model_object(name: str, config: Mapping[str, Any]) -> Any:
    """`TritonPythonModel` object of a model here, made by hand.

    Its `triton_python_backend_utils` is what that name imports now: ours while a server runs,
    else a package that is installed under it.
    """
    path = MODELS / name / "1" / "model.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    if hasattr(model, "initialize"):
        model.initialize({"model_config": json.dumps(config)})
    return model


def ready_request(names: Mapping[str, np.ndarray], model_name: str) -> Any:
    """A pb request over ready-made tensors, as model code would build it."""
    return pytriton_lite.pb_utils.InferenceRequest(
        inputs=[pytriton_lite.pb_utils.Tensor(name, array) for name, array in names.items()],
        requested_output_names=["OUTPUT0", "OUTPUT1"],
        model_name=model_name,
    )


def in_fresh_interpreter(code: str, *arguments: str, bytecode: str | None = None) -> Figures:
    """Run `code` in a new interpreter; it prints one JSON object.

    With `bytecode`, a folder, modules are compiled on the first run only, as after an
    installation, whatever the environment says about ``.pyc`` files.
    """
    environment = dict(os.environ)
    if bytecode is not None:
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "cpu": f"{len(os.sched_getaffinity(0))} x {cpu}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pytriton_lite": pytriton_lite.__version__,
        "commit": commit,
        "load": [round(load, 1) for load in os.getloadavg()],
    }
