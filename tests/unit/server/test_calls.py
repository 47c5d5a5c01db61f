"""The forms of a call: results, errors, futures, timeouts, cancellation, asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])

BOOM_METHODS = """
def answer(self, x, request):
    if x[0] < 0:
        raise self.error()
    return x

def error(self):
    return ValueError("below zero")
"""


@pytest.fixture(scope="module", params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    """Each execution mode in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, execution: str) -> Iterator[ptl.Server]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp(execution))
    repository.model("boom", echo_model("", BOOM_METHODS))
    repository.model(
        "tell",
        """
import json
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for r in requests:
            told = [r.request_id(), r.correlation_id(), r.flags(), r.timeout(), r.parameters(),
                    sorted(r.requested_output_names()), r.is_cancelled(), r.trace().get_context()]
            out = np.array([json.dumps(told)], dtype=object)
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", out), pb_utils.Tensor("MORE", np.zeros(2, np.int8))],
                parameters={"cost": 3}))
        return responses
""",
        config=(
            'backend: "python" output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] },'
            ' { name: "MORE" data_type: TYPE_INT8 dims: [ 2 ] } ]'
        ),
    )
    with ptl.Server(repository.models, execution=execution) as server:
        yield server


def told(response: ptl.InferenceResponse) -> list:
    return json.loads(response["OUT"][0])


def test_a_model_is_called_like_a_function(server: ptl.Server) -> None:
    outputs = server["boom"]({"IN": X})
    assert list(outputs) == ["OUT"]
    assert outputs["OUT"].tolist() == [1, 2]


def test_run_carries_everything_to_the_model(server: ptl.Server) -> None:
    response = server["tell"].run(
        {},
        outputs=["OUT"],
        parameters={"b": True, "i": np.int64(3), "f": 1.5, "s": "ä"},
        request_id="r1",
        priority=1,
        correlation_id=7,
        sequence_start=True,
        sequence_end=True,
        timeout=5000,
        timeout_s=20,
    )
    parameters = '{"b":true,"i":3,"f":1.5,"s":"ä"}'
    assert told(response) == ["r1", 7, 3, 5000, parameters, ["OUT"], False, None]
    assert list(response.outputs) == ["OUT"]
    assert response.request_id == "r1"
    assert (response.model_name, response.model_version) == ("tell", 1)
    assert response.parameters == {"cost": 3}
    assert response.final
    assert response.error is None


def test_a_plain_run_asks_for_all_outputs(server: ptl.Server) -> None:
    response = server["tell"].run({})
    assert told(response) == ["", 0, 0, 0, "{}", ["MORE", "OUT"], False, None]
    assert list(response.outputs) == ["OUT", "MORE"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": {"triton_x": 1}}, "parameter keys starting with 'triton_' are reserved"),
        ({"parameters": {"x": {}}}, "parameter 'x' has invalid type. It should be either 'int'"),
        ({"parameters": {"x": b"b"}}, "parameter 'x' has invalid type"),
        ({"parameters": {1: 1}}, "parameter keys .* must be str"),
        ({"outputs": ["ZZ"]}, "unexpected inference output 'ZZ' for model 'tell'"),
        ({"priority": -1}, "priority .* must be a non-negative int, got -1"),
        ({"timeout": "x"}, "timeout .* must be a non-negative int, got 'x'"),
        ({"request_id": 5}, "request_id .* must be a str, got 5"),
        ({"correlation_id": 1.5}, "correlation_id .* must be a str or an unsigned"),
        ({"correlation_id": -1}, "correlation_id .* must be a str or an unsigned"),
    ],
)
def test_wrong_arguments_of_a_request(server: ptl.Server, options: dict, words: str) -> None:
    with pytest.raises(ptl.InvalidArgumentError, match=words):
        server["tell"].run({}, **options)


def test_an_error_of_the_model_arrives_whole(server: ptl.Server, execution: str) -> None:
    with pytest.raises(ptl.InternalError) as caught:
        server["boom"].run({"IN": -X}, request_id="r9")
    error = caught.value
    lines = str(error).splitlines()
    assert lines[0] == (
        "Failed to process the request(s) for model 'boom_0', message: ValueError: below zero"
    )
    assert lines[2] == "At:"
    assert lines[3].endswith("model.py(10): answer")
    assert lines[4].endswith("model.py(20): execute")
    assert (error.model, error.request_id, error.code) == ("boom", "r9", ptl.ErrorCode.INTERNAL)
    cause = error.__cause__
    assert type(cause) is ValueError
    if execution == "process":
        # Frames stay where they are; what the stub would print comes along.
        (note,) = cause.__notes__
        assert note.startswith("Traceback in the stub process:")
        names = [line.rpartition(" ")[2] for line in note.splitlines() if ", in " in line]
    else:
        frames = traceback.walk_tb(cause.__traceback__)
        names = [frame.f_code.co_name for frame, _ in frames]
    assert names[-2:] == ["execute", "answer"]
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.model) == (ptl.InternalError, str(error), "boom")
    # The model goes on working.
    assert server["boom"]({"IN": X})["OUT"].tolist() == [1, 2]


