"""Loading and unloading by model code. Texts and rules were observed on Triton 2.51.

There most refusals crash the server now and then, so each was asked for until it was answered.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._control import InstanceScope
from pytriton_lite.pb_utils.control import make_control_functions
from tests.support.limits import until, within
from tests.support.modes import ALL, in_process
from tests.support.repository import RepositoryBuilder, echo_model
from tests.support.scripted import Script

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
NOT_READY = "Server not ready"
OUT_OF_REACH = (
    "the models of the server can be reached while an instance is loaded only, not in "
    "`auto_complete_config`"
)
ITSELF = "cannot be loaded here: its load would wait for the one that this code is part of"

# The test's own functions, by "<model>.<step>"; they get the utils of the model.
HOOKED = """
import os

import c_python_backend_utils as native
from tests.support.remote import Utils
from tests.support.scripted import find_script

FOLDER = os.path.dirname(os.path.dirname(__file__))
script = find_script(SCRIPT, is_async=False)

def hook(step, utils):
    script.execute([f"{os.path.basename(FOLDER)}.{step}", Utils(utils)])

hook("import", native)
"""
HOOKED_METHODS = """
@staticmethod
def auto_complete_config(config):
    hook("auto_complete", pb_utils)
    return config

def initialize(self, args):
    hook("initialize", pb_utils)

def answer(self, x, request):
    hook("execute", pb_utils)
    return x + NUMBER

def finalize(self):
    hook("finalize", pb_utils)
"""
Hooks = dict[str, Callable[[Any], object]]


@pytest.fixture
def hooks(in_stubs: None) -> Hooks:
    """What hooked models call."""
    functions: Hooks = {}

    def call(given: list[Any]) -> None:
        step, utils = given
        function = functions.get(step)
        if function is not None:
            function(utils)

    SCRIPT.execute = call
    return functions


SCRIPT = Script()


def hooked(number: int = 0) -> str:
    body = HOOKED.replace("SCRIPT", str(SCRIPT.number))
    return echo_model(body + f"\nNUMBER = {number}\n", HOOKED_METHODS)


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(server: ptl.Server, name: str = "caller") -> list[float]:
    """One request, within the limit of this module."""
    return within(20, ask, server[name])


def ask(model: ptl.Model) -> list[float]:
    answer: list[float] = model({"IN": X})["OUT"].tolist()
    return answer


def refusal(call: Callable[[], object]) -> ptl.pb_utils.TritonModelException:
    try:
        result = call()
    except pb_utils.TritonModelException as error:
        return error
    raise AssertionError(f"not refused: {result!r}")


def states(server: ptl.Server) -> dict[str, str]:
    return {entry.name: entry.state.value for entry in server.index()}


# -- arguments -------------------------------------------------------------------------


class Recorder:
    """A `ModelControl` that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def load(self, name: str, parameters: Any) -> None:
        self.calls.append(("load", name, parameters))

    def unload(self, name: str) -> None:
        self.calls.append(("unload", name))

    def is_ready(self, name: str, version: int) -> bool:
        self.calls.append(("is_ready", name, version))
        return True

    def endpoint(self, name: str, version: int) -> Any:
        raise NotImplementedError


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def functions(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    """The functions as the instance `i_0` has them."""
    scope = InstanceScope(recorder, "i_0")
    return make_control_functions(lambda: scope)


SIGNATURES = {
    "load_model": "(model_name: str, config: str = '', files: object = None) -> None",
    "unload_model": "(model_name: str, unload_dependents: bool = False) -> None",
    "is_model_ready": "(model_name: str, model_version: str = '') -> bool",
}


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "shown"),
    [
        ("load_model", (), {}, ""),
        ("load_model", (1,), {}, "1"),
        ("load_model", ("m", 1), {}, "'m', 1"),
        ("load_model", ("m", None), {}, "'m', None"),
        ("load_model", ("m",), {"foo": 1}, "'m'; kwargs: foo=1"),
        ("load_model", ("\ud800",), {}, "'\\ud800'"),
        ("unload_model", (), {}, ""),
        ("unload_model", (1,), {}, "1"),
        ("unload_model", ("m", None), {}, "'m', None"),
        ("unload_model", ("m", "x"), {}, "'m', 'x'"),
        ("unload_model", ("m", []), {}, "'m', []"),
        ("unload_model", ("m", np.array([1, 2])), {}, "'m', array([1, 2])"),
        ("is_model_ready", (), {}, ""),
        ("is_model_ready", (1,), {}, "1"),
        ("is_model_ready", ("m", 1), {}, "'m', 1"),
        ("is_model_ready", ("m", None), {}, "'m', None"),
        ("is_model_ready", ("m", "1", "2"), {}, "'m', '1', '2'"),
        ("is_model_ready", ("m",), {"version": "1"}, "'m'; kwargs: version='1'"),
    ],
)
def test_wrong_arguments(  # noqa: PLR0917
    functions: dict[str, Callable[..., Any]],
    recorder: Recorder,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    shown: str,
) -> None:
    with pytest.raises(TypeError) as caught:
        functions[name](*args, **kwargs)
    assert str(caught.value) == (
        f"{name}(): incompatible function arguments. The following argument types are supported:\n"
        f"    1. {SIGNATURES[name]}\n\nInvoked with: {shown}"
    )
    assert not recorder.calls


