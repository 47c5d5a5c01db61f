"""Dynamic batching as callers and models see it, in each execution mode.

`hold_queue` makes the arrival patterns certain; what must not depend on it is tested with a model
that is kept busy. Sizes that are said to be observed were seen on Triton 2.51.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

Serve = Callable[..., ptl.Server]

# BATCH is (number of the execution, place in it, requests in it) for each row.
MODEL = """
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.number = 0

    def execute(self, requests):
        shared = getattr(threading, "batching", None)
        if shared is not None:
            shared.enter(requests)
        self.number += 1
        responses = []
        for place, request in enumerate(requests):
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            if x.size and (x == -1).all():
                error = pb_utils.TritonError("refused")
                responses.append(pb_utils.InferenceResponse([], error))
                continue
            if x.size and (x == -2).all():
                raise ValueError("broken")
            batch = np.tile(np.int32([self.number, place, len(requests)]), (x.shape[0], 1))
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", x), pb_utils.Tensor("BATCH", batch)]
            ))
        return responses
"""

MORE = 'input [ { name: "MORE" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]'
CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {dims} ] {ragged} }} ]
{more}
output [
  {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }},
  {{ name: "BATCH" data_type: TYPE_INT32 dims: [ 3 ] }}
]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
dynamic_batching {{ {batching} }}
"""


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["inline", "thread"])
def here(request: pytest.FixtureRequest) -> str:
    """Modes in which a test and its model share objects."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with hard_limit(40):
        yield


class Gate:
    """What a test in the same process knows of its model, which it can keep busy."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.batches: list[list[float]] = []
        self.threads: set[str] = set()
        self.keep: set[float] = set()  # first values of the batches that wait at the gate

    def enter(self, requests: list[Any]) -> None:
        first = [float(r.inputs()[0].as_numpy().ravel()[0]) for r in requests]
        self.batches.append(first)
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        if not self.keep or self.keep.intersection(first):
            assert self.open.wait(30)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    threading.batching = gate  # type: ignore[attr-defined]
    yield gate
    gate.open.set()
    del threading.batching  # type: ignore[attr-defined]


def config(
    batching: str = "", *, dims: str = "1", count: int = 1, ragged: bool = False, more: bool = False
) -> str:
    return CONFIG.format(
        batching=batching,
        dims=dims,
        count=count,
        ragged="allow_ragged_batch: true" if ragged else "",
        more=MORE if more else "",
    )


@pytest.fixture
def make(repository: RepositoryBuilder, serve: Serve) -> Callable[..., ptl.Model]:
    def make(execution: str, batching: str = "", **rest: Any) -> ptl.Model:
        repository.model("m", MODEL, config=config(batching, **rest))
        return serve(execution=execution)["m"]

    return make


def rows(count: int, value: float = 0.0, width: int = 1) -> dict[str, np.ndarray]:
    return {"IN": np.full((count, width), value, np.float32)}


def batches(futures: list[Future[ptl.InferenceResponse]]) -> list[list[int]]:
    """Places of the requests, by batch."""
    found: dict[int, list[int]] = {}
    for place, future in enumerate(futures):
        response = future.result(30)
        found.setdefault(int(response["BATCH"][0, 0]), []).append(place)
    return [found[number] for number in sorted(found)]


def submit_held(model: ptl.Model, *requests: dict[str, Any], **options: Any) -> list[Future[Any]]:
    with model.hold_queue():
        return [model.submit(inputs, **options) for inputs in requests]


def test_one_request_is_a_batch(make: Any, execution: str) -> None:
    model = make(execution)
    response = model.run(rows(2, 5))
    assert response["OUT"].tolist() == [[5], [5]]
    assert response["BATCH"].tolist() == [[1, 0, 1]] * 2
    [batch] = model.explain_batching()
    assert (batch.batch_size, batch.request_count, batch.reason) == (2, 1, "idle instance")
    assert batch.instance_name.startswith("m_0")
    assert batch.queue_ns >= 0


