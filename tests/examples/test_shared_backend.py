from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "shared_backend"
COMMAND = "python examples/shared_backend/run.py"

# Reference values: the type K table of ITS-90, which the inverse polynomials meet within 0.06
# degrees, and IEC 60751.
REFERENCE = {
    "thermocouple_k": (
        "MILLIVOLT",
        "CELSIUS",
        {-3.554: -100.0, 0.0: 0.0, 4.096: 100.0, 8.138: 200.0, 20.644: 500.0, 41.276: 1000.0},
        0.06,
    ),
    "pt100": (
        "CELSIUS",
        "OHM",
        {-200.0: 18.520, -100.0: 60.256, 0.0: 100.0, 100.0: 138.506, 850.0: 390.481},
        0.001,
    ),
}


@pytest.fixture(scope="module")
def output():
    assert COMMAND in (FOLDER / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, *shlex.split(COMMAND)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_prints_the_backend_table(output):
    rows = [line.split("|")[1:3] for line in output.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in row) for row in rows]
    assert cells[:2] == [
        ("Backend", "Path"),
        ("calibration", str(FOLDER / "backends" / "calibration" / "model.py")),
    ]
    assert [name for name, _ in cells[2:]] == ["python"]


def test_command_prints_values(output):
    found = {
        float(reading): float(value)
        for reading, value in re.findall(
            r"^ +(-?\d+\.\d{3}) +(-?\d+\.\d{3})$", output, re.MULTILINE
        )
    }
    assert found[4.096] == pytest.approx(100, abs=0.06)
    assert found[41.276] == pytest.approx(1000, abs=0.06)
    assert found[850.0] == pytest.approx(390.481, abs=0.001)


def test_command_prints_an_error_of_one_request(output):
    assert "CELSIUS must be within -200 and 850" in output.splitlines()[-1]


@pytest.fixture(scope="module", params=["thread", "inline"])
def server(request):
    with ptl.Server(
        FOLDER / "models", backend_directory=FOLDER / "backends", execution=request.param
    ) as server:
        yield server


@pytest.mark.parametrize("model_name", REFERENCE)
def test_values_are_the_reference_values(server, model_name):
    source, target, table, tolerance = REFERENCE[model_name]
    values = server.model(model_name)({source: np.array(list(table))})[target]
    np.testing.assert_allclose(values, list(table.values()), rtol=0, atol=tolerance)


def test_models_declare_what_their_parameter_files_name(server):
    metadata = server.model("pt100").metadata()
    assert metadata["inputs"] == [{"name": "CELSIUS", "datatype": "FP64", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "OHM", "datatype": "FP64", "shape": [-1]}]
    assert server.model("thermocouple_k").metadata()["inputs"][0]["name"] == "MILLIVOLT"


@pytest.mark.parametrize("reading", [54.9, -5.9, np.nan])
def test_reading_out_of_range_is_the_callers_error(server, reading):
    with pytest.raises(
        ptl.InvalidArgumentError, match=r"^MILLIVOLT must be within -5.891 and 54.8"
    ):
        server.model("thermocouple_k")({"MILLIVOLT": np.array([1.0, reading])})


def test_configurations_say_only_the_backend():
    for name in ("thermocouple_k", "pt100"):
        assert (FOLDER / "models" / name / "config.pbtxt").read_text() == 'backend: "calibration"\n'
