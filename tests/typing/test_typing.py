"""What type checkers see: the stubs against the compiled modules, and programs of users."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils

from .cases import program

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULES = (
    "_core.answer",
    "_core.array",
    "_core.batch_queue",
    "_core.bls",
    "_core.bytes_tensor",
    "_core.calls",
    "_core.future",
    "_core.contract",
    "_core.deadlock",
    "_core.dlpack",
    "_core.formation",
    "_core.input_spec",
    "_core.message",
    "_core.queue",
    "_core.remote_queue",
    "_core.reply",
    "_core.sender",
    "_core.slot",
    "_core.statistics",
    "_core.tensor",
    "_ipc.arena",
    "_ipc.bls_port",
    "_ipc.caller_memory",
    "_ipc.numpy_memory",
    "_ipc.remote",
    "_ipc.segment",
    "_ipc.stub_bls",
    "_ipc.stub_contract",
    "_ipc.wire",
)
STUB_PACKAGES = [
    ROOT / f"{name}-stubs" for name in ("triton_python_backend_utils", "c_python_backend_utils")
]
TYPES = ROOT / "pytriton_lite" / "pb_utils" / "_types.pyi"
MODELS = HERE / "models"
# A tool of developers, and no dependency of the tests.
needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)


def run_python(*arguments: str, search_path: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        # mypy looks for stub packages where installed packages are, and there only.
        env=os.environ | ({"PYTHONPATH": search_path} if search_path else {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@needs_mypy
@pytest.mark.parametrize("case", ["program.py", "mistakes.py", "scale/1/model.py"])
def test_user_code_passes_mypy_strict(case):
    # Errors in the package itself are the business of the lint run, which covers all of it.
    done = run_python(
        *("-m", "mypy", "--strict", "--config-file", str(HERE / "stubtest.ini")),
        str(HERE / "cases" / case),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mypy
def test_stubs_match_the_compiled_modules():
    done = run_python(
        *("-m", "mypy.stubtest", *(f"pytriton_lite.{name}" for name in MODULES)),
        *("--concise", "--mypy-config-file", str(HERE / "stubtest.ini")),
        *("--allowlist", str(HERE / "stubtest_allowlist.txt")),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_compiled_module_has_a_stub():
    def found(suffix: str) -> set[str]:
        package = ROOT / "pytriton_lite"
        return {
            f"{folder}.{path.stem}"
            for folder in ("_core", "_ipc")
            for path in (package / folder).glob(f"*{suffix}")
        }

    assert found(".pyx") == found(".pyi") == set(MODULES)


def test_the_typed_program_runs():
    # Four elements are not what `run` sends: [1.0, 2.0] are two.
    assert program.main(str(HERE / "cases")) == "2 elements"


def test_the_typed_async_program_runs():
    # By hand: (1 + 1) * 3.
    assert asyncio.run(program.main_async(str(HERE / "cases"))) == 6.0


@needs_mypy
def test_models_pass_mypy_strict():
    done = run_python(
        *("-m", "mypy", "--strict", "--config-file", str(HERE / "stubtest.ini")),
        *map(str, sorted(MODELS.glob("*.py"))),
        search_path=str(ROOT),
    )
    assert done.returncode == 0, done.stdout + done.stderr


# Often in an environment of its own, so the command counts and not the package.
@pytest.mark.skipif(shutil.which("pyright") is None, reason="there is no command `pyright`")
def test_models_pass_pyright(tmp_path):
    options = {
        # pyright ignores absolute paths here
        "include": [os.path.relpath(path, tmp_path) for path in (MODELS, *STUB_PACKAGES, TYPES)],
        "extraPaths": [str(ROOT), str(MODELS)],
        "reportMissingModuleSource": "none",  # the module exists inside models only
        "reportUnnecessaryTypeIgnoreComment": "error",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    done = subprocess.run(
        ["pyright", "--project", str(tmp_path), "--pythonpath", sys.executable],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_mypy
def test_stub_agrees_with_pb_utils(tmp_path):
    # The module as model code finds it, under the name that its types have.
    (tmp_path / "as_in_a_model.py").write_text(
        "import sys, types\n"
        "from mypy import stubtest\n"
        "from pytriton_lite import pb_utils\n"
        "module = types.ModuleType('pytriton_lite.pb_utils._types')\n"
        "vars(module).update({name: getattr(pb_utils, name) for name in pb_utils.__all__})\n"
        "def get_model_dir(): return ''\n"
        "module.get_model_dir = get_model_dir\n"
        "module.__all__ = [*pb_utils.__all__, 'get_model_dir']\n"
        "sys.modules[module.__name__] = module\n"
        "sys.exit(stubtest.test_stubs(stubtest.parse_options([module.__name__, *sys.argv[1:]])))\n"
    )
    done = run_python(
        *(str(tmp_path / "as_in_a_model.py"), "--concise"),
        *("--mypy-config-file", str(HERE / "stubtest.ini")),
        *("--allowlist", str(HERE / "stubtest_allowlist_pb_utils.txt")),
        search_path=str(ROOT),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stub_names_what_pb_utils_has():
    tree = ast.parse(TYPES.read_text())
    exported = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    assert set(exported) == {*pb_utils.__all__, "get_model_dir"}
    # Public classes that model code cannot reach are types of values that it gets, or dicts.
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    unreachable = {name for name in classes if name[0] != "_"} - set(exported)
    assert all("type_check_only" in ast.unparse(classes[name]) for name in unreachable)
    dicts = {"InputProperties", "OutputProperties", "TransactionPolicy"}
    assert unreachable - dicts == {
        *("InferenceResponseSender", "InferenceTrace", "MemoryType"),
        *("Metric", "MetricKind", "ResponseIterator"),
    }
    assert unreachable - dicts <= pb_utils.NATIVE_NAMES.keys()


def exported_by(stub):
    """Names that a stub imports from `_types` under their own name, and what it defines."""
    names = set()
    for node in ast.parse(stub.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module == "pytriton_lite.pb_utils._types":
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.AnnAssign):
            names.add(ast.unparse(node.target))
    return names


def test_stub_packages_name_all_types():
    tree = ast.parse(TYPES.read_text())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    utils, native = (exported_by(package / "__init__.pyi") for package in STUB_PACKAGES)
    assert utils == {"*", "__all__"} | {
        name for name in classes if name[0] != "_" and name not in pb_utils.__all__
    }
    # What Triton's own code uses is not for models.
    internals = {"SharedMemory", "async_event_future_done_callback", "shared_memory"}
    assert native == pb_utils.NATIVE_NAMES.keys() - internals


def test_stub_documents_what_it_names():
    tree = ast.parse(TYPES.read_text())
    documented, named = {"__init__"}, set()

    def visit(body, prefix):
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                named.add(prefix + node.name)
                if ast.get_docstring(node):
                    documented.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    assert named <= documented, named - documented


@pytest.mark.parametrize("name", ["add_sub", "dlpack", "text"])
def test_typed_models_run(name, tmp_path):
    version = tmp_path / name / "1"
    version.mkdir(parents=True)
    shutil.copy(MODELS / f"{name}.py", version / "model.py")
    x = np.array([1.0, 2.0], dtype=np.float32)
    with ptl.Server(str(tmp_path), execution="inline") as server:
        model = server.model(name)
        if name == "add_sub":
            assert model({"A": x, "B": x + 1})["SUM"].tolist() == [3.0, 5.0]
            assert model({"A": x})["DIFFERENCE"].tolist() == [0.0, 1.0]
        elif name == "dlpack":
            assert model({"IN": x})["OUT"].tolist() == [2.0, 4.0]
        else:
            words = np.array([b"ab", b"c"], dtype=object)
            assert model({"WORD": words})["UPPER"].tolist() == [b"AB", b"C"]
