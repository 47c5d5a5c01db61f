"""The other way to a process: `multiprocessing.Pipe`, whose ends pickle what they send."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

STREAM = "stream"
"""A job ``(STREAM, n)`` is answered n times, and then with None."""

TOKEN = np.zeros(1, dtype=np.int32)


def serve(end: Connection) -> None:
    """Answer each dict of arrays with what the models here would say; None ends."""
    while (job := end.recv()) is not None:
        if isinstance(job, tuple):
            for _ in range(job[1]):
                end.send({"TOKEN": TOKEN})
            end.send(None)
        elif len(job) == 2:
            a, b = job["INPUT0"], job["INPUT1"]
            end.send({"OUTPUT0": (a + b).astype(np.float32), "OUTPUT1": (a - b).astype(np.float32)})
        else:
            end.send({})


@dataclass(frozen=True, slots=True)
class Peer:
    """A process that serves, and our end of the pipe to it."""

    pid: int
    end: Connection

    def call(self, inputs: dict[str, Any]) -> Any:
        """Send inputs and wait for the outputs."""
        self.end.send(inputs)
        return self.end.recv()


@contextmanager
def pipe_peer() -> Iterator[Peer]:
    """A fresh process at the other end of a pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        yield Peer(process.pid, ours)
        with suppress(BrokenPipeError):  # it was killed
            ours.send(None)
    finally:
        ours.close()
        process.join()
