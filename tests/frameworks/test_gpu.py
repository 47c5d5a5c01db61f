"""Tensors on a CUDA device: they pass through by DLPack, or are copied to the CPU for the model."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import pb_utils

torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)
pytestmark = pytest.mark.gpu

CUDA = 2

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
            facts = torch.tensor([tensor.is_cpu(), x.data_ptr(), out.data_ptr()])
            responses.append(
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor.from_dlpack("OUT", out),
                        pb_utils.Tensor.from_dlpack("FACTS", facts),
                    ]
                )
            )
        return responses
"""
NO = 'parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "no" } }'
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "bfloat16",
}


def config(name, extra=""):
    return f"""
        backend: "python"
        input [ {{ name: "IN" data_type: TYPE_{name} dims: [ -1 ] }} ]
        output [ {{ name: "OUT" data_type: TYPE_{name} dims: [ -1 ] }} ]
        output [ {{ name: "FACTS" data_type: TYPE_INT64 dims: [ 3 ] }} ]
        {extra}
    """


@pytest.fixture
def model(repository, serve, execution):
    def start(body="def answer(x): return x.clone()", name="FP32", extra=NO, **options):
        repository.model("m", MODEL.format(body=body), config=config(name, extra))
        return serve(execution=execution, **options)["m"]

    return start


def on_gpu(count=5, dtype=torch.float32):
    return (torch.arange(count, device="cuda") % 97).to(dtype)


@pytest.mark.parametrize("name", DTYPES)
def test_device_memory_passes_in_and_out_untouched(model, name):
    x = on_gpu(dtype=getattr(torch, DTYPES[name]))
    response = model(name=name).run({"IN": x})
    is_cpu, came_in, went_out = response["FACTS"].tolist()
    assert not is_cpu
    assert came_in == x.data_ptr()
    out = response.outputs["OUT"]
    assert out.data_type.name == name
    assert out.__dlpack_device__() == (CUDA, x.device.index)
    assert out.data_ptr == went_out
    back = torch.from_dlpack(out)
    assert back.device == x.device
    assert back.data_ptr() == went_out
    assert torch.equal(back, x)
    with pytest.raises(ptl.UnsupportedError, match="'OUT' is on a device"):
        response["OUT"]


@pytest.mark.parametrize("name", DTYPES)
def test_device_inputs_come_to_the_cpu_by_default(model, name):
    x = on_gpu(dtype=getattr(torch, DTYPES[name]))
    response = model(name=name, extra="").run({"IN": x})
    assert response["FACTS"].tolist()[0] == 1
    out = torch.from_dlpack(response.outputs["OUT"])
    assert out.device.type == "cpu"
    assert torch.equal(out, x.cpu())


@pytest.mark.parametrize("without", [(), ("cupy",)])
def test_a_wrapped_device_tensor_comes_to_the_cpu(model, monkeypatch, without):
    # The producer is out of reach behind our own tensor, so that cupy or torch must read it.
    for library in without:
        monkeypatch.setitem(sys.modules, library, None)
    public = ptl.Tensor.from_dlpack(on_gpu())
    assert model(extra="").run({"IN": public})["OUT"].tolist() == [0, 1, 2, 3, 4]


def test_a_strided_device_tensor(model):
    x = on_gpu(10)[::2]
    assert model(extra="")({"IN": x})["OUT"].tolist() == [0, 2, 4, 6, 8]


def test_a_strided_device_tensor_that_must_stay(model):
    with pytest.raises(ptl.InvalidArgumentError, match="must be C-contiguous"):
        model().run({"IN": on_gpu(10)[::2]})


def test_a_device_tensor_with_gradient(model):
    for extra in ("", NO):
        with pytest.raises(ptl.InvalidArgumentError, match="require gradient"):
            model(extra=extra)({"IN": on_gpu().requires_grad_()})


def test_as_numpy_of_a_device_tensor():
    tensor = pb_utils.Tensor.from_dlpack("T", on_gpu())
    assert not tensor.is_cpu()
    with pytest.raises(pb_utils.TritonModelException, match="stored in GPU"):
        tensor.as_numpy()


def test_a_cpu_input_may_be_answered_from_the_device(model):
    response = model("def answer(x): return x.cuda()").run({"IN": np.ones(3, np.float32)})
    assert torch.from_dlpack(response.outputs["OUT"]).tolist() == [1, 1, 1]


def test_pinned_memory_is_cpu_memory(model):
    x = torch.ones(3).pin_memory()
    is_cpu, came_in, _ = model().run({"IN": x})["FACTS"].tolist()
    assert is_cpu
    assert came_in == x.data_ptr()


@pytest.mark.parametrize("extra", ["", NO], ids=["yes", "no"])
def test_work_under_way_on_another_stream_is_waited_for(model, extra):
    # Long enough for a read that does not wait to see the zeros.
    m = model("def answer(x): return x.clone()", extra=extra)
    m.run({"IN": on_gpu(1 << 20)})
    stream = torch.cuda.Stream()
    for _ in range(5):
        x = torch.zeros(1 << 20, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(50_000_000)
            x.fill_(1)
            out = m.run({"IN": x}).outputs["OUT"]
        assert torch.from_dlpack(out).min().item() == 1


def test_results_of_another_stream_are_waited_for(model):
    body = """
stream = torch.cuda.Stream()

def answer(x):
    with torch.cuda.stream(stream):
        out = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        out.fill_(1)
    stream.synchronize()
    return out
"""
    out = model(body).run({"IN": on_gpu(1 << 20)}).outputs["OUT"]
    assert torch.from_dlpack(out).min().item() == 1


def test_device_memory_is_freed(model):
    m = model("def answer(x): return x + 1")

    def ask():
        out = m.run({"IN": torch.ones(1 << 20, device="cuda")}).outputs["OUT"]
        assert torch.from_dlpack(out)[-1].item() == 2

    ask()
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(100):
        ask()
    gc.collect()
    assert torch.cuda.memory_allocated() == before
