"""`ModelConfig` of ``auto_complete_config``, and helpers that read a configuration dict.

Every stub process imports this module: no protobuf and no numpy here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_REQUIRED = ("name", "data_type", "dims")


class ModelConfig:
    """The configuration that ``auto_complete_config`` completes and returns.

    Parameters
    ----------
    model_config
        The configuration in Triton's JSON form.

    Notes
    -----
    Rules and texts are those of Triton 2.51. Of what the model writes, the
    server takes ``max_batch_size``, ``input``, ``output``, the scheduler and
    ``model_transaction_policy``.
    """

    def __init__(self, model_config: str) -> None:
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        """Return the live dict, not a copy."""
        return self._model_config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set ``max_batch_size``.

        Raises
        ------
        ValueError
            The configuration has a larger one.
        """
        configured = self._model_config["max_batch_size"]
        if configured > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {configured}, but in "
                f"auto-complete-config function for model '{_name_of(self._model_config)}' "
                f"specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Choose the dynamic batcher, with default settings; one that is set stays as it is.

        Raises
        ------
        ValueError
            The configuration has another scheduler.
        """
        for other in ("sequence_batching", "ensemble_scheduling"):
            if other in self._model_config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{other}', but "
                    f"auto-complete-config function for model '{_name_of(self._model_config)}' "
                    "tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._model_config.setdefault("dynamic_batching", {})

    def add_input(self, input: dict[str, Any]) -> None:
        """Add an input, or fill in what the configuration leaves out of it.

        Parameters
        ----------
        input
            ``name``, ``data_type`` (such as ``"TYPE_FP32"``), ``dims``, and
            optionally ``optional``.

        Raises
        ------
        ValueError
            A key is missing or unknown, or the configuration says otherwise.
        KeyError
            A key is unknown and there is no name to report it with, as in Triton.
        """
        _check_keys(self._model_config, input, "input", (*_REQUIRED, "optional"))
        _merge_tensor(self._model_config, input, "input")

    def add_output(self, output: dict[str, Any]) -> None:
        """Add an output, or fill in what the configuration leaves out of it.

        Parameters
        ----------
        output
            ``name``, ``data_type`` (such as ``"TYPE_FP32"``) and ``dims``.

        Raises
        ------
        ValueError
            A key is missing or unknown, or the configuration says otherwise.
        KeyError
            A key is unknown and there is no name to report it with, as in Triton.
        """
        _check_keys(self._model_config, output, "output", _REQUIRED)
        _merge_tensor(self._model_config, output, "output")

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """Declare whether the model is decoupled.

        Parameters
        ----------
        transaction_policy_dict
            ``{"decoupled": True}`` or ``{"decoupled": False}``.

        Raises
        ------
        ValueError
            There is another key, or the configuration has another value.
        """
        policy = self._model_config.setdefault("model_transaction_policy", {})
        for key, value in transaction_policy_dict.items():
            if key != "decoupled":
                raise ValueError(
                    "model transaction property in auto-complete-config function for model "
                    f"'{_name_of(self._model_config)}' contains property other than 'decoupled'."
                )
            if policy.get(key, value) != value:
                raise ValueError(
                    "trying to change decoupled property in auto-complete-config for model "
                    f"'{_name_of(self._model_config)}', which is already set to '{policy[key]}'."
                )
            policy[key] = value


def _name_of(config: dict[str, Any]) -> str:
    return str(config["name"])


def _check_keys(
    config: dict[str, Any], tensor: Mapping[str, Any], kind: str, allowed: tuple[str, ...]
) -> None:
    where = f"in auto-complete-config function for model '{_name_of(config)}'"
    for key in tensor:
        if key not in allowed:
            listed = ", ".join(f"'{name}'" for name in allowed[:-1])
            raise ValueError(
                f"{kind} '{tensor['name']}' {where} contains property other than "
                f"{listed} and '{allowed[-1]}'."
            )
    if "name" not in tensor:
        raise ValueError(f"{kind} {where} is missing 'name' property.")
    for key in _REQUIRED:
        if key not in tensor:
            raise ValueError(f"{kind} '{tensor['name']}' {where} is missing '{key}' property.")


def _merge_tensor(config: dict[str, Any], tensor: dict[str, Any], kind: str) -> None:
    for current in config[kind]:
        if current["name"] == tensor["name"]:
            _fill_tensor(config, current, tensor, kind)
            return
    config[kind].append(tensor)


def _fill_tensor(
    config: dict[str, Any], current: dict[str, Any], tensor: dict[str, Any], kind: str
) -> None:
    name = tensor["name"]
    old, new = current["data_type"], tensor["data_type"]
    if old not in ("TYPE_INVALID", new):
        raise ValueError(
            f"unable to load model '{_name_of(config)}', configuration expects datatype {old} for "
            f"{kind} '{name}', model provides {new}"
        )
    current["data_type"] = new
    if current["dims"] and current["dims"] != tensor["dims"]:
        raise ValueError(
            f"model '{_name_of(config)}', tensor '{name}': the model expects dims {tensor['dims']} "
            f"but the model configuration specifies dims {current['dims']}"
        )
    current["dims"] = tensor["dims"]
    if "optional" in tensor:
        if current.get("optional", tensor["optional"]) != tensor["optional"]:
            raise ValueError(
                f"model '{_name_of(config)}', tensor '{name}': the model expects optional "
                f"{tensor['optional']} but the model configuration specifies optional "
                f"{current['optional']}"
            )
        current["optional"] = tensor["optional"]


# Model code sees it as a class of Triton's module.
ModelConfig.__module__ = "triton_python_backend_utils"


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the first input of that name in a configuration dict, or None."""
    return _tensor_by_name(model_config, "input", name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the first output of that name in a configuration dict, or None."""
    return _tensor_by_name(model_config, "output", name)


def _tensor_by_name(model_config: Mapping[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    for tensor in model_config.get(kind, ()):
        if tensor["name"] == name:
            found: dict[str, Any] = tensor
            return found
    return None


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Tell whether a configuration dict is that of a decoupled model.

    Raises
    ------
    KeyError
        There is a transaction policy without ``decoupled``.
    """
    if "model_transaction_policy" not in model_config:
        return False
    return bool(model_config["model_transaction_policy"]["decoupled"])
