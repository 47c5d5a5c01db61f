"""Custom metrics. Texts and lifetimes were observed on Triton 2.51, each on a fresh server."""

from __future__ import annotations

import gc
import importlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite.pb_utils.metrics import MetricOwner, make_metric_family_class
from tests.support.modes import ALL
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
Make = Callable[..., Any]
X = np.float32([1, 2])

KINDS = ("COUNTER", "GAUGE", "HISTOGRAM")
REFUSED = "Failed to process the request for model 'm_0_0', message: "
DELETED = (
    "Invalid metric operation as the corresponding 'MetricFamily' has been deleted. The "
    "'MetricFamily' object should be deleted AFTER its corresponding 'Metric' objects have been "
    "deleted."
)
CONSTRUCTOR = (
    "__init__(): incompatible constructor arguments. The following argument types are supported:\n"
    "    1. c_python_backend_utils.MetricFamily(name: str, description: str, "
    "kind: c_python_backend_utils.MetricKind)\n\nInvoked with: "
)


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def registry() -> MetricRegistry:
    return MetricRegistry(is_enabled=True)


@pytest.fixture
def owner(registry: MetricRegistry) -> MetricOwner:
    return MetricOwner(registry, "m_0_0")


@pytest.fixture
def make(owner: MetricOwner) -> Make:
    """`MetricFamily` as the model instance `m_0_0` has it."""
    return make_metric_family_class(lambda: owner)


def of_kind(make: Make, kind: str) -> tuple[Any, Any]:
    family = make("f", "about", getattr(make, kind))
    return family, family.Metric(buckets=[1.0, 2.0] if kind == "HISTOGRAM" else None)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a Prometheus text, by name and sorted labels; refuses repeats."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            # The parser gives counters this ending, which the text does not have.
            name = sample.name.removesuffix("_total")
            key = (name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def plain(text: str) -> dict[str, float]:
    """The samples without labels."""
    return {name: value for (name, labels), value in samples(text).items() if not labels}


# -- operations ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("operation", "verb", "allowed"),
    [
        ("increment", "increment", ("COUNTER", "GAUGE")),
        ("set", "set", ("GAUGE",)),
        ("observe", "observe", ("HISTOGRAM",)),
        ("value", "get", ("COUNTER", "GAUGE")),
    ],
)
def test_operation_of_a_kind(
    make: Make, kind: str, operation: str, verb: str, allowed: tuple[str, ...]
) -> None:
    args = () if operation == "value" else (1.5,)
    _family, metric = of_kind(make, kind)
    if kind in allowed:
        result = getattr(metric, operation)(*args)
        assert result == (0.0 if operation == "value" else None)
        return
    with pytest.raises(pb_utils.TritonModelException) as caught:
        getattr(metric, operation)(*args)
    assert str(caught.value) == (
        f"Failed to {verb} metric value: {REFUSED}TRITONSERVER_METRIC_KIND_{kind} does not support "
        f"{operation.capitalize()}"
    )


def test_counter_goes_up_only(make: Make) -> None:
    _family, metric = of_kind(make, "COUNTER")
    metric.increment(0)
    metric.increment(2)
    for number in (-1, -0.001, -math.inf):
        with pytest.raises(pb_utils.TritonModelException) as caught:
            metric.increment(number)
        assert str(caught.value) == (
            f"Failed to increment metric value: {REFUSED}TRITONSERVER_METRIC_KIND_COUNTER can only "
            "be incremented monotonically by non-negative values."
        )
    assert metric.value() == 2.0
    metric.increment(math.nan)
    assert math.isnan(metric.value())


def test_gauge_goes_both_ways(make: Make) -> None:
    _family, metric = of_kind(make, "GAUGE")
    metric.increment(-2.5)
    assert metric.value() == -2.5
    metric.set(7)
    assert metric.value() == 7.0
    assert type(metric.value()) is float


@pytest.mark.parametrize(
    "number", [1, True, 1.0, np.float32(1), np.int64(1), Decimal(1), np.array(1.0)]
)
def test_numbers(make: Make, number: Any) -> None:
    _family, metric = of_kind(make, "GAUGE")
    metric.increment(number)
    metric.set(number)
    assert metric.value() == 1.0
    assert type(metric.value()) is float


