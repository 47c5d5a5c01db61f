"""A hard limit for what must not hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """Call a function on a thread of its own; fails the test when it does not return in time."""
    outcome: list[Any] = []

    def call() -> None:
        try:
            outcome.extend((function(*args), None))
        except BaseException as error:
            outcome.extend((None, error))

    thread = threading.Thread(target=call, daemon=True, name="within")
    thread.start()
    thread.join(seconds)
    assert outcome, f"{function} did not return within {seconds} s"
    result, error = outcome
    if error is not None:
        raise error
    return result


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition holds; fails the test when it does not in time."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError(f"{condition} did not hold within {seconds} s")
