"""pdb of a stub at the terminal of the server. Imported when the first breakpoint is reached."""

from __future__ import annotations

import pdb
from types import FrameType
from typing import Any

from pytriton_lite._ipc.questions import Asker
from pytriton_lite._typing import override
from pytriton_lite.errors import TritonError

# Stepping out of the model's code leads here.
_OWN_MODULES = ("pytriton_lite.*",)


class _Terminal:
    """The server's terminal, with what pdb needs of a file."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._pending: list[str] = []
        self.is_open = False

    def open(self) -> None:
        """Wait for it; raises `TritonError` if there is none."""
        if not self.is_open:
            self._asker.ask("breakpoint_open")
            self.is_open = True

    def release(self) -> None:
        """Let others have it."""
        if self.is_open:
            self.flush()
            self.is_open = False
            self._ask("breakpoint_close")

    def write(self, text: str) -> int:
        """Show text, at once if it ends a line."""
        self._pending.append(text)
        if "\n" in text:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Show what was written."""
        text = "".join(self._pending)
        self._pending.clear()
        if text:
            self._ask("breakpoint_write", text)

    def readline(self) -> str:
        """Wait for a line."""
        self.flush()
        answer = self._ask("breakpoint_read")
        # The server is going: let the model end in order.
        return "continue\n" if answer is None else str(answer)

    def _ask(self, what: str, data: object = None) -> Any:
        try:
            return self._asker.ask(what, data)
        except TritonError:
            return None


class StubDebugger(pdb.Pdb):
    """pdb for one thread; has the terminal from a stop until the code goes on without stepping.

    Parameters
    ----------
    asker
        To the server.
    name
        For the prompt.
    """

    def __init__(self, asker: Asker, name: str) -> None:
        self._terminal = _Terminal(asker)
        file: Any = self._terminal
        super().__init__(stdin=file, stdout=file, nosigint=True, skip=_OWN_MODULES)
        self.prompt = f"({name} Pdb) "

    def stop_at(self, frame: FrameType, *, header: str | None = None) -> None:
        """Stop at the next line of a frame; raises `TritonError` if there is no terminal."""
        self._terminal.open()
        if header is not None:
            self.message(header)
        self.set_trace(frame)  # nothing of ours after it, which it would stop in

    @override
    def interaction(self, frame: FrameType | None, *details: Any) -> None:
        # A stop at a breakpoint that was set in an earlier session.
        try:
            self._terminal.open()
        except TritonError:
            self.set_continue()
            return
        super().interaction(frame, *details)

    @override
    def user_return(self, frame: FrameType, return_value: Any) -> None:
        super().user_return(frame, return_value)
        caller = frame.f_back
        if self._terminal.is_open and (
            caller is None or self.is_skipped_module(caller.f_globals.get("__name__", ""))
        ):
            # The next stop may never come, or at another request.
            self.set_continue()

    @override
    def set_continue(self) -> None:
        super().set_continue()
        self._terminal.release()

    @override
    def set_quit(self) -> None:
        super().set_quit()
        self._terminal.release()
