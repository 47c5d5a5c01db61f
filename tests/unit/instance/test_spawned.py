"""Child processes that model code starts by ``spawn`` and ``forkserver`` know its modules.

On Triton they do, since they get the stub's `sys.path` and import by the same names. Each case
is a script, because such a child imports the main script again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import RepositoryBuilder

CONFIG = """
backend: "python"
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] } ]
parameters { key: "method" value { string_value: "METHOD" } }
"""

MODEL = """
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import triton_python_backend_utils as pb_utils
from utils.work import Job, look, work

class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.method = config["parameters"]["method"]["string_value"]

    def execute(self, requests):
        context = multiprocessing.get_context(self.method)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            job = pool.submit(work, Job(4), self.method).result(20)
            assert type(job) is Job
            found = {"number": job.number, **pool.submit(look).result(20)}
        text = np.array([json.dumps(found)], object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)])]
"""

WORK = """
import multiprocessing
from dataclasses import dataclass

@dataclass
class Job:
    number: int

def work(job, method):
    "In a child, which asks a child of its own."
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=multiply, args=(job, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()

def multiply(job, pipe):
    from utils.more import FACTOR
    pipe.send(Job(job.number * FACTOR))

def look():
    import model
    import triton_python_backend_utils as pb_utils
    try:
        import c_python_backend_utils
    except ModuleNotFoundError as error:
        native = str(error)
    names = [n for n in ("ModelConfig", "Tensor", "InferenceRequest") if hasattr(pb_utils, n)]
    return {"native": native, "names": names, "model": hasattr(model, "TritonPythonModel")}
"""

SCRIPT = """
import glob, json, sys, tempfile
import numpy as np
import pytriton_lite as ptl

def folders():
    return glob.glob("pytriton_lite*", root_dir=tempfile.gettempdir())

if __name__ == "__main__":
    path = list(sys.path)
    with ptl.Server(sys.argv[1], execution=sys.argv[2]) as server:
        quiet = sys.path == path and not folders()
        found = {n: json.loads(server[n]({}, timeout_s=20)["OUT"][0]) for n in ("a", "b")}
        lent = len(folders())
    left = folders()
    print(json.dumps([quiet, found, lent, left, sys.path == path]))
"""


@pytest.mark.parametrize("execution", ["thread", "process"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_children_import_the_models_modules(
    repository: RepositoryBuilder, tmp_path: Path, method: str, execution: str
) -> None:
    for name, factor in (("a", 10), ("b", 100)):
        files = {
            "1/utils/__init__.py": "",
            "1/utils/work.py": WORK,
            "1/utils/more.py": f"FACTOR = {factor}",
        }
        config = CONFIG.replace("METHOD", method)
        repository.model(name, textwrap.dedent(MODEL), config=config, files=files)
    quiet, found, lent, left, is_path_restored = run(repository, tmp_path, execution)
    # Names and text: observed in a spawned child of a model on Triton 2.51.
    rest = {
        "native": "No module named 'c_python_backend_utils'",
        "names": ["ModelConfig"],
        "model": True,
    }
    assert found == {"a": {"number": 40, **rest}, "b": {"number": 400, **rest}}
    assert quiet, "a server whose models start no children must leave the process as it is"
    # A stub has names of its own, and none to lend.
    assert lent == (execution == "thread")
    assert left == []
    assert is_path_restored


def run(repository: RepositoryBuilder, folder: Path, execution: str) -> list[Any]:
    """Run SCRIPT with a temporary folder of its own; what it printed."""
    script, temporary = folder / "script.py", folder / "temporary"
    script.write_text(SCRIPT)
    temporary.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(temporary),
    }
    done = subprocess.run(
        [sys.executable, str(script), str(repository.models), execution],
        capture_output=True, text=True, timeout=50, check=False, env=environment,
    )  # fmt: skip
    assert done.stdout, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result
