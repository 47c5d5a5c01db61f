"""The text that Triton makes of a Python exception (observed on 2.51).

``<TypeName>: <str>``, then, if there is a traceback, a blank line, ``At:`` and one line
``  <file>(<line>): <function>`` per frame, innermost first. Causes and notes are not shown.
"""

from __future__ import annotations

import traceback
from pathlib import Path

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
    try:
        words = str(error)
    except Exception as failure:  # a broken __str__ of the model's own class
        words = f"<str() failed: {type(failure).__name__}>"
    text = f"{type(error).__name__}: {words}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_OWN_FOLDER) and not frame.filename.endswith(".pyx")
    ]
    if frames:
        text += "\n\nAt:\n"
        text += "".join(f"  {f.filename}({f.lineno}): {f.name}\n" for f in reversed(frames))
    return text.replace(plain_prefix, "") if plain_prefix else text