class Unwilling:
    def __float__(self) -> float:
        raise ValueError("no")


@pytest.mark.parametrize(
    "number", ["1", b"1", None, 1j, [1.0], np.array([1.0, 2.0]), 10**400, Unwilling()]
)
@pytest.mark.parametrize("operation", ["increment", "set", "observe"])
def test_no_numbers(make: Make, operation: str, number: Any) -> None:
    _family, metric = of_kind(make, "HISTOGRAM")
    with pytest.raises(TypeError) as caught:
        getattr(metric, operation)(number)
    assert str(caught.value) == (
        f"{operation}(): incompatible function arguments. The following argument types are "
        "supported:\n    1. (self: c_python_backend_utils.Metric, arg0: float) -> None\n\n"
        f"Invoked with: {metric!r}, {number!r}"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f, m: m.increment(), "increment(): incompatible function arguments."),
        (lambda f, m: m.increment(value=1), "increment(): incompatible function arguments."),
        (lambda f, m: m.set(1, 2), "set(): incompatible function arguments."),
        (lambda f, m: m.observe(), "observe(): incompatible function arguments."),
        (lambda f, m: m.value(1), "value(): incompatible function arguments."),
        (lambda f, m: f.Metric({}, None, 1), "Metric(): incompatible function arguments."),
        (lambda f, m: f.Metric(name="x"), "Metric(): incompatible function arguments."),
        (lambda f, m: type(m)(), "c_python_backend_utils.Metric: No constructor defined!"),
    ],
)
def test_wrong_calls(make: Make, call: Callable[[Any, Any], Any], words: str) -> None:
    family, metric = of_kind(make, "GAUGE")
    with pytest.raises(TypeError) as caught:
        call(family, metric)
    assert str(caught.value).startswith(words)


def test_number_that_uses_the_metric_while_it_is_converted(make: Make) -> None:
    _family, metric = of_kind(make, "COUNTER")

    class Nested:
        def __float__(self) -> float:
            metric.increment(1)
            return 2.0

    metric.increment(Nested())
    assert metric.value() == 3.0


def test_classes_look_native(make: Make) -> None:
    family, metric = of_kind(make, "GAUGE")
    assert repr(type(family)) == "<class 'c_python_backend_utils.MetricFamily'>"
    assert repr(type(metric)) == "<class 'c_python_backend_utils.Metric'>"
    public = {"COUNTER", "GAUGE", "HISTOGRAM", "Metric"}
    assert {name for name in dir(family) if name[0] != "_"} == public
    assert isinstance(family, pb_utils.MetricFamily)


# -- families ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("n",), {}),
        (("n", "d"), {}),
        (("n", "d", 0), {}),
        (("n", "d", "COUNTER"), {}),
        (("n", None, pb_utils.MetricFamily.COUNTER), {}),
        ((None, "d", pb_utils.MetricFamily.COUNTER), {}),
        ((b"\xff", "d", pb_utils.MetricFamily.COUNTER), {}),
        (("n", "\ud800", pb_utils.MetricFamily.COUNTER), {}),
        (("n", "d", pb_utils.MetricFamily.COUNTER, 1), {}),
        (("n", "d"), {"kind": pb_utils.MetricFamily.COUNTER, "unit": "s"}),
    ],
)
def test_constructor_is_strict(make: Make, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError) as caught:
        make(*args, **kwargs)
    named = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    expected = CONSTRUCTOR + ", ".join(map(repr, args)) + (f"; kwargs: {named}" if named else "")
    assert str(caught.value) == expected


@pytest.mark.parametrize("name", ["", "1abc", "a-b", "a b", "é", "__x", "a\n", "a{", "\uff41"])
def test_bad_family_names(make: Make, name: str) -> None:
    with pytest.raises(pb_utils.TritonModelException) as caught:
        make(name, "about", make.COUNTER)
    assert str(caught.value) == (f"Error when creating MetricFamily: {REFUSED}Invalid metric name")


@pytest.mark.parametrize("name", ["a", "_a", "vllm:prompt_tokens", ":a", "nv_inference_count"])
def test_good_family_names(make: Make, registry: MetricRegistry, name: str) -> None:
    family = make(name=name, description="about", kind=make.COUNTER)
    metric = family.Metric()
    metric.increment(3)
    assert samples(registry.text()) == {(name, ()): 3.0}


