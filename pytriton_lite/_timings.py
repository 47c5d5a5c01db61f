"""Where the time of a request went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of a request, in nanoseconds, as Triton's statistics define them.

    Attributes
    ----------
    queue
        From its arrival until an instance took it.
    compute_input
        Until its inputs were where the model is. 0 in this process, where nothing is copied.
    compute_infer
        Until `execute` was over, or a response sender had sent this response. Of a batch, all
        requests have the same.
    compute_output
        Until the answer was there. 0 in this process.
    total
        All of these. Without what the caller's thread needed to wake up.
    """

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int
    total: int
