"""Hot reload: the thread that has models loaded anew when their files change."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pytriton_lite._repository.files import FileTimes

_log = logging.getLogger("pytriton_lite.server")

# How often files are looked at when nothing tells that they have changed.
LOOK_S = 0.5
# The same while watchfiles tells: for file systems that do not, and for what changes while its
# watch is being made.
CHECK_S = 1.0
# Changes that follow one another so closely are one: an editor writes a file in several steps.
STILL_S = 0.05
# A file that never rests does not hold up the others for longer.
RESTLESS_S = 2.0


class Watcher:
    """Looks for models whose files have changed, and has them loaded again.

    Whether something has changed is always read from the files. `watchfiles`, if it is installed,
    only says when to look; without it that is every `LOOK_S` seconds.

    Parameters
    ----------
    changed
        Gives the changed files by model.
    roots
        Gives the files and folders in which changes count.
    reload
        Takes what `changed` gave, and loads these models.
    """

    def __init__(
        self,
        changed: Callable[[], dict[str, FileTimes]],
        roots: Callable[[], frozenset[str]],
        reload: Callable[[Mapping[str, FileTimes]], None],
    ) -> None:
        self._changed = changed
        self._roots = roots
        self._reload = reload
        self._stopping = threading.Event()
        # A daemon: a model's `initialize` may never return.
        self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no more reloads; does not wait for one under way."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the reload under way."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        notices = _Notices(self._stopping)
        try:
            while not self._stopping.is_set():
                try:
                    changed = self._settled()
                    if changed:
                        self._reload(changed)
                        continue  # they may have changed meanwhile
                    roots = self._roots()
                except Exception:
                    if not self._stopping.is_set():
                        _log.exception("looking for changed models failed")
                    roots = frozenset()
                notices.wait(roots)
        finally:
            notices.close()

    def _settled(self) -> dict[str, FileTimes]:
        """What has changed, when nothing has changed any more for a moment."""
        changed = self._changed()
        until = time.monotonic() + RESTLESS_S
        while changed and not self._stopping.wait(STILL_S):
            before, changed = changed, self._changed()
            if changed == before or time.monotonic() > until:
                return changed
        return {}


class _Notices:
    """Tells when to look: by `watchfiles`, or after some time."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._watched: frozenset[str] = frozenset()
        self._events: Iterator[Any] | None = None
        try:
            import watchfiles
        except ImportError:
            self._watchfiles: Any = None
        else:
            self._watchfiles = watchfiles

    def wait(self, roots: frozenset[str]) -> None:
        """Wait until something may have changed, or until the stop."""
        roots = frozenset(path for path in roots if os.path.exists(path))
        if self._watchfiles is None or not roots:
            self._stopping.wait(LOOK_S)
            return
        try:
            if self._events is None or roots != self._watched:
                self.close()
                self._events, self._watched = self._watch(roots), roots
            if next(self._events, None) is not None:
                return
            self.close()  # it has ended: with the server, else for a reason of its own
            self._stopping.wait(LOOK_S)
        except Exception as error:
            self.close()
            if isinstance(error, FileNotFoundError):  # gone since the look above
                self._stopping.wait(LOOK_S)
                return
            # Such as no more watches to be had from the system.
            _log.warning(
                "watchfiles does not work, files are looked at every %g s: %s", LOOK_S, error
            )
            self._watchfiles = None

    def _watch(self, roots: frozenset[str]) -> Iterator[Any]:
        events: Iterator[Any] = self._watchfiles.watch(
            *sorted(roots),
            watch_filter=_counts,
            step=int(STILL_S * 1000),
            stop_event=self._stopping,
            rust_timeout=int(CHECK_S * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        return events

    def close(self) -> None:
        """Give the system's watches back."""
        if self._events is not None:
            self._events.close()  # type: ignore[attr-defined]
            self._events = None


def _counts(_change: Any, path: str) -> bool:
    return "__pycache__" not in path.split(os.sep)
