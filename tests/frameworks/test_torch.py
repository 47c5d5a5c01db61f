"""DLPack and the rules of memory with torch on the CPU: directly, and through servers.

Whether memory lives is read from numpy arrays: `torch.from_numpy(array)` keeps the array as long
as its storage is used by anyone, so a weak reference to the array tells.
"""

from __future__ import annotations

import gc
import itertools
import os
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.repository import RepositoryBuilder, echo_model

torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")

# Triton's names and torch's; torch has no other type that Triton knows.
DTYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "UINT16": torch.uint16,
    "UINT32": torch.uint32,
    "UINT64": torch.uint64,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float16,
    "FP32": torch.float32,
    "FP64": torch.float64,
    "BF16": torch.bfloat16,
}
every_dtype = pytest.mark.parametrize("name", DTYPES)

NOT_CONTIGUOUS = (
    "DLPack tensor is not contiguous. Only contiguous DLPack tensors that are stored in C-Order "
    "are supported."
)

# A model in torch as people write it; POINTERS are where its input and output lie.
MODEL = """
import torch
import triton_python_backend_utils as pb_utils

{body}

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "IN")
            x = torch.from_dlpack(tensor.to_dlpack())
            out = answer(x)
            pointers = torch.utils.dlpack.to_dlpack(torch.tensor([x.data_ptr(), out.data_ptr()]))
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("OUT", out),
                        pb_utils.Tensor.from_dlpack("POINTERS", pointers),
                    ]
                )
            )
        return responses
"""
CLONE = "def answer(x): return x.clone()"


def config(name, dims="-1, -1"):
    return f"""
        backend: "python"
        input [ {{ name: "IN" data_type: TYPE_{name} dims: [ {dims} ] }} ]
        output [ {{ name: "OUT" data_type: TYPE_{name} dims: [ {dims} ] }} ]
        output [ {{ name: "POINTERS" data_type: TYPE_INT64 dims: [ 2 ] }} ]
    """


@pytest.fixture
def model(repository, serve, execution):
    """Serve one torch model in both modes."""

    def start(body=CLONE, name="FP32", dims="-1, -1", **options):
        repository.model("m", MODEL.format(body=body), config=config(name, dims))
        return serve(execution=execution, **options)["m"]

    return start


def values(dtype, *shape):
    """Distinct small values, exact in every data type but bool."""
    count = int(np.prod(shape, dtype=int))
    return (torch.arange(count) % 97).reshape(shape).to(dtype)


def counted(*shape):
    """A torch tensor, and a weak reference that is dead when its memory is not used any more."""
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    return torch.from_numpy(array), weakref.ref(array)


def answer_of(model, value):
    response = model.run({"IN": value})
    came_in, went_out = response["POINTERS"].tolist()
    return response, came_in, went_out


# -- through a model -------------------------------------------------------------------


@every_dtype
def test_a_model_reads_the_callers_memory(model, name):
    x = values(DTYPES[name], 3, 4)
    response, came_in, _ = answer_of(model(name=name), x)
    assert came_in == x.data_ptr()
    out = torch.from_dlpack(response.outputs["OUT"])
    assert response.outputs["OUT"].data_type.name == name
    assert out.dtype is x.dtype
    assert torch.equal(out, x)
    assert out.data_ptr() == response.outputs["OUT"].data_ptr


@pytest.mark.parametrize("share_memory", [False, True])
def test_memory_of_a_result_is_copied_unless_shared(model, share_memory):
    # Who else uses memory that torch owns cannot be known, so an answer is a copy of it.
    x = values(torch.float32, 3, 4)
    response, _, went_out = answer_of(model(share_memory=share_memory), x)
    assert (response.outputs["OUT"].data_ptr == went_out) is share_memory
    assert torch.equal(torch.from_dlpack(response.outputs["OUT"]), x)


@pytest.mark.parametrize("share_memory", [False, True])
def test_a_model_that_reuses_its_buffer(model, share_memory):
    body = "buffer = torch.zeros(1, 2)\ndef answer(x): return buffer.add_(x)"
    m = model(body, share_memory=share_memory)
    first = m({"IN": torch.ones(1, 2)})["OUT"]
    second = m({"IN": torch.ones(1, 2)})["OUT"]
    assert second.tolist() == [[2, 2]]
    assert first.tolist() == ([[2, 2]] if share_memory else [[1, 1]])
    first[...] = 50  # the caller's, but with shared memory also the model's
    assert m({"IN": torch.ones(1, 2)})["OUT"].tolist() == ([[51, 51]] if share_memory else [[3, 3]])


