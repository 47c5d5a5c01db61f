"""Models in execution environments: stubs of another interpreter."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.environments import bare_venv, numpy_venv, site_packages
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder

SOURCE = """
import importlib.util
import json
import os
import sys
import triton_python_backend_utils as pb_utils
import numpy as np

def facts():
    names = ("VIRTUAL_ENV", "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "OWN")
    return {
        "pid": os.getpid(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "argv": sys.argv,
        "cwd": os.getcwd(),
        "no_user_site": sys.flags.no_user_site,
        "variables": {name: os.environ.get(name) for name in names},
        "library": sys.modules["pytriton_lite"].__file__,
        "has_pytest": importlib.util.find_spec("pytest") is not None,
        "has_google": importlib.util.find_spec("google.protobuf") is not None,
        "path": sys.path,
    }

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        with open(os.path.join(pb_utils.get_model_dir(), "completed.json"), "w") as file:
            json.dump(facts(), file)
        return config

    def execute(self, requests):
        out = np.array([json.dumps(facts())], np.object_)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]) for _ in requests]
"""

CONFIG = 'backend: "{backend}"\noutput [ {{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }} ]\n'


def environment(path: object) -> str:
    return f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{path}" }} }}\n'


def facts_of(server: ptl.Server, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(server.model(name)({})["OUT"][0])
    return facts


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numpy_venv(tmp_path_factory.mktemp("numpy") / "venv")


def test_model_with_an_environment(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    venv: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder, and another model beside it without any; both with ``execution="auto"``."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere/lib")
    monkeypatch.setenv("PYTHONPATH", "/nowhere/python")
    monkeypatch.setenv("OWN", "kept")
    inside = "$$TRITON_MODEL_DIRECTORY/env"
    config = CONFIG.format(backend="python")
    folder = repository.model("there", SOURCE, config=config + environment(inside))
    (folder / "env").symlink_to(venv)
    repository.model("here", SOURCE, config=config)
    server = serve()
    completed = json.loads((folder / "1/completed.json").read_text())
    there, here = facts_of(server, "there"), facts_of(server, "here")
    assert here["pid"] == os.getpid()
    assert len({there["pid"], completed["pid"], os.getpid()}) == 3
    for facts in (there, completed):
        assert facts["executable"] == f"{venv}/bin/python3"
        assert facts["prefix"] == str(venv)
        assert facts["argv"] == [""]
        assert facts["cwd"] == os.getcwd()
        assert facts["no_user_site"] == 1
        assert facts["variables"] == {
            "VIRTUAL_ENV": str(venv),
            "PATH": f"{venv}/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": "/nowhere/lib",
            "PYTHONPATH": None,
            "OWN": "kept",
        }
        # Our package came along, and nothing else that the server has.
        assert facts["library"] == ptl.__file__
        assert not facts["has_pytest"]
        assert facts["has_google"]
        assert facts["path"][-3:-1] == [str(folder / "1"), str(folder)]
        assert str(site_packages(venv)) in facts["path"]
        assert str(Path(np.__file__).parents[1]) not in facts["path"]


SPAWNING = """
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import triton_python_backend_utils as pb_utils
import numpy as np

class Work:
    def __init__(self, x):
        self.x = x

def double(work):
    names = [hasattr(pb_utils, name) for name in ("Tensor", "ModelConfig")]
    kinds = pb_utils.triton_string_to_numpy("TYPE_FP32").__name__
    return Work([work.x * 2, names, kinds, __name__])

class TritonPythonModel:
    def execute(self, requests):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            made = pool.submit(double, Work(4)).result(60)
        out = np.array([json.dumps([made.x, type(made) is Work])], np.object_)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]) for _ in requests]
"""


def test_spawned_children_of_a_model(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], venv: Path
) -> None:
    """They import the model's module by its name; of pb_utils they have what is not native."""
    config = CONFIG.format(backend="python")
    repository.model("there", SPAWNING, config=config + environment(venv))
    repository.model("here", SPAWNING, config=config)
    repository.backend("shared", SPAWNING)
    repository.model("mine", config=CONFIG.format(backend="shared"))
    server = serve(execution="process")
    for name, module in (("there", "1.model"), ("here", "1.model"), ("mine", "model")):
        assert json.loads(server[name]({})["OUT"][0]) == [
            [8, [False, True], "float32", module],
            True,
        ]


