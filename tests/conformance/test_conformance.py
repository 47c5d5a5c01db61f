"""The recorded cases, answered by `pytriton_lite` in each execution mode."""

from __future__ import annotations

import http
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import pytriton_lite as ptl
from pytriton_lite.errors import ErrorCode

from .cases import GROUPS
from .differences import (
    ANY_INPUT,
    DIFFERENCES,
    OUTPUTS_ARE_A_DICT,
    THREAD_ONLY,
    TRIED_PATHS,
    comparable,
    exact,
    without_prefix,
)
from .record import normaliser, readable, write_group
from .schema import Group, InferCase, LoadCase, Values

Answer = dict[str, Any]

RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "triton_2_51.json").read_text(encoding="utf-8")
)
TIMEOUT_S = 5.0
MODES = ("inline", "thread", "process")
HTTP_STATUS = {
    ErrorCode.UNKNOWN: 400,
    ErrorCode.INTERNAL: 500,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.INVALID_ARG: 400,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.UNSUPPORTED: 501,
    ErrorCode.ALREADY_EXISTS: 400,
    ErrorCode.CANCELLED: 400,
}
NUMPY_DTYPES = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}


@dataclass
class Loaded:
    """A running server with all models of a group, and what their loads gave."""

    server: ptl.Server
    normalise: Callable[[str], str]
    loads: dict[str, Answer | BaseException] = field(default_factory=dict)

    def load(self, name: str) -> Answer | BaseException:
        """Load a model; return what a recorded load holds, or an unexpected error."""
        try:
            self.server.load(name)
            model = self.server.model(name)
            return {"status": 200, "config": model.config(), "metadata": model.metadata()}
        except ptl.TritonError as error:
            return {"status": 400, "error": self.normalise(str(error))}
        except BaseException as error:
            # Shown by the one test that asks for this load, not by all of the group. Models
            # raise KeyboardInterrupt and SystemExit here; leaked, they would end the run.
            return error

    def infer(self, case: InferCase) -> Answer:
        """Send a request; return what a recorded answer holds."""
        inputs = {name: array(values) for name, values in case.inputs.items()}
        try:
            model = self.server.model(case.model)
            response = model.run(inputs, timeout_s=TIMEOUT_S, **options(case))
        except ptl.TritonError as error:
            return {"status": HTTP_STATUS[error.code], "error": self.normalise(str(error))}
        except (KeyboardInterrupt, SystemExit) as error:
            raise AssertionError(f"{type(error).__name__} reached the caller") from error
        return {
            "status": 200,
            "outputs": [
                {
                    "name": name,
                    "datatype": tensor.data_type.name,
                    "shape": list(tensor.shape),
                    "data": [self._element(x) for x in tensor.numpy().reshape(-1).tolist()],
                }
                for name, tensor in response.outputs.items()
            ],
        }

    def _element(self, value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        item = readable(value)
        return without_prefix(self.normalise(item)) if isinstance(item, str) else item


def array(values: Values) -> npt.NDArray[Any]:
    """Return a tensor of a case as an array."""
    if values.datatype != "BYTES":
        return np.array(values.data, dtype=NUMPY_DTYPES[values.datatype]).reshape(values.shape)
    items = [x.encode() if isinstance(x, str) else x for x in values.data]
    result = np.empty(len(items), dtype=np.object_)
    result[:] = items
    return result.reshape(values.shape)


def options(case: InferCase) -> dict[str, Any]:
    """Return the keyword arguments of a request that differ from their defaults."""
    chosen: dict[str, Any] = {
        "request_id": case.request_id,
        "parameters": dict(case.parameters),
        "correlation_id": case.correlation_id,
        "sequence_start": case.sequence_start,
        "sequence_end": case.sequence_end,
        "priority": case.priority,
        "timeout": case.timeout,
    }
    chosen = {key: value for key, value in chosen.items() if value}
    if case.outputs is not None:
        chosen["outputs"] = list(case.outputs)
    return chosen


def check(case_id: str, expected: Answer, answer: Answer, inputs: tuple[str, ...] = ()) -> None:
    """Assert that an answer is the recorded one, or the one that the table of differences wants."""
    difference = DIFFERENCES.get(case_id)
    if difference is not None:
        assert answer["status"] == difference.status, difference.reason
        seen = answer["error"] if "error" in answer else exact(answer.get("outputs"))
        assert re.search(difference.pattern, seen), difference.reason
        return
    any_of = inputs if case_id in ANY_INPUT else ()
    if "error" in expected:
        text = comparable(answer.get("error", ""), any_of)
        wanted = comparable(expected["error"], any_of)
        if case_id in TRIED_PATHS:
            wanted = wanted.removesuffix(";\n")
            text = text[: len(wanted)]
        assert text == wanted, answer.get("outputs")
    else:
        assert "error" not in answer, answer["error"]
    assert answer["status"] == expected["status"]
    if case_id in OUTPUTS_ARE_A_DICT:
        assert len(answer["outputs"]) == 1
        assert answer["outputs"][0] in expected["outputs"]
        return
    for key in ("outputs", "config", "metadata"):
        assert exact(answer.get(key)) == exact(expected.get(key))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Group, str], Loaded]]:
    """Return a function that gives the server of a group, started when first asked for."""
    servers: dict[tuple[str, str], Loaded] = {}

    with ExitStack() as stack:

        def get(group: Group, mode: str) -> Loaded:
            if (group.name, mode) not in servers:
                folder = tmp_path_factory.mktemp(f"{group.name}-{mode}").resolve()
                models, backends = folder / "models", folder / "backends"
                write_group(models, backends, group)
                server = ptl.Server(
                    models,
                    backend_directory=backends,
                    execution=mode,
                    model_control_mode=group.model_control_mode,
                    startup_models=[],
                )
                stack.enter_context(server)
                result = Loaded(server, normaliser(models, backends))
                for load in group.loads:
                    result.loads[load.id] = result.load(load.model)
                servers[group.name, mode] = result
            return servers[group.name, mode]

        yield get


