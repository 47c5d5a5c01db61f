"""Which execution modes a test of models runs in; its modules say that all are the rule."""

from __future__ import annotations

import pytest

ALL = ("inline", "thread", "process")

not_inline = pytest.mark.parametrize("execution", ["thread", "process"])
"""For tests whose caller goes on while the model runs."""


def in_process(reason: str) -> pytest.MarkDecorator:
    """For tests that no model in a stub can pass, and the reason."""
    skipped = pytest.param("process", marks=pytest.mark.skip(reason=reason))
    return pytest.mark.parametrize("execution", ["inline", "thread", skipped])


def thread_only(reason: str) -> pytest.MarkDecorator:
    """For tests of models with a thread of the caller's process."""
    skipped = pytest.param("process", marks=pytest.mark.skip(reason=reason))
    return pytest.mark.parametrize("execution", ["thread", skipped])
