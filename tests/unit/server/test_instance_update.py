"""A load that changes nothing but instance groups keeps the instances that it can keep.

What is kept, made and finalized was observed on Triton 2.51 for the same changes of a Python
model. There two instances may get one name, and new ones see the configuration of the first load;
here names differ, and new instances see the new configuration.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model, write_files

Serve = Callable[..., ptl.Server]
ONE = {"IN": np.float32([1])}
PARAMETER = 'parameters { key: "p" value { string_value: "v" } }'

METHODS = """
def note(self, word):
    with open(NOTES, "a") as file:
        print(word, self.name, file=file)

def initialize(self, args):
    self.name = args["model_instance_name"]
    groups = json.loads(args["model_config"])["instance_group"]
    self.count = sum(group["count"] for group in groups)
    self.note("initialize")
    if os.path.exists(NOTES + ".fail") and self.name != "m_0_1":
        raise ValueError("as asked")

def answer(self, x, request):
    return x * 0 + self.count

def finalize(self):
    self.note("finalize")
"""
BODY = """
import json
import os
NOTES = os.path.join(os.path.dirname(__file__), "..", "..", "..", "notes")
"""


class Control:
    """The model `m` and what happens to its instances."""

    def __init__(self, repository: RepositoryBuilder, server: ptl.Server) -> None:
        self.server = server
        self._repository = repository
        self._notes = repository.models.parent / "notes"
        self.take()

    def take(self) -> list[str]:
        """What has happened since the last time, in alphabetical order."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        self._notes.unlink(missing_ok=True)
        return sorted(lines)

    def load(self, groups: str, rest: str = "", files: dict[str, str] | None = None) -> list[str]:
        write_groups(self._repository, groups, rest)
        write_files(self._repository.models / "m", files or {})
        self.server.load("m")
        assert self.server["m"](ONE)["OUT"][0] > 0
        return self.take()

    def fail(self, is_on: bool) -> None:
        path = Path(f"{self._notes}.fail")
        if is_on:
            path.write_text("")
        else:
            path.unlink()


def write_groups(repository: RepositoryBuilder, groups: str, rest: str = "") -> None:
    config = ECHO_CONFIG + "".join(f"instance_group {{ {group} }}\n" for group in groups.split(","))
    repository.model("m", config=config + rest)


@pytest.fixture
def control(
    repository: RepositoryBuilder, serve: Serve, execution: str, request: pytest.FixtureRequest
) -> Control:
    repository.model("m", echo_model(BODY, METHODS))
    write_groups(repository, "count: 1 kind: KIND_CPU")
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    return Control(repository, server)


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def group(name: str, count: int, rest: str = "kind: KIND_CPU") -> str:
    return f'name: "{name}" count: {count} {rest}'


def test_more_and_fewer_instances(control: Control) -> None:
    assert control.load("count: 3 kind: KIND_CPU") == ["initialize m_0_1", "initialize m_0_2"]
    assert control.server["m"].config()["instance_group"][0]["count"] == 3
    # Which ones are kept is a matter of chance on Triton.
    assert control.load("count: 1 kind: KIND_CPU") == ["finalize m_0_1", "finalize m_0_2"]
    assert control.server["m"](ONE)["OUT"].tolist() == [1]
    assert control.load("count: 2 kind: KIND_CPU") == ["initialize m_0_1"]
    assert control.server["m"].config()["instance_group"][0]["count"] == 2
    control.server.unload("m", wait_until_unloaded=True)
    assert control.take() == ["finalize m_0_0", "finalize m_0_1"]


@pytest.mark.parametrize("execution", ["thread"])
def test_what_keeps_instances(control: Control) -> None:
    two = "count: 2 kind: KIND_CPU"
    assert control.load(two) == ["initialize m_0_1"]
    assert control.load(two) == []  # a file that was written anew
    assert control.load(group("g", 2)) == []
    assert control.load(f"{group('g', 1)}, {group('h', 1)}") == []
    assert control.load(group("h", 1)) == ["finalize m_0_1"]
    assert control.load(group("h", 3)) == ["initialize h_1", "initialize h_2"]
    assert control.load(group("h", 3), "version_policy { all { } }") == []
    # Another kind of instance: all are new.
    assert control.load(group("h", 1, "kind: KIND_MODEL")) == [
        "finalize h_1",
        "finalize h_2",
        "finalize m_0_0",
        "initialize h_0",
    ]


@pytest.mark.parametrize("execution", ["thread"])
@pytest.mark.parametrize(
    "change",
    [
        {"rest": PARAMETER},
        {"files": {"note.txt": ""}},
        {"files": {"1/note.txt": ""}},
        {"files": {"data/x": ""}},
    ],
)
def test_what_makes_all_instances_anew(control: Control, change: dict[str, object]) -> None:
    assert control.load("count: 2 kind: KIND_CPU", **change) == [
        "finalize m_0_0",
        "initialize m_0_0",
        "initialize m_0_1",
    ]


