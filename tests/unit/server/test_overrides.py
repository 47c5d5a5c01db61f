"""Config and file overrides of a load. Rules and texts were observed on Triton 2.51."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])

TENSORS: dict[str, Any] = {
    "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}],
}
CONFIG = json.dumps({"backend": "python", **TENSORS})
POLL = "failed to load 'm', failed to poll from model repository: "


BACKEND = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        with open(pb_utils.get_model_dir() + "/number") as file:
            self.number = int(file.read())

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "IN").as_numpy() for r in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array + self.number)])
            for array in arrays
        ]
"""


def plus(number: int) -> bytes:
    return echo_model(f"def answer(x, request): return x + {number}").encode()


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def server(
    repository: RepositoryBuilder, serve: Serve, execution: str, temporary: Path
) -> ptl.Server:
    """Serves a model `m`, version 1, that answers with its input."""
    repository.model("m", echo_model())
    return serve(execution=execution, model_control_mode="explicit", startup_models=["m"])


def test_a_config_replaces_the_file(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model(), config=ECHO_CONFIG + "max_batch_size: 4")
    server = serve(model_control_mode="explicit")
    given = {"backend": "python", "parameters": {"k": {"string_value": "v"}}, **TENSORS}
    model = server.load("m", {"config": json.dumps(given)})
    assert model.config()["parameters"] == {"k": {"string_value": "v"}}
    assert model.config()["max_batch_size"] == 0
    assert model({"IN": X})["OUT"].tolist() == [1, 2]


@pytest.fixture
def overridden(repository: RepositoryBuilder, serve: Serve) -> tuple[ptl.Server, Path]:
    """A server whose `m` has max_batch_size 4 in its folder and 0 in the override in force."""
    folder = repository.model("m", echo_model(), config=ECHO_CONFIG + "max_batch_size: 4")
    server = serve(model_control_mode="explicit", startup_models=["m"])
    assert server.load("m", {"config": CONFIG}).config()["max_batch_size"] == 0
    return server, folder


def test_a_config_stays_in_force(overridden: tuple[ptl.Server, Path]) -> None:
    server, folder = overridden
    # What Python compiles is no change of the model; on Triton it drops the override once.
    (folder / "1" / "__pycache__").mkdir(exist_ok=True)
    (folder / "1" / "__pycache__" / "model.pyc").write_bytes(b"")
    for _ in range(2):
        assert server.load("m").config()["max_batch_size"] == 0
    # A failed load changes nothing.
    with pytest.raises(ptl.ModelLoadError):
        server.load("m", {"config": "{}x"})
    assert server.load("m").config()["max_batch_size"] == 0


@pytest.mark.parametrize("name", ["config.pbtxt", "1/model.py", "labels.txt"])
def test_a_modified_file_ends_a_config(overridden: tuple[ptl.Server, Path], name: str) -> None:
    server, folder = overridden
    path = folder / name
    path.touch()
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert server.load("m").config()["max_batch_size"] == 4


def test_unload_ends_a_config(overridden: tuple[ptl.Server, Path]) -> None:
    server, _ = overridden
    server.unload("m", wait_until_unloaded=True)
    assert server.load("m").config()["max_batch_size"] == 4


def test_files_end_a_config(overridden: tuple[ptl.Server, Path]) -> None:
    server, _ = overridden
    server.load("m", {"config": CONFIG, "file:1/model.py": plus(1)})
    assert server.load("m").config()["max_batch_size"] == 4


def test_another_config_replaces_the_first(overridden: tuple[ptl.Server, Path]) -> None:
    server, _ = overridden
    server.load("m", {"config": json.dumps({"max_batch_size": 2, **TENSORS})})
    assert server.load("m").config()["max_batch_size"] == 2


