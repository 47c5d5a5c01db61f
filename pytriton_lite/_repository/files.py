"""When the files of a model were last modified."""

from __future__ import annotations

import os
from typing import TypeAlias

FileTimes: TypeAlias = dict[str, tuple[int, int]]


def file_times(folder: str) -> FileTimes:
    """When each file of a model was last modified, in ns, and its size, by path.

    Folders are there without a time, so that an empty one counts, too. What Python compiles on
    import does not count; on Triton it does, once.
    """
    times: FileTimes = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        times.update({os.path.join(at, name): (0, 0) for name in folders})
        for name in names:
            path = os.path.join(at, name)
            try:
                found = os.stat(path)
            except OSError:
                continue  # a broken link, or gone meanwhile
            times[path] = (found.st_mtime_ns, found.st_size)
    return times
