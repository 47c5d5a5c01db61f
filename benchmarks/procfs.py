"""What processes cost, as the system counts it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def children() -> set[int]:
    """Process ids of this process's children."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        # One may end meanwhile.
        with suppress(OSError):
            parent = status.read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(status.parent.name))
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """Nanoseconds that all threads of processes have run."""
    return sum(
        int(path.read_text(encoding="utf-8").split()[0])
        for pid in pids
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def switches(pids: Iterable[int]) -> int:
    """Context switches of all threads of processes, given up or taken away."""
    return sum(
        int(line.split()[1])
        for pid in pids
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.split(":")[0].endswith("ctxt_switches")
    )


def private_mib(pid: int) -> float:
    """Memory of a process that no other process has."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