def test_archive_of_a_backend(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two models that load side by side: unpacked once, and removed with the server."""
    made = bare_venv(tmp_path / "made")
    # Links that leave an archive are refused, so numpy is found elsewhere here.
    (site_packages(made) / "numpy.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    folder = repository.backend("carrying", SOURCE)
    with tarfile.open(folder / "pb_exec_env_model.py.tar.gz", "w:gz", compresslevel=1) as tar:
        for entry in made.iterdir():
            tar.add(entry, entry.name)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    for name in ("first", "second"):
        repository.model(name, config=CONFIG.format(backend="carrying"))
    server = serve()
    prefixes = set()
    for name in ("first", "second"):
        facts = facts_of(server, name)
        assert facts["variables"]["LD_LIBRARY_PATH"] is None
        prefixes.add(facts["prefix"])
    (root,) = temporary.iterdir()
    assert prefixes == {str(root / "0")}
    assert {path.name for path in root.iterdir()} == {"0", "lock"}
    server.stop()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("mode", ["thread", "inline"])
def test_refused_in_this_process(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], venv: Path, mode: str
) -> None:
    repository.model("m", SOURCE, config=CONFIG.format(backend="python") + environment(venv))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(execution=mode)
    (error,) = caught.value.exceptions
    assert isinstance(error, ptl.UnsupportedError)
    assert str(error) == (
        f"model 'm' has an execution environment of its own, '{venv}', and cannot run in mode "
        f"'{mode}': only a process has another interpreter"
    )
    assert f"execution={{'m': 'process', '*': '{mode}'}}" in error.__notes__[0]


def test_empty_path_asks_for_none(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server]
) -> None:
    """As 2.51."""
    repository.model("m", SOURCE, config=CONFIG.format(backend="python") + environment(""))
    assert facts_of(serve(), "m")["pid"] == os.getpid()


def test_path_missing(repository: RepositoryBuilder, serve: Callable[..., ptl.Server]) -> None:
    """Text of 2.51."""
    repository.model("m", SOURCE, config=ECHO_CONFIG + environment("/nope"))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve()
    (error,) = caught.value.exceptions
    assert isinstance(error, ptl.InternalError)
    assert error.message == "Failed to get the canonical path for /nope."


def test_another_version_of_this_package(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], tmp_path: Path
) -> None:
    venv = numpy_venv(tmp_path / "venv")
    package = site_packages(venv) / "pytriton_lite"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '0.0.1'")
    repository.model("m", SOURCE, config=CONFIG.format(backend="python") + environment(venv))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve()
    (error,) = caught.value.exceptions
    assert f"has pytriton_lite 0.0.1; the server has {ptl.__version__}." in str(error)
    assert f"'{venv}/bin/python3' -m pip install pytriton_lite=={ptl.__version__}" in str(
        error.__notes__
    )


def test_own_interpreter_keeps_its_settings(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "working"
    folder.mkdir()
    monkeypatch.chdir(folder)
    other = tmp_path / "pytriton_lite"
    other.mkdir()
    (other / "__init__.py").write_text("raise ImportError('not this one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere/lib")
    repository.model("m", SOURCE, config=CONFIG.format(backend="python"))
    facts = facts_of(serve(execution="process"), "m")
    assert facts["executable"] == sys.executable
    assert facts["no_user_site"] == sys.flags.no_user_site
    assert facts["variables"]["PYTHONPATH"] == str(tmp_path)
    assert facts["library"] == ptl.__file__
    assert facts["variables"]["LD_LIBRARY_PATH"] == "/nowhere/lib"
    assert str(tmp_path) in facts["path"]
    assert facts["cwd"] == str(folder)
    assert not {"", str(folder)} & set(facts["path"])
