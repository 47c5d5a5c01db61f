"""Fixtures of the conformance suite."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _threads_may_raise() -> Iterator[None]:
    """Let threads of models raise: pytest would keep the exception, and with it their senders."""
    before, threading.excepthook = threading.excepthook, lambda _: None
    yield
    threading.excepthook = before
