"""Hot reload: ``Server(..., watch=True)``. Triton has nothing like it, so all of this is ours."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
ONE = {"IN": np.float32([1])}
PARAMETER = 'parameters { key: "p" value { string_value: "v" } }'
BROKEN = echo_model(methods="def initialize(self, args): raise ValueError('as asked')")


@pytest.fixture(params=["watchfiles", "polling"])
def notices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to learn of changes in turn."""
    if request.param == "polling":
        monkeypatch.setitem(sys.modules, "watchfiles", None)  # as if it was not installed
    return str(request.param)


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def plus(number: int) -> str:
    return echo_model(f"def answer(x, request): return x + {number}")


def value(server: ptl.Server, name: str = "m") -> float:
    return float(server[name](ONE)["OUT"][0])


def gives(server: ptl.Server, expected: float, name: str = "m") -> None:
    until(lambda: value(server, name) == expected)


NOTING = """
import os
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
{body}
"""
NOTES_LOADS = """
def initialize(self, args):
    with open(os.path.join(ROOT, args["model_name"] + ".loads"), "a") as file:
        file.write("x")
    {more}

def answer(self, x, request):
    return x + {number}
"""


def noting(number: int = 0, more: str = "pass", body: str = "") -> str:
    """A model that notes its loads, outside of its folder."""
    return echo_model(NOTING.format(body=body), NOTES_LOADS.format(number=number, more=more))


def load_count(repository: RepositoryBuilder, name: str = "m") -> int:
    return len((repository.models.parent / f"{name}.loads").read_text())


class Canary:
    """A model that shows that the watch has looked at all files, and has acted on what it saw."""

    def __init__(self, repository: RepositoryBuilder) -> None:
        self._repository = repository
        self._number = 100
        repository.model("canary", plus(self._number))

    def wait(self, server: ptl.Server) -> None:
        # What is seen at one look is loaded before the next look.
        for _ in range(2):
            self._number += 1
            self._repository.model("canary", plus(self._number))
            gives(server, self._number + 1, "canary")


@pytest.fixture
def canary(repository: RepositoryBuilder) -> Canary:
    return Canary(repository)


# -- what is a change ------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["none", "explicit", "poll"])
def test_changed_code_is_loaded(
    repository: RepositoryBuilder, serve: Serve, notices: str, mode: str
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True, model_control_mode=mode, startup_models=["*"])
    model = server["m"]
    assert value(server) == 1
    repository.model("m", plus(4))
    gives(server, 5)
    repository.model("m", plus(5))
    gives(server, 6)
    assert (model.state, model.reason) == ("READY", "")


def test_in_every_execution_mode(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True, execution=execution)
    repository.model("m", plus(4))
    gives(server, 5)
    repository.model("m", BROKEN)
    until(lambda: "as asked" in server["m"].reason)
    assert value(server) == 5


FROM_DATA = """
import os
def answer(x, request):
    folder = os.path.dirname(os.path.dirname(__file__))
    return x + float(open(os.path.join(folder, "data", "number.txt")).read())
"""


@pytest.mark.parametrize("what", ["config", "data", "version", "helper", "late helper"])
def test_all_files_of_a_model_count(
    repository: RepositoryBuilder, serve: Serve, notices: str, what: str
) -> None:
    # The data are read at the import, so that only a reload shows the new ones.
    body = """
    import os, json
    from numbers_of_mine.one import NUMBER
    with open(os.path.join(os.path.dirname(os.path.dirname(__file__)), "data.txt")) as file:
        DATA = float(file.read())
    """
    methods = """
    def initialize(self, args):
        from late import LATE
        parameters = json.loads(args["model_config"])["parameters"]
        self.sum = NUMBER + DATA + LATE + len(parameters) + 100 * int(args["model_version"])

    def answer(self, x, request):
        return x + self.sum
    """
    files = {"data.txt": "2", "1/numbers_of_mine/one.py": "NUMBER = 0", "1/late.py": "LATE = 0"}
    repository.model("m", echo_model(body, methods), files=files)
    server = serve(watch=True)
    assert value(server) == 103
    if what == "config":
        repository.model("m", config=ECHO_CONFIG + PARAMETER)
    elif what == "data":
        repository.model("m", files={"data.txt": "3"})
    elif what == "helper":
        repository.model("m", files={"1/numbers_of_mine/one.py": "NUMBER = 1"})
    elif what == "late helper":
        repository.model("m", files={"1/late.py": "LATE = 1"})
    else:
        at = repository.models / "m"
        shutil.copytree(at / "1", at / "2")
        gives(server, 203)
        shutil.rmtree(at / "2")
        gives(server, 103)
        return
    gives(server, 104)


