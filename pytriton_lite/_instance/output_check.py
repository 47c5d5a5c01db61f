"""``strict_outputs``: responses compared with the configuration. Triton itself checks nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytriton_lite._config.model_config import ModelSettings, TensorSettings
from pytriton_lite._dtypes import BY_NUMBER
from pytriton_lite.errors import InternalError


def make_output_check(settings: ModelSettings) -> Callable[[tuple[str, ...], int, Any], None]:
    """Make the check of one model version.

    ``check(requested names, batch size, response)`` raises InternalError. Checked are that
    every requested output is there, once, and the data type, rank, dims and batch size of
    each. `response` has been pruned to the requested outputs, so an undeclared output shows
    as a missing one.
    """
    by_name = {output.name: output for output in settings.outputs}
    is_batching = settings.max_batch_size > 0

    def fail(text: str) -> None:
        raise InternalError(f"{text} (strict_outputs)", model=settings.name)

    def check_one(output: TensorSettings, tensor: Any, batch_size: int) -> None:
        where = f"output '{output.name}' of model '{settings.name}'"
        if tensor.triton_dtype() != output.data_type:
            got, want = BY_NUMBER[tensor.triton_dtype()], BY_NUMBER[output.data_type]
            fail(f"{where} has data type {got.protocol_name}, config wants {want.protocol_name}")
        shape: list[int] = tensor.shape()
        wanted = [-1, *output.model_dims] if is_batching else list(output.model_dims)
        if len(shape) != len(wanted) or any(
            w not in (-1, got) for w, got in zip(wanted, shape, strict=True)
        ):
            fail(f"{where} has shape {shape}, config wants {wanted}")
        if batch_size and shape[0] != batch_size:
            fail(f"{where} has batch size {shape[0]}, the request has {batch_size}")

    def check(requested: tuple[str, ...], batch_size: int, response: Any) -> None:
        tensors = response.output_tensors()
        names = [tensor.name() for tensor in tensors]
        for name in requested:
            if names.count(name) != 1:
                fail(
                    f"model '{settings.name}' sent output '{name}' {names.count(name)} times, "
                    "expected once"
                )
        for tensor in tensors:
            check_one(by_name[tensor.name()], tensor, batch_size)

    return check