def test_utf8_bytes_are_text(make: Make, registry: MetricRegistry) -> None:
    family = make(b"name", "é".encode(), make.GAUGE)
    metric = family.Metric()
    metric.set(1)
    assert registry.text() == "# HELP name é\n# TYPE name gauge\nname 1\n"


def test_same_name_and_kind_is_the_same_family(make: Make, registry: MetricRegistry) -> None:
    first, second = make("f", "first", make.COUNTER), make("f", "second", make.COUNTER)
    a = first.Metric({"x": "1", "y": "2"})
    b = second.Metric(OrderedDict(y="2", x="1"))
    other = second.Metric({"x": "1"})
    a.increment(2)
    b.increment(3)
    assert (a.value(), b.value(), other.value()) == (5.0, 5.0, 0.0)
    assert first is not second
    assert a is not b
    assert registry.text().startswith("# HELP f first\n")


def test_same_name_and_other_kind_is_refused(make: Make) -> None:
    family = make("f", "about", make.COUNTER)
    with pytest.raises(pb_utils.TritonModelException) as caught:
        make("f", "about", make.GAUGE)
    assert str(caught.value) == (
        f"Error when creating MetricFamily: {REFUSED}Family name already exists with different type"
    )
    del family
    make("f", "about", make.GAUGE)


def test_outside_a_model() -> None:
    with pytest.raises(ptl.UnsupportedError, match="belongs to no server"):
        pb_utils.MetricFamily("f", "about", pb_utils.MetricFamily.COUNTER)


# -- labels and buckets --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "labels", "buckets", "text"),
    [
        ("GAUGE", [1], None, "Failed to create metric. Labels must be a dictionary."),
        ("GAUGE", "x", None, "Failed to create metric. Labels must be a dictionary."),
        ("GAUGE", (), (), "Failed to create metric. Labels must be a dictionary."),
        ("GAUGE", {"a": 1}, [1], "Failed to create metric. Unexpected buckets found."),
        ("COUNTER", None, [1.0], "Failed to create metric. Unexpected buckets found."),
        ("COUNTER", None, [], "Failed to create metric. Unexpected buckets found."),
        ("COUNTER", None, (1.0,), "Failed to create metric. Buckets must be a list."),
        ("HISTOGRAM", None, None, "Failed to create metric. Missing required buckets."),
        ("HISTOGRAM", {"a": "b"}, None, "Failed to create metric. Missing required buckets."),
        ("HISTOGRAM", None, (1.0,), "Failed to create metric. Buckets must be a list."),
        ("HISTOGRAM", None, 5, "Failed to create metric. Buckets must be a list."),
        *(
            (
                "GAUGE",
                {"a": value},
                None,
                f"{{}}{REFUSED}attempt to access JSON non-string as string",
            )
            for value in (1, None, 1.5, ["x"], {})
        ),
        *(
            ("GAUGE", {name: "x"}, None, f"{{}}{REFUSED}Invalid label name")
            for name in ("", "1a", "a:b", "a-b", "__a", "é", 1, "a\n")
        ),
        ("HISTOGRAM", {"le": "x"}, [1.0], f"{{}}{REFUSED}Invalid label name"),
        *(
            ("HISTOGRAM", None, b, f"{{}}{REFUSED}Bucket Boundaries must be strictly sorted")
            for b in ([2.0, 1.0], [1.0, 1.0], [1.0, math.nan], [math.nan])
        ),
        (
            "GAUGE",
            {"a": "\ud800"},
            None,
            f"{{}}{REFUSED}failed to parse the request JSON buffer: The surrogate pair in string "
            "is invalid.",
        ),
    ],
)
def test_refused_labels_and_buckets(
    make: Make, kind: str, labels: Any, buckets: Any, text: str
) -> None:
    family = make("f", "about", getattr(make, kind))
    with pytest.raises(pb_utils.TritonModelException) as caught:
        family.Metric(labels, buckets)
    assert str(caught.value) == text.format("Error when creating Metric: ")


def test_labels_that_are_no_json(make: Make) -> None:
    family = make("f", "about", make.GAUGE)
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        family.Metric(labels={"a": b"x"})
    with pytest.raises(TypeError, match="keys must be str"):
        family.Metric(labels={b"a": "x"})


