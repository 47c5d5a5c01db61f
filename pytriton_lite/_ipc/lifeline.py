"""How a stub learns that its parent is gone.

The parent holds the only write end of a pipe, the lifeline; the stub reads from the other end,
where nothing ever comes but the end of file. PR_SET_PDEATHSIG would do the same with less, but it
fires when the *thread* that started the stub ends.

This module is the stub's side, and imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

# Tells the stub which descriptor is its end.
LIFELINE_VARIABLE = "PYTRITON_LITE_LIFELINE"


def take_lifeline() -> int | None:
    """Descriptor of this process's lifeline, once; None if its parent gave it none.

    Afterwards neither the environment nor the descriptor reaches children of this process.
    """
    text = os.environ.pop(LIFELINE_VARIABLE, None)
    if text is None:
        return None
    fd = int(text)
    os.set_inheritable(fd, False)
    return fd


def watch_lifeline(
    fd: int, on_parent_gone: Callable[[], object] | None = None, *, grace_s: float = 0.0
) -> threading.Thread:
    """End this process, and its process group, when the parent closes the lifeline or dies.

    Parameters
    ----------
    fd
        What `take_lifeline` returned. Owned by the watching thread from here on.
    on_parent_gone
        Called first, on the watching thread; what it raises is ignored.
    grace_s
        Time that the process has to end by itself after that, before everything is killed.

    Notes
    -----
    The thread needs the GIL when the time has come: a stub stuck in native code that never
    releases it stays.
    """
    os.fstat(fd)  # a wrong descriptor is an error here, and not the end of the parent
    thread = threading.Thread(
        target=_watch, args=(fd, on_parent_gone, grace_s), name="lifeline", daemon=True
    )
    thread.start()
    return thread


def _watch(fd: int, on_parent_gone: Callable[[], object] | None, grace_s: float) -> None:
    try:
        while os.read(fd, 64):
            pass
    except OSError:
        pass  # model code closed it: without a lifeline there is no telling when to end
    try:
        if on_parent_gone is not None:
            on_parent_gone()
            time.sleep(grace_s)
    finally:
        kill_own_group()


def kill_own_group() -> None:
    """Kill this process and, where it leads its process group, the whole group."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
