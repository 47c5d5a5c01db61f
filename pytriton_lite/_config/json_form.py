"""Converts a configuration to JSON as Triton prints it, and reads such JSON.

What Triton prints is protobuf's JSON mapping with a few habits of its own
(seen on 2.51, and held by ``tests/unit/config/data``): proto field names,
scalars, lists and maps also at their default, most 64-bit integers as numbers
although the mapping wants strings, floats after a pass through a second JSON
library. Keys come in declaration order; scalar members of a oneof come last.
Map entries come in hash order there, so nobody can rely on it; here they are
sorted by key.
"""

from __future__ import annotations

import functools
import json
import math
import operator
import re
import struct
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, TypeAlias

from ..errors import ConfigError
from .schema import ConfigMessage, Field, integer_type, is_repeated, model_config_class
from .suggest import did_you_mean, with_note

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

# What `json.loads` gives.
JsonValue: TypeAlias = Any

# 64-bit fields that Triton's pass from strings to numbers leaves out.
_STAYS_STRING = frozenset(
    {
        "inference.ModelSequenceBatching.InitialState.dims",
        "inference.ModelOptimizationPolicy.Cuda.GraphSpec.Shape.dim",
        "inference.ModelInstanceGroup.SecondaryDevice.device_id",
    }
)

# Texts that pass for booleans, in any case.
_TRUE_TEXTS = ("true", "t", "yes", "y", "1")
_FALSE_TEXTS = ("false", "f", "no", "n", "0")


# --- message to JSON ---


class _Printer(NamedTuple):
    """How one field is printed."""

    name: str
    shape: Literal["single", "list", "map"]
    has_presence: bool
    # Turns one value into JSON; None for those that stay as they are.
    convert: Callable[[Any], JsonValue] | None


def to_dict(message: Message) -> dict[str, Any]:
    """Return the message as the dict that parsing Triton's JSON gives."""
    result: dict[str, Any] = {}
    for name, shape, has_presence, convert in _printers(message.DESCRIPTOR):
        if shape == "single":
            if not has_presence or message.HasField(name):
                value = getattr(message, name)
                result[name] = value if convert is None else convert(value)
            continue
        value = getattr(message, name)
        if shape == "list":
            result[name] = list(value) if convert is None else [convert(item) for item in value]
        else:
            result[name] = {
                str(key): value[key] if convert is None else convert(value[key])
                for key in sorted(value)
            }
    return result


@functools.cache
def _printers(descriptor: Descriptor) -> list[_Printer]:
    fields = descriptor.fields
    late = [field for field in fields if field.containing_oneof and field.message_type is None]
    return [_printer(field) for field in [f for f in fields if f not in late] + late]


def _printer(field: Field) -> _Printer:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry_value = field.message_type.fields_by_name["value"]
        return _Printer(field.name, "map", False, _converter(entry_value))
    shape: Literal["single", "list"] = "list" if is_repeated(field) else "single"
    return _Printer(field.name, shape, field.has_presence, _converter(field))


def _converter(field: Field) -> Callable[[Any], JsonValue] | None:
    if field.message_type is not None:
        return to_dict
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return functools.partial(_float_to_json, is_single=field.cpp_type == field.CPPTYPE_FLOAT)
    return str if field.full_name in _STAYS_STRING else None


def _float_to_json(value: float, *, is_single: bool) -> float | int | str:
    """Return the number, or text, that a float has after Triton's two printers."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    # Protobuf prints few digits first and more only where those don't read back.
    text = f"{value:.{6 if is_single else 15}g}"
    read_back = struct.unpack("f", struct.pack("f", float(text)))[0] if is_single else float(text)
    if read_back != value:
        text = f"{value:.{9 if is_single else 17}g}"
    if text.lstrip("-").isdecimal():
        return int(text)
    return float(text)


def to_json(message: Message) -> str:
    """Return the message as Triton's compact JSON text, for models and the config API."""
    parts: list[str] = []
    _write(to_dict(message), parts)
    return "".join(parts)


def _write(value: JsonValue, parts: list[str]) -> None:
    """Append the text of a value. The standard library prints floats in another way."""
    if isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, dict):
        separator = "{"
        for key, item in value.items():
            parts += (separator, _string(key), ":")
            _write(item, parts)
            separator = ","
        parts.append("}" if value else "{}")
    elif isinstance(value, list):
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ","
        parts.append("]" if value else "[]")
    elif isinstance(value, bool):
        parts.append("true" if value else "false")
    else:
        parts.append(_float_text(value) if isinstance(value, float) else str(value))


