"""Takes over what a model's ``auto_complete_config`` returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._dtypes import BY_CONFIG_NAME
from ..errors import ConfigError
from .json_form import from_json
from .model_config import scheduler_name
from .schema import ConfigMessage
from .suggest import did_you_mean

_SCHEDULERS = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
_TAKEN = ("max_batch_size", "input", "output", "model_transaction_policy", *_SCHEDULERS)


def merge_completed(message: ConfigMessage, completed: Mapping[str, Any]) -> ConfigMessage:
    """Return a copy of ``message`` with what the model completed.

    Parameters
    ----------
    message
        Configuration that the model was given.
    completed
        The dict of the ``pb_utils.ModelConfig`` that the model returned. Only
        ``max_batch_size``, ``input``, ``output``, the scheduler (when the
        configuration had none) and ``model_transaction_policy`` are taken, all
        else is dropped without a word, as Triton does.

    Returns
    -------
    google.protobuf.message.Message
        The merged configuration. It wants ``fill_defaults`` and both
        validations again.

    Raises
    ------
    ConfigError
        The schedulers differ, or what is taken does not fit the schema.

    Notes
    -----
    Triton 2.51 drops the whole completion when one value does not fit, for
    example a ``data_type`` of ``FLOAT``, or when the schedulers differ, and
    the model then loads without what it completed. Here both are errors, and
    the former names the tensor.
    """
    taken = {key: completed[key] for key in _TAKEN if key in completed}
    model = message.name
    for kind in ("input", "output"):
        tensors = taken.get(kind)
        for tensor in tensors if isinstance(tensors, list | tuple) else [tensors]:
            _check_data_type(tensor, kind, model)
    part = from_json(
        taken,
        model=model,
        context=f"auto_complete_config of model '{model}' returned an invalid configuration",
    )
    current, proposed = scheduler_name(message), scheduler_name(part)
    if current is not None and proposed is not None and current != proposed:
        raise ConfigError(
            f"Cannot update scheduling choice from {current} to {proposed} when auto-completing.",
            model=model,
        )
    merged = type(message)()
    merged.CopyFrom(message)
    merged.max_batch_size = part.max_batch_size
    for kind in ("input", "output"):
        merged.ClearField(kind)
        getattr(merged, kind).extend(getattr(part, kind))
    if current is None and proposed is not None:
        getattr(merged, proposed).CopyFrom(getattr(part, proposed))
    if part.HasField("model_transaction_policy"):
        merged.model_transaction_policy.CopyFrom(part.model_transaction_policy)
    return merged


def _check_data_type(tensor: object, kind: str, model: str) -> None:
    """Refuse a data type that is no name of Triton's, with the tensor's name in the text."""
    data_type = tensor.get("data_type") if isinstance(tensor, Mapping) else None
    # Numbers are checked with the rest; TYPE_INVALID stands for "not given yet".
    if not isinstance(tensor, Mapping) or not isinstance(data_type, str):
        return
    known = [*BY_CONFIG_NAME, "TYPE_INVALID"]
    if data_type.upper().replace("-", "_") in known or data_type.isdecimal():
        return
    hint = did_you_mean(data_type, BY_CONFIG_NAME)
    raise ConfigError(
        f"auto_complete_config of model '{model}' gives {kind} '{tensor.get('name', '')}' the "
        f"unknown data_type '{data_type}'" + ("" if hint is None else f", {hint}"),
        model=model,
        hint=hint,
    )
