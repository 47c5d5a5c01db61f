"""Starting, loading, unloading and stopping."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.modes import ALL, not_inline
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model
from tests.unit.core.producers import CUDA, Producer

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Notes which thread ran which step, in a file, since nothing of a model outlives its unload.
STEPS = """
import os
import threading

def note(step):
    with open(os.path.join(os.path.dirname(__file__), "steps"), "a") as file:
        file.write(f"{step} {os.getpid()}/{threading.get_ident()}\\n")
"""
STEP_METHODS = """
def __init__(self):
    note("init")

def initialize(self, args):
    note("initialize")

def answer(self, x, request):
    note("execute")
    return x

def finalize(self):
    note("finalize")
"""


def steps_of(folder: Path) -> list[tuple[str, str]]:
    lines = (folder / "1" / "steps").read_text().splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def test_all_steps_of_an_instance_run_on_one_thread(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    folder = repository.model("m", echo_model(STEPS, STEP_METHODS))
    server = serve(execution=execution)
    server["m"]({"IN": X})
    server["m"]({"IN": X})
    server.stop()
    server.stop()
    steps = steps_of(folder)
    assert [step for step, _ in steps] == ["init", "initialize", "execute", "execute", "finalize"]
    threads = {thread for _, thread in steps}
    assert len(threads) == 1
    assert (threads == {f"{os.getpid()}/{threading.get_ident()}"}) is (execution == "inline")


@not_inline
def test_instances_load_side_by_side(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    # Each waits in initialize for the other two: loaded in turn, they would never be there.
    methods = """
    def initialize(self, args):
        import os, time
        folder = args["model_repository"] + "/../../loading"
        open(folder + "/" + args["model_instance_name"], "w").close()
        end = time.monotonic() + 20
        while len(os.listdir(folder)) < 3:
            assert time.monotonic() < end
            time.sleep(0.001)
    """
    (repository.models.parent / "loading").mkdir()
    config = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
    repository.model("two", echo_model(methods=methods), config=config)
    repository.model("one", echo_model(methods=methods))
    assert serve(execution=execution).ready()


def test_a_failed_instance_finalizes_its_siblings(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    methods = """
    def initialize(self, args):
        if args["model_instance_name"].endswith("_1"):
            raise ValueError("the second one")
        note("initialize")

    def finalize(self):
        note("finalize")
    """
    config = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
    folder = repository.model("m", echo_model(STEPS, methods), config=config)
    with pytest.raises(ptl.ModelLoadError, match="the second one"):
        serve(execution=execution)
    assert [step for step, _ in steps_of(folder)] == ["initialize", "finalize"]


def test_one_bad_model_fails_the_start_with_its_cause(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("good", echo_model())
    repository.model("bad", echo_model("raise RuntimeError('no weights')"))
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(execution=execution)
    (error,) = caught.value.exceptions
    assert error.model == "bad"
    assert str(error).startswith("RuntimeError: no weights\n\nAt:\n")
    assert isinstance(error.__cause__, RuntimeError)
    if execution != "process":  # where it is made again, and its text has the frames
        assert error.__cause__.__traceback__ is not None
    assert str(caught.value).startswith("failed to load all models:\n  bad: Internal: RuntimeError")


def test_without_exit_on_error_the_good_models_serve(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("good", echo_model())
    repository.model("bad", echo_model("raise RuntimeError('no weights')"))
    server = serve(execution=execution, exit_on_error=False)
    assert server["good"]({"IN": X})["OUT"].tolist() == [1, 2]
    assert server.live()
    assert not server.ready()
    assert server["bad"].state == "UNAVAILABLE"
    assert server["bad"].reason.startswith("Internal: RuntimeError: no weights")
    assert list(server.models(exclude_not_ready=True)) == ["good"]
    with pytest.raises(ptl.NotFoundError, match="'bad' has no available versions"):
        server["bad"]({"IN": X})


def test_explicit_mode(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    repository.model("m", echo_model())
    repository.model("other", echo_model())
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["other"])
    assert [(e.name, e.state.value) for e in server.index()] == [
        ("m", "UNKNOWN"),
        ("other", "READY"),
    ]
    with pytest.raises(ptl.NotFoundError, match="Request for unknown model: 'm' is not found"):
        server["m"]({"IN": X})
    model = server.load("m")
    assert model({"IN": X})["OUT"].tolist() == [1, 2]
    server.unload("m", wait_until_unloaded=True)
    assert (model.state, model.reason) == ("UNAVAILABLE", "unloaded")
    with pytest.raises(ptl.NotFoundError, match="'m' has no available versions"):
        model({"IN": X})
    assert server.ready()
    server.unload("ghost")
    with pytest.raises(ptl.ModelLoadError, match=r"there is no folder of model 'otter'.*'other'"):
        server.load("otter")


def test_a_reload_replaces_and_a_failed_one_does_not(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("m", echo_model())
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["*"])
    model = server["m"]
    repository.model("m", echo_model("def answer(x, request): return x + 100"))
    server.load("m")
    assert model({"IN": X})["OUT"].tolist() == [101, 102]
    repository.model("m", "this is no python")
    with pytest.raises(ptl.ModelLoadError, match="SyntaxError"):
        server.load("m")
    assert model({"IN": X})["OUT"].tolist() == [101, 102]
    assert server.ready()


def test_load_needs_explicit_mode(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model())
    server = serve()
    for call in (server.load, server.unload):
        with pytest.raises(ptl.UnavailableError, match="explicit model load / unload is not"):
            call("m")


def test_the_greatest_version_answers(repository: RepositoryBuilder, serve: Serve) -> None:
    config = ECHO_CONFIG + "version_policy { all { } }"
    for version in (2, 10, 1):
        body = f"def answer(x, request): return x * 0 + {version}"
        repository.model("m", echo_model(body), config=config, version=version)
    server = serve()
    assert server["m"]({"IN": X})["OUT"].tolist() == [10, 10]
    assert server.model("m", 2)({"IN": X})["OUT"].tolist() == [2, 2]
    assert server["m"].metadata()["versions"] == ["1", "2", "10"]
    assert server.models()["m", 1]({"IN": X})["OUT"].tolist() == [1, 1]
    with pytest.raises(ptl.NotFoundError, match="'m' version 9 is not found"):
        server.model("m", 9)({"IN": X})


# -- stopping --------------------------------------------------------------------------

# In execute until `bls.gate` is set.
HELD = echo_model(
    "from tests.support.shared import connect",
    """
