"""What tensors cost: objects, checks, DLPack, BYTES, and the copies of large data.

Every row has its baseline from the same round; see README.md.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from harness import (
    MODELS,
    Contender,
    Figures,
    Report,
    in_fresh_interpreter,
    latencies,
    of,
    page_aligned,
    tight,
)

import pytriton_lite as ptl
from pytriton_lite import pb_utils

A = np.arange(4, dtype=np.float32)
B = np.ones(4, dtype=np.float32)
NAMES = ("INPUT0", "INPUT1")  # literals are interned, as those in model code are
WORDS = np.array([b"x" * (n % 32) for n in range(1000)], dtype=np.object_)
SIZES = (4, 1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20)


@contextmanager
def loop(call: Callable[[], object], count: int) -> Iterator[Callable[[], Figures]]:
    """Contender that needs no instance."""
    yield tight(call, count)


def each(make: Callable[[], list[Any]], use: Callable[[Any], object]) -> Callable[[], Figures]:
    """Measure of ``ns`` to use a fresh object once; their making is not timed."""

    def measure() -> Figures:
        made = make()
        begin = time.perf_counter_ns()
        for thing in made:
            use(thing)
        return {"ns": (time.perf_counter_ns() - begin) / len(made)}

    measure()
    return measure


# -- in place of ours, in plain Python ---------------------------------------------------

KNOWN_TYPES = {np.dtype(code) for code in "?bhilqBHILQefd"}


class SlottedTensor:
    """A tensor as pure Python would have it, with the checks that ours makes."""

    __slots__ = ("array", "tensor_name")

    def __init__(self, name: str, array: np.ndarray) -> None:
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise TypeError(name)
        if not name or array.dtype not in KNOWN_TYPES:
            raise ValueError(name)
        self.tensor_name = name
        self.array = array if array.flags.c_contiguous else np.ascontiguousarray(array)

    def name(self) -> str:
        """Name of the tensor."""
        return self.tensor_name

    def as_numpy(self) -> np.ndarray:
        """The array."""
        return self.array


class SlottedResponse:
    """A response as pure Python would have it."""

    __slots__ = ("error", "tensors")

    def __init__(self, output_tensors: list[SlottedTensor], error: object = None) -> None:
        if not all(type(tensor) is SlottedTensor for tensor in output_tensors):
            raise TypeError(output_tensors)
        self.tensors = list(output_tensors)
        self.error = error


def python_lookup(tensors: list[SlottedTensor], name: str) -> SlottedTensor | None:
    """First tensor of a name."""
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    return None


def python_checks(
    spec: dict[str, tuple[np.dtype, tuple[int, ...]]], inputs: dict[str, np.ndarray]
) -> list[SlottedTensor]:
    """Names, dtypes and dims of the inputs against a configuration, and tensors of them."""
    if len(inputs) != len(spec):
        raise ValueError(inputs)
    tensors = []
    for name, array in inputs.items():
        dtype, dims = spec[name]
        if array.dtype != dtype or array.ndim != len(dims):
            raise ValueError(name)
        if any(want not in (-1, got) for want, got in zip(dims, array.shape, strict=True)):
            raise ValueError(name)
        tensors.append(SlottedTensor(name, array))
    return tensors


def python_serialize(array: np.ndarray) -> bytes:
    """BYTES elements, each after its length."""
    parts = []
    for element in array.ravel():
        parts.append(struct.pack("<I", len(element)))
        parts.append(element)
    return b"".join(parts)


def python_deserialize(encoded: bytes) -> np.ndarray:
    """Elements of a serialized BYTES tensor."""
    elements, position = [], 0
    while position < len(encoded):
        (length,) = struct.unpack_from("<I", encoded, position)
        position += 4
        elements.append(encoded[position : position + length])
        position += length
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


# -- objects -----------------------------------------------------------------------------


def objects(report: Report) -> None:
    """Objects that model code makes and asks, against plain Python or numpy."""
    count = report.count(20_000)
    ours, theirs = pb_utils.Tensor("INPUT0", A), SlottedTensor("INPUT0", A)
    outputs = [pb_utils.Tensor(f"OUTPUT{i}", A) for i in (0, 1)]
    python_outputs = [SlottedTensor(f"OUTPUT{i}", A) for i in (0, 1)]
    request = pb_utils.InferenceRequest(
        inputs=[pb_utils.Tensor(name, A) for name in NAMES],
        requested_output_names=["OUTPUT0"],
        model_name="add_sub",
    )
    python_inputs = [SlottedTensor(name, A) for name in NAMES]
    spec = {name: (np.dtype(np.float32), (4,)) for name in NAMES}
    inputs = {"INPUT0": A, "INPUT1": B}
    as_numpy = pb_utils.Tensor.as_numpy
    get_input = pb_utils.get_input_tensor_by_name
    public = ptl.Tensor.from_dlpack(A)

    @contextmanager
    def prepare() -> Iterator[Callable[[], Figures]]:
        with ptl.Server(MODELS, execution="inline") as server:
            yield tight(partial(server.model("add_sub")._prepare, inputs, {}), count)

    @contextmanager
    def first_call() -> Iterator[Callable[[], Figures]]:
        with ptl.Server(MODELS, execution="inline") as server:
            prepare = server.model("add_sub")._endpoint.served.spec.request
            yield each(lambda: [prepare(inputs).inputs()[0] for _ in repeat(None, count)], as_numpy)

    @contextmanager
    def copies() -> Iterator[Callable[[], Figures]]:
        yield each(lambda: [A] * count, np.ndarray.copy)

    def against(name: str, our: Contender, other: Contender, baseline: str) -> None:
        rounds = report.compare({"our": our, "other": other})
        base = of(rounds["other"], "ns")
        report.add(name, "ns", of(rounds["our"], "ns"), baseline=baseline, base=base)

    def pair(name: str, our: Any, other: Any, baseline: str, calls: int = count) -> None:
        against(name, partial(loop, our, calls), partial(loop, other, calls), baseline)

    slots = "Python class with __slots__"
    pair(
        "Tensor(name, array)",
        partial(pb_utils.Tensor, "INPUT0", A), partial(SlottedTensor, "INPUT0", A), slots,
    )  # fmt: skip
    against("as_numpy() of an input, first call", first_call, copies, "ndarray.copy()")
    pair("as_numpy(), later calls", ours.as_numpy, theirs.as_numpy, slots)
    pair(
        "get_input_tensor_by_name, 2nd of 2",
        partial(get_input, request, "INPUT1"), partial(python_lookup, python_inputs, "INPUT1"),
        "Python loop",
    )  # fmt: skip
    pair(
        "InferenceResponse of 2 tensors",
        partial(pb_utils.InferenceResponse, outputs), partial(SlottedResponse, python_outputs),
        slots,
    )  # fmt: skip
    against(
        "check and wrap 2 inputs",
        prepare,
        partial(loop, partial(python_checks, spec, inputs), count),
        "Python checks and objects",
    )
    pair("DLPack export, Tensor.to_dlpack()", ours.to_dlpack, A.__dlpack__, "ndarray.__dlpack__()")
    from_numpy = partial(np.from_dlpack, A)
    name = "np.from_dlpack(ndarray)"
    pair(
        "DLPack import, Tensor.from_dlpack(name, Tensor)",
        partial(pb_utils.Tensor.from_dlpack, "T", ours),
        from_numpy,
        name,
    )
    pair("np.from_dlpack(pb_utils.Tensor)", partial(np.from_dlpack, ours), from_numpy, name)
    pair("np.from_dlpack(ptl.Tensor)", partial(np.from_dlpack, public), from_numpy, name)
    encoded, calls = python_serialize(WORDS), max(count // 200, 2)
    assert pb_utils.serialize_byte_tensor(WORDS) == encoded
    pair(
        "BYTES, Tensor of 1,000 elements",
        partial(pb_utils.Tensor, "T", WORDS), partial(python_serialize, WORDS),
        "Python loop that serializes", calls,
    )  # fmt: skip
    pair(
        "BYTES, serialize_byte_tensor, 1,000 elements",
        partial(pb_utils.serialize_byte_tensor, WORDS), partial(python_serialize, WORDS),
        "Python loop", calls,
    )  # fmt: skip
    pair(
        "BYTES, deserialize_bytes_tensor, 1,000 elements",
        partial(pb_utils.deserialize_bytes_tensor, encoded), partial(python_deserialize, encoded),
        "Python loop", calls,
    )  # fmt: skip


# -- sizes -------------------------------------------------------------------------------


def sizes(report: Report) -> None:
    """Identity of one tensor from 4 B to 64 MiB against a copy between touched buffers."""
    for size in SIZES[:-2] if report.quick else SIZES:
        count = max(report.count(min(1_000, (1 << 30) // size)), 8)
        source = page_aligned(size)

        @contextmanager
        def memcpy(
            source: np.ndarray = source, count: int = count
        ) -> Iterator[Callable[[], Figures]]:
            yield latencies(partial(np.copyto, page_aligned(source.size), source), count)

        @contextmanager
        def fresh_copy(
            source: np.ndarray = source, count: int = count
        ) -> Iterator[Callable[[], Figures]]:
            yield latencies(source.copy, count)

        @contextmanager
        def identity(
            execution: Any, share_memory: bool, source: np.ndarray = source, count: int = count
        ) -> Iterator[Callable[[], Figures]]:
            with ptl.Server(
                MODELS,
                execution=execution,
                share_memory=share_memory,
                model_control_mode="explicit",
                startup_models=["identity"],
            ) as server:
                yield latencies(partial(server.model("identity"), {"INPUT0": source}), count)

        ways = {
            f"{execution}{', share_memory' if is_shared else ''}": (execution, is_shared)
            for is_shared in (False, True)
            for execution in ("inline", "thread")
        }
        contenders: dict[str, Contender] = {"memcpy": memcpy, "copy": fresh_copy}
        contenders |= {name: partial(identity, *way) for name, way in ways.items()}
        rounds = report.compare(contenders, passes=3)
        for name in ["copy", *ways]:
            label = "ndarray.copy()" if name == "copy" else f"identity {name}"
            report.add(
                f"{_size_text(size)} {label}", "us", of(rounds[name], "p50"),
                baseline="warm np.copyto", base=of(rounds["memcpy"], "p50"),
            )  # fmt: skip


def _size_text(size: int) -> str:
    for unit, power in (("MiB", 20), ("KiB", 10)):
        if size >> power:
            return f"{size >> power} {unit}"
    return f"{size} B"


PEAK = """
import json, sys
import numpy as np, pytriton_lite as ptl

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

models, execution, share, size = sys.argv[1], sys.argv[2], sys.argv[3] == "True", int(sys.argv[4])
with ptl.Server(models, execution=execution, share_memory=share) as server:
    identity = server.model("identity")
    identity({"INPUT0": np.ones(1, np.uint8)})
    source = np.ones(size, np.uint8)
    before = status("VmRSS")
    for _ in range(5):
        output = identity({"INPUT0": source})
    print(json.dumps({"sizes": (status("VmHWM") - before) / size}))
"""


def peak_memory(report: Report, size: int = 64 << 20) -> None:
    """Memory that calls need beyond the input, in sizes of the tensor."""
    for execution in ("inline", "thread"):
        for share in (False, True):
            arguments = (str(MODELS), execution, str(share), str(size))
            found = [in_fresh_interpreter(PEAK, *arguments) for _ in range(min(report.rounds, 3))]
            shared = ", share_memory" if share else ""
            name = f"peak of 5 calls of 64 MiB, {execution}{shared}"
            report.add(name, "sizes", of(found, "sizes"))


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of tensors.")
    objects(report)
    sizes(report)
    peak_memory(report)
    report.finish()


if __name__ == "__main__":
    main()
