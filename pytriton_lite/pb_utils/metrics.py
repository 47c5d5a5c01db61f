"""Custom metrics of model code: `MetricFamily` and `Metric`.

What holds what: a family object holds the series that were made through it, so that a
metric made for one update keeps its value, as on Triton. A `Metric` holds neither.

::

    MetricFamily (model code) ──> _metrics.Family <┄┄ MetricRegistry (server)
       │    ^                          ┊
       │    ┊                          v
       └────┊───────────────────> _metrics.Series     ──> holds    ┄┄> weak
            ┊                          ^
         Metric (model code) ┄┄┄┄┄┄┄┄┄┄┘
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable
from typing import ClassVar, SupportsFloat, SupportsIndex, TypeAlias, TypeVar

from pytriton_lite._core.native_enum import MetricKind, NativeEnum
from pytriton_lite._core.tensor import TritonModelException
from pytriton_lite._metrics import Family, Histogram, Labels, MetricError, MetricRegistry, Series
from pytriton_lite.errors import UnsupportedError
from pytriton_lite.pb_utils.native import NATIVE_NAME, WrongType, native, refusal, text_of

_R = TypeVar("_R")
_Number: TypeAlias = "SupportsFloat | SupportsIndex"

_ONE_NUMBER = f"(self: {NATIVE_NAME}.Metric, arg0: float) -> None"


def _float(value: object) -> float:
    """A number of any type as a float; text is no number."""
    if type(value) is float:
        return value
    if hasattr(type(value), "__float__") or hasattr(type(value), "__index__"):
        try:
            return float(value)  # type: ignore[arg-type]
        except Exception:
            pass  # whatever the conversion raises, Triton says that the type does not fit
    raise WrongType


class MetricOwner:
    """A model instance as the maker of metrics.

    What it refuses is raised to the model outside of the handler of the MetricError, whose
    frames hold series: who keeps the exception must not keep them.

    Parameters
    ----------
    registry
        Of the server; None where no metrics can be made.
    name
        Of the instance, for texts.
    """

    def __init__(self, registry: MetricRegistry | None, name: str) -> None:
        self.name = name
        self._registry = registry
        self.lock = threading.RLock()
        self._handles: weakref.WeakValueDictionary[int, MetricFamily] = (
            weakref.WeakValueDictionary()
        )

    def adopt(self, handle: MetricFamily, name: str, description: str, kind: int) -> None:
        """Give `handle` the server's family, until `close` takes it away."""
        with self.lock:
            if self._registry is None:
                raise MetricError("metrics can be made from `initialize` to `finalize` only")
            handle._family = self._registry.family(name, description, kind)
            self._handles[id(handle)] = handle

    def close(self) -> None:
        """Take the metrics away from the model: what is left of it cannot use them."""
        with self.lock:
            self._registry = None
            handles = [ref() for ref in self._handles.valuerefs()]
        for handle in handles:
            if handle is not None:
                handle._close()


class Metric:
    """A series of a metric family; made by `MetricFamily.Metric` only. Thread-safe.

    It works as long as the `MetricFamily` object that it was made with is alive.
    """

    __slots__ = ("__weakref__", "_family", "_owner_name", "_series")
    _family: weakref.ref[MetricFamily]
    _series: weakref.ref[Series]
    _owner_name: str

    def __init__(self) -> None:
        raise TypeError(f"{NATIVE_NAME}.Metric: No constructor defined!")

    @native(_ONE_NUMBER)
    def increment(self, value: _Number, /) -> None:
        """Add to a counter (not negative) or a gauge."""
        number = _float(value)
        self._do("increment", lambda series: series.increment(number))

    @native(_ONE_NUMBER)
    def set(self, value: _Number, /) -> None:
        """Replace the value of a gauge."""
        number = _float(value)
        self._do("set", lambda series: series.set(number))

    @native(_ONE_NUMBER)
    def observe(self, value: _Number, /) -> None:
        """Count a value in a histogram."""
        number = _float(value)
        self._do("observe", lambda series: series.observe(number))

    @native(f"(self: {NATIVE_NAME}.Metric) -> float")
    def value(self) -> float:
        """Value of a counter or a gauge."""
        return self._do("get", lambda series: series.value())

    def _do(self, action: str, operation: Callable[[Series], _R]) -> _R:
        what = f"Failed to {action} metric value"
        # Another family object may hold the series, but on Triton that does not help this one.
        series = None if self._family() is None else self._series()
        if series is None:
            raise TritonModelException(
                f"{what}: Invalid metric operation as the corresponding 'MetricFamily' has been "
                "deleted. The 'MetricFamily' object should be deleted AFTER its corresponding "
                "'Metric' objects have been deleted."
            )
        try:
            return operation(series)
        except MetricError as error:
            text = str(error)
        del series  # see `MetricOwner`
        raise refusal(what, self._owner_name, text)


