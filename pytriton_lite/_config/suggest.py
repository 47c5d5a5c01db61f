"""Hints of `ConfigError`: what a misspelt name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ..errors import ConfigError

# What other libraries call Triton's data types; difflib finds no likeness here.
_OTHER_NAMES = {
    "BFLOAT16": "TYPE_BF16",
    "BOOLEAN": "TYPE_BOOL",
    "BYTE": "TYPE_UINT8",
    "BYTES": "TYPE_STRING",
    "DOUBLE": "TYPE_FP64",
    "FLOAT": "TYPE_FP32",
    "FLOAT16": "TYPE_FP16",
    "FLOAT32": "TYPE_FP32",
    "FLOAT64": "TYPE_FP64",
    "HALF": "TYPE_FP16",
    "INT": "TYPE_INT32",
    "LONG": "TYPE_INT64",
    "OBJECT": "TYPE_STRING",
    "STR": "TYPE_STRING",
    "TEXT": "TYPE_STRING",
}


def nearest_name(word: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that ``word`` most likely stands for, or None.

    Case, a missing enum prefix (``FP32`` for ``TYPE_FP32``, ``CPU`` for
    ``KIND_CPU``) and the data type names of other libraries are looked
    through before letters are compared.
    """
    names = list(candidates)
    by_upper = {name.upper(): name for name in names}
    upper = word.upper()
    if upper in by_upper:
        return by_upper[upper]
    for name in names:
        if name.upper().endswith(f"_{upper}"):
            return name
    other = _OTHER_NAMES.get(upper.removeprefix("TYPE_"))
    if other is not None and other in names:
        return other
    close = difflib.get_close_matches(upper, by_upper, n=1)
    return by_upper[close[0]] if close else None


def did_you_mean(word: str, candidates: Iterable[str]) -> str | None:
    """Return ``did you mean '<name>'?`` for the nearest candidate, or None."""
    name = nearest_name(word, candidates)
    return None if name is None else f"did you mean '{name}'?"


def with_note(error: ConfigError) -> ConfigError:
    """Return the error, with its hint as a note: tracebacks show it, the text stays Triton's."""
    if error.hint is not None:
        error.add_note(error.hint)
    return error
