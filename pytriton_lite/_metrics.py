"""Metrics of one server: custom families and their series, and the Prometheus text of all.

A family and a series are there as long as somebody holds them. The registry holds them
weakly; who holds them is the matter of `pb_utils.metrics`. Texts of errors are those of
Triton 2.51.

Locks are reentrant: a finalizer or a signal handler may update a metric while its thread
is inside one. Nothing of the model's runs under them otherwise.
"""

from __future__ import annotations

import math
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Protocol, TypeAlias
from weakref import WeakValueDictionary

from pytriton_lite._core.statistics import FAILURE_REASONS, VersionStatistics
from pytriton_lite._typing import override

Labels: TypeAlias = tuple[tuple[str, str], ...]

_METRIC_NAME = re.compile(r"(?!__)[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class MetricError(Exception):
    """What Triton's core says about a metric that it refuses."""


class Series:
    """A value under a set of labels. Thread-safe."""

    __slots__ = ("__weakref__", "_lock", "labels")
    kind: ClassVar[str]

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._lock = threading.RLock()

    def increment(self, _by: float) -> None:
        """Add to the value."""
        raise self._unsupported("Increment")

    def set(self, _to: float) -> None:
        """Replace the value."""
        raise self._unsupported("Set")

    def observe(self, _value: float) -> None:
        """Count a value in its bucket."""
        raise self._unsupported("Observe")

    def value(self) -> float:
        """Read the value."""
        raise self._unsupported("Value")

    def lines(self, name: str) -> Iterator[str]:
        """Lines of the Prometheus text."""
        yield f"{name}{_labels_text(self.labels)} {_number_text(self.value())}"

    def _unsupported(self, operation: str) -> MetricError:
        kind = self.kind.upper()
        return MetricError(f"TRITONSERVER_METRIC_KIND_{kind} does not support {operation}")


class Gauge(Series):
    """A value that goes up and down."""

    __slots__ = ("_value",)
    kind = "gauge"

    def __init__(self, labels: Labels) -> None:
        super().__init__(labels)
        self._value = 0.0

    @override
    def increment(self, _by: float) -> None:
        with self._lock:
            self._value += _by

    @override
    def set(self, _to: float) -> None:
        with self._lock:
            self._value = _to

    @override
    def value(self) -> float:
        return self._value


class Counter(Gauge):
    """A value that only goes up."""

    __slots__ = ()
    kind = "counter"

    @override
    def increment(self, _by: float) -> None:
        if _by < 0:
            raise MetricError(
                "TRITONSERVER_METRIC_KIND_COUNTER can only be incremented monotonically by "
                "non-negative values."
            )
        super().increment(_by)

    @override
    def set(self, _to: float) -> None:
        raise self._unsupported("Set")


class Histogram(Series):
    """Values counted in buckets.

    Parameters
    ----------
    bounds
        Upper bounds of the buckets, ascending; the bucket without a bound is added.
    """

    __slots__ = ("_bounds", "_counts", "_sum")
    kind = "histogram"

    def __init__(self, labels: Labels, bounds: Sequence[float]) -> None:
        super().__init__(labels)
        # A NaN is not below anything, so it is refused here, too. Triton accepts it.
        if not all(low < high for low, high in pairwise(bounds)) or any(map(math.isnan, bounds)):
            raise MetricError("Bucket Boundaries must be strictly sorted")
        # Triton would list an infinite bound twice, which Prometheus refuses.
        self._bounds = [bound for bound in bounds if bound != math.inf]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    @override
    def observe(self, _value: float) -> None:
        # NaN goes to the first bucket, as on Triton.
        index = bisect_left(self._bounds, _value)
        with self._lock:
            self._counts[index] += 1
            self._sum += _value

    @override
    def lines(self, name: str) -> Iterator[str]:
        with self._lock:
            counts, total = self._counts.copy(), self._sum
        labels = _labels_text(self.labels)
        yield f"{name}_count{labels} {sum(counts)}"
        yield f"{name}_sum{labels} {_number_text(total)}"
        for bound, count in zip([*self._bounds, math.inf], accumulate(counts), strict=True):
            labels = _labels_text((*self.labels, ("le", _number_text(bound))))
            yield f"{name}_bucket{labels} {count}"


# By the number of `MetricKind`.
SERIES_TYPES: tuple[type[Series], ...] = (Counter, Gauge, Histogram)


class Family:
    """Series of one name and kind; made by `MetricRegistry.family`."""

    __slots__ = ("__weakref__", "_lock", "_series", "description", "name", "series_type")

    def __init__(self, name: str, description: str, series_type: type[Series]) -> None:
        self.name = name
        self.description = description
        self.series_type = series_type
        self._lock = threading.RLock()
        self._series: WeakValueDictionary[Labels, Series] = WeakValueDictionary()

    def series(self, labels: Mapping[str, object], bounds: Sequence[float]) -> Series:
        """Find the series of these labels, or make it.

        Parameters
        ----------
        bounds
            Of the buckets of a new histogram.

        Raises
        ------
        MetricError
            Labels that Prometheus does not allow, or buckets out of order.
        """
        key = _checked_labels(labels, is_histogram=self.series_type is Histogram)
        if self.series_type is Histogram:
            made: Series = Histogram(key, bounds)
        else:
            made = self.series_type(key)
        with self._lock:
            found = self._series.get(key)
            if found is None:
                found = self._series[key] = self._added(made, bounds)
        return found

    def _added(self, made: Series, _bounds: Sequence[float]) -> Series:
        """What to keep of a new series."""
        return made

    def lines(self) -> Iterator[str]:
        """Lines of the Prometheus text; none while there is no series."""
        # The references are copied at once, while `values` would walk over a changing dict.
        alive = [s for s in (ref() for ref in self._series.valuerefs()) if s is not None]
        if not alive:
            return
        if self.description:
            # Triton does not escape: there a line break in it spoils the whole text.
            text = self.description.replace("\\", r"\\").replace("\n", r"\n")
            yield f"# HELP {self.name} {text}"
        yield f"# TYPE {self.name} {self.series_type.kind}"
        for series in alive:
            yield from series.lines(self.name)


class MetricRegistry:
    """All custom metrics of a server. Thread-safe.

    Parameters
    ----------
    is_enabled
        If not, every family is refused.

    Attributes
    ----------
    before_text
        Functions that `text` calls first: who has updates on the way brings them in.
    """

    def __init__(self, *, is_enabled: bool) -> None:
        self.is_enabled = is_enabled
        self.before_text: set[Callable[[], None]] = set()
        self._lock = threading.RLock()
        self._families: WeakValueDictionary[str, Family] = WeakValueDictionary()

    def family(self, name: str, description: str, kind: int) -> Family:
        """Find the family of this name, or make it; the first description is kept.

        Raises
        ------
        MetricError
            A name that Prometheus does not allow, or one that is in use for another kind.
        """
        if not self.is_enabled:
            raise MetricError("metrics not supported")
        if not _METRIC_NAME.fullmatch(name):
            raise MetricError("Invalid metric name")
        made = Family(name, description, SERIES_TYPES[kind])
        with self._lock:
            found = self._families.get(name)
            if found is None:
                found = self._families[name] = made
        if found.series_type is not made.series_type:
            raise MetricError("Family name already exists with different type")
        return found

    def text(self, loaded: Iterable[VersionCounters] = ()) -> str:
        """All series in the text format of Prometheus, Triton's own of `loaded` versions first."""
        for bring_in in list(self.before_text):
            bring_in()
        families = {
            family.name: family
            for family in (ref() for ref in self._families.valuerefs())
            if family is not None
        }
        lines: list[str] = []
        for name, own in _own_lines(list(loaded)).items():
            lines += own
            if name in families:  # of a model that took the same name: one family, as on Triton
                lines += [x for x in families.pop(name).lines() if not x.startswith("#")]
        for family in families.values():
            lines += family.lines()
        return "".join(f"{line}\n" for line in lines)


class VersionCounters(Protocol):
    """A loaded model version, as Triton's own metrics see it."""

    @property
    def metric_labels(self) -> Mapping[str, str]:
        """Labels of its series: model, version and the tags of its configuration."""

    @property
    def statistics(self) -> VersionStatistics:
        """What it has counted."""

    @property
    def pending_count(self) -> int:
        """Requests that wait for an instance."""


_OWN = {
    "request_success": "Number of successful inference requests, all batch sizes",
    "request_failure": "Number of failed inference requests, all batch sizes",
    "count": "Number of inferences performed (does not include cached requests)",
    "exec_count": "Number of model executions performed (does not include cached requests)",
    "request_duration_us": (
        "Cumulative inference request duration in microseconds (includes cached requests)"
    ),
    "queue_duration_us": (
        "Cumulative inference queuing duration in microseconds (includes cached requests)"
    ),
    "compute_input_duration_us": (
        "Cumulative compute input duration in microseconds (does not include cached requests)"
    ),
    "compute_infer_duration_us": (
        "Cumulative compute inference duration in microseconds (does not include cached requests)"
    ),
    "compute_output_duration_us": (
        "Cumulative inference compute output duration in microseconds (does not include cached "
        "requests)"
    ),
    "pending_request_count": (
        "Instantaneous number of pending requests awaiting execution per-model."
    ),
}
"""Triton's own metrics by the end of their name, with Triton's descriptions."""


def _own_lines(loaded: Sequence[VersionCounters]) -> dict[str, list[str]]:
    if not loaded:
        return {}
    values: dict[str, list[tuple[dict[str, str], int]]] = {end: [] for end in _OWN}
    for version in loaded:
        labels = dict(version.metric_labels)
        for end, value in version.statistics.counters().items():
            values[end].append((labels, value))
        values["pending_request_count"].append((labels, version.pending_count))
        failures = zip(FAILURE_REASONS, version.statistics.failures(), strict=True)
        values["request_failure"] += [
            ({**labels, "reason": reason}, count) for reason, count in failures
        ]
    made = {}
    for end, text in _OWN.items():
        name = f"nv_inference_{end}"
        kind = "gauge" if end == "pending_request_count" else "counter"
        made[name] = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        made[name] += [
            f"{name}{_labels_text(tuple(sorted(labels.items())))} {value}"
            for labels, value in values[end]
        ]
    return made


def _checked_labels(labels: Mapping[str, object], *, is_histogram: bool) -> Labels:
    checked = []
    for name, value in sorted(labels.items()):
        # With a label `le` of its own Triton writes that label twice into a bucket's line, and
        # then Prometheus refuses the whole text.
        if not _LABEL_NAME.fullmatch(name) or (is_histogram and name == "le"):
            raise MetricError("Invalid label name")
        if not isinstance(value, str):
            raise MetricError("attempt to access JSON non-string as string")
        if not _is_encodable(value):
            raise MetricError(
                "failed to parse the request JSON buffer: The surrogate pair in string is invalid."
            )
        checked.append((name, value))
    return tuple(checked)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _labels_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value).removesuffix(".0")
