"""What a test of stub processes looks at: children, descriptors, shared memory."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path

import pytriton_lite as ptl
from pytriton_lite._ipc.wire import Link


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`, zombies too."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            stat = Path("/proc", entry, "stat").read_text()
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry))
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path("/proc", str(pid), "stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def open_files() -> list[str]:
    """What the descriptors of this process lead to, sorted; pipes and the like by kind."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}").partition(":")[0])
    return sorted(found)


def opened_since(before: list[str]) -> list[str]:
    """What is open and was not at the time of `before`; the garbage of others may have gone."""
    return sorted((Counter(open_files()) - Counter(before)).elements())


def mapped_segments() -> int:
    """Number of memories shared with stubs that this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:pytriton_lite (")


def resident_bytes() -> int:
    """Memory of this process, without what it shares with others or with files."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel does not say")


def link_of(server: ptl.Server, name: str = "m") -> Link:
    """The server's end of what it shares with the stub of a model's only instance."""
    loaded = server._loaded.models.get(name, 1)
    return loaded.instances[0]._stub._link  # type: ignore[attr-defined, no-any-return]
