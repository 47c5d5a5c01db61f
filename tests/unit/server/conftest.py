"""Fixtures of the tests of senders, streams and BLS."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.bls import caller, within
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import Script, hard_limit
from tests.support.shared import VARIABLE, offered

LIMIT_S = 40


@pytest.fixture
def time_limit() -> Iterator[None]:
    """A test that hangs ends; for use by whole modules."""
    with hard_limit(40):
        yield


@pytest.fixture
def script_config() -> str:
    """What the configuration of `script`'s model has beyond its tensors; modules say their own."""
    return ""


@pytest.fixture
def script(repository: RepositoryBuilder, script_config: str) -> Script:
    """What the model `m` does."""
    script = Script()
    script.write(repository, "m", script_config)
    return script


@pytest.fixture(scope="module")
def stubs_of_scripts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], tuple[ptl.Model, Script]]]:
    """Models in stubs that the tests of a module share, by configuration, and their scripts."""
    served: dict[str, tuple[ptl.Server, Script]] = {}

    def find(config: str) -> tuple[ptl.Model, Script]:
        if config not in served:
            repository = RepositoryBuilder(tmp_path_factory.mktemp("stubs"))
            script = Script()
            script.write(repository, "m", config)
            served[config] = ptl.Server(repository.models, execution="process").start(), script
        server, script = served[config]
        return server["m"], script

    yield find
    for server, _ in served.values():
        server.stop()


@pytest.fixture
def model(
    request: pytest.FixtureRequest, script: Script, script_config: str, execution: str
) -> ptl.Model:
    """The model `m`, served in each execution mode."""
    if execution != "process":
        served: ptl.Model = request.getfixturevalue("serve")(execution=execution)["m"]
        return served
    # To start a process for each test would take longer than the tests.
    shared, stand_in = request.getfixturevalue("stubs_of_scripts")(script_config)
    Script.by_number[stand_in.number] = script
    return shared


@pytest.fixture
def bls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[SimpleNamespace]:
    """What a test and its models share; they find it in `threading`. A test that hangs ends."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the test's time is up")

    shared = SimpleNamespace(gate=threading.Event(), entered=threading.Event(), log=[])
    shared.result = None
    monkeypatch.setattr(threading, "bls", shared, raising=False)
    path = str(tmp_path / "shared")
    monkeypatch.setenv(VARIABLE, path)
    root = str(Path(__file__).parents[3])
    monkeypatch.setenv("PYTHONPATH", root, prepend=os.pathsep)
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    with offered(shared, path):
        yield shared
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        shared.gate.set()


MODES = [
    "inline-inline",
    "inline-thread",
    "thread-inline",
    "thread-thread",
    "process-inline",
    "process-thread",
    "process-process",
]


@pytest.fixture(params=MODES)
def modes(request: pytest.FixtureRequest) -> dict[str, str]:
    """Execution of `caller` and of all other models, in all combinations."""
    calling, called = request.param.split("-")
    if called == "process":  # each takes a while to start: those that most tests call
        return {"caller": calling, "echo": called, "dec": called, "*": "thread"}
    return {"caller": calling, "*": called}


@pytest.fixture
def in_process(modes: dict[str, str]) -> None:
    """For what only models in one process can do or show."""
    if "process" in modes.values():
        pytest.skip("models in processes of their own share no memory with others")


@pytest.fixture
def act(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    bls: SimpleNamespace,
    modes: dict[str, str],
) -> Callable[..., Any]:
    """Start a server whose `caller` runs the function `act` of a text; what that returned."""

    def act(body: str, **options: Any) -> Any:
        repository.model("caller", caller(body))
        server = serve(execution=modes, exit_timeout=5, **options)
        bls.server = server
        within(20, server["caller"], {"IN": np.float32([1, 2])})
        return bls.result

    return act
