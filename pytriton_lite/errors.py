"""Exceptions that `pytriton_lite` raises.

::

    TritonError                      message, code, model, request_id
    ├── UnknownError                 UNKNOWN
    ├── InternalError                INTERNAL          (the model failed, or we did)
    ├── NotFoundError                NOT_FOUND         also LookupError
    ├── InvalidArgumentError         INVALID_ARG       also ValueError
    │   └── ConfigError              file, line, column, field, hint
    ├── UnavailableError             UNAVAILABLE
    │   └── RequestTimeoutError      also TimeoutError
    ├── UnsupportedError             UNSUPPORTED       also NotImplementedError
    ├── AlreadyExistsError           ALREADY_EXISTS
    ├── CancelledError               CANCELLED
    └── ModelLoadError               INTERNAL          also ExceptionGroup, one cause per model

`str(error)` is the text that a client of Triton Inference Server would read.
Where a model raised, ``__cause__`` is the model's own exception, with its
traceback. All of them can be pickled; as usual, pickling drops ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Self

from pytriton_lite._typing import override

__all__ = [
    "AlreadyExistsError",
    "CancelledError",
    "ConfigError",
    "ErrorCode",
    "InternalError",
    "InvalidArgumentError",
    "ModelLoadError",
    "NotFoundError",
    "RequestTimeoutError",
    "TritonError",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
]


class ErrorCode(IntEnum):
    """Triton's status codes, with the numbers that ``pb_utils.TritonError`` uses."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7

    @property
    def status(self) -> str:
        """The words that Triton puts before a load reason, such as ``Invalid argument``."""
        return _STATUS[self]


_STATUS = {
    ErrorCode.UNKNOWN: "Unknown",
    ErrorCode.INTERNAL: "Internal",
    ErrorCode.NOT_FOUND: "Not found",
    ErrorCode.INVALID_ARG: "Invalid argument",
    ErrorCode.UNAVAILABLE: "Unavailable",
    ErrorCode.UNSUPPORTED: "Unsupported",
    ErrorCode.ALREADY_EXISTS: "Already exists",
    ErrorCode.CANCELLED: "Cancelled",
}


class TritonError(Exception):
    """Root of all errors of this package.

    Parameters
    ----------
    message
        Text as Triton words it; also ``str(error)``.
    code
        Status code. Each subclass has its own default.
    model
        Name of the model concerned, when there is one.
    request_id
        Id of the request concerned, when it had one.
    """

    code: ErrorCode = ErrorCode.UNKNOWN

    def __init__(
        self,
        message: str = "",
        code: ErrorCode | None = None,
        *,
        model: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = ErrorCode(code)
        self.model = model
        self.request_id = request_id

    @override
    def __str__(self) -> str:
        return self.message


class UnknownError(TritonError):
    """A failure without a better code."""

    code = ErrorCode.UNKNOWN


class InternalError(TritonError):
    """The model failed, or this package has a defect; then the text asks to report it."""

    code = ErrorCode.INTERNAL


class NotFoundError(TritonError, LookupError):
    """No such model, version or file."""

    code = ErrorCode.NOT_FOUND


class InvalidArgumentError(TritonError, ValueError):
    """The caller's request or configuration is wrong."""

    code = ErrorCode.INVALID_ARG


class UnavailableError(TritonError):
    """The model or the server cannot take the request now: stopping, unloaded, dead or full."""

    code = ErrorCode.UNAVAILABLE


class UnsupportedError(TritonError, NotImplementedError):
    """A feature of Triton that `pytriton_lite` does not have, or not in this mode."""

    code = ErrorCode.UNSUPPORTED


class AlreadyExistsError(TritonError):
    """The name is taken."""

    code = ErrorCode.ALREADY_EXISTS


class CancelledError(TritonError):
    """The request was cancelled before it was answered."""

    code = ErrorCode.CANCELLED


class RequestTimeoutError(UnavailableError, TimeoutError):
    """No answer within ``timeout_s``; the request was cancelled."""


class ConfigError(InvalidArgumentError):
    """A model configuration cannot be read or is not valid.

    Attributes
    ----------
    file
        Path of the configuration file, or None for a configuration from memory.
    line, column
        Place in the file, both counted from 1, or None.
    field
        Field that is wrong, such as ``input[0].dims``, or None.
    hint
        What to do about it, for example the nearest field name, or None.
    """

    def __init__(
        self,
        message: str = "",
        code: ErrorCode | None = None,
        *,
        model: str | None = None,
        request_id: str | None = None,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        field: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, code, model=model, request_id=request_id)
        self.file = file
        self.line = line
        self.column = column
        self.field = field
        self.hint = hint


# The group's own `message` is read-only.
class ModelLoadError(ExceptionGroup[TritonError], TritonError):  # type: ignore[override]
    """One or more models failed to load.

    ``exceptions`` holds one `TritonError` per failed model; its ``model`` tells
    which one and its ``__cause__`` is the exception that the model raised.
    """

    code = ErrorCode.INTERNAL

    def __new__(cls, message: str, exceptions: Sequence[TritonError]) -> Self:
        """Make the group; ExceptionGroup takes its arguments here."""
        return super().__new__(cls, message, list(exceptions))

    def __init__(self, message: str, exceptions: Sequence[TritonError]) -> None:
        # ExceptionGroup took both arguments in __new__ and owns a read-only `message`,
        # so TritonError's constructor is not used.
        self.request_id = None
        models = {error.model for error in exceptions}
        self.model = models.pop() if len(models) == 1 else None

    @override
    def derive(self, excs: Sequence[Any]) -> ModelLoadError:  # type: ignore[override]
        return ModelLoadError(self.message, excs)

    @override
    def __str__(self) -> str:
        return self.message


_BY_CODE: dict[ErrorCode, type[TritonError]] = {
    error.code: error
    for error in (
        UnknownError,
        InternalError,
        NotFoundError,
        InvalidArgumentError,
        UnavailableError,
        UnsupportedError,
        AlreadyExistsError,
        CancelledError,
    )
}


def error_from_code(
    code: int, message: str, *, model: str | None = None, request_id: str | None = None
) -> TritonError:
    """Make the exception that belongs to a status code."""
    return _BY_CODE[ErrorCode(code)](message, model=model, request_id=request_id)
