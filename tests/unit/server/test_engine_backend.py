"""A backend with an engine: threads, an event loop and child processes of its own.

What such backends ask for, as far as a runtime in the same process can give it: requests that
outlive `execute`, answers from other threads, modules by common names, metrics, unload of
itself. Process groups of children and signals of the host are matters of process mode.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.bls import within
from tests.support.processes import children_of, is_running
from tests.support.repository import RepositoryBuilder

ENGINE = Path(__file__).parent / "engine"
CONFIG = 'backend: "engine"'
Serve = Callable[..., ptl.Server]


@pytest.fixture(autouse=True)
def limited(bls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit of `bls`; the backend's environment variable goes with the test."""
    monkeypatch.setenv("ENGINE_STARTED", "")


@pytest.fixture
def backend(repository: RepositoryBuilder) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ENGINE, repository.backends / "engine", ignore=ignored)
    for name in ("one", "two"):
        repository.model(name, config=CONFIG)
        (repository.models / name / "1").mkdir(exist_ok=True)
    return repository.backends / "engine"


@pytest.fixture(params=["thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(backend: Path, serve: Serve, execution: str) -> ptl.Server:
    return serve(execution=execution, model_control_mode="explicit", startup_models=["one"])


def words(server: ptl.Server, text: str, stream: bool = False, **options: Any) -> list[Any]:
    inputs = {"text": [text], "stream": np.array([stream])}
    found = []
    for response in server["one"].infer(inputs=inputs, raise_on_error=False, **options):
        if response.error is not None:
            found.append(str(response.error))
        elif response.outputs:
            found.append([w.decode() for w in response["text"]])
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 20
        time.sleep(0.005)


# -- rows 1 and 2: requests and senders on other threads --------------------------------


def test_execute_hands_over_and_threads_answer(server: ptl.Server) -> None:
    assert words(server, "a b c") == [["a", "b", "c"]]
    assert words(server, "a b c", stream=True) == [["a"], ["b"], ["c"]]


def test_inputs_outlive_execute_and_the_callers_array(server: ptl.Server) -> None:
    weights = np.arange(1000, dtype=np.float32)
    inputs = {"text": ["x"], "weights": weights}
    responses = [server["one"].stream(inputs) for _ in range(20)]
    # `submit` and streams have handed the request over; each engine coroutine runs when it can.
    wait_until(lambda: all(next(iter(r))["text"][1] == b"499500.0" for r in responses))


def test_many_requests_at_once(server: ptl.Server) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(words(server, f"w{n} x", n % 2 == 0)))
        for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    expected = [[[f"w{n}"], ["x"]] if n % 2 == 0 else [[f"w{n}", "x"]] for n in range(40)]
    assert sorted(found, key=str) == sorted(expected, key=str)


# -- rows 3 to 7: tensors, configuration, parameters -------------------------------------


def test_optional_inputs_and_zero_dims(server: ptl.Server) -> None:
    (response,) = server["one"].infer(inputs={"text": ["a b"]})
    assert response["count"].shape == ()
    assert response["count"] == 2
    # A tensor of one zero is still there.
    inputs = {"text": ["a"], "weights": np.float32([0])}
    (response,) = server["one"].infer(inputs=inputs)
    assert response["text"].tolist() == [b"a", b"0.0"]


def test_tensors_beside_an_error_are_ignored(server: ptl.Server) -> None:
    assert words(server, "fail") == ["the request failed"]
    assert words(server, "a") == [["a"]]


def test_parameters_are_typed(server: ptl.Server) -> None:
    assert words(server, "a", parameters={"repeat": 3}) == [["a", "a", "a"]]


# -- row 8: a dead engine unloads itself -------------------------------------------------


def test_a_backend_unloads_itself_in_execute(server: ptl.Server, backend: Path) -> None:
    assert words(server, "die") == [["die"]]
    begin = time.monotonic()
    assert words(server, "a") == ["the engine is dead"]
    assert time.monotonic() - begin < 10
    wait_until((backend / "finalized-one").exists)
    assert not server.model("one").ready()
    within(20, server.load, "one")
    assert words(server, "a") == [["a"]]


# -- row 9: metrics ----------------------------------------------------------------------


def test_metrics_of_two_models_and_of_a_reload(server: ptl.Server) -> None:
    def value(line: str) -> float:
        text = server.metrics()
        found = [rest for rest in text.splitlines() if rest.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else -1.0

    within(20, server.load, "two")
    words(server, "a b", stream=True)
    words(server, "a")
    assert value('engine:requests{model="one"}') == 2
    # Three tokens and two ends, observed on the metrics thread.
    wait_until(lambda: value('engine:tokens_count{model="one"}') == 4)
    assert value('engine:tokens_bucket{model="one",le="0.5"}') == 0
    assert value('engine:tokens_bucket{model="one",le="2"}') == 4
    assert value('engine:requests{model="two"}') == 0
    within(20, server.load, "one")
    words(server, "a")
    # The new instance's metric is the one that the old instance still had: it goes on.
    wait_until(lambda: value('engine:requests{model="one"}') == 3)


def test_without_metrics(backend: Path, serve: Serve, execution: str) -> None:
    server = serve(execution=execution, metrics=False)
    assert words(server, "a") == [["a"]]


# -- row 10: modules ---------------------------------------------------------------------


def test_two_backends_with_a_package_of_the_same_name(
    backend: Path, repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    other = repository.backends / "other"
    shutil.copytree(backend, other)
    (other / "utils" / "words.py").write_text("def split(text): return [text[::-1]]")
    repository.model("reversed", config='backend: "other"')
    (repository.models / "reversed" / "1").mkdir(exist_ok=True)
    server = serve(execution=execution)
    (response,) = server["reversed"].infer(inputs={"text": ["a b"]})
    assert response["text"].tolist() == [b"b a"]
    assert words(server, "a b") == [["a", "b"]]
    assert "utils.words" not in sys.modules


# -- rows 11 to 13: children and threads -------------------------------------------------


def test_children_of_children(server: ptl.Server, backend: Path) -> None:
    assert words(server, "ask the child") == [["ASK", "THE", "CHILD"]]
    within(20, server.unload, "one", wait_until_unloaded=True)
    assert (backend / "finalized-one").read_text() == "0"  # the child's exit code


def test_children_end_with_a_stub_that_dies(backend: Path, serve: Serve) -> None:
    server = serve(execution="process", model_control_mode="explicit", startup_models=["one"])
    (stub,) = children_of(os.getpid())
    (child,) = children_of(stub)
    assert words(server, "ask the child") == [["ASK", "THE", "CHILD"]]
    os.kill(stub, signal.SIGKILL)
    wait_until(lambda: not is_running(child))
    # A new engine, with a new child, is there.
    assert within(20, words, server, "ask the child") == [["ASK", "THE", "CHILD"]]
    assert children_of(os.getpid()) not in ([], [stub])


def test_a_spawned_child_imports_the_backends_modules(
    repository: RepositoryBuilder, tmp_path: Path, execution: str
) -> None:
    # In a process of its own, since a spawned child imports the main script again (row 12).
    model = """
    import multiprocessing
    import numpy as np
    import triton_python_backend_utils as pb_utils
    from utils.work import Job, work

    class TritonPythonModel:
        def execute(self, requests):
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(Job(4), theirs))
            process.start()
            theirs.close()
            try:
                out = np.float32([ours.recv()])
            finally:
                process.join()
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)])]
    """
    work = """
    from dataclasses import dataclass

    @dataclass
    class Job:
        number: int

    def work(job, pipe):
        from utils.more import TWO
        pipe.send(job.number * TWO)
    """
    files = {"utils/__init__.py": "", "utils/work.py": work, "utils/more.py": "TWO = 2"}
    repository.backend("spawns", textwrap.dedent(model), files=files)
    config = 'backend: "spawns" output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]'
    repository.model("m", config=config)
    (repository.models / "m" / "1").mkdir(exist_ok=True)
    script = tmp_path / "script.py"
    code = f"""
    import pytriton_lite as ptl

    if __name__ == "__main__":
        with ptl.Server({str(repository.models)!r}, execution={execution!r},
                        backend_directory={str(repository.backends)!r}) as server:
            print(server["m"]({{}}, timeout_s=20)["OUT"].tolist())
    """
    script.write_text(textwrap.dedent(code))
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True, text=True, timeout=25, check=False,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert done.stdout.strip() == "[8.0]", done.stderr


def test_a_forgotten_stop(backend: Path, repository: RepositoryBuilder, execution: str) -> None:
    # Non-daemon threads of the backend would keep the interpreter alive for ever.
    code = f"""
    import pytriton_lite as ptl
    server = ptl.Server({str(repository.models)!r}, execution={execution!r},
                        backend_directory={str(repository.backends)!r}).start()
    print([r["text"].tolist() for r in server["one"].infer(inputs={{"text": ["a"]}})])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=25, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[b'a']]"
    assert (backend / "finalized-one").exists()
    assert (backend / "finalized-two").exists()


# -- rows 14 and 15, in one process: signals, environment ---------------------------------


def test_the_host_keeps_its_signals_and_the_backend_its_environment(
    server: ptl.Server, execution: str
) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    within(20, server.load, "two")
    # In a stub it is the environment of the model's own process.
    assert os.environ["ENGINE_STARTED"] == ("two" if execution == "thread" else "")
    within(20, server.unload, "two", wait_until_unloaded=True)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


# -- row 16: unload ----------------------------------------------------------------------


def test_an_unload_waits_for_all_responses(server: ptl.Server, backend: Path) -> None:
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.extend(words(server, "w", True, parameters={"repeat": 100}))
    )
    model = server["one"]
    thread.start()
    wait_until(lambda: 'engine:requests{model="one"} 1' in server.metrics())
    within(20, server.unload, "one", wait_until_unloaded=True)
    within(20, thread.join)
    assert found == [["w"]] * 100
    assert (backend / "finalized-one").exists()
    with pytest.raises(ptl.TritonError):
        model.run({"text": ["a"]})


def test_a_failed_initialize_is_not_finalized(
    backend: Path, repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    text = CONFIG + ' parameters { key: "fail" value { string_value: "1" } }'
    repository.model("broken", config=text)
    (repository.models / "broken" / "1").mkdir(exist_ok=True)
    server = serve(execution=execution, model_control_mode="explicit")
    with pytest.raises(ptl.ModelLoadError, match="the engine does not start"):
        within(20, server.load, "broken")
    gc.collect()
    assert not list(backend.glob("finalized-*"))


# -- row 17: cancellation ----------------------------------------------------------------


def test_a_cancelled_stream_reaches_the_engine(server: ptl.Server) -> None:
    inputs = {"text": ["w"], "stream": np.array([True])}
    stream = server["one"].stream(inputs, parameters={"repeat": 20_000})
    next(stream)
    stream.cancel()
    wait_until(lambda: 'engine:cancelled{model="one"} 1' in server.metrics())
    assert words(server, "a") == [["a"]]
