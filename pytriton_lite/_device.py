"""Inputs in device memory, copied to the CPU for models that want them there.

Three ways, tried in this order: the producer itself (``dl_device`` of the array API standard),
torch for its own tensors, and a library that can read the device: cupy, else torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from pytriton_lite._core.reply import Tensor
from pytriton_lite.errors import UnsupportedError

_CPU = 1
_PINNED = 3  # CUDA's host memory, which the CPU reads as any other


def is_cpu_device(device: tuple[int, int]) -> bool:
    """Whether a ``__dlpack_device__()`` is memory that the CPU can read."""
    return device[0] in (_CPU, _PINNED)


def to_cpu(source: Any) -> Tensor:
    """Copy of a DLPack producer's data in CPU memory.

    Raises
    ------
    UnsupportedError
        The producer does not copy, and nothing installed can. The text goes on from the
        name of the input.
    """
    moved = _by_producer(source)
    if moved is not None:
        return moved
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        return Tensor.from_dlpack(source.cpu())
    failures = []
    for library, copy in (("cupy", _by_cupy), ("torch", _by_torch)):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        try:
            return Tensor.from_dlpack(copy(module, source))
        except Exception as error:  # no such device, or a data type that the library lacks
            failures.append(f"{library}: {type(error).__name__}: {error}")
    device_type, device_id = source.__dlpack_device__()
    reason = f" ({'; '.join(failures)})" if failures else ""
    raise UnsupportedError(
        f"is on device ({int(device_type)}, {device_id}), and to copy it to the CPU "
        f"'pytriton_lite[cuda]' (cupy) or torch must be installed{reason}; with the model "
        "parameter FORCE_CPU_ONLY_INPUT_TENSORS set to 'no' the model gets it as it is"
    )


def _by_producer(source: Any) -> Tensor | None:
    try:
        capsule = source.__dlpack__(max_version=(1, 0), dl_device=(_CPU, 0))
    except (BufferError, NotImplementedError, TypeError, ValueError):
        return None  # it knows no `dl_device`, or no way
    made = Tensor.from_dlpack(capsule)
    return made if is_cpu_device(made.__dlpack_device__()) else None


def _by_cupy(cupy: Any, source: Any) -> Any:
    return cupy.from_dlpack(source).get()


def _by_torch(torch: Any, source: Any) -> Any:
    return torch.from_dlpack(source).cpu()
