"""``config.pbtxt``: what parses, what does not, and where and why."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from pytriton_lite._config.pbtxt import format_pbtxt, parse_pbtxt
from pytriton_lite.errors import ConfigError, InvalidArgumentError

# [text, reason of Triton 2.51's parser or null]: recorded from its log, without the place.
RECORDED = json.loads(
    Path(__file__).with_name("data").joinpath("pbtxt_errors_triton_2_51.json").read_text("utf-8")
)


@pytest.mark.parametrize(("text", "reason"), RECORDED)
def test_accepts_and_refuses_as_triton_does(text: str, reason: str | None) -> None:
    if reason is None:
        parse_pbtxt(text)
        return
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt(text)
    error = caught.value
    assert error.message == f"failed to read text proto: {error.line}:{error.column}: {reason}"


@pytest.mark.parametrize(
    ("text", "line", "column", "hint"),
    [
        ("max_batchsize: 4", 1, 1, "did you mean 'max_batch_size'?"),
        ('backend: "python"\n\n  inputs [ ]', 3, 3, "did you mean 'input'?"),
        ("input { data_type: TYPE_FLOAT }", 1, 20, "did you mean 'TYPE_FP32'?"),
        ("input { data_type: FP32 }", 1, 20, "did you mean 'TYPE_FP32'?"),
        ("input { data_type: TYPE_INT }", 1, 20, "did you mean 'TYPE_INT32'?"),
        ("input { data_type: BYTES }", 1, 20, "did you mean 'TYPE_STRING'?"),
        ("instance_group { kind: CPU }", 1, 24, "did you mean 'KIND_CPU'?"),
        ('input { data_type: "TYPE_FP32" }', 1, 20, "write the name without quotes"),
        ('max_batch_size: "4"', 1, 17, "write the number without quotes"),
        ("name: python", 1, 7, "put the value in quotes"),
        ("input { optional: yes }", 1, 19, "write true or false"),
        ("dims: [ 1 ]", 1, 1, "'dims' is a field of ModelInput, ModelOutput; check the braces"),
        ("input [ { }", 1, 12, "a list wants ',' between its elements and ']' last"),
        ("input {", 1, 8, "a '}' or ']' is missing"),
        ('name: "a', 1, 7, "the closing quote is missing"),
        ("max_batch_size: 99999999999", 1, 17, "the range is -2147483648 to 2147483647"),
        ("zzz: 1", 1, 1, None),
        ("max_batch_size = 4", 1, 16, "a field and its value are not joined by '=' but by ':'"),
        ("input = { }", 1, 7, "a field and its value are not joined by '=' but by ':'"),
        ("input { dims: 1 2 }", 1, 17, "a list is written in brackets, as in [ 1, 2 ]"),
        ("input { dims: -1, -1 }", 1, 19, "a list is written in brackets, as in [ -1, 2 ]"),
        ("input { dims: [ None ] }", 1, 17, "a dimension of any size is written -1"),
        ("max_batch_size: None", 1, 17, None),
        (
            '{ "name": "m" }',
            1,
            1,
            "the name of a field belongs before the brace; this is no JSON",
        ),
        ('"name": "m"', 1, 1, "the name of a field is written without quotes"),
        ("input { } }", 1, 11, "there is a '}' more than there should be"),
        ("max_batch_size: 4 // more", 1, 19, "a comment begins with '#'"),
        (
            'parameters { key: "a" value: "b" }',
            1,
            30,
            "a message is written in braces, as in { string_value: ... }",
        ),
        (
            "dynamic_batching { } sequence_batching { }",
            1,
            22,
            "at most one of 'dynamic_batching', 'sequence_batching', 'ensemble_scheduling' may be "
            "there",
        ),
        ("# 1\n# 2\nname:\n  5\n", 4, 3, "put the value in quotes"),
    ],
)
def test_place_and_hint(text: str, line: int, column: int, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt(text)
    assert (caught.value.line, caught.value.column, caught.value.hint) == (line, column, hint)
    assert getattr(caught.value, "__notes__", []) == ([] if hint is None else [hint])


def test_error_names_file_and_model() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        parse_pbtxt("x", file="repo/m/config.pbtxt", model="m")
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == (
        "failed to read text proto from repo/m/config.pbtxt: 1:1: "
        'Message type "inference.ModelConfig" has no field named "x".'
    )
    assert (error.file, error.model, error.line) == ("repo/m/config.pbtxt", "m", 1)


def test_first_error_in_reading_order_wins() -> None:
    # The quote opens a string that never ends, but the parser gives up before it.
    with pytest.raises(ConfigError, match="Expected identifier, got: /"):
        parse_pbtxt("/* this isn't a comment */")


def test_byte_order_mark() -> None:
    # Triton 2.51 refuses it too.
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt('\ufeffbackend: "python"')
    assert "byte order mark" in str(caught.value.hint)


def test_string_that_is_not_utf8() -> None:
    # Stricter than Triton 2.51, which takes it and breaks on it later.
    with pytest.raises(ConfigError, match=r"String is not valid UTF-8"):
        parse_pbtxt(r'name: "\xff"')


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"a\tb\n\\\"\'\?\a\b\f\r\v"', "a\tb\n\\\"'?\a\b\f\r\v"),
        (r'"\101\x42\0"', "AB\0"),
        (r'"\342\202\254 \u20ac \U0001F600 \ud83d\ude00"', "€ € 😀 😀"),
        ("'single \"quoted\"'", 'single "quoted"'),
        ('"in " \'two\' # parts\n " lines"', "in two lines"),
        ('"# no comment"', "# no comment"),
        (r'"\\u0041"', r"\u0041"),
        ('"日本"', "日本"),
    ],
)
def test_strings(literal: str, value: str) -> None:
    assert parse_pbtxt(f"name: {literal}").name == value


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1", 1.0),
        ("-1.5e3", -1500.0),
        ("2f", 2.0),
        ("- 0.25F", -0.25),
        ("inf", float("inf")),
        ("-Infinity", float("-inf")),
    ],
)
def test_floats(literal: str, value: float) -> None:
    text = f"sequence_batching {{ direct {{ minimum_slot_utilization: {literal} }} }}"
    assert parse_pbtxt(text).sequence_batching.direct.minimum_slot_utilization == value


@pytest.mark.parametrize(
    "text",
    [
        "input { dims: [1, 2, -1] }",
        "input { dims: 1 dims: 2 dims: -1 }",
        "input: { dims: [1], dims: [2]; dims: [- 1], };",
        "input < dims: [0x1, 02] dims: -1 >",
        "input [ { dims: [1,2,-1] } ]",
        "input: [{ dims: [1,2] dims: [] dims:-1 }]",
    ],
)
def test_spellings_of_one_list(text: str) -> None:
    assert list(parse_pbtxt(text).input[0].dims) == [1, 2, -1]


def test_last_of_equal_map_keys_wins() -> None:
    message = parse_pbtxt(
        'parameters { key: "a" value { string_value: "1" } }'
        'parameters [ { key: "a" value: { string_value: "2" } }, { key: "b" } ]'
        'metric_tags { key: "t" value: "x" } metric_tags { key: "t" value: "y" }'
    )
    assert {key: message.parameters[key].string_value for key in message.parameters} == {
        "a": "2",
        "b": "",
    }
    assert dict(message.metric_tags) == {"t": "y"}


def test_empty_text_is_an_empty_message() -> None:
    assert parse_pbtxt("") == parse_pbtxt(" # nothing\n")
    assert format_pbtxt(parse_pbtxt("")) == ""


def test_newer_fields() -> None:
    # Triton 2.51 does not know them, 2.73 does.
    message = parse_pbtxt(
        "ensemble_scheduling { max_inflight_requests: 3 } model_metrics { metric_control [ {"
        ' metric_identifier { family: "f" } histogram_options { buckets: [0.1, 1, 10] } } ] }'
    )
    assert message.ensemble_scheduling.max_inflight_requests == 3
    assert list(message.model_metrics.metric_control[0].histogram_options.buckets) == [0.1, 1, 10]
