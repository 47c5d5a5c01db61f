"""Where in ``config.pbtxt`` a configuration is wrong, when it parses."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

import pytriton_lite as ptl
from pytriton_lite._config.pbtxt import place_error
from pytriton_lite._config.template import ConfigText
from pytriton_lite.errors import ConfigError
from tests.support.repository import RepositoryBuilder, echo_model

from .pipeline import Refused, load_config, write_model
from .random_configs import FILES

# `?` is where the error is, and is taken out.
PLACES = [
    ('backend: "python"\nmax_batch_size: ?-1', "max_batch_size"),
    ('backend: "python"\nname: ?"other"', "name"),
    ('platform: ?"whatever"', "platform"),
    (
        'backend: "python"\nmax_batch_size: 4\ndynamic_batching {\n'
        "  preferred_batch_size: [ 4, ?8 ]\n}",
        "dynamic_batching.preferred_batch_size[1]",
    ),
    (
        'backend: "python" max_batch_size: 4 sequence_batching { control_input {\n'
        '  name: "A" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }\n'
        "  control {\n    kind: ?CONTROL_SEQUENCE_START int32_false_true: [0, 1] }\n} }",
        "sequence_batching.control_input[0].control[1].kind",
    ),
    (
        'backend: "python"\ninput { name: "A" data_type: TYPE_FP32 dims: 1 }\n'
        'input { name: "B" data_type: TYPE_FP32 dims: [ ?0 ] }',
        "input[1].dims",
    ),
    # A field that is missing: where the message around it begins.
    (
        'backend: "python"\noutput [ { name: "A" data_type: TYPE_FP32 dims: 1 },\n'
        '  ?{ name: "B" dims: 1 } ]',
        "output[1].data_type",
    ),
    (
        'backend: "python" input {\n  name: "A" data_type: TYPE_FP32 dims: 4\n'
        "  reshape ?{ shape: [ 3 ] }\n}",
        "input[0].reshape",
    ),
    (
        'backend: "python"\ninstance_group [ { }, { gpus: ?3 } ]',
        "instance_group[1].gpus",
    ),
    (
        'backend: "python" batch_input {\n target_name: "B" data_type: ?TYPE_INT64\n'
        ' source_input: "A" } input { name: "A" data_type: TYPE_FP32 dims: 1 }',
        "batch_input[0].data_type",
    ),
    (
        'platform: "ensemble"\nensemble_scheduling { step ?{ model_name: "a"\n'
        '  input_map { key: "A" value: "A" } } }',
        "ensemble_scheduling.step[0].output_map",
    ),
]


@pytest.mark.parametrize(("marked", "field"), PLACES)
def test_place(marked: str, field: str, tmp_path: Path) -> None:
    before = marked.partition("?")[0]
    write_model(tmp_path / "M", marked.replace("?", ""), FILES)
    with pytest.raises(Refused) as caught:
        load_config(tmp_path / "M")
    error = caught.value.error
    assert isinstance(error, ConfigError)
    path = str(tmp_path / "M" / "config.pbtxt")
    text = marked.replace("?", "")
    place_error(error, ConfigText(text, text, path))
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert (error.file, error.line, error.column) == (path, line, column)
    assert error.field == field
    assert pickle.loads(pickle.dumps(error)).field == field


def test_a_field_of_a_completion_has_no_place() -> None:
    text = 'backend: "python"'
    error = ConfigError("x", field="input[3].dims")
    place_error(error, ConfigText(text, text, "repo/m/config.pbtxt"))
    assert (error.file, error.line, error.column) == ("repo/m/config.pbtxt", None, None)


def test_no_file() -> None:
    error = ConfigError("x", field="input")
    place_error(error, ConfigText("input { }", "input { }", None))
    assert (error.file, error.line) == (None, None)


@pytest.mark.parametrize("config", ["max_batch_size: -1", "\n  output { }"])
def test_a_failed_load_carries_it(
    config: str, repository: RepositoryBuilder, serve: Callable[..., ptl.Server]
) -> None:
    folder = repository.model("m", echo_model(), config=f'backend: "python"\n{config}')
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(model_control_mode="explicit").load("m")
    (error,) = caught.value.exceptions
    assert isinstance(error, ConfigError)
    text = folder.joinpath("config.pbtxt").read_text()
    value = "-1" if "-1" in text else "{"
    assert error.file == str(folder / "config.pbtxt")
    assert error.line == text[: text.index(value)].count("\n") + 1
