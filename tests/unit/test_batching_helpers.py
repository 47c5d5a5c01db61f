"""`stack` and `split`, called by tests and by models.

What they give on Triton is recorded in the conformance suite, group ``stacking``; the expected
values here are made by hand.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import batching, pb_utils
from pytriton_lite.batching import split, stack

from ..support.repository import RepositoryBuilder

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils
{imports}


class TritonPythonModel:
    def execute(self, requests):
        errors = {{}}
        for i, request in enumerate(requests):
            if len(pb_utils.get_input_tensor_by_name(request, "X").as_numpy()) == 3:
                errors[i] = pb_utils.TritonError("three", pb_utils.TritonError.INVALID_ARG)
        batch = stack(requests, errors=errors, pad={{"IDS": -1}})
        outputs = {{
            "PRODUCT": batch["X"] * batch.lengths["IDS"][:, None].astype(np.float32),
            "TWICE": batch["IDS"] * 2,
            "ROWS": np.full((batch.rows, 1), batch.rows),
        }}
        return split(batch, outputs, unpad={{"TWICE": "IDS"}})
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [
  { name: "X" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "IDS" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }
]
output [
  { name: "PRODUCT" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "TWICE" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "ROWS" data_type: TYPE_INT64 dims: [ 1 ] }
]
"""
# X, IDS, and what Triton 2.51 answered to the four requests when it made one batch of them, by
# `dynamic_batching { preferred_batch_size: [ 7 ] max_queue_delay_microseconds: 2000000 }`, to the
# model with a copy of the file beside it. An answer: PRODUCT, TWICE, ROWS, or the error.
ON_TRITON = [
    ([[1, 2]], [[1, 2, 3]], ([[3, 6]], [[2, 4, 6]], [[4]])),
    ([[3, 4], [5, 6]], [[4], [5]], ([[3, 4], [5, 6]], [[8], [10]], [[4], [4]])),
    ([[0, 0], [0, 0], [0, 0]], [[1], [1], [1]], "three"),
    ([[7, 8]], [[6, 7]], ([[14, 16]], [[12, 14]], [[4]])),
]


@pytest.fixture(autouse=True)
def _server(tmp_path):
    """Models can be imported, and `split` finds its `triton_python_backend_utils`."""
    (tmp_path / "none").mkdir()
    with ptl.Server(tmp_path / "none", model_control_mode="explicit"):
        yield


def request(**arrays) -> pb_utils.InferenceRequest:
    return pb_utils.InferenceRequest(
        model_name="m",
        requested_output_names=[],
        inputs=[pb_utils.Tensor(name, array) for name, array in arrays.items()],
    )


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def arrays_of(response: pb_utils.InferenceResponse) -> dict[str, np.ndarray]:
    assert not response.has_error()
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def test_file_imports_nothing_of_the_package():
    tree = ast.parse(Path(batching.__file__).read_text(encoding="utf-8"))
    imported = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {name.partition(".")[0] for name in imported} == {
        "__future__", "collections", "itertools", "numpy", "triton_python_backend_utils", "typing",
    }  # fmt: skip


# -- stack ---------------------------------------------------------------------------------


def test_rows_of_each_request():
    batch = stack([request(X=floats(n, 2)) for n in (1, 3, 2)])
    assert batch.sizes == [1, 3, 2]
    assert batch.rows == 6
    assert batch.slices == [slice(0, 1), slice(1, 4), slice(4, 6)]
    for rows, size in zip(batch.slices, batch.sizes, strict=True):
        np.testing.assert_array_equal(batch["X"][rows], floats(size, 2))


def test_batch_is_a_mapping():
    batch = stack([request(A=floats(1, 1), B=floats(1, 1))])
    assert list(batch) == ["A", "B"]
    assert len(batch) == 2
    assert "C" not in batch
    with pytest.raises(KeyError, match=r"no request .* has the input 'C'; stacked: 'A', 'B'"):
        batch["C"]


def test_stacked_array_is_the_models_own():
    requests = [request(X=floats(1, 2)) for _ in range(2)]
    stack(requests)["X"][:] = 0
    for one in requests:
        np.testing.assert_array_equal(one.inputs()[0].as_numpy(), floats(1, 2))


