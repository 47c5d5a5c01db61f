"""When the files of a model were last modified."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import TypeAlias

FileTimes: TypeAlias = dict[str, tuple[int, int]]

_CACHE = "__pycache__"
_FOLDER = (0, 0)

# What editors keep beside a file while it is open: swap files, automatic saves and backups.
_OF_EDITORS = re.compile(r"\..*\.sw[a-px]|#.*#|.*~|4913")


def file_times(path: str) -> FileTimes:
    """When each file of a model was last modified, in ns, and its size, by path.

    Folders are there without a time, so that an empty one counts, too. Links are followed. What
    Python compiles on import does not count; on Triton it does, once.
    """
    times: FileTimes = {}
    for entry in _walk(path):
        if entry.is_dir():
            times[entry.path] = _FOLDER
            continue
        with contextlib.suppress(OSError):  # a broken link, or gone meanwhile
            found = os.stat(entry.path)
            times[entry.path] = (found.st_mtime_ns, found.st_size)
    return times


def _walk(folder: str, above: frozenset[str] = frozenset()) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, without what Python compiles; nothing if it is not there."""
    here = os.path.realpath(folder)
    if here in above:
        return  # a link leads back to where it is
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif entry.name != _CACHE:
            yield entry
            yield from _walk(entry.path, above | {here})


def remove_stale_bytecode(folder: str) -> None:
    """Remove what Python compiled of sources that have been modified since.

    It compares whole seconds and the size only, and so would go on with the old code after a
    quick edit that keeps the size.
    """
    caches = [os.path.join(folder, _CACHE)]
    caches += [os.path.join(e.path, _CACHE) for e in _walk(folder) if e.is_dir()]
    for cache in caches:
        try:
            compiled = [entry for entry in os.scandir(cache) if entry.name.endswith(".pyc")]
        except OSError:
            continue
        for entry in compiled:
            source = os.path.join(os.path.dirname(cache), entry.name.split(".")[0] + ".py")
            # Not there, or not ours to remove: then Python decides.
            with contextlib.suppress(OSError):
                if os.stat(source).st_mtime_ns >= entry.stat().st_mtime_ns:
                    os.unlink(entry.path)


class ReadFiles:
    """The files that a load reads, to tell later whether they have changed.

    What the model itself writes at each load is no change: what was modified during this load and
    during the last one, too.

    Attributes
    ----------
    written
        Those that the model writes.
    roots
        Where changes happen: folders, with all below them, and files.
    """

    def __init__(self) -> None:
        self._paths: list[str] = []
        self._before: FileTimes = {}
        self._moved: frozenset[str] = frozenset()
        self.written: frozenset[str] = frozenset()
        self.roots: frozenset[str] = frozenset()

    def add(self, path: str) -> None:
        """Note a file, or a folder with all below it, before anything of it is read."""
        self._paths.append(path)
        self._before.update(_times_of(path))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was noted."""
        return not self._paths

    def again(self) -> ReadFiles:
        """The same files, as they are now."""
        read = ReadFiles()
        for path in self._paths:
            read.add(path)
        return read

    def note_loaded(self, last: ReadFiles | None) -> None:
        """The load has ended. `last` is that of the load before."""
        self._moved = frozenset(difference(self._before, self._now()))
        if last is not None:
            self.written = self._moved & last._moved
        self.roots = frozenset(root for path in self._paths for root in _roots_of(path))

    def changes(self) -> FileTimes:
        """What has changed since the load began, as it is now; what has gone is ``(-1, -1)``."""
        found = difference(self._before, self._now())
        return {path: times for path, times in found.items() if path not in self.written}

    def _now(self) -> FileTimes:
        now: FileTimes = {}
        for path in self._paths:
            now.update(_times_of(path))
        return now


def _times_of(path: str) -> FileTimes:
    if os.path.isdir(path):
        times = file_times(path)
        passed_over = len(path) + 1
        return {
            found: time
            for found, time in times.items()
            if not _is_of_tool(found[passed_over:], is_folder=time == _FOLDER)
        }
    try:
        found = os.stat(path)
    except OSError:
        return {}
    return {path: (found.st_mtime_ns, found.st_size)}


def _is_of_tool(path: str, *, is_folder: bool) -> bool:
    """Whether a path below a model's folder is no part of the model."""
    *folders, name = path.split(os.sep)
    if is_folder:
        folders.append(name)
    # Hidden folders are those of version control and of the caches of linters.
    if any(folder.startswith(".") for folder in folders):
        return True
    return not is_folder and _OF_EDITORS.fullmatch(name) is not None


def difference(before: FileTimes, now: FileTimes) -> FileTimes:
    """What has changed, as it is now; what has gone is ``(-1, -1)``."""
    changed = {path: times for path, times in now.items() if before.get(path) != times}
    return changed | {path: (-1, -1) for path in before.keys() - now.keys()}


def _roots_of(path: str) -> Iterator[str]:
    """Where changes of it happen: itself, and what links in it lead to."""
    yield os.path.realpath(path)
    for entry in _walk(path):
        if entry.is_symlink():
            yield os.path.realpath(entry.path)