def test_each_caller_gets_its_own_exception_object(server: ptl.Server) -> None:
    errors = [server["boom"].submit({"IN": -X}).exception(20) for _ in range(2)]
    assert errors[0] is not errors[1]


def test_submit(server: ptl.Server) -> None:
    futures = [server["boom"].submit({"IN": X + i}) for i in range(10)]
    done = concurrent.futures.wait(futures, 20).done
    assert len(done) == 10
    assert [f.result()["OUT"][0] for f in futures] == list(range(1, 11))
    assert isinstance(server["boom"].submit({"IN": -X}).exception(20), ptl.InternalError)
    with pytest.raises(ptl.InvalidArgumentError):
        server["boom"].submit({})


def test_infer_is_the_official_form(server: ptl.Server) -> None:
    model = server["boom"]
    request = model.create_request(inputs={"IN": X}, request_id="q", correlation_id="s", timeout=5)
    (response,) = model.infer(request)
    assert response.outputs["OUT"].numpy().tolist() == [1, 2]
    assert response.request_id == "q"
    assert np.from_dlpack(response.outputs["OUT"]).tolist() == [1, 2]
    (response,) = model.infer(inputs={"IN": X}, requested_outputs=["OUT"])
    assert response.final
    with pytest.raises(ptl.InternalError):
        list(model.infer(inputs={"IN": -X}))
    (failed,) = model.infer(inputs={"IN": -X}, request_id="f", raise_on_error=False)
    assert isinstance(failed.error, ptl.InternalError)
    assert (failed.request_id, failed.outputs) == ("f", {})
    with pytest.raises(ptl.InvalidArgumentError, match="unexpected keyword argument 'inptus'"):
        model.create_request(inptus={})


def test_asyncio(server: ptl.Server) -> None:
    async def main() -> None:
        model = server["boom"]
        answers = await asyncio.gather(*(model.async_run({"IN": X + i}) for i in range(40)))
        assert [a["OUT"][0] for a in answers] == list(range(1, 41))
        with pytest.raises(ptl.InternalError):
            await model.async_run({"IN": -X})
        (response,) = [r async for r in model.async_infer(inputs={"IN": X}, request_id="a")]
        assert response.request_id == "a"
        (failed,) = [r async for r in model.async_infer(inputs={"IN": -X}, raise_on_error=False)]
        assert isinstance(failed.error, ptl.InternalError)
        with pytest.raises(ptl.InvalidArgumentError):
            await model.async_run({})

    asyncio.run(main())
    asyncio.run(main())  # a second loop has a bridge of its own


def test_inline_is_refused_where_it_would_block_a_loop(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model())
    model = serve(execution="inline")["m"]

    async def main() -> None:
        for call in (model, model.run, model.submit):
            with pytest.raises(ptl.UnsupportedError, match="runs inline, and this thread runs an"):
                call({"IN": X})
        assert (await model.async_run({"IN": X}))["OUT"].tolist() == [1, 2]

    asyncio.run(main())


# -- waiting, giving up ----------------------------------------------------------------

HELD = """
import threading
import time

def answer(x, request):
    threading.held_order.append(int(x[0]))
    threading.held_entered.set()
    deadline = time.monotonic() + 30
    while not threading.held_gate.wait(0.001):
        if request.is_cancelled():
            threading.held_cancelled.set()
            break
        assert time.monotonic() < deadline
    return x
"""


