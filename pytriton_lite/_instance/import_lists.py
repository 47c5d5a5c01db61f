"""Changes of `sys.meta_path` and `sys.path` while other threads import.

An import walks along these lists. Were an entry removed from the list itself, all behind it would
move up by one, and a thread that had just passed the entry would step over the next finder or
folder: "No module named 'socket'". So a list without the entry takes its place, and whoever walks
along the old one gets to its end.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Collection
from typing import Any

_lock = threading.Lock()  # two threads that change a list at once


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - the thread that had it is not in the child
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def add_finder_first(finder: Any) -> None:
    """Ask `finder` for modules before all others."""
    with _lock:
        sys.meta_path = [finder, *sys.meta_path]


def add_finder_last(finder: Any) -> None:
    """Ask `finder` for modules after all others."""
    with _lock:
        sys.meta_path = [*sys.meta_path, finder]


def remove_finder(finder: Any) -> None:
    """Ask `finder` no more; nothing happens if it is not asked."""
    with _lock:
        sys.meta_path = [other for other in sys.meta_path if other is not finder]


def remove_folders(folders: Collection[str]) -> None:
    """Search for modules no more in `folders`, and forget what was found there."""
    if not folders:
        return
    with _lock:
        sys.path = [folder for folder in sys.path if folder not in folders]
    for folder in folders:
        sys.path_importer_cache.pop(folder, None)
