from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "batching"


def run(command: str) -> str:
    assert command in (FOLDER / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_command_prints_vectors_errors_and_batches():
    lines = run("python examples/batching/run.py").splitlines()
    assert len(lines) == 6
    assert lines[3] == "[7, 5000] IDS must be within 0 and 999"
    # 24 texts, at most 16 in a batch. The 2 ms of the delay may be over before the end of the hold.
    assert lines[4] == "batch of 16: full"
    assert lines[5] in {"batch of 8: released", "batch of 8: delay over"}


def test_the_models_unit_tests_pass():
    assert "8 passed" in run("python -m pytest examples/batching")
