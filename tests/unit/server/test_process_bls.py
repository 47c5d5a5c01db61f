"""BLS from stub processes: who dies, gives up or is slow meanwhile, and what memory is left.

What all executions have in common is in `test_bls.py`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.bls import DECOUPLED_CONFIG, source, within
from tests.support.repository import RepositoryBuilder

Serve = Callable[..., ptl.Server]
X = {"IN": np.float32([1, 2])}

ECHO = source(
    methods="""
    def execute(self, requests):
        return [answer(r, input_of(r) * 2) for r in requests]
    """
)
# Is done when the gate opens, or its request is cancelled.
HELD = source(
    methods="""
    def execute(self, requests):
        shared.log.append(("held", os.getpid()))
        shared.entered.set()
        begin = time.monotonic()
        while not shared.gate.is_set() and not requests[0].is_cancelled():
            assert time.monotonic() - begin < 20
            time.sleep(0.005)
        shared.log.append("cancelled" if requests[0].is_cancelled() else "done")
        return [answer(requests[0], [5])]
    """
)
FORWARD = source(
    methods="""
    def execute(self, requests):
        shared.log.append(("caller", os.getpid()))
        return [make("held").exec()]
    """
)
ASYNC_FORWARD = FORWARD.replace("def execute", "async def execute").replace(
    'make("held").exec()', 'await make("held").async_exec()'
)
STREAM_FORWARD = FORWARD.replace('[make("held").exec()]', 'list(make("held").exec(decoupled=True))')
FORWARDS = {"sync": FORWARD, "async": ASYNC_FORWARD, "stream": STREAM_FORWARD}


@pytest.fixture(params=list(FORWARDS))
def forward(request: pytest.FixtureRequest, repository: RepositoryBuilder) -> None:
    """A model `caller` that asks `held`."""
    repository.model("caller", FORWARDS[request.param])
    repository.model("held", HELD)


@pytest.fixture(params=["thread", "process"])
def execution(request: pytest.FixtureRequest) -> dict[str, str]:
    """The caller in a stub, the others there, too, or in threads."""
    return {"caller": "process", "*": request.param}


def pid_of(bls: SimpleNamespace, name: str) -> int:
    return int(dict(entry for entry in bls.log if isinstance(entry, tuple))[name])


def wait_until(condition: Callable[[], object]) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 20
        time.sleep(0.005)


def test_death_of_the_caller(
    forward: None, serve: Serve, bls: SimpleNamespace, execution: dict[str, str]
) -> None:
    server = serve(execution=execution)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            server["caller"](X)
        except ptl.TritonError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert bls.entered.wait(20)
    os.kill(pid_of(bls, "caller"), signal.SIGKILL)
    thread.join(10)  # though `held` is not done
    (error,) = errors
    assert isinstance(error, ptl.UnavailableError)
    assert "'caller_0' was killed by SIGKILL" in str(error)
    # What it has asked for is cancelled, and `held` takes the next request.
    wait_until(lambda: "cancelled" in bls.log)
    bls.gate.set()
    assert within(20, server["held"], X)["OUT"].tolist() == [5]
    wait_until(server["caller"].ready)
    assert within(20, server["caller"], X)["OUT"].tolist() == [5]


def test_death_of_the_callee(forward: None, serve: Serve, bls: SimpleNamespace) -> None:
    server = serve(execution="process")
    future = server["caller"].submit(X)
    assert bls.entered.wait(20)
    os.kill(pid_of(bls, "held"), signal.SIGKILL)
    error = future.exception(20)
    assert isinstance(error, ptl.UnavailableError)
    assert "'held_0' was killed by SIGKILL" in str(error)
    bls.gate.set()
    wait_until(server["held"].ready)
    assert within(20, server["caller"], X)["OUT"].tolist() == [5]


def test_a_caller_whose_time_is_up(
    forward: None, serve: Serve, bls: SimpleNamespace, execution: dict[str, str]
) -> None:
    # It leaves; the model goes on with its request.
    server = serve(execution=execution)
    begin = time.monotonic()
    with pytest.raises(ptl.RequestTimeoutError):
        server["caller"](X, timeout_s=0.3)
    assert time.monotonic() - begin < 5
    assert bls.entered.wait(20)
    assert "cancelled" not in bls.log
    future = server["caller"].submit(X)
    bls.gate.set()
    assert future.result(20).outputs["OUT"].numpy().tolist() == [5]
    assert bls.log.count("done") == 2


def test_a_signal_handler_that_raises(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: dict[str, str]
) -> None:
    # On the main thread, which waits for `held` in the place of `caller`.
    repository.model("caller", FORWARD)
    repository.model("held", HELD)
    server = serve(execution=execution)

    class Interrupt(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupt

    def work() -> None:
        assert bls.entered.wait(20)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(Interrupt):
            server["caller"](X)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "cancelled" not in bls.log
    bls.gate.set()
    assert within(20, server["caller"], X)["OUT"].tolist() == [5]


def test_a_chain_of_processes(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    # One thread waits for all of them, and leaves them when the first one dies or its time is up.
    repository.model("caller", FORWARD.replace('"held"', '"middle"', 1))
    repository.model("middle", FORWARD.replace('"caller"', '"middle"'))
    repository.model("held", HELD)
    server = serve(execution="process")
    with pytest.raises(ptl.RequestTimeoutError):
        server["caller"](X, timeout_s=0.5)
    assert bls.entered.wait(20)
    bls.gate.set()
    assert within(20, server["caller"], X)["OUT"].tolist() == [5]
    bls.gate.clear()
    bls.entered.clear()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            server["caller"](X)
        except ptl.TritonError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert bls.entered.wait(20)
    os.kill(pid_of(bls, "caller"), signal.SIGKILL)
    thread.join(10)
    assert "'caller_0' was killed by SIGKILL" in str(errors[0])
    bls.gate.set()
    wait_until(server["caller"].ready)
    assert within(20, server["caller"], X)["OUT"].tolist() == [5]


def test_a_slow_reader_holds_the_callee_up(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: dict[str, str]
) -> None:
    repository.model(
        "many",
        source(
            methods="""
            def execute(self, requests):
                sender = requests[0].get_response_sender()
                for n in range(500):
                    sender.send(answer(requests[0], [n]))
                    shared.sent = n
                sender.send(flags=1)
            """
        ),
        config=DECOUPLED_CONFIG,
    )
    body = """
    def execute(self, requests):
        responses = make("many").exec(decoupled=True)
        first = told(next(responses))
        assert shared.gate.wait(20)
        rest = [told(r) for r in responses]
        shared.result = [first, *rest]
        shared.sent = -1
        dropped = make("many").exec(decoupled=True)  # goes on to its end
        next(dropped)
        return [answer(requests[0], [len(rest)])]
    """
    repository.model("caller", source(methods=body))
    server = serve(execution=execution, stream_backlog=8)
    future = server["caller"].submit(X)
    # No more than the backlogs on the way: of the callee's process, the server's, 32 to the stub.
    before = -1
    while getattr(bls, "sent", -1) != before or before < 0:
        before = getattr(bls, "sent", -1)
        time.sleep(0.3)
    assert before < 60
    bls.gate.set()
    assert future.result(20).outputs["OUT"].numpy().tolist() == [500]
    assert bls.result == [*({"OUT": [n]} for n in range(500)), {}]
    wait_until(lambda: bls.sent == 499)


def test_many_calls_leave_no_memory(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    # Tensors of 64 KiB, so that each takes a block of the shared memory both ways.
    repository.model("echo", ECHO)
    body = """
    def execute(self, requests):
        x = input_of(requests[0])
        for n in range(100):
            response = make("echo", x).exec()
            assert response.output_tensors()[0].as_numpy()[-1] == 2 * x[-1]
            assert len(list(make("echo", x).exec(decoupled=True))) == 1
            make("echo", x).exec(decoupled=True)  # nobody reads
        return [response]
    """
    repository.model("caller", source(methods=body))
    server = serve(execution="process")
    x = np.arange(1 << 14, dtype=np.float32)

    def resident() -> int:
        return sum(
            instance._stub._link.segment.resident_bytes() for instance in _instances_of(server)
        )

    def round_() -> None:
        assert within(30, server["caller"], {"IN": x})["OUT"][-1] == 2 * x[-1]

    for _ in range(2):
        round_()
    before = resident()
    for _ in range(5):
        round_()
    # 1,500 calls have moved 200 MB.
    assert resident() < before + (4 << 20)


def _instances_of(server: ptl.Server) -> list[Any]:
    import gc

    from pytriton_lite._instance.process import ProcessInstance

    return [made for made in gc.get_objects() if isinstance(made, ProcessInstance) and made._stub]


def test_a_tensor_on_a_device_is_an_error_response(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    repository.model("echo", ECHO)
    body = """
    class OnDevice:
        # A DLPack producer that says its tensor is on a GPU.
        def __init__(self):
            self.x = np.float32([1, 2])
        def __dlpack_device__(self):
            return (2, 0)
        def __dlpack__(self, stream=None):
            import ctypes
            capsule = self.x.__dlpack__()
            pointer = ctypes.pythonapi.PyCapsule_GetPointer
            pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
            ctypes.c_int32.from_address(pointer(capsule, b"dltensor") + 8).value = 2
            return capsule
    """
    methods = """
    def execute(self, requests):
        tensor = pb_utils.Tensor.from_dlpack("IN", OnDevice())
        request = pb_utils.InferenceRequest(
            model_name="echo", inputs=[tensor], requested_output_names=[])
        shared.result = [told(request.exec()), told(list(request.exec(decoupled=True))[0])]
        return [make("echo").exec()]
    """
    repository.model("caller", source(body, methods))
    server = serve(execution="process")
    assert within(20, server["caller"], X)["OUT"].tolist() == [2, 4]
    for text, _code in bls.result:
        assert "only tensors in CPU memory go to and from a stub process" in text


def test_a_server_that_stops_answers_who_waits(
    forward: None, serve: Serve, bls: SimpleNamespace, execution: dict[str, str]
) -> None:
    server = serve(execution=execution, exit_timeout=0.5)
    future = server["caller"].submit(X)
    assert bls.entered.wait(20)
    timer = threading.Timer(1.0, bls.gate.set)
    timer.start()
    within(20, server.stop)
    timer.join()
    assert future.done() or isinstance(future.exception(20), ptl.UnavailableError)
