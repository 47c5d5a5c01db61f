from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl

torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "torch_model"
COMMAND = "python examples/torch_model/run.py"


def test_command_prints_hits_and_latency():
    assert COMMAND in (FOLDER / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, *shlex.split(COMMAND)[1:], "--documents", "2000", "--calls", "3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 2000 * 64 elements of 2 bytes.
    assert done.stdout.startswith("2000 documents, 256000 bytes, never copied\n")
    rows = re.findall(r"^(thread|inline) +(\d)/8 +(\d\.\d{3}) +(\d+)$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["thread", "inline"]
    for _, found, score, p50 in rows:
        assert found == "8"
        # A query is its document and noise of 0.3 times the size: 1 / sqrt(1 + 0.09) = 0.958.
        assert 0.9 < float(score) < 0.98
        assert int(p50) > 0


@pytest.fixture(scope="module", params=["thread", "inline"])
def nearest(request):
    with ptl.Server(FOLDER / "models", execution=request.param) as server:
        yield server.model("nearest")


def embeddings(count, seed):
    return torch.randn(count, 64, generator=torch.Generator().manual_seed(seed)).bfloat16()


def test_answers_are_those_of_numpy(nearest):
    queries, documents = embeddings(5, 1), embeddings(300, 2)
    q, d = (x.double().numpy() for x in (queries, documents))
    cosine = (q @ d.T) / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(d, axis=1))
    answer = nearest({"QUERIES": queries, "DOCUMENTS": documents})
    # BF16 products differ by less than 2**-8 of their size, the scores are below 1.
    best = np.sort(cosine, axis=1)[:, :-4:-1]
    np.testing.assert_allclose(answer["SCORE"], best, rtol=0, atol=2**-8)
    picked = np.take_along_axis(cosine, answer["INDEX"], axis=1)
    np.testing.assert_allclose(answer["SCORE"], picked, rtol=0, atol=2**-8)


def test_a_document_is_nearest_to_itself(nearest):
    documents = embeddings(50, 3)
    answer = nearest({"QUERIES": documents[10:20], "DOCUMENTS": documents})
    assert answer["INDEX"][:, 0].tolist() == list(range(10, 20))


def test_too_few_documents_are_the_callers_error(nearest):
    with pytest.raises(
        ptl.InvalidArgumentError, match=r"^DOCUMENTS must have 3 rows or more, not 2$"
    ):
        nearest({"QUERIES": embeddings(1, 1), "DOCUMENTS": embeddings(2, 1)})


def test_another_width_is_refused(nearest):
    with pytest.raises(ptl.InvalidArgumentError, match=r"Expected \[-1,64\], got \[2,32\]"):
        nearest({"QUERIES": embeddings(2, 1)[:, :32], "DOCUMENTS": embeddings(9, 1)})
