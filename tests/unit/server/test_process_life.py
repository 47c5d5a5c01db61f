"""Life and death of stub processes, one way to die after the other."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._instance import process
from pytriton_lite._ipc.backoff import Backoff
from tests.support.limits import until, within
from tests.support.processes import (
    children_of,
    is_running,
    mapped_segments,
    open_files,
    opened_since,
)
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

CONFIG = """
backend: "python"
{more}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] optional: true }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "PID" data_type: TYPE_INT64 dims: [ 1 ] }} ]
"""

# Runs what a request says, and answers with its input and the process id.
MODEL = """
import ctypes, os, resource, signal, sys, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

kept = []

def answer(request):
    given = pb_utils.get_input_tensor_by_name(request, "IN")
    out = np.zeros(1, np.float32) if given is None else given.as_numpy()
    pid = np.array([os.getpid()])
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out), pb_utils.Tensor("PID", pid)])

class TritonPythonModel:
    def execute(self, requests):
        import json
        request, = requests
        scope = dict(globals(), request=request, result=None)
        code = json.loads(request.parameters() or "{}").get("code", "")
        exec(code, scope)
        return None if "sender" in scope else [answer(request)]

    def finalize(self):
        path = os.environ.get("FINALIZED")
        if path:
            with open(path, "a") as file:
                file.write(f"{os.getpid()}\\n")
        for code in kept:
            exec(code)
"""

DECOUPLED = "model_transaction_policy { decoupled: true }"
TWO = "instance_group [ { kind: KIND_CPU count: 2 } ]"
X = np.arange(4, dtype=np.float32)


def write_models(repository: RepositoryBuilder) -> None:
    repository.model("m", MODEL, config=CONFIG.format(more=""))
    repository.model("other", MODEL, config=CONFIG.format(more=""))
    repository.model("two", MODEL, config=CONFIG.format(more=TWO))
    repository.model("stream", MODEL, config=CONFIG.format(more=DECOUPLED))


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    with hard_limit(50):
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_restarts() -> Iterator[None]:
    """The pauses that grow with deaths in a row have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "Backoff", functools.partial(Backoff, first_s=0.01, limit_s=0.01))
        yield


@pytest.fixture(autouse=True, scope="module")
def nothing_left(quick_restarts: None) -> Iterator[None]:
    """No process, descriptor, thread or memory is left when the servers have stopped."""
    files, threads = open_files(), set(threading.enumerate())
    yield
    until(lambda: not set(threading.enumerate()) - threads)
    until(lambda: gc.collect() >= 0 and mapped_segments() == 0)
    assert children_of(os.getpid()) == []
    assert opened_since(files) == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, nothing_left: None) -> Iterator[ptl.Server]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp("life"))
    write_models(repository)
    with ptl.Server(repository.models, execution="process") as server:
        yield server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., ptl.Server]]:
    """Start a server of the test's own on the model `m`."""
    repository = RepositoryBuilder(tmp_path)
    repository.model("m", MODEL, config=CONFIG.format(more=""))
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            ptl.Server(repository.models, execution="process", **options)
        )


def run(model: ptl.Model, code: str = "", x: Any = X, **options: Any) -> ptl.InferenceResponse:
    return model.run({"IN": x}, parameters={"code": textwrap.dedent(code)}, **options)


def pid_of(model: ptl.Model) -> int:
    return int(run(model)["PID"][0])


# -- ways to die in `execute` -------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("os._exit(3)", "exited with code 3"),
        ("os._exit(0)", "exited with code 0"),
        ("sys.stderr.write('these are\\nthe last words\\n'); os._exit(1)", "the last words"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("ctypes.string_at(0)", "was killed by SIGSEGV"),
        ("ctypes.string_at(0)", "in string_at"),  # of the stack that the dying process writes
        ("os.abort()", "was killed by SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "was killed by SIGTERM"),
        ("threading.Thread(target=os._exit, args=(5,)).start(); time.sleep(60)", "with code 5"),
    ],
)
def test_a_death_in_execute(server: ptl.Server, code: str, text: str) -> None:
    model, other = server["m"], server["other"]
    before, others = pid_of(model), pid_of(other)
    with pytest.raises(ptl.UnavailableError) as caught:
        within(20, run, model, code)
    assert text in str(caught.value)
    assert "the process of instance 'm_0" in str(caught.value)
    # The next request is answered by a new process; another model has not noticed.
    assert within(20, pid_of, model) != before
    assert pid_of(other) == others
    until(server.ready)


