from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

# `()` for an empty array and None for a dtype without a BYTES form: Triton's own oddities.
def serialize_byte_tensor(array: npt.NDArray[Any]) -> bytes | tuple[()] | None: ...
def deserialize_bytes_tensor(encoded: Buffer) -> npt.NDArray[np.object_]: ...
