"""Model namespacing: repositories that have models of the same name.

Texts, codes, index and labels were observed on Triton 2.51 with ``--model-namespacing=true``.
Identifiers as names, and namespaces in the index, are ours: there no protocol has an argument for
them.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, echo_model, write_files

Serve = Callable[..., ptl.Server]

AMBIGUOUS = (
    "There are 2 identifiers of model 'dup' in global map, model namespace must be provided to "
    "resolve ambiguity."
)


def plus(number: int) -> str:
    return echo_model(f"def answer(x, request): return x + {number}")


def value(server: ptl.Server, name: str, version: int = -1) -> float:
    return float(server.model(name, version)({"IN": np.float32([0])})["OUT"][0])


def index(server: ptl.Server) -> list[tuple[str, str, int | None, str]]:
    return [(Path(e.namespace).name, e.name, e.version, e.state.value) for e in server.index()]


def refusal(server: ptl.Server, name: str, version: int = -1) -> tuple[type, str]:
    with pytest.raises(ptl.TritonError) as caught:
        value(server, name, version)
    assert caught.value.model == name.rpartition("::")[2]
    return type(caught.value), str(caught.value)


@pytest.fixture
def repositories(tmp_path: Path) -> list[Path]:
    """Two repositories: ``dup`` is in both, in the second with two versions."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, models in zip(
        paths, ({"dup": (1,), "only_a": (3,)}, {"dup": (10, 20), "only_b": (4,)}), strict=True
    ):
        for name, numbers in models.items():
            config = ECHO_CONFIG + "version_policy { all { } }"
            write_files(path / name, {"config.pbtxt": config})
            for version, number in enumerate(numbers, 1):
                write_files(path / name / str(version), {"model.py": plus(number)})
    return paths


@pytest.fixture
def start(serve: Serve, repositories: list[Path]) -> Callable[..., ptl.Server]:
    def start(**options: object) -> ptl.Server:
        return serve(model_repository=repositories, **{"model_namespacing": True, **options})

    return start


READY = [
    ("a", "dup", 1, "READY"),
    ("a", "only_a", 1, "READY"),
    ("b", "dup", 1, "READY"),
    ("b", "dup", 2, "READY"),
    ("b", "only_b", 1, "READY"),
]


def test_all_are_loaded(start: Serve) -> None:
    server = start()
    assert index(server) == READY
    assert server.ready()
    assert value(server, "only_a") == 3
    assert value(server, "only_b", 1) == 4
    assert sorted(server.models()) == ["dup", "only_a", "only_b"]


@pytest.mark.parametrize("version", [-1, 1, 2, 9])
def test_a_name_of_two(version: int, start: Serve) -> None:
    server = start()
    model = server.model("dup", version)
    assert refusal(server, "dup", version) == (ptl.InvalidArgumentError, AMBIGUOUS)
    for ask in (model.metadata, model.config, lambda: model.ready(raise_on_error=True)):
        with pytest.raises(ptl.InvalidArgumentError) as caught:
            ask()
        assert str(caught.value) == AMBIGUOUS
    assert not model.ready()


def test_identifiers(start: Serve, repositories: list[Path]) -> None:
    server = start()
    first, second = (f"{path}::dup" for path in repositories)
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        server["dup"]({"IN": [0.0]})
    assert caught.value.__notes__ == [
        f"a model can be asked for by its identifier, here one of '{first}', '{second}'"
    ]
    assert [value(server, first), value(server, second), value(server, second, 1)] == [1, 20, 10]
    model = server.model(second)
    assert (model.metadata()["name"], model.metadata()["versions"]) == ("dup", ["1", "2"])
    assert model.run({"IN": np.float32([0])}).model_name == "dup"
    assert json.loads(json.dumps(model.config()))["name"] == "dup"
    assert value(server, f"{repositories[0]}::only_a") == 3
    with pytest.raises(ptl.NotFoundError):
        server.model(f"{repositories[0]}::only_b")


def test_unknown_versions_are_told_with_the_identifier(
    start: Serve, repositories: list[Path]
) -> None:
    server = start()
    identifier = f"{repositories[0]}::only_a"
    assert refusal(server, "only_a", 2) == (
        ptl.NotFoundError,
        f"Request for unknown model: '{identifier}' version 2 is not found",
    )


def test_labels_of_metrics(start: Serve, repositories: list[Path]) -> None:
    lines = start().metrics().splitlines()
    for path, name, version in ((0, "dup", 1), (1, "dup", 1), (1, "dup", 2), (0, "only_a", 1)):
        assert (
            f'nv_inference_request_success{{model="{name}",namespace="{repositories[path]}",'
            f'version="{version}"}} 0'
        ) in lines