def test_a_memory_error_is_an_error_of_the_request(server: ptl.Server) -> None:
    model = server["m"]
    before = pid_of(model)
    with pytest.raises(ptl.InternalError, match="MemoryError") as caught:
        run(model, "raise MemoryError('no more')")
    assert type(caught.value.__cause__) is MemoryError
    assert pid_of(model) == before


def test_a_limit_of_memory_is_hit(server: ptl.Server) -> None:
    model = server["m"]
    before = pid_of(model)
    code = """
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 20, before[1]))
    try:
        np.ones(1 << 26)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    """
    with pytest.raises(ptl.InternalError, match="Unable to allocate"):
        run(model, code)
    assert pid_of(model) == before


def test_a_death_while_others_wait(server: ptl.Server) -> None:
    model = server["m"]
    with ptl_threads(8) as call:
        doomed = call(lambda: run(model, "time.sleep(0.2); os._exit(1)"))
        others = [call(functools.partial(run, model)) for _ in range(7)]
    assert isinstance(doomed.error, ptl.UnavailableError)
    # Those that waited their turn are run by the next process.
    assert [other.value["OUT"].tolist() for other in others] == [X.tolist()] * 7


class Call:
    value: Any = None
    error: BaseException | None = None


@contextlib.contextmanager
def ptl_threads(count: int) -> Iterator[Callable[[Callable[[], Any]], Call]]:
    """Call functions on threads, in order of their start as far as one can see."""
    threads = []

    def call(function: Callable[[], Any]) -> Call:
        made = Call()

        def target() -> None:
            try:
                made.value = function()
            except BaseException as error:
                made.error = error

        thread = threading.Thread(target=target, daemon=True)
        thread.start()
        threads.append(thread)
        thread.join(0.02)  # so that it is likely to be queued before the next
        return made

    yield call
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(threads) <= count


# -- when nothing runs, and beside `execute` -----------------------------------------------


def test_a_death_while_idle_fails_nobody(server: ptl.Server) -> None:
    model = server["m"]
    for _ in range(3):
        pid = pid_of(model)
        os.kill(pid, signal.SIGKILL)
        # Maybe nobody has noticed yet; what the process has not begun with is not lost.
        assert within(20, pid_of, model) != pid


def test_one_of_two_dies_while_idle(server: ptl.Server) -> None:
    model = server["two"]
    pids = {pid_of(model) for _ in range(20)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        futures = [model.submit({"IN": X}) for _ in range(20)]
        assert all(pid != int(future.result(20)["PID"][0]) for future in futures)


def test_a_death_with_an_open_sender(server: ptl.Server) -> None:
    model = server["m"]
    pid = pid_of(model)
    code = "sender = request.get_response_sender(); kept.append(sender)"
    future = model.submit({"IN": X}, parameters={"code": code})
    assert pid_of(model) == pid  # `execute` of the first has returned
    assert not future.done()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ptl.UnavailableError, match="SIGKILL"):
        future.result(20)
    assert within(20, pid_of, model) != pid


def test_a_death_in_the_middle_of_a_stream(server: ptl.Server) -> None:
    code = """
    sender = request.get_response_sender()
    for _ in range(3):
        sender.send(answer(request))
    os._exit(7)
    """
    stream = server["stream"].stream({"IN": X}, parameters={"code": textwrap.dedent(code)})
    # What was sent before the death arrives.
    for _ in range(3):
        assert next(stream)["OUT"].tolist() == X.tolist()
    with pytest.raises(ptl.UnavailableError, match="exited with code 7"):
        next(stream)


