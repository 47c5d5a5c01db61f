"""The benchmark programs run and state their rows; nothing here judges a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COLUMNS = {
    "name", "value", "best", "unit", "baseline", "baseline_value", "ratio", "ratio_best",
    "target", "is_met",
}  # fmt: skip


def run_quick(program: str, folder: Path) -> dict:
    """Run a program with ``--quick``; what it wrote to its JSON file."""
    result = folder / "result.json"
    command = [sys.executable, str(BENCHMARKS / program), "--quick", "--json", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(result.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("program", "some_rows"),
    [
        (
            "bench_call.py",
            {"inline add_sub, model(...)", "thread trivial, 32 callers", "import pytriton_lite"},
        ),
        (
            "bench_tensor.py",
            {"Tensor(name, array)", "check and wrap 2 inputs", "1 MiB identity thread"},
        ),
        (
            "bench_stream.py",
            {"thread, 1 stream", "thread, 8 streams", "one response a millisecond, p50"},
        ),
        (
            "bench_asyncio.py",
            {"async_run(), 32 coroutines", "async_stream() of 100, 1 coroutine, each"},
        ),
        (
            "bench_batch.py",
            {
                "thread, 32 callers",
                "async_run(), 32 coroutines, average batch",
                "overload, answered, p99",
            },
        ),
        (
            "bench_bls.py",
            {"inline to inline, exec()", "thread to thread, async_exec(), 32 in flight"},
        ),
        (
            "bench_config.py",
            {"parse and validate, config.pbtxt", "JSON for a model", "JSON of an override"},
        ),
        (
            "bench_process.py",
            {
                "add_sub, 1 caller, p50",
                "stream of small responses",
                "SIGKILL to the caller's error",
            },
        ),
        (
            "bench_load.py",
            {"load of 1 model, process, 4 at a time", "import of the stub"},
        ),
        (
            "bench_statistics.py",
            {"count an execution", "response.timings", "model.statistics()"},
        ),
    ],
)
def test_benchmark_writes_rows_with_their_baselines(program, some_rows, tmp_path):
    result = run_quick(program, tmp_path)
    assert {"cpu", "python", "numpy", "pytriton_lite", "commit", "load"} <= set(result["machine"])
    assert result["quick"] is True
    assert some_rows <= {row["name"] for row in result["rows"]}
    for row in result["rows"]:
        assert set(row) == COLUMNS
        assert isinstance(row["value"], float)
        assert row["unit"] in {"ns", "us", "ms", "1/s", "MiB", "sizes", "wakes", "requests"}
        assert (row["baseline"] is None) == (row["ratio"] is None)
        assert (row["target"] is None) == (row["is_met"] is None)
