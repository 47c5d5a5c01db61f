"""`pb_utils.Logger` and our loggers in a stub process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.process import wait_until
from tests.support.repository import RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])

BODY = """
import logging
pb_utils_log = logging.getLogger("pytriton_lite.extra")

def answer(x, request):
    if x[0] == 0:
        for number in range(200):
            pb_utils.Logger.log_info(f"number {number}")
        return x
    pb_utils.Logger.log_verbose("suppressed")
    pb_utils.Logger.log_info("100 % sure")
    pb_utils.Logger.log_warn("é \\udc80")
    pb_utils.Logger.log("plain")
    pb_utils.Logger.log_error("bad")
    try:
        1 / 0
    except ZeroDivisionError:
        pb_utils_log.exception("in %s", "extra")
    pb_utils_log.info("suppressed")
    levels = [logging.getLogger(n).isEnabledFor(logging.INFO) for n in
              ("pytriton_lite.extra", "pytriton_lite.model.m", "pytriton_lite.ipc")]
    return np.float32(levels)
"""
METHODS = """
@staticmethod
def auto_complete_config(config):
    pb_utils.Logger.log_info("completing")
    return config

def initialize(self, args):
    pb_utils.Logger.log_info("begin")

def finalize(self):
    pb_utils.Logger.log_info("end")
"""


@pytest.fixture(autouse=True)
def levels(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "pytriton_lite")
    logging.getLogger("pytriton_lite.extra").setLevel(logging.ERROR)
    yield
    logging.getLogger("pytriton_lite.extra").setLevel(logging.NOTSET)


def test_records(
    repository: RepositoryBuilder, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    folder = repository.model("m", echo_model(BODY, METHODS))
    server = serve(execution="process")

    def records() -> list[logging.LogRecord]:
        return [
            r for r in caplog.records if r.name in ("pytriton_lite.model.m", "pytriton_lite.extra")
        ]

    enabled = server["m"]({"IN": X})["OUT"].tolist()
    assert enabled == [False, True, True]
    wait_until(lambda: records()[-1].name == "pytriton_lite.extra")
    shown = [(r.levelname, r.getMessage(), r.funcName) for r in records()]
    assert shown == [
        ("INFO", "completing", "auto_complete_config"),
        ("INFO", "begin", "initialize"),
        ("INFO", "100 % sure", "answer"),
        ("WARNING", "é \udc80", "answer"),
        ("INFO", "plain", "answer"),
        ("ERROR", "bad", "answer"),
        ("ERROR", "in extra", "answer"),
    ]
    source = (folder / "1" / "model.py").read_text().splitlines()
    for record in records():
        assert record.pathname == str(folder / "1" / "model.py")
        line = source[record.lineno - 1]
        assert "Logger.log" in line or "pb_utils_log.exception" in line
    assert "ZeroDivisionError: division by zero" in logging.Formatter().format(records()[-1])
    assert records()[-1].processName == "m_0"
    caplog.clear()
    server["m"]({"IN": np.float32([0])})
    server.stop()
    # All of them, in order, finalize included.
    assert [r.getMessage() for r in records()] == [*(f"number {n}" for n in range(200)), "end"]
