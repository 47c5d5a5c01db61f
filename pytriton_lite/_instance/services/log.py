"""Log records of a stub: they appear in the server under the loggers of the same names."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._typing import override
from pytriton_lite.errors import UnavailableError

_PACKAGE = "pytriton_lite"


def log_levels() -> dict[str, int]:
    """What a stub needs to know so that suppressed records cost it nothing.

    The levels of our loggers by name, and under ``""`` that of `logging.disable`.
    """
    manager = logging.getLogger().manager
    levels = {
        name: logger.level
        for name, logger in list(manager.loggerDict.items())
        if name.startswith(f"{_PACKAGE}.") and isinstance(logger, logging.Logger) and logger.level
    }
    levels[_PACKAGE] = logging.getLogger(_PACKAGE).getEffectiveLevel()
    levels[""] = manager.disable
    return levels


def send_logs(asker: Asker, levels: dict[str, int]) -> None:
    """Send what the loggers of this process say to the server, if it is of a level shown there."""
    for name, level in levels.items():
        if name:
            logging.getLogger(name).setLevel(level)
        else:
            logging.disable(level)
    logger = logging.getLogger(_PACKAGE)
    logger.addHandler(_Sender(asker))
    logger.propagate = False


class _Sender(logging.Handler):
    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self._asker = asker

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._asker.tell("log", _to_wire(record))
        except UnavailableError:
            if logging.lastResort is not None:
                logging.lastResort.handle(record)
        except Exception:
            self.handleError(record)


def _to_wire(record: logging.LogRecord) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "name": record.name,
        "level": record.levelno,
        "message": record.getMessage(),
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "thread": record.threadName,
        "created": record.created,
    }
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(record.exc_info[1]))
        wire["exception"] = text.removesuffix("\n")
    if record.stack_info:
        wire["stack"] = record.stack_info
    return wire


def answer_logs(answerer: Answerer, instance_name: str) -> None:
    """Log in the server what the stub of an instance sends."""

    def log(wire: Any) -> None:
        name = wire["name"]
        if not isinstance(name, str) or not f"{name}.".startswith(f"{_PACKAGE}."):
            return  # no logger of ours
        logger = logging.getLogger(name)
        if not logger.isEnabledFor(wire["level"]):
            return
        record = logger.makeRecord(
            name,
            wire["level"],
            wire["file"],
            wire["line"],
            wire["message"],
            (),
            None,
            wire["function"],
            sinfo=wire.get("stack"),
        )
        begun = record.created - record.relativeCreated / 1000
        record.created = float(wire["created"])
        record.msecs = float(int(record.created % 1 * 1000))
        record.relativeCreated = (record.created - begun) * 1000
        record.threadName, record.thread = wire["thread"], None
        record.processName, record.process = instance_name, None
        record.exc_text = wire.get("exception")
        logger.handle(record)

    answerer.add("log", log)