CALLS = echo_model(
    """
    def answer(x, request):
        name = request.request_id()
        response = pb_utils.InferenceRequest(
            model_name=name,
            requested_output_names=["OUT"],
            inputs=[pb_utils.Tensor("IN", x)],
        ).exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        is_ready = np.float32(100 if pb_utils.is_model_ready(name) else 0)
        return pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy() + is_ready
    """
)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_models_call_by_the_same_rules(mode: str, start: Serve, repositories: list[Path]) -> None:
    write_files(repositories[0] / "only_a" / "1", {"model.py": CALLS})
    caller = start(execution={"only_a": mode, "*": "thread"})["only_a"]

    def called(name: str) -> float:
        return float(caller.run({"IN": np.float32([0])}, request_id=name)["OUT"][0])

    assert called("only_b") == 104
    assert called(f"{repositories[1]}::dup") == 120
    for name in ("dup", "ghost"):
        with pytest.raises(ptl.TritonError) as caught:
            called(name)
        assert (
            f"Model {name} - Error when running inference: Failed for execute the inference "
            f"request. Model '{name}' is not ready."
        ) in str(caught.value)


def test_a_name_means_all_of_them_for_loads_and_unloads(
    start: Serve, repositories: list[Path]
) -> None:
    server = start(model_control_mode="explicit", startup_models=["only_a"])
    unknown = (ptl.InvalidArgumentError, "Request for unknown model: 'dup' is not found")
    assert refusal(server, "dup") == unknown
    assert index(server)[0] == ("a", "dup", None, "UNKNOWN")
    server.load("dup")
    assert index(server)[:4] == READY[:4]
    assert refusal(server, "dup") == (ptl.InvalidArgumentError, AMBIGUOUS)
    server.unload("dup", wait_until_unloaded=True)
    assert [entry[3] for entry in index(server) if entry[1] == "dup"] == ["UNAVAILABLE"] * 3
    assert refusal(server, "dup") == (
        ptl.NotFoundError,
        "Identifier of model 'dup' is not found in global map",
    )
    server.unload("ghost")
    with pytest.raises(ptl.ModelLoadError, match=r"^failed to load 'ghost', failed to poll"):
        server.load("ghost")


def test_one_of_them_by_its_identifier(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="explicit")
    identifier = f"{repositories[1]}::dup"
    assert float(server.load(identifier)({"IN": np.float32([0])})["OUT"][0]) == 20
    # It is the only one that was loaded, so that its name is enough.
    by_name = server.model("dup")
    assert value(server, "dup") == 20
    server.load("dup")
    assert refusal(server, "dup") == (ptl.InvalidArgumentError, AMBIGUOUS)
    server.unload(identifier, wait_until_unloaded=True)
    assert value(server, "dup") == 1
    assert float(by_name({"IN": np.float32([0])})["OUT"][0]) == 1
    assert refusal(server, identifier)[0] is ptl.NotFoundError


@pytest.mark.parametrize("wanted", [["dup"], ["*"], None])
def test_startup_models(wanted: list[str] | None, start: Serve) -> None:
    options = {} if wanted is None else {"model_control_mode": "explicit", "startup_models": wanted}
    found = index(start(**options))
    assert [entry for entry in found if entry[1] == "dup"] == [
        entry for entry in READY if entry[1] == "dup"
    ]
    assert {entry[3] for entry in found} == {"READY", "UNKNOWN"} if wanted == ["dup"] else {"READY"}


def test_configurations_of_load_calls(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="explicit", startup_models=["*"])
    config = json.dumps({"backend": "python", "version_policy": {"latest": {"num_versions": 1}}})
    server.load("dup", {"config": config})
    assert [entry for entry in index(server) if entry[1] == "dup" and entry[3] == "READY"] == [
        ("a", "dup", 1, "READY"),
        ("b", "dup", 2, "READY"),
    ]
    assert server.model(f"{repositories[0]}::dup").config()["input"] == []
    # A model of given files alone is in no namespace, and not in the index.
    files = {"file:1/model.py": plus(7).encode()}
    given = json.dumps(server["only_b"].config())
    assert (
        float(
            server.load("new", {"config": given.replace("only_b", "new"), **files})({"IN": [0.0]})[
                "OUT"
            ][0]
        )
        == 7
    )
    assert "new" not in {entry[1] for entry in index(server)}
    assert 'nv_inference_request_success{model="new",version="1"} 1' in server.metrics()
    # So is one that takes the name of another, which then has two models.
    server.load("only_b", {"config": given, **files})
    assert refusal(server, "only_b") == (
        ptl.InvalidArgumentError,
        AMBIGUOUS.replace("dup", "only_b"),
    )