def test_answers_that_were_sent_before_the_death(server: ptl.Server) -> None:
    code = """
    sender = request.get_response_sender()
    for n in range(50):
        sender.send(answer(request))
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    os._exit(7)
    """
    for _ in range(3):
        stream = server["stream"].stream({"IN": X}, parameters={"code": textwrap.dedent(code)})
        assert sum(bool(response.outputs) for response in stream) == 50


@pytest.mark.parametrize("way", ["submit", "threads"])
def test_requests_sent_ahead_are_run_by_the_next_process(server: ptl.Server, way: str) -> None:
    model = server["m"]
    pid = pid_of(model)
    for _ in range(20):
        pid_of(model)  # quick ones, so that many are sent ahead
    os.kill(pid, signal.SIGSTOP)
    codes = ["os._exit(9)" if n == 12 else "" for n in range(30)]
    with ThreadPoolExecutor(30) as pool:
        ask = model.submit if way == "submit" else functools.partial(pool.submit, model.run)
        futures = [
            ask({"IN": np.float32([n])}, parameters={"code": code}) for n, code in enumerate(codes)
        ]
        time.sleep(0.05)  # in which those of threads queue up
        os.kill(pid, signal.SIGCONT)
        for n, future in enumerate(futures):
            if n == 12:
                with pytest.raises(ptl.UnavailableError, match="exited with code 9"):
                    future.result(20)
            else:
                assert future.result(20)["OUT"].tolist() == [n]


def test_requests_sent_ahead_to_a_process_that_is_killed(server: ptl.Server) -> None:
    model = server["m"]
    pid = pid_of(model)
    os.kill(pid, signal.SIGSTOP)
    futures = [model.submit({"IN": np.float32([n])}) for n in range(30)]
    os.kill(pid, signal.SIGKILL)
    # It has not begun with any.
    assert [future.result(20)["OUT"].tolist() for future in futures] == [[n] for n in range(30)]


def test_views_of_a_dead_process_stay(server: ptl.Server) -> None:
    model = server["m"]
    x = np.arange(1 << 20, dtype=np.float32)
    response = run(model, x=x)
    os.kill(int(response["PID"][0]), signal.SIGKILL)
    within(20, pid_of, model)
    np.testing.assert_array_equal(response["OUT"], x)


# -- the end of a model -------------------------------------------------------------------


def test_a_death_in_finalize(start: Callable[..., ptl.Server]) -> None:
    server = start(model_control_mode="explicit", startup_models=["m"])
    pid = int(run(server["m"], "kept.append('os._exit(4)')")["PID"][0])
    within(20, functools.partial(server.unload, "m", wait_until_unloaded=True))
    assert not is_running(pid)
    within(20, server.load, "m")
    assert pid_of(server["m"]) != pid


def test_a_stop_while_busy(start: Callable[..., ptl.Server]) -> None:
    server = start(exit_timeout=1)
    pid = pid_of(server["m"])
    future = server["m"].submit({"IN": X}, parameters={"code": "time.sleep(100)"})
    queued = server["m"].submit({"IN": X})
    within(20, server.stop)
    for each in (future, queued):
        with pytest.raises(ptl.UnavailableError, match="did not answer within 1 s"):
            each.result(5)
    until(lambda: not is_running(pid))


def test_an_unload_while_busy_waits_for_the_answer(start: Callable[..., ptl.Server]) -> None:
    server = start(model_control_mode="explicit", startup_models=["m"])
    model = server["m"]
    pid = pid_of(model)
    future = model.submit({"IN": X}, parameters={"code": "time.sleep(0.5)"})
    within(20, functools.partial(server.unload, "m", wait_until_unloaded=True))
    assert future.result(0)["OUT"].tolist() == X.tolist()
    assert not is_running(pid)


def test_a_death_while_stopping(start: Callable[..., ptl.Server]) -> None:
    server = start()
    model = server["m"]
    pid_of(model)
    doomed = model.submit({"IN": X}, parameters={"code": "time.sleep(0.3); os._exit(2)"})
    queued = [model.submit({"IN": X}) for _ in range(5)]
    begin = time.monotonic()
    within(20, server.stop)
    assert time.monotonic() - begin < 15  # exit_timeout is 30
    with pytest.raises(ptl.UnavailableError, match="exited with code 2"):
        doomed.result(5)
    for each in queued:
        with pytest.raises(ptl.UnavailableError):
            each.result(5)


