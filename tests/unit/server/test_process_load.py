"""Loads of stub processes that fail in their own ways."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]

STUCK = """
def initialize(self, args):
    import threading
    def inner(depth):
        if depth:
            return inner(depth - 1)
        threading.Event().wait()
    threading.Thread(target=inner, args=(40,), daemon=True).start()
    self.wait_for_ever()

def wait_for_ever(self):
    import threading
    threading.Event().wait()
"""


def failure(serve: Serve, **options: object) -> ptl.TritonError:
    """What is the matter with the one model of the repository."""
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(execution="process", strict_model_config=True, **options)
    (error,) = (
        caught.value.exceptions[0].exceptions
        if isinstance(caught.value.exceptions[0], ptl.ModelLoadError)
        else caught.value.exceptions
    )
    assert type(error) is ptl.InternalError
    assert error.model == "m"
    return error


def test_stuck_in_initialize(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model("def answer(x, request): return x", STUCK))
    text = str(failure(serve, load_timeout=1.0))
    first, *stacks = text.splitlines()
    assert first == (
        "instance 'm_0' did not load within 1 s and was killed; the stacks of its threads at the "
        "end:"
    )
    # Of all threads, whole: more than the last lines of stderr that are kept.
    assert sum(line.endswith(" in inner") for line in stacks) == 41
    (stuck,) = (n for n, line in enumerate(stacks) if line.endswith(" in wait_for_ever"))
    assert "/m/1/model.py" in stacks[stuck]
    assert stacks[stuck + 1].endswith(" in initialize")


@pytest.mark.parametrize(
    ("body", "methods", "expected"),
    [
        (
            "import os, sys\nprint('before', file=sys.stderr)\nos.abort()",
            "pass",
            ["the process of instance 'm_0' was killed by SIGABRT", "before", "model.py"],
        ),
        (
            "import os",
            "def initialize(self, args): os._exit(7)",
            ["the process of instance 'm_0' exited with code 7"],
        ),
        (
            "import sys",
            "def initialize(self, args): sys.exit('no licence')",
            ["SystemExit: no licence\n\nAt:\n", "model.py", "): initialize"],
        ),
        ("import sys\nsys.exit(3)", "pass", ["SystemExit: 3"]),
    ],
)
def test_ends(
    repository: RepositoryBuilder, serve: Serve, body: str, methods: str, expected: list[str]
) -> None:
    repository.model("m", echo_model(body, methods))
    text = str(failure(serve))
    assert text.startswith(expected[0])
    for part in expected[1:]:
        assert part in text


def test_auto_complete_that_crashes(repository: RepositoryBuilder, serve: Serve) -> None:
    methods = """
@staticmethod
def auto_complete_config(config):
    import os
    os.abort()
"""
    repository.model("m", echo_model("def answer(x, request): return x", methods))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(execution="process")
    assert "the process of instance 'm_auto_complete' was killed by SIGABRT" in str(caught.value)


def test_wrong_interpreters(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = repository.model("m", echo_model()) / "config.pbtxt"
    config.write_text(config.read_text() + "instance_group [ { count: 2 } ]")
    no_python = tmp_path / "no_python"
    no_python.write_text("#!/bin/sh\necho what is -P >&2\nexit 2\n")
    for path, expected in (
        (
            "/nowhere/python",
            "the process of instance 'm_0_0' cannot be started with interpreter "
            "'/nowhere/python': No such file or directory",
        ),
        (
            str(no_python),
            "the process of instance 'm_0_0' cannot be started with interpreter "
            f"'{no_python}': Permission denied",
        ),
        (
            str(no_python),
            f"the process of instance 'm_0_0' (interpreter '{no_python}') exited with code 2; its "
            "last lines on stderr:\n    what is -P",
        ),
    ):
        monkeypatch.setattr(sys, "executable", path)
        assert str(failure(serve)) == expected
        no_python.chmod(0o755) if "Permission" in expected else None
