"""Custom metrics of a stub: its families and series stand for those of the server.

What the stub's model holds, the server holds; what the model drops, or leaves behind when it
ends, the server drops. An update is told and not waited for: what can be wrong with it is found
here, by a series of the same kind that is never shown. Nobody is woken for it: the server reads
updates when somebody wants to see the metrics, or a stub a value, and whenever it is awake anyway.
All goes through one ring, so a value is read behind the updates before it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._metrics import SERIES_TYPES, Family, MetricError, MetricRegistry, Series
from pytriton_lite._typing import override
from pytriton_lite.errors import UnavailableError


class _Handle:
    """Names something that the server holds for the stub; the server lets go with it."""

    __slots__ = ("asker", "number")
    _numbers = itertools.count(1)

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.number = next(self._numbers)

    def __del__(self) -> None:
        # Not into a closed ring: its error would be made under a lock that this may be inside of.
        if not self.asker.is_closed:
            with contextlib.suppress(UnavailableError):
                self.asker.tell("metric_drop", self.number, is_quiet=True)


class StubRegistry(MetricRegistry):
    """The metrics of the server, as the model of a stub makes them."""

    def __init__(self, asker: Asker) -> None:
        super().__init__(is_enabled=True)  # what the server says counts
        self._asker = asker

    @override
    def family(self, name: str, description: str, kind: int) -> Family:
        handle = _Handle(self._asker)
        refused = self._asker.ask("metric_family", [handle.number, name, description, kind])
        if refused is not None:
            raise MetricError(refused)
        return _StubFamily(name, description, SERIES_TYPES[kind], handle)


class _StubFamily(Family):
    __slots__ = ("_handle",)

    def __init__(
        self, name: str, description: str, series_type: type[Series], handle: _Handle
    ) -> None:
        super().__init__(name, description, series_type)
        self._handle = handle

    @override
    def _added(self, made: Series, bounds: Sequence[float]) -> Series:
        asker = self._handle.asker
        handle = _Handle(asker)
        asker.tell(
            "metric_series",
            [handle.number, self._handle.number, dict(made.labels), list(bounds)],
            is_quiet=True,
        )
        return _StubSeries(made, handle)


class _StubSeries(Series):
    """Tells the server what `shadow`, which is of the right kind, has not refused."""

    __slots__ = ("_handle", "_shadow")

    def __init__(self, shadow: Series, handle: _Handle) -> None:
        super().__init__(shadow.labels)
        self._shadow = shadow
        self._handle = handle

    @override
    def increment(self, _by: float) -> None:
        self._shadow.increment(_by)
        self._update("increment", _by)

    @override
    def set(self, _to: float) -> None:
        self._shadow.set(_to)
        self._update("set", _to)

    @override
    def observe(self, _value: float) -> None:
        self._shadow.observe(_value)
        self._update("observe", _value)

    @override
    def value(self) -> float:
        self._shadow.value()
        return float(self._handle.asker.ask("metric_value", self._handle.number))

    def _update(self, operation: str, value: float) -> None:
        # One text, which JSON takes a quarter of the time of a list for.
        handle = self._handle
        handle.asker.tell("metric_update", f"{handle.number} {operation} {value!r}", is_quiet=True)


_UPDATES: dict[str, Callable[[Series, float], None]] = {
    "increment": lambda series, value: series.increment(value),
    "set": lambda series, value: series.set(value),
    "observe": lambda series, value: series.observe(value),
}


class StubMetrics:
    """The server's end: what it holds for a stub.

    Used on the thread that reads what the stub says, but for `_value`.

    Parameters
    ----------
    settle
        ``settle()`` waits until what the stub had said is done. Called on other threads.
    """

    def __init__(
        self, registry: MetricRegistry, answerer: Answerer, settle: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._families: dict[int, Family] = {}
        self._series: dict[int, Series] = {}
        self._settle = settle
        registry.before_text.add(settle)
        answerer.add("metric_family", self._family)
        answerer.add("metric_series", self._make_series)
        answerer.add("metric_update", self._update)
        answerer.add("metric_value", self._value, may_wait=True)
        answerer.add("metric_drop", self._drop)

    def close(self) -> None:
        """Let go of everything: the stub is gone."""
        self._registry.before_text.discard(self._settle)
        self._series.clear()
        self._families.clear()

    def _family(self, data: Any) -> str | None:
        number, name, description, kind = data
        try:
            self._families[number] = self._registry.family(name, description, kind)
        except MetricError as error:
            return str(error)
        return None

    def _make_series(self, data: Any) -> None:
        number, family, labels, bounds = data
        self._series[number] = self._families[family].series(labels, bounds)

    def _update(self, data: Any) -> None:
        number, operation, value = data.split()
        _UPDATES[operation](self._series[int(number)], float(value))

    def _value(self, data: Any) -> float:
        # Of other stubs: this one's updates were read before the question.
        for settle in self._registry.before_text - {self._settle}:
            settle()
        return self._series[data].value()

    def _drop(self, data: Any) -> None:
        if self._series.pop(data, None) is None:
            self._families.pop(data, None)
