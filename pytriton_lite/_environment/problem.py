"""What is wrong with an environment, before it is known whose it is."""

from __future__ import annotations


class EnvironmentProblem(Exception):
    """An environment cannot be used. Models that share it each get an error made from this.

    Parameters
    ----------
    message
        One sentence or more, without the model.
    hint
        What to do about it, or None.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
