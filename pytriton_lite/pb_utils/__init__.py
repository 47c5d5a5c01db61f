"""What ``import triton_python_backend_utils as pb_utils`` gives inside a model.

The same classes are importable from here for scripts and tests. What belongs to an instance
exists only inside a model: `get_model_dir`; a `MetricFamily` of its server, and `load_model`,
`unload_model` and `is_model_ready` (here they refuse); and a `Logger` that logs under
``pytriton_lite.model.<name>`` (here it logs under ``pytriton_lite.model``).
"""

from __future__ import annotations

# `json`, `np` and `struct` are names that Triton's module leaks and model code may use.
import json
import logging
import struct
from typing import TYPE_CHECKING

import numpy as np

from pytriton_lite.pb_utils.internals import SharedMemory, async_event_future_done_callback

if TYPE_CHECKING:
    # What `triton_python_backend_utils` is to a type checker, so that both have the same classes.
    # The stub package takes them from here and not we from it: programs may have a module of that
    # name, such as a copy of Triton's.
    from pytriton_lite.pb_utils._types import (
        TRITON_STRING_TO_NUMPY,
        TRITONSERVER_MEMORY_CPU,
        TRITONSERVER_MEMORY_GPU,
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_END,
        TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
        TRITONSERVER_REQUEST_RELEASE_ALL,
        TRITONSERVER_REQUEST_RELEASE_RESCHEDULE,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL,
        InferenceRequest,
        InferenceResponse,
        InferenceResponseSender,
        InferenceTrace,
        Logger,
        MemoryType,
        Metric,
        MetricFamily,
        MetricKind,
        ModelConfig,
        PreferredMemory,
        ResponseIterator,
        Tensor,
        TritonError,
        TritonModelException,
        deserialize_bytes_tensor,
        get_input_config_by_name,
        get_input_tensor_by_name,
        get_output_config_by_name,
        get_output_tensor_by_name,
        is_model_ready,
        load_model,
        numpy_to_triton_type,
        serialize_byte_tensor,
        triton_string_to_numpy,
        triton_to_numpy_type,
        unload_model,
        using_decoupled_model_transaction_policy,
    )
else:
    from pytriton_lite._core.bls import ResponseIterator
    from pytriton_lite._core.bytes_tensor import deserialize_bytes_tensor, serialize_byte_tensor
    from pytriton_lite._core.message import (
        InferenceRequest,
        InferenceResponse,
        InferenceTrace,
        PreferredMemory,
        TritonError,
        get_input_tensor_by_name,
        get_output_tensor_by_name,
    )
    from pytriton_lite._core.native_enum import MemoryType, MetricKind
    from pytriton_lite._core.sender import InferenceResponseSender
    from pytriton_lite._core.tensor import Tensor, TritonModelException
    from pytriton_lite.pb_utils.config import (
        ModelConfig,
        get_input_config_by_name,
        get_output_config_by_name,
        using_decoupled_model_transaction_policy,
    )
    from pytriton_lite.pb_utils.control import is_model_ready, load_model, unload_model
    from pytriton_lite.pb_utils.dtypes import (
        TRITON_STRING_TO_NUMPY,
        numpy_to_triton_type,
        triton_string_to_numpy,
        triton_to_numpy_type,
    )
    from pytriton_lite.pb_utils.log import make_logger_class
    from pytriton_lite.pb_utils.metrics import Metric, MetricFamily

    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    TRITONSERVER_REQUEST_RELEASE_ALL = 1
    TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2
    TRITONSERVER_MEMORY_GPU = MemoryType(0)
    TRITONSERVER_MEMORY_CPU = MemoryType(1)

    Logger = make_logger_class(logging.getLogger("pytriton_lite.model"))

# The names of Triton's module; `get_model_dir` joins them inside a model.
__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITON_STRING_TO_NUMPY",
    "InferenceRequest",
    "InferenceResponse",
    "Logger",
    "MetricFamily",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "is_model_ready",
    "json",
    "load_model",
    "np",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "struct",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "unload_model",
    "using_decoupled_model_transaction_policy",
]

# The names of `c_python_backend_utils`, the native module behind it.
NATIVE_NAMES = {
    "COUNTER": MetricKind(0),
    "GAUGE": MetricKind(1),
    "HISTOGRAM": MetricKind(2),
    "InferenceRequest": InferenceRequest,
    "InferenceResponse": InferenceResponse,
    "InferenceResponseSender": InferenceResponseSender,
    "InferenceTrace": InferenceTrace,
    "Logger": Logger,
    "MemoryType": MemoryType,
    "Metric": Metric,
    "MetricFamily": MetricFamily,
    "MetricKind": MetricKind,
    "PreferredMemory": PreferredMemory,
    "ResponseIterator": ResponseIterator,
    "SharedMemory": SharedMemory,
    "TRITONSERVER_MEMORY_CPU": TRITONSERVER_MEMORY_CPU,
    "TRITONSERVER_MEMORY_GPU": TRITONSERVER_MEMORY_GPU,
    "Tensor": Tensor,
    "TritonError": TritonError,
    "TritonModelException": TritonModelException,
    "async_event_future_done_callback": async_event_future_done_callback,
    "is_model_ready": is_model_ready,
    "load_model": load_model,
    "shared_memory": None,
    "unload_model": unload_model,
}