@pytest.mark.parametrize("bucket", ["x", None, [1]])
def test_bucket_that_is_no_number(make: Make, bucket: Any) -> None:
    family = make("f", "about", make.HISTOGRAM)
    with pytest.raises(RuntimeError, match="Unable to cast Python instance"):
        family.Metric(buckets=[bucket])


def test_labels_le_and_quantile_are_free_elsewhere(make: Make, registry: MetricRegistry) -> None:
    family = make("f", "about", make.COUNTER)
    family.Metric(labels={"le": "1"})
    family.Metric(labels={"quantile": "1", "_a": "x"})
    assert len(samples(registry.text())) == 2


# -- exposition ----------------------------------------------------------------------------


def test_text_of_all_kinds(make: Make, registry: MetricRegistry) -> None:
    counter = make("c", "Description", make.COUNTER)
    gauge = make("g", "", make.GAUGE)
    histogram = make("h", "Zeiten", make.HISTOGRAM)
    _without_series = make("empty", "no series", make.GAUGE)
    counter.Metric({"z": "1", "a": "2"}).increment(1.5)
    counter.Metric()
    gauge.Metric().set(1e15)
    series = histogram.Metric({"a": "b"}, [0.1, 1, 20])
    for value in (0.1, 0.5, 1, 1.5, 7, 100):
        series.observe(value)
    assert registry.text() == (
        "# HELP c Description\n"
        "# TYPE c counter\n"
        'c{a="2",z="1"} 1.5\n'
        "c 0\n"
        "# TYPE g gauge\n"
        "g 1000000000000000\n"
        "# HELP h Zeiten\n"
        "# TYPE h histogram\n"
        'h_count{a="b"} 6\n'
        'h_sum{a="b"} 110.1\n'
        'h_bucket{a="b",le="0.1"} 1\n'
        'h_bucket{a="b",le="1"} 3\n'
        'h_bucket{a="b",le="20"} 5\n'
        'h_bucket{a="b",le="+Inf"} 6\n'
    )
    parsed = {
        f.name: (f.type, f.documentation) for f in text_string_to_metric_families(registry.text())
    }
    assert parsed == {
        "c": ("counter", "Description"),
        "g": ("gauge", ""),
        "h": ("histogram", "Zeiten"),
    }


def test_nothing_is_no_text(registry: MetricRegistry) -> None:
    assert registry.text() == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.3333333333333333"),
        (1e17, "1e+17"),
        (1e-7, "1e-07"),
        (-4, "-4"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (math.nan, "NaN"),
    ],
)
def test_numbers_in_the_text(
    make: Make, registry: MetricRegistry, number: float, text: str
) -> None:
    family = make("g", "", make.GAUGE)
    family.Metric().set(number)
    assert registry.text() == f"# TYPE g gauge\ng {text}\n"
    assert samples(registry.text())["g", ()] == pytest.approx(number, rel=0, abs=0, nan_ok=True)


def test_text_is_escaped(make: Make, registry: MetricRegistry) -> None:
    description = 'Über "quotes", back\\slash and\na second line 日本'
    labels = {"q": 'a"b', "s": "a\\b", "n": "a\nb", "u": "日本", "e": "", "both": '\\n"\\'}
    family = make("f", description, make.GAUGE)
    family.Metric(labels).set(1)
    [parsed] = text_string_to_metric_families(registry.text())
    assert parsed.documentation == description
    assert parsed.samples[0].labels == labels
    assert len(registry.text().splitlines()) == 3


def test_histogram_edges(make: Make, registry: MetricRegistry) -> None:
    family = make("h", "", make.HISTOGRAM)
    no_bounds = family.Metric({"k": "none"}, [])
    infinite = family.Metric({"k": "inf"}, [True, math.inf])
    again = family.Metric({"k": "inf"}, [5.0])  # another handle: keeps its buckets
    nan = family.Metric({"k": "nan"}, [np.float32(1)])
    no_bounds.observe(3)
    infinite.observe(3)
    again.observe(-1)
    nan.observe(math.nan)
    found = samples(registry.text())
    assert found["h_bucket", (("k", "none"), ("le", "+Inf"))] == 1
    assert found["h_sum", (("k", "inf"),)] == 2
    assert found["h_bucket", (("k", "inf"), ("le", "1"))] == 1
    assert found["h_bucket", (("k", "inf"), ("le", "+Inf"))] == 2
    assert found["h_bucket", (("k", "nan"), ("le", "1"))] == 1  # as on Triton
    assert math.isnan(found["h_sum", (("k", "nan"),)])
    assert len(found) == 3 + 4 + 4


