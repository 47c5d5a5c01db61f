"""BLS: from which code, thread and time it works, and what loads and unloads do to it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core.tensor import TritonModelException
from tests.support.bls import DECOUPLED_CONFIG, source, within
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder

Act = Callable[..., Any]
Serve = Callable[..., ptl.Server]
X = {"IN": np.float32([1, 2])}
OUTSIDE = "BLS is only supported during the 'execute' function."  # observed on 2.51
NOT_READY = (
    "Model {0} - Error when running inference: Failed for execute the inference request. "
    "Model '{0}' is not ready."
)
ECHO = source(
    methods="""
    def execute(self, requests):
        return [answer(r, input_of(r) * 2) for r in requests]
    """
)
HELD = source(
    methods="""
    def execute(self, requests):
        shared.entered.set()
        assert shared.gate.wait(20)
        return [answer(r, input_of(r)) for r in requests]

    def finalize(self):
        shared.log.append("held ended")
    """
)


@pytest.fixture(autouse=True)
def callees(repository: RepositoryBuilder, bls: SimpleNamespace) -> None:
    repository.model("echo", ECHO)
    repository.model("dec", source(methods="""
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            sender.send(answer(request, [1]))
            sender.send(answer(request, [2]), 1)
    """), config=DECOUPLED_CONFIG)  # fmt: skip


# -- threads and coroutines ------------------------------------------------------------


def test_from_threads_during_execute(act: Act) -> None:
    found = act(
        """
