"""Names of `triton_python_backend_utils` whose behaviour does not exist yet.

They are present, so that a model imports and type checks, and raise `UnsupportedError`
that names what is missing when they are used.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NoReturn

from pytriton_lite.errors import UnsupportedError


class MetricKind(IntEnum):
    """Kinds of a metric family."""

    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class MetricFamily:
    """Custom metrics: not available yet."""

    COUNTER = MetricKind.COUNTER
    GAUGE = MetricKind.GAUGE
    HISTOGRAM = MetricKind.HISTOGRAM

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        raise UnsupportedError("pb_utils.MetricFamily is not supported yet: no custom metrics")


class Metric:
    """A series of a metric family; made by `MetricFamily.Metric` only."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.Metric: No constructor defined!")


class InferenceResponseSender:
    """Response sender: not available yet."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.InferenceResponseSender: No constructor defined!")


class ResponseIterator:
    """Responses of a BLS request: not available yet."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.ResponseIterator: No constructor defined!")


for _cls in (MetricKind, MetricFamily, Metric, InferenceResponseSender, ResponseIterator):
    _cls.__module__ = "c_python_backend_utils"


def load_model(
    model_name: str, config: str = "", files: dict[str, bytes] | None = None
) -> NoReturn:
    """Load a model: not available yet."""
    raise UnsupportedError(
        "pb_utils.load_model() is not supported yet: no model control from models"
    )


def unload_model(model_name: str, unload_dependents: bool = False) -> NoReturn:
    """Unload a model: not available yet."""
    raise UnsupportedError(
        "pb_utils.unload_model() is not supported yet: no model control from models"
    )


def is_model_ready(model_name: str, model_version: str = "") -> NoReturn:
    """Ask whether a model is ready: not available yet."""
    raise UnsupportedError(
        "pb_utils.is_model_ready() is not supported yet: no model control from models"
    )
