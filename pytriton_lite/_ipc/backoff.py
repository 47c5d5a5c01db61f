"""When a dead process is started again."""

from __future__ import annotations

import time
from collections.abc import Callable


class Backoff:
    """Delays before restarts: none at first, then doubling up to a limit.

    Parameters
    ----------
    first_s
        Delay before the second restart in a row; the first one comes at once.
    limit_s
        The longest delay.
    reset_s
        A process that lived this long since `began` counts as healthy: its death is the first.
    clock_ns
        Where the time comes from.

    Notes
    -----
    One owner calls it; it has no lock.
    """

    def __init__(
        self,
        *,
        first_s: float = 0.1,
        limit_s: float = 10.0,
        reset_s: float = 30.0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._reset_ns = round(reset_s * 1e9)
        self._clock_ns = clock_ns
        self._began_ns: int | None = None
        self._failure_count = 0

    @property
    def failure_count(self) -> int:
        """Deaths in a row."""
        return self._failure_count

    def began(self) -> None:
        """Take note that the process is at work."""
        self._began_ns = self._clock_ns()

    def failed(self) -> float:
        """Take note that the process died; returns the seconds to wait before a new one.

        A process that died before `began` was called has not lived at all.
        """
        began_ns, self._began_ns = self._began_ns, None
        if began_ns is not None and self._clock_ns() - began_ns >= self._reset_ns:
            self._failure_count = 0
        self._failure_count += 1
        if self._failure_count == 1:
            return 0.0
        # The exponent is bounded, since a float's is.
        doublings = min(self._failure_count - 2, 64)
        return float(min(self._first_s * 2**doublings, self._limit_s))
