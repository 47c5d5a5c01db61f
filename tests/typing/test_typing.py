"""What type checkers see: the stubs against the compiled modules, and programs of users."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .cases import program

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = (
    "array",
    "bytes_tensor",
    "calls",
    "contract",
    "dlpack",
    "input_spec",
    "message",
    "queue",
    "reply",
    "tensor",
)
# A tool of developers, and no dependency of the tests.
needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@needs_mypy
@pytest.mark.parametrize("case", ["program.py", "mistakes.py", "scale/1/model.py"])
def test_user_code_passes_mypy_strict(case):
    # Errors in the package itself are the business of the lint run, which covers all of it.
    done = run_python(
        *("-m", "mypy", "--strict", "--config-file", str(HERE / "stubtest.ini")),
        str(HERE / "cases" / case),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mypy
def test_stubs_match_the_compiled_modules():
    done = run_python(
        *("-m", "mypy.stubtest", *(f"pytriton_lite._core.{name}" for name in MODULES)),
        *("--concise", "--mypy-config-file", str(HERE / "stubtest.ini")),
        *("--allowlist", str(HERE / "stubtest_allowlist.txt")),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_compiled_module_has_a_stub():
    core = ROOT / "pytriton_lite" / "_core"
    compiled = {path.stem for path in core.glob("*.pyx")}
    assert compiled == {path.stem for path in core.glob("*.pyi")} == set(MODULES)


def test_the_typed_program_runs():
    # Four elements are not what `run` sends: [1.0, 2.0] are two.
    assert program.main(str(HERE / "cases")) == "2 elements"


def test_the_typed_async_program_runs():
    # By hand: (1 + 1) * 3.
    assert asyncio.run(program.main_async(str(HERE / "cases"))) == 6.0
