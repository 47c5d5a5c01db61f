"""Fixtures of the tests of senders, streams and BLS."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.bls import caller, within
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import Script, hard_limit

LIMIT_S = 30


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


@pytest.fixture
def model(serve: Callable[..., ptl.Server], script: Script, execution: str) -> ptl.Model:
    """The model `m`, served in each execution mode."""
    return serve(execution=execution)["m"]


@pytest.fixture
def bls(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """What a test and its models share; they find it in `threading`. A test that hangs ends."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError("the test's time is up")

    shared = SimpleNamespace(gate=threading.Event(), entered=threading.Event(), log=[])
    shared.result = None
    monkeypatch.setattr(threading, "bls", shared, raising=False)
    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    yield shared
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    shared.gate.set()


@pytest.fixture(params=["inline-inline", "inline-thread", "thread-inline", "thread-thread"])
def modes(request: pytest.FixtureRequest) -> dict[str, str]:
    """Execution of `caller` and of all other models, in all combinations."""
    calling, called = request.param.split("-")
    return {"caller": calling, "*": called}


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
