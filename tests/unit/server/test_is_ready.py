"""`is_ready` of models, as `Model.ready` and `Server.ready` report it."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._instance import readiness
from tests.support.modes import ALL, in_process
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
TIMED_OUT = "Timed out waiting for user-defined is_ready() response"
SHARED_TIMED_OUT = "Timed out waiting for in-flight is_ready() response"
ECHO = """
import asyncio, threading, time
from tests.support.shared import connect

shared = connect()

def answer(x, request): return x
"""
TWO = ECHO_CONFIG + "instance_group [ { count: 2 } ]"


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_hangs() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 20


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> float:
    """A short limit in place of the five seconds."""
    monkeypatch.setattr(readiness, "LIMIT_S", 0.2)
    return 0.2


@pytest.fixture
def shared(bls: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """What a test and its models share."""
    bls.value = True
    yield bls
    # Held calls that the server has left behind end here.
    bls.gate.set()
    for thread in threading.enumerate():
        if thread.name.endswith(("-is_ready", "-loop")):
            thread.join(10)


@pytest.fixture
def start(
    repository: RepositoryBuilder, shared: SimpleNamespace, serve: Serve, execution: str
) -> Callable[..., ptl.Server]:
    """Serve model `m` with the given methods."""

    def start(methods: str, *, config: str = ECHO_CONFIG, **options: object) -> ptl.Server:
        repository.model("m", echo_model(ECHO, methods), config=config)
        return serve(execution=execution, **options)

    return start


@pytest.fixture(params=["def", "async def"])
def definition(request: pytest.FixtureRequest, execution: str) -> str:
    if execution == "process" and request.param == "async def":
        pytest.skip("a stub runs both by the same code as a thread; it takes its time to start")
    return str(request.param)


def why_not(model: ptl.Model) -> ptl.TritonError:
    with pytest.raises(ptl.TritonError) as caught:
        model.ready(raise_on_error=True)
    return caught.value


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- what it returns -------------------------------------------------------------------


def test_ready(start: Serve, definition: str) -> None:
    server = start(f"{definition} is_ready(self): return True")
    assert server["m"].ready()
    assert server["m"].ready(raise_on_error=True)
    assert server.ready()


def test_without_is_ready(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start("pass")
    monkeypatch.setattr(readiness.threading, "Thread", None)  # would be needed to ask
    assert server["m"].ready(raise_on_error=True)
    assert server.ready()


def test_not_ready(start: Serve, shared: SimpleNamespace, definition: str) -> None:
    server = start(f"{definition} is_ready(self): return shared.value")
    model = server["m"]
    shared.value = False
    assert not model.ready()
    assert not server.ready()
    error = why_not(model)
    assert type(error) is ptl.UnavailableError
    assert str(error) == "Model 'm_0' is not ready (user-defined check failed)."
    assert error.model == "m"
    assert error.__notes__ == ["instance 'm_0' of model 'm' version 1"]
    assert model({"IN": X})["OUT"].tolist() == [1, 2]
    assert model.state == "READY"
    shared.value = True
    assert model.ready()
    assert server.ready()


@pytest.mark.parametrize("value", ["1", "None", "'yes'", "__import__('numpy').bool_(True)", "[]"])
def test_no_bool(start: Serve, definition: str, value: str) -> None:
    server = start(f"{definition} is_ready(self): return {value}")
    error = why_not(server["m"])
    assert type(error) is ptl.InternalError
    assert str(error) == "is_ready() must return a boolean value"
    assert not server["m"].ready()
    assert not server.ready()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ValueError", ValueError),
        ("TimeoutError", TimeoutError),
        ("SystemExit", SystemExit),
        ("KeyboardInterrupt", KeyboardInterrupt),
    ],
)
def test_an_exception(start: Serve, definition: str, name: str, kind: type[BaseException]) -> None:
    server = start(f"{definition} is_ready(self):\n    raise {name}('no licence')")
    assert not server["m"].ready()
    assert not server.ready()
    error = why_not(server["m"])
    assert type(error) is ptl.InternalError
    head, _, frames = str(error).partition("\n\nAt:\n")
    assert head == f"{name}: no licence"
    (frame,) = frames.splitlines()
    assert frame.endswith("): is_ready")
    assert "/m/1/model.py(" in frame
    assert type(error.__cause__) is kind
    assert server["m"]({"IN": X})["OUT"].tolist() == [1, 2]


def test_every_caller_has_an_error_of_its_own(start: Serve) -> None:
    model = start("def is_ready(self): return False")["m"]
    assert why_not(model) is not why_not(model)


# -- which method ----------------------------------------------------------------------


def test_set_in_initialize(start: Serve) -> None:
    server = start("def initialize(self, args): self.is_ready = lambda: False")
    assert not server["m"].ready()


def test_set_after_initialize_is_not_seen(start: Serve) -> None:
    methods = """
    def answer(self, x, request):
        self.is_ready = lambda: False
        return x
    """
    model = start(methods)["m"]
    model({"IN": X})
    assert model.ready()


def test_one_that_deletes_itself(start: Serve) -> None:
    methods = """
    def is_ready(self):
        del type(self).is_ready
        return True
    """
    model = start(methods)["m"]
    assert model.ready()
    error = why_not(model)
    assert str(error) == "AttributeError: 'TritonPythonModel' object has no attribute 'is_ready'"
    assert isinstance(error.__cause__, AttributeError)


def test_one_that_is_no_function(start: Serve) -> None:
    assert str(why_not(start("is_ready = True")["m"])) == "TypeError: 'bool' object is not callable"


def test_a_property_that_fails_means_there_is_none(start: Serve) -> None:
    assert start("@property\ndef is_ready(self): raise ValueError")["m"].ready()


def test_imports_by_name(
    repository: RepositoryBuilder, serve: Serve, execution: str, definition: str
) -> None:
    # By library code, whose imports are resolved by the thread that runs them.
    methods = f"""
    {definition} is_ready(self):
        import helper, pkgutil
        return pkgutil.resolve_name("helper:VALUE") is True
    """
    repository.model("m", echo_model(methods=methods), files={"helper.py": "VALUE = True"})
    assert serve(execution=execution)["m"].ready(raise_on_error=True)


# -- time ------------------------------------------------------------------------------


def test_the_limit_is_tritons() -> None:
    assert readiness.LIMIT_S == 5.0


def test_a_slow_one(start: Serve) -> None:
    assert start("def is_ready(self): time.sleep(0.3); return True")["m"].ready()


def test_a_stuck_one_is_shared(start: Serve, shared: SimpleNamespace, limit: float) -> None:
    methods = """
    def is_ready(self):
        shared.log.append(1)
        return shared.gate.wait(15)
    """
    server = start(methods)
    model = server["m"]
    begun = time.monotonic()
    error = why_not(model)
    assert time.monotonic() - begun < 10 * limit
    assert type(error) is ptl.UnavailableError
    assert str(error) == TIMED_OUT
    before = threading.active_count()
    for _ in range(3):
        assert str(why_not(model)) == SHARED_TIMED_OUT
    assert not server.ready()
    assert threading.active_count() == before
    assert len(shared.log) == 1
    shared.gate.set()
    wait_until(model.ready)
    assert server.ready()


patched_here = in_process("the limit is patched in this process alone; a stub has the five seconds")


@patched_here
def test_a_coroutine_that_is_too_slow_is_cancelled(
    start: Serve, shared: SimpleNamespace, limit: float
) -> None:
    methods = """
    async def is_ready(self):
        try:
            await asyncio.sleep(15)
        except asyncio.CancelledError:
            shared.log.append("cancelled")
            raise
    """
    model = start(methods)["m"]
    for count in (1, 2):
        assert str(why_not(model)) == TIMED_OUT
        wait_until(lambda count=count: shared.log == ["cancelled"] * count)
        wait_until(lambda: not any(t.name == "m_0-is_ready" for t in threading.enumerate()))


@patched_here
@pytest.mark.parametrize(
    "body",
    [
        "shared.gate.wait(15)",  # blocks the loop
        "await uncancellable()",
        "await asyncio.to_thread(shared.gate.wait, 15)",
    ],
)
def test_a_coroutine_that_cannot_be_cancelled(
    start: Serve, shared: SimpleNamespace, limit: float, body: str
) -> None:
    methods = f"""
    async def is_ready(self):
        async def uncancellable():
            while not shared.gate.is_set():
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass
        {body}
        return True

    def finalize(self):
        shared.log.append("finalize")
    """
    server = start(methods)
    assert str(why_not(server["m"])) == TIMED_OUT
    assert not server.ready()
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 5
    assert shared.log == ["finalize"]
    shared.gate.set()
    wait_until(lambda: not any(t.name.startswith("m_0") for t in threading.enumerate()))


def test_callers_at_the_same_time_share_a_call(
    start: Serve, shared: SimpleNamespace, definition: str
) -> None:
    methods = f"""
    {definition} is_ready(self):
        shared.log.append(1)
        shared.gate.wait(15)
        return shared.value
    """
    model = start(methods)["m"]
    for value in (True, False):
        shared.log.clear()
        shared.gate.clear()
        shared.value = value
        barrier = threading.Barrier(33)

        def ask(barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(10)
            return model.ready()

        with ThreadPoolExecutor(32) as pool:
            futures = [pool.submit(ask) for _ in range(32)]
            barrier.wait(10)
            time.sleep(0.2)
            shared.gate.set()
            assert [future.result(10) for future in futures] == [value] * 32
        assert len(shared.log) == 1


def test_while_execute_runs(start: Serve, shared: SimpleNamespace, definition: str) -> None:
    methods = f"""
    {definition} is_ready(self):
        shared.log.append(threading.get_ident())
        return not self.is_busy

    def initialize(self, args):
        self.is_busy = False

    def answer(self, x, request):
        self.is_busy = True
        shared.log.append(threading.get_ident())
        shared.entered.set()
        shared.gate.wait(15)
        self.is_busy = False
        return x
    """
    model = start(methods)["m"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(model, {"IN": X})
        assert shared.entered.wait(10)
        assert not model.ready()
        shared.gate.set()
        running.result(10)
    assert model.ready()
    executed, asked, _ = shared.log
    assert executed != asked


def test_while_a_coroutine_executes(start: Serve, shared: SimpleNamespace) -> None:
    methods = """
    def initialize(self, args):
        self.execute = self.execute_async

    async def is_ready(self):
        return shared.value

    async def execute_async(self, requests):
        import triton_python_backend_utils as pb_utils
        shared.entered.set()
        while not shared.gate.is_set():
            await asyncio.sleep(0.01)
        x = pb_utils.Tensor("OUT", requests[0].inputs()[0].as_numpy())
        return [pb_utils.InferenceResponse([x])]
    """
    server = start(methods)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server["m"], {"IN": X})
        assert shared.entered.wait(10)
        assert server["m"].ready()
        shared.gate.set()
        assert running.result(10)["OUT"].tolist() == [1, 2]


# -- several instances and models ------------------------------------------------------


def test_one_of_two_instances(start: Serve) -> None:
    methods = """
    def initialize(self, args):
        self.name = args["model_instance_name"]

    def is_ready(self):
        return not self.name.endswith("_1")
    """
    server = start(methods, config=TWO)
    assert not server["m"].ready()
    assert not server.ready()
    error = why_not(server["m"])
    assert str(error) == "Model 'm_0_1' is not ready (user-defined check failed)."
    assert error.__notes__ == ["instance 'm_0_1' of model 'm' version 1"]


def test_instances_are_asked_side_by_side(
    start: Serve, shared: SimpleNamespace, repository: RepositoryBuilder
) -> None:
    # Each waits for the other two: asked in turn, the barrier would break.
    shared.barrier = threading.Barrier(3)
    methods = "def is_ready(self): return shared.barrier.wait(10) >= 0"
    repository.model("n", echo_model(ECHO, methods))
    server = start(methods, config=TWO)
    assert server.ready()


def test_a_server_is_as_ready_as_its_models(
    start: Serve, repository: RepositoryBuilder, shared: SimpleNamespace
) -> None:
    repository.model("other", echo_model())
    server = start("def is_ready(self): return shared.value")
    shared.value = False
    assert server["other"].ready()
    assert not server.ready()


# -- loading and unloading -------------------------------------------------------------


def test_a_reload(start: Serve, repository: RepositoryBuilder, shared: SimpleNamespace) -> None:
    server = start(
        "def is_ready(self): return True", model_control_mode="explicit", startup_models=["m"]
    )
    model = server["m"]
    for methods, expected in (
        ("def is_ready(self): return False", False),
        ("pass", True),
        ("async def is_ready(self): return False", False),
    ):
        repository.model("m", echo_model(ECHO, methods))
        server.load("m")
        assert model.ready() is expected
        assert server.ready() is expected
    server.unload("m", wait_until_unloaded=True)
    assert not model.ready()
    assert server.ready()
    assert isinstance(why_not(model), ptl.NotFoundError)


def test_a_stopped_server(start: Serve, shared: SimpleNamespace) -> None:
    server = start("def is_ready(self): shared.log.append(1); return True")
    model = server["m"]
    server.stop()
    assert not model.ready()
    assert not server.ready()
    assert str(why_not(model)).startswith("Server is stopping")
    assert not shared.log


HELD = """
{definition} is_ready(self):
    shared.entered.set()
    {wait}
    shared.log.append("is_ready")
    return True