@pytest.mark.parametrize(
    ("files", "kind", "text"),
    [
        (
            1,
            pb_utils.TritonModelException,
            "failed to load model 'm', files should be a dictionary of file paths and file "
            "contents",
        ),
        (
            [],
            pb_utils.TritonModelException,
            "failed to load model 'm', files should be a dictionary of file paths and file "
            "contents",
        ),
        ({"file:1/x": 1}, TypeError, "Object of type 'int' is not an instance of 'bytes'"),
        ({"file:1/x": "t"}, TypeError, "Object of type 'str' is not an instance of 'bytes'"),
        (
            {"file:1/x": bytearray(b"t")},
            TypeError,
            "Object of type 'bytearray' is not an instance of 'bytes'",
        ),
        (
            {1: b"t"},
            RuntimeError,
            "Unable to cast Python instance to C++ type (#define PYBIND11_DETAILED_ERROR_MESSAGES "
            "or compile in debug mode for details)",
        ),
    ],
)
def test_wrong_files(
    functions: dict[str, Callable[..., Any]],
    recorder: Recorder,
    files: Any,
    kind: type[Exception],
    text: str,
) -> None:
    with pytest.raises(kind) as caught:
        functions["load_model"]("m", "{}", files)
    assert type(caught.value) is kind
    assert str(caught.value) == text
    assert not recorder.calls


def test_arguments_that_are_taken(
    functions: dict[str, Callable[..., Any]], recorder: Recorder
) -> None:
    load, unload, ready = (functions[name] for name in SIGNATURES)
    assert load("m") is load("m", files={}) is load(model_name=b"m", config="", files=None) is None
    assert load("m", config="{}", files={b"file:a": b"1", "b": b"2"}) is None
    for flag in (1, 0.0, np.bool_(True), True):
        assert unload("m", unload_dependents=flag) is None
    assert ready(b"m", b"1") is ready(model_name="m", model_version="") is True
    assert recorder.calls == [
        *[("load", "m", {})] * 3,
        ("load", "m", {"config": "{}", "file:a": b"1", "b": b"2"}),
        *[("unload", "m")] * 4,
        ("is_ready", "m", -1),
        ("is_ready", "m", 1),
        ("is_ready", "m", -1),
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1), ("01", 1), (" 1", 1), ("\t1", 1), ("1 ", 1), ("+1", 1), ("1x", 1), ("1.5", 1),
        ("0x1", 0), ("-0", 0), ("0", 0), ("9223372036854775807", 9223372036854775807),
    ],
)  # fmt: skip
def test_versions(
    functions: dict[str, Callable[..., Any]], recorder: Recorder, text: str, number: int
) -> None:
    assert functions["is_model_ready"]("m", text) is True
    assert recorder.calls[-1] == ("is_ready", "m", number)


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("-1", ""),
        ("-9223372036854775808", ""),
        ("abc", " (details: stol)"),
        ("x1", " (details: stol)"),
        ("-", " (details: stol)"),
        ("--1", " (details: stol)"),
        ("9223372036854775808", " (details: stol)"),
        ("99999999999999999999999", " (details: stol)"),
        ("9" * 5000, " (details: stol)"),
        ("٣", " (details: stol)"),
    ],
)
def test_texts_that_are_no_version(
    functions: dict[str, Callable[..., Any]], text: str, details: str
) -> None:
    error = refusal(lambda: functions["is_model_ready"]("m", text))
    assert str(error) == (
        "Failed to check model readiness: Failed to process the request for model 'i_0', message: "
        f"failed to get model version from specified version string '{text}'{details}, version "
        "should be an integral value > 0"
    )


