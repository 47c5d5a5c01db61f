"""Names of `triton_python_backend_utils` whose behaviour does not exist yet.

They are present, so that a model imports and type checks, and raise `UnsupportedError`
that names what is missing when they are used.
"""

from __future__ import annotations

from typing import Any, NoReturn

from pytriton_lite.errors import UnsupportedError


class InferenceResponseSender:
    """Response sender: not available yet."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.InferenceResponseSender: No constructor defined!")


class ResponseIterator:
    """Responses of a BLS request: not available yet."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.ResponseIterator: No constructor defined!")


class SharedMemory:
    """Triton's shared memory pool; there is none in this process."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.SharedMemory: No constructor defined!")


def async_event_future_done_callback(py_future: Any) -> NoReturn:
    """Raise: Triton's own event loop calls it, model code has no use for it."""
    raise UnsupportedError("async_event_future_done_callback() is internal to Triton's stub")


for _cls in (SharedMemory, InferenceResponseSender, ResponseIterator):
    _cls.__module__ = "c_python_backend_utils"