@pytest.mark.parametrize("share_memory", [False, True])
def test_an_input_passed_on(model, share_memory):
    x = values(torch.float32, 2, 2)
    response, came_in, went_out = answer_of(
        model("def answer(x): return x", share_memory=share_memory), x
    )
    assert came_in == went_out == x.data_ptr()
    out = torch.from_dlpack(response.outputs["OUT"])
    out.fill_(-1)
    assert x.tolist() == ([[-1, -1], [-1, -1]] if share_memory else [[0, 1], [2, 3]])


def test_a_view_of_a_callers_input_writes_to_the_caller(model):
    # The one way in which a model can change an input: Triton gives a view of the request there.
    x = torch.ones(2, 2)
    model("def answer(x): return x.add_(1)")({"IN": x})
    assert x.tolist() == [[2, 2], [2, 2]]


def test_a_read_only_array_is_safe_from_such_a_view(model):
    array = np.ones((2, 2), np.float32)
    array.flags.writeable = False
    m = model("def answer(x): return x.add_(1)", share_memory=True)
    response, came_in, _ = answer_of(m, array)
    assert came_in != array.ctypes.data
    assert response["OUT"].tolist() == [[2, 2], [2, 2]]
    assert array.tolist() == [[1, 1], [1, 1]]
    # A producer of capsules that say "read-only" is as safe as the array itself.
    assert m({"IN": ptl.Tensor.from_dlpack(array)})["OUT"].tolist() == [[2, 2], [2, 2]]
    assert array.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("share_memory", [False, True])
def test_as_numpy_of_a_torch_input(repository, serve, execution, share_memory):
    repository.model("m", echo_model("def answer(x, request):\n    x += 1\n    return x"))
    x = torch.zeros(3)
    out = serve(execution=execution, share_memory=share_memory)["m"]({"IN": x})["OUT"]
    assert out.tolist() == [1, 1, 1]
    assert x.tolist() == ([1, 1, 1] if share_memory else [0, 0, 0])


def test_bfloat16_round_trip_keeps_every_bit(model):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    x = bits.view(torch.bfloat16).reshape(256, 256)  # all values, the NaNs too
    response, came_in, _ = answer_of(model(name="BF16"), x)
    assert came_in == x.data_ptr()
    out = torch.from_dlpack(response.outputs["OUT"])
    assert torch.equal(out.view(torch.int16), x.view(torch.int16))
    shown = response["OUT"]
    assert shown.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(shown.view(np.int16), x.view(torch.int16).numpy())


def test_bfloat16_arithmetic(model):
    # By hand: bfloat16 has 8 significant bits, so 256 + 1 rounds to 256 and 1.5 + 1 is exact.
    x = torch.tensor([[256.0, 1.5]], dtype=torch.bfloat16)
    out = model("def answer(x): return x + 1", name="BF16").run({"IN": x}).outputs["OUT"]
    assert torch.from_dlpack(out).tolist() == [[256.0, 2.5]]


def test_wrong_dtype_and_shape_are_refused_with_tritons_words(model):
    m = model()
    with pytest.raises(ptl.InvalidArgumentError, match="data-type is 'FP64', but model 'm'"):
        m({"IN": torch.zeros(1, 1, dtype=torch.float64)})
    with pytest.raises(ptl.InvalidArgumentError, match=r"Expected \[-1,-1\], got \[3\]"):
        m({"IN": torch.zeros(3)})
    with pytest.raises(ptl.InvalidArgumentError, match=r"Expected \[-1,-1\], got \[\]"):
        m({"IN": torch.tensor(1.0)})


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1)])
def test_empty_and_single(model, shape):
    x = values(torch.float32, *shape)
    out = torch.from_dlpack(model().run({"IN": x}).outputs["OUT"])
    assert out.shape == x.shape
    assert torch.equal(out, x)


def test_parameters_and_inference_tensors(model):
    m = model("@torch.inference_mode()\ndef answer(x): return x * 2")
    with torch.inference_mode():
        x = torch.ones(1, 2) * 3
    assert m({"IN": x})["OUT"].tolist() == [[6, 6]]
    weight = torch.nn.Parameter(x.clone(), requires_grad=False)
    assert m({"IN": weight})["OUT"].tolist() == [[6, 6]]


# -- layouts ---------------------------------------------------------------------------