_MetricObject: TypeAlias = Metric  # in the class below `Metric` is the method


class MetricFamily:
    """A family of metrics: ``MetricFamily(name, description, kind)``. Thread-safe.

    Each model has a class of its own, whose families belong to the server that loaded it.

    Parameters
    ----------
    name
        As Prometheus allows it, colons included. Another family of this name and kind, also
        one of another model, is the same family.
    description
        Of the first one with this name.
    kind
        `COUNTER`, `GAUGE` or `HISTOGRAM`.

    Raises
    ------
    TypeError
        Arguments of another type.
    TritonModelException
        The name is not allowed, or in use for another kind; or the server has no metrics.
    UnsupportedError
        The class was not taken from a model's `triton_python_backend_utils`.

    Notes
    -----
    The object keeps the series that were made with it. With the last object of a name the
    family is gone.
    """

    __slots__ = ("__weakref__", "_family", "_kept", "_owner")
    COUNTER: ClassVar[NativeEnum] = MetricKind(0)
    GAUGE: ClassVar[NativeEnum] = MetricKind(1)
    HISTOGRAM: ClassVar[NativeEnum] = MetricKind(2)

    @native(
        f"{NATIVE_NAME}.MetricFamily(name: str, description: str, kind: {NATIVE_NAME}.MetricKind)",
        "constructor",
    )
    def __init__(self, name: str, description: str, kind: NativeEnum) -> None:
        name, description = text_of(name), text_of(description)
        if not isinstance(kind, MetricKind):
            raise WrongType
        self._owner = self._find_owner()
        self._family: Family | None = None
        self._kept: dict[Labels, Series] = {}
        try:
            self._owner.adopt(self, name, description, int(kind))
            return
        except MetricError as error:
            text = str(error)
        raise refusal("Error when creating MetricFamily", self._owner.name, text)

    @staticmethod
    def _find_owner() -> MetricOwner:
        raise UnsupportedError(
            "this MetricFamily belongs to no server: metrics are made by model code, with the "
            "`triton_python_backend_utils` that it imports"
        )

    @native(
        f"(self: {NATIVE_NAME}.MetricFamily, labels: object = None, buckets: object = None)"
        f" -> {NATIVE_NAME}.Metric"
    )
    def Metric(
        self, labels: dict[str, str] | None = None, buckets: list[float] | None = None
    ) -> _MetricObject:
        """Find the series with these labels, or make it.

        Parameters
        ----------
        labels
            Names and values.
        buckets
            Upper bounds of a histogram's buckets, strictly ascending; needed for it alone, and
            without effect if the series exists.
        """
        family = self._family
        if family is None:
            raise TritonModelException(
                "Failed to create metric. The model that made the 'MetricFamily' is unloaded."
            )
        if labels is not None and not isinstance(labels, dict):
            raise TritonModelException("Failed to create metric. Labels must be a dictionary.")
        # Triton sends them as JSON, which makes text of some names and refuses some values.
        plain: dict[str, object] = json.loads(json.dumps(labels or {}))
        bounds = _bounds(buckets, is_histogram=family.series_type is Histogram)
        try:
            return self._made(family.series(plain, bounds))
        except MetricError as error:
            text = str(error)
        raise refusal("Error when creating Metric", self._owner.name, text)

    def _made(self, series: Series) -> _MetricObject:
        # A `_close` on another thread leaves nothing behind: it runs before or after this.
        with self._owner.lock:
            if self._family is not None:
                self._kept[series.labels] = series
        metric = _MetricObject.__new__(_MetricObject)
        metric._family = weakref.ref(self)
        metric._series = weakref.ref(series)
        metric._owner_name = self._owner.name
        return metric

    def _close(self) -> None:
        with self._owner.lock:
            self._family = None
            self._kept.clear()


def _bounds(buckets: object, *, is_histogram: bool) -> list[float]:
    if buckets is None:
        if is_histogram:
            raise TritonModelException("Failed to create metric. Missing required buckets.")
        return []
    if not isinstance(buckets, list):
        raise TritonModelException("Failed to create metric. Buckets must be a list.")
    if not is_histogram:
        raise TritonModelException("Failed to create metric. Unexpected buckets found.")
    try:
        return [_float(bound) for bound in buckets]
    except WrongType:
        raise RuntimeError(
            "Unable to cast Python instance to C++ type: a bucket is no number"
        ) from None


def make_metric_family_class(find_owner: Callable[[], MetricOwner]) -> type[MetricFamily]:
    """Make the class `MetricFamily` for one model, or for all that `find_owner` tells apart."""
    return type(
        "MetricFamily",
        (MetricFamily,),
        {
            "__slots__": (),
            "__module__": NATIVE_NAME,
            "__doc__": MetricFamily.__doc__,
            "_find_owner": staticmethod(find_owner),
        },
    )


Metric.__module__ = MetricFamily.__module__ = NATIVE_NAME
