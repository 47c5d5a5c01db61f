"""DLPack and the rules of memory with JAX on the CPU."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.repository import echo_model

jax = pytest.importorskip("jax", reason="needs pytriton_lite[frameworks]")
jnp = jax.numpy

# Triton's names and JAX's; types of 64 bits are off in JAX unless asked for.
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "FP16": "float16",
    "FP32": "float32",
    "BF16": "bfloat16",
}

MODEL = """
import jax.numpy as jnp
import numpy as np
import triton_python_backend_utils as pb_utils

{body}

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = jnp.from_dlpack(pb_utils.get_input_tensor_by_name(request, "IN"))
            out = answer(x)
            out.block_until_ready()
            pointers = np.array([x.unsafe_buffer_pointer(), out.unsafe_buffer_pointer()])
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("OUT", out),
                        pb_utils.Tensor("POINTERS", pointers),
                    ]
                )
            )
        return responses
"""
COPY = "def answer(x): return x.copy()"


@pytest.fixture
def model(repository, serve, execution):
    def start(body=COPY, name="FP32", **options):
        config = f"""
            backend: "python"
            input [ {{ name: "IN" data_type: TYPE_{name} dims: [ -1, -1 ] }} ]
            output [ {{ name: "OUT" data_type: TYPE_{name} dims: [ -1, -1 ] }} ]
            output [ {{ name: "POINTERS" data_type: TYPE_INT64 dims: [ 2 ] }} ]
        """
        repository.model("m", MODEL.format(body=body), config=config)
        return serve(execution=execution, **options)["m"]

    return start


def values(name, *shape):
    count = int(np.prod(shape, dtype=int))
    return (jnp.arange(count) % 97).reshape(shape).astype(DTYPES[name])


@pytest.mark.parametrize("name", DTYPES)
def test_a_model_reads_the_callers_memory(model, name):
    x = values(name, 3, 4)
    response = model(name=name).run({"IN": x})
    assert response["POINTERS"][0] == x.unsafe_buffer_pointer()
    out = jnp.from_dlpack(response.outputs["OUT"])
    assert response.outputs["OUT"].data_type.name == name
    assert out.dtype == x.dtype
    assert (out == x).all()


@pytest.mark.parametrize("share_memory", [False, True])
def test_memory_of_a_result_is_copied_unless_shared(model, share_memory):
    x = values("FP32", 3, 4)
    response = model(share_memory=share_memory).run({"IN": x})
    out = response.outputs["OUT"]
    assert (out.data_ptr == int(response["POINTERS"][1])) is share_memory
    np.testing.assert_array_equal(out.numpy(), np.asarray(x))


def test_bfloat16_round_trip_keeps_every_bit(model):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    x = jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.bfloat16)
    response = model(name="BF16").run({"IN": x})
    out = response["OUT"]
    assert out.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(out.view(np.uint16), bits)
    back = jax.lax.bitcast_convert_type(jnp.from_dlpack(response.outputs["OUT"]), jnp.uint16)
    np.testing.assert_array_equal(np.asarray(back), bits)


def test_a_compiled_function_of_a_model(model):
    # By hand: [[1, 2]] @ [[1, 2], [3, 4]] = [[7, 10]].
    body = """
import jax

w = jnp.array([[1.0, 2.0], [3.0, 4.0]])