def test_they_look_like_those_of_the_native_module(
    functions: dict[str, Callable[..., Any]],
) -> None:
    for name in SIGNATURES:
        assert functions[name].__module__ == "c_python_backend_utils"
        assert functions[name].__name__ == name
        assert functions[name].__doc__


def test_outside_of_a_model_they_refuse() -> None:
    for call in (pb_utils.load_model, pb_utils.unload_model, pb_utils.is_model_ready):
        with pytest.raises(ptl.UnsupportedError, match="belongs to no server"):
            call("m")


# -- in execute ------------------------------------------------------------------------


@pytest.fixture
def server(repository: RepositoryBuilder, serve: Serve, execution: str, hooks: Hooks) -> ptl.Server:
    """Serves the hooked model `caller`; `other` and `third` can be loaded."""
    for name in ("caller", "other", "third"):
        repository.model(name, hooked())
    mode: Any = execution
    if execution == "process":  # those whose code asks for something
        mode = {"caller": "process", "third": "process", "*": "thread"}
    return serve(execution=mode, model_control_mode="explicit", startup_models=["caller"])


def test_load_unload_and_readiness(server: ptl.Server, hooks: Hooks) -> None:
    seen: list[object] = []

    def execute(utils: Any) -> None:
        for call in (
            lambda: utils.is_model_ready("caller"),
            lambda: utils.is_model_ready("other"),
            lambda: utils.load_model("other"),
            lambda: utils.is_model_ready("other"),
            lambda: utils.is_model_ready("other", "1"),
            lambda: utils.is_model_ready("other", "2"),
            lambda: utils.unload_model("other"),
            lambda: utils.is_model_ready("other"),
            lambda: utils.unload_model("ghost"),
            lambda: utils.is_model_ready("ghost"),
            lambda: utils.is_model_ready(""),
        ):
            seen.append(call())

    hooks["caller.execute"] = execute
    run(server)
    assert seen == [True, False, None, True, True, False, None, False, None, False, False]
    until(lambda: states(server)["other"] == "UNAVAILABLE")


def test_refused_loads(
    server: ptl.Server, repository: RepositoryBuilder, hooks: Hooks, execution: str
) -> None:
    repository.model("bad", echo_model("raise ValueError('boom')"))
    repository.model("unreadable", hooked(), config='platform: "foo"')
    errors: list[tuple[str, BaseException]] = []
    config = '{"backend": "python"}'

    def execute(utils: Any) -> None:
        for name, more in (
            ("ghost", ()),
            ("", ()),
            ("../caller", ()),
            ("unreadable", ()),
            ("other", ("{bad",)),
            ("other", ("", {"file:1/model.py": b""})),
            ("other", ("", {"1/model.py": b""})),
            ("other", (config, {"file:../x.py": b""})),
        ):
            error = refusal(lambda: utils.load_model(name, *more))  # noqa: B023 - called at once
            errors.append((name, error))
        errors.append(("bad", refusal(lambda: utils.load_model("bad"))))

    hooks["caller.execute"] = execute
    run(server)
    _, last = errors.pop()
    prefix = "Failed to load model: Failed to process the request for model 'caller_0', message: "
    for name, error in errors:
        assert str(error) == (
            f"{prefix}failed to load '{name}', failed to poll from model repository"
        )
        # Triton has the reason in its log only.
        assert isinstance(error.__cause__, ptl.ModelLoadError)
        (reason,) = error.__cause__.exceptions
        assert isinstance(reason, ptl.InvalidArgumentError | ptl.NotFoundError)
        assert str(reason)
    assert str(last).startswith(
        f"{prefix}load failed for model 'bad': version 1 is at UNAVAILABLE state: Internal: "
        "ValueError: boom\n\nAt:\n"
    )
    assert str(last).endswith(";\n")
    assert isinstance(last.__cause__, ptl.ModelLoadError)
    if execution != "process":  # from where this error goes to the test without what caused it
        assert isinstance(last.__cause__.exceptions[0].__cause__, ValueError)


