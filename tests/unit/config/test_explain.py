"""Where the values of a configuration came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytriton_lite._config.explain import ConfigHistory, ConfigOrigin, ConfigStep
from pytriton_lite._config.json_form import from_json, to_dict, to_json
from pytriton_lite._config.pbtxt import locate
from pytriton_lite._loading import prepare_config, read_config

from .pipeline import write_model
from .random_configs import FILES, random_config

WRITTEN = """\
backend: "python"
max_batch_size: 0
input [
  { name: "A" data_type: TYPE_FP32 dims: [ 1, 2 ] },
  { name: "B" data_type: TYPE_INT8 dims: 1 dims: ${n} }
]
version_policy { all { } }
parameters { key: "a.b" value { string_value: "${n}-${m}" } }
parameters { key: "c" value { } }
metric_tags { key: "k" value: "v" }
dynamic_batching { priority_levels: 2 default_priority_level: 1
  priority_queue_policy { key: 1 value { max_queue_size: 3 } } }
"""


@pytest.fixture
def written(tmp_path: Path) -> ConfigHistory:
    write_model(tmp_path / "M", WRITTEN, FILES)
    folder = str(tmp_path / "M")
    message, history = read_config("M", folder, strict=False, values={"n": 7, "m": "x"})
    prepare_config(message, "M", folder, history=history)
    return history


# Places are counted by hand.
FROM_FILE = {
    "backend": ("python", 1, 10, ""),
    "max_batch_size": (0, 2, 17, ""),
    "input[0].name": ("A", 4, 11, ""),
    "input[0].data_type": ("TYPE_FP32", 4, 26, ""),
    "input[0].dims": ([1, 2], 4, 44, ""),
    "input[1].name": ("B", 5, 11, ""),
    "input[1].data_type": ("TYPE_INT8", 5, 26, ""),
    "input[1].dims": ([1, 7], 5, 42, "substitute n"),
    "version_policy.all": ({}, 7, 22, ""),
    'parameters["a.b"].string_value': ("7-x", 8, 47, "substitute n, m"),
    'metric_tags["k"]': ("v", 10, 31, ""),
    "dynamic_batching.priority_levels": (2, 11, 37, ""),
    "dynamic_batching.default_priority_level": (1, 11, 63, ""),
    'dynamic_batching.priority_queue_policy["1"].max_queue_size': (3, 12, 58, ""),
}


def test_file(written: ConfigHistory, tmp_path: Path) -> None:
    found = written.explain("m")
    assert {
        value.path: (value.value, value.line, value.column, value.detail)
        for value in found.by_origin(ConfigOrigin.FILE)
    } == FROM_FILE
    assert {value.file for value in found.by_origin(ConfigOrigin.FILE)} == {
        str(tmp_path / "M" / "config.pbtxt")
    }


def test_the_rest_is_deduced_or_a_default(written: ConfigHistory) -> None:
    found = written.explain("m")
    assert [value.path for value in found.by_origin(ConfigOrigin.DEDUCED)] == ["name"]
    assert found["name"].value == "M"
    defaults = {value.path: value.value for value in found.by_origin(ConfigOrigin.DEFAULT)}
    assert len(found) == len(FROM_FILE) + 1 + len(defaults)
    assert defaults["default_model_filename"] == "model.py"
    assert defaults["optimization.input_pinned_memory.enable"] is True
    assert defaults["input[0].format"] == "FORMAT_NONE"
    assert defaults['parameters["c"].string_value'] == ""


def test_table(written: ConfigHistory) -> None:
    lines = str(written.explain("model 'M' version 1")).splitlines()
    assert lines[0] == "model 'M' version 1"
    assert [line.split() for line in lines if " max_batch_size " in line] == [
        ["max_batch_size", "0", "config.pbtxt:2"]
    ]
    assert "  config.pbtxt:8, substitute n, m" in next(line for line in lines if "a.b" in line)
    assert "input[0].format" not in "\n".join(lines)
    shown = len(lines) - 2
    assert lines[-1] == f"  and {len(written.explain('')) - shown} fields at their empty defaults"


def test_values_that_are_changed(written: ConfigHistory) -> None:
    message = from_json(json.dumps({"name": "M", "max_batch_size": 4, "input": [{"name": "A"}]}))
    written.note(ConfigStep.COMPLETED, message, "model.py")
    found = written.explain("m")
    assert list(found)[:2] == ["name", "platform"]
    size = found["max_batch_size"]
    assert (size.value, size.origin, size.detail) == (4, ConfigOrigin.AUTO_COMPLETE, "model.py")
    assert size.replaced is not None
    assert (size.replaced.value, size.replaced.line) == (0, 2)
    assert str(size) == "auto-complete, model.py; instead of 0 (config.pbtxt:2)"
    assert found["input[0].name"].origin is ConfigOrigin.FILE  # it is as it was
    assert "input[1].name" not in found
    with pytest.raises(KeyError):
        found["nope"]


def test_what_replaces_a_default_has_nothing_to_tell_of_it() -> None:
    history = ConfigHistory(None)
    history.note(ConfigStep.WRITTEN, from_json("{}"))
    history.note(ConfigStep.COMPLETED, from_json('{"max_batch_size": 4}'), "model.py")
    assert str(history.explain("m")["max_batch_size"]) == "auto-complete, model.py"


def test_load_call() -> None:
    given = {
        "maxBatchSize": 0,
        "input": {"name": "A", "dataType": "type_fp32", "dims": ["1"], "reshape": {"shape": []}},
        "output": [None, {"name": "B"}],
        "platform": None,
        "parameters": {"p": {"string_value": "v"}, "q": None},
        "instance_group": [],
    }
    message = from_json(json.dumps(given))
    history = ConfigHistory(None, load_call=json.dumps(given))
    history.note(ConfigStep.WRITTEN, message)
    found = history.explain("m")
    assert {value.path for value in found.by_origin(ConfigOrigin.LOAD_CALL)} == {
        "max_batch_size",
        "input[0].name",
        "input[0].data_type",
        "input[0].dims",
        "input[0].reshape.shape",
        "output[0].name",
        'parameters["p"].string_value',
        "instance_group",
    }
    assert str(found["input[0].dims"]) == "load call"


def test_a_version_goes_on_by_itself(written: ConfigHistory) -> None:
    other = written.fork()
    other.note(ConfigStep.COMPLETED, from_json('{"max_batch_size": 4}'))
    assert written.explain("m")["max_batch_size"].value == 0
    assert other.explain("m")["max_batch_size"].value == 4


@pytest.mark.parametrize("seed", range(40))
def test_random_configurations(seed: int, tmp_path: Path) -> None:
    """Paths and values are those of the JSON form, and all that is written is found."""
    write_model(tmp_path / "M", random_config(seed, "M"), FILES)
    folder = str(tmp_path / "M")
    message, history = read_config("M", folder, strict=False)
    text = (tmp_path / "M" / "config.pbtxt").read_text()
    found = history.explain("M")
    as_read = to_dict(message)
    for path, value in found.items():
        assert eval(_subscripts(path), {"config": as_read}) == value.value
    # Nothing but a default is left unplaced; a value that differs from its default is none.
    for value in found.by_origin(ConfigOrigin.DEFAULT):
        assert value.value in ("", 0, False, [], {}) or str(value.value).isupper()
    located = {path for path in locate(text) if path in found}
    assert located == {value.path for value in found.by_origin(ConfigOrigin.FILE)}
    # Written once more as a load call, the same values are given.
    again = ConfigHistory(None, load_call=to_json(message))
    again.note(ConfigStep.WRITTEN, message)
    assert {value.path for value in again.explain("M").by_origin(ConfigOrigin.LOAD_CALL)} == set(
        found
    )
    prepare_config(message, "M", folder, history=history)
    assert len(history.explain("M")) >= len(found)


def _subscripts(path: str) -> str:
    """A Python expression for a path."""
    expression, rest = "config", path
    while rest:
        if rest[0] == "[":
            end = rest.index('"]') + 2 if rest[1] == '"' else rest.index("]") + 1
            expression, rest = expression + rest[:end], rest[end:]
        else:
            rest = rest.removeprefix(".")
            cut = min((rest.index(c) for c in ".[" if c in rest), default=len(rest))
            expression, rest = f"{expression}[{rest[:cut]!r}]", rest[cut:]
    return expression