@pytest.mark.parametrize("others", [{}, {1: "left out"}])
def test_one_request_is_not_copied(others):
    requests = [request(X=floats(2, 2), IDS=np.array([[1, 2], [3, 4]])) for _ in range(2)]
    batch = stack(requests[: 1 + len(others)], pad={"IDS": 0}, errors=others)
    given = requests[0].inputs()
    assert batch["X"] is given[0].as_numpy()
    assert batch["IDS"] is given[1].as_numpy()
    assert batch.lengths["IDS"].tolist() == [2, 2]


def test_no_requests():
    with pytest.raises(ValueError, match="at least one request"):
        stack([])


def test_shapes_that_do_not_fit_are_named():
    requests = [request(X=floats(1, 2, 4)), request(X=floats(2, 3, 4)), request(X=floats(1, 2, 5))]
    with pytest.raises(
        ValueError,
        match=r"^input 'X' cannot be stacked: shape \[1, 2, 4\] and dtype float32 in request 0, "
        r"\[2, 3, 4\] and float32 in request 1; `pad` could fill the shorter one$",
    ):
        stack(requests)
    # Axis 2 cannot be padded.
    with pytest.raises(ValueError, match=r"\[1, 2, 5\] and float32 in request 2$"):
        stack(requests, pad={"X": 0})


def test_ranks_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"\[1\] and dtype float32 in request 0, \[1, 1\]"):
        stack([request(X=floats(1)), request(X=floats(1, 1))])
    with pytest.raises(ValueError, match=r"'X' of request 0 has shape \[1\] and no axis 1"):
        stack([request(X=floats(1))], pad={"X": 0})


def test_no_batch_dimension():
    with pytest.raises(ValueError, match=r"'X' of request 0 has shape \[\] and no batch dimension"):
        stack([request(X=np.array(1.0))])


def test_padding_beyond_axis_1_stays():
    batch = stack([request(X=floats(1, 1, 2)), request(X=floats(2, 3, 2))], pad={"X": -1})
    assert batch["X"].shape == (3, 3, 2)
    assert batch["X"][0].tolist() == [[0, 1], [-1, -1], [-1, -1]]
    np.testing.assert_array_equal(batch["X"][1:], floats(2, 3, 2))
    assert batch.lengths["X"].tolist() == [1, 3, 3]
    assert batch.lengths["X"].dtype == np.int64


def test_padding_of_texts():
    words = [np.array([[b"a"]], dtype=np.object_), np.array([[b"b", b"c"]], dtype=np.object_)]
    batch = stack([request(W=array) for array in words], pad={"W": b""})
    assert batch["W"].tolist() == [[b"a", b""], [b"b", b"c"]]


def test_default_of_a_padded_input_has_its_own_length():
    requests = [request(X=floats(2, 1)), request(X=floats(1, 1), IDS=np.array([[1, 2, 3]]))]
    batch = stack(requests, defaults={"IDS": [9]}, pad={"IDS": 0})
    assert batch["IDS"].tolist() == [[9, 0, 0], [9, 0, 0], [1, 2, 3]]
    assert batch.lengths["IDS"].tolist() == [1, 1, 3]


def test_default_that_does_not_fit():
    requests = [request(X=floats(1, 1)), request(X=floats(1, 1), M=floats(1, 3))]
    with pytest.raises(ValueError, match=r"input 'M' cannot be stacked: .*\[1, 2\].*\[1, 3\]"):
        stack(requests, defaults={"M": [1, 2]})
    integers = [request(X=floats(1, 1)), request(X=floats(1, 1), N=np.array([[1]]))]
    with pytest.raises(ValueError, match=r"default of input 'N'.*float64.*int64"):
        stack(integers, defaults={"N": 0.5})


def test_request_without_inputs_has_one_row():
    batch = stack([request(), request(X=floats(2, 1))], defaults={"X": 5})
    assert batch["X"].tolist() == [[5], [0], [1]]


def test_all_left_out():
    requests = [request(IDS=np.array([[1, 2]])), request(IDS=np.array([[1]]))]
    errors = {0: "no", 1: "no"}
    batch = stack(requests, defaults={"M": [1, 2]}, pad={"IDS": 0}, errors=errors)
    assert {name: array.shape for name, array in batch.items()} == {"IDS": (0, 2), "M": (0, 2)}
    assert batch.lengths["IDS"].tolist() == []
    assert all(r.has_error() for r in split(batch, {"Y": batch["M"]}, unpad={"Y": "IDS"}))


