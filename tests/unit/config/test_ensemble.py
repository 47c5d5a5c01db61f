"""Ensembles of ensembles; everything else about them is in `test_recorded_configs`."""

from __future__ import annotations

from typing import Any

import pytest

from pytriton_lite._config.ensemble import ComposingModel, resolve_composing_models
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite._config.validate import validate_general
from pytriton_lite.errors import ConfigError

IO = " ".join(
    f'{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: 4 }}'
    for kind, name in (("input", "IN0"), ("output", "OUT0"))
)


def ensemble(name: str, *steps: str) -> Any:
    """Return an ensemble that passes a tensor through some models, one after the other."""
    tensors = ["IN0", *(f"t{index}" for index in range(1, len(steps))), "OUT0"]
    text = " ".join(
        f'step {{ model_name: "{step}" model_version: -1 '
        f'input_map {{ key: "IN0" value: "{tensors[index]}" }} '
        f'output_map {{ key: "OUT0" value: "{tensors[index + 1]}" }} }}'
        for index, step in enumerate(steps)
    )
    message = parse_pbtxt(
        f'name: "{name}" platform: "ensemble" {IO} ensemble_scheduling {{ {text} }}'
    )
    validate_general(message, model_name=name)
    return message


MODELS = {
    message.name: ComposingModel(message, {1})
    for message in (
        parse_pbtxt(f'name: "ok" backend: "python" {IO}'),
        ensemble("e2", "M"),
        ensemble("e3", "e4"),
        ensemble("e4", "M"),
        ensemble("e5", "e6"),
        ensemble("e6", "e5"),
        ensemble("e7", "ok"),
        ensemble("e8", "ok", "M"),
    )
}


# Recorded from Triton 2.51, but for the last two: it says `e4 -> ... -> e3 -> e4` of the circle
# M, e3, e4, and crashes of the one that M is no part of.
@pytest.mark.parametrize(
    ("steps", "circle"),
    [
        (["e2"], "M -> ... -> e2 -> M"),
        (["ok", "e2"], "M -> ... -> e2 -> M"),
        (["e7", "e8"], "M -> ... -> e8 -> M"),
        (["M", "ok"], "M -> ... -> M -> M"),
        (["ok", "M"], "M -> ... -> M -> M"),
        (["e3"], "M -> ... -> e4 -> M"),
        (["e5"], "e5 -> ... -> e6 -> e5"),
    ],
)
def test_circles(steps: list[str], circle: str) -> None:
    message = ensemble("M", *steps)
    with pytest.raises(ConfigError) as caught:
        resolve_composing_models(message, {**MODELS, "M": ComposingModel(message, {1})})
    assert str(caught.value) == f"circular dependency between ensembles: {circle}"


def test_ensemble_in_an_ensemble() -> None:
    message = ensemble("M", "e7", "ok")
    resolve_composing_models(message, MODELS)
    assert message.model_transaction_policy.decoupled is False


def test_hint_names_the_nearest_model() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_composing_models(ensemble("M", "okk"), MODELS)
    assert caught.value.hint == "did you mean 'ok'?"
    assert caught.value.field == "ensemble_scheduling"
