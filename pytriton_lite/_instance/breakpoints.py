"""Breakpoints of stubs at the terminal of this process: the server's side.

::

    (none) --- "breakpoint_open" ---> WAITING --- the terminal is free ---> OPEN
       ^                                                                    |  ^
       |                                              "breakpoint_write", "breakpoint_read"
       +------------ "breakpoint_close", or the stub is gone ---------------+--+

One breakpoint at a time has the terminal, of all stubs of all servers. The stub's side is
`stub_debugger`.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from typing import Any

from pytriton_lite._ipc.questions import Answerer
from pytriton_lite.errors import UnavailableError, UnsupportedError

OPEN, READ, WRITE, CLOSE = (f"breakpoint_{what}" for what in ("open", "read", "write", "close"))

_READ_BYTES = 64 << 10


class Terminal:
    """The terminal that this process was started in."""

    def __init__(self) -> None:
        self._unread = b""

    def is_there(self) -> bool:
        """Whether somebody can type."""
        with contextlib.suppress(Exception):  # closed, None, or something without a descriptor
            fd = sys.stdin.fileno()
            # Reading in the background would stop the process.
            return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
        return False

    def write(self, text: str) -> None:
        """Show text, on stderr if stdout goes elsewhere."""
        file = sys.stdout if sys.stdout is not None and sys.stdout.isatty() else sys.stderr
        if file is not None:
            file.write(text)
            file.flush()

    def read_line(self, wake_fd: int) -> str:
        """Wait for a line; nothing at its end, or when `wake_fd` can be read."""
        fd = sys.stdin.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(wake_fd, select.POLLIN)
        while b"\n" not in self._unread:
            ready = {number for number, _ in poll.poll()}
            data = b"" if wake_fd in ready else os.read(fd, _READ_BYTES)
            if not data:
                line, self._unread = self._unread, b""
                break
            self._unread += data
        else:
            line, end, self._unread = self._unread.partition(b"\n")
            line += end
        return line.decode(sys.stdin.encoding or "utf-8", "replace")


terminal = Terminal()
"""What breakpoints use; an application may put something with the same methods here."""

_turns = threading.Condition()
_owner: Breakpoints | None = None  # whose breakpoint has the terminal; guarded by `_turns`


class Breakpoints:
    """Those of one stub.

    Parameters
    ----------
    answerer
        Of the stub.
    model_name
        For errors.
    """

    def __init__(self, answerer: Answerer, model_name: str) -> None:
        self._model_name = model_name
        # Guarded by `_turns`.
        self._wake_fd = -1  # made at the first breakpoint
        self._count = 0  # open or waiting
        self._began_ns = 0
        self._paused_ns = 0
        self._reader_count = 0
        self._is_closed = False
        for what, answer in (
            (OPEN, self._open),
            (READ, self._read),
            (WRITE, self._write),
            (CLOSE, self._close),
        ):
            # Terminals block: Ctrl-S stops their output.
            answerer.add(what, answer, may_wait=True)

    def paused_ns(self) -> int:
        """Time that the stub has spent at breakpoints; waits for the end of an open one."""
        with _turns:
            _turns.wait_for(lambda: not self._count or self._is_closed)
            return self._paused_ns

    def close(self) -> None:
        """The stub is gone. Does not wait. Safe to call again."""
        with _turns:
            if self._is_closed:
                return
            self._is_closed = True
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)
            self._release()
            self._close_wake_fd()

    def _open(self, _data: Any) -> None:
        global _owner  # noqa: PLW0603 - there is one terminal
        if not terminal.is_there():
            raise UnsupportedError(
                "the server has no terminal: its stdin is none, or it runs in the background",
                model=self._model_name,
            )
        with _turns:
            if not self._count:
                self._began_ns = time.monotonic_ns()
            self._count += 1
            _turns.wait_for(lambda: self._is_closed or _owner is None)
            if self._is_closed:
                raise UnavailableError("the process is gone", model=self._model_name)
            _owner = self
            if self._wake_fd < 0:
                self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)

    def _read(self, _data: Any) -> str:
        with _turns:
            if _owner is not self:
                return ""
            self._reader_count += 1
        try:
            return terminal.read_line(self._wake_fd)
        finally:
            with _turns:
                self._reader_count -= 1
                self._close_wake_fd()

    def _write(self, text: Any) -> None:
        if _owner is self:
            terminal.write(str(text))

    def _close(self, _data: Any) -> None:
        with _turns:
            self._release()

    def _release(self) -> None:
        """Let the next one have the terminal. The lock is held."""
        global _owner  # noqa: PLW0603 - see `_open`
        if _owner is self:
            _owner = None
            self._count -= 1
            if not self._count:
                self._paused_ns += time.monotonic_ns() - self._began_ns
        _turns.notify_all()

    def _close_wake_fd(self) -> None:
        """Close it once nobody can be waiting for it. The lock is held."""
        if self._is_closed and not self._reader_count and self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1