LAYOUTS = {
    "transposed": lambda: values(torch.float32, 3, 4).T,
    "strided": lambda: values(torch.float32, 6, 4)[::2],
    "columns": lambda: values(torch.float32, 3, 8)[:, ::3],
    "narrowed": lambda: values(torch.float32, 3, 8)[:, 2:5],
    "expanded": lambda: values(torch.float32, 3, 1).expand(3, 4),
    "permuted": lambda: values(torch.float32, 2, 3, 4).permute(2, 0, 1)[1],
    "real": lambda: torch.complex(values(torch.float32, 2, 2), torch.ones(2, 2)).real,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_of_a_caller_are_copied(model, layout):
    x = LAYOUTS[layout]()
    assert not x.is_contiguous()
    response, came_in, _ = answer_of(model(), x)
    assert came_in != x.data_ptr()
    assert torch.equal(torch.from_dlpack(response.outputs["OUT"]), x)


def test_contiguous_parts_of_a_larger_tensor_are_not_copied(model):
    whole = values(torch.float32, 6, 4)
    m = model()
    for x in (whole[2:5], whole[1], whole.flip(0), whole.reshape(4, 6)):
        x = x.reshape(-1, 4)  # noqa: PLW2901 - a view for all of them
        response, came_in, _ = answer_of(m, x)
        assert came_in == x.data_ptr()
        assert torch.equal(torch.from_dlpack(response.outputs["OUT"]), x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_of_a_model_are_refused(layout):
    x = LAYOUTS[layout]()
    for source in (x, torch.utils.dlpack.to_dlpack(x)):
        with pytest.raises(pb_utils.TritonModelException) as caught:
            pb_utils.Tensor.from_dlpack("T", source)
        assert str(caught.value) == NOT_CONTIGUOUS
    public = ptl.Tensor.from_dlpack(x)
    assert public.data_ptr != x.data_ptr()
    assert torch.equal(torch.from_dlpack(public), x)


def test_a_model_that_answers_with_another_layout(model):
    m = model("def answer(x): return x.T if len(x) > 1 else x")
    with pytest.raises(ptl.InternalError) as caught:
        m({"IN": torch.ones(2, 3)})
    assert NOT_CONTIGUOUS in str(caught.value)
    assert type(caught.value.__cause__) is pb_utils.TritonModelException
    assert m({"IN": torch.ones(1, 2)})["OUT"].tolist() == [[1, 1]]


CASES = st.tuples(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=4),
    st.integers(0, 5),
)
BASE = 128  # more than 5 + 4 * (3 * 6) elements


@settings(max_examples=400, deadline=None)
@given(CASES)
def test_any_dtype_shape_and_strides(case):
    name, dims, offset = case
    base = values(DTYPES[name], BASE)
    x = torch.as_strided(base, [n for n, _ in dims], [step for _, step in dims], offset)
    public = ptl.Tensor.from_dlpack(x)
    assert public.data_type.name == name
    assert public.shape == tuple(x.shape)
    assert torch.equal(torch.from_dlpack(public), x)
    if x.numel():
        assert (public.data_ptr == x.data_ptr()) is x.is_contiguous()
    if not x.is_contiguous():
        with pytest.raises(pb_utils.TritonModelException, match="is not contiguous"):
            pb_utils.Tensor.from_dlpack("T", x)
        return
    tensor = pb_utils.Tensor.from_dlpack("T", x)
    assert tensor.shape() == list(x.shape)
    back = torch.from_dlpack(tensor.to_dlpack())
    assert back.dtype is x.dtype
    assert torch.equal(back, x)
    if x.numel():
        assert back.data_ptr() == x.data_ptr()
    if name != "BF16":
        np.testing.assert_array_equal(tensor.as_numpy(), x.numpy())


@pytest.fixture(scope="module")
def all_dtypes(tmp_path_factory):
    repository = RepositoryBuilder(tmp_path_factory.mktemp("dtypes"))
    for name in DTYPES:
        repository.model(name, MODEL.format(body=CLONE), config=config(name))
    with ptl.Server(repository.models, execution="inline") as server:
        yield server


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(DTYPES)), CASES)
def test_any_input_through_a_model(all_dtypes, expected, case):
    name, dims, offset = case
    base = values(DTYPES[name], BASE)
    x = torch.as_strided(base, [n for n, _ in dims], [step for _, step in dims], offset)
    if name != expected or len(dims) != 2:
        with pytest.raises(ptl.InvalidArgumentError, match=f"model '{expected}'"):
            all_dtypes[expected]({"IN": x})
    response, came_in, _ = answer_of(all_dtypes[name], base.reshape(8, 16))
    assert came_in == base.data_ptr()
    if len(dims) == 2:
        response, came_in, _ = answer_of(all_dtypes[name], x)
        if x.numel():
            assert (came_in == x.data_ptr()) is x.is_contiguous()
        assert torch.equal(torch.from_dlpack(response.outputs["OUT"]), x)