def finalize(self):
    shared.log.append("finalize")
"""


def test_an_unload_lets_a_call_finish_before_finalize(
    start: Serve, shared: SimpleNamespace
) -> None:
    server = start(HELD.format(definition="def", wait="shared.gate.wait(15)"))
    model = server["m"]
    with ThreadPoolExecutor(2) as pool:
        asking = pool.submit(model.ready)
        assert shared.entered.wait(10)
        stopping = pool.submit(server.stop)
        assert asking.result(10) is False  # not kept until the model answers
        assert not shared.log
        shared.gate.set()
        stopping.result(10)
    assert shared.log == ["is_ready", "finalize"]


def test_an_unload_cancels_a_coroutine(start: Serve, shared: SimpleNamespace) -> None:
    server = start(HELD.format(definition="async def", wait="await asyncio.sleep(15)"))
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(server["m"].ready)
        assert shared.entered.wait(10)
        begun = time.monotonic()
        server.stop()
        assert time.monotonic() - begun < 3
        assert asking.result(10) is False
    assert shared.log == ["finalize"]


@patched_here
def test_an_unload_does_not_wait_for_a_stuck_call(
    start: Serve, shared: SimpleNamespace, limit: float
) -> None:
    server = start(HELD.format(definition="def", wait="shared.gate.wait(15)"))
    model = server["m"]
    assert not model.ready()
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 3
    assert shared.log == ["finalize"]
    assert not model.ready()
    shared.gate.set()
    wait_until(lambda: not any(t.name == "m_0-is_ready" for t in threading.enumerate()))
    assert shared.log == ["finalize", "is_ready"]


def test_a_question_during_a_reload_is_put_to_the_new_version(
    start: Serve, repository: RepositoryBuilder, shared: SimpleNamespace
) -> None:
    server = start(
        HELD.format(definition="def", wait="shared.gate.wait(15)"),
        model_control_mode="explicit",
        startup_models=["m"],
    )
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(server["m"].ready), pool.submit(server.ready)]
        assert shared.entered.wait(10)
        repository.model("m", echo_model(ECHO, "def is_ready(self): return True"))
        loading = pool.submit(server.load, "m")
        assert [answer.result(10) for answer in answers] == [True, True]
        shared.gate.set()
        loading.result(10)


def test_callers_while_models_come_and_go(
    start: Serve, repository: RepositoryBuilder, execution: str, definition: str
) -> None:
    methods = f"""
    def initialize(self, args):
        self.is_open = True

    {definition} is_ready(self):
        assert self.is_open
        return True

    def finalize(self):
        self.is_open = False
    """
    server = start(methods, model_control_mode="explicit", startup_models=["m"])
    model = server["m"]
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            assert model.ready(raise_on_error=True)
            assert server.ready()

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for _ in range(3 if execution == "process" else 10):
                repository.touch("m")
                server.load("m")
        finally:
            done.set()
        for future in asking:
            future.result(10)


@in_process("the test looks at the model object")
def test_a_failed_call_does_not_keep_the_model(start: Serve, shared: SimpleNamespace) -> None:
    methods = """
    def initialize(self, args):
        import weakref
        shared.log.append(weakref.ref(self))

    def is_ready(self):
        raise ValueError
    """
    server = start(methods)
    gc.collect()
    gc.disable()
    try:
        assert not server["m"].ready()
        server.stop()
        (model,) = shared.log
        assert model() is None
    finally:
        gc.enable()


# -- the log ---------------------------------------------------------------------------


def test_a_reason_is_logged_once(
    start: Serve, shared: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    server = start("def is_ready(self): return shared.value")
    caplog.set_level(logging.INFO, "pytriton_lite.server")
    caplog.clear()
    for value in (True, False, False, 1, 1, True, True, False):
        shared.value = value
        server["m"].ready()
        server.ready()
    check_failed = (
        "instance 'm_0' of model 'm' is not ready: "
        "Model 'm_0' is not ready (user-defined check failed)."
    )
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("pytriton_lite.server", "WARNING", check_failed),
        (
            "pytriton_lite.server",
            "WARNING",
            "instance 'm_0' of model 'm' is not ready: is_ready() must return a boolean value",
        ),
        ("pytriton_lite.server", "INFO", "instance 'm_0' of model 'm' is ready again"),
        ("pytriton_lite.server", "WARNING", check_failed),
    ]