def test_files_of_a_python_based_backend(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.backend("mine", BACKEND)
    server = serve(model_control_mode="explicit")
    config = json.dumps({"backend": "mine", **TENSORS})
    model = server.load("any", {"config": config, "file:3/number": b"5"})
    assert model({"IN": X})["OUT"].tolist() == [6, 7]
    assert model.config()["runtime"] == "model.py"
    assert model.config()["default_model_filename"] == ""
    assert list(server.index()) == []  # it is in no repository
    # The version folder is all that such a model needs, but that it does need.
    with pytest.raises(ptl.ModelLoadError, match="at least one version must be available"):
        server.load("other", {"config": config, "file:data/number": b"5"})


def test_auto_complete_applies_to_a_config(repository: RepositoryBuilder, serve: Serve) -> None:
    methods = """
    @staticmethod
    def auto_complete_config(config):
        config.set_max_batch_size(8)
        return config
    """
    repository.model("m", echo_model(methods=methods))
    server = serve(model_control_mode="explicit")
    assert server.load("m", {"config": "{}"}).config()["max_batch_size"] == 8
    assert server["m"].config()["input"] == []
    strict = serve(model_control_mode="explicit", strict_model_config=True)
    assert strict.load("m", {"config": CONFIG}).config()["max_batch_size"] == 0


def test_files_make_the_whole_folder(server: ptl.Server, temporary: Path) -> None:
    (temporary / "note").mkdir()
    source = b"""
import os
import numpy as np
import triton_python_backend_utils as pb_utils
from helper import NUMBER

class TritonPythonModel:
    def initialize(self, args):
        self.folder = args["model_repository"]
        assert pb_utils.get_model_dir() == self.folder + "/5"
        assert os.path.dirname(__file__) == pb_utils.get_model_dir()

    def execute(self, requests):
        found = [os.path.relpath(os.path.join(at, name), self.folder)
            for at, _, names in os.walk(self.folder) for name in names]
        assert sorted(n for n in found if "__pycache__" not in n) == [
            "5/helper.py", "5/model.py", "config.pbtxt", "data/a/b.txt"]
        out = pb_utils.Tensor("OUT", np.float32([NUMBER, 0]))
        return [pb_utils.InferenceResponse([out])]
"""
    files = {
        "file:5/model.py": source,
        "file:5/helper.py": b"NUMBER = 41",
        "file:data/a/b.txt": bytearray(b"text"),
    }
    model = server.load("m", {"config": CONFIG, **files})
    assert model({"IN": X})["OUT"].tolist() == [41, 0]
    assert [(e.version, e.state.value, e.reason) for e in server.index()] == [
        (1, "UNAVAILABLE", "unloaded"),
        (5, "READY", ""),
    ]
    # A plain load returns to the folder in the repository.
    assert server.load("m")({"IN": X})["OUT"].tolist() == [1, 2]
    assert [(e.version, e.state.value) for e in server.index()] == [
        (1, "READY"),
        (5, "UNAVAILABLE"),
    ]


def folders(temporary: Path) -> list[Path]:
    return [path for path in temporary.iterdir() if path.name.startswith("pytriton_lite_")]


def test_the_folder_goes_when_the_model_does(server: ptl.Server, temporary: Path) -> None:
    given = {"config": CONFIG, "file:1/model.py": plus(5)}
    server.load("m", given)
    (first,) = folders(temporary)
    assert first.stat().st_mode & 0o077 == 0
    server.load("m", given)
    (second,) = folders(temporary)
    assert second != first
    server.unload("m", wait_until_unloaded=True)
    assert folders(temporary) == []
    server.load("m", given)
    server.unload("m")
    until(lambda: not folders(temporary))
    server.load("m", given)
    server.stop()
    assert folders(temporary) == []


def test_versions_of_one_load_share_the_folder(server: ptl.Server, temporary: Path) -> None:
    config = json.dumps({**TENSORS, "version_policy": {"all": {}}})
    given = {"config": config, "file:1/model.py": plus(1), "file:2/model.py": plus(2)}
    server.load("m", given)
    assert len(folders(temporary)) == 1
    assert server.model("m", 1)({"IN": X})["OUT"].tolist() == [2, 3]
    assert server["m"]({"IN": X})["OUT"].tolist() == [3, 4]
    server.unload("m", wait_until_unloaded=True)
    assert folders(temporary) == []


def test_the_folder_is_there_until_the_last_request(
    repository: RepositoryBuilder, serve: Serve, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, entered = threading.Event(), threading.Event()
    monkeypatch.setattr(threading, "override_gate", (gate, entered), raising=False)
    body = """
    import threading
    def answer(x, request):
        gate, entered = threading.override_gate
        entered.set()
        assert gate.wait(20)
        from late import NUMBER
        return x + NUMBER
    """
    server = serve(model_control_mode="explicit")
    files = {"file:1/model.py": echo_model(body).encode(), "file:1/late.py": b"NUMBER = 7"}
    future = server.load("new", {"config": CONFIG, **files}).submit({"IN": X})
    assert entered.wait(20)
    server.unload("new")
    assert len(folders(temporary)) == 1
    gate.set()
    assert future.result(20)["OUT"].tolist() == [8, 9]
    until(lambda: not folders(temporary))


@pytest.mark.parametrize(
    "path", ["8/model.py", "/8/model.py", "./8/model.py", "8//model.py", "a/../8/model.py"]
)
def test_paths_are_normalised(serve: Serve, temporary: Path, path: str) -> None:
    server = serve(model_control_mode="explicit")
    server.load("m", {"config": CONFIG, f"file:{path}": plus(8)})
    assert server.model("m", 8)({"IN": X})["OUT"].tolist() == [9, 10]


def test_a_config_among_the_files_does_not_count(serve: Serve, temporary: Path) -> None:
    server = serve(model_control_mode="explicit")
    files = {"file:1/model.py": plus(1), "file:config.pbtxt": b"garbage !!"}
    server.load("m", {"config": CONFIG, **files})
    (folder,) = folders(temporary)
    assert (folder / "config.pbtxt").read_bytes() == b"garbage !!"
    server.load("m", {"config": '{"version_policy": {"all": {}}}', "file:1/model.py": plus(1)})
    (folder,) = folders(temporary)
    assert (folder / "config.pbtxt").read_text() == "version_policy {\n  all {\n  }\n}\n"


def test_contents_under_other_names_are_passed_over(server: ptl.Server, temporary: Path) -> None:
    server.load("m", {"config": CONFIG, "1/model.py": plus(1), "config.pbtxt": b"!"})
    assert server["m"]({"IN": X})["OUT"].tolist() == [1, 2]
    assert folders(temporary) == []


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (
            {"file:1/model.py": b""},
            "Load parameter 'config' must be specified for model file override",
        ),
        ({"1/model.py": b""}, "Unrecognized load parameter '1/model.py' with type 'BYTES'"),
        ({"config": b"{}"}, "Unrecognized load parameter 'config' with type 'BYTES'"),
        ({"config": 1}, "Unrecognized load parameter 'config' with type 'INT'"),
        ({"config": {}}, "Unrecognized load parameter 'config' with type 'dict'"),
        ({"foo": "x"}, "Unrecognized load parameter 'foo' with type 'STRING'"),
        (
            {"config": CONFIG, "file:1/model.py": "text"},
            "Unrecognized load parameter 'file:1/model.py' with type 'STRING'",
        ),
        ({"config": "{}", "x": True}, "Unrecognized load parameter 'x' with type 'BOOL'"),
        ({"config": "{}", "x": 1.5}, "Unrecognized load parameter 'x' with type 'DOUBLE'"),
        ({"config": "[]"}, "Invalid config override: : Root element must be a message."),
        ({"config": '{"nope": 1}'}, "Invalid config override: nope: Cannot find field."),
        (
            {"config": '{"name": "zzz"}'},
            "unexpected directory name 'm' for model 'zzz', directory name must equal model name",
        ),
        (
            {"config": CONFIG, "file:../x.py": b""},
            "Invalid file parameter 'file:../x.py' with normalized path '<temporary>/x.py' must "
            "stay within model directory.",
        ),
        (
            {"config": CONFIG, "file:1/../../pytriton_lite_": b""},
            "Invalid file parameter 'file:1/../../pytriton_lite_' with normalized path "
            "'<temporary>/pytriton_lite_' must stay within model directory.",
        ),
    ],
)
def test_refused_parameters(
    server: ptl.Server, temporary: Path, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ptl.ModelLoadError) as caught:
        server.load("m", parameters)
    assert str(caught.value) == POLL + reason.replace("<temporary>", str(temporary))
    assert isinstance(caught.value.__cause__, ptl.InvalidArgumentError)
    assert server["m"]({"IN": X})["OUT"].tolist() == [1, 2]
    assert folders(temporary) == []
    assert not (temporary / "x.py").exists()


