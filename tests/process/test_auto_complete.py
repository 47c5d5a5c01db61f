"""`auto_complete_config` in a process of its own that is gone afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder

SOURCE = """
import os
import signal
import sys
import time
import triton_python_backend_utils as pb_utils

def note(what):
    with open(os.path.join(os.path.dirname(pb_utils.get_model_dir()), "notes"), "a") as file:
        file.write(f"{{what}} {{os.getpid()}} ")

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        note("completed")
        {body}
        config.set_max_batch_size(7)
        return config

    def initialize(self, args):
        note("initialized")

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]
"""


def write(repository: RepositoryBuilder, body: str) -> Path:
    return repository.model("m", SOURCE.format(body=body), config='backend: "python"\n')


def notes_of(folder: Path) -> dict[str, int]:
    words = (folder / "notes").read_text().split()
    return {what: int(pid) for what, pid in zip(words[::2], words[1::2], strict=True)}


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # In many containers nobody reaps orphans.
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_another_process_than_the_instance(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its output is shown, and its children end with it."""
    body = """
        print("some words")
        print("some others", end="", file=sys.stderr)
        import atexit, subprocess
        atexit.register(note, "exited")
        child = subprocess.Popen(["sleep", "1000"])
        with open(os.path.join(os.path.dirname(pb_utils.get_model_dir()), "notes"), "a") as file:
            file.write(f"child {child.pid} ")
    """
    folder = write(repository, body.strip())
    server = serve(execution="process")
    assert server["m"].config()["max_batch_size"] == 7
    output = capsys.readouterr()
    assert "[m_auto_complete] some words\n" in output.out
    assert "[m_auto_complete] some others\n" in output.err
    pids = notes_of(folder)
    assert list(pids) == ["completed", "child", "exited", "initialized"]
    assert pids["completed"] == pids["exited"] != pids["initialized"] != os.getpid()
    assert is_gone(pids["completed"])
    assert is_gone(pids["child"])
    assert not is_gone(pids["initialized"])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        # The first two texts are those of 2.51.
        ("raise ValueError('not so')", r"ValueError: not so\n\nAt:\n  /.*model\.py\(16\): auto_"),
        ("return None", "must return a valid pb.ModelConfig object."),
        (
            "os._exit(3)",
            "the process of instance 'm_auto_complete' exited with code 3",
        ),
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            r"'m_auto_complete' was killed by SIGSEGV; its last lines on stderr:\n(.*\n)*"
            r".*model\.py\", line 16 in auto_complete_config",
        ),
        (
            "time.sleep(1000)",
            r"'m_auto_complete' did not load within 1 s and was killed; the stacks of its "
            r"threads at the end:\n(.*\n)*.*model\.py\", line 16 in auto_complete_config",
        ),
    ],
)
def test_failures(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], body: str, text: str
) -> None:
    folder = write(repository, body)
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(execution="process", load_timeout=1)
    (error,) = caught.value.exceptions
    assert isinstance(error, ptl.InternalError)
    assert error.model == "m"
    assert re.search(text, str(error)), str(error)
    pids = notes_of(folder)
    assert list(pids) == ["completed"]
    assert is_gone(pids["completed"])
    if "ValueError" in body:
        assert isinstance(error.__cause__, ValueError)
        assert "model.py" in error.__cause__.__notes__[0]


def test_interpreter_that_does_not_start(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`stub-timeout-seconds`: before any code of the model runs."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    write(repository, "pass")
    with pytest.raises(
        ptl.ModelLoadError, match=r"instance 'm_auto_complete' did not start within 1 s"
    ):
        serve(execution="process", backend_configuration={"python": {"stub-timeout-seconds": "1"}})
