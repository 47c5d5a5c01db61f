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

from pytriton_lite import errors, pb_utils
from pytriton_lite._backend import BackendRecord, BackendTable
from pytriton_lite._core.reply import InferenceResponse, Tensor
from pytriton_lite._dtypes import DataType
from pytriton_lite._index import ModelIndexEntry, ModelState
from pytriton_lite._options import CompatibilityWarning, ModelControlMode, Options
from pytriton_lite._protocol import TritonPythonModel
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
from pytriton_lite.model import (
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
    "DataType",
    "ErrorCode",
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
    "TritonError",
    "TritonPythonModel",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
    "__version__",
    "errors",
    "pb_utils",
]