def test_a_stop_while_dead(
    start: Callable[..., ptl.Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the death and the next start, which is far away.
    monkeypatch.setattr(process, "Backoff", functools.partial(Backoff, first_s=100, limit_s=100))
    server = start()
    model = server["m"]
    for _ in range(2):  # the first restart comes at once
        with pytest.raises(ptl.UnavailableError):
            within(20, run, model, "os._exit(1)")
    assert not server.ready()
    queued = model.submit({"IN": X})
    within(20, server.stop)
    with pytest.raises(ptl.UnavailableError):
        queued.result(5)


# -- the end of the parent ----------------------------------------------------------------

SCRIPT = """
import os, sys, threading, time
import numpy as np
import pytriton_lite as ptl

def main():
    with ptl.Server(sys.argv[1], execution="process", exit_timeout=2) as server:
        code = "import subprocess; subprocess.Popen(['sleep', '1000'])"
        one = server["m"].run({"IN": np.float32([0])}, parameters={"code": code})["PID"][0]
        two = server["other"].run({"IN": np.float32([0])})["PID"][0]
        print("ready", one, two, flush=True)
        busy = server["other"].submit({}, parameters={"code": sys.argv[3]})
        server["m"].run({}, parameters={"code": sys.argv[2]})
        time.sleep(1000)

if __name__ == "__main__":
    main()
"""


BUSY = "print('busy', flush=True); time.sleep(1000)"


def script(tmp_path: Path, *codes: str) -> list[str]:
    """Command that starts a server, and has `m` and then `other` run something."""
    repository = RepositoryBuilder(tmp_path)
    write_models(repository)
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return [sys.executable, str(path), str(repository.models), *codes]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **more}


def test_the_parent_is_killed(tmp_path: Path) -> None:
    finalized = tmp_path / "finalized"
    parent = subprocess.Popen(
        script(tmp_path, "", BUSY), stdout=subprocess.PIPE, text=True,
        env=environment(FINALIZED=str(finalized)),
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        line = within(30, parent.stdout.readline).split()
        assert line[0] == "ready"
        assert within(30, parent.stdout.readline) == "[other_0] busy\n"
        stubs = [int(pid) for pid in line[1:]]
        family = stubs + [child for pid in stubs for child in children_of(pid)]
        assert len(family) == 3
        parent.kill()
        # An idle model is finalized; one that is busy has ten seconds.
        until(lambda: not any(is_running(pid) for pid in family), 25)
        assert str(stubs[0]) in finalized.read_text().split()
        assert str(stubs[1]) not in finalized.read_text().split()


@pytest.mark.parametrize("code", ["", BUSY], ids=["idle", "busy"])
def test_ctrl_c_ends_stubs_in_order(tmp_path: Path, code: str) -> None:
    finalized = tmp_path / "finalized"
    ours, theirs = pty.openpty()
    try:
        # A session of its own with the terminal, so that Ctrl-C goes to its foreground group.
        parent = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *script(tmp_path, code, "")],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env=environment(FINALIZED=str(finalized)),
        )  # fmt: skip
        os.close(theirs)
        shown = ""
        # What is said last before Ctrl-C.
        while "busy" not in shown if code else "\n" not in shown.partition("ready")[2]:
            assert select.select([ours], [], [], 30)[0]
            shown += os.read(ours, 4096).decode()
        stubs = [int(pid) for pid in shown.partition("ready")[2].split()[:2]]
        os.write(ours, b"\x03")
        reader = threading.Thread(target=drain, args=(ours,), daemon=True)
        reader.start()
        parent.wait(25)
        reader.join(10)
    finally:
        os.close(ours)
    assert not any(is_running(pid) for pid in stubs)
    # One that is busy for ever does not finalize.
    found = [str(pid) in finalized.read_text().split() for pid in stubs]
    assert found == [not code, True]


def drain(fd: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(fd, 4096):
            pass
