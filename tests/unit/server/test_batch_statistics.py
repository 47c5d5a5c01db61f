"""Statistics and timings of batches; counts are those of Triton 2.51 for the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

import pytriton_lite as ptl
from tests.support.batches import CONFIG, DECOUPLED, MODEL, inputs
from tests.support.repository import RepositoryBuilder

Serve = Callable[..., ptl.Server]
STEPS = ("compute_input", "compute_infer", "compute_output")


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    """Each home of an instance in turn."""
    return str(request.param)


@pytest.fixture
def config() -> str:
    """What the configuration has beyond `CONFIG`."""
    return ""


@pytest.fixture
def model(repository: RepositoryBuilder, serve: Serve, execution: str, config: str) -> ptl.Model:
    repository.model("m", MODEL, config=CONFIG + "dynamic_batching { }\n" + config)
    return serve(execution=execution)["m"]


def batch(model: ptl.Model, what: str, count: int = 2) -> list[Any]:
    """Responses, or errors, of requests in one batch."""
    with model.hold_queue():
        futures = [model.submit(inputs(what, i + 1)) for i in range(count)]
    assert not wait(futures, 20).not_done
    return [future.exception() or future.result() for future in futures]


def of(model: ptl.Model, executions: int = 1) -> dict[str, Any]:
    """Counts, as soon as so many executions are among them.

    What a response sender sends is there before its `execute` has returned and counts.
    """
    deadline = time.monotonic() + 20
    while True:
        (entry,) = model.statistics()["model_stats"]
        if entry["execution_count"] >= executions or time.monotonic() > deadline:
            return dict(entry)
        time.sleep(0.001)


def test_counts_of_batches_on_triton(model: ptl.Model):
    asked = (
        "fine", "count", "subclass", "one_error", "raises", "exits", "short", "long", "empty",
        "a_tuple", "wrong_last", "wrong_first", "sender_last", "senders_later",
    )  # fmt: skip
    for what in asked:
        batch(model, what)
    entry = of(model, 14)
    counts = {name: value["count"] for name, value in entry["inference_stats"].items()}
    assert counts == {
        "success": 12, "fail": 16, "queue": 12, "compute_input": 12, "compute_infer": 12,
        "compute_output": 12, "cache_hit": 0, "cache_miss": 0,
    }  # fmt: skip
    assert (entry["inference_count"], entry["execution_count"]) == (12, 14)
    (sums,) = entry["batch_stats"]
    assert sums["batch_size"] == 2
    assert [sums[name]["count"] for name in STEPS] == [14, 14, 14]


def test_each_request_has_the_durations_of_its_batch_in_full(model: ptl.Model, execution: str):
    responses = batch(model, "fine", 3)
    timings = [response.timings for response in responses]
    assert len({tuple(getattr(x, name) for name in STEPS) for x in timings}) == 1
    assert timings[0].queue > timings[2].queue > 0  # the first one has waited longest
    assert (timings[0].compute_input > 0) == (execution == "process")
    entry = of(model)
    (sums,) = entry["batch_stats"]
    for name in STEPS:
        each = getattr(timings[0], name)
        assert sums[name] == {"count": 1, "ns": each}
        assert entry["inference_stats"][name] == {"count": 3, "ns": 3 * each}
    total = sum(x.total for x in timings)
    assert entry["inference_stats"]["success"] == {"count": 3, "ns": total}
    queue = sum(x.queue for x in timings)
    assert entry["inference_stats"]["queue"] == {"count": 3, "ns": queue}


def test_sizes_of_batches(model: ptl.Model):
    for count in (3, 1, 8, 3):
        batch(model, "fine", count)
    found = [(x["batch_size"], x["compute_infer"]["count"]) for x in of(model, 4)["batch_stats"]]
    assert found == [(1, 1), (3, 2), (8, 1)]


@pytest.mark.parametrize("config", [DECOUPLED])
def test_streams_of_a_batch(model: ptl.Model):
    with model.hold_queue():
        streams = [model.stream(inputs("stream", i + 1)) for i in range(3)]
    for i, stream in enumerate(streams):
        (response,) = stream
        assert response["OUT"].tolist() == [[i + 1]]
        assert response.timings is not None
        assert response.timings.queue > 0
    entry = of(model)
    assert (entry["inference_count"], entry["execution_count"]) == (3, 1)


@pytest.mark.parametrize("config", [DECOUPLED])
def test_an_exception_fails_the_open_streams_of_a_batch(model: ptl.Model):
    with model.hold_queue():
        streams = [model.stream(inputs("stream_then_raises", i + 1)) for i in range(3)]
    assert [x["OUT"].tolist() for x in streams[0]] == [[[1.0]]]
    for stream in streams[1:]:
        with pytest.raises(ptl.InternalError, match="ValueError: late"):
            list(stream)
    entry = of(model)
    # The first one counts, too, though it was answered before: as Triton does in default mode.
    assert entry["inference_stats"]["fail"]["count"] == 3
