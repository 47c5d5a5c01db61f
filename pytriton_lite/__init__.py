"""Triton Inference Server's runtime for Python-based backends, as a Python library.

A request passes these modules in this order: `server`, `model`, `_options`, `_repository`,
`_backend`, `_config`, `_loading`, `_instance`, `pb_utils`, with `_core` (compiled) below all
of them and `errors`, `_dtypes`, `_metrics` and `_control` shared.
"""

from __future__ import annotations

try:
    from pytriton_lite._core import tensor as _tensor
except ImportError as error:
    raise ImportError(
        "the compiled part of pytriton_lite is missing here or does not fit this Python. In the "
        "source folder, which hides an installed package, run `pip install -e .`"
    ) from error

import typing

from pytriton_lite import errors, pb_utils
from pytriton_lite._core.reply import InferenceResponse, Tensor
from pytriton_lite._dtypes import DataType
from pytriton_lite.errors import (
    AlreadyExistsError,
    CancelledError,
    ConfigError,
    ErrorCode,
    InternalError,
    InvalidArgumentError,
    ModelLoadError,
    NotFoundError,
    RequestTimeoutError,
    TritonError,
    UnavailableError,
    UnknownError,
    UnsupportedError,
)

if typing.TYPE_CHECKING:
    from pytriton_lite._backend import BackendRecord, BackendTable
    from pytriton_lite._config.explain import ConfigExplanation, ConfigOrigin, ConfigValue
    from pytriton_lite._index import ModelIndexEntry, ModelState
    from pytriton_lite._options import CompatibilityWarning, ModelControlMode, Options
    from pytriton_lite._protocol import TritonPythonModel
    from pytriton_lite._timings import Timings
    from pytriton_lite.model import (
        FormedBatch,
        InferenceRequest,
        Model,
        ModelBatchFlag,
        ModelTxnPropertyFlag,
    )
    from pytriton_lite.server import Server

del _tensor

__version__ = "0.1.0.dev0"

__all__ = [
    "AlreadyExistsError",
    "BackendRecord",
    "BackendTable",
    "CancelledError",
    "CompatibilityWarning",
    "ConfigError",
    "ConfigExplanation",
    "ConfigOrigin",
    "ConfigValue",
    "DataType",
    "ErrorCode",
    "FormedBatch",
    "InferenceRequest",
    "InferenceResponse",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "ModelBatchFlag",
    "ModelControlMode",
    "ModelIndexEntry",
    "ModelLoadError",
    "ModelState",
    "ModelTxnPropertyFlag",
    "NotFoundError",
    "Options",
    "RequestTimeoutError",
    "Server",
    "Tensor",
    "Timings",
    "TritonError",
    "TritonPythonModel",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
    "__version__",
    "errors",
    "pb_utils",
]

# Names of servers, and their modules. They are imported when they are asked for: the processes that
# models run in import this package, too, and have no server.
_LAZY = {
    "BackendRecord": "_backend",
    "BackendTable": "_backend",
    "ConfigExplanation": "_config.explain",
    "ConfigOrigin": "_config.explain",
    "ConfigValue": "_config.explain",
    "ModelIndexEntry": "_index",
    "ModelState": "_index",
    "CompatibilityWarning": "_options",
    "ModelControlMode": "_options",
    "Options": "_options",
    "TritonPythonModel": "_protocol",
    "Timings": "_timings",
    "FormedBatch": "model",
    "InferenceRequest": "model",
    "Model": "model",
    "ModelBatchFlag": "model",
    "ModelTxnPropertyFlag": "model",
    "Server": "server",
}


def __getattr__(name: str) -> typing.Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
