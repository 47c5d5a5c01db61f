"""Triton's own metrics. What counts as what was observed on 2.51 with models like these."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pytriton_lite as ptl
from tests.support.limits import until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
NAMES = {
    f"nv_inference_{end}"
    for end in (
        "request_success",
        "request_failure",
        "count",
        "exec_count",
        "request_duration_us",
        "queue_duration_us",
        "compute_input_duration_us",
        "compute_infer_duration_us",
        "compute_output_duration_us",
        "pending_request_count",
    )
}

MODEL = """
import threading
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        tensor = pb_utils.get_input_tensor_by_name(request, "IN")
        kind = tensor.as_numpy()[0]
        answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor.as_numpy())])
        if kind == -1:
            raise ValueError("boom")
        if kind == -2:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("refused"))
        if kind == -3:
            sender = request.get_response_sender()
            threading.Timer(0.01, sender.send, (answer, 1)).start()
            return None
        time.sleep(0.01)
        return answer
"""


def values(server: ptl.Server, model: str) -> dict[str, float]:
    """Samples of a model by the end of their name, failures by reason."""
    found = {}
    for family in text_string_to_metric_families(server.metrics()):
        for sample in family.samples:
            if sample.labels.get("model") == model:
                end = sample.name.removeprefix("nv_inference_").removesuffix("_total")
                found[sample.labels.get("reason", end)] = sample.value
    return found


def test_a_loaded_model_has_every_series(repository: RepositoryBuilder, serve: Serve):
    repository.model("m", echo_model())
    server = serve()
    families = {f.name: f for f in text_string_to_metric_families(server.metrics())}
    assert families.keys() == NAMES
    assert {f.type for name, f in families.items() if name.endswith("pending_request_count")} == {
        "gauge"
    }
    assert all(f.documentation for f in families.values())
    assert set(values(server, "m").values()) == {0}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (1, {"request_success": 2, "count": 2, "exec_count": 2, "BACKEND": 0}),
        (-1, {"request_success": 0, "count": 0, "exec_count": 2, "BACKEND": 2}),
        (-2, {"request_success": 2, "count": 2, "exec_count": 2, "BACKEND": 0}),
        (-3, {"request_success": 2, "count": 2, "exec_count": 2, "BACKEND": 0}),
    ],
    ids=["answer", "exception", "error_response", "sender"],
)
def test_what_counts_as_what(
    repository: RepositoryBuilder, serve: Serve, kind: int, expected: dict[str, int]
):
    repository.model("m", MODEL)
    server = serve()
    for _ in range(2):
        try:
            server["m"]({"IN": np.float32([kind])})
        except ptl.InternalError:
            assert kind in (-1, -2)
    found = values(server, "m")
    assert {name: found[name] for name in expected} == expected
    assert (found["compute_infer_duration_us"] >= 20_000) == (kind == 1)
    assert found["request_duration_us"] >= found["compute_infer_duration_us"]
    assert found["REJECTED"] == found["CANCELED"] == found["OTHER"] == 0


def test_an_inference_is_a_row_of_a_batch(repository: RepositoryBuilder, serve: Serve):
    repository.model("m", echo_model(), config=ECHO_CONFIG + "max_batch_size: 8")
    server = serve()
    server["m"]({"IN": np.zeros((3, 2), np.float32)})
    found = values(server, "m")
    assert (found["request_success"], found["count"], found["exec_count"]) == (1, 3, 1)


def test_waiting_and_cancelled_requests(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Path
):
    body = """
    import os, time
    def answer(x, request):
        deadline = time.monotonic() + 20
        while not os.path.exists(GO) and time.monotonic() < deadline:
            time.sleep(0.001)
        return x
    """
    go = tmp_path / "go"
    repository.model("m", echo_model(f"GO = {str(go)!r}\n" + textwrap.dedent(body)))
    server = serve(execution="thread")
    running = server["m"].submit({"IN": X})
    waiting = [server["m"].submit({"IN": X}) for _ in range(3)]
    until(lambda: values(server, "m")["pending_request_count"] == 3)
    assert waiting[0].cancel()
    found = values(server, "m")
    assert (found["pending_request_count"], found["CANCELED"]) == (2, 1)
    go.touch()
    for future in (running, *waiting[1:]):
        future.result(20)
    found = values(server, "m")
    assert (found["request_success"], found["pending_request_count"]) == (3, 0)
    assert found["queue_duration_us"] > 0


def test_versions_tags_reload_and_unload(repository: RepositoryBuilder, serve: Serve):
    config = ECHO_CONFIG + 'metric_tags { key: "team" value: "a\\"b" } version_policy { all {} }'
    repository.model("m", echo_model(), config=config)
    repository.model("m", echo_model(), config=config, version=2)
    server = serve(model_control_mode="explicit", startup_models=["m"])
    server.model("m", 1)({"IN": X})
    text = server.metrics()
    assert 'nv_inference_count{_team="a\\"b",model="m",version="1"} 1\n' in text
    assert 'nv_inference_count{_team="a\\"b",model="m",version="2"} 0\n' in text
    repository.touch("m")
    server.load("m")
    assert 'version="1"} 1\n' not in server.metrics()
    server.unload("m", wait_until_unloaded=True)
    assert server.metrics() == ""


def test_many_threads_lose_no_count(repository: RepositoryBuilder, serve: Serve):
    repository.model("m", echo_model())
    server = serve()
    model = server["m"]
    threads = [
        threading.Thread(target=lambda: [model({"IN": X}) for _ in range(200)]) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = values(server, "m")
    assert (found["request_success"], found["exec_count"]) == (3200, 3200)


def test_a_custom_family_of_the_same_name_is_one_family(
    repository: RepositoryBuilder, serve: Serve
):
    methods = """
    def initialize(self, args):
        kind = pb_utils.MetricFamily.COUNTER
        self.family = pb_utils.MetricFamily("nv_inference_count", "mine", kind)
        self.metric = self.family.Metric(labels={"model": "mine"})
        self.metric.increment(3)
    """
    repository.model("m", echo_model(methods=methods))
    server = serve()
    assert values(server, "mine") == {"count": 3}
    assert server.metrics().count("# TYPE nv_inference_count counter\n") == 1