def test_config_and_files(server: ptl.Server, hooks: Hooks) -> None:
    config = json.dumps(
        {
            "backend": "python",
            "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
            "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}],
        }
    )
    files = {"file:3/model.py": echo_model("def answer(x, request): return x + 30").encode()}
    hooks["caller.execute"] = lambda utils: utils.load_model("made", config, {**files, "x": b""})
    run(server)
    assert run(server, "made") == [31, 32]
    assert "made" not in states(server)


@in_process("a hook of a stub's model runs on a thread of the test")
def test_an_inline_model_loads_the_other_on_its_thread(
    server: ptl.Server, hooks: Hooks, execution: str
) -> None:
    threads: dict[str, int] = {}
    folders: list[str] = []

    def execute(utils: Any) -> None:
        threads["execute"] = threading.get_ident()
        utils.load_model("other")
        # What library code finds by name is that of the model whose code runs.
        folders.append(sys.modules["triton_python_backend_utils"].get_model_dir())

    def initialize(utils: Any) -> None:
        threads["initialize"] = threading.get_ident()
        folders.append(sys.modules["triton_python_backend_utils"].get_model_dir())

    hooks.update({"caller.execute": execute, "other.initialize": initialize})
    run(server)
    assert (threads["execute"] == threads["initialize"]) is (execution == "inline")
    assert [folder.rsplit("/", 2)[1] for folder in folders] == ["other", "caller"]


def test_a_thread_model_loads_an_inline_model(
    repository: RepositoryBuilder, serve: Serve, hooks: Hooks
) -> None:
    for name in ("caller", "other"):
        repository.model(name, hooked())
    server = serve(
        execution={"other": "inline", "*": "thread"},
        model_control_mode="explicit",
        startup_models=["caller"],
    )
    threads: list[int] = []

    def execute(utils: Any) -> None:
        utils.load_model("other")
        utils.unload_model("other")
        utils.load_model("other")

    hooks["caller.execute"] = execute
    hooks["other.initialize"] = hooks["other.finalize"] = lambda _: threads.append(
        threading.get_ident()
    )
    run(server)
    until(lambda: len(threads) == 3 and not server._loaded.models._ending)
    assert len(set(threads)) == 2
    assert run(server, "other") == [1, 2]


@in_process("in a stub there is but one model")
def test_library_code_reaches_the_server_of_its_thread(server: ptl.Server, hooks: Hooks) -> None:
    seen: list[object] = []
    ambient = sys.modules["triton_python_backend_utils"]

    def execute(_utils: Any) -> None:
        seen.append(ambient.is_model_ready("caller"))
        seen.append(str(refusal(lambda: ambient.load_model("ghost"))).partition(",")[0])

    hooks["caller.execute"] = execute
    run(server)
    assert seen == [
        True,
        "Failed to load model: Failed to process the request for model 'caller_0'",
    ]
    with pytest.raises(ptl.UnsupportedError, match="belongs to no server"):
        ambient.is_model_ready("caller")


def test_each_instance_reaches_its_own_server(
    server: ptl.Server, serve: Serve, hooks: Hooks, execution: str
) -> None:
    second = serve(execution=execution, model_control_mode="explicit", startup_models=["*"])
    seen: list[bool] = []
    hooks["caller.execute"] = lambda utils: seen.append(utils.is_model_ready("other"))
    run(server)
    run(second)
    assert seen == [False, True]


def test_other_modes_have_readiness_only(
    repository: RepositoryBuilder, serve: Serve, execution: str, hooks: Hooks
) -> None:
    for name in ("caller", "other"):
        repository.model(name, hooked())
    server = serve(execution=execution)
    seen: list[object] = []

    def execute(utils: Any) -> None:
        seen.append(utils.is_model_ready("other"))
        seen.append(utils.is_model_ready("ghost"))
        for call in (utils.load_model, utils.unload_model):
            error = refusal(lambda: call("other"))  # noqa: B023 - called at once
            assert isinstance(error.__cause__, ptl.UnavailableError)
            seen.append(str(error))

    hooks["caller.execute"] = execute
    run(server)
    message = f"Failed to process the request for model 'caller_0', message: {EXPLICIT}"
    assert seen == [
        True,
        False,
        f"Failed to load model: {message}",
        f"Failed to unload model: {message}",
    ]


# -- in the other steps ----------------------------------------------------------------


