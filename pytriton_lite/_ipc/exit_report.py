"""How a process ended, as a record and in words."""

from __future__ import annotations

import signal
import textwrap
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExitReport:
    """The end of a process.

    Attributes
    ----------
    name
        What the process is called in texts, for example the instance's name.
    pid
        Its process id; another process may have it by now.
    exit_code
        What it exited with; None if a signal ended it, or if nobody knows.
    signal_name
        The signal that ended it, such as ``SIGSEGV``; None if it exited, or if nobody knows.
    is_expected
        Whether `StubProcess.terminate` or `kill` came first.
    last_lines
        The last lines that it wrote to stderr.
    started_ns, died_ns
        When it was started and when its death was noticed (`time.monotonic_ns`).
    """

    name: str
    pid: int
    exit_code: int | None
    signal_name: str | None
    is_expected: bool
    last_lines: tuple[str, ...]
    started_ns: int
    died_ns: int

    @property
    def lived_s(self) -> float:
        """How long it lived."""
        return (self.died_ns - self.started_ns) / 1e9


def describe_exit(report: ExitReport) -> str:
    """Words that follow the name of the process: how it ended and what it said last."""
    if report.signal_name is not None:
        text = f"was killed by {report.signal_name}"
    elif report.exit_code is not None:
        text = f"exited with code {report.exit_code}"
    else:
        text = "ended; its exit code is not known, since something else waited for it"
    if report.last_lines:
        text += "; its last lines on stderr:\n"
        # Blank lines too, so that the reader sees where the text ends.
        text += textwrap.indent("\n".join(report.last_lines), "    ", lambda line: True)
    return text


def signal_name(number: int) -> str:
    """``SIGTERM`` for 15; real-time signals count from ``SIGRTMIN``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return f"signal {number}"