@pytest.mark.parametrize("position", [-1, 2])
def test_errors_of_requests_that_are_not_there(position):
    requests = [request(X=floats(1, 1)) for _ in range(2)]
    with pytest.raises(ValueError, match=rf"position {position}, and there are 2 request"):
        stack(requests, errors={position: "no"})
    batch = stack(requests)
    batch.errors[position] = "no"
    with pytest.raises(ValueError, match=rf"position {position}"):
        split(batch, {})


def test_request_left_out_need_not_fit():
    requests = [
        request(X=floats(1, 2)),
        request(X=floats(1, 7)),
        request(),
        request(X=floats(1, 2)),
    ]
    batch = stack(requests, errors={1: "too long", 2: "empty"})
    assert batch.sizes == [1, 0, 0, 1]
    assert batch["X"].shape == (2, 2)
    assert [r.has_error() for r in split(batch, {"Y": batch["X"]})] == [False, True, True, False]


# -- split ---------------------------------------------------------------------------------


def test_outputs_are_not_copied():
    batch = stack([request(X=floats(n, 1)) for n in (1, 2)])
    out = floats(3, 2)
    for response, rows in zip(split(batch, {"Y": out}), batch.slices, strict=True):
        y = arrays_of(response)["Y"]
        np.testing.assert_array_equal(y, out[rows])
        assert np.shares_memory(y, out)


def test_output_of_one_request_is_the_very_array():
    batch = stack([request(X=floats(2, 1)), request(X=floats(1, 1))], errors={1: "no"})
    out = floats(2, 2)
    assert arrays_of(split(batch, {"Y": out})[0])["Y"] is out


def test_errors_found_afterwards():
    batch = stack([request(X=floats(n, 1)) for n in (1, 2, 1)])
    for index, rows in enumerate(batch.slices):
        if batch["X"][rows].sum() == 1:
            batch.errors[index] = pb_utils.TritonError("one", pb_utils.TritonError.UNAVAILABLE)
    first, second, third = split(batch, {"Y": batch["X"] + 1})
    assert arrays_of(first)["Y"].tolist() == arrays_of(third)["Y"].tolist() == [[1]]
    assert second.error().message() == "one"
    assert second.error().code() == pb_utils.TritonError.UNAVAILABLE


def test_text_is_an_internal_error():
    response = split(stack([request(X=floats(1, 1))], errors={0: "gone"}), {})[0]
    assert response.error().message() == "gone"
    assert response.error().code() == pb_utils.TritonError.INTERNAL


@pytest.mark.parametrize("shape", [(2, 3), (4, 3), ()])
def test_rows_that_do_not_fit_are_named(shape):
    batch = stack([request(X=floats(n, 1)) for n in (1, 2)])
    text = rf"^output 'Y' has shape \[{', '.join(map(str, shape))}\], and the batch has 3 rows "
    with pytest.raises(ValueError, match=text + r"\(sizes \[1, 2\]\)$"):
        split(batch, {"Y": np.zeros(shape)})


def test_cut_by_an_input_that_was_not_padded():
    batch = stack([request(X=floats(1, 1))])
    with pytest.raises(ValueError, match="output 'Y' cannot be cut: input 'X' was not padded"):
        split(batch, {"Y": floats(1, 1)}, unpad={"Y": "X"})


# -- other libraries -----------------------------------------------------------------------


def test_torch():
    torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")
    text = np.array([[b"a"]], dtype=np.object_)
    requests = [
        request(X=floats(1, 2), IDS=np.array([[1]]), T=text),
        request(X=floats(2, 2), IDS=np.array([[2, 3], [4, 5]]), T=np.repeat(text, 2, axis=0)),
        request(X=floats(1, 2), T=text, IDS=np.array([[6, 7]])),
    ]
    batch = stack(requests, pad={"IDS": 0}, defaults={"Y": np.float32([1])}, xp=torch)
    assert batch["X"].equal(torch.cat([torch.from_numpy(floats(n, 2)) for n in (1, 2, 1)]))
    assert batch["IDS"].tolist() == [[1, 0], [2, 3], [4, 5], [6, 7]]
    assert batch.lengths["IDS"].equal(torch.tensor([1, 2, 2, 2]))
    assert batch["Y"].equal(torch.ones(4, 1))
    assert batch["T"].tolist() == [[b"a"]] * 4  # no DLPack for texts
    outputs = {"X": batch["X"].half(), "IDS": batch["IDS"]}
    responses = split(batch, outputs, unpad={"IDS": "IDS"})
    found = [torch.from_dlpack(r.output_tensors()[1]).tolist() for r in responses]
    assert found == [[[1]], [[2, 3], [4, 5]], [[6, 7]]]
    half = torch.from_dlpack(responses[1].output_tensors()[0])
    assert half.data_ptr() == outputs["X"][1:].data_ptr()
    assert half.equal(outputs["X"][1:3])


