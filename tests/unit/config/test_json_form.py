"""The JSON form: as Triton prints it, and what is read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytriton_lite._config.json_form import from_json, to_dict, to_json
from pytriton_lite._config.normalize import deduce_backend, fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import format_pbtxt, parse_pbtxt
from pytriton_lite._config.schema import model_config_class
from pytriton_lite._config.validate import validate_general, validate_io
from pytriton_lite.errors import ConfigError

DATA = Path(__file__).with_name("data")
# {name, pbtxt, json}: answers of `GET /v2/models/<name>/config`, recorded from Triton 2.51
# without GPUs, for a `model.py` that has nothing but `execute`.
RECORDED = json.loads(DATA.joinpath("config_json_triton_2_51.json").read_text("utf-8"))
# {config, error, json}: the same for configurations given with a load call.
OVERRIDES = json.loads(DATA.joinpath("config_override_triton_2_51.json").read_text("utf-8"))

MAPS = ("cc_model_filenames", "metric_tags", "parameters", "priority_queue_policy", "inputs")


def _with_sorted_maps(value: Any, key: str = "") -> Any:
    """Sort what Triton prints in hash order; all else keeps its order."""
    if isinstance(value, dict):
        # `input` is a map only inside `cuda.graph_spec`, where it is an object.
        items = sorted(value.items()) if key in (*MAPS, "input") else value.items()
        return {name: _with_sorted_maps(item, name) for name, item in items}
    if isinstance(value, list):
        return [_with_sorted_maps(item) for item in value]
    return value


def _loaded(message: Any, name: str) -> Any:
    deduce_backend(message, model_name=name, first_version_files=["model.py"])
    fill_defaults(message, model_name=name)
    validate_general(message, model_name=name)
    resolve_instance_groups(message)
    validate_io(message)
    return message


@pytest.mark.parametrize("case", RECORDED, ids=[case["name"] for case in RECORDED])
def test_recorded_from_triton(case: dict[str, str]) -> None:
    message = _loaded(parse_pbtxt(case["pbtxt"], model=case["name"]), case["name"])
    wanted = _with_sorted_maps(json.loads(case["json"]))
    assert to_dict(message) == wanted
    # Order of keys and spelling of numbers too.
    if wanted == json.loads(case["json"]) and list(_keys(wanted)) == list(
        _keys(json.loads(case["json"]))
    ):
        assert to_json(message) == case["json"]
    else:
        assert list(_keys(json.loads(to_json(message)))) == list(_keys(wanted))
    # The text forms lose nothing, but for the sign of -0.0. (NaN is never equal to itself.)
    if "NaN" not in case["json"] and "-0.0" not in case["pbtxt"]:
        assert parse_pbtxt(format_pbtxt(message)) == message
        assert from_json(to_json(message)) == message
    assert to_json(from_json(case["json"])) == to_json(message)


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in value:
            yield from _keys(item)


def test_enough_was_recorded() -> None:
    exact = [
        case
        for case in RECORDED
        if to_json(_loaded(parse_pbtxt(case["pbtxt"]), case["name"])) == case["json"]
    ]
    assert len(RECORDED) >= 70
    assert len(exact) >= 60


@pytest.mark.parametrize("case", OVERRIDES, ids=[case["config"] for case in OVERRIDES])
def test_recorded_overrides(case: dict[str, Any]) -> None:
    if case["error"] is None:
        assert to_json(_loaded(from_json(case["config"]), "m")) == case["json"]
        return
    with pytest.raises(ConfigError) as caught:
        _loaded(from_json(case["config"]), "m")
    assert caught.value.message == case["error"]


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ({"max_batchsize": 1}, "did you mean 'max_batch_size'?"),
        ({"input": [{"data_type": "TYPE_FLOAT"}]}, "did you mean 'TYPE_FP32'?"),
        ({"input": [{"data_type": "INT64"}]}, "did you mean 'TYPE_INT64'?"),
        ({"name": 5}, None),
    ],
)
def test_hints(source: dict[str, Any], hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json(source, model="m")
    assert (caught.value.hint, caught.value.model) == (hint, "m")


@pytest.mark.parametrize("text", ["", '{"name"', "{'max_batch_size': 1}", '{"max_batch_size": 1,}'])
def test_text_that_is_no_json(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^Invalid config override: "):
        from_json(text)


def test_context_of_errors() -> None:
    with pytest.raises(ConfigError, match=r"^here: nope: Cannot find field\.$"):
        from_json({"nope": 1}, context="here")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (-2.0, "-2"),
        (1e20, "100000000000000000000.0"),
        (1e21, "1e21"),
        (1.5e21, "1.5e21"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (123.456, "123.456"),
        (1e9, "1000000000"),
        (1 / 3, "0.3333333333333333"),
    ],
)
def test_doubles(value: float, text: str) -> None:
    message = model_config_class()()
    control = message.model_metrics.metric_control.add()
    control.histogram_options.buckets.append(value)
    assert f'"buckets":[{text}]' in to_json(message)


def test_strings_are_escaped_as_triton_does() -> None:
    message = model_config_class()(name='\x0b\x1f"\\u001f/<é\u2028')
    assert to_json(message).startswith(r'{"name":"\u000B\u001F\"\\u001f/<é' + "\u2028" + '",')


# --- text -> message -> JSON -> message ---

_NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_INT32 = st.integers(-(2**31), 2**31 - 1)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_UINT64 = st.integers(0, 2**64 - 1)


@st.composite
def _messages(draw: st.DrawFn) -> Any:
    message = model_config_class()(
        name=draw(_NAMES), backend=draw(_NAMES), max_batch_size=draw(_INT32)
    )
    for _ in range(draw(st.integers(0, 2))):
        tensor = message.input.add(
            name=draw(_NAMES),
            data_type=draw(st.integers(0, 20)),
            dims=draw(st.lists(_INT64, max_size=3)),
            optional=draw(st.booleans()),
        )
        if draw(st.booleans()):
            tensor.reshape.shape.extend(draw(st.lists(_INT64, max_size=3)))
            tensor.reshape.SetInParent()
    for key, value in draw(st.dictionaries(_NAMES, _NAMES, max_size=3)).items():
        message.parameters[key].string_value = value
    match draw(st.sampled_from(["none", "dynamic", "sequence"])):
        case "dynamic":
            batching = message.dynamic_batching
            batching.SetInParent()
            batching.max_queue_delay_microseconds = draw(_UINT64)
            for level in draw(st.lists(_UINT64, max_size=3)):
                batching.priority_queue_policy[level].default_timeout_microseconds = draw(_UINT64)
        case "sequence":
            message.sequence_batching.direct.minimum_slot_utilization = draw(
                # Triton prints -0.0 as 0.
                st.floats(width=32, allow_nan=False).map(lambda value: value + 0.0)
            )
            state = message.sequence_batching.state.add(dims=draw(st.lists(_INT64, max_size=2)))
            initial = state.initial_state.add(dims=draw(st.lists(_INT64, max_size=2)))
            if draw(st.booleans()):
                initial.zero_data = draw(st.booleans())
    return message


@settings(max_examples=150, deadline=None)
@given(_messages())
def test_forms_lose_nothing(message: Any) -> None:
    assert parse_pbtxt(format_pbtxt(message)) == message
    text = to_json(message)
    assert json.loads(text) == to_dict(message)
    assert from_json(text) == message
    assert from_json(to_dict(message)) == message
    assert to_json(from_json(text)) == text
