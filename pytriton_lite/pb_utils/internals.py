"""Names of Triton's native module that belong to its own workings.

They are there, so that a model imports and type checks, and have no use in model code.
"""

from __future__ import annotations

from typing import Any, NoReturn

from pytriton_lite.errors import UnsupportedError


class SharedMemory:
    """Triton's shared memory pool; there is none in this process."""

    def __init__(self) -> None:
        raise TypeError("c_python_backend_utils.SharedMemory: No constructor defined!")


def async_event_future_done_callback(py_future: Any) -> NoReturn:
    """Raise: Triton's own event loop calls it, model code has no use for it."""
    raise UnsupportedError("async_event_future_done_callback() is internal to Triton's stub")


SharedMemory.__module__ = "c_python_backend_utils"
