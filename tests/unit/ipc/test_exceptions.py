"""Errors on their way between processes."""

from __future__ import annotations

import json
from typing import Any

import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._ipc.exceptions import RemoteModelError, error_of_wire, error_to_wire


def sent(error: BaseException) -> ptl.TritonError:
    return error_of_wire(json.loads(json.dumps(error_to_wire(error))), "here", None)


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    ("cause", "kind"),
    [
        (ValueError("no licence"), ValueError),
        (KeyError("a", 1), KeyError),
        (SystemExit(3), SystemExit),
        (pb_utils.TritonModelException("no"), pb_utils.TritonModelException),
        (OwnError("no"), RemoteModelError),
        (ValueError(object()), RemoteModelError),
    ],
)
def test_causes(cause: BaseException, kind: type[BaseException]) -> None:
    error = sent(raised(ptl.InternalError("bad", model="m"), raised(cause)))
    assert (type(error), str(error), error.model) == (ptl.InternalError, "bad", "m")
    assert type(error.__cause__) is kind
    if kind is not RemoteModelError:
        assert error.__cause__.args == cause.args
    (note,) = error.__cause__.__notes__
    assert "in raised" in note


def test_a_failed_load() -> None:
    inner = raised(ptl.InternalError("ValueError: no", model="m"), raised(ValueError("no")))
    assert isinstance(inner, ptl.InternalError)
    outer = ptl.ModelLoadError("load failed", [inner, ptl.NotFoundError("none", model="n")])
    error = sent(raised(outer, inner))
    assert isinstance(error, ptl.ModelLoadError)
    assert str(error) == "load failed"
    kinds = [(type(e), str(e), getattr(e, "model", "")) for e in error.exceptions]
    assert kinds == [
        (ptl.InternalError, "ValueError: no", "m"),
        (ptl.NotFoundError, "none", "n"),
    ]
    assert type(error.exceptions[0].__cause__) is ValueError
    assert type(error.__cause__) is ptl.InternalError


@pytest.mark.parametrize(
    "wire",
    [
        None,
        [],
        {"code": "x", "text": 5},
        {"code": 99},
        {"failures": [None, 3], "text": None},
        {"failures": "x"},
        {"cause": {"code": [], "cause": {"module": "builtins", "name": "open", "args": ["x"]}}},
        {"cause": {"module": "os", "name": "system", "args": ["x"]}, "model": 3, "notes": [1]},
    ],
)
def test_nonsense_makes_an_odd_error(wire: Any) -> None:
    assert isinstance(error_of_wire(wire, "here", None), ptl.TritonError)
