"""Records that the tables in `tests/conformance/tables` are made of.

A `Group` is a model repository with the requests that are sent to it. All models
of a group are loaded, in order, before the first request, so that models which
must not disturb each other are in memory together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from textwrap import dedent
from typing import TypeAlias

Scalar: TypeAlias = int | float | bool | str | bytes

STRINGS_IO = """
input [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_STRING dims: [ -1 ] } ]
"""
"""Inputs and outputs of a model that is asked something and answers in words."""


@dataclass(frozen=True, slots=True)
class Values:
    """A tensor, independent of any array library.

    ``data`` is flat, in row-major order. Elements of BYTES are ``str`` (sent as
    UTF-8) or ``bytes``.
    """

    datatype: str
    shape: tuple[int, ...]
    data: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model folder: ``config.pbtxt`` (None: no such file) and files by relative path."""

    name: str
    config_pbtxt: str | None
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BackendFiles:
    """A folder of the backend directory: files by relative path."""

    name: str
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class InferCase:
    """One request. ``outputs`` None asks for no output by name, which means all."""

    id: str
    model: str
    inputs: Mapping[str, Values] = field(default_factory=dict)
    outputs: tuple[str, ...] | None = None
    request_id: str = ""
    parameters: Mapping[str, Scalar] = field(default_factory=dict)
    correlation_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False
    priority: int = 0
    timeout: int = 0


@dataclass(frozen=True, slots=True)
class LoadCase:
    """The load of one model: whether it succeeds, with which text or configuration."""

    id: str
    model: str


@dataclass(frozen=True, slots=True)
class Group:
    """Models and backends that share a server, and the requests that it gets, in order.

    With the model control mode ``none`` all models are loaded by the start of the
    server, and their loads are no cases.
    """

    name: str
    models: tuple[ModelFiles, ...]
    requests: tuple[InferCase, ...] = ()
    backends: tuple[BackendFiles, ...] = ()
    model_control_mode: str = "explicit"

    @property
    def loads(self) -> tuple[LoadCase, ...]:
        """One case per model."""
        if self.model_control_mode != "explicit":
            return ()
        return tuple(LoadCase(f"load/{model.name}", model.name) for model in self.models)


def source(text: str) -> str:
    """Return an indented text block as the content of a file."""
    return dedent(text).lstrip("\n")


def words(*values: str | bytes, shape: tuple[int, ...] | None = None) -> Values:
    """Return a BYTES tensor, one-dimensional unless a shape is given."""
    return Values("BYTES", (len(values),) if shape is None else shape, values)


def tensor(datatype: str, shape: tuple[int, ...], *data: Scalar) -> Values:
    """Return a tensor of any data type."""
    return Values(datatype, shape, data)


def ask(case_id: str, model: str, *question: str) -> InferCase:
    """Return a request with one BYTES input ``IN``."""
    return InferCase(case_id, model, {"IN": words(*(question or ("?",)))})


def answering(expression: str, *, setup: str = "", initialize: str = "pass") -> str:
    """Return a ``model.py`` whose answer ``OUT`` is the JSON of one expression.

    ``setup`` is put at the module's top, ``initialize`` is the body of that
    method; both may have several lines. The expression sees ``self`` and
    ``request``.
    """
    lines = [
        "import json",
        "import os",
        "import sys",
        "",
        "import numpy as np",
        "import triton_python_backend_utils as pb_utils",
        *dedent(setup).strip("\n").split("\n"),
        "",
        "class TritonPythonModel:",
        "    def initialize(self, args):",
        "        self.args = args",
        *("        " + line for line in dedent(initialize).strip("\n").split("\n")),
        "",
        "    def execute(self, requests):",
        "        return [self.answer(request) for request in requests]",
        "",
        "    def answer(self, request):",
        f"        text = json.dumps({expression}, sort_keys=True)",
        "        tensor = pb_utils.Tensor('OUT', np.array([text], dtype=np.object_))",
        "        return pb_utils.InferenceResponse([tensor])",
    ]
    return "\n".join(lines) + "\n"


def asked(name: str, expression: str, config: str = "", **parts: str) -> ModelFiles:
    """Return a plain Python model made by `answering`; ``config`` is added to its file."""
    return ModelFiles(
        name,
        f'backend: "python"\n{STRINGS_IO}{config}',
        {"1/model.py": answering(expression, **parts)},
    )


def plain(name: str, code: str, config: str = "") -> ModelFiles:
    """Return a plain Python model with the given ``model.py`` and a BYTES input and output."""
    return ModelFiles(
        name, f'backend: "python"\n{STRINGS_IO}{config}', {"1/model.py": source(code)}
    )


@dataclass(frozen=True, slots=True)
class StreamCase:
    """Requests whose every response is looked at, sent one ``gap_s`` after the other.

    Each has a stream of its own, so that several run at the same time. With
    ``cancel_after`` a request is cancelled by its client as soon as it got that many
    responses, or after ``cancel_after_s`` seconds. ``then`` is sent once all streams
    have ended: a request for what the model has seen.
    """

    id: str
    requests: tuple[InferCase, ...]
    gap_s: float = 0.0
    cancel_after: int | None = None
    cancel_after_s: float | None = None
    then: InferCase | None = None
    both: bool = True
    """Whether to ask also without the empty final response."""


@dataclass(frozen=True, slots=True)
class StreamGroup:
    """Models that share a server, and what is sent to them."""

    name: str
    models: tuple[ModelFiles, ...]
    streams: tuple[StreamCase, ...]