# -- lifetimes -----------------------------------------------------------------------------


def test_family_keeps_the_series_of_dropped_metrics(make: Make, registry: MetricRegistry) -> None:
    family = make("f", "about", make.COUNTER)
    family.Metric({"z": "1"}).increment(3)
    gc.collect()
    family.Metric({"z": "1"}).increment(3)
    assert samples(registry.text()) == {("f", (("z", "1"),)): 6.0}


def test_metric_after_its_family(make: Make, registry: MetricRegistry) -> None:
    family, metric = of_kind(make, "GAUGE")
    del family
    assert registry.text() == ""
    calls = {
        "increment": lambda: metric.increment(1),
        "set": lambda: metric.set(1),
        "observe": lambda: metric.observe(1),
        "get": metric.value,
    }
    for verb, call in calls.items():
        with pytest.raises(pb_utils.TritonModelException) as caught:
            call()
        assert str(caught.value) == f"Failed to {verb} metric value: {DELETED}"


def test_metric_of_a_family_that_nobody_kept(make: Make) -> None:
    metric = make("f", "about", make.COUNTER).Metric()
    with pytest.raises(pb_utils.TritonModelException, match="has been deleted"):
        metric.increment(1)


def test_family_after_its_metric(make: Make, registry: MetricRegistry) -> None:
    family, metric = of_kind(make, "COUNTER")
    metric.increment(1)
    del metric
    assert plain(registry.text()) == {"f": 1.0}
    del family
    assert registry.text() == ""
    _family, metric = of_kind(make, "COUNTER")
    assert metric.value() == 0.0


@pytest.mark.parametrize("dropped", ["first", "second"])
def test_series_lives_while_any_of_its_families_does(
    make: Make, registry: MetricRegistry, dropped: str
) -> None:
    families = {name: make("f", name, make.COUNTER) for name in ("first", "second")}
    metrics = {name: family.Metric() for name, family in families.items()}
    metrics["first"].increment(1)
    del families[dropped]
    with pytest.raises(pb_utils.TritonModelException, match="has been deleted"):
        metrics[dropped].increment(1)
    left = metrics["second" if dropped == "first" else "first"]
    left.increment(1)
    # On Triton the series is gone from the text already, and the value may be anything.
    assert plain(registry.text()) == {"f": 2.0}
    families.clear()
    assert registry.text() == ""


def test_series_that_only_one_family_object_made(make: Make, registry: MetricRegistry) -> None:
    first, second = make("f", "", make.GAUGE), make("f", "", make.GAUGE)
    first.Metric({"of": "first"})
    second.Metric({"of": "second"})
    del first
    assert list(samples(registry.text())) == [("f", (("of", "second"),))]


def test_close_of_the_owner(make: Make, owner: MetricOwner, registry: MetricRegistry) -> None:
    family, metric = of_kind(make, "GAUGE")
    owner.close()
    assert registry.text() == ""
    with pytest.raises(pb_utils.TritonModelException, match="has been deleted"):
        metric.set(1)
    with pytest.raises(pb_utils.TritonModelException, match="is unloaded"):
        family.Metric()
    with pytest.raises(pb_utils.TritonModelException, match="from `initialize` to `finalize`"):
        make("f", "about", make.GAUGE)


# -- threads -------------------------------------------------------------------------------


