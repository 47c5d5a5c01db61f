"""Looks again at what may be stuck, from time to time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pytriton_lite._core.deadlock import watch_slice_s

_log = logging.getLogger("pytriton_lite.ipc")


class LookOut:
    """Calls functions as often as deadlocks are looked for, while there are any.

    Parameters
    ----------
    name
        Of its thread, which is there only while there is something to look at.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._looks: dict[object, Callable[[], object]] = {}
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, key: object, look: Callable[[], object]) -> None:
        """Call ``look()`` from time to time until `discard`."""
        with self._lock:
            self._looks[key] = look
            if self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def discard(self, key: object) -> None:
        """Call the function no more. Takes no lock: this may be called from anywhere."""
        self._looks.pop(key, None)

    def close(self) -> None:
        """End the thread."""
        self._is_closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(watch_slice_s()):
            for look in list(self._looks.values()):
                try:
                    look()
                except Exception:
                    _log.exception("a look at a BLS request failed")
            with self._lock:
                if not self._looks:
                    self._thread = None
                    return
