"""Arrival patterns for the dynamic batcher.

Requests arrive in order while the only instance is busy, so that what is formed depends on the
settings and not on the moment; in those that are `live` it is idle, and the gaps count.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL = """
import time

import numpy as np
import triton_python_backend_utils as pb_utils

BUSY = -1


class TritonPythonModel:
    def initialize(self, args):
        self.number = 0

    def execute(self, requests):
        self.number += 1
        responses = []
        for place, request in enumerate(requests):
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            if (x == BUSY).all():
                time.sleep(1.0)
            batch = np.tile(np.array([self.number, place], np.int32), (max(1, len(x)), 1))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("BATCH", batch)]))
        return responses
"""

CONFIG = """
backend: "python"
max_batch_size: 8
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ {dims} ] {ragged} }} ]
input [ {{ name: "MORE" data_type: TYPE_FP32 dims: [ 1 ] optional: {optional} }} ]
output [ {{ name: "BATCH" data_type: TYPE_INT32 dims: [ 2 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ {batching} }}
"""


@dataclass(frozen=True)
class Arrival:
    """One request; `gap_ms` after the one before."""

    rows: int = 1
    width: int = 1
    has_more: bool = True
    priority: int = 0
    timeout_us: int = 0
    gap_ms: int = 20


@dataclass(frozen=True)
class Pattern:
    """A model and what arrives there."""

    id: str
    arrivals: tuple[Arrival, ...]
    batching: str = ""
    dims: str = "1"
    is_ragged: bool = False
    is_optional: bool = False
    is_live: bool = False

    def config(self) -> str:
        """Return its model's configuration."""
        return CONFIG.format(
            dims=self.dims,
            ragged="allow_ragged_batch: true" if self.is_ragged else "",
            optional=str(self.is_optional).lower(),
            batching=self.batching,
        )


# With any queue policy Triton forms batches when the instance asks, as we always do. Without, it
# has up to two batches ready ahead, which is visible in the pattern whose name ends in _ahead.
POLICY = "default_queue_policy { max_queue_size: 100 }"
LEVELS = (
    "preferred_batch_size: [ 1 ] priority_levels: 3 default_priority_level: 2 "
    "priority_queue_policy { key: 3 value { max_queue_size: 1 } }"
)


def _sizes(*rows: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(rows=n) for n in rows)


def _widths(*widths: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(width=n) for n in widths)


def _more(text: str) -> tuple[Arrival, ...]:
    return tuple(Arrival(has_more=letter == "y") for letter in text)


def _levels(*priorities: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(priority=n) for n in priorities)


def _timeouts(*timeouts_ms: int) -> tuple[Arrival, ...]:
    return tuple(Arrival(timeout_us=1000 * n) for n in timeouts_ms)


PATTERNS = (
    Pattern("sizes_5_4_1", _sizes(5, 4, 1), POLICY),
    Pattern("sizes_3_3_3_3", _sizes(3, 3, 3, 3), POLICY),
    Pattern("sizes_8_1_8", _sizes(8, 1, 8), POLICY),
    Pattern("ten_of_one", _sizes(*[1] * 10), POLICY),
    Pattern("preferred_4", _sizes(*[1] * 6), "preferred_batch_size: [ 4 ] " + POLICY),
    Pattern("preferred_2_4_ahead", _sizes(*[1] * 5), "preferred_batch_size: [ 2, 4 ]"),
    Pattern("preferred_2_4", _sizes(*[1] * 5), "preferred_batch_size: [ 2, 4 ] " + POLICY),
    Pattern("preferred_2_4_seven", _sizes(*[1] * 7), "preferred_batch_size: [ 2, 4 ] " + POLICY),
    Pattern("preferred_4_sizes_3_2", _sizes(3, 2, 2), "preferred_batch_size: [ 4 ] " + POLICY),
    Pattern("preferred_2_size_3", _sizes(3, 1, 1, 1), "preferred_batch_size: [ 2 ] " + POLICY),
    Pattern(
        "preferred_4_delay_over",
        _sizes(*[1] * 6),
        "preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 50000 " + POLICY,
    ),
    Pattern("widths_2_3_2_2", _widths(2, 3, 2, 2), POLICY, dims="-1"),
    Pattern("widths_ragged", _widths(2, 3, 2), POLICY, dims="-1", is_ragged=True),
    Pattern("optional_sets", _more("nynn"), POLICY, is_optional=True),
    Pattern("one_level", _levels(0, 1, 2), "priority_levels: 1 default_priority_level: 1"),
    Pattern("priorities", _levels(2, 3, 3, 2, 1, 9), LEVELS),
    Pattern("queue_size", _sizes(*[1] * 4), "default_queue_policy { max_queue_size: 2 }"),
    Pattern(
        "reject",
        _timeouts(0, 100, 5000, 0),
        "default_queue_policy { default_timeout_microseconds: 10000000 "
        "allow_timeout_override: true }",
    ),
    Pattern(
        "override_without_default",
        _timeouts(0, 100, 0),
        "default_queue_policy { allow_timeout_override: true }",
    ),
    Pattern(
        "delay_action",
        _timeouts(100, 0, 100, 0),
        "preferred_batch_size: [ 1 ] default_queue_policy { timeout_action: DELAY "
        "default_timeout_microseconds: 10000000 allow_timeout_override: true }",
    ),
    Pattern(
        "live_preferred_3",
        tuple(Arrival(gap_ms=30) for _ in range(3)),
        "preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 400000",
        is_live=True,
    ),
    Pattern(
        "live_preferred_5",
        tuple(Arrival(gap_ms=30) for _ in range(5)),
        "preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 400000",
        is_live=True,
    ),
    Pattern(
        "live_incompatible",
        _widths(2, 2, 3, 3),
        "max_queue_delay_microseconds: 400000",
        dims="-1",
        is_live=True,
    ),
    Pattern(
        "live_too_large",
        _sizes(5, 4, 1),
        "max_queue_delay_microseconds: 400000",
        is_live=True,
    ),
)
