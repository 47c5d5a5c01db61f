"""Random requests, most of them wrong, never end an instance: the next good one is answered.

The strategies draw from names, dtypes, shapes, layouts, byte orders and objects that lie in
wait; the seed of a failing example is printed by hypothesis.
"""

from __future__ import annotations

import fractions
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count

from .producers import CUDA, Producer

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            outputs = []
            for tensor in request.inputs():
                if tensor.is_cpu():
                    outputs.append(pb_utils.Tensor("OUT" + tensor.name()[2:], tensor.as_numpy()))
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
"""
CONFIGS = {
    "plain": """
input [
  { name: "IN0" data_type: TYPE_FP32 dims: [-1, 2] },
  { name: "IN1" data_type: TYPE_INT8 dims: [3] optional: true }
]
output [
  { name: "OUT0" data_type: TYPE_FP32 dims: [-1, 2] },
  { name: "OUT1" data_type: TYPE_INT8 dims: [3] }
]
""",
    "batched": """
max_batch_size: 4
input [
  { name: "IN0" data_type: TYPE_FP32 dims: [2] },
  { name: "IN1" data_type: TYPE_STRING dims: [-1] optional: true }
]
output [
  { name: "OUT0" data_type: TYPE_FP32 dims: [2] },
  { name: "OUT1" data_type: TYPE_STRING dims: [-1] }
]
""",
}
GOOD = np.float32([[1, 2], [3, 4]])


@pytest.fixture(scope="module", params=["inline", "thread", "process"])
def models(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(f"malformed_{request.param}")
    for name, config in CONFIGS.items():
        folder = root / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(MODEL)
        (folder.parent / "config.pbtxt").write_text(
            f'backend: "python"\n{config}instance_group [{{ kind: KIND_CPU }}]\n'
        )
    live = live_tensor_count()
    with ptl.Server(str(root), execution=request.param) as server:
        yield [server.model(name) for name in CONFIGS]
    assert live_tensor_count() == live


class Liar:
    """Says that it has every protocol, and breaks in each."""

    shape, dtype, ndim, size = (-1, 1 << 40), "f4", -3, -1
    __array_interface__ = None

    def __array__(self, *_, **__):
        raise ValueError("no array")

    def __len__(self):
        raise TypeError("no length")


class Exporter:
    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return (1, 0)


def deep(depth):
    value = 1.0
    for _ in range(depth):
        value = [value]
    return value


def itself():
    value = []
    value.append(value)
    return value


def unaligned():
    return np.zeros(17, np.uint8)[1:].view(np.float32).reshape(2, 2)


NAMES = st.sampled_from(["IN0", "IN0", "IN0", "IN1", "IN2", "OUT0", "", "in0", "IN0 ", "\0", "ü"])
ODD_NAMES = st.one_of(NAMES, st.sampled_from([None, 0, b"IN0", ("IN0",), 1.5]), st.text(max_size=3))
DTYPES = st.sampled_from(
    [*"?bBhHiIlLqQefdgFD", ">f4", ">i2", "O", "S3", "U2", "V5", "M8[s]", "m8[D]", "i4,f4"]
)
SHAPES = st.one_of(
    st.sampled_from([(2, 2), (1, 2), (3,), (4, 2), (5, 2), (0, 2), (2, 0), (), (2,), (1,) * 32]),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
)


@st.composite
def arrays(draw):
    array = np.zeros(draw(SHAPES), dtype=draw(DTYPES))
    layout = draw(st.integers(0, 7))
    if layout == 0:
        array = array.T
    elif layout == 1 and array.ndim:
        array = array[::-1]
    elif layout == 2 and array.ndim:
        array = array[..., ::2]
    elif layout == 3:
        array.flags.writeable = False
    elif layout == 4:
        array = np.asfortranarray(array)
    return array


NUMBERS = st.one_of(
    st.integers(),
    st.floats(width=32),
    st.booleans(),
    st.sampled_from([1 << 63, -(1 << 63), 1 << 64]),
)
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.binary(max_size=5)
)
LEAVES = st.one_of(NUMBERS, TEXT, st.none())
LISTS = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=8)

# Made anew for each request: some can be used once only.
MAKERS = [
    Liar,
    object,
    itself,
    unaligned,
    lambda: deep(70),
    lambda: deep(2000),
    lambda: iter([1.0]),
    lambda: {1.0, 2.0},
    lambda: {"IN0": 1},
    lambda: range(3),
    lambda: ...,
    lambda: 1j,
    lambda: fractions.Fraction(1, 3),
    lambda: memoryview(b"abcd"),
    lambda: np.float32(1),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.array([object(), None], dtype=object),
    lambda: np.ma.masked_array(GOOD, GOOD > 2),
    lambda: GOOD.view(np.recarray),
    lambda: np.broadcast_to(np.float32([1, 2]), (3, 2)),
    lambda: np.zeros((1 << 40, 0), np.float32),
    lambda: [[1.0] * 2] * 20_000,
    lambda: [GOOD, GOOD],
    lambda: [[1.0, 2.0], [3.0]],
    lambda: Producer(GOOD),
    lambda: Producer(GOOD, (2, 2), (1, 2)),
    lambda: Producer(GOOD, dtype=(2, 32, 4)),
    lambda: Producer(GOOD, dtype=(9, 9, 1)),
    lambda: Producer(GOOD, version=(7, 7)),
    lambda: Producer(0xDEAD000, (2, 2), device=CUDA),
    lambda: Exporter(None),
    lambda: Exporter(5),
    lambda: Exporter(Producer(GOOD).capsule()),
    GOOD.__dlpack__,
    lambda: pb_utils.Tensor("IN0", GOOD),
    pb_utils.InferenceResponse,
    lambda: ptl.Tensor("FP32", [2, 2], bytes(16)),
    lambda: ptl.Tensor("INT8", [3], bytes(3)),
    lambda: ptl.Tensor.from_string_array(np.array([["a", "b"]])),
    threading.Lock,
]
VALUES = st.one_of(arrays(), LISTS, NUMBERS, TEXT, st.sampled_from(MAKERS))
REQUESTS = st.one_of(
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.dictionaries(ODD_NAMES, VALUES, max_size=3),
    st.sampled_from([None, 5, "IN0", b"", [], [1], [("IN0", GOOD)], GOOD, object(), {}]),
)
# What a caller's mistake may raise: our error, or an exception that the caller's own object
# raised. Above all no InternalError, which would mean a defect of ours or of the model.
# UnsupportedError is for memory of a device that nothing here can read.
EXPECTED = (ptl.InvalidArgumentError, ptl.UnsupportedError, TypeError, ValueError)


def is_maker(value):
    return any(value is maker for maker in MAKERS)


def send(model, inputs):
    if isinstance(inputs, dict):
        inputs = {name: value() if is_maker(value) else value for name, value in inputs.items()}
    try:
        outputs = model(inputs, timeout_s=30)
    except EXPECTED:
        return
    assert isinstance(outputs, dict)
    for array in outputs.values():
        assert isinstance(array, np.ndarray)
        assert array.flags.c_contiguous


def answers(model):
    np.testing.assert_array_equal(model({"IN0": GOOD}, timeout_s=30)["OUT0"], GOOD)


# Each example makes 6 requests for 2 models, then a good one: 2 modes * 500 examples * 12 are
# 12,000 requests, of which few happen to be right.
@settings(
    max_examples=500,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(VALUES, ODD_NAMES, REQUESTS)
def test_random_requests(models, value, name, request):
    for model in models:
        send(model, {"IN0": value})
        send(model, {"IN1": value})
        send(model, {"IN0": GOOD, "IN1": value})
        send(model, {"IN0": value, "IN1": value})
        send(model, {"IN0": GOOD, name: value})
        send(model, request)
        answers(model)


@pytest.mark.parametrize("which", [0, 1], ids=list(CONFIGS))
@pytest.mark.parametrize("maker", MAKERS, ids=range(len(MAKERS)))
def test_each_object_that_lies_in_wait(models, which, maker):
    for name in ("IN0", "IN1"):
        send(models[which], {name: maker})
        send(models[which], {"IN0": GOOD, name: maker})
    answers(models[which])
