"""Every row of the specification's tables that is about configurations."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytriton_lite._config.ensemble import ComposingModel, resolve_composing_models
from pytriton_lite._config.json_form import to_dict
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite.errors import ConfigError, TritonError

from .pipeline import Refused, load_config, reason_of, write_model
from .spec_tables import (
    ABOUT_CODE,
    COMPOSING,
    DEFAULTS,
    DIFFERENCES,
    MODEL,
    PARSER_MESSAGES,
    ROWS,
    Row,
    expand,
)


def _load(row: Row, repository: Path) -> None:
    folder = repository / "M"
    write_model(folder, None if row.config is None else expand(row.config), row.files)
    message = load_config(folder)
    if message.platform != "ensemble":
        return
    models = {}
    for name, config in COMPOSING.items():
        write_model(repository / name, expand(config), MODEL)
        models[name] = ComposingModel(load_config(repository / name), {1})
    try:
        resolve_composing_models(message, models)
    except TritonError as error:
        raise Refused("dependency", error) from error


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.section}-{row.case}" for row in ROWS])
def test_row(row: Row, tmp_path: Path) -> None:
    if row.phase == "loaded":
        _load(row, tmp_path)
        return
    with pytest.raises(Refused) as caught:
        _load(row, tmp_path)
    reason = reason_of(caught.value, tmp_path)
    assert caught.value.error.model in ("M", None)
    if row.case in DIFFERENCES:
        assert reason == DIFFERENCES[row.case].text
        return
    assert caught.value.phase == row.phase
    if row.reason.startswith("failed to read text proto"):
        # The parser's own reason follows, which Triton has in its log only.
        assert reason.startswith(f"{row.reason}: ")
    elif row.case == "unknown_backend":
        # The paths that were tried follow.
        assert reason.startswith(row.reason)
    else:
        assert reason == row.reason


def test_no_row_is_missing() -> None:
    # Rows in the specification: 59, 53, 14 and 19.
    counted = [sum(row.section == section for row in ROWS) for section in ("7A", "7B", "7C", "8")]
    assert counted == [59, 53 - 4, 14, 19 - 1]
    assert len(ABOUT_CODE) == 5
    assert len({row.case for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("text", "reason", "line", "column"), PARSER_MESSAGES)
def test_parser_message(text: str, reason: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_pbtxt(expand(text), file="f")
    assert str(caught.value) == f"failed to read text proto from f: {line}:{column}: {reason}"
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(
    ("config", "fields"), [row[1:] for row in DEFAULTS], ids=[row[0] for row in DEFAULTS]
)
def test_default(config: str, fields: dict[str, object], tmp_path: Path) -> None:
    write_model(tmp_path / "M", expand(config), MODEL)
    found = to_dict(load_config(tmp_path / "M"))
    assert {key: found[key] for key in fields} == fields