def act():
    found = []
    threads = [threading.Thread(target=work, args=(found, n)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(found)

def work(found, number):
    for turn in range(20):
        assert ask("echo", [number, turn]) == {"OUT": [2 * number, 2 * turn]}
        assert all_of("dec") == [{"OUT": [1]}, {"OUT": [2]}]
    found.append(number)
"""
    )
    assert found == list(range(32))


def test_from_a_thread_after_execute(act: Act, bls: SimpleNamespace) -> None:
    bls.done = threading.Event()
    act(
        """
def act():
    def work():
        assert shared.gate.wait(20)
        shared.log.append((ask("echo"), all_of("dec")))
        shared.done.set()
    threading.Thread(target=work).start()
"""
    )
    assert bls.log == []
    bls.gate.set()
    assert bls.done.wait(20)
    assert bls.log == [({"OUT": [2, 4]}, [{"OUT": [1]}, {"OUT": [2]}])]


def test_from_executor_threads(act: Act) -> None:
    # `request.exec` itself is what runs there: no Python code of the model is on that thread.
    default, own, pool = act(
        """
async def act():
    from concurrent.futures import ThreadPoolExecutor
    loop = asyncio.get_running_loop()
    default = await loop.run_in_executor(None, make("echo").exec)
    with ThreadPoolExecutor(2) as pool:
        own = await loop.run_in_executor(pool, make("echo", [n] * 2 if (n := 3) else 0).exec)
        futures = [pool.submit(make("echo", [n]).exec) for n in range(20)]
        pooled = [told(f.result()) for f in futures]
    return told(default), told(own), pooled
"""
    )
    assert (default, own) == ({"OUT": [2, 4]}, {"OUT": [6, 6]})
    assert pool == [{"OUT": [2 * n]} for n in range(20)]


def test_from_coroutines(act: Act) -> None:
    blocking, gathered, tasks, other_loop = act(
        """
async def act():
    blocking = ask("echo")  # blocks the loop, and works
    made = [make("echo", [n]).async_exec() for n in range(40)]
    gathered = [told(r) for r in await asyncio.gather(*made)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(5)]
    return blocking, gathered, [t.result() for t in tasks], await asyncio.to_thread(other)

async def one(n):
    return told(await make("echo", [n]).async_exec())

def other():
    return asyncio.run(one(9))  # a second loop on another thread
"""
    )
    assert blocking == {"OUT": [2, 4]}
    assert gathered == [{"OUT": [2 * n]} for n in range(40)]
    assert tasks == gathered[:5]
    assert other_loop == {"OUT": [18]}


def test_a_cancelled_future_cancels_the_request(
    act: Act, repository: RepositoryBuilder, bls: SimpleNamespace
) -> None:
    repository.model(
        "polls",
        source(
            methods="""
            def execute(self, requests):
                shared.entered.set()
                begin = time.monotonic()
                while not requests[0].is_cancelled():
                    assert time.monotonic() - begin < 20
                    time.sleep(0.001)
                shared.log.append("cancelled")
                return [answer(requests[0], [1])]
            """
        ),
    )
    assert act(
        """
async def act():
    future = make("polls").async_exec()
    await asyncio.to_thread(shared.entered.wait, 20)
    future.cancel()
    try:
        await future
    except asyncio.CancelledError:
        pass
    begin = time.monotonic()
    while not shared.log and time.monotonic() - begin < 20:
        await asyncio.sleep(0.001)
    return list(shared.log), told(await make("echo").async_exec())
"""
    ) == (["cancelled"], {"OUT": [2, 4]})


# -- code ------------------------------------------------------------------------------


def test_library_code_that_builds_the_request(
    act: Act, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Installed-like: found by the plain `sys.path`, so that it is no model's own module.
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "bls_client_library.py").write_text(
        """
def ask(pb_utils, model, array):
    request = pb_utils.InferenceRequest(
        model_name=model, inputs=[pb_utils.Tensor("IN", array)], requested_output_names=[])
    return request, request.exec()
"""
    )
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"), prepend=os.pathsep)
    first, second, module = act(
        """
import bls_client_library

def act():
    request, first = bls_client_library.ask(pb_utils, "echo", np.float32([1]))
    found = []
    # Built by nobody's code, executed on a thread of nobody: the calling frames tell.
    thread = threading.Thread(target=lambda: found.append(request.exec()))
    thread.start()
    thread.join()
    return told(first), told(found[0]), bls_client_library.__name__
"""
    )
    assert (first, second, module) == ({"OUT": [2]}, {"OUT": [2]}, "bls_client_library")
    sys.modules.pop("bls_client_library", None)


def test_outside_of_models(act: Act, bls: SimpleNamespace, in_process: None) -> None:
    act("def act(): shared.request = make('echo')")
    utils = ptl.pb_utils
    request = utils.InferenceRequest(
        model_name="echo", inputs=[utils.Tensor("IN", X["IN"])], requested_output_names=[]
    )
    for call in (request.exec, lambda: request.exec(decoupled=True), request.async_exec):
        with pytest.raises(TritonModelException, match="BLS is only supported") as caught:
            call()
        assert str(caught.value) == OUTSIDE
    # One that a model has made is that model's, also here.
    assert bls.request.exec().output_tensors()[0].as_numpy().tolist() == [2, 4]
    bls.server.stop()
    with pytest.raises(TritonModelException) as caught:
        bls.request.exec()
    assert str(caught.value) == OUTSIDE


@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
def test_before_and_after_execute(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: str
) -> None:
    body = """
    # `pb_utils` has its native names only when the module has been imported.
    import c_python_backend_utils as native

    def refused(place):
        for options in ({}, {"decoupled": True}):
            request = native.InferenceRequest(
                model_name="echo", inputs=[], requested_output_names=[])
            try:
                request.exec(**options)
            except native.TritonModelException as error:
                shared.log.append((place, str(error)))
            else:
                shared.log.append((place, "no error"))

    refused("import")
    """
    methods = """
    @staticmethod
    def auto_complete_config(config):
        refused("auto_complete_config")
        return config

    def initialize(self, args):
        refused("initialize")

    def execute(self, requests):
        return [make("echo").exec()]

    def finalize(self):
        refused("finalize")
    """
    repository.model("m", source(body, methods))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["echo"])
    within(20, server.load, "m")
    assert within(20, server["m"], X)["OUT"].tolist() == [2, 4]
    within(20, server.unload, "m", wait_until_unloaded=True)
    places = dict(bls.log)
    assert places == dict.fromkeys(
        ["import", "auto_complete_config", "initialize", "finalize"], OUTSIDE
    )


# -- servers, loads and unloads --------------------------------------------------------


def test_servers_do_not_reach_each_others_models(tmp_path: Path, bls: SimpleNamespace) -> None:
    servers = []
    for number in range(2):
        root = tmp_path / str(number)
        root.mkdir()
        repository = RepositoryBuilder(root)
        factor = source(methods=f"""
        def execute(self, requests):
            return [answer(r, input_of(r) * {10 + number}) for r in requests]
        """)  # fmt: skip
        repository.model("same", factor)
        repository.model(f"only_{number}", factor)
        caller = f"""
        def execute(self, requests):
            shared.log.append((ask("same", [1]), ask("only_{1 - number}", [1])))
            return [make("same", [1]).exec()]
        """
        repository.model("caller", source(methods=caller))
        servers.append(ptl.Server(repository.models, backend_directory=repository.backends))
    with servers[0], servers[1]:
        for number, server in enumerate(servers):
            assert within(20, server["caller"], X)["OUT"].tolist() == [10 + number]
            missing = NOT_READY.format(f"only_{1 - number}")
            assert bls.log.pop() == ({"OUT": [10 + number]}, (missing, "INTERNAL"))


def test_a_callee_is_reloaded_and_unloaded_while_it_is_called(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, modes: dict[str, str]
) -> None:
    body = """
    def execute(self, requests):
        found = set()
        while not shared.gate.is_set():
            found.add(str(ask("echo", [1])))
            shared.entered.set()
        shared.result = found
        return [answer(requests[0], [1])]
    """
    repository.model("caller", source(methods=body))
    server = serve(
        execution=modes, model_control_mode="explicit", startup_models=["caller", "echo"]
    )
    caller = server["caller"]
    thread = threading.Thread(target=lambda: caller(X))
    thread.start()
    assert bls.entered.wait(20)
    for _ in range(5):
        within(20, server.load, "echo")
        time.sleep(0.01)
        within(20, server.unload, "echo", wait_until_unloaded=True)
        time.sleep(0.01)
    within(20, server.load, "echo")
    bls.entered.clear()
    assert bls.entered.wait(20)
    time.sleep(0.05)
    bls.gate.set()
    within(20, thread.join)
    answer = str({"OUT": [2.0]})
    stopping = (
        "Server is stopping, scheduler for model has stopped accepting new inference requests"
    )
    allowed = {answer, str((NOT_READY.format("echo"), "INTERNAL")), str((stopping, "UNAVAILABLE"))}
    assert answer in bls.result
    assert bls.result <= allowed


def test_a_caller_is_unloaded_while_it_executes(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, modes: dict[str, str]
) -> None:
    body = """
    def execute(self, requests):
        shared.log.append(ask("held"))
        shared.log.append(ask("echo"))
        return [answer(requests[0], [5])]

    def finalize(self):
        shared.log.append("caller ended")
    """
    repository.model("caller", source(methods=body))
    repository.model("held", HELD)
    server = serve(execution=modes, model_control_mode="explicit", startup_models=["*"])
    results: list[Any] = []
    caller = server["caller"]
    thread = threading.Thread(target=lambda: results.append(caller(X)["OUT"].tolist()))
    thread.start()
    assert bls.entered.wait(20)
    # That of an inline model waits for its end.
    unloads = [threading.Thread(target=server.unload, args=(n,)) for n in ("caller", "held")]
    for unload in unloads:
        unload.start()
    time.sleep(0.1)
    assert bls.log == []
    bls.gate.set()
    for each in (thread, *unloads):
        within(20, each.join)
    assert results == [[5]]
    within(20, server.stop)
    ends = ["caller ended", "held ended"]
    assert [entry for entry in bls.log if entry not in ends] == [{"OUT": [1, 2]}, {"OUT": [2, 4]}]
    assert sorted(entry for entry in bls.log if entry in ends) == ends


def test_a_server_that_stops_answers_who_waits(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    repository.model("held", HELD)
    body = """
    def execute(self, requests):
        shared.log.append(ask("held"))
        return [answer(requests[0], [5])]
    """
    repository.model("caller", source(methods=body))
    server = serve(execution="thread", exit_timeout=0.3)
    future = server["caller"].submit(X)
    assert bls.entered.wait(20)
    within(20, server.stop)
    error = future.exception(20)
    assert isinstance(error, ptl.UnavailableError) or bls.log
    bls.gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith(("held", "caller")):
            thread.join(20)


def test_an_unloaded_model_leaves_nothing(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: str
) -> None:
    # A model that keeps its requests, responses and iterators is collected all the same.
    import weakref

    body = """
    async def execute(self, requests):
        request = make("dec")
        self.kept = [request, request.exec(decoupled=True), make("echo").exec(), self]
        self.kept.append(await make("echo").async_exec())
        next(self.kept[1])
        shared.log.append(__import__("weakref").ref(self))
        return [answer(requests[0], [1])]
    """
    repository.model("keeps", source(methods=body))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["*"])
    within(20, server["keeps"], X)
    reference = bls.log[0]
    assert isinstance(reference, weakref.ref)
    within(20, server.unload, "keeps", wait_until_unloaded=True)
    gc.collect()
    assert reference() is None


def test_models_of_config(act: Act, repository: RepositoryBuilder) -> None:
    # A version is asked for by number; -1 means the greatest that is served.
    config = ECHO_CONFIG + "version_policy { all { } }"
    for version in (1, 3):
        text = source(methods=f"""
        def execute(self, requests):
            return [answer(r, [{version}]) for r in requests]
        """)  # fmt: skip
        repository.model("versions", text, config=config, version=version)
    assert act("def act(): return [ask('versions', model_version=v) for v in (1, 3, -1, 2)]") == [
        {"OUT": [1]},
        {"OUT": [3]},
        {"OUT": [3]},
        (NOT_READY.format("versions"), "INTERNAL"),
    ]
