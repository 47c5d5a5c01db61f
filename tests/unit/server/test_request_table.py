"""Request validation: each row of the table against a server of ours, in each execution mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.conformance.tables.validation import ECHO
from tests.support.repository import RepositoryBuilder

from .request_rows import MODELS, ROWS, SEQUENCES, Answer, Row, config_of

APPLY = [row for row in ROWS if row.inputs is not None]


@pytest.fixture(scope="module", params=["inline", "thread", "process"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ptl.Server]:
    root: Path = tmp_path_factory.mktemp("rows")
    for name in MODELS:
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.py").write_text(ECHO)
        (root / name / "config.pbtxt").write_text(config_of(name))
    with ptl.Server(root, execution=request.param) as server:
        yield server


@pytest.mark.parametrize("row", APPLY, ids=[row.case for row in APPLY])
def test_row(row: Row, server: ptl.Server) -> None:
    expected = row.ours or row.answer
    assert expected is not None
    if expected.outputs is None:
        with pytest.raises(ptl.TritonError) as caught:
            server.model(row.model, row.version).run(row.inputs or {}, **row.more)
        assert (caught.value.code, str(caught.value)) == (expected.code, expected.text)
        assert caught.value.model == row.model
        return
    response = server.model(row.model, row.version).run(row.inputs or {}, **row.more)
    assert list(response.outputs) == list(expected.outputs)
    for name, array in expected.outputs.items():
        tensor = response.outputs[name]
        is_text = tensor.data_type is ptl.DataType.BYTES
        found = tensor.to_string_array() if is_text else tensor.numpy()
        assert found.dtype.kind == array.dtype.kind
        assert is_text or found.dtype == array.dtype
        np.testing.assert_array_equal(found, array, strict=not is_text)


def test_no_row_is_missing() -> None:
    # Rows of the table: 100; each one is asked, or tells why not.
    assert len(ROWS) == len({row.case for row in ROWS}) == 100
    assert len(APPLY) == 57
    for row in ROWS:
        assert row.why or (row.inputs is not None and row.ours is None), row.case
        assert (row.inputs is None) == (row.answer is None), row.case
        assert row.ours != row.answer or row.inputs is None, row.case


def test_a_difference_of_order_is_one_of_order_alone() -> None:
    """Text by text the same, but for which of two inputs is named, or in which order."""
    for row in ROWS:
        if row.ours is not None and row.why.startswith("inputs are checked in the order"):
            assert row.answer is not None
            assert sorted(_without_numbers(row.ours)) == sorted(_without_numbers(row.answer))


def _without_numbers(answer: Answer) -> str:
    return answer.text.translate(str.maketrans("", "", "012"))


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequence_models_do_not_load_yet(
    name: str, repository: RepositoryBuilder, serve: Callable[..., ptl.Server]
) -> None:
    """When this fails, the rows about sequences are to be answered."""
    repository.model(name, ECHO, config=f'backend: "python" {SEQUENCES[name]}')
    with pytest.raises(ptl.ModelLoadError, match="sequence_batching, which is not supported yet"):
        serve()