def _string(text: str) -> str:
    escaped = encode_basestring(text)
    if "\\u00" not in escaped:
        return escaped
    # Hex digits are upper case there. An escaped backslash before "u00.." is the user's text,
    # so pairs of backslashes are stepped over.
    return re.sub(
        r"\\\\|\\u00[01][0-9a-f]",
        lambda match: match[0] if match[0] == "\\\\" else f"\\u{match[0][2:].upper()}",
        escaped,
    )


def _float_text(value: float) -> str:
    """Print the shortest digits that read back, plainly from 1e-6 to 1e21, else as ``1.5e30``."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value):.17e}".partition("e")
    for precision in range(17):
        text = f"{abs(value):.{precision}e}"
        if float(text) == abs(value):
            mantissa, _, exponent = text.partition("e")
            break
    digits = mantissa.replace(".", "").rstrip("0") or "0"
    point = int(exponent) + 1
    if len(digits) <= point <= 21:  # noqa: PLR2004 - the printer's own limit
        return f"{sign}{digits}{'0' * (point - len(digits))}.0"
    if 0 < point < len(digits):
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:  # noqa: PLR2004 - the printer's own limit
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1}"


# --- JSON to message ---


class _JsonError(Exception):
    """A reason in the words of Triton's reader, before the model is known."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def _refuse(value: object, type_name: str, path: str, hint: str | None = None) -> NoReturn:
    shown = json.dumps(value, ensure_ascii=False, default=repr)
    raise _JsonError(f"({path}): invalid value {shown} for type {type_name}", hint)


def _read_message(message: ConfigMessage, data: Mapping[str, Any], path: str) -> None:
    descriptor = message.DESCRIPTOR
    place = f"({path}) " if path else ""
    for key, value in data.items():
        field = descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name.get(key)
        if field is None:
            hint = did_you_mean(str(key), descriptor.fields_by_name)
            raise _JsonError(f"{place}{key}: Cannot find field.", hint)
        if value is None:
            continue
        where = f"{path}.{field.name}" if path else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _read_map(message, field, value, where)
        elif is_repeated(field):
            if isinstance(value, list | tuple):
                for index, item in enumerate(value):
                    if item is not None:
                        _read_element(message, field, item, f"{where}[{index}]")
            else:
                # One element may stand without its list.
                _read_element(message, field, value, where)
        else:
            if isinstance(value, list | tuple):
                raise _JsonError(
                    f"{place}{field.name}: Proto field is not repeating, cannot start list."
                )
            _check_oneof(message, field, path)
            _read_singular(message, field, value, where)


def _check_oneof(message: ConfigMessage, field: Field, path: str) -> None:
    if field.containing_oneof is None:
        return
    name = field.containing_oneof.name
    if message.WhichOneof(name) not in (None, field.name):
        place = f"({path})" if path else ""
        raise _JsonError(
            f"{place}: invalid value oneof field '{name}' is already set. "
            f"Cannot set '{field.name}' for type oneof"
        )


def _read_singular(message: ConfigMessage, field: Field, value: JsonValue, where: str) -> None:
    if field.message_type is None:
        setattr(message, field.name, _read_scalar(field, value, where))
        return
    if not isinstance(value, Mapping):
        _refuse(value, f"type.googleapis.com/{field.message_type.full_name}", where)
    target = getattr(message, field.name)
    target.SetInParent()
    _read_message(target, value, where)


def _read_element(message: ConfigMessage, field: Field, value: JsonValue, where: str) -> None:
    target = getattr(message, field.name)
    if field.message_type is None:
        target.append(_read_scalar(field, value, where))
        return
    if not isinstance(value, Mapping):
        _refuse(value, f"type.googleapis.com/{field.message_type.full_name}", where)
    _read_message(target.add(), value, where)


