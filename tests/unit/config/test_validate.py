"""Triton's checks and texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytriton_lite._config.model_files import check_model_files
from pytriton_lite._config.normalize import fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite._config.validate import validate_general, validate_io
from pytriton_lite.errors import ConfigError

# {case, check, config, reason}: what Triton 2.51 said about each configuration of a model `M`,
# without the status word. `check` tells which step refused it: `general`, `io`, or none.
RECORDED = json.loads(
    Path(__file__).with_name("data").joinpath("validation_triton_2_51.json").read_text("utf-8")
)
PY = 'backend: "python" '


def _filled(text: str) -> Any:
    message = parse_pbtxt(text)
    fill_defaults(message, model_name="M")
    return message


def _validate_io_and_files(message: Any) -> None:
    validate_io(message)
    check_model_files(message, "/no/such/folder")


@pytest.mark.parametrize("case", RECORDED, ids=[case["case"] for case in RECORDED])
def test_recorded_from_triton(case: dict[str, str]) -> None:
    message = _filled(case["config"])
    if case["check"] == "general":
        with pytest.raises(ConfigError) as caught:
            validate_general(message, model_name="M")
        assert caught.value.message == case["reason"]
        assert caught.value.model is not None
        return
    validate_general(message, model_name="M")
    resolve_instance_groups(message)
    if case["check"] == "io":
        with pytest.raises(ConfigError) as caught:
            _validate_io_and_files(message)
        assert caught.value.message == case["reason"]
        assert caught.value.model == "M"
    else:
        _validate_io_and_files(message)


# Read in the sources of 2.73; 2.51 does not know the field.
@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (
            "histogram_options { buckets: [1] }",
            "metric control must specify 'metric_identifier'",
        ),
        (
            "metric_identifier { } histogram_options { buckets: [1] }",
            "metric identifier must specify non-empty 'family'",
        ),
        (
            'metric_identifier { family: "f" }',
            "metric control must specify 'histogram_options'",
        ),
        (
            'metric_identifier { family: "f" } histogram_options { }',
            "histogram options must specify non-empty 'buckets'",
        ),
    ],
)
def test_model_metrics(control: str, reason: str) -> None:
    message = _filled(f"{PY} model_metrics {{ metric_control {{ {control} }} }}")
    with pytest.raises(ConfigError) as caught:
        validate_general(message, model_name="M")
    assert caught.value.message == reason


def test_name_error_belongs_to_the_folder() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_general(_filled(f'name: "other" {PY}'), model_name="M")
    assert caught.value.model == "M"


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ('platform: "python"', 'write backend: "python" instead'),
        (f'name: "other" {PY}', "without `name` a model has that of its folder"),
        (f"{PY} dynamic_batching {{ preferred_batch_size: 8 }}", "max_batch_size is 0"),
    ],
)
def test_hints(config: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_general(_filled(config), model_name="M")
    assert caught.value.hint == hint
    assert caught.value.__notes__ == [hint]


@pytest.mark.parametrize(
    ("dims", "shape"),
    [
        ("4", "2, 2"),
        ("1", ""),
        ("-1", "-1, 1"),
        ("2, 4, -1, 6", "8, -1, 3, 2"),
        ("-1, -1", "-1, 1, -1"),
        ("-1, 2", "-1, 2"),
    ],
)
@pytest.mark.parametrize("kind", ["input", "output"])
def test_legal_reshapes(kind: str, dims: str, shape: str) -> None:
    validate_io(
        _filled(
            f'max_batch_size: 1 {kind} {{ name: "A" data_type: TYPE_FP32 dims: [{dims}] '
            f"reshape {{ shape: [{shape}] }} }}"
        )
    )


def test_tensorrt_may_use_its_flags() -> None:
    text = 'name: "A" data_type: TYPE_INT32 dims: 1 is_shape_tensor: true'
    validate_io(_filled(f'platform: "tensorrt_plan" input {{ {text} }} output {{ {text} }}'))
