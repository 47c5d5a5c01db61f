"""`statistics()` and `response.timings`. Forms and counts are those of Triton 2.51."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pytriton_lite as ptl
from pytriton_lite._core.statistics import VersionStatistics
from tests.support.batches import CONFIG, DECOUPLED, MODEL
from tests.support.limits import until
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import Script
from tests.support.scripted import response as value_response

Serve = Callable[..., ptl.Server]

# What the server answered for a model that had no request yet.
FRESH = (
    '{"name":"m","version":"1","last_inference":0,"inference_count":0,"execution_count":0,'
    '"inference_stats":{"success":{"count":0,"ns":0},"fail":{"count":0,"ns":0},'
    '"queue":{"count":0,"ns":0},"compute_input":{"count":0,"ns":0},'
    '"compute_infer":{"count":0,"ns":0},"compute_output":{"count":0,"ns":0},'
    '"cache_hit":{"count":0,"ns":0},"cache_miss":{"count":0,"ns":0}},"response_stats":{},'
    '"batch_stats":[],"memory_usage":[]}'
)
# Requests of so many rows, one after another, and what it answered then.
ASKED = [
    ("raises", 2), ("fine", 3), ("fine", 1), ("fine", 3), ("one_error", 1), ("senders_later", 2),
    ("raises", 1),
]  # fmt: skip
AFTERWARDS = (
    '{"name":"m","version":"1","last_inference":1795399342251,"inference_count":10,'
    '"execution_count":7,"inference_stats":{"success":{"count":5,"ns":111345824},'
    '"fail":{"count":2,"ns":1758802},"queue":{"count":5,"ns":326569},'
    '"compute_input":{"count":5,"ns":294119},"compute_infer":{"count":5,"ns":110207352},'
    '"compute_output":{"count":5,"ns":489745},"cache_hit":{"count":0,"ns":0},'
    '"cache_miss":{"count":0,"ns":0}},"response_stats":{},"batch_stats":[{"batch_size":1,'
    '"compute_input":{"count":3,"ns":151243},"compute_infer":{"count":3,"ns":1865796},'
    '"compute_output":{"count":3,"ns":234910}},{"batch_size":2,'
    '"compute_input":{"count":2,"ns":284451},"compute_infer":{"count":2,"ns":2119491},'
    '"compute_output":{"count":2,"ns":34725}},{"batch_size":3,'
    '"compute_input":{"count":2,"ns":150771},"compute_infer":{"count":2,"ns":107259975},'
    '"compute_output":{"count":2,"ns":255416}}],"memory_usage":[]}'
)


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    """Each home of an instance in turn."""
    return str(request.param)


@pytest.fixture
def config() -> str:
    """What the configuration has beyond `CONFIG`."""
    return ""


@pytest.fixture
def server(repository: RepositoryBuilder, serve: Serve, execution: str, config: str) -> ptl.Server:
    repository.model("m", MODEL, config=CONFIG + config)
    return serve(execution=execution)


def inputs(what: str, rows: int = 1) -> dict[str, Any]:
    return {
        "WHAT": np.array([[what]] * rows, dtype=np.object_),
        "IN": np.ones((rows, 1), np.float32),
    }


def ask(model: ptl.Model, what: str, rows: int = 1) -> None:
    try:
        model(inputs(what, rows))
    except ptl.InternalError:
        assert what in {"raises", "one_error"}


def of(model: ptl.Model) -> dict[str, Any]:
    """Statistics of the one ready version."""
    (entry,) = model.statistics()["model_stats"]
    return dict(entry)


def without_times(entry: Any) -> Any:
    """The same without what a clock said."""
    if isinstance(entry, list):
        return [without_times(x) for x in entry]
    if not isinstance(entry, dict):
        return entry
    return {
        name: type(value) if name in {"ns", "last_inference"} else without_times(value)
        for name, value in entry.items()
    }


def test_a_fresh_model_on_triton(server: ptl.Server):
    assert json.dumps(of(server["m"]), separators=(",", ":")) == FRESH


def test_counts_on_triton(server: ptl.Server):
    model = server["m"]
    for what, rows in ASKED:
        ask(model, what, rows)
    entry = of(model)
    assert without_times(entry) == without_times(json.loads(AFTERWARDS))
    assert list(entry) == list(json.loads(AFTERWARDS))


def test_durations_add_up(server: ptl.Server, execution: str):
    model = server["m"]
    begin = time.perf_counter_ns()
    for what, rows in ASKED:
        ask(model, what, rows)
    elapsed = time.perf_counter_ns() - begin
    entry = of(model)
    ns = {name: value["ns"] for name, value in entry["inference_stats"].items()}
    steps = ("queue", "compute_input", "compute_infer", "compute_output")
    assert ns["success"] == sum(ns[name] for name in steps)
    assert 0 < ns["success"] + ns["fail"] < elapsed
    assert ns["fail"] > 0
    # All executions are in the batches, with their failures.
    for name in steps[1:]:
        of_batches = sum(batch[name]["ns"] for batch in entry["batch_stats"])
        assert of_batches >= ns[name]
        copied = name != "compute_infer" and execution == "process"
        assert (of_batches > 0) == (copied or name == "compute_infer")


def test_last_inference_is_wall_time(server: ptl.Server):
    model = server["m"]
    begin = time.time_ns() // 1_000_000
    ask(model, "raises")
    first = of(model)["last_inference"]
    assert begin - 1 <= first <= time.time_ns() // 1_000_000
    time.sleep(0.005)
    assert of(model)["last_inference"] == first
    ask(model, "fine")
    assert of(model)["last_inference"] >= first + 4


def test_versions_and_models(repository: RepositoryBuilder, serve: Serve):
    for name in ("zz", "m", "aa"):
        for version in (1, 2, 10):
            repository.model(
                name, MODEL, config=CONFIG + "version_policy { all {} }", version=version
            )
    server = serve(model_control_mode="explicit", startup_models=["zz", "m", "aa"])
    ask(server.model("m", 2), "fine", 3)

    def listed(statistics: dict[str, Any]) -> list[tuple[str, str, int]]:
        return [(x["name"], x["version"], x["inference_count"]) for x in statistics["model_stats"]]

    assert listed(server["m"].statistics()) == [("m", "1", 0), ("m", "2", 3), ("m", "10", 0)]
    assert listed(server.model("m", 2).statistics()) == [("m", "2", 3)]
    assert [(n, v) for n, v, _ in listed(server.statistics())] == [
        (n, v) for n in ("aa", "m", "zz") for v in ("1", "2", "10")
    ]
    unknown = "requested model version is not available for model 'm'"
    with pytest.raises(ptl.InvalidArgumentError, match=unknown):
        server.model("m", 7).statistics()
    model = server["m"]
    repository.touch("m", 2)
    server.load("m")
    assert listed(model.statistics())[1] == ("m", "2", 0), "a load begins anew"
    server.unload("m", wait_until_unloaded=True)
    with pytest.raises(ptl.InvalidArgumentError, match="requested model 'm' is not available"):
        model.statistics()
    assert {x["name"] for x in server.statistics()["model_stats"]} == {"aa", "zz"}


@pytest.fixture
def busy(
    repository: RepositoryBuilder, serve: Serve
) -> Iterator[tuple[ptl.Model, Callable[[], Any]]]:
    """A model that is in `execute` with a request, and a function that lets it go on."""
    script, entered, gate = Script(), threading.Event(), threading.Event()

    def execute(requests: list[Any]) -> list[Any]:
        entered.set()
        assert gate.wait(20)
        return [value_response(1) for _ in requests]

    script.execute = execute
    script.write(repository, "m")
    model = serve(execution="thread")["m"]
    running = model.submit({})
    assert entered.wait(20)

    def go_on() -> None:
        gate.set()
        running.result(20)

    yield model, go_on
    gate.set()


def test_a_cancelled_request_is_a_failure(busy: tuple[ptl.Model, Callable[[], Any]]):
    model, go_on = busy
    waiting = model.submit({})
    time.sleep(0.002)
    assert waiting.cancel()
    go_on()
    until(lambda: of(model)["execution_count"] == 1)
    stats = of(model)["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (1, 1)
    assert stats["fail"]["ns"] > 2_000_000


def test_metrics_are_of_the_same_counters(server: ptl.Server):
    model = server["m"]
    for what, rows in ASKED:
        ask(model, what, rows)
    entry = of(model)
    stats = entry["inference_stats"]
    found = {}
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            end = sample.name.removeprefix("nv_inference_").removesuffix("_total")
            found[sample.labels.get("reason", end)] = sample.value
    assert found["request_success"] == stats["success"]["count"]
    assert found["BACKEND"] == stats["fail"]["count"]
    assert found["count"] == entry["inference_count"]
    assert found["exec_count"] == entry["execution_count"]
    assert found["pending_request_count"] == 0
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        end = "request" if name == "success" else name
        # Each of the five requests is rounded down to microseconds.
        difference = stats[name]["ns"] / 1000 - found[f"{end}_duration_us"]
        assert 0 <= difference < 5


class TestTimings:
    """What a response tells of itself."""

    def check(self, timings: ptl.Timings | None, execution: str) -> None:
        assert timings is not None
        parts = dataclasses.astuple(timings)
        assert all(type(part) is int and part >= 0 for part in parts)
        assert sum(parts[:-1]) == timings.total > 0
        assert timings.compute_infer > 0
        copied = execution == "process"
        assert (timings.compute_input > 0) == (timings.compute_output > 0) == copied

    def test_of_all_ways_to_ask(self, server: ptl.Server, execution: str):
        model = server["m"]
        given = inputs("fine")
        self.check(model.run(given).timings, execution)
        self.check(model.submit(given).result(20).timings, execution)
        self.check(asyncio.run(model.async_run(given)).timings, execution)
        for response in model.infer(inputs=given):
            self.check(response.timings, execution)
        (response,) = model.stream(given)
        self.check(response.timings, execution)

    def test_agree_with_the_statistics(self, server: ptl.Server):
        model = server["m"]
        timings = model.run(inputs("fine")).timings
        assert timings is not None
        stats = of(model)["inference_stats"]
        for name in ("queue", "compute_input", "compute_infer", "compute_output"):
            assert getattr(timings, name) == stats[name]["ns"]
        assert timings.total == stats["success"]["ns"]

    def test_of_a_sender(self, server: ptl.Server):
        timings = server["m"].run(inputs("senders_later")).timings
        assert timings is not None
        # It is sent 10 ms after `execute` has returned.
        assert timings.compute_infer > 10_000_000
        assert timings.total == timings.queue + timings.compute_infer

    def test_of_an_error(self, server: ptl.Server):
        (response,) = server["m"].infer(inputs=inputs("raises"), raise_on_error=False)
        assert response.timings is None

    @pytest.mark.parametrize("config", [DECOUPLED])
    def test_of_a_stream(self, server: ptl.Server):
        first, final = server["m"].infer(inputs=inputs("stream"))
        assert final.final
        assert final.timings is None
        assert first.timings is not None
        assert first.timings.compute_infer > 0

    def test_of_a_request_that_waits(self, busy: tuple[ptl.Model, Callable[[], Any]]):
        model, go_on = busy
        waiting = model.submit({})
        time.sleep(0.005)
        go_on()
        timings = waiting.result(20).timings
        assert timings is not None
        assert timings.queue > 4_000_000


def test_many_batch_sizes_are_sorted():
    statistics = VersionStatistics()
    sizes = [*range(40, 0, -1), *range(1, 60, 7), 1000, 5]
    for size in sizes:
        statistics.executed(0, 100, 100 + size, size, size == 5)
    found = statistics.to_dict()["batch_stats"]
    assert [entry["batch_size"] for entry in found] == sorted(set(sizes))
    for entry in found:
        count = sizes.count(entry["batch_size"])
        expected = {"count": count, "ns": count * entry["batch_size"]}
        assert entry["compute_infer"] == expected