def ask_all(seen: list[str]) -> Callable[[Any], None]:
    """A hook that notes how each function is refused."""

    def hook(utils: Any) -> None:
        for call in (utils.load_model, utils.unload_model, utils.is_model_ready):
            seen.append(str(refusal(lambda: call("other"))))  # noqa: B023 - called at once

    return hook


def refusals(name: str, reason: str) -> list[str]:
    return [
        f"Failed to {what}: Failed to process the request for model '{name}', message: {reason}"
        for what in ("load model", "unload model", "check model readiness")
    ]


def test_while_the_server_starts_and_stops(
    repository: RepositoryBuilder, serve: Serve, execution: str, hooks: Hooks
) -> None:
    for name in ("caller", "other"):
        repository.model(name, hooked())
    seen: list[str] = []
    hooks["caller.initialize"] = hooks["caller.finalize"] = ask_all(seen)
    for options in ({}, {"model_control_mode": "explicit", "startup_models": ["caller"]}):
        seen.clear()
        server = within(20, lambda: serve(execution=execution, **options))  # noqa: B023
        assert seen == refusals("caller_0", NOT_READY)
        within(20, server.stop)
        assert seen[3:] == refusals("caller_0", NOT_READY)


@pytest.mark.parametrize("step", ["auto_complete", "import"])
def test_auto_complete_reaches_no_models(server: ptl.Server, hooks: Hooks, step: str) -> None:
    # Triton never answers there.
    seen: list[str] = []
    hooks[f"third.{step}"] = lambda utils: seen or ask_all(seen)(utils)
    within(20, server.load, "third")
    assert seen == refusals("third_auto_complete", OUT_OF_REACH)


def test_initialize_and_finalize_may_control_models(server: ptl.Server, hooks: Hooks) -> None:
    seen: list[object] = []

    def initialize(utils: Any) -> None:
        seen.append(utils.is_model_ready("third"))
        seen.append(utils.load_model("other"))
        seen.append(utils.is_model_ready("other"))
        seen.append(utils.unload_model("other"))

    hooks["third.initialize"] = initialize
    hooks["third.finalize"] = lambda utils: seen.append(utils.load_model("other"))
    within(20, server.load, "third")
    assert seen == [False, None, True, None]
    within(20, lambda: server.unload("third", wait_until_unloaded=True))
    assert seen[4:] == [None]
    assert states(server) == {"caller": "READY", "other": "READY", "third": "UNAVAILABLE"}


@in_process("nothing is left of one in a stub")
def test_what_is_left_of_an_unloaded_model_is_refused(server: ptl.Server, hooks: Hooks) -> None:
    kept: list[Any] = []
    hooks["third.initialize"] = lambda utils: kept.extend([utils.load_model, utils.is_model_ready])
    server.load("third")
    server.unload("third", wait_until_unloaded=True)
    for function in kept:
        assert str(refusal(lambda: function("other"))).endswith(OUT_OF_REACH)  # noqa: B023


# -- of itself -------------------------------------------------------------------------


def test_a_model_unloads_itself_in_execute(server: ptl.Server, hooks: Hooks) -> None:
    order: list[str] = []

    def execute(utils: Any) -> None:
        assert utils.unload_model("caller") is None
        assert not utils.is_model_ready("caller")
        assert states(server)["caller"] == "UNLOADING"
        threading.Event().wait(0.1)  # `finalize` would have its chance
        order.append("execute")

    hooks.update({"caller.execute": execute, "caller.finalize": lambda _: order.append("finalize")})
    assert run(server) == [1, 2]
    until(lambda: states(server)["caller"] == "UNAVAILABLE")
    assert order == ["execute", "finalize"]
    with pytest.raises(ptl.NotFoundError, match="'caller' has no available versions"):
        run(server)
    assert within(20, server.load, "caller").state == "READY"


def test_a_thread_of_a_model_unloads_it(server: ptl.Server, hooks: Hooks) -> None:
    seen: list[object] = []
    ended = threading.Event()

    def execute(utils: Any) -> None:
        def work() -> None:
            seen.append(utils.unload_model("caller"))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)

    hooks.update({"caller.execute": execute, "caller.finalize": lambda _: ended.set()})
    assert run(server) == [1, 2]
    assert seen == [None]
    assert ended.wait(20)
    until(lambda: states(server)["caller"] == "UNAVAILABLE")


