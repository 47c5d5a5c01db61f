"""What a batch must not change, and what its requests must not do to each other."""

from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl

TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 10]]


@pytest.fixture(params=["inline", "thread"])
def model(request):
    with ptl.Server(Path(__file__).parent / "models", execution=request.param) as server:
        yield server.model("text_vector")


def in_one_batch(model, texts):
    with model.hold_queue():
        futures = [model.submit({"IDS": np.array([ids])}) for ids in texts]
    wait(futures)
    assert model.explain_batching()[-1].request_count == len(texts)
    return futures


def test_a_batch_gives_what_single_requests_give(model):
    alone = [model({"IDS": np.array([ids])})["VECTOR"] for ids in TEXTS]
    together = [future.result()["VECTOR"] for future in in_one_batch(model, TEXTS)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_a_refused_text_leaves_the_others_alone(model):
    first, second, third = in_one_batch(model, [[1], [1, 1000], [1]])
    with pytest.raises(ptl.InvalidArgumentError, match=r"^IDS must be within 0 and 999$"):
        second.result()
    np.testing.assert_array_equal(first.result()["VECTOR"], third.result()["VECTOR"])


def test_all_texts_are_refused(model):
    for future in in_one_batch(model, [[-1], [1000]]):
        with pytest.raises(ptl.InvalidArgumentError):
            future.result()


def test_no_more_than_the_largest_batch(model):
    with model.hold_queue():
        futures = [model.submit({"IDS": np.array([[n]])}) for n in range(20)]
    wait(futures)
    assert [batch.batch_size for batch in model.explain_batching()] == [16, 4]