def answer(self, x, request):
    shared = connect()
    shared.entered.set()
    shared.gate.wait(30)
    return x
""",
)


@not_inline
def test_requests_in_flight_finish_when_the_server_stops(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: str
) -> None:
    repository.model("m", HELD)
    server = serve(execution=execution)
    model = server["m"]
    running, queued = (model.submit({"IN": X}) for _ in range(2))
    bls.entered.wait(20)
    stopping = threading.Thread(target=server.stop)
    stopping.start()

    def submit_until_refused() -> None:
        while True:  # nothing announces that the stop has closed the queue
            model.submit({"IN": X})

    with pytest.raises(ptl.UnavailableError, match="Server is stopping"):
        submit_until_refused()
    bls.gate.set()
    stopping.join(20)
    assert running.result(0)["OUT"].tolist() == queued.result(0)["OUT"].tolist() == [1, 2]


@not_inline
def test_requests_that_do_not_finish_in_time_fail(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace, execution: str, caplog
) -> None:
    repository.model("m", HELD)
    server = serve(execution=execution, exit_timeout=0.05)
    running, queued = (server["m"].submit({"IN": X}) for _ in range(2))
    bls.entered.wait(20)
    server.stop()
    for future in (running, queued):
        error = future.exception(0)
        assert isinstance(error, ptl.UnavailableError)
        assert str(error) == "model 'm' was stopped and did not answer within 0.05 s"
    if execution == "thread":  # a process is killed
        assert "instance(s) 'm_0' still run after 0.05 s" in caplog.text
    left = [thread for thread in threading.enumerate() if thread.name == "m_0"]
    bls.gate.set()
    for thread in left:
        thread.join(20)


def test_an_inline_server_waits_for_the_other_callers(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    repository.model("m", HELD)
    server = serve(execution="inline")
    answers: list[list[float]] = []

    def call() -> None:
        answers.append(server["m"]({"IN": X})["OUT"].tolist())

    caller = threading.Thread(target=call)
    caller.start()
    bls.entered.wait(20)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    bls.gate.set()
    stopping.join(20)
    caller.join(20)
    assert answers == [[1, 2]]
    assert not server.live()


def test_calls_after_the_stop_say_so(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("m", echo_model())
    server = serve(execution=execution)
    model = server["m"]
    server.stop()
    with pytest.raises(ptl.UnavailableError, match="Server is stopping"):
        model({"IN": X})
    assert not model.ready()
    assert not server.ready()


def test_an_unstarted_server_says_so(repository: RepositoryBuilder) -> None:
    server = ptl.Server(repository.models)
    with pytest.raises(ptl.UnavailableError, match="not started"):
        server.model("m")
    assert not server.live()
    server.stop()


def test_async_with(repository: RepositoryBuilder, execution: str) -> None:
    repository.model("m", echo_model())

    async def main() -> list[float]:
        async with ptl.Server(repository.models, execution=execution) as server:
            return (await server["m"].async_run({"IN": X}))["OUT"].tolist()

    assert asyncio.run(main()) == [1, 2]


def run_script(script: str, *arguments: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


# A server's process prints what its stubs do.
TAG = {"thread": "", "process": "[m_0] "}


@not_inline
def test_a_server_left_open_is_stopped_at_exit(
    repository: RepositoryBuilder, execution: str
) -> None:
    # The model's non-daemon thread ends in finalize only: atexit would come too late.
    body = "import threading\ndef answer(x, request): return x"
    methods = """
    def initialize(self, args):
        self.end = threading.Event()
        threading.Thread(target=self.end.wait).start()

    def finalize(self):
        self.end.set()
        print("finalized")
    """
    repository.model("m", echo_model(body, methods))
    done = run_script(
        """
        import sys, numpy, pytriton_lite
        server = pytriton_lite.Server(sys.argv[1], execution=sys.argv[2]).start()
        print(server["m"]({"IN": numpy.float32([1])})["OUT"])
        """,
        repository.models,
        execution,
    )
    expected = f"[1.]\n{TAG[execution]}finalized\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


@not_inline
def test_a_forked_child_neither_hangs_nor_finalizes(
    repository: RepositoryBuilder, execution: str
) -> None:
    methods = """
    def finalize(self):
        print("finalized", flush=True)
    """
    repository.model("m", echo_model("", methods + "\ndef answer(self, x, request): return x"))
    done = run_script(
        """
        import os, sys, numpy, pytriton_lite
        with pytriton_lite.Server(sys.argv[1], execution=sys.argv[2]) as server:
            child = os.fork()
            if child == 0:
                try:
                    server["m"]({"IN": numpy.float32([1])})
                except pytriton_lite.UnavailableError as error:
                    print("forked" in str(error), flush=True)
                sys.exit()
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            print(server["m"]({"IN": numpy.float32([1])})["OUT"], flush=True)
        """,
        repository.models,
        execution,
    )
    # The child leaves the `with` block too, by sys.exit, and must not finalize there.
    expected = f"True\n0\n[1.]\n{TAG[execution]}finalized\n"
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_ctrl_c_interrupts_a_waiting_caller(repository: RepositoryBuilder) -> None:
    body = "import os, signal, threading"
    methods = """
    def answer(self, x, request):
        os.kill(os.getpid(), signal.SIGINT)
        while not request.is_cancelled():
            threading.Event().wait(0.01)
        return x
    """
    repository.model("m", echo_model(body, methods))
    done = run_script(
        """
        import sys, numpy, pytriton_lite
        with pytriton_lite.Server(sys.argv[1]) as server:
            try:
                server["m"]({"IN": numpy.float32([1])})
            except KeyboardInterrupt:
                print("interrupted")
        """,
        repository.models,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_ctrl_c_leaves_an_inline_model_usable(repository: RepositoryBuilder) -> None:
    body = "import os, signal"
    methods = """
    def answer(self, x, request):
        if x[0]:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
        return x
    """
    repository.model("m", echo_model(body, methods))
    done = run_script(
        """
        import sys, numpy, pytriton_lite
        with pytriton_lite.Server(sys.argv[1], execution="inline") as server:
            try:
                server["m"]({"IN": numpy.float32([1])})
            except KeyboardInterrupt:
                print("interrupted")
            print(server["m"]({"IN": numpy.float32([0])})["OUT"])
        """,
        repository.models,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n[0.]\n"), done.stderr


def test_breakpoint_works_inline(repository: RepositoryBuilder) -> None:
    methods = """
    def answer(self, x, request):
        secret = 42
        breakpoint()
        return x
    """
    repository.model("m", echo_model("", methods))
    done = run_script(
        """
        import sys, numpy, pytriton_lite
        with pytriton_lite.Server(sys.argv[1], execution="inline") as server:
            print(server["m"]({"IN": numpy.float32([1])})["OUT"])
        """,
        repository.models,
        input="p secret + 1\nup\nup\np server\ncontinue\n",
        env={**os.environ, "PYTHONBREAKPOINT": "pdb.set_trace"},
    )
    assert done.returncode == 0, done.stderr
    assert "(Pdb) 43" in done.stdout
    assert "running" in done.stdout  # the caller's frame, two levels up
    assert done.stdout.endswith("[1.]\n")


# -- options ---------------------------------------------------------------------------


def test_options(repository: RepositoryBuilder) -> None:
    with pytest.raises(TypeError, match="unexpected option 'exit_timout'; did you mean"):
        ptl.Server(repository.models, exit_timout=3)
    with pytest.raises(TypeError, match="needs a model repository"):
        ptl.Server()
    with pytest.raises(ptl.InvalidArgumentError, match="execution 'threads' is none of"):
        ptl.Server(repository.models, execution="threads")
    with pytest.raises(ptl.InvalidArgumentError, match="must be the ONLY startup model"):
        ptl.Server(repository.models, startup_models=["*", "m"])
    with pytest.warns(ptl.CompatibilityWarning, match="'pinned_memory_pool_size' of Triton has no"):
        ptl.Server(repository.models, pinned_memory_pool_size=1)


def test_execution_may_differ_by_model(repository: RepositoryBuilder, serve: Serve) -> None:
    body = """
    import threading
    def answer(x, request):
        return x * 0 + (threading.current_thread() is threading.main_thread())
    """
    repository.model("a", echo_model(body))
    repository.model("b", echo_model(body))
    server = serve(execution={"a": "inline", "*": "thread"})
    assert server["a"]({"IN": X})["OUT"].tolist() == [1, 1]
    assert server["b"]({"IN": X})["OUT"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("max_batch_size: 2 sequence_batching { }", "sequence_batching"),
        ("instance_group [ { passive: true } ]", "passive instance groups only"),
    ],
)
def test_unsupported_features_are_refused_at_load(
    repository: RepositoryBuilder, serve: Serve, config: str, words: str
) -> None:
    repository.model("m", echo_model(), config=ECHO_CONFIG + config)
    with pytest.raises(ptl.ModelLoadError, match=words) as caught:
        serve()
    assert isinstance(caught.value.exceptions[0], ptl.UnsupportedError)


FORCE_CPU = 'parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value {{ string_value: "{}" }} }}'


# Observed on Triton 2.51, which looks at the parameter before it starts the model's code.
@pytest.mark.parametrize("value", ["maybe", "", "YES", " yes", "a'b", "true"])
@pytest.mark.parametrize("source", [echo_model(), "syntax error("], ids=["good", "broken"])
def test_wrong_force_cpu_only_input_tensors(
    repository: RepositoryBuilder, serve: Serve, value: str, source: str
) -> None:
    config = ECHO_CONFIG + FORCE_CPU.format(value)
    repository.model("m", source, config=config)
    server = serve(exit_on_error=False)
    assert server["m"].reason == (
        f"Unsupported: Incorrect value for FORCE_CPU_ONLY_INPUT_TENSORS: {value}'"
    )
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve()
    assert isinstance(caught.value.exceptions[0], ptl.UnsupportedError)


@pytest.mark.parametrize("value", ["yes", "no"])
def test_force_cpu_only_input_tensors_means_nothing_on_the_cpu(
    repository: RepositoryBuilder, serve: Serve, execution: str, value: str
) -> None:
    repository.model("m", echo_model(), config=ECHO_CONFIG + FORCE_CPU.format(value))
    assert serve(execution=execution)["m"]({"IN": X})["OUT"].tolist() == [1, 2]


@pytest.mark.parametrize(("value", "is_cpu"), [("yes", True), ("no", False)])
def test_where_device_inputs_go(
    repository: RepositoryBuilder, serve: Serve, execution: str, value: str, is_cpu: bool
) -> None:
    class OnDevice(Producer):
        def __dlpack__(self, *, stream=None, max_version=None, dl_device=None):
            return (self if dl_device is None else Producer(X, version=(1, 0))).capsule()

    source = echo_model().replace(".as_numpy()", "")
    body = "def answer(tensor, request): return np.float32([tensor.is_cpu()])"
    source = source.replace("def answer(x, request): return x", body)
    repository.model("m", source, config=ECHO_CONFIG + FORCE_CPU.format(value))
    nowhere = OnDevice(0x7F00_0000_1000, (2,), device=CUDA)
    # Only CPU memory is shared with a stub.
    expected = is_cpu or execution == "process"
    assert serve(execution=execution)["m"]({"IN": nowhere})["OUT"].tolist() == [expected]


# -- the backend table, metadata and logs ----------------------------------------------


def test_backend_table(
    repository: RepositoryBuilder, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository.backend("shared", echo_model())
    repository.model("m", config=ECHO_CONFIG.replace("python", "shared"))
    with caplog.at_level(logging.INFO, "pytriton_lite"):
        server = serve(backend_configuration={"python": {"a": "1"}, "shared": {"b": "2"}})
    shared, python = server.backends()
    # Keys, order and values as Triton 2.51 printed them for the same two backends.
    cmdline = {
        "auto-complete-config": "true",
        "backend-directory": str(repository.backends),
        "min-compute-capability": "6.000000",
        "a": "1",
        "default-max-batch-size": "4",
    }
    assert (shared.name, shared.path) == ("shared", str(folder / "model.py"))
    assert list(shared.config["cmdline"].items()) == list(cmdline.items())
    assert python.name == "python"
    assert python.config == shared.config
    table = str(server.backends())
    assert table in caplog.text
    lines = table.splitlines()
    assert lines[1].split("|")[1:4] == [
        f" {cell:<{len(part) - 2}} "
        for cell, part in zip(("Backend", "Path", "Config"), lines[1].split("|")[1:4], strict=True)
    ]
    assert lines[0] == lines[2] == lines[-1]
    assert {len(line) for line in lines} == {len(lines[0])}


def test_native_backends_are_refused_clearly(repository: RepositoryBuilder, serve: Serve) -> None:
    backend = repository.backend("fast", echo_model())
    (backend / "libtriton_fast.so").write_bytes(b"\x7fELF")
    repository.model("m", config=ECHO_CONFIG.replace("python", "fast"))
    with pytest.raises(ptl.ModelLoadError, match=r"libtriton_fast\.so' ?.*only Python models") as e:
        serve()
    assert isinstance(e.value.exceptions[0], ptl.UnsupportedError)


def test_an_unknown_backend_lists_every_path(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.backend("calibrate", echo_model())
    folder = repository.model("m", echo_model(), config='backend: "calibrat"')
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve()
    text = str(caught.value.exceptions[0])
    assert text.startswith(
        "unable to find backend library for backend 'calibrat', try specifying runtime on the "
        "model configuration."
    )
    for path in (folder / "1", folder, repository.backends / "calibrat"):
        assert f"'{path}/libtriton_calibrat.so'" in text
    assert f"'{repository.backends}/calibrat/model.py'" in text
    assert text.endswith("did you mean 'calibrate'?")


def test_model_logs_go_to_logging(
    repository: RepositoryBuilder, serve: Serve, caplog: pytest.LogCaptureFixture, execution: str
) -> None:
    methods = """
    def answer(self, x, request):
        pb_utils.Logger.log_warn("careful")
        pb_utils.Logger.log("detail", pb_utils.Logger.VERBOSE)
        return x
    """
    folder = repository.model("m", echo_model("", methods))
    with caplog.at_level(logging.DEBUG, "pytriton_lite"):
        serve(execution=execution)["m"]({"IN": X})
    ours = [r for r in caplog.records if r.name == "pytriton_lite.model.m"]
    assert [(r.levelno, r.getMessage()) for r in ours] == [
        (logging.WARNING, "careful"),
        (logging.DEBUG, "detail"),
    ]
    assert {(r.pathname, r.funcName) for r in ours} == {(str(folder / "1" / "model.py"), "answer")}


def test_metadata_and_config(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model(), config=ECHO_CONFIG + "max_batch_size: 4")
    server = serve()
    model = server["m"]
    # Recorded from Triton 2.51 for this configuration.
    assert model.metadata() == {
        "name": "m",
        "versions": ["1"],
        "platform": "python",
        "inputs": [{"name": "IN", "datatype": "FP32", "shape": [-1, -1]}],
        "outputs": [{"name": "OUT", "datatype": "FP32", "shape": [-1, -1]}],
    }
    config = model.config()
    assert config["max_batch_size"] == 4
    config["max_batch_size"] = 5
    assert model.config()["max_batch_size"] == 4
    assert model.batch_properties() is ptl.ModelBatchFlag.FIRST_DIM
    assert model.transaction_properties() is ptl.ModelTxnPropertyFlag.ONE_TO_ONE
    assert server.metadata()["name"] == "triton"
    assert "m" in server.models()
    assert server.models().get("ghost") is None
    with pytest.raises(ptl.NotFoundError):
        server["ghost"]


def test_signal_handlers_are_left_alone(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model())
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    serve()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_only_processes_need_is_not_imported(repository: RepositoryBuilder):
    repository.model("m", echo_model())
    code = (
        "import sys\nimport pytriton_lite as ptl\n"
        "with ptl.Server(sys.argv[1], execution=sys.argv[2]): pass\n"
        "rare = ('pytriton_lite._ipc', 'pytriton_lite._instance.process', 'tarfile')\n"
        "print(sorted(name for name in sys.modules if name.startswith(rare)))"
    )
    command = [sys.executable, "-c", code, repository.models]
    found = [
        subprocess.run([*command, mode], capture_output=True, text=True, check=True, timeout=60)
        for mode in ("thread", "process")
    ]
    assert found[0].stdout == "[]\n"
    assert "pytriton_lite._ipc.process" in found[1].stdout
