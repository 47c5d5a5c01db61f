"""Poll mode: what counts as a change, and what becomes of it.

Expected states and texts were observed on Triton 2.51 (``--model-control-mode=poll``); a test
says where this differs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
ONE = {"IN": np.float32([1])}
NO_VERSION = "Request for unknown model: 'm' has no available versions"


def plus(number: int) -> str:
    return echo_model(f"def answer(x, request): return x + {number}")


BROKEN = echo_model(methods="def initialize(self, args): raise ValueError('as asked')")


@pytest.fixture
def server(repository: RepositoryBuilder, serve: Serve, execution: str) -> ptl.Server:
    """A server with the model `m`, which looks for changes when it is told to."""
    repository.model("m", plus(0))
    return serve(execution=execution, model_control_mode="poll", repository_poll_secs=0)


def value(server: ptl.Server, name: str = "m") -> float:
    return float(server[name](ONE)["OUT"][0])


def states(server: ptl.Server) -> list[tuple[str, int | None, str, str]]:
    return [(e.name, e.version, e.state.value, e.reason) for e in server.index()]


def unloaded(server: ptl.Server) -> None:
    until(lambda: all(e.state.value != "UNLOADING" for e in server.index()))


def test_changed_code_is_loaded(server: ptl.Server, repository: RepositoryBuilder) -> None:
    assert value(server) == 1
    repository.model("m", plus(4))
    assert value(server) == 1
    server.poll_model_repository()
    assert value(server) == 5


def test_a_changed_config_is_loaded(server: ptl.Server, repository: RepositoryBuilder) -> None:
    repository.model(
        "m", config=ECHO_CONFIG + 'parameters { key: "k" value { string_value: "v" } }'
    )
    server.poll_model_repository()
    assert server["m"].config()["parameters"] == {"k": {"string_value": "v"}}


def note_loads(repository: RepositoryBuilder) -> Path:
    """Write `m` anew so that it notes its loads; where."""
    body = (
        "import os\nNOTES = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + '.loads'"
    )
    methods = """
    def initialize(self, args):
        with open(NOTES, "a") as file:
            file.write("x")

    def answer(self, x, request):
        return x
    """
    return repository.model("m", echo_model(body, methods)).parent.with_suffix(".loads")


def test_what_is_no_change(server: ptl.Server, repository: RepositoryBuilder) -> None:
    notes = note_loads(repository)
    server.poll_model_repository()
    # On Triton this counts, so that a Python model is loaded twice after its first import.
    cache = repository.models / "m" / "1" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "model.pyc").write_text("")
    (repository.models / "plain file").write_text("")
    server.poll_model_repository()
    assert notes.read_text() == "x"


@pytest.mark.parametrize("name", ["note.txt", "1/note.txt", "1/sub/note.txt", "folder/"])
def test_what_is_a_change(server: ptl.Server, repository: RepositoryBuilder, name: str) -> None:
    notes = note_loads(repository)
    server.poll_model_repository()
    path = repository.models / "m" / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    server.poll_model_repository()
    assert notes.read_text() == "xx"
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    server.poll_model_repository()
    assert notes.read_text() == "xxx"


def test_a_change_that_keeps_the_time(server: ptl.Server, repository: RepositoryBuilder) -> None:
    file = repository.models / "m" / "1" / "model.py"
    before = file.stat()
    repository.model("m", plus(400))  # of another size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    server.poll_model_repository()
    assert value(server) == 401


def test_new_models_are_loaded(server: ptl.Server, repository: RepositoryBuilder) -> None:
    repository.model("new", plus(8))
    server.poll_model_repository()
    assert value(server, "new") == 9
    assert server.ready()


def test_a_removed_model_is_unloaded(server: ptl.Server, repository: RepositoryBuilder) -> None:
    model = server["m"]
    shutil.rmtree(repository.models / "m")
    server.poll_model_repository()
    with pytest.raises(ptl.NotFoundError, match=NO_VERSION):
        model(ONE)
    assert states(server) == []
    until(server.ready)
    repository.model("m", plus(1))
    server.poll_model_repository()
    assert model(ONE)["OUT"].tolist() == [2]


def test_a_new_version_replaces_the_old_one(
    server: ptl.Server, repository: RepositoryBuilder
) -> None:
    repository.model("m", plus(2), version=2)
    server.poll_model_repository()
    assert value(server) == 3
    with pytest.raises(
        ptl.UnavailableError,
        match="Request for unknown model: 'm' version 1 is not at ready state",
    ):
        server.model("m", 1)(ONE)
    unloaded(server)
    assert states(server) == [("m", 1, "UNAVAILABLE", "unloaded"), ("m", 2, "READY", "")]
    shutil.rmtree(repository.models / "m" / "2")
    server.poll_model_repository()
    assert value(server) == 1
    unloaded(server)
    assert states(server) == [("m", 1, "READY", ""), ("m", 2, "UNAVAILABLE", "unloaded")]


@pytest.mark.parametrize("broken", ["config", "code", "no version"])
def test_a_broken_model_leaves_the_old_one(
    server: ptl.Server, repository: RepositoryBuilder, broken: str
) -> None:
    if broken == "config":
        repository.model("m", config=ECHO_CONFIG + "max_batch_size: -3")
    elif broken == "code":
        repository.model("m", BROKEN)
    else:
        shutil.rmtree(repository.models / "m" / "1")
    server.poll_model_repository()
    assert value(server) == 1
    assert states(server) == [("m", 1, "READY", "")]
    assert server.ready()
    repository.model("m", plus(3))
    server.poll_model_repository()
    assert value(server) == 4


def test_what_failed_is_tried_again_each_time(
    server: ptl.Server, repository: RepositoryBuilder, caplog: pytest.LogCaptureFixture
) -> None:
    def poll(text: str) -> int:
        caplog.clear()
        server.poll_model_repository()
        return sum(text in record.getMessage() for record in caplog.records)

    repository.model("new", BROKEN)
    assert poll("failed to load 'new' version 1: Internal: ValueError: as asked") == 1
    assert states(server)[1][2] == "UNAVAILABLE"
    assert not server.ready()
    assert poll("as asked") == 1
    repository.model("new", plus(1))
    assert poll("as asked") == 0
    assert value(server, "new") == 2
    assert poll("new") == 0
    repository.model("new", config="max_batch_size: -3")
    assert poll("Poll failed for model 'new'") == 1
    assert poll("Poll failed for model 'new'") == 1
    # So is one that still serves.
    repository.model("new", BROKEN)
    assert poll("failed to load 'new' version 1") == 1
    assert poll("failed to load 'new' version 1") == 1
    assert value(server, "new") == 2


def test_a_removed_model_that_had_failed_does_not_count(
    server: ptl.Server, repository: RepositoryBuilder
) -> None:
    repository.model("new", BROKEN)
    server.poll_model_repository()
    assert not server.ready()
    shutil.rmtree(repository.models / "new")
    server.poll_model_repository()
    assert server.ready()


def test_a_name_in_two_repositories(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    other = RepositoryBuilder(tmp_path / "other")
    repository.model("m", plus(0))
    repository.model("n", plus(0))
    server = serve(
        model_repository=[repository.models, other.models],
        model_control_mode="poll",
        repository_poll_secs=0,
    )
    other.model("m", plus(5))
    server.poll_model_repository()
    assert "failed to poll model 'm': not unique across all model repositories" in caplog.text
    with pytest.raises(ptl.NotFoundError, match=NO_VERSION):
        value(server)
    duplicate = ("m", None, "UNAVAILABLE", "model appears in two or more repositories")
    assert states(server) == [duplicate, ("n", 1, "READY", "")]
    assert value(server, "n") == 1
    shutil.rmtree(repository.models / "m")
    server.poll_model_repository()
    assert value(server) == 6


def test_explicit_control_is_refused(server: ptl.Server) -> None:
    for call in (server.load, server.unload):
        with pytest.raises(
            ptl.UnavailableError,
            match=r"^explicit model load / unload is not allowed if polling is enabled$",
        ):
            call("m")


@pytest.mark.parametrize("mode", ["none", "explicit"])
def test_polling_needs_its_mode(repository: RepositoryBuilder, serve: Serve, mode: str) -> None:
    # The text was read in the sources of Triton: HTTP has no such request.
    server = serve(model_control_mode=mode)
    with pytest.raises(ptl.UnavailableError, match=r"^polling is disabled$"):
        server.poll_model_repository()


def test_a_stopped_server_does_not_poll(server: ptl.Server) -> None:
    server.stop()
    with pytest.raises(ptl.UnavailableError, match=r"^Server not ready$"):
        server.poll_model_repository()


def test_polls_by_itself(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", plus(0))
    server = serve(model_control_mode="poll", repository_poll_secs=0.01)
    repository.model("m", plus(1))
    until(lambda: value(server) == 2)
    # A repository that is away for a while is no reason to stop looking.
    hidden = repository.models.with_name("hidden")
    repository.models.rename(hidden)
    until(lambda: not repository.models.exists())
    hidden.rename(repository.models)
    repository.model("m", plus(2))
    until(lambda: value(server) == 3)


def test_the_interval_is_no_negative_number(repository: RepositoryBuilder) -> None:
    with pytest.raises(ptl.InvalidArgumentError, match="repository_poll_secs must be >= 0"):
        ptl.Server(repository.models, model_control_mode="poll", repository_poll_secs=-1)
