"""Every instance has its own modules, and leaves none behind.

The cases are those of the design: two backends with one package name, two instances of
one model, imports at the top, inside functions, on other threads, relative, and by
`importlib.import_module`. On Triton each of them holds because an instance is a process.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.zeros(1, np.float32)


def answer_of(server: ptl.Server, model: str) -> float:
    return float(server.model(model)({"IN": X})["OUT"][0])


def shared(backend: str) -> str:
    return ECHO_CONFIG.replace("python", backend)


def test_two_backends_with_the_same_package_never_meet(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    for number, backend in ((1, "first"), (2, "second")):
        repository.backend(
            backend,
            echo_model(
                """
                from utils.values import VALUE
                import utils

                def answer(x, request):
                    from utils import late
                    return x + VALUE + 10 * late.VALUE + 100 * utils.values.VALUE
                """
            ),
            files={
                "utils/__init__.py": "from . import values",
                "utils/values.py": f"VALUE = {number}",
                "utils/late.py": f"VALUE = {number}",
            },
        )
        repository.model(f"of_{backend}", config=shared(backend))
    server = serve(execution=execution)
    assert answer_of(server, "of_first") == 111
    assert answer_of(server, "of_second") == 222


def test_module_globals_belong_to_one_instance(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    body = """
    import helper

    def answer(x, request):
        helper.COUNT += 1
        return x + helper.COUNT
    """
    repository.backend("counting", echo_model(body), files={"helper.py": "COUNT = 0"})
    repository.model("a", config=shared("counting"))
    repository.model("b", config=shared("counting"))
    server = serve(execution=execution)
    assert [answer_of(server, "a") for _ in range(3)] == [1, 2, 3]
    assert answer_of(server, "b") == 1


def test_instances_of_one_model_have_their_own_globals(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    body = """
    COUNT = 0
    """
    methods = """
    def answer(self, x, request):
        global COUNT
        COUNT += 1
        return x + COUNT
    """
    config = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
    repository.model("m", echo_model(body, methods), config=config)
    # Inline instances are taken last in, first out, so one of the two answers every call.
    server = serve(execution="inline")
    assert [answer_of(server, "m") for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            """
            import importlib
            def answer(x, request):
                return x + importlib.import_module("helper").VALUE
            """,
            id="importlib",
        ),
        pytest.param(
            """
            from importlib import import_module
            def answer(x, request):
                return x + import_module("helper").VALUE
            """,
            id="import_module",
        ),
        pytest.param(
            """
            import importlib.util
            def answer(x, request):
                assert importlib.util.find_spec("json")
                return x + __import__("helper").VALUE
            """,
            id="dunder_import",
        ),
        pytest.param(
            """
            from .helper import VALUE
            def answer(x, request):
                from . import helper
                return x + helper.VALUE
            """,
            id="relative",
        ),
        pytest.param(
            """
            import threading
            def answer(x, request):
                found = []
                def work():
                    import helper
                    found.append(helper.VALUE)
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
                return x + found[0]
            """,
            id="thread",
        ),
        pytest.param(
            """
            import starter
            VALUE = starter.VALUE
            def answer(x, request):
                return x + VALUE
            """,
            id="thread_while_importing",
        ),
        pytest.param(
            """
            import os, sys
            sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
            import in_lib
            def answer(x, request):
                import in_lib_late
                return x + in_lib.VALUE + in_lib_late.VALUE
            """,
            id="sys_path",
        ),
        pytest.param(
            """
            import pickle
            from shapes import Shape
            def answer(x, request):
                copy = pickle.loads(pickle.dumps(Shape(7)))
                return x + copy.side
            """,
            id="pickle_and_dataclass",
        ),
        pytest.param(
            """
            import in_model_folder
            def answer(x, request):
                return x + in_model_folder.VALUE
            """,
            id="model_folder",
        ),
        pytest.param(
            """
            import package.deep.module as module
            from package.deep import module as same
            def answer(x, request):
                assert module is same
                return x + module.VALUE
            """,
            id="deep_package",
        ),
        pytest.param(
            """
            import namespace_package.part
            def answer(x, request):
                return x + namespace_package.part.VALUE
            """,
            id="namespace_package",
        ),
    ],
)
def test_every_way_to_import_a_helper(
    repository: RepositoryBuilder, serve: Serve, execution: str, body: str
) -> None:
    repository.model(
        "m",
        echo_model(body),
        files={
            "1/helper.py": "VALUE = 7",
            "1/starter.py": """
                import threading
                VALUE = None
                def work():
                    global VALUE
                    import helper
                    VALUE = helper.VALUE
                thread = threading.Thread(target=work)
                thread.start()
                thread.join()
                """,
            "1/lib/in_lib.py": "VALUE = 3",
            "1/lib/in_lib_late.py": "VALUE = 4",
            "1/shapes.py": """
                from __future__ import annotations
                import dataclasses
                from typing import ClassVar

                @dataclasses.dataclass
                class Shape:
                    side: int
                    count: ClassVar[int] = 0
                """,
            "in_model_folder.py": "VALUE = 7",
            "1/package/__init__.py": "",
            "1/package/deep/__init__.py": "from ..base import BASE",
            "1/package/base.py": "BASE = 6",
            "1/package/deep/module.py": "from . import BASE\nVALUE = BASE + 1",
            "1/namespace_package/part.py": "VALUE = 7",
        },
    )
    path = list(sys.path)
    server = serve(execution=execution)
    assert answer_of(server, "m") == 7
    server.stop()
    assert sys.path == path


def test_an_installed_package_wins_over_a_helper(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    body = """
    import json, numpy
    def answer(x, request):
        return x + (json.__name__ == "json") + (numpy.__version__ is not None)
    """
    files = {"1/json.py": "raise ValueError", "1/numpy.py": "raise ValueError"}
    repository.model("m", echo_model(body), files=files)
    assert answer_of(serve(), "m") == 2


def test_a_module_of_the_application_is_not_taken_for_a_helper(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    application = tmp_path / "application"
    application.mkdir()
    (application / "shared_name.py").write_text("VALUE = 1")
    monkeypatch.syspath_prepend(str(application))
    body = """
    import shared_name
    def answer(x, request):
        return x + shared_name.VALUE
    """
    repository.model("m", echo_model(body), files={"1/shared_name.py": "VALUE = 2"})
    server = serve()
    import shared_name  # type: ignore[import-not-found]

    assert answer_of(server, "m") == 2
    assert shared_name.VALUE == 1
    del sys.modules["shared_name"]


def test_relative_import_in_a_backend_fails_as_on_triton(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.backend("b", "from .helper import x\n", files={"helper.py": "x = 1"})
    repository.model("m", config=shared("b"))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve()
    error = caught.value.exceptions[0]
    assert str(error).startswith(
        "ImportError: attempted relative import with no known parent package"
    )
    assert isinstance(error.__cause__, ImportError)


def test_library_code_imports_the_models_modules_by_name(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    # pickle and unittest are library code: no import of theirs is written in the model.
    body = """
    import io
    import pickle
    import unittest
    from types import SimpleNamespace

    class Test(unittest.TestCase):
        def test_nothing(self):
            pass

    PICKLED = b"chelper\\nKind\\n."

    def answer(x, request):
        kind = pickle._loads(PICKLED)
        result = unittest.main("model", argv=["x"], exit=False,
            testRunner=unittest.TextTestRunner(stream=io.StringIO())).result
        return x + kind.VALUE + result.testsRun
    """
    repository.model("m", echo_model(body), files={"1/helper.py": "class Kind: VALUE = 6"})
    repository.model("n", echo_model(body), files={"1/helper.py": "class Kind: VALUE = 60"})
    server = serve(execution=execution)
    assert answer_of(server, "m") == 7
    assert answer_of(server, "n") == 61
    server.stop()
    assert "helper" not in sys.modules


def test_errors_speak_of_the_names_that_the_model_used(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    body = """
    import package
    def answer(x, request):
        try:
            import package.missing
        except ModuleNotFoundError as error:
            assert error.name == "package.missing", error.name
            assert str(error) == "No module named 'package.missing'", str(error)
        from package import nothing
    """
    repository.model("m", echo_model(body), files={"1/package/__init__.py": ""})
    with pytest.raises(ptl.InternalError, match="cannot import name 'nothing' from 'package'"):
        answer_of(serve(), "m")


def test_nothing_is_left_after_unload(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    body = """
    import helper

    class Big:
        pass

    def answer(x, request):
        import late
        return x
    """
    methods = """
    @staticmethod
    def auto_complete_config(config):
        import helper
        helper.REGISTRY.append(config)
        return config

    def initialize(self, args):
        helper.REGISTRY.append(self)
    """
    files = {"1/helper.py": "REGISTRY = []", "1/late.py": "class Late: pass"}
    repository.model("m", echo_model(body, methods), files=files)
    modules, path, finders = set(sys.modules), list(sys.path), list(sys.meta_path)
    server = serve(execution=execution, model_control_mode="explicit")
    server.load("m")
    answer_of(server, "m")
    made = {
        name.rpartition(".")[2]: module
        for name, module in sys.modules.items()
        if name.startswith("pytriton_lite_") and name.endswith((".model", ".helper", ".late"))
    }
    references = [weakref.ref(module) for module in made.values()]
    references += [weakref.ref(made["model"].Big), weakref.ref(made["model"].TritonPythonModel)]
    assert len(references) == 5
    del made
    server.unload("m", wait_until_unloaded=True)
    gc.collect()
    assert [reference() for reference in references] == [None] * 5
    assert {name for name in sys.modules if name.startswith("pytriton_lite_")} == set()
    server.stop()
    assert set(sys.modules) - modules <= {"unittest.mock"}
    assert sys.path == path
    assert sys.meta_path == finders


def test_auto_complete_runs_on_a_copy_that_is_dropped(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    body = "SEEN = []"
    methods = """
    @staticmethod
    def auto_complete_config(config):
        SEEN.append(1)
        TritonPythonModel.mark = True
        return config

    def answer(self, x, request):
        return x + len(SEEN) + hasattr(TritonPythonModel, "mark")
    """
    repository.model("m", echo_model(body, methods))
    assert answer_of(serve(execution=execution), "m") == 0


def test_the_utils_module_is_registered_only_while_a_server_runs(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model())
    assert "triton_python_backend_utils" not in sys.modules
    first, second = serve(), serve()
    assert sys.modules["triton_python_backend_utils"].Tensor is ptl.pb_utils.Tensor
    first.stop()
    assert "triton_python_backend_utils" in sys.modules
    second.stop()
    assert "triton_python_backend_utils" not in sys.modules
    assert "c_python_backend_utils" not in sys.modules


class Unloading:
    """Finder that finds nothing, and meanwhile ends the model that stands before it."""

    def __init__(self, server: ptl.Server) -> None:
        self.server = server
        self.asked = 0

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "found_at_last":
            self.asked += 1
            self.server.unload("m", wait_until_unloaded=True)


@pytest.mark.parametrize("place", ["meta_path", "path"])
def test_an_import_passes_over_nothing_when_a_model_ends_meanwhile(
    repository: RepositoryBuilder,
    serve: Serve,
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = """
    import sys
    sys.path.insert(0, __file__.replace("model.py", "added"))
    from helper import VALUE
    def answer(x, request):
        return x + VALUE
    """
    repository.model("m", echo_model(body), files={"1/added/helper.py": "VALUE = 7"})
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "found_at_last.py").write_text("VALUE = 8", encoding="utf-8")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    server = serve(model_control_mode="explicit")
    server.load("m")
    assert answer_of(server, "m") == 7
    finder = Unloading(server)
    sys.path = [sys.path[0], str(tmp_path / "gate"), str(tmp_path / "library")]
    if place == "path":
        monkeypatch.setitem(sys.path_importer_cache, str(tmp_path / "gate"), finder)
    else:
        sys.meta_path.insert(sys.meta_path.index(PathFinder), finder)
    try:
        import found_at_last
    finally:
        sys.modules.pop("found_at_last", None)
    assert (found_at_last.VALUE, finder.asked) == (8, 1)
    assert not server.model("m").ready()
