"""`is_ready` of models in stub processes, and what is said of dead instances."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._instance import readiness
from tests.support.process import wait_until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
TWO = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
TIMED_OUT = "Timed out waiting for user-defined is_ready() response"
SHARED_TIMED_OUT = "Timed out waiting for in-flight is_ready() response"

BODY = """
import os, threading, time, asyncio
def answer(x, request):
    return np.float32([os.getpid()])
"""

# Does what the file `state` in the model's folder says.
IS_READY = """
def initialize(self, args):
    self.name = args["model_instance_name"]
    self.calls = 0

def state(self):
    self.calls += 1
    with open(os.path.join(pb_utils.get_model_dir(), "state")) as file:
        return file.read()

{definition} is_ready(self):
    state = self.state()
    if state == "raise":
        raise ValueError("no licence")
    if state == "none":
        return None
    while state == "stuck":
        {pause}
        state = self.state()
    return state != "no" and not (state == "second" and self.name.endswith("_1"))
"""


def why_not(model: ptl.Model) -> ptl.TritonError:
    with pytest.raises(ptl.TritonError) as caught:
        model.ready(raise_on_error=True)
    return caught.value


def states(server: ptl.Server) -> list[tuple[str, str]]:
    return [(entry.state.value, entry.reason) for entry in server.index()]


@pytest.mark.parametrize(
    ("definition", "pause"),
    [("def", "time.sleep(0.01)"), ("async def", "await asyncio.sleep(0.01)")],
)
def test_what_it_returns(
    repository: RepositoryBuilder,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    definition: str,
    pause: str,
) -> None:
    methods = IS_READY.format(definition=definition, pause=pause)
    folder = repository.model("m", echo_model(BODY, methods), config=TWO)

    def put(text: str) -> None:
        (folder / "1" / "new").write_text(text)
        (folder / "1" / "new").rename(folder / "1" / "state")

    put("yes")
    server = serve(execution="process")
    model = server["m"]
    assert model.ready(raise_on_error=True)
    assert server.ready()
    put("no")
    assert not server.ready()
    error = why_not(model)
    assert type(error) is ptl.UnavailableError
    assert str(error) == "Model 'm_0_0' is not ready (user-defined check failed)."
    assert error.__notes__ == ["instance 'm_0_0' of model 'm' version 1"]
    put("second")
    assert str(why_not(model)) == "Model 'm_0_1' is not ready (user-defined check failed)."
    put("none")
    error = why_not(model)
    assert type(error) is ptl.InternalError
    assert str(error) == "is_ready() must return a boolean value"
    put("raise")
    error = why_not(model)
    assert type(error) is ptl.InternalError
    head, _, frames = str(error).partition("\n\nAt:\n")
    assert head == "ValueError: no licence"
    assert frames.rstrip().endswith("): is_ready")
    assert type(error.__cause__) is ValueError
    # Only the server's limit: the stub's own call goes on, and later callers share it.
    put("stuck")
    monkeypatch.setattr(readiness, "LIMIT_S", 0.2)
    assert str(why_not(model)) == TIMED_OUT
    assert str(why_not(model)) == SHARED_TIMED_OUT
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(lambda _: model.ready(), range(8)))
    put("yes")
    wait_until(model.ready)
    # Still shared or asked again, but in no case a question that is left over.
    assert server.ready()


def test_one_of_two_is_dead(repository: RepositoryBuilder, serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    methods = f"""
def initialize(self, args):
    while os.path.exists({str(gate)!r}):
        time.sleep(0.01)

def is_ready(self):
    return True
"""
    repository.model("m", echo_model(BODY, methods), config=TWO)
    server = serve(execution="process")
    model = server["m"]
    assert model.ready()
    gate.touch()
    pid = int(model({"IN": X})["OUT"][0])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not model.ready())
    assert not server.ready()
    error = why_not(model)
    assert type(error) is ptl.UnavailableError
    assert str(error).startswith("the process of instance 'm_0_")
    assert str(error).endswith("' was killed by SIGKILL")
    # The other one serves.
    assert states(server) == [("READY", "")]
    assert int(model({"IN": X})["OUT"][0]) != pid
    gate.unlink()
    wait_until(model.ready)
    assert server.ready()


# Loads only while `gate` is not there, and fails without `licence`.
GATED = """
def initialize(self, args):
    while os.path.exists({gate!r}):
        time.sleep(0.01)
    if not os.path.exists({licence!r}):
        raise ValueError("no licence")
