"""Types of ``import triton_python_backend_utils as pb_utils``, the module that model code uses.

For type checkers and editors only: the module itself exists inside a model, on Triton and
in `pytriton_lite`. The types are those of `pytriton_lite.pb_utils`.

Some types have no name in the module: the class of a response sender, for example, is
in ``c_python_backend_utils``. They are here so that annotations can say them
(``sender: pb_utils.InferenceResponseSender`` below ``from __future__ import annotations``)
and are marked ``type_check_only``: at run time the name is an `AttributeError`. Also the
native names, from `Tensor` to `load_model`, exist in functions only and not yet while the
body of the model's module runs.
"""

from pytriton_lite.pb_utils._types import *  # noqa: F403 - what its `__all__` lists
from pytriton_lite.pb_utils._types import (
    InferenceResponseSender as InferenceResponseSender,
    InferenceTrace as InferenceTrace,
    InputProperties as InputProperties,
    MemoryType as MemoryType,
    Metric as Metric,
    MetricKind as MetricKind,
    OutputProperties as OutputProperties,
    ResponseIterator as ResponseIterator,
    TransactionPolicy as TransactionPolicy,
    __all__ as __all__,
)
