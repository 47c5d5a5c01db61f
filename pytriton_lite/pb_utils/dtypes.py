"""Conversions between Triton's data types and numpy's, as in `triton_python_backend_utils`."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "TRITON_STRING_TO_NUMPY",
    "numpy_to_triton_type",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
]

# Public on Triton too, and used as such. TYPE_BF16 is absent there; TYPE_BOOL gives Python's bool.
TRITON_STRING_TO_NUMPY: dict[str, type[Any]] = {
    "TYPE_BOOL": bool,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}

_NUMBER_TO_NUMPY: dict[int, type[Any]] = {
    1: np.bool_,
    2: np.uint8,
    3: np.uint16,
    4: np.uint32,
    5: np.uint64,
    6: np.int8,
    7: np.int16,
    8: np.int32,
    9: np.int64,
    10: np.float16,
    11: np.float32,
    12: np.float64,
    13: np.object_,
}


def triton_to_numpy_type(data_type: int) -> type[Any] | None:
    """Numpy type of a data type number of `inference.DataType`; None for unknown ones and BF16."""
    return _NUMBER_TO_NUMPY.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """Data type number of a numpy type or dtype; None when there is none.

    Compares with ``==``, so that ``np.float32`` and ``np.dtype("float32")`` count, and
    ``float``, ``"float32"`` and ``np.dtype("S3")`` do not (observed on Triton 2.51).
    """
    if data_type is np.bytes_:
        return 13
    if isinstance(data_type, np.dtype):
        data_type = data_type.type if data_type.type is not np.bytes_ else None
    for number, numpy_type in _NUMBER_TO_NUMPY.items():
        if data_type == numpy_type:
            return number
    return None


def triton_string_to_numpy(triton_type_string: str) -> type[Any]:
    """Numpy type of a config name such as ``TYPE_FP32``.

    Raises
    ------
    KeyError
        Unknown names, ``TYPE_BF16``, and names without ``TYPE_``.
    """
    return TRITON_STRING_TO_NUMPY[triton_type_string]
