"""Random, broken and ensemble configurations against what Triton 2.51 made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytriton_lite._config.ensemble import ComposingModel, resolve_composing_models
from pytriton_lite._config.json_form import from_json, to_dict, to_json
from pytriton_lite._config.normalize import deduce_backend, fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import format_pbtxt, parse_pbtxt
from pytriton_lite._config.validate import validate_general, validate_io
from pytriton_lite.errors import TritonError

from .broken_configs import BREAKERS, broken_config
from .ensembles import COMPOSING, ENSEMBLES
from .pipeline import Refused, compact, load_config, reason_of, with_sorted_maps, write_model
from .random_configs import FILES, Generator, random_config

DATA = Path(__file__).with_name("data")


def _recorded(name: str) -> list[dict[str, Any]]:
    answers = json.loads(DATA.joinpath(f"{name}_triton_2_51.json").read_text("utf-8"))
    # Without a reason: Triton did not answer within 20 seconds, or crashed. What a model does
    # with a warmup sample is no matter of its configuration.
    return [
        answer
        for answer in answers
        if "json" in answer
        or (answer["reason"] is not None and "Failed to process" not in answer["reason"])
    ]


RANDOM = _recorded("random_configs")
BROKEN = _recorded("broken_configs")
STEPS = _recorded("ensembles")


def _assert_loads_as(message: Any, answer: Mapping[str, Any]) -> None:
    wanted = with_sorted_maps(json.loads(answer["json"]))
    found = to_dict(message)
    # 2.51 does not know it.
    found.get("ensemble_scheduling", {}).pop("max_inflight_requests", None)
    assert compact(with_sorted_maps(found)) == compact(wanted)
    if compact(wanted) == compact(json.loads(answer["json"])) == compact(to_dict(message)):
        # Spelling of numbers and texts too.
        assert to_json(message) == answer["json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "M", None, FILES)
    return tmp_path / "M"


@pytest.mark.parametrize("answer", RANDOM, ids=[answer["name"] for answer in RANDOM])
def test_random(answer: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / answer["name"]
    write_model(folder, answer["pbtxt"], FILES)
    message = load_config(folder)
    _assert_loads_as(message, answer)
    _assert_forms_lose_nothing(message)


def test_enough_was_recorded() -> None:
    assert len(RANDOM) >= 250
    assert all("json" in answer for answer in RANDOM)
    assert sum("json" not in answer for answer in BROKEN) >= 150
    assert len(STEPS) >= 80
    # Triton crashes of the others.
    found = {defect for answer in BROKEN for defect in answer["defects"]}
    assert set(BREAKERS) - found == {"state_untyped"}


def test_what_was_recorded_can_be_recorded_again() -> None:
    assert [random_config(seed, f"random_{seed}") for seed in range(20)] == [
        answer["pbtxt"] for answer in RANDOM[:20]
    ]
    answers = {answer["pbtxt"]: answer["defects"] for answer in BROKEN}
    found = [broken_config(seed, "M") for seed in range(40)]
    assert sum(answers.get(text) == defects for defects, text in found) >= 35
    assert {answer["pbtxt"] for answer in STEPS} <= set(ENSEMBLES.values())


# Where we answer differently on purpose.
DIFFERENCES = {
    # Newer versions than 2.51 do not open it.
    "label_outside": "Invalid argument: label file path '<repo>/M/../other/labels.txt' for output "
    "'OUT1' in model 'M' is outside model directory",
}


@pytest.mark.parametrize("answer", BROKEN, ids=["-".join(answer["defects"]) for answer in BROKEN])
def test_broken(answer: dict[str, Any], folder: Path) -> None:
    write_model(folder, answer["pbtxt"], {})
    if "json" in answer:
        _assert_loads_as(load_config(folder), answer)
        return
    with pytest.raises(Refused) as caught:
        load_config(folder)
    reason = reason_of(caught.value, folder.parent)
    if answer["reason"].endswith("try specifying runtime on the model configuration."):
        # The paths that were tried follow.
        reason = reason.partition(" Searched: ")[0]
    wanted = answer["reason"]
    if answer["defects"] == ["label_outside"]:
        wanted = DIFFERENCES["label_outside"]
    assert (caught.value.phase, reason) == (answer["phase"], wanted)


@pytest.fixture(scope="module")
def composing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ComposingModel]:
    repository = tmp_path_factory.mktemp("composing")
    for name, config in COMPOSING.items():
        write_model(repository / name, config, FILES)
    return {name: ComposingModel(load_config(repository / name), {1}) for name in COMPOSING}


def _ensemble(folder: Path, pbtxt: str, models: dict[str, ComposingModel]) -> Any:
    write_model(folder, pbtxt, {"1/x": ""})
    message = load_config(folder)
    try:
        resolve_composing_models(message, models)
    except TritonError as error:
        raise Refused("dependency", error) from error
    return message


@pytest.mark.parametrize("answer", STEPS, ids=[answer["case"] for answer in STEPS])
def test_ensemble(
    answer: dict[str, Any], tmp_path: Path, composing: dict[str, ComposingModel]
) -> None:
    if "json" in answer:
        _assert_loads_as(_ensemble(tmp_path / "M", answer["pbtxt"], composing), answer)
        return
    with pytest.raises(Refused) as caught:
        _ensemble(tmp_path / "M", answer["pbtxt"], composing)
    reason = reason_of(caught.value, tmp_path)
    assert (caught.value.phase, reason) == (answer["phase"], answer["reason"])


# --- text -> message -> JSON -> message ---


def _assert_forms_lose_nothing(message: Any) -> None:
    assert parse_pbtxt(format_pbtxt(message)) == message
    text = to_json(message)
    assert from_json(text) == message
    assert from_json(to_dict(message)) == message
    assert to_json(from_json(text)) == text


def _prepared(message: Any) -> Any:
    deduce_backend(message, model_name="m", first_version_files=["model.py"])
    fill_defaults(message, model_name="m")
    validate_general(message, model_name="m")
    resolve_instance_groups(message)
    validate_io(message)
    return message


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_whatever_is_accepted_round_trips(seed: int) -> None:
    generator = Generator(seed)
    config = generator.config("m")
    parsed = parse_pbtxt(generator.write(config))
    # Another spelling of the same.
    assert parse_pbtxt(generator.write(config)) == parsed
    _assert_forms_lose_nothing(parsed)
    _assert_forms_lose_nothing(_prepared(parsed))