def test_torch_default_of_an_optional_input():
    torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")
    requests = [request(X=floats(1, 1)), request(X=floats(1, 1), M=floats(1, 2))]
    batch = stack(requests, defaults={"M": 3}, xp=torch)
    assert batch["M"].equal(torch.tensor([[3.0, 3.0], [0.0, 1.0]]))


def test_torch_of_one_request_is_not_copied():
    torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")
    array = floats(2, 2)
    assert stack([request(X=array)], xp=torch)["X"].data_ptr() == array.ctypes.data


@pytest.mark.gpu
def test_torch_tensors_stay_on_their_gpu():
    torch = pytest.importorskip("torch", reason="needs pytriton_lite[frameworks]")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    tensors = [torch.ones(n, 2, device="cuda") for n in (1, 2)]
    requests = [
        pb_utils.InferenceRequest(
            model_name="m",
            requested_output_names=[],
            inputs=[pb_utils.Tensor.from_dlpack("X", tensor)],
        )
        for tensor in tensors
    ]
    batch = stack(requests, pad={"X": 0}, xp=torch)
    assert batch["X"].device == tensors[0].device
    response = split(batch, {"Y": batch["X"] + 1})[1]
    assert not response.output_tensors()[0].is_cpu()


# -- in models -----------------------------------------------------------------------------


def write_model(folder: Path, *, as_copy: bool) -> Path:
    repository = RepositoryBuilder(folder)
    if as_copy:
        source = Path(batching.__file__).read_text(encoding="utf-8")
        imports, files = "from batching import split, stack", {"1/batching.py": source}
    else:
        imports, files = "from pytriton_lite.batching import split, stack", {}
    repository.model("m", MODEL.format(imports=imports), config=CONFIG, files=files)
    return repository.models


@pytest.mark.parametrize("as_copy", [False, True])
@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
def test_model_stacks(tmp_path, as_copy, execution):
    with ptl.Server(write_model(tmp_path, as_copy=as_copy), execution=execution) as server:
        for x, ids, answer in ON_TRITON:
            inputs = {"X": np.float32(x), "IDS": np.array(ids)}
            if isinstance(answer, str):
                with pytest.raises(ptl.InvalidArgumentError, match=f"^{answer}$"):
                    server.model("m")(inputs)
                continue
            out = server.model("m")(inputs)
            assert out["PRODUCT"].tolist() == answer[0]
            assert out["TWICE"].tolist() == answer[1]
            assert out["ROWS"].tolist() == [[len(x)]] * len(x)


@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
def test_forced_batch_gives_what_triton_gave(tmp_path, execution):
    models = write_model(tmp_path, as_copy=False)
    config = models / "m" / "config.pbtxt"
    config.write_text(config.read_text() + "dynamic_batching { }")
    with ptl.Server(models, execution=execution) as server:
        model = server.model("m")
        with model.hold_queue():
            futures = [
                model.submit({"X": np.float32(x), "IDS": np.array(ids)}) for x, ids, _ in ON_TRITON
            ]
        for future, (*_, answer) in zip(futures, ON_TRITON, strict=True):
            if isinstance(answer, str):
                assert str(future.exception(30)) == answer
            else:
                response = future.result(30)
                found = [response[name].tolist() for name in ("PRODUCT", "TWICE", "ROWS")]
                assert found == list(answer)


def test_execute_called_with_a_list(tmp_path):
    path = write_model(tmp_path, as_copy=False) / "m" / "1" / "model.py"
    spec = importlib.util.spec_from_file_location("model_m", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    requests = [request(X=np.float32(x), IDS=np.array(ids)) for x, ids, _ in ON_TRITON]
    responses = module.TritonPythonModel().execute(requests)
    for response, (*_, answer) in zip(responses, ON_TRITON, strict=True):
        if isinstance(answer, str):
            assert response.error().message() == answer
        else:
            assert tuple(array.tolist() for array in arrays_of(response).values()) == answer
