"""`pb_utils.Logger` on top of the standard `logging` module."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

from pytriton_lite._core.native_enum import LogLevel, NativeEnum

_INFO = LogLevel(0)
_TO_LOGGING = (logging.INFO, logging.WARNING, logging.ERROR, logging.DEBUG)  # by LogLevel


class _LoggerType(type):
    """Names the attribute that was probably meant, such as ``log_warn`` for ``log_warning``."""

    def __getattr__(cls, name: str) -> NoReturn:
        error = AttributeError(f"type object 'Logger' has no attribute '{name}'")
        import difflib  # which takes long, and is for this case alone

        near = difflib.get_close_matches(name, [n for n in dir(cls) if n[0] != "_"], 1)
        if near:
            error.add_note(f"did you mean {near[0]!r}?")
        raise error


def make_logger_class(logger: logging.Logger) -> type[Any]:
    """Make the class `Logger` for one model; its messages go to `logger`.

    File and line of a record are those of the calling frame.
    """

    def emit(function: str, level: int, message: Any) -> None:
        if not isinstance(message, str | bytes):
            raise TypeError(
                f"{function}(): incompatible function arguments. The following argument types are "
                f"supported:\n    1. (message: str) -> None\n\nInvoked with: {message!r}"
            )
        text = message.decode() if isinstance(message, bytes) else message
        logger.log(level, "%s", text, stacklevel=3)

    class Logger(metaclass=_LoggerType):
        """Log of the server: static functions only."""

        INFO = LogLevel(0)
        WARNING = LogLevel(1)
        ERROR = LogLevel(2)
        VERBOSE = LogLevel(3)

        def __init__(self) -> None:
            raise TypeError("c_python_backend_utils.Logger: No constructor defined!")

        @staticmethod
        def log(message: str, level: NativeEnum = _INFO) -> None:
            """Log `message` at `level`, a member of the enum."""
            if not isinstance(level, LogLevel):
                raise TypeError(
                    "log(): incompatible function arguments. The following argument types are "
                    "supported:\n    1. (message: str, level: c_python_backend_utils.LogLevel = "
                    f"<LogLevel.INFO: 0>) -> None\n\nInvoked with: {message!r}, {level!r}"
                )
            emit("log", _TO_LOGGING[int(level)], message)

        @staticmethod
        def log_info(message: str) -> None:
            """Log at INFO."""
            emit("log_info", logging.INFO, message)

        @staticmethod
        def log_warn(message: str) -> None:
            """Log at WARNING."""
            emit("log_warn", logging.WARNING, message)

        @staticmethod
        def log_error(message: str) -> None:
            """Log at ERROR."""
            emit("log_error", logging.ERROR, message)

        @staticmethod
        def log_verbose(message: str) -> None:
            """Log at DEBUG, what Triton shows with ``--log-verbose``."""
            emit("log_verbose", logging.DEBUG, message)

    # `Logger.LogLevel` by assignment, since a class body cannot name it after itself.
    Logger.LogLevel = LogLevel  # type: ignore[attr-defined]
    Logger.__module__ = "c_python_backend_utils"
    Logger.__qualname__ = "Logger"
    return Logger
