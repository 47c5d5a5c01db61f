"""One test session per Python version that is on the machine."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Build, install and test with the newest dependencies."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="3.11")
def frameworks(session: nox.Session) -> None:
    """Test with torch and JAX as well."""
    session.install("-e", ".[test,frameworks]", "--constraint", ".ci/constraints.txt")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Test with the oldest numpy and protobuf that are allowed."""
    oldest = ("numpy==1.26.0", "protobuf==4.25.0", "typing-extensions==4.6.0")
    session.install("-e", ".[test]", *oldest)
    session.run("python", "-m", "pytest", *session.posargs)