def test_a_changed_backend_reloads_all_its_models(
    repository: RepositoryBuilder, serve: Serve, notices: str
) -> None:
    source = echo_model("from lib.answers import answer")
    before = {"lib/answers.py": "def answer(x, request): return x + 1"}
    repository.backend("shared", source, files=before)
    for name in ("a", "b"):
        repository.model(name, config=ECHO_CONFIG.replace("python", "shared"))
    server = serve(watch=True)
    assert value(server, "a") == value(server, "b") == 2
    repository.backend("shared", source, files={"lib/answers.py": before["lib/answers.py"] + "0"})
    gives(server, 11, "a")
    gives(server, 11, "b")


def test_links_are_followed(
    repository: RepositoryBuilder, serve: Serve, notices: str, tmp_path: Path
) -> None:
    (tmp_path / "src" / "lib").mkdir(parents=True)
    code, lib = tmp_path / "src" / "code.py", tmp_path / "src" / "lib" / "__init__.py"
    code.write_text(echo_model("from lib import NUMBER\ndef answer(x, request): return x + NUMBER"))
    lib.write_text("NUMBER = 1")
    folder = repository.model("m")
    (folder / "1" / "model.py").symlink_to(code)
    (folder / "1" / "lib").symlink_to(lib.parent)
    (folder / "1" / "loop").symlink_to(folder)
    server = serve(watch=True)
    assert value(server) == 2
    lib.write_text("NUMBER = 20")
    gives(server, 21)
    code.write_text(code.read_text() + "    # longer\n" + "NUMBER *= 2\n")
    gives(server, 41)


def test_named_paths_reload_all_models(
    repository: RepositoryBuilder, serve: Serve, notices: str, tmp_path: Path
) -> None:
    repository.model("m", noting())
    data = tmp_path / "data.txt"
    server = serve(watch=True, watch_paths=[data])
    data.write_text("new")
    until(lambda: load_count(repository) == 2)
    data.unlink()
    until(lambda: load_count(repository) == 3)
    assert value(server) == 1


def test_other_instance_groups_keep_the_instances(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Path
) -> None:
    groups = "instance_group {{ count: {} kind: KIND_CPU }}"
    repository.model("m", noting(), config=ECHO_CONFIG + groups.format(1))
    data = tmp_path / "data.txt"
    server = serve(watch=True, watch_paths=[data])
    repository.model("m", config=ECHO_CONFIG + groups.format(2))
    until(lambda: load_count(repository) == 2)
    until(lambda: server["m"].config()["instance_group"][0]["count"] == 2)
    # What has failed to load with other files is made anew.
    data.write_text("new")
    repository.model("m", noting(more="raise ValueError"))
    until(lambda: server["m"].reason)
    failed = load_count(repository)
    repository.model("m", noting(), config=ECHO_CONFIG + groups.format(3))
    until(lambda: server["m"].config()["instance_group"][0]["count"] == 3)
    assert load_count(repository) >= failed + 3


