"""Arguments and errors in the words of Triton's native module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pytriton_lite._core.tensor import TritonModelException

_P = ParamSpec("_P")
_R = TypeVar("_R")

NATIVE_NAME = "c_python_backend_utils"


class WrongType(TypeError):
    """An argument that Triton's native module would not convert."""


def native(
    signature: str, kind: str = "function"
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Refuse wrong arguments in the words of Triton's native module."""

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        name = function.__name__
        expected = inspect.signature(function)

        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if not isinstance(error, WrongType):
                    try:
                        expected.bind(*args, **kwargs)
                    except TypeError:
                        pass  # refused before the function began: its arguments do not fit
                    else:
                        raise
            shown = args[1:] if kind == "constructor" else args
            named = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
            raise TypeError(
                f"{name}(): incompatible {kind} arguments. The following argument types are "
                f"supported:\n    1. {signature}\n\nInvoked with: "
                + ", ".join(map(repr, shown))
                + (f"; kwargs: {named}" if named else "")
            )

        return checked

    return decorate


def text_of(value: object) -> str:
    """Text of a str or of UTF-8 bytes, as Triton takes both."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return str(value)
    except UnicodeError:
        pass  # neither a lone surrogate nor bytes of another encoding are text
    raise WrongType


def refusal(what: str, instance_name: str, text: str) -> TritonModelException:
    """What model code gets when the server refuses what it asked for."""
    return TritonModelException(
        f"{what}: Failed to process the request for model '{instance_name}', message: {text}"
    )