def test_batches_never_exceed_the_largest_size(make: Any, execution: str) -> None:
    # Observed: 5+4+1 with at most 8 runs as [5], [4, 1].
    model = make(execution)
    futures = submit_held(model, rows(5, 1), rows(4, 2), rows(1, 3))
    assert batches(futures) == [[0], [1, 2]]
    assert [float(f.result()["OUT"][0, 0]) for f in futures] == [1, 2, 3]
    assert [(b.batch_size, b.reason) for b in model.explain_batching()] == [
        (5, "full"),
        (5, "idle instance"),
    ]


def test_a_held_queue_makes_full_batches(make: Any, execution: str) -> None:
    model = make(execution, "max_queue_delay_microseconds: 60000000")
    futures = submit_held(model, *[rows(1, i) for i in range(20)])
    assert [len(batch) for batch in batches(futures)] == [8, 8, 4]
    assert [b.reason for b in model.explain_batching()] == ["full", "full", "released"]
    [counted] = model.statistics()["model_stats"]
    assert (counted["execution_count"], counted["inference_count"]) == (3, 20)
    sizes = {b["batch_size"]: b["compute_infer"]["count"] for b in counted["batch_stats"]}
    assert sizes == {4: 1, 8: 2}


def test_blocking_calls_are_held_too(make: Any, execution: str) -> None:
    model = make(execution)
    results: list[Any] = [None] * 8

    def call(i: int) -> None:
        results[i] = model.run(rows(1, i))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    with model.hold_queue():
        for thread in threads:
            thread.start()
        _until(lambda: model._batch_queue().depth == 8)
    for thread in threads:
        thread.join()
    assert [float(r["OUT"][0, 0]) for r in results] == list(range(8))
    assert {int(r["BATCH"][0, 2]) for r in results} == {8}


def test_a_call_that_would_wait_for_its_own_thread_is_refused(make: Any, execution: str) -> None:
    model = make(execution)
    with (
        model.hold_queue(),
        pytest.raises(ptl.InvalidArgumentError, match=r"this thread holds the queue of model 'm'"),
    ):
        model.run(rows(1))
    assert model(rows(1, 4))["OUT"].tolist() == [[4]]


def test_only_models_with_dynamic_batching_are_held(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", MODEL, config=config().replace("dynamic_batching {  }", ""))
    model = serve()["m"]
    with pytest.raises(ptl.UnsupportedError, match="'m' has no dynamic batching"):
        model.explain_batching()
    with pytest.raises(ptl.UnsupportedError), model.hold_queue():
        pass


def test_shapes_that_may_not_be_mixed(make: Any, execution: str) -> None:
    # Observed: lengths 2, 3, 2 of a variable dimension run as three batches.
    model = make(execution, dims="-1")
    futures = submit_held(model, rows(1, 1, 2), rows(1, 2, 3), rows(1, 3, 2), rows(2, 4, 2))
    assert batches(futures) == [[0], [1], [2, 3]]
    assert [b.reason for b in model.explain_batching()][:2] == ["incompatible"] * 2


def test_ragged_inputs_are_mixed(make: Any, execution: str) -> None:
    model = make(execution, dims="-1", ragged=True)
    futures = submit_held(model, rows(1, 1, 2), rows(1, 2, 3), rows(1, 3, 2))
    assert batches(futures) == [[0, 1, 2]]
    assert futures[1].result()["OUT"].tolist() == [[2, 2, 2]]


def test_requests_of_a_batch_have_the_same_inputs(make: Any, execution: str) -> None:
    # Observed: {X}, {X, Y}, {X}, {X} run as 1, 1, 2.
    model = make(execution, more=True)
    more = {"MORE": np.zeros((1, 1), np.float32)}
    plain, both = rows(1, 1), {**rows(1, 2), **more}
    futures = submit_held(model, plain, both, {**more, **rows(1, 3)}, plain, plain)
    assert batches(futures) == [[0], [1, 2], [3, 4]]


def test_an_error_in_a_batch_is_that_of_its_request(make: Any, execution: str) -> None:
    model = make(execution)
    futures = submit_held(model, rows(1, 1), rows(1, -1), rows(1, 3))
    with pytest.raises(ptl.InternalError, match="refused"):
        futures[1].result(30)
    assert batches([futures[0], futures[2]]) == [[0, 1]]


def test_an_exception_goes_to_every_request_of_the_batch(make: Any, execution: str) -> None:
    model = make(execution)
    futures = submit_held(model, rows(1, 1), rows(1, -2), rows(1, 3))
    errors = [future.exception(30) for future in futures]
    assert all(isinstance(error, ptl.InternalError) for error in errors)
    assert len({id(error) for error in errors}) == 3
    assert all("ValueError: broken" in str(error) for error in errors)
    assert model(rows(1, 4))["OUT"].tolist() == [[4]]


def test_requests_cancelled_in_the_queue_never_run(make: Any, execution: str) -> None:
    model = make(execution)
    with model.hold_queue():
        futures = [model.submit(rows(1, i)) for i in range(4)]
        assert futures[1].cancel()
    assert futures[0].result(30)["BATCH"].tolist() == [[1, 0, 3]]
    assert futures[3].result(30)["BATCH"].tolist() == [[1, 2, 3]]
    assert futures[1].cancelled()


def test_a_call_may_lose_its_patience_in_the_queue(make: Any, execution: str) -> None:
    model = make(execution)
    errors: list[BaseException] = []

    def call() -> None:
        try:
            model.run(rows(1), timeout_s=0.05)
        except ptl.RequestTimeoutError as error:
            errors.append(error)

    with model.hold_queue():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        future = model.submit(rows(1, 2))
    assert future.result(30)["BATCH"].tolist() == [[1, 0, 1]]
    assert len(errors) == 1


def test_a_delay_is_waited_for(make: Any, execution: str) -> None:
    # A minute would be noticed: so the second call sends the batch of both, since it is full then.
    model = make(execution, "max_queue_delay_microseconds: 60000000 preferred_batch_size: [ 2 ]")
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(model.run(rows(1, 1))))
    thread.start()
    _until(lambda: model._batch_queue().depth == 1)
    results.append(model.run(rows(1, 2)))
    thread.join()
    assert [r["BATCH"][0, 2] for r in results] == [2, 2]
    assert [b.reason for b in model.explain_batching()] == ["preferred size"]


