from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest

import pytriton_lite as ptl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "sklearn_backend"
RUN = "python examples/sklearn_backend/run.py"
TRAIN = "python examples/sklearn_backend/train.py"
NAMES = ["digits", "iris"]


def run(command: str, *arguments: str) -> str:
    assert command in (FOLDER / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, *shlex.split(command)[1:], *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sklearn")
    run(TRAIN, str(folder))
    return folder


def expected(folder: Path, name: str):
    """Estimator, rows and labels of a model, without any server."""
    estimator = joblib.load(folder / "models" / name / "1" / "model.joblib")
    with np.load(folder / "held_out" / f"{name}.npz") as held_out:
        return estimator, held_out["rows"], held_out["labels"]


def test_command_prints_table_accuracy_and_latency(trained):
    output = run(RUN, "--calls", "20")
    rows = [line.split("|")[1:3] for line in output.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in row) for row in rows]
    assert cells[1] == ("sklearn", str(FOLDER / "backends" / "sklearn" / "model.py"))
    assert cells[2][0] == "python"
    found = re.findall(r"^(digits|iris) +(\d+) +(\d\.\d{4}) +(\d+) +(\d+)$", output, re.MULTILINE)
    assert [row[0] for row in found] == NAMES * 2  # thread, then inline
    for name, count, accuracy, p50, p99 in found:
        # `run.py` trained its own repository, equal to ours since training is reproducible.
        estimator, features, labels = expected(trained, name)
        assert int(count) == len(labels)
        assert float(accuracy) == pytest.approx(estimator.score(features, labels), abs=0.0001)
        assert float(accuracy) > 0.9
        assert 0 < int(p50) <= int(p99)


def test_command_serves_a_repository_that_is_there(trained):
    output = run(RUN, "--folder", str(trained), "--calls", "5")
    assert output.count("digits ") == 2


@pytest.fixture(scope="module", params=["thread", "inline"])
def server(request, trained):
    with ptl.Server(
        trained / "models", backend_directory=FOLDER / "backends", execution=request.param
    ) as server:
        yield server


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_the_estimator(server, trained, name):
    estimator, features, _ = expected(trained, name)
    for start in range(0, len(features), 100):
        rows = features[start : start + 100]
        answer = server.model(name)({"FEATURES": rows})
        want = estimator.predict(rows)
        got = answer["LABEL"][:, 0]
        if want.dtype.kind == "U":
            got = np.array([label.decode() for label in got])
        np.testing.assert_array_equal(got, want)
        np.testing.assert_allclose(
            answer["PROBABILITY"], estimator.predict_proba(rows), rtol=0, atol=1e-6
        )


def test_inputs_and_outputs_come_from_the_estimator(server):
    digits, iris = (server.model(name).metadata() for name in NAMES)
    assert digits["inputs"] == [{"name": "FEATURES", "datatype": "FP32", "shape": [-1, 64]}]
    assert iris["inputs"] == [{"name": "FEATURES", "datatype": "FP32", "shape": [-1, 4]}]
    assert [(o["name"], o["datatype"], o["shape"]) for o in iris["outputs"]] == [
        ("LABEL", "BYTES", [-1, 1]),
        ("PROBABILITY", "FP32", [-1, 3]),
    ]
    assert digits["outputs"][0]["datatype"] == "INT64"


def test_wrong_width_is_refused(server):
    with pytest.raises(ptl.InvalidArgumentError, match=r"Expected \[-1,4\], got \[1,5\]"):
        server.model("iris")({"FEATURES": np.zeros((1, 5), np.float32)})
