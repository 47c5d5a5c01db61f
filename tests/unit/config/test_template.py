"""``${name}`` in configuration files, and the option that fills it in."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

import pytest

from pytriton_lite._config.pbtxt import parse_pbtxt, place_error
from pytriton_lite._config.template import ConfigText, fill_template, values_of
from pytriton_lite._options import Options
from pytriton_lite.errors import ConfigError, InvalidArgumentError

# A short form of what public repositories for large language models have.
TEMPLATE = """\
# ${comment} is none
name: "gen"
backend: "${backend}"
max_batch_size: ${max_batch_size}
model_transaction_policy { decoupled: ${decoupled} }
dynamic_batching {
    preferred_batch_size: ${sizes}
    max_queue_delay_microseconds: ${delay}
}
output [ { name: "logits" data_type: ${type} dims: [ -1, ${width} ] } ]
parameters { key: "model_path" value: { string_value: "${path}/engine" } }
parameters { key: 'ids' value: { string_value: '${sizes}' } }
parameters { key: "fraction" value: { string_value: "${fraction}" } }
parameters { key: "eager" value: { string_value: "${decoupled}" } }
parameters { key: "unset" value: { string_value: "${unset}" } }
parameters { key: "env" value: { string_value: "$$TRITON_MODEL_DIRECTORY/${a.b}/$path/$" } }
"""
VALUES: dict[str, Any] = {
    "backend": "python",
    "max_batch_size": 8,
    "decoupled": True,
    "sizes": [2, 4],
    "delay": 0,
    "type": "TYPE_FP32",
    "width": 128,
    "path": PurePosixPath("/models"),
    "fraction": 0.9,
    "unset": None,
}


def test_filled() -> None:
    message = parse_pbtxt(fill_template(TEMPLATE, VALUES))
    assert (message.backend, message.max_batch_size) == ("python", 8)
    assert message.model_transaction_policy.decoupled
    assert list(message.dynamic_batching.preferred_batch_size) == [2, 4]
    assert message.output[0].data_type == 11  # TYPE_FP32
    assert list(message.output[0].dims) == [-1, 128]
    assert {key: value.string_value for key, value in message.parameters.items()} == {
        "model_path": "/models/engine",
        "ids": "2,4",
        "fraction": "0.9",
        "eager": "true",
        "unset": "${unset}",
        # Neither Triton's own marker nor what is no name is touched.
        "env": "$$TRITON_MODEL_DIRECTORY/${a.b}/$path/$",
    }


@pytest.mark.parametrize("text", ["a \"b\" 'c' \\ # d", "two\nlines\t\r", "é😀", "${width}", ""])
@pytest.mark.parametrize("quote", "'\"")
def test_any_text_fits_into_a_string(text: str, quote: str) -> None:
    source = f"name: {quote}<${{x}}>{quote} max_batch_size: 1"
    message = parse_pbtxt(fill_template(source, {"x": text}))
    assert (message.name, message.max_batch_size) == (f"<{text}>", 1)


def test_numbers() -> None:
    source = "sequence_batching { direct { minimum_slot_utilization: ${x} } }"
    for value in (0.1, 1, -0.0, 1e-30, math.inf, False):
        if value is False:
            with pytest.raises(ConfigError, match="Expected double, got: false"):
                parse_pbtxt(fill_template(source, {"x": value}))
            continue
        found = parse_pbtxt(fill_template(source, {"x": value}))
        assert found.sequence_batching.direct.minimum_slot_utilization == pytest.approx(value)


def test_names_without_a_value() -> None:
    values = {"max_batchsize": 8, "backend": "python"}
    source = 'backend: "${backend}"\nmax_batch_size: ${max_batch_size}\n# ${none}\nname: "${who}"'
    with pytest.raises(ConfigError) as caught:
        fill_template(source, values, file="repo/m/config.pbtxt", model="m")
    error = caught.value
    assert str(error) == (
        "failed to read text proto from repo/m/config.pbtxt: no value for '${max_batch_size}' "
        "(2:17), '${who}' (4:8) in `substitute`"
    )
    assert (error.file, error.line, error.column) == ("repo/m/config.pbtxt", 2, 17)
    assert error.hint == "`substitute` has 'max_batchsize', the file wants 'max_batch_size'"
    assert error.__notes__ == [error.hint]
    with pytest.raises(ConfigError) as caught:
        fill_template(source, {"backend": "x", "zzzz": 1})
    assert caught.value.hint == (
        "give Server(substitute={'max_batch_size': ..., 'who': ...}); with None '${...}' stays "
        "as it is"
    )


def test_template_without_the_option() -> None:
    source = 'name: "${who}"\nmax_batch_size: ${size}'
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt(source)
    assert str(caught.value) == "failed to read text proto: 2:17: Expected integer, got: $"
    assert caught.value.hint == (
        "the file is a template; give Server(substitute={'who': ..., 'size': ...})"
    )
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt("max_batch_size: ${a b}")
    assert caught.value.hint == "'${...}' is no value"


@pytest.mark.parametrize(
    ("source", "values", "line", "column"),
    [
        ('name: "${long}" max_batch_size: "x"', {"long": "y" * 50}, 1, 33),
        ('name: "${long}"\nmax_batch_size: "x"', {"long": "y"}, 2, 17),
        ("max_batch_size: ${x} name: 1", {"x": "12345678901"}, 1, 17),
        ("max_batch_size: ${x} name: 1", {"x": 7}, 1, 28),
        ('${x} name: "m"\nnope: 1', {"x": 'backend: "a"\n\n\n# more\n'}, 2, 1),
    ],
)
def test_errors_are_placed_in_the_file(
    source: str, values: dict[str, Any], line: int, column: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt(fill_template(source, values))
    assert (caught.value.line, caught.value.column) == (line, column)


def test_fields_are_placed_in_the_file() -> None:
    source = 'name: "${x}" input { name: "A" dims: [ ${x}, 0 ] }'
    text = fill_template(source, {"x": 123456}, file="f")
    error = ConfigError("x", field="input[0].dims[1]")
    place_error(error, text)
    assert (error.file, error.line, error.column) == ("f", 1, source.index("0 ]") + 1)


def test_names_within() -> None:
    text = fill_template("a ${x} b '${y}${x}' c", {"x": 1, "y": 2})
    assert text.text == "a 1 b '21' c"
    assert text.names_within(0, 6) == ["x"]
    assert text.names_within(6, 12) == ["y", "x"]
    assert ConfigText("a", "a", None).names_within(0, 1) == []


def test_scopes() -> None:
    substitute = {"a": 1, "b": 1, "c": 1, "*": {"b": 2, "c": 2}, "m": {"c": 3}, "n": {"d": 4}}
    assert values_of(substitute, "m") == {"a": 1, "b": 2, "c": 3}
    assert values_of(substitute, "n") == {"a": 1, "b": 2, "c": 2, "d": 4}


@pytest.mark.parametrize("value", [object(), {"a": {"b": 1}}, [[1]], [None], b"x", {1}])
def test_wrong_values(value: object) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^substitute\['x'\]"):
        Options(model_repository="r", substitute={"x": value})  # type: ignore[dict-item]
