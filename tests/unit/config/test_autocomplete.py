"""`auto_complete_config`: the wrapper's rules and what the server takes over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytriton_lite._config.autocomplete import merge_completed
from pytriton_lite._config.json_form import to_dict, to_json
from pytriton_lite._config.normalize import fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite._config.validate import validate_general, validate_io
from pytriton_lite.errors import ConfigError
from pytriton_lite.pb_utils.config import ModelConfig

# {name, pbtxt, body, json, error}: `body` is what a model's `auto_complete_config(c)` does before
# it returns `c`; `json` the configuration that Triton 2.51 then serves, `error` the reason why it
# does not (with the status word, without the traceback).
RECORDED = json.loads(
    Path(__file__).with_name("data").joinpath("autocomplete_triton_2_51.json").read_text("utf-8")
)


def _complete(name: str, pbtxt: str, body: str) -> Any:
    message = parse_pbtxt(pbtxt)
    fill_defaults(message, model_name=name)
    validate_general(message, model_name=name)
    resolve_instance_groups(message)
    config = ModelConfig(to_json(message))
    exec(body, {"c": config})
    before = to_dict(message)
    merged = merge_completed(message, config.as_dict())
    assert to_dict(message) == before
    fill_defaults(merged, model_name=name)
    validate_general(merged, model_name=name)
    validate_io(merged)
    return merged


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
def test_recorded_from_triton(case: dict[str, str]) -> None:
    arguments = case["name"], case["pbtxt"], case["body"]
    if case["error"] is None:
        assert to_json(_complete(*arguments)) == case["json"]
        return
    with pytest.raises((ValueError, KeyError)) as caught:
        _complete(*arguments)
    if isinstance(caught.value, ConfigError):
        assert case["error"] == f"Invalid argument: {caught.value.message}"
    else:
        assert case["error"] == f"Internal: {type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("data_type", "nearest"),
    [
        ("FLOAT", "TYPE_FP32"),
        ("FP32", "TYPE_FP32"),
        ("TYPE_FLOAT64", "TYPE_FP64"),
        ("int64", "TYPE_INT64"),
        ("TYPE_UNIT8", "TYPE_UINT8"),
    ],
)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_unknown_data_type_is_an_error(kind: str, data_type: str, nearest: str) -> None:
    # Triton 2.51 drops the completion without a word and loads the model.
    body = f'c.add_{kind}({{"name": "A", "data_type": "{data_type}", "dims": [1]}})'
    with pytest.raises(ConfigError) as caught:
        _complete("m", 'backend: "python"', body)
    assert caught.value.message == (
        f"auto_complete_config of model 'm' gives {kind} 'A' the unknown data_type '{data_type}', "
        f"did you mean '{nearest}'?"
    )
    assert caught.value.hint == f"did you mean '{nearest}'?"
    assert caught.value.model == "m"


def test_data_type_without_a_likeness() -> None:
    body = 'c.add_input({"name": "A", "data_type": "qqq", "dims": [1]})'
    with pytest.raises(ConfigError, match=r"unknown data_type 'qqq'$"):
        _complete("m", 'backend: "python"', body)


def test_other_scheduler_is_an_error() -> None:
    # Triton 2.51 drops the completion here too.
    body = 'd = c.as_dict(); del d["dynamic_batching"]; d["sequence_batching"] = {}'
    with pytest.raises(ConfigError) as caught:
        _complete("m", 'backend: "python" dynamic_batching { }', body)
    assert caught.value.message == (
        "Cannot update scheduling choice from dynamic_batching to sequence_batching when "
        "auto-completing."
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('c.as_dict()["max_batch_size"] = "x"', '(max_batch_size): invalid value "x"'),
        ('c.as_dict()["input"] = 5', "(input): invalid value 5"),
        ('c.as_dict()["output"] = ["x"]', '(output[0]): invalid value "x"'),
        ('c.as_dict()["input"] = [{"name": object}]', "(input[0].name): invalid value"),
    ],
)
def test_nonsense_is_an_error(body: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _complete("m", 'backend: "python"', body)
    assert caught.value.message.startswith(
        f"auto_complete_config of model 'm' returned an invalid configuration: {reason}"
    )
