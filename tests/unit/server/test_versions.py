"""Which folders are versions, and what a load does with several of them.

Expected behaviour was observed on Triton 2.51, or read in its sources; a test says where this
differs.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
ONE = {"IN": np.float32([0])}
ALL = ECHO_CONFIG + "version_policy { all { } }"


def gives(number: int) -> str:
    return echo_model(f"def answer(x, request): return x + {number}")


def value(server: ptl.Server, version: int = -1) -> float:
    return float(server.model("m", version)(ONE)["OUT"][0])


def states(server: ptl.Server) -> list[tuple[int | None, str, str]]:
    return [(e.version, e.state.value, e.reason) for e in server.index() if e.name == "m"]


def test_what_is_a_version(
    repository: RepositoryBuilder, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository.model("m", gives(0), config=ALL, version=0)
    for name in ("10", "02", "x", "configs", "warmup", "initial_state"):
        shutil.copytree(folder / "0", folder / name)
    # Triton takes these for 3 and -4, and fails as it finds no such folder.
    for name in ("3a", "-4"):
        shutil.copytree(folder / "0", folder / name)
    server = serve()
    assert [version for version, _, _ in states(server)] == [0, 10]
    said = [r.getMessage() for r in caplog.records if "ignore version directory" in r.getMessage()]
    no_number = "which fails to convert to integral number"
    assert sorted(said) == [
        f"model 'm': ignore version directory '-4' {no_number}",
        "model 'm': ignore version directory '02' which contains leading zeros in its directory "
        "name",
        f"model 'm': ignore version directory '3a' {no_number}",
        f"model 'm': ignore version directory 'x' {no_number}",
    ]


def test_which_folders_are_models(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model(".hidden", gives(3))
    (repository.models / "file").write_text("")
    server = serve()
    assert [entry.name for entry in server.index()] == [".hidden"]
    assert server[".hidden"](ONE)["OUT"].tolist() == [3]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", [10]),
        ("version_policy { latest { num_versions: 2 } }", [2, 10]),
        ("version_policy { specific { versions: [ 1, 7 ] } }", [1]),
        ("version_policy { all { } }", [1, 2, 10]),
    ],
)
def test_policies(
    repository: RepositoryBuilder, serve: Serve, policy: str, expected: list[int]
) -> None:
    for version in (2, 10, 1):
        repository.model("m", gives(version), config=ECHO_CONFIG + policy, version=version)
    server = serve()
    assert [version for version, _, _ in states(server)] == expected
    assert value(server) == max(expected)


@pytest.mark.parametrize("policy", ["specific { versions: [ 7 ] }", "latest { num_versions: 0 }"])
def test_no_version_left(repository: RepositoryBuilder, serve: Serve, policy: str) -> None:
    repository.model("m", gives(1), config=ECHO_CONFIG + f"version_policy {{ {policy} }}")
    server = serve(model_control_mode="explicit")
    text = "at least one version must be available under the version policy of model 'm'"
    with pytest.raises(ptl.ModelLoadError, match=f"^load failed for model 'm': {text}\n"):
        server.load("m")


def test_versions_that_the_policy_leaves_out_are_unloaded(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    for version in (1, 2, 3):
        repository.model("m", gives(version), config=ALL, version=version)
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    assert [value(server, version) for version in (1, 2, 3)] == [1, 2, 3]
    repository.model("m", config=ECHO_CONFIG + "version_policy { specific { versions: [1, 2] } }")
    server.load("m")
    assert states(server) == [
        (1, "READY", ""),
        (2, "READY", ""),
        (3, "UNAVAILABLE", "unloaded"),
    ]
    assert value(server) == 2
    with pytest.raises(ptl.UnavailableError, match="'m' version 3 is not at ready state"):
        value(server, 3)
    assert server.ready()


FINALIZED = """
def finalize(self):
    threading.version_notes.finalized.append({number})