def _read_map(message: ConfigMessage, field: Field, value: JsonValue, where: str) -> None:
    if isinstance(value, list | tuple):
        raise _JsonError(
            f": invalid value Cannot bind a list to map for field '{field.name}'. for type Map"
        )
    if not isinstance(value, Mapping):
        _refuse(value, "Map", where)
    target = getattr(message, field.name)
    key_field = field.message_type.fields_by_name["key"]
    value_field = field.message_type.fields_by_name["value"]
    for index, (key, item) in enumerate(value.items()):
        entry = f"{where}[{index}]"
        read_key = _read_scalar(key_field, key, f"{entry}.key")
        if value_field.message_type is None:
            target[read_key] = _read_scalar(
                value_field, "" if item is None else item, f"{entry}.value"
            )
        elif item is None or isinstance(item, Mapping):
            _read_message(target[read_key], item or {}, f"{entry}.value")
        else:
            type_name = f"type.googleapis.com/{value_field.message_type.full_name}"
            _refuse(item, type_name, f"{entry}.value")


def _read_scalar(field: Field, value: JsonValue, where: str) -> JsonValue:
    if isinstance(value, Mapping):
        parent, _, _ = where.rpartition(".")
        raise _JsonError(
            f"{parent and f'({parent})'}: invalid value Starting an object on a scalar field for "
            f"type {field.name}"
        )
    if field.enum_type is not None:
        return _read_enum(field, value, where)
    if field.cpp_type == field.CPPTYPE_STRING:
        return value if isinstance(value, str) else _refuse(value, "TYPE_STRING", where)
    if field.cpp_type == field.CPPTYPE_BOOL:
        if isinstance(value, str) and value.lower() in _TRUE_TEXTS + _FALSE_TEXTS:
            return value.lower() in _TRUE_TEXTS
        return value if isinstance(value, bool) else _refuse(value, "TYPE_BOOL", where)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return _read_float(field, value, where)
    type_name, low, high = integer_type(field)
    number = _read_integer(value)
    if number is None or not low <= number <= high:
        _refuse(value, type_name, where)
    return number


def _read_integer(value: JsonValue) -> int | None:
    """Return a number, or a text of one, as int; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"-?[0-9]+", value) else None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        # Numpy's integers come from models that compute their dims.
        return operator.index(value)
    except TypeError:
        return None


def _read_float(field: Field, value: JsonValue, where: str) -> float:
    type_name = "TYPE_FLOAT" if field.cpp_type == field.CPPTYPE_FLOAT else "TYPE_DOUBLE"
    if isinstance(value, bool):
        _refuse(value, type_name, where)
    try:
        return float(value)
    except (TypeError, ValueError):
        _refuse(value, type_name, where)


def _read_enum(field: Field, value: JsonValue, where: str) -> int:
    by_name = field.enum_type.values_by_name
    if isinstance(value, str):
        known = by_name.get(value) or by_name.get(value.upper().replace("-", "_"))
        if known is not None:
            return int(known.number)
    number = _read_integer(value)
    _, low, high = integer_type(field)
    if number is None or not low <= number <= high:
        hint = did_you_mean(value, by_name) if isinstance(value, str) else None
        _refuse(value, f"type.googleapis.com/{field.enum_type.full_name}", where, hint)
    return number


def from_json(
    source: str | bytes | Mapping[str, Any],
    *,
    model: str | None = None,
    context: str = "Invalid config override",
) -> ConfigMessage:
    """Read a configuration in JSON form.

    Parameters
    ----------
    source
        JSON text, or what parsing it gives. Keys may be in snake_case or
        lowerCamelCase, enums names in any case or numbers, 64-bit integers
        numbers or strings.
    model
        Model that errors name.
    context
        Words that an error's text starts with; by default those of Triton for
        a configuration given with a load call.

    Returns
    -------
    google.protobuf.message.Message
        A message of `model_config_class`; nothing is filled in.

    Raises
    ------
    ConfigError
        The text is no JSON, or does not fit the schema. ``hint`` names the
        nearest field or enum value.

    Notes
    -----
    Stricter than Triton 2.51 in one point: its JSON parser also takes single
    quotes and a comma after the last element.
    """
    message = model_config_class()()
    try:
        if not isinstance(source, Mapping):
            try:
                source = json.loads(source)
            except ValueError as error:
                raise _JsonError(str(error)) from None
        if not isinstance(source, Mapping):
            raise _JsonError(": Root element must be a message.")
        _read_message(message, source, "")
    except _JsonError as error:
        raise with_note(
            ConfigError(f"{context}: {error.reason}", model=model, hint=error.hint)
        ) from None
    return message