def test_a_given_configuration(control: Control) -> None:
    config = control.server["m"].config()
    config["instance_group"][0]["count"] = 2
    control.server.load("m", {"config": json.dumps(config)})
    assert control.take() == ["initialize m_0_1"]
    # It stays in force, since no file has changed.
    control.server.load("m")
    assert control.take() == []
    assert control.server["m"].config()["instance_group"][0]["count"] == 2


def test_a_failing_instance_leaves_the_others(
    control: Control, repository: RepositoryBuilder
) -> None:
    control.fail(True)
    write_groups(repository, "count: 3 kind: KIND_CPU")
    text = (
        r"^load failed for model 'm': version 1 is at READY state: Internal: ValueError: as asked"
    )
    for _ in range(2):
        with pytest.raises(ptl.ModelLoadError, match=text):
            control.server.load("m")
        assert control.take() == ["finalize m_0_1", "initialize m_0_1", "initialize m_0_2"]
    model = control.server["m"]
    assert (model.state, model(ONE)["OUT"].tolist()) == ("READY", [1])
    assert model.config()["instance_group"][0]["count"] == 1
    control.fail(False)
    control.server.load("m")
    assert control.take() == ["initialize m_0_1", "initialize m_0_2"]


def test_another_version_beside_it(control: Control, repository: RepositoryBuilder) -> None:
    repository.model("m", echo_model(BODY, METHODS), version=2)
    rest = "version_policy { all { } }"
    assert control.load("count: 1 kind: KIND_CPU", rest) == ["initialize m_0_0"]
    assert control.server["m"].metadata()["versions"] == ["1", "2"]
    assert control.load("count: 1 kind: KIND_CPU") == ["finalize m_0_0"]
    assert control.server["m"].metadata()["versions"] == ["2"]


def test_a_changed_backend_counts(repository: RepositoryBuilder, serve: Serve) -> None:
    # On Triton it does not, so that instances of one model would run different code.
    def answers(number: int) -> str:
        return echo_model(f"def answer(x, request): return x * 0 + {number}")

    config = ECHO_CONFIG.replace("python", "shared")
    repository.backend("shared", answers(1))
    repository.model("m", config=config)
    server = serve(model_control_mode="explicit", startup_models=["m"])
    repository.backend("shared", answers(200))
    repository.model("m", config=config + "instance_group { count: 2 kind: KIND_CPU }")
    server.load("m")
    assert {float(server["m"](ONE)["OUT"][0]) for _ in range(8)} == {200}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    shared = SimpleNamespace(entered=threading.Semaphore(0), goes_on=threading.Event())
    monkeypatch.setattr(threading, "update_gate", shared, raising=False)
    yield shared
    shared.goes_on.set()


HELD = """
def initialize(self, args):
    self.index = int(args["model_instance_name"][-1])

def answer(self, x, request):
    threading.update_gate.entered.release()
    assert threading.update_gate.goes_on.wait(30)
    return x * 0 + self.index
"""


@pytest.mark.parametrize("execution", ["inline", "thread"])
def test_a_surplus_instance_finishes_its_request(
    repository: RepositoryBuilder, serve: Serve, execution: str, gate: SimpleNamespace
) -> None:
    repository.model("m", echo_model("import threading", HELD))
    write_groups(repository, "count: 2 kind: KIND_CPU")
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    answers: list[float] = []

    def ask() -> None:
        answers.append(float(server["m"](ONE)["OUT"][0]))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    assert gate.entered.acquire(timeout=20)
    assert gate.entered.acquire(timeout=20)
    write_groups(repository, "count: 1 kind: KIND_CPU")
    loading = threading.Thread(target=server.load, args=("m",))
    loading.start()
    until(lambda: len(server._loaded.models.get("m", -1).instances) == 1)
    assert loading.is_alive()  # for it, what it replaces has ended when it returns
    gate.goes_on.set()
    for thread in (*callers, loading):
        thread.join(20)
    # Both had one, and the other two were for the one that stays.
    assert sorted(answers) == [0, 0, 0, 1]


def test_a_process_that_died_is_made_anew(repository: RepositoryBuilder, serve: Serve) -> None:
    body = "import os"
    methods = """
    def answer(self, x, request):
        if x[0] == 13:
            os._exit(1)
        return x * 0 + os.getpid() % 10000
    """
    repository.model("m", echo_model(body, methods))
    write_groups(repository, "count: 1 kind: KIND_CPU")
    server = serve(execution="process", model_control_mode="explicit", startup_models=["m"])
    write_groups(repository, "count: 3 kind: KIND_CPU")
    server.load("m")
    with pytest.raises(ptl.UnavailableError, match="exit"):
        server["m"]({"IN": np.float32([13])})
    write_groups(repository, "count: 1 kind: KIND_CPU")
    server.load("m")
    until(server["m"].ready)
    assert len({float(server["m"](ONE)["OUT"][0]) for _ in range(20)}) == 1