def test_eight_threads_lose_no_update(make: Make, registry: MetricRegistry) -> None:
    counter = make("c", "", make.COUNTER)
    histogram = make("h", "", make.HISTOGRAM)
    rounds = 2000
    start = threading.Barrier(9)

    def work(number: int) -> None:
        # Every thread makes its own handles while the others make theirs.
        start.wait()
        mine = counter.Metric({"of": "all"})
        times = histogram.Metric(buckets=[3.0])
        for i in range(rounds):
            mine.increment(1)
            times.observe(number)
            if i % 100 == 0:
                short_lived = make("short_lived", "", make.GAUGE)
                short_lived.Metric({"n": str(number)})
                del short_lived

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    while any(thread.is_alive() for thread in threads):
        for (name, labels), value in samples(registry.text()).items():
            if name == "h_bucket" and dict(labels)["le"] == "+Inf":
                assert value <= 8 * rounds
    for thread in threads:
        thread.join()
    found = samples(registry.text())
    assert found["c", (("of", "all"),)] == 8 * rounds
    assert found["h_count", ()] == 8 * rounds
    assert found["h_sum", ()] == sum(range(8)) * rounds
    assert found["h_bucket", (("le", "3"),)] == 4 * rounds
    assert [name for name, _ in found if name == "short_lived"] == []


# -- in a server ---------------------------------------------------------------------------

COUNTING = """
def initialize(self, args):
    self.family = pb_utils.MetricFamily(
        "app:requests", "Requests seen", pb_utils.MetricFamily.COUNTER
    )
    self.metric = self.family.Metric()

def answer(self, x, request):
    self.metric.increment(1)
    return x + np.float32(self.metric.value())
"""


@pytest.fixture
def collect() -> Iterator[Callable[[], int]]:
    """Without the cyclic garbage collector, so that nothing depends on when it runs."""
    gc.disable()
    yield gc.collect
    gc.enable()


