"""A user's program, with the types that a type checker must see."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import pytriton_lite as ptl


def main(repository: str) -> str:
    """Call the model in every synchronous way; returns its note."""
    x = np.arange(4, dtype=np.float32)
    with ptl.Server(repository) as server:
        assert_type(server, ptl.Server)
        model = server.model("scale")
        assert_type(model, ptl.Model)
        assert_type(server["scale"], ptl.Model)
        outputs = model({"IN": x})
        assert_type(outputs, dict[str, npt.NDArray[Any]])
        response = model.run({"IN": [1.0, 2.0]}, request_id="r", timeout_s=5)
        assert_type(response, ptl.InferenceResponse)
        assert_type(response["OUT"], npt.NDArray[Any])
        assert_type(response.outputs, dict[str, ptl.Tensor])
        assert_type(response.to_dict(), dict[str, npt.NDArray[Any]])
        assert_type(response.error, ptl.TritonError | None)
        assert_type(response.final, bool)
        assert_type(response.parameters, dict[str, bool | int | float | str])
        future = model.submit({"IN": x})
        assert_type(future, concurrent.futures.Future[ptl.InferenceResponse])
        assert_type(future.result(5), ptl.InferenceResponse)
        answers = model.infer(inputs={"IN": x}, raise_on_error=False)
        assert_type(answers, Iterator[ptl.InferenceResponse])
        assert_type(next(answers), ptl.InferenceResponse)
        assert_type(model.name, str)
        assert_type(model.version, int)
        assert_type(model.ready(), bool)
        assert_type(model.ready(raise_on_error=True), bool)
        assert_type(model.config(), dict[str, Any])
        assert_type(model.config(explain=True), ptl.ConfigExplanation)
        assert_type(model.config(explain=True)["name"], ptl.ConfigValue)
        assert_type(model.config(explain=True)["name"].origin, ptl.ConfigOrigin)
        assert_type(server.index(), list[ptl.ModelIndexEntry])
        out = response.outputs["OUT"]
        assert_type(out.data_type, ptl.DataType)
        assert_type(out.shape, tuple[int, ...])
        assert_type(out.size, int)
        assert_type(out.data_ptr, int)
        assert_type(out.numpy(), npt.NDArray[Any])
        assert_type(out.__dlpack_device__(), tuple[int, int])
        note = response.outputs["NOTE"].to_string_array()
        assert_type(note, npt.NDArray[np.str_])
        return str(note[0])


async def main_async(repository: str) -> float:
    """The same through asyncio."""
    async with ptl.Server(repository) as server:
        assert_type(server, ptl.Server)
        response = await server.model("scale").async_run({"IN": np.ones(2, np.float32)})
        assert_type(response, ptl.InferenceResponse)
        async for answer in server.model("scale").async_infer(
            inputs={"IN": ptl.Tensor("FP32", [1], bytes(4))}
        ):
            assert_type(answer, ptl.InferenceResponse)
        return float(response["OUT"].sum())


def tensors() -> None:
    """Public tensors by hand."""
    made = ptl.Tensor(ptl.DataType.FP32, (2,), bytes(8))
    assert_type(ptl.Tensor.from_dlpack(made), ptl.Tensor)
    assert_type(ptl.Tensor.from_dlpack(np.zeros(2)), ptl.Tensor)
    assert_type(ptl.Tensor.from_string_array(np.array(["a"])), ptl.Tensor)
    assert_type(ptl.Tensor.from_bytes_array(np.array([b"a"])), ptl.Tensor)
    np.from_dlpack(made)
    np.asarray(made)
