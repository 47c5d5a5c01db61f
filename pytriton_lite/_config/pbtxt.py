"""Reads and writes ``config.pbtxt``, protobuf's text format of ``ModelConfig``.

The reader is our own instead of ``google.protobuf.text_format``: that one
differs from the C++ parser inside Triton in what it takes (``- 1``, unknown
escapes) and in its texts, and it does not tell fields apart well enough to
give hints. This one takes what Triton's parser takes and uses its texts;
``tests/unit/config/test_pbtxt.py`` holds both against answers of Triton 2.51.

One difference is wanted: a column here is that of the offending word, where
Triton's parser often shows the word after it.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pytriton_lite._typing import override

from ..errors import ConfigError
from .schema import ConfigMessage, Field, integer_type, is_repeated, model_config_class
from .suggest import did_you_mean, with_note
from .template import ConfigText, template_hint

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# Blanks and comments before a token belong to its match; each match is one token then.
_TOKEN = re.compile(
    r"""
    (?:[ \t\r\n\v\f]+|\#[^\n]*)*+
    (?:
      (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<integer>0[xX][0-9a-fA-F]+|[0-9]+)(?![0-9.eEfF])
    | (?P<float>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)
    | (?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
    | (?P<symbol>.)
    | (?P<end>\Z)
    )
    """,
    re.VERBOSE | re.DOTALL,
)

_ESCAPE = re.compile(
    rb"\\(?:(?P<octal>[0-7]{1,3})|[xX](?P<hex>[0-9a-fA-F]{1,2})"
    rb"|u(?P<u4>[0-9a-fA-F]{4})|U(?P<u8>[0-9a-fA-F]{8})|(?P<one>.))",
    re.DOTALL,
)
_ONE_LETTER_ESCAPES = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"\\": b"\\",
    b"?": b"?",
    b"'": b"'",
    b'"': b'"',
}

# What stands where a field should, by its kind or its text.
_NO_FIELD_HINTS = {
    "end": "a '}' or ']' is missing",
    "integer": "a list is written in brackets, as in [ 1, 2 ]",
    "float": "a list is written in brackets, as in [ 1, 2 ]",
    "-": "a list is written in brackets, as in [ -1, 2 ]",
    "string": "the name of a field is written without quotes",
    "{": "the name of a field belongs before the brace; this is no JSON",
    "/": "a comment begins with '#'",
    "}": "there is a '}' more than there should be",
    "]": "there is a ']' more than there should be",
}

_EQUALS_HINT = "a field and its value are not joined by '=' but by ':'"

# Fields with sizes of tensors.
_SIZES = ("dims", "shape")

_TRUE_WORDS = ("true", "True", "t")
_FALSE_WORDS = ("false", "False", "f")


class _Token(NamedTuple):
    """A name, integer, float, string or symbol; or ``end``, or ``bad`` with the reason why."""

    kind: str
    text: str
    offset: int
    error: _ParseError | None = None


class _ParseError(Exception):
    """A reason in the parser's words, before file and model are known."""

    def __init__(self, reason: str, offset: int, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.hint = hint


def _tokenize(text: str) -> list[_Token]:
    """Split ``text`` into tokens; the last one has no text and the kind ``end`` or ``bad``.

    What is no token is reported only when the parser gets there, as an error
    of the grammar before it is the one to show.
    """
    tokens: list[_Token] = []
    try:
        _append_tokens(text, tokens)
    except _ParseError as error:
        tokens.append(_Token("bad", "", error.offset, error))
    else:
        tokens.append(_Token("end", "", len(text)))
    return tokens


def _append_tokens(text: str, tokens: list[_Token]) -> None:
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        word, offset = match[kind], match.start(kind)
        if kind == "end":
            break
        if kind in ("integer", "float"):
            follower = text[match.end() : match.end() + 1]
            if follower.isalpha() or follower == "_":
                raise _ParseError("Need space between number and identifier.", match.end())
            if kind == "integer" and word[0] == "0" and re.fullmatch(r"0[0-9]*[89][0-9]*", word):
                raise _ParseError("Numbers starting with leading zero must be in octal.", offset)
        elif kind == "symbol":
            if word in "\"'":
                line_ends = text.find("\n", offset) != -1
                raise _ParseError(
                    "String literals cannot cross line boundaries."
                    if line_ends
                    else "Unexpected end of string.",
                    offset,
                    "the closing quote is missing",
                )
            if word == "\ufeff":
                raise _ParseError(
                    "Expected identifier, got: \ufeff",
                    offset,
                    "the file starts with a byte order mark; save it as UTF-8 without one",
                )
            if word < " ":
                raise _ParseError("Invalid control characters encountered in text.", offset)
        tokens.append(_Token(kind, word, offset))


def _unescape(token: _Token) -> bytes:
    def replace(match: re.Match[bytes]) -> bytes:
        if match["octal"] is not None:
            return bytes([int(match["octal"], 8) & 0xFF])
        if match["hex"] is not None:
            return bytes([int(match["hex"], 16)])
        digits = match["u4"] or match["u8"]
        if digits is not None and int(digits, 16) <= 0x10FFFF:  # noqa: PLR2004 - last code point
            # Two escapes may form a surrogate pair; they are joined below.
            return chr(int(digits, 16)).encode("utf-8", "surrogatepass")
        if match["one"] in _ONE_LETTER_ESCAPES:
            return _ONE_LETTER_ESCAPES[match["one"]]
        raise _ParseError("Invalid escape sequence in string literal.", token.offset)

    raw = _ESCAPE.sub(replace, token.text[1:-1].encode("utf-8", "surrogatepass"))
    if re.search(rb"\\[uU]", token.text.encode("utf-8", "surrogatepass")):
        joined = raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
        raw = joined.decode("utf-16", "replace").encode()
    return raw


class _Known(NamedTuple):
    """What the parser asks of a field again and again."""

    field: Field
    is_message: bool
    is_repeated: bool
    is_map: bool


@functools.cache
def _known_fields(descriptor: Descriptor) -> dict[str, _Known]:
    return {
        field.name: _Known(
            field,
            field.message_type is not None,
            is_repeated(field),
            field.message_type is not None and field.message_type.GetOptions().map_entry,
        )
        for field in descriptor.fields
    }


class _Parser:
    """Recursive descent over tokens, guided by message descriptors.

    A token that is none fits nowhere, so that its own error comes up when the parser gives up
    there, and not before.
    """

    def __init__(self, text: str) -> None:
        self._tokens = iter(_tokenize(text))
        self._token = next(self._tokens)

    def _fail(self, reason: str, *, hint: str | None = None, at: _Token | None = None) -> NoReturn:
        if at is None and self._token.error is not None:
            raise self._token.error
        raise _ParseError(reason, (at or self._token).offset, hint)

    def _take(self) -> _Token:
        """Consume a token; never the last one."""
        token = self._token
        self._token = next(self._tokens)
        return token

    def _try_symbol(self, *symbols: str) -> str | None:
        """Consume one of ``symbols`` if it comes next."""
        # No other kind of token is one of these letters.
        if self._token.text in symbols:
            return self._take().text
        return None

    def _symbol(self, symbol: str, *, hint: str | None = None) -> None:
        if self._try_symbol(symbol) is None:
            self._fail(f'Expected "{symbol}", found "{self._token.text}".', hint=hint)

    def parse(self, message: Message) -> None:
        while self._token.kind != "end":
            self._field(message)

    def _field(self, message: ConfigMessage) -> None:
        if self._token.kind != "name":
            if self._try_symbol("["):
                self._extension(message.DESCRIPTOR)
            hint = _NO_FIELD_HINTS.get(self._token.kind) or _NO_FIELD_HINTS.get(self._token.text)
            self._fail(f"Expected identifier, got: {self._token.text}", hint=hint)
        word = self._take()
        known = _known_fields(message.DESCRIPTOR).get(word.text)
        if known is None:
            descriptor = message.DESCRIPTOR
            self._fail(
                f'Message type "{descriptor.full_name}" has no field named "{word.text}".',
                hint=_field_hint(word.text, descriptor),
                at=word,
            )
        if not known.is_repeated:
            self._check_singular(message, known.field, word)
        if self._try_symbol(":") is None and not known.is_message:
            self._symbol(":", hint=_EQUALS_HINT if self._token.text == "=" else None)
        if known.is_repeated and self._try_symbol("["):
            if self._try_symbol("]") is None:
                self._value(message, known)
                while self._try_symbol("]") is None:
                    self._symbol(",", hint="a list wants ',' between its elements and ']' last")
                    self._value(message, known)
        else:
            self._value(message, known)
        self._try_symbol(",", ";")

    def _extension(self, descriptor: Descriptor) -> NoReturn:
        name = ""
        while self._token.kind not in ("end", "bad") and self._token.text != "]":
            name += self._take().text
        self._fail(
            f'Extension "{name}" is not defined or is not an extension of '
            f'"{descriptor.full_name}".',
            hint="a field name belongs here",
        )

    def _check_singular(self, message: ConfigMessage, field: Field, word: _Token) -> None:
        # A scalar without presence shows only by a value that is not the default. Triton's
        # parser looks no further either: `max_batch_size: 0 max_batch_size: 4` passes.
        if message.HasField(field.name) if field.has_presence else getattr(message, field.name):
            self._fail(f'Non-repeated field "{field.name}" is specified multiple times.', at=word)
        if field.containing_oneof is not None:
            chosen = message.WhichOneof(field.containing_oneof.name)
            if chosen is not None:
                members = [f"'{member.name}'" for member in field.containing_oneof.fields]
                self._fail(
                    f'Field "{field.name}" is specified along with field "{chosen}", another '
                    f'member of oneof "{field.containing_oneof.name}".',
                    hint=f"at most one of {', '.join(members)} may be there",
                    at=word,
                )

    def _value(self, message: ConfigMessage, known: _Known) -> None:
        """Parse one value and set, or append, it."""
        field = known.field
        if not known.is_message:
            value = self._scalar(field)
            if known.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
            return
        target = getattr(message, field.name)
        if known.is_map:
            self._map_entry(target, field)
        elif known.is_repeated:
            self._body(target.add())
        else:
            target.SetInParent()
            self._body(target)

    def _map_entry(self, target: ConfigMessage, field: Field) -> object:
        """Parse an entry and set it; returns the key."""
        entry = target.GetEntryClass()()
        self._body(entry)
        # As in protobuf, the last of two entries with one key wins.
        if field.message_type.fields_by_name["value"].message_type is None:
            target[entry.key] = entry.value
        else:
            target[entry.key].CopyFrom(entry.value)
        key: object = entry.key
        return key

    def _body(self, message: Message) -> None:
        opening = self._try_symbol("{", "<")
        if opening is None:
            fields = message.DESCRIPTOR.fields
            form = f", as in {{ {fields[0].name}: ... }}" if len(fields) == 1 else ""
            hint = f"a message is written in braces{form}"
            self._symbol("{", hint=_EQUALS_HINT if self._token.text == "=" else hint)
        while self._token.text not in ("}", ">"):
            self._field(message)
        self._symbol(">" if opening == "<" else "}")

    def _scalar(self, field: Field) -> object:
        if field.enum_type is not None:
            return self._enum(field)
        match field.cpp_type:
            case field.CPPTYPE_STRING:
                return self._string()
            case field.CPPTYPE_BOOL:
                return self._bool(field)
            case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
                return self._float()
            case _:
                return self._integer(field)

    def _integer(self, field: Field) -> int:
        _, low, high = integer_type(field)
        if field.name in _SIZES and self._token.text.lower() in ("none", "null", "any", "?"):
            self._fail(
                f"Expected integer, got: {self._token.text}",
                hint="a dimension of any size is written -1",
            )
        return self._integer_in(low, high)

    def _integer_in(self, low: int, high: int) -> int:
        # The sign is a token of its own, so `- 1` is a number too.
        sign = -1 if low < 0 and self._try_symbol("-") else 1
        if self._token.kind != "integer":
            hint = "write the number without quotes" if self._token.kind == "string" else None
            self._fail(f"Expected integer, got: {self._token.text}", hint=hint)
        text = self._token.text
        is_octal = text[0] == "0" and text.isdecimal()
        value = sign * (int(text, 8) if is_octal else int(text, 0))
        if not low <= value <= high:
            self._fail(f"Integer out of range ({text})", hint=f"the range is {low} to {high}")
        self._take()
        return value

    def _float(self) -> float:
        sign = -1.0 if self._try_symbol("-") else 1.0
        token = self._token
        if token.kind in ("integer", "float"):
            if token.text[:2] in ("0x", "0X"):
                self._fail(f"Expect a decimal number, got: {token.text}")
            value = float(token.text.rstrip("fF"))
        elif token.kind == "name" and token.text.lower() in ("inf", "infinity", "nan"):
            value = float(token.text.lower())
        else:
            hint = "write the number without quotes" if token.kind == "string" else None
            self._fail(f"Expected double, got: {token.text}", hint=hint)
        self._take()
        return sign * value

    def _bool(self, field: Field) -> bool:
        token = self._token
        if token.kind == "integer":
            return bool(self._integer_in(0, 1))
        if token.kind != "name":
            self._fail(f"Expected identifier, got: {token.text}", hint="write true or false")
        if token.text not in _TRUE_WORDS + _FALSE_WORDS:
            self._fail(
                f'Invalid value for boolean field "{field.name}". Value: "{token.text}".',
                hint="write true or false",
            )
        return self._take().text in _TRUE_WORDS

    def _enum(self, field: Field) -> int:
        token = self._token
        values = field.enum_type.values_by_name
        if token.kind == "name":
            if token.text not in values:
                self._fail(
                    f'Unknown enumeration value of "{token.text}" for field "{field.name}".',
                    hint=did_you_mean(token.text, values),
                )
            return int(values[self._take().text].number)
        if token.kind == "integer" or token.text == "-":
            # Numbers without a name pass, as enums of proto3 are open.
            return self._integer(field)
        hint = "write the name without quotes" if token.kind == "string" else None
        self._fail(f"Expected integer or identifier, got: {token.text}", hint=hint)

    def _string(self) -> str:
        first = self._token
        if first.kind != "string":
            hint = "put the value in quotes" if first.kind in ("name", "integer", "float") else None
            self._fail(f"Expected string, got: {first.text}", hint=hint)
        raw = b""
        while self._token.kind == "string":
            raw += _unescape(self._take())
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self._fail("String is not valid UTF-8.", at=first)


def entry_path(path: str, key: object) -> str:
    """Name of the entry of a map, as in ``parameters["KEY"]``."""
    return f"{path}[{json.dumps(str(key), ensure_ascii=False)}]"


class Span(NamedTuple):
    """Offsets at which a value begins, and at which what follows it does."""

    start: int
    end: int


class _Locator(_Parser):
    """Notes where the value of each field is.

    Attributes
    ----------
    spans
        By field, such as ``input[0].dims`` or ``parameters["KEY"].string_value``; of a list
        without an index, too, from its first element to its last.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.spans: dict[str, Span] = {}
        self._prefix = ""

    @override
    def _value(self, message: ConfigMessage, known: _Known) -> None:
        path, start = self._prefix + known.field.name, self._token.offset
        # Noted before what is in it, so that an outer field comes first.
        first = self.spans.setdefault(path, Span(start, start)).start
        element = path
        if known.is_repeated and not known.is_map:
            element = f"{path}[{len(getattr(message, known.field.name))}]"
            self.spans[element] = Span(start, start)
        before, self._prefix = self._prefix, f"{element}."
        super()._value(message, known)
        self._prefix = before
        end = self._token.offset
        self.spans[path] = Span(first, end)
        if element != path:
            self.spans[element] = Span(start, end)

    @override
    def _map_entry(self, target: ConfigMessage, field: Field) -> object:
        path = self._prefix.removesuffix(".")
        (outer, self.spans), (before, self._prefix) = (self.spans, {}), (self._prefix, "")
        key = super()._map_entry(target, field)
        (entry, self.spans), self._prefix = (self.spans, outer), before
        for name, span in entry.items():
            head, _, rest = name.partition(".")
            if head == "value":
                self.spans[entry_path(path, key) + (rest and f".{rest}")] = span
        return key


def locate(text: str) -> dict[str, Span]:
    """Where the value of each field of a configuration that parses is written.

    Fields are named as by `ConfigError.field`, entries of maps by ``map["key"]``.
    """
    locator = _Locator(text)
    locator.parse(model_config_class()())
    return locator.spans


def place_error(error: ConfigError, text: ConfigText) -> None:
    """Note in an error about the configuration of a file where that is.

    The field's own place, or that of the nearest one around it. Nothing changes when the error
    has a file already, and only the file is noted when nothing in it is the field.
    """
    if error.file is not None or text.file is None:
        return
    error.file = text.file
    spans = locate(text.text)
    field = error.field
    while field:
        if field in spans:
            error.line, error.column = text.place(spans[field].start)
            return
        field = field.rpartition(".")[0]


def _field_hint(word: str, descriptor: Descriptor) -> str | None:
    hint = did_you_mean(word, descriptor.fields_by_name)
    if hint is not None:
        return hint
    owners = [
        name
        for name, message in model_config_class().DESCRIPTOR.file.message_types_by_name.items()
        if word in message.fields_by_name
    ]
    return f"'{word}' is a field of {', '.join(owners)}; check the braces" if owners else None


def parse_pbtxt(
    text: str | ConfigText, *, file: str | None = None, model: str | None = None
) -> ConfigMessage:
    """Parse the text of a ``config.pbtxt``.

    Parameters
    ----------
    text
        The text. An empty one is legal and gives an all-default message.
    file
        Path that errors name; that of a `ConfigText` is its own.
    model
        Model that errors name.

    Returns
    -------
    google.protobuf.message.Message
        A message of `model_config_class`, as written: nothing is filled in.

    Raises
    ------
    ConfigError
        The text does not parse. The message is Triton's, with the parser's own
        reason behind it; ``line`` and ``column`` are set, ``hint`` often is.
    """
    if isinstance(text, str):
        text = ConfigText(text, text, file)
    message = model_config_class()()
    try:
        _Parser(text.text).parse(message)
    except _ParseError as error:
        line, column = text.place(error.offset)
        where = "" if text.file is None else f" from {text.file}"
        hint = error.hint
        if text.text.startswith("${", error.offset):
            hint = template_hint(text.source)
        raise with_note(
            ConfigError(
                f"failed to read text proto{where}: {line}:{column}: {error.reason}",
                model=model,
                file=text.file,
                line=line,
                column=column,
                hint=hint,
            )
        ) from None
    return message


def format_pbtxt(message: Message) -> str:
    """Return the message as text that `parse_pbtxt` and Triton read back."""
    from google.protobuf import text_format

    return text_format.MessageToString(message, as_utf8=True)
