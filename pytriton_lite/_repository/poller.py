"""The thread that looks for changes of the model repositories, in poll mode."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger("pytriton_lite.server")


class Poller:
    """Calls a function every so many seconds, on a thread of its own.

    Parameters
    ----------
    poll
        What to call. An exception is logged, and the next call is made all the same.
    interval
        Seconds between the end of one call and the next one; 0: never.
    """

    def __init__(self, poll: Callable[[], None], interval: float) -> None:
        self._poll = poll
        self._interval = interval
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless the interval is 0."""
        if self._interval > 0:
            # A daemon: a model's `initialize` may never return.
            self._thread = threading.Thread(target=self._run, name="model-poll", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._poll()
            except Exception:
                if not self._stopping.is_set():
                    _log.exception("polling the model repositories failed")

    def stop(self) -> None:
        """Begin no more calls; does not wait for one under way."""
        self._stopping.set()

    def join(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for the call under way."""
        if self._thread is not None:
            self._thread.join(timeout)
