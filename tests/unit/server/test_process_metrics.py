"""Custom metrics of a stub process. Texts are Triton 2.51's, see tests/unit/pb_utils."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.process import wait_until
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
KIND = "pb_utils.MetricFamily"

# Keeps its variables from request to request; runs the parameter `code` and returns the process id.
MODEL = echo_model(
    """
import json, os
names = {"pb_utils": pb_utils, "np": np}

def answer(x, request):
    exec(json.loads(request.parameters())["code"], names)
    return np.float64([os.getpid()]).astype(np.float32)
""",
    """
def finalize(self):
    family = pb_utils.MetricFamily("late", "", pb_utils.MetricFamily.GAUGE)
    family.Metric().set(1)
""",
)

# What raises what, as `(expression, text)`; `f` and `m` are a family of the kind and its metric.
REFUSALS = """
def texts(*calls):
    found = []
    for call in calls:
        try:
            found.append(call())
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found

def refused(kind):
    f = pb_utils.MetricFamily("r_" + kind.lower(), "", getattr(pb_utils.MetricFamily, kind))
    m = f.Metric(buckets=[1.0] if kind == "HISTOGRAM" else None)
    return texts(
        lambda: m.increment(-1), lambda: m.set(1), lambda: m.observe(1), m.value,
        lambda: f.Metric({"1a": "x"}), lambda: f.Metric({"a": 1}), lambda: f.Metric(buckets=[2, 1]),
        lambda: pb_utils.MetricFamily("a-b", "", f.COUNTER),
        lambda: pb_utils.MetricFamily("r_" + kind.lower(), "", f.COUNTER if kind == "GAUGE" else
                                      f.GAUGE),
        lambda: pb_utils.MetricFamily("x", "", f.COUNTER).Metric().increment(1),
    )

lines = [refused(kind) for kind in ("COUNTER", "GAUGE", "HISTOGRAM")]
with open(os.path.join(pb_utils.get_model_dir(), "lines"), "w") as file:
    json.dump(lines, file)
"""


def run(server: ptl.Server, code: str, model: str = "m") -> int:
    """Run code in the stub; its process id."""
    out = server[model].run({"IN": X}, parameters={"code": code})["OUT"]
    return int(np.asarray(out)[0])


def own(server: ptl.Server) -> list[str]:
    """Lines of the custom metrics."""
    lines = server.metrics().splitlines()
    return [line for line in lines if "nv_inference" not in line]


def test_in_one_stub(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", MODEL)
    server = serve(execution="process")
    run(
        server,
        f"""
c = {KIND}("c", "Requests", {KIND}.COUNTER)
g = {KIND}("g", "", {KIND}.GAUGE)
h = {KIND}("h", "", {KIND}.HISTOGRAM)
c.Metric({{"z": "1", "a": "2"}}).increment(1.5)
gauge = g.Metric()
for i in range(1000):
    gauge.increment(i)
assert gauge.value() == 499500.0, gauge.value()
gauge.set(float("inf"))
times = h.Metric(buckets=[0.1, 1, 20])
for value in (0.1, 0.5, 1, 1.5, 7, 100):
    times.observe(value)
""",
    )
    assert own(server) == [
        "# HELP c Requests",
        "# TYPE c counter",
        'c{a="2",z="1"} 1.5',
        "# TYPE g gauge",
        "g +Inf",
        "# TYPE h histogram",
        "h_count 6",
        "h_sum 110.1",
        'h_bucket{le="0.1"} 1',
        'h_bucket{le="1"} 3',
        'h_bucket{le="20"} 5',
        'h_bucket{le="+Inf"} 6',
    ]
    # A family object keeps its series, which handles of the same labels share.
    run(
        server, 'c.Metric({"a": "2", "z": "1"}).increment(1)\ndel h, times\ngauge.set(float("nan"))'
    )
    assert own(server)[2:] == ['c{a="2",z="1"} 2.5', "# TYPE g gauge", "g NaN"]
    run(
        server,
        f"""
