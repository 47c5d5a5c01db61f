"""Children that model code in a stub forks, such as workers of a data loader.

They inherit the shared memory and the model's objects, and what they do with those must not
reach the server. All expectations are ours; on Triton a forked child of a stub would write into
the queues of its parent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until, within
from tests.support.processes import link_of
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model
from tests.support.scripted import hard_limit

Serve = Callable[..., ptl.Server]

# Forks, and runs the parameter `child` there; that may `tell` something. The answer is the input,
# and beside it the process ids, what was told, and the exit code of the child.
MODEL = """
import gc, json, os, sys
import numpy as np
import triton_python_backend_utils as pb_utils

def tried(action):
    try:
        outcome = action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return outcome.error().message() if isinstance(outcome, pb_utils.InferenceResponse) else "done"

class TritonPythonModel:
    def initialize(self, args):
        self.family = pb_utils.MetricFamily("forks", "", pb_utils.MetricFamily.COUNTER)
        self.metric = self.family.Metric()

    def execute(self, requests):
        request, = requests
        code = json.loads(request.parameters())["child"]
        x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        sender = request.get_response_sender()
        out, into = os.pipe()
        tell = lambda what: os.write(into, json.dumps(what).encode() + b"\\n")
        pid = os.fork()
        if not pid:
            names = {**globals(), **locals()}
            del x, request, sender, tell
            requests.clear()
            exec(code, names)
            return names.get("returned")
        os.close(into)
        with os.fdopen(out) as file:
            told = [json.loads(line) for line in file]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.metric.increment(1)
        text = json.dumps({"pid": os.getpid(), "told": told, "code": code})
        tensors = [pb_utils.Tensor("OUT", x), pb_utils.Tensor("TEXT", np.array([text], object))]
        sender.send(pb_utils.InferenceResponse(tensors), 1)

    def finalize(self):
        print("finalized", file=sys.stderr)
"""
CONFIG = ECHO_CONFIG + ' output [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]\n'
X = np.float32([1, 2])
LARGE = np.arange(1 << 18, dtype=np.float32)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    with hard_limit(60):
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ptl.Server]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp("forks"))
    repository.model("m", MODEL, config=CONFIG)
    repository.model("echo", echo_model())
    with ptl.Server(
        repository.models,
        execution={"echo": "thread", "*": "process"},
        model_control_mode="explicit",
        startup_models=["*"],
    ) as server:
        yield server


def forks(server: ptl.Server, child: str, x: np.ndarray[Any, Any] = X) -> dict[str, Any]:
    """Run code in a child of the stub; what came of it."""
    response = server["m"].run({"IN": x}, parameters={"child": child}, timeout_s=30)
    np.testing.assert_array_equal(response["OUT"], x)
    found: dict[str, Any] = json.loads(response["TEXT"][0])
    return found


BLS = """pb_utils.InferenceRequest(
    model_name="echo", requested_output_names=["OUT"],
    inputs=[pb_utils.Tensor("IN", np.zeros({}, np.float32))],
)"""
FORKED = "this process was forked from one that is an instance of a model or has some"


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (
            "sender.send(pb_utils.InferenceResponse([pb_utils.Tensor('OUT', x)]), 1)",
            "TritonModelException: Unable to send response. This process is a forked child of the "
            "instance's: send there.",
        ),
        ("sender.send(pb_utils.InferenceResponse([pb_utils.Tensor('OUT', x)]))", "TritonModelExc"),
        (BLS.format(2) + ".exec()", FORKED),
        (BLS.format(1 << 18) + ".exec()", FORKED),
        ("next(" + BLS.format(2) + ".exec(decoupled=True))", FORKED),
        ("self.metric.increment(100)", "UnavailableError: "),
        ("pb_utils.load_model('echo')", "the other process is gone"),
    ],
)
def test_a_child_cannot_talk_to_the_server(server: ptl.Server, action: str, text: str) -> None:
    first = forks(server, "os._exit(0)")
    counted = server.metrics().splitlines()
    for x in (X, LARGE):
        found = forks(server, f"tell(tried(lambda: {action}))\nos._exit(3)", x)
        assert text in found["told"][0]
        # The instance is the same one, and all that it says afterwards is understood.
        assert (found["pid"], found["code"]) == (first["pid"], 3)
    (before,) = [line for line in counted if line.startswith("forks ")]
    assert f"forks {int(before.split()[1]) + 2}" in server.metrics().splitlines()


LEFT = "a forked child of the model's process left `execute`"


@pytest.mark.parametrize(
    ("child", "code", "line"),
    [
        ("returned = None", 1, LEFT),
        ("returned = [pb_utils.InferenceResponse()]", 1, LEFT),
        ("raise ValueError('in a child')", 1, LEFT),
        ("raise ValueError('in a child')", 1, "ValueError: in a child"),
        ("sys.exit(5)", 5, None),
        ("sys.exit()", 0, None),
        ("sys.exit('said at the end')", 1, "said at the end"),
    ],
)
def test_a_child_that_comes_out_of_execute_ends_there(
    server: ptl.Server, capfd: pytest.CaptureFixture[str], child: str, code: int, line: str | None
) -> None:
    capfd.readouterr()
    for _ in range(2):
        assert forks(server, child)["code"] == code
    said: list[str] = []

    def has_come() -> bool:
        said.extend(capfd.readouterr().err.splitlines())
        return line is None or len([x for x in said if f"[m_0] {line}" in x]) == 2

    until(has_come)
    assert "finalized" not in "".join(said)


def test_inputs_that_go_in_a_child_stay_in_its_parent(server: ptl.Server) -> None:
    link = link_of(server)
    # In the server's arena. The sender goes, too, and nobody hears of it.
    child = "del x, request, sender\nself.__dict__.clear()\ngc.collect()\ntell('gone')\nos._exit(0)"
    for _ in range(3):
        assert forks(server, child, LARGE)["told"] == ["gone"]
    for _ in range(2):
        forks(server, "os._exit(0)")
    assert link.arena.used_blocks == 0


def test_a_child_that_outlives_the_request(server: ptl.Server) -> None:
    # What it drops later is not given back once more.
    child = """
