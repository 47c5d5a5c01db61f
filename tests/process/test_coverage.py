"""Model code in stubs counts under `coverage run`: every stub ends as a Python program does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder

SOURCE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config  # counts

    def initialize(self, args):
        self.answers = []  # counts

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]  # counts

    def finalize(self):
        self.answers = None  # counts

    def never(self):
        return 1
"""

SCRIPT = """
import sys
import pytriton_lite as ptl
with ptl.Server(sys.argv[1], execution="process") as server:
    server["m"]({})
"""


def test_lines_of_all_stages(repository: RepositoryBuilder, tmp_path: Path) -> None:
    repository.model("m", SOURCE, config='backend: "python"\n')
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "rc").write_text(
        f"[run]\npatch = subprocess\nparallel = true\nsource = {repository.models}\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    environment["PYTHONPATH"] = str(Path(ptl.__file__).parents[1])
    for arguments in (
        ["run", "script.py", str(repository.models)],
        ["combine"],
        ["json", "-o", "found.json"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "coverage", *arguments[:1], "--rcfile=rc", *arguments[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads((tmp_path / "found.json").read_text())["files"].values()
    lines = SOURCE.splitlines()
    counted = {n for n, line in enumerate(lines, 1) if line.endswith("# counts")}
    assert counted <= set(found["executed_lines"])
    assert found["missing_lines"] == [lines.index("        return 1") + 1]
