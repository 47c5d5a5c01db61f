"""The text that Triton makes of a Python exception (observed on 2.51).

``<TypeName>: <str>``, then, if there is a traceback, a blank line, ``At:`` and one line
``  <file>(<line>): <function>`` per frame, innermost first. Causes and notes are not shown.
The frames are those that called each other when the exception was raised, each with the
line it stopped at, so that a function that raises a caught exception again appears once.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import FrameType

# Frames of our own would tell a model's author nothing, and differ from Triton's text.
_OWN_FOLDER = str(Path(__file__).resolve().parents[1])


def describe_exception(error: BaseException, plain_prefix: str = "") -> str:
    """Text of `error`.

    Parameters
    ----------
    error
        What left model code.
    plain_prefix
        Private module prefix of the instance, which the text must not show.
    """
    text = _text_of(error, _running_frames())
    return text.replace(plain_prefix, "") if plain_prefix else text


def _text_of(error: BaseException, running: set[FrameType]) -> str:
    failure = None
    try:
        words = str(error) or "<EMPTY MESSAGE>"
    except BaseException as raised:  # a model's own class with a broken __str__
        words, failure = "<MESSAGE UNAVAILABLE DUE TO ANOTHER EXCEPTION>", raised
    text = f"{type(error).__name__}: {words}"
    lines = [
        f"  {frame.f_code.co_filename}({frame.f_lineno}): {frame.f_code.co_name}\n"
        for frame in _frames_of(error, running)
    ]
    if lines:
        text += "\n\nAt:\n" + "".join(lines)
    if failure is not None:
        text += f"\nMESSAGE UNAVAILABLE DUE TO EXCEPTION: {_text_of(failure, running)}"
    return text


def _running_frames() -> set[FrameType]:
    """Frames of the current call stack: none of them belongs to the model's part of a traceback."""
    running = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        running.add(frame)
        frame = frame.f_back
    return running


def _frames_of(error: BaseException, running: set[FrameType]) -> list[FrameType]:
    innermost: FrameType | None = None
    traceback = error.__traceback__
    while traceback is not None:
        # Compiled code has a frame here, but one that knows no caller.
        if not _is_own(traceback.tb_frame):
            innermost = traceback.tb_frame
        traceback = traceback.tb_next
    frames = []
    frame = innermost
    while frame is not None and frame not in running:
        if not _is_own(frame):
            frames.append(frame)
        elif frame.f_code.co_flags & inspect.CO_COROUTINE:
            break  # the event loop runs it; Python 3.13 names the loop's frames, 3.11 does not
        frame = frame.f_back
    return frames


def _is_own(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    return name.startswith(_OWN_FOLDER) or name.endswith(".pyx")
