"""Triton's checks of a configuration, with Triton's texts.

Three steps, as there: `validate_general` before the model is looked at,
`validate_parameters` by the Python backend before it starts the model's code, and
`validate_io` on what auto-complete made of it. The first failure wins, so the
order of the checks matters. All orders and texts were seen on Triton 2.51,
except those of ``model_metrics``, which it does not know.

Checks that need the model folder (label files, warmup and state files) are in
``model_files``, those that need other models in ``ensemble``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NoReturn

from .._dtypes import BY_CONFIG_NAME
from ..errors import ConfigError, ErrorCode, UnsupportedError
from .ensemble import check_graph
from .schema import ConfigMessage
from .suggest import did_you_mean, with_note

# Backends that take only platforms of their own. Python is none of them.
_PLATFORMS = {
    "onnxruntime": ("onnxruntime_onnx",),
    "pytorch": ("pytorch_libtorch",),
    "tensorflow": ("tensorflow_savedmodel", "tensorflow_graphdef"),
    "tensorrt": ("tensorrt_plan",),
}

_INT32 = BY_CONFIG_NAME["TYPE_INT32"].number
_FP32 = BY_CONFIG_NAME["TYPE_FP32"].number
_CORRELATION_ID_TYPES = tuple(
    BY_CONFIG_NAME[name].number
    for name in ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
)

_FORCE_CPU = "FORCE_CPU_ONLY_INPUT_TENSORS"
_WILDCARD = -1
_IMAGE_RANK = 3


def _fail(
    message: ConfigMessage, text: str, *, at: str | None = None, hint: str | None = None
) -> NoReturn:
    """Raise; `at` is the field, such as ``input[0].dims``."""
    raise with_note(ConfigError(text, model=message.name, field=at, hint=hint))


def check_agents(message: ConfigMessage, *, model_name: str) -> None:
    """Refuse repository agents, which are native libraries; Triton asks for them first of all.

    Raises
    ------
    ConfigError
        The configuration names an agent.
    """
    for agent in message.model_repository_agents.agents:
        raise with_note(
            ConfigError(
                f"unable to find 'libtritonrepoagent_{agent.name}.so' for repo agent "
                f"'{agent.name}', searched: /opt/tritonserver/repoagents",
                model=model_name,
                hint="repository agents are native libraries, which are never loaded here",
            )
        )


def validate_general(message: ConfigMessage, *, model_name: str, with_io: bool = False) -> None:
    """Check everything but inputs and outputs.

    Parameters
    ----------
    message
        Configuration after ``normalize.fill_defaults``.
    model_name
        Name of the model folder.
    with_io
        Also do `validate_io`, as Triton does here when nothing will be completed.

    Raises
    ------
    ConfigError
        The first check that fails.
    """
    _check_platform(message)
    if message.max_batch_size < 0:
        _fail(
            message,
            f"'max_batch_size' must be non-negative value for {message.name}",
            at="max_batch_size",
        )
    if message.HasField("dynamic_batching"):
        _check_dynamic_batching(message)
    if message.HasField("sequence_batching"):
        _check_sequence_batching(message)
    _check_ensemble(message)
    if message.response_cache.enable and message.model_transaction_policy.decoupled:
        _fail(
            message,
            f"Response Cache does not currently support model {message.name} with 'decoupled' "
            "transaction policy. Please disable the response cache.",
            at="response_cache",
        )
    _check_metrics(message)
    if with_io:
        validate_io(message)
    if message.name != model_name:
        raise with_note(
            ConfigError(
                f"unexpected directory name '{model_name}' for model '{message.name}', directory "
                "name must equal model name",
                model=model_name,
                field="name",
                hint="without `name` a model has that of its folder",
            )
        )


def _check_platform(message: ConfigMessage) -> None:
    platform, backend = message.platform, message.backend
    if platform == "ensemble":
        if backend:
            _fail(
                message,
                f"Ensemble model '{message.name}' must have platform type 'ensemble' and empty "
                "backend type",
                at="backend",
            )
        return
    if not backend:
        hint = 'write backend: "python" instead' if platform == "python" else None
        _fail(
            message,
            f"unexpected platform type '{platform}' for {message.name}",
            at="platform",
            hint=hint,
        )
    if platform and platform not in _PLATFORMS.get(backend, (platform,)):
        _fail(
            message,
            f"unexpected 'platform' and 'backend' pair, got:{platform}, {backend}",
            at="platform",
        )


def _check_preferred_sizes(
    message: ConfigMessage, sizes: Iterable[int], subject: str, what: str, *, at: str
) -> None:
    for index, size in enumerate(sizes):
        at_size = f"{at}.preferred_batch_size[{index}]"
        if size <= 0:
            _fail(message, f"{subject} {what} must be positive for {message.name}", at=at_size)
        if size > message.max_batch_size:
            _fail(
                message,
                f"{subject} {what} must be <= max batch size for {message.name}",
                at=at_size,
                hint=f"max_batch_size is {message.max_batch_size}",
            )


def _check_dynamic_batching(message: ConfigMessage) -> None:
    batching, name = message.dynamic_batching, message.name
    _check_preferred_sizes(
        message,
        batching.preferred_batch_size,
        "dynamic batching",
        "preferred size",
        at="dynamic_batching",
    )
    levels = batching.priority_levels
    if levels:
        if not 1 <= batching.default_priority_level <= levels:
            _fail(
                message,
                f"default priority level must be in range [1, {levels}] for {name}",
                at="dynamic_batching.default_priority_level",
            )
        for level in batching.priority_queue_policy:
            if not 1 <= level <= levels:
                _fail(
                    message,
                    f"priority queue policy must have priority level in range [1, {levels}] for "
                    f"{name}",
                    at="dynamic_batching.priority_queue_policy",
                )
    if not batching.preserve_ordering:
        return
    if levels > 1:
        _fail(
            message,
            f"Only one priority level is allowed when 'preserve_ordering' is true for {name}",
            at="dynamic_batching.priority_levels",
        )
    policies = batching.priority_queue_policy
    for policy in (batching.default_queue_policy, *(policies[level] for level in policies)):
        if policy.timeout_action == policy.DELAY and policy.default_timeout_microseconds:
            _fail(
                message,
                "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is "
                f"true for {name}",
                at="dynamic_batching.preserve_ordering",
            )


def _check_sequence_batching(message: ConfigMessage) -> None:
    batching, name = message.sequence_batching, message.name
    if message.response_cache.enable:
        _fail(
            message,
            f"Response Cache does not currently support model {name} with sequence batching "
            "scheduler. Please disable the response cache.",
            at="response_cache",
        )
    for kind in ("START", "END", "READY", "CORRID"):
        _check_control_kind(message, f"CONTROL_SEQUENCE_{kind}")
    if batching.HasField("oldest"):
        _check_preferred_sizes(
            message,
            batching.oldest.preferred_batch_size,
            "sequence batching",
            "preferred batch size",
            at="sequence_batching.oldest",
        )
    if batching.HasField("direct"):
        utilization = batching.direct.minimum_slot_utilization
        # 0 passes, whatever the text says.
        if utilization < 0.0 or utilization > 1.0:
            _fail(
                message,
                "sequence batching minimum slot utilization must be in range (0.0, 1.0] for "
                f"{name}",
                at="sequence_batching.direct.minimum_slot_utilization",
            )


def _check_control_kind(message: ConfigMessage, kind: str) -> None:
    """Check the names of all control tensors, and the signal of one kind."""
    seen_tensors = set()
    is_found = False
    for index, tensor in enumerate(message.sequence_batching.control_input):
        at = f"sequence_batching.control_input[{index}]"
        if not tensor.name:
            _fail(
                message,
                f"sequence batching control tensor must have a name for {message.name}",
                at=f"{at}.name",
            )
        if tensor.name in seen_tensors:
            _fail(
                message,
                f"sequence batching control tensor '{tensor.name}' is specified for multiple "
                f"control kinds for {message.name}",
                at=f"{at}.name",
            )
        seen_tensors.add(tensor.name)
        for place, control in enumerate(tensor.control):
            if control.kind != control.Kind.Value(kind):
                continue
            if is_found:
                _fail(
                    message,
                    f"sequence batching specifies multiple {kind} tensors for {message.name}",
                    at=f"{at}.control[{place}].kind",
                )
            is_found = True
            if kind == "CONTROL_SEQUENCE_CORRID":
                _check_correlation_id(message, control, f"{at}.control[{place}]")
            else:
                _check_false_true(message, control, kind, f"{at}.control[{place}]")


def _check_correlation_id(message: ConfigMessage, control: ConfigMessage, at: str) -> None:
    if control.int32_false_true or control.fp32_false_true or control.bool_false_true:
        _fail(
            message,
            "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or "
            f"'bool_false_true' for CONTROL_SEQUENCE_CORRID for {message.name}",
            at=at,
        )
    if control.data_type not in _CORRELATION_ID_TYPES:
        _fail(
            message,
            f"unexpected data type for control CONTROL_SEQUENCE_CORRID for {message.name}. "
            "Allowed data types are TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and "
            "TYPE_STRING",
            at=f"{at}.data_type",
        )


def _check_false_true(message: ConfigMessage, control: ConfigMessage, kind: str, at: str) -> None:
    fields = ("int32_false_true", "fp32_false_true", "bool_false_true")
    given = [field for field in fields if getattr(control, field)]
    if not given:
        _fail(
            message,
            "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or "
            f"'bool_false_true' for {kind} for {message.name}",
            at=at,
        )
    if len(given) > 1:
        _fail(
            message,
            "sequence batching specifies more than one from 'int32_false_true', "
            f"'fp32_false_true' and 'bool_false_true' for {kind} for {message.name}",
            at=at,
        )
    if len(getattr(control, given[0])) != 2:  # noqa: PLR2004 - [false, true]
        _fail(
            message,
            f"sequence batching control '{given[0]}' must have exactly 2 entries for {kind} for "
            f"{message.name}",
            at=at,
        )


def _check_ensemble(message: ConfigMessage) -> None:
    """Check what an ensemble may have, then its steps."""
    name = message.name
    if not message.HasField("ensemble_scheduling"):
        if message.platform == "ensemble":
            _fail(
                message,
                f"ensemble scheduling must be set for ensemble {name} whose platform is ensemble",
            )
        return
    if message.platform != "ensemble":
        _fail(
            message,
            f"ensemble scheduling cannot be set for model '{name}' whose platform is not ensemble",
        )
    if message.instance_group:
        _fail(
            message,
            f"instance group should not be specified for ensemble '{name}'",
            at="instance_group",
        )
    if message.HasField("optimization"):
        _fail(
            message,
            f"optimization should not be specified for ensemble '{name}'",
            at="optimization",
        )
    if message.model_warmup:
        _fail(
            message, f"model_warmup can not be specified for ensemble '{name}'", at="model_warmup"
        )
    check_graph(message)


def _check_metrics(message: ConfigMessage) -> None:
    for control in message.model_metrics.metric_control:
        if not control.HasField("metric_identifier"):
            _fail(message, "metric control must specify 'metric_identifier'")
        if not control.metric_identifier.family:
            _fail(message, "metric identifier must specify non-empty 'family'")
        if not control.HasField("histogram_options"):
            _fail(message, "metric control must specify 'histogram_options'")
        if not control.histogram_options.buckets:
            _fail(message, "histogram options must specify non-empty 'buckets'")


# --- parameters of the Python backend ---


def validate_parameters(message: ConfigMessage) -> None:
    """Check the parameters, and the batch inputs, that the Python backend itself reads.

    Raises
    ------
    ConfigError
        The kind of a batch input is a number without a name.
    UnsupportedError
        `FORCE_CPU_ONLY_INPUT_TENSORS` is neither ``yes`` nor ``no``. The stray quote
        of the text is Triton's.
    """
    for item in message.batch_input:
        if item.kind not in item.Kind.values():
            # It stumbles over the number in the JSON form.
            raise with_note(
                ConfigError(
                    "attempt to access JSON non-string as string",
                    ErrorCode.INTERNAL,
                    model=message.name,
                    hint=f"the kind {item.kind} of a batch input has no name",
                )
            )
    if _FORCE_CPU not in message.parameters:
        return
    value = message.parameters[_FORCE_CPU].string_value
    if value not in ("yes", "no"):
        raise UnsupportedError(f"Incorrect value for {_FORCE_CPU}: {value}'", model=message.name)


# --- inputs and outputs ---


def validate_io(message: ConfigMessage) -> None:
    """Check inputs, outputs, batch inputs and batch outputs.

    Raises
    ------
    ConfigError
        The first check that fails.
    """
    for index, tensor in enumerate(message.input):
        at = f"input[{index}]"
        _check_tensor(message, tensor, "input", at)
        # Numbers without a name pass, whatever the dims.
        is_image = tensor.format in (tensor.FORMAT_NHWC, tensor.FORMAT_NCHW)
        if is_image and len(tensor.dims) != _IMAGE_RANK:
            _fail(
                message,
                f"model input NHWC/NCHW require 3 dims for {message.name}",
                at=f"{at}.dims",
            )
        _check_tensorrt_flags(message, tensor, at)
    for index, tensor in enumerate(message.output):
        _check_tensor(message, tensor, "output", f"output[{index}]")
        _check_tensorrt_flags(message, tensor, f"output[{index}]")
    _check_batch_inputs(message)
    _check_batch_outputs(message)


def _check_tensor(message: ConfigMessage, tensor: ConfigMessage, kind: str, at: str) -> None:
    if not tensor.name:
        _fail(message, f"model {kind} must specify 'name' for {message.name}", at=at)
    prefix = f"model {kind} '{tensor.name}'"
    if tensor.data_type == 0:
        _fail(
            message, f"{prefix} must specify 'data_type' for {message.name}", at=f"{at}.data_type"
        )
    if not tensor.dims:
        _fail(message, f"{prefix} must specify 'dims' for {message.name}", at=f"{at}.dims")
    has_reshape = tensor.HasField("reshape")
    if has_reshape and not tensor.reshape.shape and message.max_batch_size == 0:
        _fail(
            message,
            f"{prefix} cannot have empty reshape for non-batching model as scalar tensors are "
            f"not supported for {message.name}",
            at=f"{at}.reshape",
        )
    rule = "must be integer >= 1, or -1 to indicate a variable-size dimension"
    if any(dim < 1 and dim != _WILDCARD for dim in tensor.dims):
        _fail(
            message,
            f"{prefix} dimension {rule} for {message.name}",
            at=f"{at}.dims",
            hint="for a scalar write dims: [ 1 ] and reshape { shape: [ ] }, with batching"
            if 0 in tensor.dims
            else None,
        )
    if not has_reshape:
        return
    shape = tensor.reshape.shape
    if any(dim < 1 and dim != _WILDCARD for dim in shape):
        _fail(
            message,
            f"{prefix} reshape dimensions {rule} for {message.name}",
            at=f"{at}.reshape.shape",
        )
    # A product per run of fixed sizes: [2, 4, -1, 6] may become [8, -1, 3, 2]. An empty
    # reshape counts as one element.
    dims_runs, shape_runs = _run_products(tensor.dims), _run_products(shape)
    both_variable = len(dims_runs) > 1 and len(shape_runs) > 1
    if both_variable and len(dims_runs) != len(shape_runs):
        _fail(
            message,
            f"{prefix} has different number of variable-size dimensions for dims and reshape for "
            f"{message.name}",
            at=f"{at}.reshape",
        )
    if dims_runs != shape_runs:
        _fail(
            message,
            f"{prefix} has different size for dims and reshape for {message.name}",
            at=f"{at}.reshape",
        )


def _run_products(dims: Sequence[int]) -> list[int]:
    """Return the element counts of the runs of ``dims`` between variable-size dimensions."""
    runs: list[list[int]] = [[]]
    for dim in dims:
        if dim == _WILDCARD:
            runs.append([])
        else:
            runs[-1].append(dim)
    return [math.prod(run) for run in runs]


def _check_tensorrt_flags(message: ConfigMessage, tensor: ConfigMessage, at: str) -> None:
    if message.platform == "tensorrt_plan":
        return
    if tensor.is_shape_tensor:
        _fail(
            message,
            f"shape tensors are only supported for TensorRT platform for {message.name}",
            at=f"{at}.is_shape_tensor",
        )
    if tensor.is_non_linear_format_io:
        _fail(
            message,
            f"Non-linear IO format is only supported for the TensorRT platform for {message.name}",
            at=f"{at}.is_non_linear_format_io",
        )


def _enum_name(message: ConfigMessage, field: str) -> str:
    number = getattr(message, field)
    value = message.DESCRIPTOR.fields_by_name[field].enum_type.values_by_number.get(number)
    return str(number) if value is None else str(value.name)


def _check_batch_inputs(message: ConfigMessage) -> None:
    input_names = {tensor.name for tensor in message.input}
    for index, item in enumerate(message.batch_input):
        at = f"batch_input[{index}]"
        if len(item.source_input) != 1:
            _fail(
                message,
                f"batch input kind '{_enum_name(item, 'kind')}' expects 1 source input, got "
                f"{len(item.source_input)} for {message.name}",
                at=f"{at}.source_input",
            )
        if item.data_type not in (_INT32, _FP32):
            _fail(
                message,
                f"batch input data type must be TYPE_INT32 or TYPE_FP32 for {message.name}",
                at=f"{at}.data_type",
            )
        for name in item.source_input:
            if name not in input_names:
                _fail(
                    message,
                    f"unknown source input name '{name}' for {message.name}",
                    at=f"{at}.source_input",
                    hint=did_you_mean(name, input_names),
                )


def _check_batch_outputs(message: ConfigMessage) -> None:
    input_names = {tensor.name for tensor in message.input}
    output_names = {tensor.name for tensor in message.output}
    for index, item in enumerate(message.batch_output):
        at = f"batch_output[{index}]"
        if len(item.source_input) != 1:
            _fail(
                message,
                f"batch output kind '{_enum_name(item, 'kind')}' expects 1 source input, got "
                f"{len(item.source_input)} for {message.name}",
                at=f"{at}.source_input",
            )
        for name in item.source_input:
            if name not in input_names:
                _fail(
                    message,
                    f"unknown source input name '{name}' for {message.name}",
                    at=f"{at}.source_input",
                    hint=did_you_mean(name, input_names),
                )
        # Once per batch output; two of them may name one output.
        seen = set()
        for name in item.target_name:
            if name not in output_names:
                _fail(
                    message,
                    f"unknown target output name '{name}' for {message.name}",
                    at=f"{at}.target_name",
                    hint=did_you_mean(name, output_names),
                )
            if name in seen:
                _fail(
                    message,
                    f"target output name '{name}' can only be specified once for {message.name}",
                    at=f"{at}.target_name",
                )
            seen.add(name)
