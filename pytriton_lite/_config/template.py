"""Configuration files that are templates: values in the place of ``${name}``.

Public repositories hold them for a script to fill in. Two forms are in use, and both work here:
`max_batch_size: ${size}`, where the value stands as it is, and `string_value: "${path}"`, where
it is part of a string. Triton itself knows neither.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError, InvalidArgumentError
from .suggest import nearest_name, with_note

# What may stand before a placeholder outside of strings is stepped over, piece by piece.
_PART = re.compile(
    r"""\#[^\n]*
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*"?|'(?:[^'\\\n]|\\[^\n])*'?)
    | \$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}""",
    re.VERBOSE,
)
_PLACEHOLDER = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")

_ANY_MODEL = "*"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Piece(NamedTuple):
    """A value in the place of ``${name}``, by its offsets in the filled text and in the file."""

    name: str
    start: int
    end: int
    source_start: int
    source_end: int


@dataclass(frozen=True, slots=True)
class ConfigText:
    """Text of a configuration file.

    Attributes
    ----------
    source
        As it was written.
    text
        As it is parsed.
    file
        Path, or None.
    pieces
        Where the two differ, in order.
    """

    source: str
    text: str
    file: str | None
    pieces: tuple[Piece, ...] = ()

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column in the file, both from 1, of an offset in `text`."""
        shift = 0
        for piece in self.pieces:
            if piece.start > offset:
                break
            if offset < piece.end:
                return line_and_column(self.source, piece.source_start)
            shift = piece.source_end - piece.end
        return line_and_column(self.source, offset + shift)

    def names_within(self, start: int, end: int) -> list[str]:
        """Names whose values are in a part of `text`."""
        return list(dict.fromkeys(p.name for p in self.pieces if start <= p.start < end))


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Place of an offset, both counted from 1."""
    line_start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - line_start + 1


def placeholders(text: str) -> list[tuple[str, int]]:
    """Name and offset of each ``${name}`` that is not in a comment."""
    found = []
    for part in _PART.finditer(text):
        if part["name"] is not None:
            found.append((part["name"], part.start()))
        elif part["string"] is not None:
            inner = _PLACEHOLDER.finditer(text, part.start(), part.end())
            found += [(match["name"], match.start()) for match in inner]
    return found


def template_hint(text: str) -> str:
    """What to do about a file that does not parse since it is a template."""
    names = dict.fromkeys(name for name, _ in placeholders(text))
    if not names:
        return "'${...}' is no value"
    wanted = ", ".join(f"'{name}': ..." for name in names)
    return f"the file is a template; give Server(substitute={{{wanted}}})"


def check_values(substitute: Mapping[str, Any]) -> None:
    """Refuse what `fill_template` could not write.

    Raises
    ------
    InvalidArgumentError
        A value is of another type than those that `Options` lists.
    """
    for name, value in substitute.items():
        if isinstance(value, Mapping):
            for inner, inner_value in value.items():
                _check_value(f"substitute[{name!r}][{inner!r}]", inner_value)
        else:
            _check_value(f"substitute[{name!r}]", value)


def _check_value(where: str, value: object) -> None:
    items = value if isinstance(value, list | tuple) else [value]
    for item in items:
        if item is value is None:
            return
        if not isinstance(item, bool | int | float | str | os.PathLike):
            raise InvalidArgumentError(
                f"{where} must be a bool, int, float, str, path, a list of these, or None, got "
                f"{value!r}"
            )


def values_of(substitute: Mapping[str, Any], model_name: str) -> dict[str, Any]:
    """Return the values for one model; the model's own win over those for ``"*"`` and for all."""
    values = {name: value for name, value in substitute.items() if not isinstance(value, Mapping)}
    for scope in (_ANY_MODEL, model_name):
        given = substitute.get(scope)
        if isinstance(given, Mapping):
            values.update(given)
    return values


def fill_template(
    source: str, values: Mapping[str, Any], *, file: str | None = None, model: str | None = None
) -> ConfigText:
    """Write values in the place of ``${name}``.

    Parameters
    ----------
    source
        Text of a configuration file. Comments are left as they are, and so is ``${...}`` around
        anything but a name.
    values
        By name. Inside of a string a value is escaped. None: ``${name}`` stays, for models that
        take it for "not given".

    Raises
    ------
    ConfigError
        Names without a value; the text names all of them, the place is that of the first.
    """
    missing = [(name, offset) for name, offset in placeholders(source) if name not in values]
    if missing:
        raise _missing(missing, source, values, file=file, model=model)
    parts: list[str] = []
    pieces: list[Piece] = []
    done = length = 0

    def put(match: re.Match[str], *, is_quoted: bool) -> None:
        nonlocal done, length
        value = values[match["name"]]
        if value is None:
            return
        before, written = source[done : match.start()], _written(value, is_quoted=is_quoted)
        start = length + len(before)
        parts.extend((before, written))
        done, length = match.end(), start + len(written)
        pieces.append(Piece(match["name"], start, length, match.start(), match.end()))

    for part in _PART.finditer(source):
        if part["name"] is not None:
            put(part, is_quoted=False)
        elif part["string"] is not None:
            for match in _PLACEHOLDER.finditer(source, part.start(), part.end()):
                put(match, is_quoted=True)
    return ConfigText(source, "".join(parts) + source[done:], file, tuple(pieces))


def _written(value: Any, *, is_quoted: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        items = [_written(item, is_quoted=is_quoted) for item in value]
        return ",".join(items) if is_quoted else f"[ {', '.join(items)} ]"
    if isinstance(value, int | float):
        # As numbers are printed; a subclass such as an enum prints otherwise.
        return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)
    text = os.fspath(value)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    return "".join(_ESCAPES.get(letter, letter) for letter in text) if is_quoted else text


def _missing(
    missing: list[tuple[str, int]],
    source: str,
    values: Mapping[str, Any],
    *,
    file: str | None,
    model: str | None,
) -> ConfigError:
    places: dict[str, tuple[int, int]] = {}
    for name, offset in missing:
        places.setdefault(name, line_and_column(source, offset))
    listed = ", ".join(
        f"'${{{name}}}' ({line}:{column})" for name, (line, column) in places.items()
    )
    where = "" if file is None else f" from {file}"
    wanted = ", ".join(f"'{name}': ..." for name in places)
    hint = f"give Server(substitute={{{wanted}}}); with None '${{...}}' stays as it is"
    for name in places:
        near = nearest_name(name, values)
        if near is not None:
            hint = f"`substitute` has '{near}', the file wants '{name}'"
            break
    line, column = next(iter(places.values()))
    return with_note(
        ConfigError(
            f"failed to read text proto{where}: no value for {listed} in `substitute`",
            model=model,
            file=file,
            line=line,
            column=column,
            hint=hint,
        )
    )