second = {KIND}("c", "other", {KIND}.COUNTER)
mine = second.Metric({{"a": "2", "z": "1"}})
del c
mine.increment(1)
assert mine.value() == 3.5
again = gauge
del g
try:
    again.set(1)
except pb_utils.TritonModelException as error:
    assert "has been deleted" in str(error)
else:
    raise AssertionError
""",
    )
    assert own(server) == ["# HELP c Requests", "# TYPE c counter", 'c{a="2",z="1"} 3.5']
    server.stop()
    assert server.metrics() == ""


def test_refusals_are_the_same(repository: RepositoryBuilder, serve: Serve) -> None:
    folder = repository.model("m", MODEL)
    texts = {}
    for mode in ("thread", "process"):
        server = serve(execution=mode)
        run(server, "import json, os\n" + REFUSALS)
        texts[mode] = (folder / "1" / "lines").read_text()
        server.stop()
    assert texts["process"] == texts["thread"]
    assert "metrics not supported" not in texts["process"]
    server = serve(execution="process", metrics=False)
    run(
        server,
        "import json, os\nlines = []\n"
        + REFUSALS.partition("def refused")[0]
        + f"""
lines = texts(lambda: {KIND}("c", "", {KIND}.COUNTER))
assert lines == ["TritonModelException: Error when creating MetricFamily: Failed to process the "
                 "request for model 'm_0', message: metrics not supported"], lines
""",
    )


def test_instances_and_deaths(repository: RepositoryBuilder, serve: Serve) -> None:
    config = ECHO_CONFIG + "instance_group [ { kind: KIND_CPU count: 2 } ]"
    methods = """
def initialize(self, args):
    self.name = args["model_instance_name"]
    self.family = pb_utils.MetricFamily("seen", "", pb_utils.MetricFamily.COUNTER)
    self.all = self.family.Metric()
    self.all.increment(1)
    self.mine = self.family.Metric({"of": self.name})
    self.mine.increment(2)

def answer(self, x, request):
    import os
    return np.float32([os.getpid()])
"""
    repository.model("m", echo_model("", methods), config=config)
    server = serve(execution="process")
    assert sorted(own(server)) == [
        "# TYPE seen counter",
        "seen 2",
        'seen{of="m_0_0"} 2',
        'seen{of="m_0_1"} 2',
    ]
    pid = int(server["m"]({"IN": X})["OUT"][0])
    os.kill(pid, signal.SIGKILL)
    # What only the dead one held goes with it, and the next one makes it anew.
    wait_until(lambda: "seen 3" in own(server))
    assert sorted(own(server)) == [
        "# TYPE seen counter",
        "seen 3",
        'seen{of="m_0_0"} 2',
        'seen{of="m_0_1"} 2',
    ]


FORKING = """
def initialize(self, args):
    self.family = pb_utils.MetricFamily("seen", "", pb_utils.MetricFamily.COUNTER)
    self.metric = self.family.Metric()

def answer(self, x, request):
    import os
    self.metric.increment(1)
    child = os.fork()
    if child == 0:
        try:
            pb_utils.Logger.log_error("from a child")
            try:
                self.metric.increment(100)
            except Exception as error:
                os.write(2, f"{type(error).__name__}\\n".encode())
            del self.family, self.metric
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    return x
"""


def test_a_child_of_the_stub_writes_nothing_over(
    repository: RepositoryBuilder, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    repository.model("m", echo_model("", FORKING))
    server = serve(execution="process")
    for _ in range(5):
        assert server["m"]({"IN": X})["OUT"].tolist() == [1, 2]
    assert own(server) == ["# TYPE seen counter", "seen 5"]
    server.stop()
    lines = capfd.readouterr().err.splitlines()
    assert lines.count("[m_0] from a child") == 5
    assert lines.count("[m_0] UnavailableError") == 5