"""


def test_a_failing_version_fails_the_load_of_all(
    repository: RepositoryBuilder, serve: Serve, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = SimpleNamespace(finalized=[])
    monkeypatch.setattr(threading, "version_notes", notes, raising=False)
    repository.model("m", gives(1), config=ALL)
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    body = "import threading\ndef answer(x, request): return x + 100"
    repository.model("m", echo_model(body, FINALIZED.format(number=1)), config=ALL)
    repository.model("m", "raise ValueError('no weights')", config=ALL, version=2)
    text = (
        r"^load failed for model 'm': version 2 is at UNAVAILABLE state: Internal: "
        r"ValueError: no weights\n\nAt:\n"
    )
    with pytest.raises(ptl.ModelLoadError, match=text):
        server.load("m")
    # Version 1 was loaded, and given up; the one before serves.
    assert notes.finalized == [1]
    assert value(server) == 1
    version_1, version_2 = states(server)
    assert version_1 == (1, "READY", "")
    assert version_2[:2] == (2, "UNAVAILABLE")
    assert version_2[2].startswith("Internal: ValueError: no weights")
    repository.model("m", gives(2), config=ALL, version=2)
    server.load("m")
    assert (value(server), value(server, 1)) == (2, 100)


def test_versions_serve_together(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = SimpleNamespace(entered=threading.Event(), goes_on=threading.Event())
    monkeypatch.setattr(threading, "version_gate", gate, raising=False)
    repository.model("m", gives(1), config=ALL)
    server = serve(model_control_mode="explicit", startup_models=["m"])
    repository.model("m", gives(10), config=ALL)
    held = """
    import threading
    threading.version_gate.entered.set()
    assert threading.version_gate.goes_on.wait(20)
    def answer(x, request): return x + 20
    """
    repository.model("m", echo_model(held), config=ALL, version=2)
    loading = threading.Thread(target=server.load, args=("m",))
    loading.start()
    assert gate.entered.wait(20)
    # Version 1 has been loaded, but takes no request before version 2 does.
    assert value(server) == 1
    assert states(server) == [(1, "READY", ""), (2, "LOADING", "")]
    gate.goes_on.set()
    loading.join(20)
    assert (value(server), value(server, 1)) == (20, 10)


@pytest.mark.parametrize("count", [1, 2])
def test_so_many_models_load_at_a_time(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    shared = SimpleNamespace(lock=threading.Lock(), now=0, most=0, pair=threading.Barrier(count))
    monkeypatch.setattr(threading, "loads", shared, raising=False)
    body = """
    import threading
    loads = threading.loads

    class Counted:
        def __enter__(self):
            with loads.lock:
                loads.now += 1
                loads.most = max(loads.most, loads.now)
        def __exit__(self, *_):
            with loads.lock:
                loads.now -= 1

    with Counted():
        loads.pair.wait(20)
    """
    body += "\n    def answer(x, request): return x"
    for name in "abcd":
        repository.model(name, echo_model(body))
    # With a complete configuration the module is imported once.
    server = serve(model_load_thread_count=count, strict_model_config=True)
    assert len(server.models(exclude_not_ready=True)) == 4
    assert shared.most == count


def test_startup_models(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", gives(1))
    repository.model("n", gives(1))
    server = serve(model_control_mode="explicit", startup_models=["n", "n"])
    assert list(server.models(exclude_not_ready=True)) == ["n"]
    with pytest.raises(ptl.ModelLoadError, match=r"no folder of model 'nn'.*did you mean 'n'"):
        serve(model_control_mode="explicit", startup_models=["n", "nn"])
    server = serve(model_control_mode="explicit", startup_models=["n", "nn"], exit_on_error=False)
    assert list(server.models(exclude_not_ready=True)) == ["n"]
    # What cannot be read is unknown, and does not count.
    assert server.ready()


def test_an_unload_takes_its_turn(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On Triton the load would fail: "Newer operation has been applied to the model lifecycle,
    # current load operation is out-dated." (read in the sources).
    gate = SimpleNamespace(entered=threading.Event(), goes_on=threading.Event())
    monkeypatch.setattr(threading, "version_gate", gate, raising=False)
    held = """
    import threading
    threading.version_gate.entered.set()
    assert threading.version_gate.goes_on.wait(20)
    def answer(x, request): return x
    """
    repository.model("m", echo_model(held))
    server = serve(model_control_mode="explicit", strict_model_config=True)
    loading = threading.Thread(target=server.load, args=("m",))
    loading.start()
    assert gate.entered.wait(20)
    unloading = threading.Thread(target=server.unload, args=("m", False, True))
    unloading.start()
    until(lambda: len(server._loaded._turns._queues["m"]) == 2)
    assert states(server) == [(1, "LOADING", "")]
    gate.goes_on.set()
    loading.join(20)
    unloading.join(20)
    assert states(server) == [(1, "UNAVAILABLE", "unloaded")]
