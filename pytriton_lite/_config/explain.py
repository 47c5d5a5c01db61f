"""Where each value of a configuration came from, for ``Model.config(explain=True)``.

A load keeps the configuration as it was after each step, as bytes; only who asks pays for the
comparison of one step with the next.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pytriton_lite._typing import override

from ..errors import ConfigError
from .json_form import JsonValue, to_dict
from .pbtxt import entry_path, locate, place_error
from .schema import ConfigMessage, is_repeated, model_config_class
from .template import ConfigText


class ConfigOrigin(Enum):
    """What gave a configuration value.

    Attributes
    ----------
    FILE
        The configuration file.
    LOAD_CALL
        The ``config`` of a `Server.load`.
    AUTO_COMPLETE
        `auto_complete_config` of the model.
    OPTION
        An option of the server, or the name mapping of a repository.
    DEDUCED
        The names of files and folders, or the GPUs of the machine.
    DEFAULT
        Nobody: it is Triton's default.
    """

    FILE = "file"
    LOAD_CALL = "load call"
    AUTO_COMPLETE = "auto-complete"
    OPTION = "option"
    DEDUCED = "deduced"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """One value of a configuration; ``str()`` tells where it came from.

    Attributes
    ----------
    path
        Its field, such as ``input[0].dims`` or ``parameters["KEY"].string_value``.
    value
        As in the JSON form; lists of numbers or texts are one value, and so are ``[]`` and ``{}``
        for fields without any.
    origin
        Who gave it.
    detail
        Which option, model code or folder it was; the names of ``substitute`` that are in a value
        of a file. Often empty.
    file, line, column
        Where it is written; None unless `origin` is FILE.
    replaced
        What it took the place of; None when that was a default.
    """

    path: str
    value: JsonValue
    origin: ConfigOrigin
    detail: str = ""
    file: str | None = None
    line: int | None = None
    column: int | None = None
    replaced: ConfigValue | None = None

    @override
    def __str__(self) -> str:
        text = self.origin.value
        if self.file is not None:
            text = f"{os.path.basename(self.file)}:{self.line}"
        if self.detail:
            text = f"{text}, {self.detail}"
        if self.replaced is not None:
            text = f"{text}; instead of {_shown(self.replaced.value)} ({self.replaced})"
        return text


class ConfigExplanation(Mapping[str, ConfigValue]):
    """Each value of a configuration and where it came from, by its path.

    Parameters
    ----------
    title
        Names the model.
    values
        In the order of the JSON form.

    Notes
    -----
    ``str()`` is a table of all values that are not Triton's empty defaults; those are counted at
    its end.
    """

    def __init__(self, title: str, values: Mapping[str, ConfigValue]) -> None:
        self._title = title
        self._values = dict(values)

    @override
    def __getitem__(self, path: str) -> ConfigValue:
        return self._values[path]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    @override
    def __len__(self) -> int:
        return len(self._values)

    def by_origin(self, origin: ConfigOrigin) -> list[ConfigValue]:
        """All values that one origin gave."""
        return [value for value in self._values.values() if value.origin is origin]

    @override
    def __str__(self) -> str:
        shown = [value for value in self._values.values() if not _is_empty_default(value)]
        rows = [(value.path, _shown(value.value), str(value)) for value in shown]
        widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
        lines = [self._title]
        lines += [f"  {p:<{widths[0]}}  {v:<{widths[1]}}  {w}" for p, v, w in rows]
        rest = len(self._values) - len(shown)
        if rest:
            lines.append(f"  and {rest} fields at their empty defaults")
        return "\n".join(lines)

    @override
    def __repr__(self) -> str:
        return f"<ConfigExplanation of {self._title}: {len(self._values)} values>"


def _shown(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_empty_default(value: ConfigValue) -> bool:
    return value.origin is ConfigOrigin.DEFAULT and _is_empty(value.path, value.value)


def _is_empty(path: str, value: JsonValue) -> bool:
    """Whether a value is what its type has when nothing is given."""
    if isinstance(value, str) and value:
        return value == _first_enum_name(path)
    return not value


@functools.lru_cache(maxsize=4096)  # keys of maps are in a path
def _first_enum_name(path: str) -> str | None:
    """Name of the number 0 of the enum at a path; None when the field is no enum."""
    descriptor: Any = model_config_class().DESCRIPTOR
    field: Any = None
    for part in path.split("."):
        name, is_entry, _ = part.partition('["')
        field = descriptor.fields_by_name.get(name.partition("[")[0])
        if field is None:
            return None  # inside of a map's key
        descriptor = field.message_type
        if is_entry:
            field = descriptor.fields_by_name["value"]
            descriptor = field.message_type
        if descriptor is None:
            break
    return None if field.enum_type is None else str(field.enum_type.values[0].name)


# --- steps ---


class ConfigStep(Enum):
    """What a load does to a configuration, in order."""

    WRITTEN = 0  # the file, or the configuration of the load call
    NAMED = 1  # by the mapping of a repository
    BACKEND = 2  # which one, and its library
    DEFAULTS = 3
    INSTANCE_KIND = 4  # the option
    INSTANCE_GROUPS = 5
    COMPLETED = 6  # by the model


@dataclass(frozen=True, slots=True)
class _State:
    step: ConfigStep
    detail: str
    message: bytes


class ConfigHistory:
    """A configuration after each step of a load.

    Parameters
    ----------
    text
        Of the file; None for a configuration of a load call, and when there is no file.
    load_call
        JSON text of the load call, if that brought the configuration.
    """

    def __init__(self, text: ConfigText | None, load_call: str | None = None) -> None:
        self._text = text
        self._load_call = load_call
        self._states: tuple[_State, ...] = ()

    @property
    def file(self) -> str | None:
        """Path of the file; None if there is none."""
        return None if self._text is None else self._text.file

    def note(self, step: ConfigStep, message: ConfigMessage, detail: str = "") -> None:
        """Keep what a step has made of the configuration."""
        self._states = (*self._states, _State(step, detail, message.SerializeToString()))

    def place(self, error: ConfigError) -> None:
        """Note in an error where in the file it is, if there is one."""
        if self._text is not None:
            place_error(error, self._text)

    def fork(self) -> ConfigHistory:
        """A copy, which goes on by itself; for one of several versions."""
        other = ConfigHistory(self._text, self._load_call)
        other._states = self._states
        return other

    def go_on_as(self, other: ConfigHistory, change: Callable[[Any], Any]) -> None:
        """Repeat the steps of another history that come after the instance groups, changed."""
        steps = [state.step for state in other._states]
        for state in other._states[steps.index(ConfigStep.INSTANCE_GROUPS) + 1 :]:
            message = model_config_class().FromString(state.message)
            self.note(state.step, change(message), state.detail)

    def explain(self, title: str) -> ConfigExplanation:
        """Compare the steps."""
        values: dict[str, ConfigValue] = {}
        for state in self._states:
            message = model_config_class().FromString(state.message)
            make = self._written() if state.step is ConfigStep.WRITTEN else _given(state)
            after = {}
            for path, value in _leaves(message.DESCRIPTOR, to_dict(message), ""):
                before = values.get(path)
                if before is not None and before.value == value:
                    after[path] = before
                else:
                    after[path] = make(path, value, before)
            values = after
        return ConfigExplanation(title, values)

    def _written(self) -> _Maker:
        """Where what was written comes from; all else is a default."""
        text = self._text
        if self._load_call is not None:
            given = set(_json_paths(model_config_class().DESCRIPTOR, json.loads(self._load_call)))
            return lambda path, value, _: ConfigValue(
                path,
                value,
                ConfigOrigin.LOAD_CALL if path in given else ConfigOrigin.DEFAULT,
            )
        if text is None:
            return lambda path, value, _: ConfigValue(path, value, ConfigOrigin.DEFAULT)
        spans = locate(text.text)

        def make(path: str, value: JsonValue, _: ConfigValue | None) -> ConfigValue:
            span = spans.get(path)
            if span is None:
                return ConfigValue(path, value, ConfigOrigin.DEFAULT)
            line, column = text.place(span.start)
            names = text.names_within(*span)
            detail = "substitute " + ", ".join(names) if names else ""
            return ConfigValue(path, value, ConfigOrigin.FILE, detail, text.file, line, column)

        return make


_Maker = Callable[[str, JsonValue, ConfigValue | None], ConfigValue]

_ORIGINS = {
    ConfigStep.NAMED: ConfigOrigin.OPTION,
    ConfigStep.BACKEND: ConfigOrigin.DEDUCED,
    ConfigStep.DEFAULTS: ConfigOrigin.DEFAULT,
    ConfigStep.INSTANCE_KIND: ConfigOrigin.OPTION,
    ConfigStep.INSTANCE_GROUPS: ConfigOrigin.DEDUCED,
    ConfigStep.COMPLETED: ConfigOrigin.AUTO_COMPLETE,
}


def _given(state: _State) -> _Maker:
    def make(path: str, value: JsonValue, before: ConfigValue | None) -> ConfigValue:
        origin, detail = _ORIGINS[state.step], state.detail
        name = path.rpartition(".")[2]
        if before is None and _is_empty(path, value):
            # It came along with the message that it is in.
            origin, detail = ConfigOrigin.DEFAULT, ""
        elif state.step is ConfigStep.DEFAULTS and path == "name":
            origin, detail = ConfigOrigin.DEDUCED, "name of the model"
        elif state.step is ConfigStep.INSTANCE_GROUPS and name == "count":
            origin, detail = ConfigOrigin.DEFAULT, ""
        elif state.step is ConfigStep.INSTANCE_GROUPS and name == "name":
            detail = "name of the model"
        replaced = before
        if before is not None and before.origin is ConfigOrigin.DEFAULT:
            replaced = None
        return ConfigValue(path, value, origin, detail, replaced=replaced)

    return make


# --- values by path ---


def _leaves(descriptor: Any, data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Paths and values of a configuration in JSON form."""
    for key, value in data.items():
        field = descriptor.fields_by_name[key]
        path = prefix + key
        inner = field.message_type
        if inner is None or not value:
            yield path, value
        elif inner.GetOptions().map_entry:
            item_type = inner.fields_by_name["value"].message_type
            for name, item in value.items():
                entry = entry_path(path, name)
                if item_type is None or not item:
                    yield entry, item
                else:
                    yield from _leaves(item_type, item, f"{entry}.")
        elif is_repeated(field):
            for index, item in enumerate(value):
                yield from _leaves(inner, item, f"{path}[{index}].")
        else:
            yield from _leaves(inner, value, f"{path}.")


def _json_paths(descriptor: Any, data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Paths of what a JSON document gives; it has been read, so it fits the schema."""
    for key, value in data.items():
        field = descriptor.fields_by_name.get(key) or descriptor.fields_by_camelcase_name[key]
        path = prefix + field.name
        inner = field.message_type
        if value is None:
            continue
        if inner is None or not value:
            yield path
        elif inner.GetOptions().map_entry:
            item_type = inner.fields_by_name["value"].message_type
            for name, item in value.items():
                entry = entry_path(path, name)
                yield entry
                if item_type is not None and item:
                    yield from _json_paths(item_type, item, f"{entry}.")
        elif is_repeated(field):
            items = value if isinstance(value, list) else [value]
            # A missing element is left out, and counts for nothing.
            for index, item in enumerate(item for item in items if item is not None):
                yield from _json_paths(inner, item, f"{path}[{index}].")
        else:
            yield from _json_paths(inner, value, f"{path}.")