def test_the_delay_ends(make: Any, execution: str) -> None:
    model = make(execution, "max_queue_delay_microseconds: 20000")
    assert model.run(rows(1, 1))["BATCH"].tolist() == [[1, 0, 1]]
    [batch] = model.explain_batching()
    assert batch.reason == "delay over"
    assert batch.queue_ns >= 20_000_000


def test_the_time_of_a_call_may_end_before_the_delay(make: Any, execution: str) -> None:
    model = make(execution, "max_queue_delay_microseconds: 60000000")
    with pytest.raises(ptl.RequestTimeoutError):
        model.run(rows(1, 1), timeout_s=0.05)
    assert batches(submit_held(model, rows(1, 2), rows(1, 3))) == [[0, 1]]


def test_submitted_requests_do_not_wait_for_a_delay_inline(make: Any) -> None:
    model = make("inline", "max_queue_delay_microseconds: 60000000")
    assert model.submit(rows(1, 1)).done()


def test_an_unload_ends_the_delay(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("m", MODEL, config=config("max_queue_delay_microseconds: 60000000"))
    server = serve(execution=execution)
    model = server["m"]
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(model.run(rows(1, 1))))
    thread.start()
    _until(lambda: model._batch_queue().depth == 1)
    server.stop()
    thread.join()
    assert results[0]["BATCH"].tolist() == [[1, 0, 1]]


def test_what_comes_while_an_instance_is_busy_is_one_batch(
    make: Any, here: str, gate: Gate
) -> None:
    model = make(here)
    threads = [threading.Thread(target=model, args=(rows(1, i),)) for i in range(6)]
    threads[0].start()
    assert gate.entered.acquire(timeout=20)
    for thread in threads[1:]:
        thread.start()
    _until(lambda: model._batch_queue().depth == 5)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert gate.batches[0] == [0]
    assert sorted(gate.batches[1]) == [1, 2, 3, 4, 5]