@pytest.mark.parametrize("path", ["", "1/", ".", "1"])
def test_a_path_of_a_folder_cannot_be_written(
    server: ptl.Server, temporary: Path, path: str
) -> None:
    given = {"config": CONFIG, f"file:{path}": b"x", "file:1/model.py": plus(1)}
    with pytest.raises(ptl.ModelLoadError, match=r"failed to open binary file for write /.*: "):
        server.load("m", given)
    assert folders(temporary) == []


def test_files_without_a_version(server: ptl.Server, temporary: Path) -> None:
    with pytest.raises(ptl.ModelLoadError) as caught:
        server.load("m", {"config": CONFIG, "file:1": b"x"})
    assert str(caught.value) == (
        "load failed for model 'm': at least one version must be available under the version "
        "policy of model 'm'\n"
    )
    assert folders(temporary) == []


def test_a_failed_override_leaves_the_model(server: ptl.Server, temporary: Path) -> None:
    given = {"config": CONFIG, "file:1/model.py": plus(5)}
    server.load("m", given)
    before = folders(temporary)
    for source in (b"raise ValueError('no')", b"this is no python", b""):
        with pytest.raises(
            ptl.ModelLoadError, match=r"^load failed for model 'm': version 1 is at"
        ):
            server.load("m", {**given, "file:1/model.py": source})
        assert server["m"]({"IN": X})["OUT"].tolist() == [6, 7]
        assert folders(temporary) == before
    assert server.ready()


def test_a_model_in_no_repository(server: ptl.Server, temporary: Path) -> None:
    model = server.load("new", {"config": CONFIG, "file:1/model.py": plus(3)})
    assert model({"IN": X})["OUT"].tolist() == [4, 5]
    assert server["new"]({"IN": X})["OUT"].tolist() == [4, 5]
    assert [entry.name for entry in server.index()] == ["m"]
    with pytest.raises(ptl.ModelLoadError, match=r"^failed to load 'new', failed to poll"):
        server.load("new")
    assert model({"IN": X})["OUT"].tolist() == [4, 5]
    server.unload("new", wait_until_unloaded=True)
    with pytest.raises(ptl.NotFoundError, match="unknown model: 'new' has no available versions"):
        model({"IN": X})
    for name in ("", "..", "a/b"):
        with pytest.raises(ptl.ModelLoadError, match="odel name"):
            server.load(name, {"config": CONFIG, "file:1/model.py": plus(3)})
    assert folders(temporary) == []


def test_overrides_need_explicit_mode(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model())
    with pytest.raises(ptl.UnavailableError, match="explicit model load / unload is not"):
        serve().load("m", {"config": CONFIG})
