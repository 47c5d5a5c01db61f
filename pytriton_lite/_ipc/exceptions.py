"""Exceptions on their way from a stub to the server, as plain data.

Nothing is unpickled: a stub runs code of the model's author, and unpickling runs code. An exception
of a built-in type with plain arguments arrives as what it was, and so does a `TritonModelException`
of `pb_utils`; any other as a
`RemoteModelError`. Both show the traceback of the stub.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any

from pytriton_lite._core.tensor import TritonModelException
from pytriton_lite._typing import override
from pytriton_lite.errors import ModelLoadError, RequestTimeoutError, TritonError, error_from_code

_PLAIN = (str, int, float, bool, type(None))


class RemoteModelError(Exception):
    """Stands for an exception of model code in another process.

    Attributes
    ----------
    type_name
        Its class, as ``module.Name``; of a built-in one the name alone.
    traceback_text
        As the stub would print it.
    """

    def __init__(self, message: str, type_name: str = "", traceback_text: str = "") -> None:
        super().__init__(message, type_name, traceback_text)
        self.type_name = type_name
        self.traceback_text = traceback_text

    @override
    def __str__(self) -> str:
        return f"{self.type_name}: {self.args[0]}" if self.type_name else str(self.args[0])


def error_to_wire(error: Any) -> dict[str, Any]:
    """What `error_of_wire` makes a `TritonError` of; JSON can carry it."""
    if not isinstance(error, TritonError):
        return {"code": 1, "text": _text_of(error), "cause": _cause_to_wire(error)}
    wire: dict[str, Any] = {"code": int(error.code), "text": str(error)}
    if isinstance(error, RequestTimeoutError):
        wire["timeout"] = True
    if isinstance(error, ModelLoadError):
        wire["failures"] = [error_to_wire(failure) for failure in error.exceptions]
    if error.model is not None:
        wire["model"] = error.model
    if error.__cause__ is not None:
        wire["cause"] = _cause_to_wire(error.__cause__)
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    if notes:
        wire["notes"] = notes
    return wire


def error_of_wire(wire: Any, model: str, request_id: str | None) -> TritonError:
    """Make the error; whatever is wrong with `wire` shows as an odd error, not as a failure."""
    if not isinstance(wire, dict):
        wire = {}
    code = wire.get("code")
    text = str(wire.get("text", ""))
    if isinstance(wire.get("model"), str):
        model = wire["model"]
    failures = wire.get("failures")
    error: TritonError
    if failures and isinstance(failures, list):
        error = ModelLoadError(text, [error_of_wire(failure, model, None) for failure in failures])
    elif wire.get("timeout") is True:
        error = RequestTimeoutError(text, model=model, request_id=request_id)
    else:
        known = type(code) is int and 0 <= code <= 7  # noqa: PLR2004 - the codes of ErrorCode
        error = error_from_code(code if known else 1, text, model=model, request_id=request_id)
    notes = wire.get("notes")
    for note in notes if isinstance(notes, list) else ():
        error.add_note(str(note))
    cause = wire.get("cause")
    if isinstance(cause, dict):
        is_ours = "code" in cause
        error.__cause__ = error_of_wire(cause, model, None) if is_ours else _cause_of_wire(cause)
    return error


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of the model's own class
        return "<MESSAGE UNAVAILABLE DUE TO ANOTHER EXCEPTION>"


def _cause_to_wire(error: BaseException) -> dict[str, Any]:
    if isinstance(error, TritonError):
        return error_to_wire(error)
    kind = type(error)
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # a model's class with a broken `__str__`
        text = "".join(traceback.format_tb(error.__traceback__))
    wire: dict[str, Any] = {
        "module": kind.__module__,
        "name": kind.__qualname__,
        "text": _text_of(error),
        "traceback": text,
    }
    if all(type(argument) in _PLAIN for argument in error.args):
        wire["args"] = list(error.args)
    return wire


def _cause_of_wire(wire: dict[str, Any]) -> BaseException:
    name, text = str(wire.get("name", "")), str(wire.get("traceback", ""))
    module, arguments = wire.get("module"), wire.get("args")
    kind = getattr(builtins, name, None) if module == "builtins" else None
    if (module, name) == (TritonModelException.__module__, TritonModelException.__name__):
        kind = TritonModelException
    if isinstance(kind, type) and issubclass(kind, BaseException) and isinstance(arguments, list):
        try:
            error = kind(*[argument for argument in arguments if type(argument) in _PLAIN])
        except Exception:
            pass  # some need arguments of a certain kind
        else:
            error.add_note(f"Traceback in the stub process:\n{text}")
            return error
    full = name if module == "builtins" else f"{module}.{name}"
    stand_in = RemoteModelError(str(wire.get("text", "")), full, text)
    stand_in.add_note(f"Traceback in the stub process:\n{text}")
    return stand_in
