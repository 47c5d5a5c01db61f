"""The one table of Triton's data types.

Columns: the enum number of ``inference.DataType`` in a model configuration,
the name in ``config.pbtxt``, the name in the KServe v2 protocol (which
requests, metadata and error texts use), the numpy dtype, the DLPack type code
and bits, and the bytes of one element. A BYTES element has no fixed size;
BF16 has no numpy dtype of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class DataTypeInfo:
    """One row of the table."""

    number: int
    config_name: str
    protocol_name: str
    numpy_dtype: npt.DTypeLike | None
    dlpack_code: int | None
    bits: int

    @property
    def item_size(self) -> int:
        """Bytes of one element; 0 for BYTES."""
        return self.bits // 8


# DLPack's DLDataTypeCode values.
_INT, _UINT, _FLOAT, _BFLOAT, _BOOL = 0, 1, 2, 4, 6

DATA_TYPES: tuple[DataTypeInfo, ...] = (
    DataTypeInfo(1, "TYPE_BOOL", "BOOL", np.bool_, _BOOL, 8),
    DataTypeInfo(2, "TYPE_UINT8", "UINT8", np.uint8, _UINT, 8),
    DataTypeInfo(3, "TYPE_UINT16", "UINT16", np.uint16, _UINT, 16),
    DataTypeInfo(4, "TYPE_UINT32", "UINT32", np.uint32, _UINT, 32),
    DataTypeInfo(5, "TYPE_UINT64", "UINT64", np.uint64, _UINT, 64),
    DataTypeInfo(6, "TYPE_INT8", "INT8", np.int8, _INT, 8),
    DataTypeInfo(7, "TYPE_INT16", "INT16", np.int16, _INT, 16),
    DataTypeInfo(8, "TYPE_INT32", "INT32", np.int32, _INT, 32),
    DataTypeInfo(9, "TYPE_INT64", "INT64", np.int64, _INT, 64),
    DataTypeInfo(10, "TYPE_FP16", "FP16", np.float16, _FLOAT, 16),
    DataTypeInfo(11, "TYPE_FP32", "FP32", np.float32, _FLOAT, 32),
    DataTypeInfo(12, "TYPE_FP64", "FP64", np.float64, _FLOAT, 64),
    DataTypeInfo(13, "TYPE_STRING", "BYTES", np.object_, None, 0),
    DataTypeInfo(14, "TYPE_BF16", "BF16", None, _BFLOAT, 16),
)

BY_NUMBER = {row.number: row for row in DATA_TYPES}
BY_CONFIG_NAME = {row.config_name: row for row in DATA_TYPES}
BY_PROTOCOL_NAME = {row.protocol_name: row for row in DATA_TYPES}


class DataType(IntEnum):
    """Data types of the KServe v2 protocol, with Triton's numbers."""

    INVALID = 0
    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13
    BF16 = 14