"""


@pytest.fixture
def gated(repository: RepositoryBuilder, serve: Serve, tmp_path: Path) -> SimpleNamespace:
    """A server with the model `m` in a process, and `caller`, which asks whether `m` is ready."""
    gate, licence = tmp_path / "gate", tmp_path / "licence"
    licence.touch()
    methods = GATED.format(gate=str(gate), licence=str(licence))
    repository.model("m", echo_model(BODY, methods))
    asking = """
def answer(x, request):
    return np.float32([pb_utils.is_model_ready("m"), pb_utils.is_model_ready("m", "1")])
"""
    repository.model("caller", echo_model(asking))
    server = serve(execution={"m": "process", "*": "thread"})
    return SimpleNamespace(server=server, model=server["m"], gate=gate, licence=licence)


def pid_of(model: ptl.Model) -> int:
    return int(model({"IN": X})["OUT"][0])


def test_requests_wait_for_the_first_restart(gated: SimpleNamespace) -> None:
    server, model, caller = gated.server, gated.model, gated.server["caller"]
    assert caller({"IN": X})["OUT"].tolist() == [1, 1]
    pid = pid_of(model)
    gated.gate.touch()
    os.kill(pid, signal.SIGKILL)
    death = "the process of instance 'm_0' was killed by SIGKILL"
    wait_until(lambda: not model.ready())
    assert str(why_not(model)) == death
    assert not server.ready()
    assert states(server) == [("READY", ""), ("UNAVAILABLE", death)]
    assert (model.state, caller({"IN": X})["OUT"].tolist()) == ("UNAVAILABLE", [0, 0])
    with ThreadPoolExecutor(1) as pool:
        waiting = [model.submit({"IN": X}), pool.submit(model.run, {"IN": X})]
        gated.gate.unlink()
        pids = {int(np.asarray(w.result(20)["OUT"])[0]) for w in waiting}
    assert len(pids) == 1
    assert pid not in pids
    wait_until(model.ready)
    assert states(server) == [("READY", "")] * 2
    assert server.ready()
    assert model.state == "READY"
    assert caller({"IN": X})["OUT"].tolist() == [1, 1]


def test_requests_are_refused_while_restarts_fail(gated: SimpleNamespace) -> None:
    server, model = gated.server, gated.model
    pid = pid_of(model)
    gated.gate.touch()
    gated.licence.unlink()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not model.ready())
    with ThreadPoolExecutor(1) as pool:
        waiting = [model.submit({"IN": X}), pool.submit(model.run, {"IN": X})]
        gated.gate.unlink()
        errors = [w.exception(20) for w in waiting]
    head = (
        "model 'm' has no instance alive: instance 'm_0' could not be started again: "
        "ValueError: no licence"
    )
    for error in errors:
        assert type(error) is ptl.UnavailableError
        assert str(error).startswith(head)
        assert isinstance(error.__cause__, ptl.InternalError)
    for _ in range(3):
        with pytest.raises(ptl.UnavailableError, match="no licence"):
            model({"IN": X})
        assert isinstance(model.submit({"IN": X}).exception(0), ptl.UnavailableError)
    assert "could not be started again" in str(why_not(model))
    assert not server.ready()
    [_, (state, reason)] = states(server)
    assert state == "UNAVAILABLE"
    assert "no licence" in reason
    refusal = server._loaded.models.get("m", 1)._queue.refusal
    gated.licence.touch()
    wait_until(model.ready)
    # Who is told a moment too late is told the reason all the same.
    assert str(refusal()).startswith(head)
    assert pid_of(model) != pid
    assert states(server) == [("READY", "")] * 2


def test_stop_while_all_are_dead(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    methods = f"""
def initialize(self, args):
    if os.path.exists({str(gate)!r}):
        time.sleep(100)
"""
    repository.model("m", echo_model(BODY, methods))
    server = serve(execution="process", exit_timeout=1)
    model = server["m"]
    gate.touch()
    os.kill(int(model({"IN": X})["OUT"][0]), signal.SIGKILL)
    wait_until(lambda: not model.ready())
    waiting = model.submit({"IN": X})
    server.stop()
    assert isinstance(waiting.exception(0), ptl.UnavailableError)