@jax.jit
def answer(x): return x @ w
"""
    m = model(body)
    assert m({"IN": jnp.array([[1.0, 2.0]])})["OUT"].tolist() == [[7, 10]]
    assert m({"IN": np.float32([[1, 2], [0, 1]])})["OUT"].tolist() == [[7, 10], [3, 4]]


# -- arrays that must not change -------------------------------------------------------


def test_a_callers_jax_array_never_changes(repository, serve, execution):
    repository.model("m", echo_model("def answer(x, request):\n    x += 1\n    return x"))
    x = jnp.zeros(3)
    assert serve(execution=execution)["m"]({"IN": x})["OUT"].tolist() == [1, 1, 1]
    assert x.tolist() == [0, 0, 0]


def test_a_models_jax_array_never_changes(model):
    m = model("kept = jnp.ones((1, 2))\ndef answer(x): return kept")
    out = m({"IN": jnp.zeros((1, 1))})["OUT"]
    out += 5
    assert m({"IN": jnp.zeros((1, 1))})["OUT"].tolist() == [[1, 1]]


def test_jax_takes_a_read_only_array(model):
    array = np.ones((2, 2), np.float32)
    array.flags.writeable = False
    assert model()({"IN": array})["OUT"].tolist() == [[1, 1], [1, 1]]
    # JAX asks for the old form of capsule, which cannot say "read-only".
    with pytest.raises(BufferError, match="read-only"):
        jnp.from_dlpack(ptl.Tensor.from_dlpack(array))


# -- what goes wrong -------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: jnp.ones((1, 2), jnp.complex64),
        lambda: jnp.ones((1, 2), jnp.float8_e4m3fn),
        lambda: jnp.ones((1, 2), jnp.int4),
    ],
    ids=["complex64", "float8", "int4"],
)
def test_data_types_without_a_triton_name(model, make):
    with pytest.raises(ptl.InvalidArgumentError, match=r"^\[.*\] input 'IN' of model 'm' "):
        model()({"IN": make()})


def test_a_deleted_array(model):
    x = jnp.ones((1, 2))
    public = ptl.Tensor.from_dlpack(x)
    x.delete()
    m = model()
    with pytest.raises(ptl.InvalidArgumentError, match="input 'IN' of model 'm' cannot be taken"):
        m({"IN": x})
    # What was taken before the delete stays.
    assert m({"IN": public})["OUT"].tolist() == [[1, 1]]


def test_a_traced_array(model):
    m = model()
    with pytest.raises(ptl.InvalidArgumentError, match="tracer") as caught:
        jax.jit(lambda x: m({"IN": x})["OUT"])(jnp.ones((1, 2)))
    assert "input 'IN' of model 'm'" in str(caught.value)


def test_a_capsule_used_twice():
    x = jnp.arange(3.0)
    capsule = x.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack("T", capsule)
    with pytest.raises(pb_utils.TritonModelException, match="used before"):
        pb_utils.Tensor.from_dlpack("T", capsule)
    assert tensor.as_numpy().tolist() == [0, 1, 2]


# -- any array, and lifetime -----------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 4), max_size=4))
def test_any_dtype_and_shape(name, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(jnp.dtype(DTYPES[name]))
    x = jax.device_put(array)
    tensor = pb_utils.Tensor.from_dlpack("T", x)
    assert tensor.shape() == shape
    public = ptl.Tensor.from_dlpack(x)
    assert public.data_type.name == name
    if x.size:
        assert public.data_ptr == x.unsafe_buffer_pointer()
    for source in (tensor, public):
        back = jnp.from_dlpack(source)
        assert back.dtype == x.dtype
        np.testing.assert_array_equal(np.asarray(back), array)


def test_a_transposed_array():
    # JAX has no strides: a transpose is an array of its own, in C order.
    x = jnp.arange(6.0).reshape(2, 3).T
    tensor = pb_utils.Tensor.from_dlpack("T", x)
    assert tensor.as_numpy().tolist() == [[0, 3], [1, 4], [2, 5]]


def test_every_order_of_dropping():
    names = ("x", "tensor", "public", "view")
    before = live_tensor_count()
    for order in itertools.permutations(names):
        x = jnp.arange(1000.0) + 1  # a new buffer
        tensor = pb_utils.Tensor.from_dlpack("A", x)
        public = ptl.Tensor.from_dlpack(tensor)
        held = {"x": x, "tensor": tensor, "public": public, "view": jnp.from_dlpack(public)}
        del x, tensor, public
        for name in order:
            del held[name]
            jnp.zeros(1000).block_until_ready()  # would take memory that were freed too early
            for kept in held.values():
                assert np.from_dlpack(kept).sum() == 500500, order
    gc.collect()
    assert live_tensor_count() == before


def test_many_requests_leave_no_array(model):
    m = model("def answer(x): return x + 1")

    def ask():
        out = jnp.from_dlpack(m.run({"IN": jnp.ones((64, 64))}).outputs["OUT"])
        assert out[-1, -1] == 2

    for _ in range(5):
        ask()
    gc.collect()
    tensors, arrays = live_tensor_count(), len(jax.live_arrays())
    for _ in range(300):
        ask()
    gc.collect()
    assert live_tensor_count() == tensors
    assert len(jax.live_arrays()) == arrays
