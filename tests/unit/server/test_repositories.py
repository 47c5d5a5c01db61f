"""Several repositories, registering them, and what a load call and readiness do with models.

Texts and rules were observed on Triton 2.51, but for registering, which only its in-process
interface has: those were read in its sources.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
ONE = {"IN": np.float32([1])}
DUPLICATE = ("m", None, "UNAVAILABLE", "model appears in two or more repositories")


def plus(number: int) -> str:
    return echo_model(f"def answer(x, request): return x + {number}")


@pytest.fixture
def other(tmp_path: Path) -> RepositoryBuilder:
    """A second repository."""
    (tmp_path / "other").mkdir()
    return RepositoryBuilder(tmp_path / "other")


@pytest.fixture
def server(repository: RepositoryBuilder, serve: Serve) -> ptl.Server:
    """A server in explicit mode without models."""
    return serve(model_control_mode="explicit")


def states(server: ptl.Server) -> list[tuple[str, int | None, str, str]]:
    return [(e.name, e.version, e.state.value, e.reason) for e in server.index()]


# -- several repositories --------------------------------------------------------------


def test_models_of_all_repositories(
    repository: RepositoryBuilder, other: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("a", plus(1))
    other.model("b", plus(2))
    server = serve(model_repository=[repository.models, other.models])
    assert [server[name](ONE)["OUT"].tolist() for name in ("a", "b")] == [[2], [3]]


def test_a_name_in_two_repositories(
    repository: RepositoryBuilder, other: RepositoryBuilder, serve: Serve
) -> None:
    for builder in (repository, other):
        builder.model("m", plus(1))
    other.model("n", plus(2))
    server = serve(
        model_repository=[repository.models, other.models], model_control_mode="explicit"
    )
    assert states(server) == [DUPLICATE, ("n", None, "UNKNOWN", "")]
    with pytest.raises(
        ptl.ModelLoadError,
        match=r"failed to load 'm', failed to poll from model repository: .*not unique across all",
    ):
        server.load("m")
    assert server.load("n")(ONE)["OUT"].tolist() == [3]
    assert states(server) == [DUPLICATE, ("n", 1, "READY", "")]


# -- registering -----------------------------------------------------------------------


def test_register_and_unregister(server: ptl.Server, other: RepositoryBuilder) -> None:
    other.model("m", plus(1))
    with pytest.raises(ptl.NotFoundError):
        server.model("m")
    server.register_model_repository(other.models)
    assert states(server) == [("m", None, "UNKNOWN", "")]
    model = server.load("m")
    server.unregister_model_repository(other.models)
    assert states(server) == []
    assert list(server.models()) == []
    assert model(ONE)["OUT"].tolist() == [2]  # what is loaded goes on
    server.unload("m", wait_until_unloaded=True)
    with pytest.raises(ptl.ModelLoadError, match="failed to poll from model repository"):
        server.load("m")


def test_mapped_names(server: ptl.Server, other: RepositoryBuilder) -> None:
    other.model("folder", plus(1), config='name: "folder"' + ECHO_CONFIG)
    other.model("plain", plus(2))
    server.register_model_repository(str(other.models), {"folder": "mapped", "nowhere": "x"})
    assert [e.name for e in server.index()] == ["mapped", "plain"]
    model = server.load("mapped")
    assert model(ONE)["OUT"].tolist() == [2]
    assert model.config()["name"] == model.metadata()["name"] == "mapped"
    assert server.load("plain")(ONE)["OUT"].tolist() == [3]
    for name in ("folder", "nowhere", "x"):
        with pytest.raises(ptl.ModelLoadError, match="failed to poll from model repository"):
            server.load(name)


def test_the_same_folder_names_in_two_repositories(
    server: ptl.Server, repository: RepositoryBuilder, other: RepositoryBuilder
) -> None:
    repository.model("m", plus(1))
    other.model("m", plus(2))
    server.register_model_repository(other.models, {"m": "theirs"})
    assert server.load("m")(ONE)["OUT"].tolist() == [2]
    assert server.load("theirs")(ONE)["OUT"].tolist() == [3]
    server.unregister_model_repository(other.models)
    server.register_model_repository(other.models)
    assert states(server) == [DUPLICATE]


def test_refused_registrations(
    server: ptl.Server, repository: RepositoryBuilder, other: RepositoryBuilder, tmp_path: Path
) -> None:
    models = str(repository.models)
    with pytest.raises(ptl.AlreadyExistsError) as caught:
        server.register_model_repository(models)
    assert str(caught.value) == f"model repository '{models}' has already been registered"
    missing = str(tmp_path / "missing")
    with pytest.raises(ptl.InvalidArgumentError) as wrong:
        server.register_model_repository(missing)
    assert str(wrong.value) == f"failed to register '{missing}', repository not found"
    with pytest.raises(ptl.InvalidArgumentError) as wrong:
        server.unregister_model_repository(str(other.models))
    assert str(wrong.value) == f"failed to unregister '{other.models}', repository not found"
    server.register_model_repository(other.models, {"a": "new"})
    (tmp_path / "third").mkdir()
    with pytest.raises(ptl.AlreadyExistsError) as caught:
        server.register_model_repository(tmp_path / "third", {"b": "new"})
    assert str(caught.value) == "failed to register 'new', there is a conflicting mapping for 'new'"


@pytest.mark.parametrize("mode", ["none", "poll"])
def test_registering_needs_explicit_mode(
    repository: RepositoryBuilder, serve: Serve, mode: str
) -> None:
    server = serve(model_control_mode=mode)
    rest = "is not allowed if model control mode is not EXPLICIT"
    with pytest.raises(ptl.UnsupportedError, match=f"^repository registration {rest}$"):
        server.register_model_repository(repository.models)
    with pytest.raises(ptl.UnsupportedError, match=f"^repository unregistration {rest}$"):
        server.unregister_model_repository(repository.models)


# -- loading ---------------------------------------------------------------------------


def test_a_load_of_an_unmodified_model_leaves_it(
    server: ptl.Server, repository: RepositoryBuilder
) -> None:
    # On Triton the first such load makes a Python model anew, since the import has written
    # `__pycache__`.
    repository.model("m", plus(1))
    server.load("m")
    server["m"](ONE)
    loaded = server._loaded.models.get("m", -1)
    server.load("m")
    assert server._loaded.models.get("m", -1) is loaded
    repository.touch("m")
    server.load("m")
    assert server._loaded.models.get("m", -1) is not loaded


@pytest.mark.parametrize(("retries", "loads"), [(0, False), (1, False), (2, True)])
def test_failed_loads_are_tried_again(
    repository: RepositoryBuilder, serve: Serve, retries: int, loads: bool
) -> None:
    methods = """
    def initialize(self, args):
        marks = [os.path.join(os.path.dirname(__file__), mark) for mark in ("first", "second")]
        for mark in marks:
            if not os.path.exists(mark):
                open(mark, "w").close()
                raise ValueError("not yet")

    def answer(self, x, request):
        return x
    """
    repository.model("m", echo_model("import os", methods))
    server = serve(model_load_retry_count=retries, exit_on_error=False)
    assert bool(server["m"].ready()) is loads


@pytest.mark.parametrize("is_strict", [True, False])
def test_strict_readiness(repository: RepositoryBuilder, serve: Serve, is_strict: bool) -> None:
    repository.model("m", "this is no python")
    server = serve(exit_on_error=False, strict_readiness=is_strict)
    assert server.ready() is not is_strict
    assert not server["m"].ready()
    server.stop()
    assert not server.ready()


def test_a_model_that_unloads_is_not_ready_yet(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "unload_gate", (entered, gate), raising=False)
    body = """
    import threading

    def answer(x, request):
        entered, gate = threading.unload_gate
        entered.set()
        assert gate.wait(20)
        return x
    """
    repository.model("m", echo_model(body))
    server = serve(model_control_mode="explicit", startup_models=["m"])
    model = server["m"]
    answer = model.submit(ONE)
    assert entered.wait(20)
    server.unload("m", unload_dependents=True)
    assert states(server) == [("m", 1, "UNLOADING", "")]
    assert not server.ready()
    with pytest.raises(ptl.NotFoundError, match="'m' has no available versions"):
        model(ONE)
    with pytest.raises(ptl.UnavailableError, match="'m' version 1 is not at ready state"):
        server.model("m", 1)(ONE)
    gate.set()
    assert answer.result(20).outputs["OUT"] is not None
    server.unload("m", wait_until_unloaded=True)