def test_a_failure_in_one_repository(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="explicit", startup_models=["*"])
    (repositories[1] / "dup" / "config.pbtxt").write_text("bad")
    with pytest.raises(ptl.ModelLoadError, match="failed to poll from model repository") as caught:
        server.load("dup")
    assert [error.model for error in caught.value.exceptions if isinstance(error, ptl.TritonError)]
    # What was loaded serves.
    assert index(server) == READY
    (repositories[0] / "dup" / "config.pbtxt").write_text("bad")
    with pytest.raises(ptl.ModelLoadError) as caught:
        server.load("dup")
    assert len(caught.value.exceptions) == 2


def test_one_that_fails_to_load_counts(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="explicit", startup_models=["only_a"])
    identifier = f"{repositories[0]}::dup"
    server.load(identifier)
    by_name = server.model("dup")
    assert value(server, "dup") == 1
    broken = "def answer(x, request): pass\nraise ValueError('no')"
    write_files(repositories[1] / "dup" / "1", {"model.py": echo_model(broken)})
    with pytest.raises(
        ptl.ModelLoadError, match=rf"^load failed for model '{repositories[1]}::dup"
    ):
        server.load("dup")
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        by_name({"IN": np.float32([0])})
    assert str(caught.value) == AMBIGUOUS
    assert value(server, identifier) == 1
    server.unload(f"{repositories[1]}::dup")
    assert float(by_name({"IN": np.float32([0])})["OUT"][0]) == 1


def test_one_that_cannot_be_read_does_not(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="explicit")
    (repositories[1] / "dup" / "config.pbtxt").write_text("bad")
    with pytest.raises(ptl.ModelLoadError):
        server.load("dup")
    assert value(server, "dup") == 1


def test_poll_mode(start: Serve, repositories: list[Path]) -> None:
    server = start(model_control_mode="poll", repository_poll_secs=0)
    assert refusal(server, "dup") == (ptl.InvalidArgumentError, AMBIGUOUS)
    model = server.model("dup")
    shutil.rmtree(repositories[1] / "dup")
    server.poll_model_repository()
    assert index(server) == [READY[0], READY[1], READY[4]]
    assert float(model({"IN": np.float32([0])})["OUT"][0]) == 1


def test_hot_reload_of_one(start: Serve, repositories: list[Path]) -> None:
    server = start(watch=True)
    first, second = (f"{path}::dup" for path in repositories)
    write_files(repositories[1] / "dup" / "2", {"model.py": plus(30)})
    until(lambda: value(server, second) == 30)
    assert (value(server, first), value(server, second, 1)) == (1, 10)
    assert index(server) == READY


def test_one_repository_twice(serve: Serve, repositories: list[Path]) -> None:
    server = serve(model_repository=[repositories[0]] * 2, model_namespacing=True)
    assert index(server) == READY[:2]


def test_registered_repositories(serve: Serve, repositories: list[Path]) -> None:
    server = serve(
        model_repository=repositories[0],
        model_namespacing=True,
        model_control_mode="explicit",
        startup_models=["*"],
    )
    server.register_model_repository(repositories[1], {"only_b": "only_a"})
    assert value(server, "only_a") == 3
    server.load("only_a")
    assert refusal(server, "only_a")[0] is ptl.InvalidArgumentError
    assert value(server, f"{repositories[1]}::only_a") == 4


def test_threads_load_and_unload_side_by_side(start: Serve) -> None:
    """Neither a lost endpoint nor a lost version, whatever the order."""
    server = start(model_control_mode="explicit", startup_models=["*"])

    def work() -> None:
        for _ in range(5):
            server.unload("dup")
            server.load("dup")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    server.load("dup")
    assert index(server) == READY
    assert refusal(server, "dup") == (ptl.InvalidArgumentError, AMBIGUOUS)


def test_without_namespaces_neither_is_loaded(serve: Serve, repositories: list[Path]) -> None:
    server = serve(model_repository=repositories, exit_on_error=False)
    assert index(server)[0] == ("", "dup", None, "UNAVAILABLE")
    with pytest.raises(ptl.NotFoundError):
        server.model(f"{repositories[0]}::dup")