def test_model_counts(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    repository.model("m", echo_model("", COUNTING))
    server = serve(execution=execution)
    for _ in range(3):
        server["m"]({"IN": X})
    assert server.metrics().endswith(
        "\n# HELP app:requests Requests seen\n# TYPE app:requests counter\napp:requests 3\n"
    )
    server.stop()
    assert server.metrics() == ""


def test_metrics_at_every_step(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    methods = """
    def initialize(self, args):
        self.families = [self.gauge("from_initialize")]

    def gauge(self, name):
        family = pb_utils.MetricFamily(name, "", pb_utils.MetricFamily.GAUGE)
        family.Metric().set(1)
        return family

    def answer(self, x, request):
        self.families.append(self.gauge("from_execute"))
        thread = threading.Thread(
            target=lambda: self.families.append(self.gauge("from_a_thread"))
        )
        thread.start()
        thread.join()
        return x

    def finalize(self):
        family = pb_utils.MetricFamily("from_finalize", "", pb_utils.MetricFamily.COUNTER)
        metric = family.Metric()
        metric.increment(4)
        with open(os.path.join(pb_utils.get_model_dir(), "value"), "w") as file:
            file.write(str(metric.value()))
    """
    folder = repository.model("m", echo_model("import os\nimport threading", methods))
    server = serve(execution=execution)
    assert plain(server.metrics()) == {"from_initialize": 1}
    server["m"]({"IN": X})
    assert plain(server.metrics()) == {
        "from_initialize": 1,
        "from_execute": 1,
        "from_a_thread": 1,
    }
    server.stop()
    assert (folder / "1" / "value").read_text() == "4.0"
    assert server.metrics() == ""


def test_models_of_a_server_share_and_servers_do_not(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    repository.model("a", echo_model("", COUNTING))
    repository.model("b", echo_model("", COUNTING))
    first, second = serve(execution=execution), serve(execution=execution)
    first["a"]({"IN": X})
    first["b"]({"IN": X})
    second["a"]({"IN": X})
    assert plain(first.metrics()) == {"app:requests": 2}
    assert plain(second.metrics()) == {"app:requests": 1}
    first.stop()
    assert first.metrics() == ""
    assert plain(second.metrics()) == {"app:requests": 1}


def test_instances_share(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    config = ECHO_CONFIG + "instance_group [ { kind: KIND_CPU count: 3 } ]"
    repository.model("m", echo_model("", COUNTING), config=config)
    server = serve(execution=execution)
    for _ in range(6):
        server["m"]({"IN": X})
    assert plain(server.metrics()) == {"app:requests": 6}


def test_reload_and_unload(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    repository.model("m", echo_model("", COUNTING))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    server["m"]({"IN": X})
    repository.touch("m")
    server.load("m")
    # The new instance takes the family up before the old one lets go of it.
    server["m"]({"IN": X})
    assert plain(server.metrics()) == {"app:requests": 2}
    server.unload("m", wait_until_unloaded=True)
    assert server.metrics() == ""
    server.load("m")
    assert plain(server.metrics()) == {"app:requests": 0}


def test_unload_ends_metrics_that_something_still_holds(
    repository: RepositoryBuilder, serve: Serve, execution: str, collect: Callable[[], int]
) -> None:
    cycle = COUNTING.replace("self.metric = ", "self.me = self\n    self.metric = ")
    repository.model("m", echo_model("", cycle))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    server["m"]({"IN": X})
    server.unload("m", wait_until_unloaded=True)
    assert server.metrics() == ""
    collect()


def test_failed_initialize_leaves_no_metrics(
    repository: RepositoryBuilder, serve: Serve, execution: str, collect: Callable[[], int]
) -> None:
    methods = """
    def initialize(self, args):
        self.family = pb_utils.MetricFamily("f", "", pb_utils.MetricFamily.COUNTER)
        self.metric = self.family.Metric()
        self.metric.increment(-1)
    """
    repository.model("m", echo_model("", methods))
    server = serve(execution=execution, exit_on_error=False)
    [entry] = server.index()
    assert "message: TRITONSERVER_METRIC_KIND_COUNTER can only be" in entry.reason
    assert "for model 'm_0'" in entry.reason
    assert "metrics.py" not in entry.reason
    assert server.metrics() == ""
    collect()


def test_error_in_execute(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    methods = COUNTING.replace("increment(1)", "set(1)")
    repository.model("m", echo_model("", methods))
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    with pytest.raises(ptl.InternalError, match="does not support Set") as caught:
        server["m"]({"IN": X})
    cause = caught.value.__cause__
    assert isinstance(cause, pb_utils.TritonModelException)
    assert cause.__context__ is None
    assert "metrics.py" not in str(caught.value)
    # The exception holds frames of the model, and with them its metrics.
    server.unload("m", wait_until_unloaded=True)
    assert server.metrics() == ""


def test_metrics_disabled(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    methods = """
    def initialize(self, args):
        try:
            pb_utils.MetricFamily("f", "", pb_utils.MetricFamily.COUNTER)
        except pb_utils.TritonModelException as error:
            self.text = str(error)

    def answer(self, x, request):
        raise ValueError(self.text)
    """
    repository.model("m", echo_model("", methods))
    server = serve(execution=execution, metrics=False)
    with pytest.raises(ptl.InternalError) as caught:
        server["m"]({"IN": X})
    assert str(caught.value.__cause__) == (
        "Error when creating MetricFamily: Failed to process the request for model 'm_0', "
        "message: metrics not supported"
    )
    with pytest.raises(ptl.UnsupportedError, match="metrics=False"):
        server.metrics()


def test_server_that_was_not_started(repository: RepositoryBuilder) -> None:
    with pytest.raises(ptl.UnavailableError, match="not started"):
        ptl.Server(repository.models).metrics()


def test_no_metrics_in_auto_complete_config(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    methods = """
    @staticmethod
    def auto_complete_config(config):
        pb_utils.MetricFamily("f", "", pb_utils.MetricFamily.COUNTER)
        return config
    """
    repository.model("m", echo_model("", methods))
    server = serve(execution=execution, exit_on_error=False)
    [entry] = server.index()
    assert "from `initialize` to `finalize` only" in entry.reason


def test_library_code_makes_metrics_of_the_calling_model(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    # pkgutil is library code: its import is not written in the model.
    methods = """
    def initialize(self, args):
        MetricFamily = pkgutil.resolve_name("triton_python_backend_utils:MetricFamily")
        self.family = MetricFamily("f", "", MetricFamily.GAUGE)

    def answer(self, x, request):
        self.family.Metric().set(5)
        return x
    """
    repository.model("m", echo_model("import pkgutil", methods))
    server, other = serve(execution=execution), serve(execution=execution)
    server["m"]({"IN": X})
    assert plain(server.metrics()) == {"f": 5}
    assert plain(other.metrics()) == {}


def test_outside_a_model_while_a_server_runs(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model())
    serve()
    ambient = importlib.import_module("triton_python_backend_utils")
    with pytest.raises(ptl.UnsupportedError, match="belongs to no server"):
        ambient.MetricFamily("f", "", ambient.MetricFamily.GAUGE)
