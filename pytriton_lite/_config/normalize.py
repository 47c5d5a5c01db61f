"""Fills in what a configuration leaves out.

Triton's order of work for one model, which the loader follows:

1. read ``config.pbtxt``, or the configuration given with the load call;
   ``validate.check_agents``
2. `deduce_backend`
3. `fill_defaults`
4. ``validate.validate_general``, which ends with the check of the name; in strict
   mode with step 8 before that
5. per version: the backend's library, or ``model.py``, is looked up
6. `resolve_instance_groups`, which also checks the groups; before it `override_instance_kind`,
   which Triton does not have
7. the model's ``auto_complete_config``; then ``autocomplete.merge_completed``,
   and steps 3 and 4 again
8. ``validate.validate_io``
9. ``model_files.check_model_files``: labels, warmup samples, first values of states
10. instances and scheduler

All functions here change the message in place, and may be called again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..errors import ConfigError, ErrorCode
from .schema import ConfigMessage
from .suggest import with_note

# Triton's own default of how long a sequence may be idle.
_SEQUENCE_IDLE_MICROSECONDS = 1_000_000


class _Framework(NamedTuple):
    """How a configuration without ``backend`` tells which one it means."""

    backend: str
    platform: str
    filename: str


# In the order in which Triton tries them.
_FRAMEWORKS = (
    _Framework("tensorflow", "tensorflow_savedmodel", "model.savedmodel"),
    _Framework("tensorflow", "tensorflow_graphdef", "model.graphdef"),
    _Framework("tensorrt", "tensorrt_plan", "model.plan"),
    _Framework("onnxruntime", "onnxruntime_onnx", "model.onnx"),
    _Framework("openvino", "", "model.xml"),
    _Framework("pytorch", "pytorch_libtorch", "model.pt"),
    _Framework("pytorch", "pytorch_libtorch", "model.pt2"),
    _Framework("python", "", "model.py"),
)


def is_ensemble(message: ConfigMessage) -> bool:
    """Tell whether the configuration is one of an ensemble, complete or not."""
    return bool(message.platform == "ensemble" or message.HasField("ensemble_scheduling"))


def deduce_backend(
    message: ConfigMessage, *, model_name: str, first_version_files: Collection[str] = ()
) -> None:
    """Set ``backend``, and what depends on it, where the configuration leaves it empty.

    Parameters
    ----------
    message
        Configuration to fill in.
    model_name
        Name of the model folder.
    first_version_files
        Names in the first sub-folder of the model folder, in lexicographic
        order; any sub-folder counts, even one that is no version.

    Raises
    ------
    ConfigError
        Nothing tells which backend is meant.
    """
    if message.backend or message.platform == "ensemble":
        return
    nothing_given = not message.platform and not message.default_model_filename
    for framework in _FRAMEWORKS:
        if (
            (framework.platform and message.platform == framework.platform)
            or message.default_model_filename == framework.filename
            or (nothing_given and framework.filename in first_version_files)
        ):
            message.backend = framework.backend
            message.platform = message.platform or framework.platform
            message.default_model_filename = message.default_model_filename or framework.filename
            return
    if not nothing_given:
        # What is given fits no backend; `validate_general` reports that.
        return
    _, dot, backend = model_name.partition(".")
    if not dot:
        raise with_note(
            ConfigError(
                "Invalid model name: Could not determine backend for model "
                f"'{model_name}' with no backend in model configuration. Expected model name of "
                "the form 'model.<backend_name>'.",
                model=model_name,
                hint='write backend: "python" into config.pbtxt, or put a model.py into the '
                "version folder",
            )
        )
    message.backend = backend
    message.default_model_filename = f"model.{backend}"


def fill_defaults(message: ConfigMessage, *, model_name: str) -> None:
    """Set the fields that have a default: everything but the instance groups.

    Called before auto-complete and after it, as a completed ``max_batch_size``
    gives preferred batch sizes.
    """
    if not message.name:
        message.name = model_name
    if not message.HasField("version_policy"):
        message.version_policy.latest.num_versions = 1
    if message.backend == "python" and not message.default_model_filename:
        message.default_model_filename = "model.py"
    if message.HasField("dynamic_batching"):
        _fill_preferred_batch_size(message.dynamic_batching, message.max_batch_size)
    if message.HasField("sequence_batching"):
        batching = message.sequence_batching
        if batching.max_sequence_idle_microseconds == 0:
            batching.max_sequence_idle_microseconds = _SEQUENCE_IDLE_MICROSECONDS
        if batching.HasField("oldest"):
            _fill_preferred_batch_size(batching.oldest, message.max_batch_size)
    if not is_ensemble(message):
        optimization = message.optimization
        optimization.SetInParent()
        if not optimization.HasField("input_pinned_memory"):
            optimization.input_pinned_memory.enable = True
        if not optimization.HasField("output_pinned_memory"):
            optimization.output_pinned_memory.enable = True


def _fill_preferred_batch_size(batching: ConfigMessage, max_batch_size: int) -> None:
    if not batching.preferred_batch_size and max_batch_size > 0:
        batching.preferred_batch_size.append(max_batch_size)


def override_instance_kind(message: ConfigMessage, kind: str, *, gpu_count: int = 0) -> None:
    """Do what the option ``instance_kind`` says, before `resolve_instance_groups`.

    Parameters
    ----------
    message
        Configuration to change. KIND_CPU and KIND_MODEL stay: neither asks for a GPU.
    kind
        ``"cpu"``: no group takes a GPU. ``"auto"``: none takes one that is not there.
    gpu_count
        GPUs that models may use, numbered from 0.
    """
    if is_ensemble(message):
        return
    if not message.instance_group and kind == "cpu" and gpu_count > 0:
        message.instance_group.add(name=message.name)
    for group in message.instance_group:
        if group.kind not in (group.KIND_GPU, group.KIND_AUTO):
            continue
        has_gpus = gpu_count > 0 and all(0 <= gpu < gpu_count for gpu in group.gpus)
        if kind == "cpu" or not has_gpus:
            group.kind = group.KIND_CPU
            group.ClearField("gpus")


def resolve_instance_groups(message: ConfigMessage, *, gpu_count: int = 0) -> None:
    """Name the instance groups, decide kind, count and GPUs, and check them.

    Parameters
    ----------
    message
        Configuration after `fill_defaults`. An ensemble is left alone.
    gpu_count
        GPUs that models may use, numbered from 0.

    Raises
    ------
    ConfigError
        A group wants GPUs that its kind does not take or that are not there,
        or is meant for TensorRT.
    """
    if is_ensemble(message):
        return
    if not message.instance_group:
        message.instance_group.add(name=message.name)
    for index, group in enumerate(message.instance_group):
        if not group.name:
            group.name = f"{message.name}_{index}"
        if group.kind == group.KIND_AUTO:
            has_gpus = gpu_count > 0 and all(0 <= gpu < gpu_count for gpu in group.gpus)
            group.kind = group.KIND_GPU if has_gpus else group.KIND_CPU
        group.count = max(group.count, 1)
        if group.kind == group.KIND_GPU and not group.gpus:
            group.gpus.extend(range(gpu_count))
    for index, group in enumerate(message.instance_group):
        _check_instance_group(message, group, gpu_count, f"instance_group[{index}]")


def _check_instance_group(
    message: ConfigMessage, group: ConfigMessage, gpu_count: int, at: str
) -> None:
    prefix = f"instance group {group.name} of model {message.name}"
    if group.kind not in group.Kind.values():
        # Triton prints any kind without a name as KIND_AUTO.
        raise ConfigError(
            f"{prefix} has unexpected kind KIND_AUTO",
            ErrorCode.INTERNAL,
            model=message.name,
            field=f"{at}.kind",
        )
    if group.kind == group.KIND_GPU:
        if not group.gpus:
            raise with_note(
                ConfigError(
                    f"{prefix} has kind KIND_GPU but no GPUs are available",
                    model=message.name,
                    field=f"{at}.kind",
                    hint="give Server(instance_kind='cpu') to run it on the CPU here, or write "
                    "kind: KIND_AUTO to take a GPU only where there is one",
                )
            )
        for gpu in group.gpus:
            if not 0 <= gpu < gpu_count:
                supported = " ".join(str(index) for index in range(gpu_count))
                raise with_note(
                    ConfigError(
                        f"{prefix} specifies invalid or unsupported gpu id {gpu}. GPUs with at "
                        "least the minimum required CUDA compute compatibility of 6.000000 are: "
                        f"{supported}",
                        model=message.name,
                        field=f"{at}.gpus",
                        hint="give Server(instance_kind='auto') to run it on the CPU where one of "
                        "its GPUs is missing",
                    )
                )
    elif group.gpus:
        kind = "KIND_MODEL" if group.kind == group.KIND_MODEL else "KIND_CPU"
        raise with_note(
            ConfigError(
                f"{prefix} has kind {kind} but specifies one or more GPUs",
                model=message.name,
                field=f"{at}.gpus",
                hint="only a group of KIND_GPU may list GPUs; if the file says KIND_AUTO, give "
                "Server(instance_kind='auto') to have them dropped where one is missing",
            )
        )
    if group.profile and message.platform != "tensorrt_plan":
        raise ConfigError(
            f"{prefix} and platform {message.platform}specifies profile field which is only "
            "supported for TensorRT models",
            model=message.name,
            field=f"{at}.profile",
        )