def test_accepted_requests_are_served_after_the_unload(server: ptl.Server, hooks: Hooks) -> None:
    entered, queued = threading.Event(), threading.Event()

    def execute(utils: Any) -> None:
        if not entered.is_set():
            entered.set()
            assert queued.wait(20)
            utils.unload_model("caller")

    hooks["caller.execute"] = execute
    model = server["caller"]
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, model)
        assert entered.wait(20)
        others = [pool.submit(ask, model) for _ in range(2)]
        until(lambda: server._loaded.models.get("caller", -1).served.queue.depth == 2)
        queued.set()
        assert [future.result(20) for future in (first, *others)] == [[1, 2]] * 3
    until(lambda: states(server)["caller"] == "UNAVAILABLE")


def test_a_model_loads_itself_in_execute(
    server: ptl.Server, repository: RepositoryBuilder, hooks: Hooks
) -> None:
    order: list[str] = []

    def execute(utils: Any) -> None:
        order.append("execute")
        if len(order) == 1:
            repository.model("caller", hooked(100))
            utils.load_model("caller")
            assert utils.is_model_ready("caller")
            order.append("loaded")

    hooks.update({"caller.execute": execute, "caller.finalize": lambda _: order.append("finalize")})
    assert run(server) == [1, 2]  # of the code that was loaded when the request came
    until(lambda: "finalize" in order)
    assert run(server) == [101, 102]
    assert order == ["execute", "loaded", "finalize", "execute"]
    assert states(server)["caller"] == "READY"


def test_a_user_loads_a_model_that_is_loading_itself(
    server: ptl.Server, hooks: Hooks, repository: RepositoryBuilder
) -> None:
    entered, gate = threading.Event(), threading.Event()

    def execute(utils: Any) -> None:
        entered.set()
        assert gate.wait(20)
        utils.load_model("caller")

    hooks["caller.execute"] = execute
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(ask, server["caller"])
        assert entered.wait(20)
        repository.model("caller", hooked(100))  # else there is nothing to load
        # It waits for this very request, and must not keep the model's own load waiting.
        load = pool.submit(server.load, "caller")
        until(lambda: server._loaded.models._ending)
        gate.set()
        assert answer.result(20) == [1, 2]
        load.result(20)
    hooks.clear()
    assert run(server) == [101, 102]


def test_a_model_that_loads_itself_in_initialize_is_refused(
    server: ptl.Server, hooks: Hooks
) -> None:
    # Triton never answers: the load waits for itself.
    seen: list[str] = []
    hooks["third.initialize"] = lambda utils: seen.append(
        str(refusal(lambda: utils.load_model("third")))
    )
    within(20, server.load, "third")
    assert seen == refusals("third_0", f"model 'third' {ITSELF}")[:1]


def test_models_that_load_each_other_in_initialize_are_refused(
    server: ptl.Server, hooks: Hooks
) -> None:
    hooks["third.initialize"] = lambda utils: utils.load_model("other")
    hooks["other.initialize"] = lambda utils: utils.load_model("third")
    with pytest.raises(ptl.ModelLoadError, match=f"model 'third' {ITSELF}"):
        within(20, server.load, "third")
    assert states(server) == {"caller": "READY", "other": "UNAVAILABLE", "third": "UNAVAILABLE"}


def test_two_loads_that_wait_for_each_other_are_refused(server: ptl.Server, hooks: Hooks) -> None:
    both = threading.Barrier(2)
    names = {"other": "third", "third": "other"}
    first = set(names)
    errors: list[str] = []

    def initialize(utils: Any, wanted: str) -> None:
        if wanted in first:
            first.discard(wanted)
            both.wait(20)
        try:
            utils.load_model(wanted)
        except pb_utils.TritonModelException as error:
            errors.append(str(error))

    for name, wanted in names.items():
        hooks[f"{name}.initialize"] = lambda utils, wanted=wanted: initialize(utils, wanted)
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(server.load, name) for name in names]
        for load in loads:
            load.result(20)
    assert errors
    assert all(error.endswith(ITSELF) for error in errors)
    assert set(states(server).values()) == {"READY"}


def test_an_unload_in_initialize_takes_its_turn(server: ptl.Server, hooks: Hooks) -> None:
    # Triton never answers: the unload waits for the load that waits for it.
    seen: list[object] = []

    def initialize(utils: Any) -> None:
        seen.append(utils.unload_model("third"))
        seen.append(utils.is_model_ready("third"))

    hooks["third.initialize"] = initialize
    within(20, server.load, "third")
    assert seen == [None, False]
    until(lambda: states(server)["third"] == "UNAVAILABLE")