def test_several_instances_share_the_work(make: Any, here: str, gate: Gate) -> None:
    model = make(here, "preferred_batch_size: [ 1 ]", count=3)
    threads = [threading.Thread(target=model, args=(rows(1, i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    # All three run at once: none of the batches ends before the gate is open.
    for _ in threads:
        assert gate.entered.acquire(timeout=20)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert sorted(gate.batches) == [[0], [1], [2]]
    if here == "thread":
        assert gate.threads == {"m_0_0", "m_0_1", "m_0_2"}  # each keeps its own


def test_a_released_queue_uses_all_instances(make: Any, here: str, gate: Gate) -> None:
    model = make(here, count=2)
    threads = [threading.Thread(target=model, args=(rows(8, i),)) for i in range(2)]
    with model.hold_queue():
        for thread in threads:
            thread.start()
        _until(lambda: model._batch_queue().depth == 2)
    for _ in threads:
        assert gate.entered.acquire(timeout=20)
    gate.open.set()
    for thread in threads:
        thread.join()
    assert sorted(gate.batches) == [[0], [1]]


def test_priorities(make: Any, execution: str) -> None:
    # Observed: 2, 2, 3, (3 refused), 2, 1, 9 -> 2; here without the first, which ran alone.
    model = make(
        execution,
        "preferred_batch_size: [ 1 ] priority_levels: 3 default_priority_level: 2 "
        "priority_queue_policy { key: 3 value { max_queue_size: 1 } }",
    )
    with model.hold_queue():
        futures = [model.submit(rows(1), priority=n) for n in (2, 3, 3, 2, 1, 9)]
    with pytest.raises(
        ptl.UnavailableError, match=r"^\[request id: <id_unknown>\] Exceeds maximum queue size$"
    ):
        futures.pop(2).result(30)
    assert [place for batch in batches(futures) for place in batch] == [3, 0, 2, 4, 1]


def test_a_full_queue_refuses_at_once(make: Any, execution: str) -> None:
    model = make(execution, "default_queue_policy { max_queue_size: 2 }")
    errors: list[BaseException] = []

    def call() -> None:
        try:
            model.run(rows(1), request_id="r9")
        except ptl.UnavailableError as error:
            errors.append(error)

    with model.hold_queue():
        futures = [model.submit(rows(1, i)) for i in range(3)]
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert isinstance(futures[2].exception(), ptl.UnavailableError)
    assert batches(futures[:2]) == [[0, 1]]
    assert str(errors[0]) == "[request id: r9] Exceeds maximum queue size"
    assert type(errors[0]) is ptl.UnavailableError


def test_a_request_is_rejected_when_its_time_is_up(make: Any, execution: str) -> None:
    model = make(
        execution,
        "default_queue_policy { default_timeout_microseconds: 60000000 "
        "allow_timeout_override: true }",
    )
    with model.hold_queue():
        future = model.submit(rows(1), timeout=20_000)
        other = model.submit(rows(1), timeout=0)
        # While nothing takes it out of the queue: it is told in time, where Triton would wait.
        with pytest.raises(ptl.RequestTimeoutError, match=r"^Request timeout expired$") as caught:
            future.result(30)
    assert caught.value.code == ptl.ErrorCode.UNAVAILABLE
    assert other.result(30)["BATCH"].tolist() == [[1, 0, 1]]


def test_a_call_is_rejected_when_its_time_is_up(make: Any, execution: str) -> None:
    model = make(execution, "default_queue_policy { default_timeout_microseconds: 20000 }")
    errors: list[BaseException] = []

    def call() -> None:
        try:
            model.run(rows(1))
        except ptl.UnavailableError as error:
            errors.append(error)

    with model.hold_queue():
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert str(errors[0]) == "Request timeout expired"
    assert model(rows(1, 3))["OUT"].tolist() == [[3]]


def test_late_requests_are_served_last(make: Any, execution: str) -> None:
    model = make(
        execution,
        "preferred_batch_size: [ 1 ] default_queue_policy { timeout_action: DELAY "
        "default_timeout_microseconds: 60000000 allow_timeout_override: true }",
    )
    with model.hold_queue():
        late = model.submit(rows(1), timeout=1)
        deadline = time.monotonic_ns() + 1000
        _until(lambda: time.monotonic_ns() > deadline)
        timely = model.submit(rows(1))
    assert batches([late, timely]) == [[1], [0]]


def test_coroutines_form_full_batches(make: Any) -> None:
    model = make("thread", count=1)

    async def main() -> list[Any]:
        return await asyncio.gather(*[model.async_run(rows(1, i)) for i in range(32)])

    responses = asyncio.run(main())
    assert [int(r["OUT"][0, 0]) for r in responses] == list(range(32))
    assert [int(r["BATCH"][0, 2]) for r in responses] == [8] * 32


def test_answers_keep_the_order_of_the_batches(make: Any, here: str, gate: Gate) -> None:
    # Observed: a fast second request waits for a slow first one on another instance.
    gate.keep = {1.0}
    done: list[str] = []
    model = make(here, "preferred_batch_size: [ 1 ] preserve_ordering: true", count=2)

    def call(value: float, name: str) -> None:
        model.run(rows(1, value))
        done.append(name)

    slow = threading.Thread(target=call, args=(1.0, "slow"))
    slow.start()
    assert gate.entered.acquire(timeout=20)
    fast = threading.Thread(target=call, args=(2.0, "fast"))
    fast.start()
    assert gate.entered.acquire(timeout=20)
    fast.join(0.1)
    assert fast.is_alive()
    gate.open.set()
    slow.join()
    fast.join()
    assert sorted(done) == ["fast", "slow"]


@pytest.mark.parametrize("way", ["error", "cancel"])
def test_the_order_goes_on_after_errors(make: Any, here: str, gate: Gate, way: str) -> None:
    gate.keep = {-2.0}
    model = make("thread", "preferred_batch_size: [ 1 ] preserve_ordering: true", count=2)
    order: list[int] = []
    first = model.submit(rows(1, -2))
    assert gate.entered.acquire(timeout=20)
    rest = [model.submit(rows(1, i)) for i in range(1, 4)]
    for i, future in enumerate(rest):
        future.add_done_callback(lambda _, i=i: order.append(i))
    for _ in rest:
        assert gate.entered.acquire(timeout=20)
    assert not any(future.done() for future in rest)
    if way == "error":
        gate.open.set()
        assert isinstance(first.exception(30), ptl.InternalError)
    else:
        assert first.cancel()
    wait(rest, 30)
    assert order == [0, 1, 2]


def test_without_the_setting_a_fast_request_overtakes(make: Any, here: str, gate: Gate) -> None:
    gate.keep = {1.0}
    model = make(here, "preferred_batch_size: [ 1 ]", count=2)
    slow = threading.Thread(target=model, args=(rows(1, 1),))
    slow.start()
    assert gate.entered.acquire(timeout=20)
    assert model(rows(1, 2))["OUT"].tolist() == [[2]]
    gate.open.set()
    slow.join()


LATER = """
import queue
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.number = 0
        self.todo = queue.SimpleQueue()
        self.thread = threading.Thread(target=self.answer)
        self.thread.start()

    def execute(self, requests):
        self.number += 1
        for place, request in enumerate(requests):
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy().copy()
            batch = np.tile(np.int32([self.number, place, len(requests)]), (len(x), 1))
            # The last one of a batch is answered first.
            self.todo.put((-place, request.get_response_sender(), x, batch))
        self.todo.put(None)
        return RESULT

    def answer(self):
        batch = []
        while True:
            item = self.todo.get()
            if item is not None:
                if item == "end":
                    return
                batch.append(item)
                continue
            for _, sender, x, numbers in sorted(batch, key=lambda item: item[0]):
                outputs = [pb_utils.Tensor("OUT", x), pb_utils.Tensor("BATCH", numbers)]
                sender.send(pb_utils.InferenceResponse(outputs))
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            batch.clear()

    def finalize(self):
        self.todo.put("end")
        self.thread.join()
"""


@pytest.mark.parametrize("is_ordered", [False, True])
def test_response_senders_answer_a_batch_later(
    repository: RepositoryBuilder, serve: Serve, execution: str, is_ordered: bool
) -> None:
    source = LATER.replace("RESULT", "[None] * len(requests)")
    repository.model("m", source, config=config(f"preserve_ordering: {str(is_ordered).lower()}"))
    model = serve(execution=execution)["m"]
    order: list[int] = []
    with model.hold_queue():
        futures = [model.submit(rows(1, i)) for i in range(4)]
        for i, future in enumerate(futures):
            future.add_done_callback(lambda _, i=i: order.append(i))
    assert batches(futures) == [[0, 1, 2, 3]]
    assert order == ([0, 1, 2, 3] if is_ordered else [3, 2, 1, 0])


def test_decoupled_models_get_batches(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    source = LATER.replace("RESULT", "None")
    decoupled = "model_transaction_policy { decoupled: true }"
    repository.model("m", source, config=config("preserve_ordering: true") + decoupled)
    model = serve(execution=execution)["m"]
    with model.hold_queue():
        streams = [model.stream(rows(1, i)) for i in range(4)]
    for i, stream in enumerate(streams):
        [response] = list(stream)
        assert response["OUT"].tolist() == [[i]]
        assert response["BATCH"].tolist() == [[1, i, 4]]


CALLER = """
import asyncio

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        async def ask(x):
            request = pb_utils.InferenceRequest(
                model_name="m", inputs=[pb_utils.Tensor("IN", x)],
                requested_output_names=["OUT", "BATCH"],
            )
            return await request.async_exec()

        [request] = requests
        x = request.inputs()[0].as_numpy()
        answers = await asyncio.gather(*[ask(x + i) for i in range(4)])
        answer = answers[int(x[0, 0])]
        if answer.has_error():
            return [pb_utils.InferenceResponse([], answer.error())]
        return [pb_utils.InferenceResponse(answer.output_tensors())]
"""


@pytest.mark.parametrize("caller_mode", ["thread", "process"])
def test_requests_of_models_are_batched(
    repository: RepositoryBuilder, serve: Serve, execution: str, caller_mode: str
) -> None:
    # Four requests of one model fill the batch; nobody has to wait a minute.
    batching = "max_queue_delay_microseconds: 60000000 preferred_batch_size: [ 4 ]"
    if execution == "inline":
        batching = ""  # what no thread waits for does not wait for a delay
    repository.model("m", MODEL, config=config(batching))
    repository.model("caller", CALLER, config=config().replace("dynamic_batching {  }", ""))
    server = serve(execution={"m": execution, "caller": caller_mode})
    response = server["caller"].run(rows(1, 2))
    assert response["OUT"].tolist() == [[4]]
    if batching:
        assert response["BATCH"].tolist() == [[1, 2, 4]]


def test_a_model_that_calls_itself_is_told(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    source = CALLER.replace("async def execute", "def execute").replace(
        "answers = await asyncio.gather(*[ask(x + i) for i in range(4)])\n"
        "        answer = answers[int(x[0, 0])]",
        "answer = pb_utils.InferenceRequest(model_name='m', inputs=request.inputs(), "
        "requested_output_names=['OUT']).exec()",
    )
    repository.model("m", source, config=config())
    with pytest.raises(ptl.TritonError, match="no instance can ever become free"):
        serve(execution=execution)["m"].run(rows(1))


DYING = MODEL.replace(
    """            if x.size and (x == -1).all():
""",
    """            if x.size and (x == -3).all():
                import os
                os._exit(3)
            if x.size and (x == -1).all():
""",
)


def test_the_death_of_an_instance_fails_its_batch_only(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", DYING, config=config())
    model = serve(execution="process")["m"]
    futures = submit_held(model, *[rows(1, n) for n in (1, 2, -3, 4, 5, 6, 7, 8)], rows(2, 9))
    errors = [future.exception(30) for future in futures[:8]]
    assert all("exited with code 3" in str(error) for error in errors)
    assert futures[8].result(30)["OUT"].tolist() == [[9], [9]]  # of the instance that took over


def test_a_batch_that_was_not_begun_is_run_by_another_instance(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", DYING, config=config("preferred_batch_size: [ 2 ]", count=2))
    model = serve(execution="process")["m"]
    for _ in range(3):
        futures = submit_held(model, *[rows(1, n) for n in (-3, 1, 2, 3, 4, 5, 6, 7)])
        for future in futures[:2]:
            assert isinstance(future.exception(30), ptl.UnavailableError)
        for number, future in enumerate(futures[2:], 2):
            assert future.result(30)["OUT"].tolist() == [[number]]


def _until(is_true: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.001)
