"""A folder by which children of the process find the private modules of instances.

A child of the multiprocessing start methods ``spawn`` and ``forkserver`` gets the parent's
`sys.path` and imports by name what is unpickled. So a folder at the end of `sys.path` has a file
for each namespace, named like its private package; importing it makes the namespace anew, in the
child (see `_instance.spawned`). The folder is made when the first child is about to be started
and goes with the last instance.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence

from pytriton_lite._instance.import_lists import remove_folders

_log = logging.getLogger("pytriton_lite.instance")

# The standard library imports the one or the other when it starts the first child by `spawn` or
# `forkserver`, before it looks at `sys.path`.
TRIGGERS = frozenset({"multiprocessing.popen_spawn_posix", "multiprocessing.popen_forkserver"})


class SpawnFolder:
    """The folder of a process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path = ""  # empty while there is none
        self._owner_pid = 0
        self._roots: set[str] = set()

    def add(self, root: str, search_path: Sequence[str], folders: Sequence[str]) -> None:
        """Let children import the namespace `root`; arguments as for `ModuleNamespace`.

        A failure is logged only: without the file all works but such children.
        """
        text = (
            "from pytriton_lite._instance.spawned import install\n"
            f"install(__name__, {list(search_path)!r}, {list(folders)!r})\n"
        )
        try:
            with self._lock:
                if self._owner_pid != os.getpid():  # none yet, or that of a process that forked
                    self._path, self._roots, self._owner_pid = "", set(), os.getpid()
                self._path = self._path or tempfile.mkdtemp(prefix="pytriton_lite_spawn_")
                self._roots.add(root)
                with open(self._file(root), "w", encoding="utf-8") as file:
                    file.write(text)
                if self._path not in sys.path:
                    sys.path.append(self._path)
        except OSError as error:
            _log.warning("spawned children cannot import the modules of a model: %s", error)

    def remove(self, root: str) -> None:
        """Forget a namespace, known or not; the folder goes with the last one."""
        with self._lock:
            if root not in self._roots or self._owner_pid != os.getpid():
                return
            self._roots.remove(root)
            with contextlib.suppress(OSError):
                os.remove(self._file(root))
            if self._roots:
                return
            path, self._path = self._path, ""
            remove_folders([path])
        shutil.rmtree(path, ignore_errors=True)

    def _file(self, root: str) -> str:
        return os.path.join(self._path, f"{root}.py")
