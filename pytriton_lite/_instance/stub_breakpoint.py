"""`breakpoint()` in a stub."""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType
from typing import Any

from pytriton_lite._ipc.questions import Asker
from pytriton_lite.errors import TritonError


def install_breakpoints(asker: Asker, name: str) -> None:
    """Let `breakpoint()` of this process open pdb at the server's terminal.

    Where that is not possible, a message goes to stderr and the code goes on.
    ``PYTHONBREAKPOINT`` keeps its meaning.
    """
    owner = os.getpid()
    threads = threading.local()

    def hook(*args: Any, **kwargs: Any) -> Any:
        if os.environ.get("PYTHONBREAKPOINT") not in (None, "", "pdb.set_trace"):
            return sys.__breakpointhook__(*args, **kwargs)
        frame = sys._getframe(1)
        if os.getpid() != owner:
            _pass_over(frame, "this is a forked child of the instance's process")
            return None
        # One per thread: the next breakpoint may come before the last one is over.
        if not hasattr(threads, "debugger"):
            from pytriton_lite._instance.stub_debugger import StubDebugger

            threads.debugger = StubDebugger(asker, name)
        try:
            threads.debugger.stop_at(frame, *args, **kwargs)
        except TritonError as error:
            _pass_over(frame, str(error))
        return None

    sys.breakpointhook = hook


def _pass_over(frame: FrameType, why: str) -> None:
    print(
        f"{frame.f_code.co_filename}:{frame.f_lineno}: breakpoint() is passed over: {why}",
        file=sys.stderr,
        flush=True,
    )
