"""The recorded arrival patterns, batched by `pytriton_lite` in each execution mode."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

from .batching_cases import MODEL, PATTERNS, Arrival, Pattern

RECORDED = json.loads((Path(__file__).parent / "triton_2_51_batching.json").read_text())

# Triton has batches ready before an instance asks, and what has come since goes into the next ones;
# we form them at the last moment.
AHEAD = {"preferred_2_4_ahead": "preferred_2_4"}


@pytest.fixture(autouse=True)
def _time_limit() -> Iterator[None]:
    with hard_limit(40):
        yield


def inputs_of(arrival: Arrival, value: float) -> dict[str, Any]:
    inputs = {"IN": np.full((arrival.rows, arrival.width), value, np.float32)}
    if arrival.has_more:
        inputs["MORE"] = np.zeros((arrival.rows, 1), np.float32)
    return inputs


def ask(model: ptl.Model, pattern: Pattern, calls: ThreadPoolExecutor | None) -> dict[str, Any]:
    """Batches and errors, as they were recorded; the requests are `calls` or submitted."""
    futures: list[Future[ptl.InferenceResponse]] = []

    def send(place: int, arrival: Arrival) -> None:
        inputs = inputs_of(arrival, place)
        if calls is not None:
            futures.append(calls.submit(model.run, inputs))
            return
        futures.append(model.submit(inputs, priority=arrival.priority, timeout=arrival.timeout_us))

    if pattern.is_live:
        for place, arrival in enumerate(pattern.arrivals):
            time.sleep(arrival.gap_ms / 1000)  # the gaps are what the pattern is about
            send(place, arrival)
    else:
        with model.hold_queue():
            for place, arrival in enumerate(pattern.arrivals):
                send(place, arrival)
            # What was recorded had waited longer than these timeouts, and nothing tells of one
            # after which a request waits on.
            shortest = min((a.timeout_us for a in pattern.arrivals if a.timeout_us), default=0)
            time.sleep(1.2 * shortest / 1e6)
    batches: dict[int, list[tuple[int, int]]] = {}
    errors = {}
    for place, future in enumerate(futures):
        try:
            number, position = future.result(20)["BATCH"][0]
        except ptl.TritonError as error:
            errors[str(place)] = str(error)
        else:
            batches.setdefault(int(number), []).append((int(position), place))
    return {
        "batches": [[place for _, place in sorted(batches[n])] for n in sorted(batches)],
        "errors": errors,
    }


@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_batches_are_those_of_triton(
    pattern: Pattern, execution: str, repository: RepositoryBuilder, serve: Any
) -> None:
    repository.model(pattern.id, MODEL, config=pattern.config())
    model = serve(execution=execution)[pattern.id]
    with ThreadPoolExecutor(len(pattern.arrivals)) as pool:
        # Inline, only requests that a thread waits for are kept waiting for a delay.
        calls = pool if pattern.is_live and execution == "inline" else None
        answer = ask(model, pattern, calls)
    assert answer == RECORDED[AHEAD.get(pattern.id, pattern.id)]
