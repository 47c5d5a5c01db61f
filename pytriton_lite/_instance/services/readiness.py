"""`is_ready` of the model in a stub."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pytriton_lite._instance.readiness import (
    CLOSED,
    SHARED_TIMED_OUT,
    TIMED_OUT,
    Answer,
    KnownAnswer,
    Readiness,
    Refusal,
)
from pytriton_lite._ipc.exceptions import error_of_wire, error_to_wire
from pytriton_lite._ipc.questions import Answerer, Asker, Question
from pytriton_lite._typing import override
from pytriton_lite.errors import UnavailableError

# Who asks has the limit. The stub answers when `is_ready` has ended, whenever that is.
_LONG_S = 1e8


def answer_readiness(answerer: Answerer, readiness: Readiness) -> None:
    """Ask the model, in its stub, when the server does."""

    def is_ready(_data: object) -> dict[str, Any] | None:
        refusal = readiness.ask().wait(time.monotonic() + _LONG_S)
        if refusal is None:
            return None
        error = refusal.kind(refusal.text)
        error.__cause__ = refusal.cause
        return error_to_wire(error)

    answerer.add("is_ready", is_ready, may_wait=True)


class StubReadiness(Readiness):
    """Whether an instance in a process is ready.

    Parameters
    ----------
    model_name
        For errors.
    why_not
        ``why_not()`` tells why there is no process; None if there is one, and then
    find_asker
        gives who can ask it, or None if its model has no `is_ready`.
    """

    def __init__(
        self,
        model_name: str,
        why_not: Callable[[], Refusal | None],
        find_asker: Callable[[], Asker | None],
    ) -> None:
        self._model_name = model_name
        self._why_not = why_not
        self._find_asker = find_asker
        # The question in flight, and whom. A race of two callers makes two questions, of which
        # the stub makes one call.
        self._asked: tuple[Asker, Question] | None = None

    @override
    def ask(self) -> Answer:
        refusal = self._why_not()
        asker = None if refusal is not None else self._find_asker()
        if asker is None:
            return KnownAnswer(refusal)
        asked = self._asked
        if asked is not None and asked[0] is asker and not asked[1].is_done:
            return _StubAnswer(self, asked[1], SHARED_TIMED_OUT)
        try:
            question = asker.begin("is_ready")
        except UnavailableError:
            return KnownAnswer(self.refusal_of_death())
        self._asked = asker, question
        return _StubAnswer(self, question, TIMED_OUT)

    def refusal_of_death(self) -> Refusal:
        """Why there is no answer of a process that has just died."""
        return self._why_not() or Refusal("the process of the instance is gone")

    def refusal_of(self, wire: Any) -> Refusal | None:
        """What the stub replied."""
        if wire is None:
            return None
        error = error_of_wire(wire, self._model_name, None)
        if str(error) == CLOSED.text:
            return CLOSED
        return Refusal(str(error), type(error), error.__cause__)


class _StubAnswer(Answer):
    def __init__(self, readiness: StubReadiness, question: Question, at_limit: Refusal) -> None:
        self._readiness = readiness
        self._question = question
        self._at_limit = at_limit

    @override
    def wait(self, deadline: float) -> Refusal | None:
        try:
            wire = self._question.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return self._at_limit
        except UnavailableError:
            return self._readiness.refusal_of_death()
        return self._readiness.refusal_of(wire)
