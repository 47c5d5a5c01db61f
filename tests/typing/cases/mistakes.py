"""Mistakes that a type checker must find: every ignore here is needed, or mypy complains."""

from __future__ import annotations

import numpy as np

import pytriton_lite as ptl
from pytriton_lite import pb_utils


def mistakes(model: ptl.Model, request: pb_utils.InferenceRequest) -> None:
    pb_utils.Tensor(name="OUT", array=np.zeros(1))  # type: ignore[call-arg]
    pb_utils.Tensor("OUT", [1.0])  # type: ignore[arg-type]
    pb_utils.Tensor("OUT", np.float32(1))  # type: ignore[arg-type]
    pb_utils.TritonError("text", 1)  # type: ignore[arg-type]
    pb_utils.InferenceResponse(error="text")  # type: ignore[arg-type]
    pb_utils.InferenceResponse([np.zeros(1)])  # type: ignore[list-item]
    pb_utils.PreferredMemory(1)  # type: ignore[arg-type]
    pb_utils.InferenceRequest(model_name="m")  # type: ignore[call-arg]
    request.requested_output_names()[0]  # type: ignore[index]
    request.shape()  # type: ignore[attr-defined]
    model([1.0])  # type: ignore[arg-type]
    model({"IN": 1}, timeout=1)  # type: ignore[call-arg]
    model.run({"IN": 1}, wanted=["OUT"])  # type: ignore[call-arg]