LOADS = [pytest.param(g, case, id=case.id) for g in GROUPS for case in g.loads]
REQUESTS = [pytest.param(g, case, id=case.id) for g in GROUPS for case in g.requests]
FINALIZE_FAILS = ("finalize_raises", "finalize_exits", "finalize_arity")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("group", "case"), LOADS)
def test_load(
    group: Group, case: LoadCase, mode: str, loaded: Callable[[Group, str], Loaded]
) -> None:
    """A model loads with Triton's configuration, or fails with Triton's text."""
    answer = loaded(group, mode).loads[case.id]
    if isinstance(answer, BaseException):
        raise AssertionError(f"{type(answer).__name__} reached the caller") from answer
    check(case.id, RECORDED["loads"][case.id], answer)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("group", "case"), REQUESTS)
def test_request(
    group: Group, case: InferCase, mode: str, loaded: Callable[[Group, str], Loaded]
) -> None:
    """A request gets Triton's outputs, or fails with Triton's text and code."""
    if mode == "inline" and case.id in THREAD_ONLY:
        pytest.skip("an inline model runs on the caller's thread")
    answer = loaded(group, mode).infer(case)
    check(case.id, RECORDED["requests"][case.id], answer, tuple(case.inputs))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", FINALIZE_FAILS)
def test_unload_succeeds_when_finalize_fails(name: str, mode: str, tmp_path: Path) -> None:
    """What `finalize` raises does not reach the caller of the unload."""
    group = next(g for g in GROUPS if g.name == "lifecycle")
    models, backends = tmp_path / "models", tmp_path / "backends"
    write_group(models, backends, group)
    assert RECORDED["unloads"][f"load/{name}"] == http.HTTPStatus.OK
    with ptl.Server(
        models,
        backend_directory=backends,
        execution=mode,
        model_control_mode="explicit",
        startup_models=[],
    ) as server:
        server.load(name)
        server.unload(name)
        with pytest.raises(ptl.TritonError, match=name):
            server.model(name).run({"IN": array(Values("BYTES", (1,), ("x",)))})


def test_every_case_is_recorded() -> None:
    """The data file and the tables hold the same cases."""
    loads = {case.id for group in GROUPS for case in group.loads}
    requests = {case.id for group in GROUPS for case in group.requests}
    assert loads == set(RECORDED["loads"])
    assert requests == set(RECORDED["requests"])
    named = set(DIFFERENCES) | TRIED_PATHS | ANY_INPUT | OUTPUTS_ARE_A_DICT
    assert named <= loads | requests
