"""A model that runs what it is sent."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytriton_lite as ptl

# Runs the text in CODE; what that assigns to `result` is the answer, as JSON.
PROBE = """
import json, os, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

state = {}


class TritonPythonModel:
    def initialize(self, args):
        state["instance"] = args["model_instance_name"]

    def execute(self, requests):
        request = requests[0]
        code = pb_utils.get_input_tensor_by_name(request, "CODE").as_numpy()[0].decode()
        given = pb_utils.get_input_tensor_by_name(request, "X")
        names = {**globals(), "request": request, "given": given, "outputs": None}
        exec(code, names)
        if names.get("no_answer"):
            return None
        outputs = names["outputs"]
        if outputs is None:
            text = json.dumps(names.get("result"))
            outputs = [pb_utils.Tensor("TEXT", np.array([text.encode()], dtype=object))]
        return [pb_utils.InferenceResponse(outputs)]
"""
CONFIG = """
input [ { name: "CODE" data_type: TYPE_STRING dims: [ 1 ] } ]
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] optional: true } ]
output [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""


def inputs(code: str, **arrays: Any) -> dict[str, Any]:
    return {"CODE": [code], **arrays}


def ask(model: ptl.Model, code: str, **arrays: Any) -> Any:
    """Run code in the model's process; its `result`."""
    return json.loads(model(inputs(code, **arrays), timeout_s=20)["TEXT"][0])


def wait_until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def held_up(model: ptl.Model, folder: Path) -> tuple[Future[Any], Path]:
    """A request that runs until the file is there."""
    begun, gate = folder / "begun", folder / "gate"
    code = (
        f"open({str(begun)!r}, 'w').close()\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.001)\n"
        "result = state['instance']"
    )
    future = model.submit(inputs(code))
    wait_until(begun)
    return future, gate
