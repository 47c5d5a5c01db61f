"""Enums as Triton's native module has them: equal to ints, but not ordered and not ints."""

from __future__ import annotations

from typing import Any, ClassVar


class NativeEnum:
    """Base of the enums of `c_python_backend_utils`; members are class attributes."""

    __slots__ = ("_name", "_value")
    _name: str
    _value: int
    __members__: ClassVar[dict[str, NativeEnum]]

    def __new__(cls, value: int) -> NativeEnum:
        """Find the member of a value."""
        for member in cls.__members__.values():
            if member._value == value:
                return member
        raise ValueError(f"{value} is not a valid {cls.__name__}")

    @property
    def name(self) -> str:
        """Name of the member."""
        return self._name

    @property
    def value(self) -> int:
        """Number of the member."""
        return self._value

    def __int__(self) -> int:
        return self._value

    def __index__(self) -> int:
        return self._value

    def __eq__(self, other: object) -> bool:
        if isinstance(other, NativeEnum):
            return type(other) is type(self) and other._value == self._value
        return isinstance(other, int) and other == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return f"{type(self).__name__}.{self._name}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self._name}: {self._value}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._value,))


def make_enum(qualname: str, names: tuple[str, ...]) -> type[NativeEnum]:
    """Make an enum whose members are numbered from 0."""
    made: type[NativeEnum] = type(
        qualname.rpartition(".")[2],
        (NativeEnum,),
        {"__slots__": (), "__module__": "c_python_backend_utils", "__qualname__": qualname},
    )
    made.__members__ = {}
    for value, name in enumerate(names):
        member: NativeEnum = object.__new__(made)
        member._name, member._value = name, value
        made.__members__[name] = member
        setattr(made, name, member)
    return made


ErrorCodeValue = make_enum(
    "TritonError.__ErrorCode",
    (
        "UNKNOWN",
        "INTERNAL",
        "NOT_FOUND",
        "INVALID_ARG",
        "UNAVAILABLE",
        "UNSUPPORTED",
        "ALREADY_EXISTS",
        "CANCELLED",
    ),
)
MemoryType = make_enum("MemoryType", ("TRITONSERVER_MEMORY_GPU", "TRITONSERVER_MEMORY_CPU"))
LogLevel = make_enum("Logger.LogLevel", ("INFO", "WARNING", "ERROR", "VERBOSE"))
MetricKind = make_enum("MetricKind", ("COUNTER", "GAUGE", "HISTOGRAM"))
