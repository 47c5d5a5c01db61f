"""What a model in a stub can import, and what it is told about itself, as recorded on Triton 2.51.

Here even what differs in the other modes is the same: `sys.path`, `sys.argv`, the main thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.conformance.differences import comparable
from tests.conformance.record import normaliser, write_group
from tests.conformance.schema import Group
from tests.conformance.tables.resolution import RESOLUTION

RECORDED = json.loads(
    (Path(__file__).parents[1] / "conformance/triton_2_51.json").read_text(encoding="utf-8")
)

FOUND = (
    "plain",
    "latest",
    "other_py",
    "shared_a",
    "shared_b",
    "with_utils_1",
    "with_utils_2",
    "helper_in_version",
    "helper_in_model_folder",
    "helper_in_both",
    "helper_hidden_by_library",
    "helper_package",
    "relative_import",
    "argv",
    "search_path",
    "model_dir_at_import",
    "names_at_import",
)
FAILING = (
    "native_name_at_import",
    "helper_raises",
    "helper_syntax_error",
    "relative_import_missing",
    "import_raises",
    "import_exits",
    "backend_import_error",
    "no_class",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("imports").resolve()
    models = tuple(model for model in RESOLUTION.models if model.name in FOUND + FAILING)
    assert len(models) == len(FOUND + FAILING)
    backends = folder / "backends"
    write_group(folder / "models", backends, Group("imports", models, (), RESOLUTION.backends))
    return folder / "models", backends


@pytest.fixture(scope="module")
def server(place: tuple[Path, Path]) -> Iterator[ptl.Server]:
    models, backends = place
    with ptl.Server(
        models,
        backend_directory=backends,
        execution="process",
        model_control_mode="explicit",
        startup_models=FOUND,
        strict_model_config=True,  # no process for auto_complete_config
    ) as server:
        yield server


@pytest.fixture(scope="module")
def normalise(place: tuple[Path, Path]) -> Callable[[str], str]:
    return normaliser(*place)


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str, server: ptl.Server, normalise: Callable[[str], str]) -> None:
    inputs = {"IN": np.array([b"x"], np.object_)} if server[name].metadata()["inputs"] else {}
    (text,) = server[name](inputs)["OUT"]
    (expected,) = RECORDED["requests"][f"{name}/who"]["outputs"][0]["data"]
    assert normalise(text.decode()) == expected


@pytest.mark.parametrize("name", FAILING)
def test_failing(name: str, server: ptl.Server, normalise: Callable[[str], str]) -> None:
    with pytest.raises(ptl.ModelLoadError) as caught:
        server.load(name)
    expected = RECORDED["loads"][f"load/{name}"]["error"]
    assert comparable(normalise(str(caught.value))) == comparable(expected)