# -- what torch does not export --------------------------------------------------------

COMPLEX = torch.complex(torch.ones(1, 2), torch.ones(1, 2))
REFUSED = {
    "gradient": (
        lambda: torch.ones(1, 2, requires_grad=True),
        "Can't export tensors that require gradient, use tensor.detach()",
    ),
    "parameter": (
        lambda: torch.nn.Parameter(torch.ones(1, 2)),
        "Can't export tensors that require gradient, use tensor.detach()",
    ),
    "conjugate": (
        COMPLEX.conj,
        "Can't export tensors with the conjugate bit set",
    ),
    "negative": (
        lambda: COMPLEX.conj().imag,
        "Can't export tensors with the negative bit set, use tensor.resolve_neg()",
    ),
    "sparse": (
        lambda: torch.ones(1, 2).to_sparse(),
        "Can't export tensors with layout other than torch.strided",
    ),
    "complex": (
        lambda: COMPLEX,
        "DLPack data type with code 5, 64 bits and 1 lanes has no Triton data type",
    ),
    "float8": (
        lambda: torch.ones(1, 2).to(torch.float8_e5m2),
        "has no Triton data type",
    ),
    "meta": (lambda: torch.ones(1, 2, device="meta"), "meta"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_an_input(model, kind):
    make, text = REFUSED[kind]
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        model()({"IN": make()})
    start = "[request id: <id_unknown>] input 'IN' of model 'm' cannot be taken by DLPack: "
    assert str(caught.value).startswith(start)
    assert text in str(caught.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_a_result(kind):
    make, text = REFUSED[kind]
    error = ValueError if kind == "meta" else BufferError
    with pytest.raises(error) as caught:
        pb_utils.Tensor.from_dlpack("T", make())
    assert text in str(caught.value)


def test_a_result_with_gradient_names_what_to_do(model):
    body = "w = torch.nn.Linear(2, 2)\ndef answer(x): return w(x)"
    with pytest.raises(ptl.InternalError, match=r"use tensor\.detach\(\)") as caught:
        model(body)({"IN": torch.ones(1, 2)})
    assert type(caught.value.__cause__) is BufferError


def test_a_negated_view_of_one_element_is_not_read_with_the_wrong_sign():
    # One element is contiguous whatever its stride, so nothing else would notice.
    x = torch.complex(torch.ones(1), torch.full((1,), 5.0)).conj().imag
    assert x.tolist() == [-5]
    with pytest.raises(BufferError, match="negative bit"):
        pb_utils.Tensor.from_dlpack("T", x)
    with pytest.raises(BufferError, match="negative bit"):
        ptl.Tensor.from_dlpack(x)
    assert pb_utils.Tensor.from_dlpack("T", x.resolve_neg()).as_numpy().tolist() == [-5]


# -- capsules --------------------------------------------------------------------------


def test_a_capsule_used_twice():
    x = values(torch.float32, 2)
    capsule = torch.utils.dlpack.to_dlpack(x)
    first = pb_utils.Tensor.from_dlpack("T", capsule)
    with pytest.raises(pb_utils.TritonModelException, match="used before"):
        pb_utils.Tensor.from_dlpack("T", capsule)
    with pytest.raises(BufferError, match="used before"):
        ptl.Tensor.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="only once"):
        torch.from_dlpack(capsule)
    assert first.as_numpy().tolist() == [0, 1]
    capsule = first.to_dlpack()
    second = torch.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="only once"):
        torch.from_dlpack(capsule)
    with pytest.raises(pb_utils.TritonModelException, match="used before"):
        pb_utils.Tensor.from_dlpack("T", capsule)
    assert second.data_ptr() == x.data_ptr()


def test_capsules_that_nobody_uses():
    x, alive = counted(4)
    tensor = pb_utils.Tensor.from_dlpack("T", torch.utils.dlpack.to_dlpack(x))
    public = ptl.Tensor.from_dlpack(x)
    for _ in range(100):
        torch.utils.dlpack.to_dlpack(x)
        tensor.to_dlpack()
        public.__dlpack__()
        public.__dlpack__(max_version=(1, 0))
    capsule = tensor.to_dlpack()
    del x, tensor, public
    assert alive() is not None
    del capsule
    assert alive() is None


def test_zero_dimensions_and_no_elements():
    scalar = torch.tensor(2.5)
    tensor = pb_utils.Tensor.from_dlpack("T", scalar)
    assert tensor.shape() == []
    assert tensor.as_numpy().shape == ()
    assert torch.from_dlpack(tensor.to_dlpack()).item() == 2.5
    empty = pb_utils.Tensor.from_dlpack("T", torch.zeros(2, 0, 3))
    assert empty.shape() == [2, 0, 3]
    assert torch.from_dlpack(empty).shape == (2, 0, 3)


def test_pb_tensor_shows_a_private_copy():
    x = values(torch.float32, 3)
    shown = pb_utils.Tensor.from_dlpack("T", x).as_numpy()
    shown[...] = -1
    assert x.tolist() == [0, 1, 2]


# -- lifetime --------------------------------------------------------------------------


def test_every_order_of_dropping_without_a_server():
    names = ("x", "capsule", "tensor", "second", "view")
    for order in itertools.permutations(names):
        x, alive = counted(3)
        capsule = torch.utils.dlpack.to_dlpack(x)
        tensor = pb_utils.Tensor.from_dlpack("A", capsule)
        second = pb_utils.Tensor.from_dlpack("B", tensor.to_dlpack())
        view = torch.from_dlpack(second.to_dlpack())
        held = {"x": x, "capsule": capsule, "tensor": tensor, "second": second, "view": view}
        del x, capsule, tensor, second, view
        for name in order:
            del held[name]
            needs = set(held) - {"capsule"}  # a used capsule holds nothing
            assert (alive() is not None) is bool(needs), order
            for kept in needs:
                assert torch.from_dlpack(held[kept]).tolist() == [0, 1, 2], order


@pytest.mark.parametrize("share_memory", [False, True])
def test_every_order_of_dropping_with_a_server(repository, share_memory):
    repository.model("m", MODEL.format(body="def answer(x): return x"), config=config("FP32"))
    gc.collect()
    before = live_tensor_count()
    for order in itertools.permutations(("x", "response", "public", "view", "server")):
        server = ptl.Server(repository.models, execution="inline", share_memory=share_memory)
        server.start()
        x, alive = counted(1, 3)
        response = server["m"].run({"IN": x})
        public = response.outputs["OUT"]
        held = {"x": x, "response": response, "public": public, "server": server}
        held["view"] = torch.from_dlpack(public)
        del x, response, public
        for name in order:
            if name == "server":
                server.stop()
            del held[name]
            users = {"x", "response", "public", "view"} if share_memory else {"x"}
            assert (alive() is not None) is bool(users & set(held)), order
            if "response" in held:
                assert held["response"]["OUT"].tolist() == [[0, 1, 2]], order
            for kept in {"x", "public", "view"} & set(held):
                assert torch.from_dlpack(held[kept]).tolist() == [[0, 1, 2]], order
        del server
    gc.collect()
    assert live_tensor_count() == before


def test_a_model_that_keeps_views_of_its_inputs(model):
    m = model("kept = []\ndef answer(x):\n    kept.append(x)\n    return sum(kept)")
    x, alive = counted(1, 2)
    assert m({"IN": x})["OUT"].tolist() == [[0, 1]]
    del x
    assert alive() is not None  # the model's view keeps the caller's memory
    assert m({"IN": torch.ones(1, 2)})["OUT"].tolist() == [[1, 2]]


def test_views_kept_by_a_model_end_with_it(repository, execution):
    body = "kept = []\ndef answer(x):\n    kept.append(x)\n    return x"
    repository.model("m", MODEL.format(body=body), config=config("FP32"))
    x, alive = counted(1, 2)
    with ptl.Server(repository.models, execution=execution) as server:
        server["m"]({"IN": x})
        del x
        assert alive() is not None
    gc.collect()
    assert alive() is None


def test_a_failed_request_lets_go_of_its_inputs(model):
    m = model("def answer(x): raise ValueError(float(x[0, 0]))")
    x, alive = counted(1, 2)
    with pytest.raises(ptl.InternalError, match=r"ValueError: 0\.0"):
        m({"IN": x})
    del x
    gc.collect()
    assert alive() is None


def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.parametrize("share_memory", [False, True])
def test_many_requests_leave_nothing_behind(model, share_memory):
    # 8 MiB in and 8 MiB out, 150 times: 2.4 GiB if nothing were freed.
    m = model("def answer(x): return x + 1", share_memory=share_memory)
    shape = (2048, 1024)

    def ask():
        x = torch.ones(shape)
        out = torch.from_dlpack(m.run({"IN": x}).outputs["OUT"])
        assert out[-1, -1] == 2

    for _ in range(5):
        ask()
    gc.collect()
    tensors, memory = live_tensor_count(), resident_mib()
    for _ in range(150):
        ask()
    gc.collect()
    assert live_tensor_count() == tensors
    assert resident_mib() - memory < 100
