from __future__ import annotations

import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import pytriton_lite as ptl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "custom_metrics"
COMMAND = "python examples/custom_metrics/run.py"


def samples_of(text):
    """Values by name and by the labels other than `model`."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model") == "word_count"
            samples[sample.name, *labels.values()] = sample.value
    return samples


def test_command_prints_the_metrics():
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
    answer, error, metrics = done.stdout.split("\n", 2)
    assert (answer, error) == ("1 2 6", "TEXT is not UTF-8")
    samples = samples_of(metrics)
    assert samples["texts_total", "counted"] == 3
    assert samples["texts_total", "refused"] == 1


@pytest.fixture(params=["thread", "inline"])
def server(request):
    with ptl.Server(FOLDER / "models", execution=request.param) as server:
        yield server


def longest(samples):
    return max(value for (name, *_), value in samples.items() if name == "text_words_longest")


def test_metrics_begin_at_zero(server):
    assert set(samples_of(server.metrics()).values()) == {0}


def test_metrics_follow_the_requests(server):
    word_count = server.model("word_count")
    words = ["", "a", "b " * 10, "c " * 11, "d " * 500]
    assert word_count({"TEXT": words})["WORDS"].tolist() == [0, 1, 10, 11, 500]
    samples = samples_of(server.metrics())
    assert samples["texts_total", "counted"] == 5
    assert samples["text_words_sum",] == 522
    # A bound belongs to its bucket, and each bucket counts the smaller ones, too.
    assert [samples["text_words_bucket", bound] for bound in ("1", "10", "100", "+Inf")] == [
        *(2, 3, 4, 5)
    ]
    assert longest(samples) == 500


def test_refused_texts_are_counted_apart(server):
    with pytest.raises(ptl.InvalidArgumentError, match=r"^TEXT is not UTF-8$"):
        server.model("word_count")({"TEXT": [b"good", b"\xff"]})
    samples = samples_of(server.metrics())
    assert samples["texts_total", "refused"] == 2
    assert samples["texts_total", "counted"] == samples["text_words_count",] == 0


def test_instances_share_the_counter(server):
    word_count = server.model("word_count")
    threads = [
        threading.Thread(target=lambda: [word_count({"TEXT": ["a b"]}) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    samples = samples_of(server.metrics())
    assert samples["texts_total", "counted"] == samples["text_words_count",] == 200
    assert longest(samples) == 2


def test_metrics_go_with_the_model():
    with ptl.Server(
        FOLDER / "models", model_control_mode="explicit", startup_models=["*"]
    ) as server:
        assert samples_of(server.metrics())
        server.unload("word_count", wait_until_unloaded=True)
        assert samples_of(server.metrics()) == {}