import time
os.close(into)
for fd in (1, 2):
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
if os.fork():
    os._exit(0)
time.sleep(1)  # nothing tells it that its parent has answered
del x, request, sender
gc.collect()
os._exit(0)
"""
    link = link_of(server)
    pids = {forks(server, child, LARGE)["pid"] for _ in range(3)}
    for _ in range(50):
        pids.add(forks(server, "os._exit(0)", LARGE)["pid"])
    assert len(pids) == 1
    for _ in range(2):
        forks(server, "os._exit(0)")
    assert link.arena.used_blocks == 0


def test_a_child_of_a_load(
    repository: RepositoryBuilder, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    # Forked in `initialize`, and not ended there.
    methods = """
def initialize(self, args):
    import os
    self.child = os.fork()

def finalize(self):
    import os
    print("finalized by", "child" if not self.child else "parent")

def answer(self, x, request):
    import os
    return np.float32([os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])])
"""
    repository.model("m", echo_model("", methods))
    server = serve(execution="process")
    assert within(20, server["m"], {"IN": X})["OUT"].tolist() == [1]
    server.stop()
    printed = capfd.readouterr()
    assert "[m_0] finalized by parent" in printed.out
    assert "by child" not in printed.out
    assert "a forked child of the model's process left `initialize`" in printed.err


def test_a_worker_pool_of_a_model(repository: RepositoryBuilder, serve: Serve) -> None:
    # What data loaders do: workers by fork, which get inputs by memory and answer by a pipe.
    methods = """
def answer(self, x, request):
    import multiprocessing
    workers = multiprocessing.get_context("fork").Pool(2)
    with workers:
        return np.concatenate(workers.map(np.negative, np.array_split(x, 4)))
"""
    repository.model("m", echo_model("", methods))
    model = serve(execution="process")["m"]
    for _ in range(3):
        np.testing.assert_array_equal(within(30, model, {"IN": LARGE})["OUT"], -LARGE)