def test_what_is_no_change(
    repository: RepositoryBuilder, serve: Serve, notices: str, canary: Canary
) -> None:
    folder = repository.model("m", noting())
    server = serve(watch=True)
    for path in (
        "1/__pycache__/model.cpython-311.pyc",
        "1/.model.py.swp",
        "1/model.py~",
        "1/#model.py#",
        ".git/index",
        "1/.ruff_cache/x/y",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("")
    (folder / "1" / ".#model.py").symlink_to("somebody@somewhere")
    (repository.models / "plain file").write_text("")
    canary.wait(server)
    assert load_count(repository) == 1


def test_new_folders_are_left_to_poll_mode(
    repository: RepositoryBuilder, serve: Serve, canary: Canary
) -> None:
    server = serve(watch=True)
    repository.model("m", noting())
    canary.wait(server)
    assert server["m"].state == "UNKNOWN"


# -- how files are written -------------------------------------------------------------


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Holds `HELD` models in `initialize`; they find it in `threading`."""
    shared = SimpleNamespace(entered=threading.Semaphore(0), goes_on=threading.Semaphore(0))
    monkeypatch.setattr(threading, "watch_gate", shared, raising=False)
    yield shared
    for _ in range(100):
        shared.goes_on.release()


HELD = "threading.watch_gate.entered.release(); threading.watch_gate.goes_on.acquire(timeout=30)"


def test_many_changes_are_one_reload(
    repository: RepositoryBuilder, serve: Serve, notices: str, gate: SimpleNamespace, canary: Canary
) -> None:
    repository.model("m", noting())
    server = serve(watch=True)
    repository.model("m", noting(1, HELD, "import threading"))
    assert gate.entered.acquire(timeout=20)
    # As editors do: in several steps, to another file that takes the place of the first.
    path = repository.models / "m" / "1" / "model.py"
    for number in range(2, 30):
        new = path.with_name("model.py.tmp")
        new.write_text("")
        new.write_text(noting(number))
        path.unlink()
        new.rename(path)
    gate.goes_on.release()
    gives(server, 30)
    canary.wait(server)
    assert load_count(repository) == 3


def test_a_change_during_a_reload_is_not_lost(
    repository: RepositoryBuilder, serve: Serve, notices: str, gate: SimpleNamespace
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True)
    repository.model("m", noting(1, HELD, "import threading"))
    assert gate.entered.acquire(timeout=20)
    repository.model("m", plus(7))
    assert value(server) == 1  # the old one serves meanwhile
    gate.goes_on.release()
    gives(server, 8)


def test_a_folder_that_comes_back(
    repository: RepositoryBuilder, serve: Serve, notices: str, tmp_path: Path
) -> None:
    folder = repository.model("m", plus(0))
    server = serve(watch=True)
    folder.rename(tmp_path / "away")
    until(lambda: "there is no folder of model 'm'" in server.model("m").reason)
    assert value(server) == 1
    (tmp_path / "away").rename(folder)
    until(lambda: server["m"].reason == "")
    repository.model("m", plus(1))
    gives(server, 2)


@pytest.mark.parametrize("execution", ["thread", "process"])
def test_an_edit_of_the_same_size_in_the_same_second(
    repository: RepositoryBuilder, serve: Serve, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Python compiles is taken for that of any source of that second and size.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    source = echo_model("from helper import NUMBER\ndef answer(x, request): return x + NUMBER")
    second = 1_700_000_000
    helper = repository.model("m", source, files={"1/helper.py": "NUMBER = 1"}) / "1" / "helper.py"
    os.utime(helper, ns=(0, second * 10**9))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    assert value(server) == 2
    compiled = Path(importlib.util.cache_from_source(str(helper)))
    helper.write_text("NUMBER = 2")
    os.utime(helper, ns=(0, second * 10**9 + 5 * 10**8))
    os.utime(compiled, ns=(0, second * 10**9 + 10**8))  # between the two
    server.load("m")
    assert value(server) == 3


# -- edits that fail -------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["code", "syntax", "config"])
def test_a_failing_edit_leaves_the_old_version(
    repository: RepositoryBuilder,
    serve: Serve,
    notices: str,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    folder = repository.model("m", plus(0))
    server = serve(watch=True)
    model = server["m"]
    status, text, shown = {
        "code": ("Internal", "ValueError: as asked", ValueError),
        "syntax": ("Internal", "SyntaxError: invalid syntax", SyntaxError),
        "config": ("Invalid argument", f"{folder}/config.pbtxt", ptl.ConfigError),
    }[broken]
    if broken == "code":
        repository.model("m", BROKEN)
    elif broken == "syntax":
        (folder / "1" / "model.py").write_text("this is no python")
    else:
        repository.model("m", config=ECHO_CONFIG + "no_such_field: 1")
    until(lambda: model.reason)
    assert model.reason.startswith(f"reload failed: {status}: ")
    assert text in model.reason
    (entry,) = server.index()
    assert (entry.state.value, entry.reason) == ("READY", model.reason)
    assert model(ONE)["OUT"].tolist() == [1]
    assert server.ready()
    (record,) = [r for r in caplog.records if r.exc_info]
    assert "model 'm' has changed and does not load; what was loaded" in record.getMessage()
    assert isinstance(record.exc_info[1], shown)
    if broken == "code":
        assert "in initialize" in caplog.text  # of the traceback
    repository.model("m", plus(3))
    gives(server, 4)
    assert model.reason == ""


def test_a_failed_reload_is_not_repeated(
    repository: RepositoryBuilder, serve: Serve, notices: str, canary: Canary
) -> None:
    repository.model("m", noting())
    server = serve(watch=True)
    repository.model("m", noting(more="raise ValueError"))
    until(lambda: server["m"].reason)
    canary.wait(server)
    assert load_count(repository) == 2


def test_a_model_that_failed_at_the_start_is_tried_again(
    repository: RepositoryBuilder, serve: Serve, notices: str
) -> None:
    repository.model("code", BROKEN)
    repository.model("config", plus(0), config="no_such_field: 1")
    server = serve(watch=True, exit_on_error=False)
    assert not server.ready()
    repository.model("code", plus(1))
    repository.model("config", plus(2))
    until(lambda: server["code"].ready() and server["config"].ready())
    assert (value(server, "code"), value(server, "config")) == (2, 3)
    assert server.ready()


def test_an_unexpected_error_does_not_end_the_watch(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True)
    from pytriton_lite._repository.files import ReadFiles

    seen = threading.Event()

    def fail(self: object) -> None:
        seen.set()
        raise OSError("as asked")

    with monkeypatch.context() as patched:
        patched.setattr(ReadFiles, "changes", fail)
        assert seen.wait(20)
    repository.model("m", plus(1))
    gives(server, 2)


def test_a_watch_that_the_system_refuses(
    repository: RepositoryBuilder,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    import watchfiles

    def refuse(*_: object, **__: object) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    repository.model("m", plus(0))
    server = serve(watch=True)
    repository.model("m", plus(1))
    gives(server, 2)
    text = "watchfiles does not work, files are looked at every 0.5 s: OS file watch limit reached"
    assert caplog.text.count(text) == 1


# -- together with explicit control ----------------------------------------------------


def test_what_is_unloaded_stays_so(
    repository: RepositoryBuilder, serve: Serve, notices: str, canary: Canary
) -> None:
    repository.model("m", noting())
    server = serve(watch=True, model_control_mode="explicit", startup_models=["*"])
    server.unload("m", wait_until_unloaded=True)
    repository.model("m", noting(1))
    canary.wait(server)
    assert (server["m"].state, server["m"].reason) == ("UNAVAILABLE", "unloaded")
    assert load_count(repository) == 1
    server.load("m")
    repository.model("m", noting(2))
    gives(server, 3)


def test_what_a_load_has_seen_is_not_loaded_again(
    repository: RepositoryBuilder, serve: Serve, notices: str, gate: SimpleNamespace, canary: Canary
) -> None:
    repository.model("m", noting())
    server = serve(watch=True, model_control_mode="explicit", startup_models=["*"])
    # The watch cannot look while it loads another model.
    repository.model("canary", noting(1, HELD, "import threading"))
    assert gate.entered.acquire(timeout=20)
    repository.model("m", noting(1))
    server.load("m")
    gate.goes_on.release()
    canary.wait(server)
    assert value(server) == 2
    assert load_count(repository) == 2


def test_an_unload_during_a_reload(
    repository: RepositoryBuilder, serve: Serve, gate: SimpleNamespace, canary: Canary
) -> None:
    repository.model("m", noting())
    server = serve(watch=True, model_control_mode="explicit", startup_models=["*"])
    repository.model("m", noting(1, HELD, "import threading"))
    assert gate.entered.acquire(timeout=20)
    unloading = threading.Thread(target=server.unload, args=("m", False, True))
    unloading.start()
    repository.model("m", noting(2))
    gate.goes_on.release()
    unloading.join(20)
    assert not unloading.is_alive()
    canary.wait(server)
    assert (server["m"].state, load_count(repository)) == ("UNAVAILABLE", 2)


GIVEN = {
    "backend": "python",
    "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}],
}


def test_a_given_configuration_stays_in_force(
    repository: RepositoryBuilder, serve: Serve, notices: str
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True, model_control_mode="explicit")
    parameters = {"p": {"string_value": "given"}}
    server.load("m", {"config": json.dumps({**GIVEN, "parameters": parameters})})
    repository.model("m", plus(1))
    gives(server, 2)
    assert server["m"].config()["parameters"] == parameters


def test_given_files_stay_in_force(
    repository: RepositoryBuilder, serve: Serve, notices: str, canary: Canary
) -> None:
    methods = """
    def initialize(self, args):
        with open(os.path.join(pb_utils.get_model_dir(), "number.txt")) as file:
            self.number = float(file.read())

    def answer(self, x, request):
        return x * FACTOR + self.number
    """
    source = echo_model("import os\nFACTOR = {}", methods)
    repository.backend("shared", source.format(1))
    repository.model("m", plus(0))
    server = serve(watch=True, model_control_mode="explicit", startup_models=["canary"])
    config = json.dumps({**GIVEN, "backend": "shared"})
    server.load("m", {"config": config, "file:1/number.txt": b"5"})
    assert value(server) == 6
    repository.model("m", plus(100))  # is not what the model is made of
    canary.wait(server)
    assert value(server) == 6
    repository.backend("shared", source.format(10))
    gives(server, 15)
    repository.backend("shared", source.format(100))
    gives(server, 105)


def test_a_failed_load_with_a_configuration_is_not_repeated(
    repository: RepositoryBuilder, serve: Serve, canary: Canary
) -> None:
    repository.model("m", noting(more="raise ValueError"))
    server = serve(watch=True, model_control_mode="explicit", startup_models=["canary"])
    with pytest.raises(ptl.ModelLoadError):
        server.load("m", {"config": json.dumps(GIVEN)})
    repository.model("m", noting())
    canary.wait(server)
    assert load_count(repository) == 1


# -- models that write, requests in flight, the end -------------------------------------


def test_a_model_that_writes_into_its_folder(
    repository: RepositoryBuilder,
    serve: Serve,
    notices: str,
    canary: Canary,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = "os.path.join(os.path.dirname(__file__), 'log')"
    writes = f"with open({log}, 'a') as file: file.write('x')"
    folder = repository.model("m", noting(more=writes))
    server = serve(watch=True)
    text = f"model 'm' writes '{folder}/1/log' each time it is loaded: changes of that file do not"
    until(lambda: text in caplog.text)
    canary.wait(server)
    # The second load shows that the file is written each time, and not by somebody else.
    assert load_count(repository) == 2
    repository.model("m", noting(1, more=writes))
    gives(server, 2)
    canary.wait(server)
    assert load_count(repository) == 3
    assert caplog.text.count(text) == 1


def test_requests_in_flight_finish_on_the_old_version(
    repository: RepositoryBuilder, serve: Serve, notices: str, gate: SimpleNamespace
) -> None:
    held = f"import threading\ndef answer(x, request):\n    {HELD}\n    return x"
    repository.model("m", echo_model(held))
    server = serve(watch=True)
    asked = server["m"].submit(ONE)
    assert gate.entered.acquire(timeout=20)
    # The old version would hold who asks it, so the configuration tells which one serves.
    repository.model("m", plus(4), config=ECHO_CONFIG + PARAMETER)
    until(lambda: server["m"].config()["parameters"])
    assert value(server) == 5
    assert not asked.done()
    gate.goes_on.release()
    assert asked.result(20)["OUT"].tolist() == [1]


def test_stop_during_a_reload(
    repository: RepositoryBuilder, serve: Serve, gate: SimpleNamespace
) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True)
    repository.model("m", noting(1, HELD, "import threading"))
    assert gate.entered.acquire(timeout=20)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: not server.live())
    gate.goes_on.release()
    stopping.join(20)
    assert not stopping.is_alive()
    # `serve` looks for threads that are left.


def test_stop_at_once(repository: RepositoryBuilder, serve: Serve, notices: str) -> None:
    repository.model("m", plus(0))
    server = serve(watch=True)
    server.stop()
    assert not [t for t in threading.enumerate() if t.name == "model-watch"]


def test_nothing_is_watched_by_default(
    repository: RepositoryBuilder, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    repository.model("m", plus(0))
    with caplog.at_level(logging.DEBUG, "pytriton_lite"):
        serve()
    assert not [t for t in threading.enumerate() if t.name == "model-watch"]


def test_options() -> None:
    with pytest.raises(ptl.InvalidArgumentError, match="watch_paths means nothing without watch"):
        ptl.Server("models", watch_paths=["x"])
    with pytest.raises(ptl.InvalidArgumentError, match="watch_paths is a sequence of paths"):
        ptl.Server("models", watch=True, watch_paths="x")