# -- all at once -----------------------------------------------------------------------


@in_process("dozens of stubs take their time to start; test_process_control.py has the calls")
def test_loads_and_unloads_from_many_threads(server: ptl.Server, hooks: Hooks) -> None:
    """Eight threads, half of them model code, load and unload the same three models."""
    names = ("other", "third", "fourth")
    failures: list[BaseException] = []
    kept: list[Any] = []
    hooks["caller.execute"] = lambda utils: kept.extend([utils.load_model, utils.unload_model])
    run(server)
    load, unload = kept
    source = {"file:1/model.py": echo_model().encode()}

    def work(seed: int) -> None:
        try:
            for turn in range(6):
                name = names[(seed + turn) % 3]
                given = ("{}", source) if name == "fourth" else ("", None)
                if seed % 2:
                    load(name, *given)
                elif turn % 3 == 2:
                    server.unload(name, wait_until_unloaded=seed % 4 == 0)
                else:
                    server.load(name, {"config": given[0], **source} if given[1] else None)
                if turn % 2:
                    unload(names[(seed + turn + 1) % 3])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not failures
    for name in names:
        unload(name)
    until(lambda: not server._loaded.models._ending)
    until(lambda: states(server) == {"caller": "READY", "other": "UNAVAILABLE",
                                     "third": "UNAVAILABLE"})  # fmt: skip
    assert {(e.name, e.reason) for e in server.index() if e.reason} == {
        ("other", "unloaded"),
        ("third", "unloaded"),
    }
    assert run(server) == [1, 2]


def test_the_stop_waits_for_what_ends_in_the_background(server: ptl.Server, hooks: Hooks) -> None:
    entered, gate = threading.Event(), threading.Event()
    order: list[str] = []

    def finalize(_utils: Any) -> None:
        entered.set()
        assert gate.wait(20)
        order.append("finalize")

    hooks.update({"caller.execute": lambda utils: utils.unload_model("caller"),
                  "caller.finalize": finalize})  # fmt: skip
    run(server)
    assert entered.wait(20)
    stopping = threading.Thread(target=lambda: (server.stop(), order.append("stop")))
    stopping.start()
    gate.set()
    stopping.join(20)
    assert order == ["finalize", "stop"]


def test_a_stop_during_a_load_of_model_code(server: ptl.Server, hooks: Hooks) -> None:
    entered, gate = threading.Event(), threading.Event()
    order: list[str] = []

    def initialize(_utils: Any) -> None:
        entered.set()
        assert gate.wait(20)

    def execute(utils: Any) -> None:
        order.append(str(refusal(lambda: utils.load_model("other"))).rpartition(": ")[2])

    hooks.update(
        {
            "caller.execute": execute,
            "other.initialize": initialize,
            "other.finalize": lambda _: order.append("other ends"),
            "caller.finalize": lambda _: order.append("caller ends"),
        }
    )
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(ask, server["caller"])
        assert entered.wait(20)
        stopping = pool.submit(server.stop)
        until(lambda: not server["caller"].ready())
        gate.set()
        stopping.result(20)
        assert answer.result(20) == [1, 2]
    assert order == ["other ends", "the server is stopping and loads no models", "caller ends"]


def test_a_stop_gives_up_on_an_unload_that_does_not_end(
    repository: RepositoryBuilder, serve: Serve, hooks: Hooks
) -> None:
    gate = threading.Event()
    repository.model("caller", hooked())
    server = serve(
        execution="thread",
        model_control_mode="explicit",
        startup_models=["caller"],
        exit_timeout=0.1,
    )

    def execute(utils: Any) -> None:
        utils.unload_model("caller")
        gate.wait(20)

    hooks["caller.execute"] = execute
    future = server["caller"].submit({"IN": X})
    until(lambda: states(server)["caller"] == "UNLOADING")
    # No limit for an unload; it has one when the server stops.
    assert not future.done()
    within(20, server.stop)
    assert isinstance(future.exception(20), ptl.UnavailableError)
    left = [t for t in threading.enumerate() if t.name in ("caller_0", "unload-caller")]
    gate.set()
    for thread in left:
        thread.join(20)
