from __future__ import annotations

import logging
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler

import pytriton_lite as ptl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "bls_pipeline"
COMMAND = "python examples/bls_pipeline/run.py"
IRIS = load_iris()
ROWS = IRIS.data.astype(np.float32)
NOT_READY = (
    "Model {0} - Error when running inference: Failed for execute the inference request. "
    "Model '{0}' is not ready."
)


@pytest.fixture(scope="module")
def done():
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
    return done


def test_command_prints_all_classifiers(done):
    blocks = done.stdout.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == [
        "nearest_centroid",
        "naive_bayes",
        "mean of both",
        NOT_READY.format("perceptron"),
        "mean of perceptron,naive_bayes",
        "measures are positive",
    ]
    # Without a vote of the first the mean is that of the second alone.
    assert blocks[4].splitlines()[1:] == blocks[1].splitlines()[1:]
    assert [line.split()[0] for line in blocks[2].splitlines()[1:]] == [
        "setosa",
        "versicolor",
        "virginica",
        "versicolor",
    ]


def test_command_logs_the_missing_vote(done):
    text = f"no vote of 'perceptron': {NOT_READY.format('perceptron')}"
    assert done.stderr.strip() == f"pytriton_lite.model.vote: {text}"


@pytest.fixture(
    scope="module",
    params=["thread", "inline", {"classify": "inline"}, {"vote": "inline"}],
    ids=["thread", "inline", "classify inline", "vote inline"],
)
def server(request):
    with ptl.Server(FOLDER / "models", execution=request.param) as server:
        yield server


def test_classifiers_are_those_of_scikit_learn(server):
    # Independent of the numbers in the repository, which are rounded to three places.
    scaled = StandardScaler().fit_transform(IRIS.data)
    for name, estimator, tolerance in (
        ("nearest_centroid", NearestCentroid(), 1),
        ("naive_bayes", GaussianNB(), 1),
    ):
        want = estimator.fit(scaled, IRIS.target).predict(scaled)
        got = server.model("classify").run({"MEASURES": ROWS}, parameters={"classifier": name})
        names = IRIS.target_names[want]
        wrong = sum(a != b.decode() for a, b in zip(names, got["SPECIES"][:, 0], strict=True))
        assert wrong <= tolerance
        assert np.mean(want == IRIS.target) > 0.8


def test_probabilities_of_naive_bayes(server):
    scaled = StandardScaler().fit_transform(IRIS.data)
    want = GaussianNB().fit(scaled, IRIS.target).predict_proba(scaled)
    got = server.model("classify").run(
        {"MEASURES": ROWS}, parameters={"classifier": "naive_bayes"}, outputs=["PROBABILITY"]
    )
    assert list(got.outputs) == ["PROBABILITY"]
    np.testing.assert_allclose(got["PROBABILITY"], want, rtol=0, atol=0.05)


def test_vote_is_the_mean(server):
    answers = [
        server.model("classify").run({"MEASURES": ROWS}, parameters={"classifier": name})
        for name in ("nearest_centroid", "naive_bayes")
    ]
    mean = np.mean([answer["PROBABILITY"] for answer in answers], axis=0)
    vote = server.model("vote")({"MEASURES": ROWS})
    np.testing.assert_allclose(vote["PROBABILITY"], mean, rtol=0, atol=1e-6)
    assert vote["SPECIES"].shape == (150, 1)


def test_missing_classifier_fails_the_request(server):
    with pytest.raises(ptl.InternalError) as caught:
        server.model("classify").run({"MEASURES": ROWS}, parameters={"classifier": "perceptron"})
    assert str(caught.value) == NOT_READY.format("perceptron")


def test_vote_goes_on_without_a_missing_classifier(server, caplog):
    vote = server.model("vote")
    names = "nearest_centroid,perceptron"
    without = vote.run({"MEASURES": ROWS}, parameters={"classifiers": names})
    alone = vote.run({"MEASURES": ROWS}, parameters={"classifiers": "nearest_centroid"})
    np.testing.assert_array_equal(without["PROBABILITY"], alone["PROBABILITY"])
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"no vote of 'perceptron': {NOT_READY.format('perceptron')}"
    ]


def test_vote_without_any_classifier_fails(server):
    with pytest.raises(ptl.InternalError) as caught:
        server.model("vote").run({"MEASURES": ROWS}, parameters={"classifiers": "a,b"})
    assert str(caught.value) == NOT_READY.format("a")


@pytest.mark.parametrize("name", ["classify", "vote"])
def test_error_of_the_preprocessing_reaches_the_caller(server, name):
    with pytest.raises(ptl.InvalidArgumentError, match=r"^measures are positive$"):
        server.model(name)({"MEASURES": -ROWS})
