"""Types of ``import c_python_backend_utils``, the native part of `triton_python_backend_utils`.

Inside a model the classes that have no name there can be imported from here, also on Triton::

    from c_python_backend_utils import InferenceResponseSender

They are the same classes. What only Triton's own code uses is left out.
"""

from typing import Final

from pytriton_lite.pb_utils._types import (
    TRITONSERVER_MEMORY_CPU as TRITONSERVER_MEMORY_CPU,
    TRITONSERVER_MEMORY_GPU as TRITONSERVER_MEMORY_GPU,
    InferenceRequest as InferenceRequest,
    InferenceResponse as InferenceResponse,
    InferenceResponseSender as InferenceResponseSender,
    InferenceTrace as InferenceTrace,
    Logger as Logger,
    MemoryType as MemoryType,
    Metric as Metric,
    MetricFamily as MetricFamily,
    MetricKind as MetricKind,
    PreferredMemory as PreferredMemory,
    ResponseIterator as ResponseIterator,
    Tensor as Tensor,
    TritonError as TritonError,
    TritonModelException as TritonModelException,
    is_model_ready as is_model_ready,
    load_model as load_model,
    unload_model as unload_model,
)

COUNTER: Final[MetricKind]
GAUGE: Final[MetricKind]
HISTOGRAM: Final[MetricKind]