class Held:
    """Controls a model made of `HELD`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.cancelled = threading.Event()
        self.order: list[int] = []


@pytest.fixture
def held(repository: RepositoryBuilder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    control = Held()
    for name in ("gate", "entered", "cancelled", "order"):
        monkeypatch.setattr(threading, f"held_{name}", getattr(control, name), raising=False)
    repository.model("m", echo_model(HELD))
    yield control
    control.gate.set()


def test_a_timeout_cancels_the_running_request(serve: Serve, held: Held) -> None:
    model = serve()["m"]
    with pytest.raises(ptl.RequestTimeoutError, match="'m' was not answered in time") as caught:
        model.run({"IN": X}, timeout_s=0.05, request_id="late")
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id == "late"
    assert held.cancelled.wait(20)
    held.gate.set()
    assert model({"IN": X}, timeout_s=20)["OUT"].tolist() == [1, 2]


def test_a_queued_request_that_is_given_up_never_reaches_the_model(
    serve: Serve, held: Held
) -> None:
    model = serve()["m"]
    first = model.submit({"IN": X * 0})
    held.entered.wait(20)
    with pytest.raises(ptl.RequestTimeoutError):
        model({"IN": X * 5}, timeout_s=0.02)
    second, third = model.submit({"IN": X * 6}), model.submit({"IN": X * 7})
    assert second.cancel()
    assert second.cancelled()
    held.gate.set()
    assert third.result(20)["OUT"].tolist() == [7, 14]
    assert first.done()
    assert held.order == [0, 7]
    assert not third.cancel()


def test_cancelling_a_future_tells_the_running_model(serve: Serve, held: Held) -> None:
    future = serve()["m"].submit({"IN": X})
    held.entered.wait(20)
    assert future.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    assert held.cancelled.wait(20)


def test_cancelling_a_task_tells_the_running_model(serve: Serve, held: Held) -> None:
    model = serve()["m"]

    async def main() -> None:
        task = asyncio.create_task(model.async_run({"IN": X}))
        await asyncio.to_thread(held.entered.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(held.cancelled.wait, 20)
        with pytest.raises(ptl.RequestTimeoutError):
            await model.async_run({"IN": X}, timeout_s=0.02)
        # Cancelled before the loop has even handed it over: the model never sees it.
        task = asyncio.create_task(model.async_run({"IN": X * 9}))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held.gate.set()
        assert (await model.async_run({"IN": X}))["OUT"].tolist() == [1, 2]

    asyncio.run(main())
    assert 9 not in held.order


def test_inline_callers_take_turns(serve: Serve, held: Held) -> None:
    model = serve(execution="inline")["m"]
    answers: dict[int, list[float]] = {}

    def call(number: int) -> None:
        answers[number] = model({"IN": X * number})["OUT"].tolist()

    first = threading.Thread(target=call, args=(1,))
    first.start()
    held.entered.wait(20)
    others = [threading.Thread(target=call, args=(n,)) for n in range(2, 80)]
    for thread in others:
        thread.start()
    with pytest.raises(ptl.RequestTimeoutError):
        model({"IN": X * 100}, timeout_s=0.02)
    held.gate.set()
    for thread in [first, *others]:
        thread.join(20)
    assert answers == {n: [n, 2 * n] for n in range(1, 80)}
    assert 100 not in held.order


def test_instances_work_side_by_side(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "side", threading.Barrier(3), raising=False)
    body = """
    import threading
    def answer(x, request):
        threading.side.wait(20)
        return x
    """
    config = ECHO_CONFIG + "instance_group [ { count: 3 } ]"
    repository.model("m", echo_model(body), config=config)
    model = serve()["m"]
    futures = [model.submit({"IN": X}) for _ in range(6)]
    assert all(f.result(20)["OUT"].tolist() == [1, 2] for f in futures)


def test_async_execute_in_default_mode(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    source = echo_model(
        """
        import asyncio
        async def answer(x):
            await asyncio.sleep(0)
            if x[0] < 0:
                raise SystemExit(3)
            return x
        """
    ).replace("    def execute", "    async def execute")
    source = source.replace(
        'out = self.answer(x, request) if hasattr(self, "answer") else answer(x, request)',
        "out = await answer(x)",
    )
    repository.model("m", source)
    model = serve(execution=execution)["m"]
    assert model({"IN": X})["OUT"].tolist() == [1, 2]
    with pytest.raises(ptl.InternalError, match="SystemExit: 3") as caught:
        model({"IN": -X})
    assert isinstance(caught.value.__cause__, SystemExit)
    assert model({"IN": X})["OUT"].tolist() == [1, 2]


# -- strict outputs --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return x.astype(np.int32)",
            "output 'OUT' of model 'm' has data type INT32, config wants FP32",
        ),
        ("return x.reshape(1, -1, 1)", r"has shape \[1, 2, 1\], config wants \[-1, 2\]"),
        ("return np.zeros((1, 3), np.float32)", r"has shape \[1, 3\], config wants \[-1, 2\]"),
        ("return np.zeros((2, 2), np.float32)", "has batch size 2, the request has 1"),
    ],
)
def test_strict_outputs(repository: RepositoryBuilder, serve: Serve, body: str, words: str) -> None:
    config = """
    backend: "python" max_batch_size: 4
    input [ { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] } ]
    output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] } ]
    """
    repository.model("m", echo_model(f"def answer(x, request): {body}"), config=config)
    assert "OUT" in serve()["m"]({"IN": X.reshape(1, 2)})
    strict = serve(strict_outputs=True)["m"]
    with pytest.raises(ptl.InternalError, match=words):
        strict({"IN": X.reshape(1, 2)})


def test_strict_outputs_miss_no_name(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model().replace('"OUT"', '"OTU"'))
    with pytest.raises(ptl.InternalError, match="sent output 'OUT' 0 times, expected once"):
        serve(strict_outputs=True)["m"]({"IN": X})


@pytest.mark.parametrize("seconds", [float("inf"), 1e300, 3600])
def test_long_timeouts(server: ptl.Server, seconds: float) -> None:
    assert server["boom"]({"IN": X}, timeout_s=seconds)["OUT"].tolist() == [1, 2]


def test_time_is_not_lost_on_a_busy_interpreter(serve: Serve, held: Held) -> None:
    # A timeout fires close to its time although the instance never answers.
    model = serve()["m"]
    begin = time.monotonic()
    with pytest.raises(ptl.RequestTimeoutError):
        model({"IN": X}, timeout_s=0.1)
    assert 0.1 <= time.monotonic() - begin < 10
