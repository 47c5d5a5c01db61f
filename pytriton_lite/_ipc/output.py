"""What stubs write to stdout and stderr, line by line in the parent."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

_log = logging.getLogger("pytriton_lite.ipc")

# A longer line comes as several lines of this size: what waits for its end has to be kept.
LINE_LIMIT_BYTES = 16 << 10

# What may wait to be printed, per stub. Beyond it nothing more is read, and the stub waits in
# `write` when its pipe (64 KiB) is full too.
BACKLOG_LIMIT_BYTES = 256 << 10

# When one write to the parent's stdout or stderr takes this long, it is blocked (a stopped pager,
# a terminal on hold); from there on lines are dropped and counted, so that no model is blocked.
STALL_S = 5.0

_CONTINUATION = 0x80  # the top bits of a byte that is not the first of its UTF-8 character
_CONTINUATION_MASK = 0xC0
_LONGEST_TAIL = 3  # such bytes of one character


class LineSplitter:
    r"""Makes lines of text from bytes that come in pieces.

    Lines end with ``\n`` or ``\r\n``. Bytes that are not UTF-8 are replaced. A line longer than
    the limit is split at the last character that fits.
    """

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Lines that are complete with these bytes, without their ends."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        lines: list[str] = []
        for line in complete:
            lines.append(_text(self._cut(line, lines)))
        self._rest = self._cut(self._rest, lines)
        return lines

    def finish(self) -> list[str]:
        """The last line, if it has no end."""
        lines = self.pending()
        self._rest = b""
        return lines

    def pending(self) -> list[str]:
        """The line that has begun, if there is one."""
        return [_text(self._rest)] if self._rest else []

    def _cut(self, line: bytes, lines: list[str]) -> bytes:
        """Move what is beyond the limit to `lines`; returns the rest."""
        start = 0
        while len(line) - start > self._limit:
            # Decided by the bytes before the cut and the one behind it, all of them here:
            # how the bytes were divided into pieces makes no difference.
            end = start + self._limit
            for _ in range(min(_LONGEST_TAIL, self._limit - 1)):
                if line[end] & _CONTINUATION_MASK != _CONTINUATION:
                    break
                end -= 1
            if line[end] & _CONTINUATION_MASK == _CONTINUATION:
                end = start + self._limit  # not UTF-8
            lines.append(line[start:end].decode(errors="replace"))
            start = end
        return line[start:]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


class OutputPipe:
    """The parent's end of a stub's stdout or stderr. Only the thread that reads it uses it."""

    def __init__(self, stream: str, fd: int) -> None:
        self.stream = stream
        self.fd = fd  # -1 when closed
        self.splitter = LineSplitter()


class Channel:
    """One stub's lines on their way to the printer; made by `Printer.open`.

    Attributes
    ----------
    is_done
        Set when everything of a closed channel has been printed.
    """

    def __init__(self, name: str, on_line: Callable[[str, str], object] | None) -> None:
        self.name = name
        self.on_line = on_line
        self.is_done = threading.Event()
        # Guarded by the printer's lock.
        self.backlog_bytes = 0
        self.is_losing = False
        self.lost_count = 0

    @property
    def is_full(self) -> bool:
        """Whether the stub should wait."""
        return self.backlog_bytes > BACKLOG_LIMIT_BYTES and not self.is_losing

    @property
    def has_room(self) -> bool:
        """Whether the stub may go on."""
        return self.backlog_bytes <= BACKLOG_LIMIT_BYTES // 2


class Printer:
    """One thread that writes the lines of all stubs to the parent's current stdout and stderr.

    It is a thread of its own because such a write may block, and must not keep anybody from
    seeing that a stub died.

    Parameters
    ----------
    on_room
        Called on the printer's thread when a channel that was full has room again.
    """

    def __init__(self, on_room: Callable[[], object]) -> None:
        self._on_room = on_room
        self._condition = threading.Condition()
        self._queue: deque[tuple[Channel, str, list[str], int]] = deque()
        self._busy_since_ns: int | None = None
        self._is_finishing = False
        # A daemon: a blocked stdout must not keep the process from ending.
        self.thread = threading.Thread(target=self._main, name="pytriton_lite-output", daemon=True)
        self.thread.start()

    @property
    def is_stalled(self) -> bool:
        """Whether a write or a callback has been blocked for long."""
        since_ns = self._busy_since_ns
        return since_ns is not None and time.monotonic_ns() - since_ns > STALL_S * 1e9

    def open(self, name: str, on_line: Callable[[str, str], object] | None) -> Channel:
        """Make the channel of a stub."""
        return Channel(name, on_line)

    def put(self, channel: Channel, stream: str, lines: Sequence[str]) -> None:
        """Have lines printed; never waits. They are lost if the channel is losing."""
        if not lines:
            return
        with self._condition:
            if channel.is_losing:
                if not channel.has_room:
                    channel.lost_count += len(lines)
                    return
                self._report_lost(channel)
            self._enqueue(channel, stream, list(lines))

    def lose(self, channel: Channel) -> None:
        """Drop lines of a full channel until it has room."""
        with self._condition:
            channel.is_losing = True

    def close(self, channel: Channel) -> None:
        """Set `Channel.is_done` when what was put has been printed."""
        with self._condition:
            self._report_lost(channel)
            self._enqueue(channel, "", [])

    def finish(self) -> None:
        """End the thread when everything has been printed."""
        with self._condition:
            self._is_finishing = True
            self._condition.notify()

    def _report_lost(self, channel: Channel) -> None:
        if channel.lost_count:
            text = f"... {channel.lost_count} lines were lost, because the output was blocked"
            self._enqueue(channel, "stderr", [text])
        channel.is_losing = False
        channel.lost_count = 0

    def _enqueue(self, channel: Channel, stream: str, lines: list[str]) -> None:
        # A short string takes far more memory than its characters.
        nbytes = sum(map(len, lines)) + 64 * len(lines)
        channel.backlog_bytes += nbytes
        self._queue.append((channel, stream, lines, nbytes))
        self._condition.notify()

    def _main(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._is_finishing:
                    self._condition.wait()
                if not self._queue:
                    return
                channel, stream, lines, nbytes = self._queue.popleft()
                self._busy_since_ns = time.monotonic_ns()
            if not lines:
                channel.is_done.set()
            elif channel.on_line is None:
                _print(stream, "".join([f"[{channel.name}] {line}\n" for line in lines]))
            else:
                _call(channel.on_line, stream, lines)
            with self._condition:
                self._busy_since_ns = None
                had_room = channel.has_room
                channel.backlog_bytes -= nbytes
                has_room = channel.has_room
            if has_room and not had_room:
                self._on_room()


def _print(stream: str, text: str) -> None:
    """Write to what `sys` has now; nowhere if that does not work."""
    file = getattr(sys, stream)
    try:
        try:
            file.write(text)
        except UnicodeEncodeError:
            file.write(text.encode(file.encoding, "backslashreplace").decode(file.encoding))
        file.flush()
    except Exception:
        # Closed, None, or replaced by something with a defect. Logging would go the same way.
        _log.debug("cannot write to sys.%s", stream, exc_info=True)


def _call(on_line: Callable[[str, str], object], stream: str, lines: list[str]) -> None:
    for line in lines:
        try:
            on_line(stream, line)
        except BaseException:  # a SystemExit, too, would end the thread that serves all
            _log.exception("the callback for output failed")
