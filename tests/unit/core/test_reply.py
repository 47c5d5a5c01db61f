"""Answers: the public `Tensor` and `InferenceResponse`, and who owns the memory of an answer.

The ownership tests run models, inline and on a thread. A model reports addresses of its own
arrays in a second output, so that "not copied" is a comparison of pointers.
"""

from __future__ import annotations

import copy
import gc
import pickle
import textwrap
import threading

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite import DataType
from pytriton_lite._core.reply import error_response
from pytriton_lite._core.tensor import live_tensor_count

# -- Tensor ----------------------------------------------------------------------------

SIZES = {
    "BOOL": ("?", 1),
    "UINT8": ("u1", 1),
    "UINT16": ("u2", 2),
    "UINT32": ("u4", 4),
    "UINT64": ("u8", 8),
    "INT8": ("i1", 1),
    "INT16": ("i2", 2),
    "INT32": ("i4", 4),
    "INT64": ("i8", 8),
    "FP16": ("f2", 2),
    "FP32": ("f4", 4),
    "FP64": ("f8", 8),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("how", ["name", "member", "number"])
def test_tensor_from_a_buffer(name, how):
    dtype, item_size = SIZES[name]
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    given = {"name": name, "member": DataType[name], "number": int(DataType[name])}[how]
    tensor = ptl.Tensor(given, [2, 3], array)
    assert tensor.data_type is DataType[name]
    assert tensor.shape == (2, 3)
    assert tensor.size == 6 * item_size
    assert tensor.data_ptr == array.ctypes.data
    got = tensor.numpy()
    assert got.dtype == np.dtype(dtype)
    assert got.flags.writeable
    assert got.ctypes.data == array.ctypes.data
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_is_used_as_it_is(kind):
    buffer = kind(np.float32([1, 2]).tobytes())
    tensor = ptl.Tensor("FP32", (2,), buffer)
    assert tensor.numpy().tolist() == [1, 2]
    assert tensor.numpy().flags.writeable is (kind is bytearray)
    assert tensor.data_ptr == np.frombuffer(buffer, np.uint8).ctypes.data


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((0,), 0), ((2, 0), 0), ((1, 1), 1)])
def test_tensor_of_few_elements(shape, count):
    tensor = ptl.Tensor("INT16", shape, bytes(2 * count))
    assert tensor.shape == shape
    assert tensor.size == 2 * count
    assert tensor.numpy().shape == shape


@pytest.mark.parametrize(("shape", "wanted"), [((3,), 3), ((), 1), ((2, 2), 4), ((0,), 0)])
def test_tensor_whose_buffer_does_not_fit(shape, wanted):
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        ptl.Tensor("FP32", shape, bytes(8))
    assert str(caught.value) == (
        f"memory buffer holds 2 elements of FP32, shape {list(shape)} needs {wanted}"
    )


@pytest.mark.parametrize("data_type", [0, 15, -1, "INVALID", DataType.INVALID])
def test_tensor_of_no_data_type(data_type):
    with pytest.raises(ptl.InvalidArgumentError, match="invalid data type"):
        ptl.Tensor(data_type, [1], bytes(4))


def test_bytes_tensor_from_its_serialized_form():
    tensor = ptl.Tensor("BYTES", [2, 1], b"\1\0\0\0a\3\0\0\0\xc3\xa9x")
    assert tensor.data_type is DataType.BYTES
    assert tensor.shape == (2, 1)
    assert tensor.size == 12
    assert tensor.data_ptr == 0
    assert tensor.numpy().tolist() == [[b"a"], ["éx".encode()]]
    assert tensor.to_bytes_array() is tensor.numpy()
    text = tensor.to_string_array()
    assert text.dtype.kind == "U"
    assert text.tolist() == [["a"], ["éx"]]


def test_bytes_tensor_from_arrays():
    made = ptl.Tensor.from_bytes_array(np.array([[b"a", b"bc"]]))
    assert made.shape == (1, 2)
    assert made.to_bytes_array().tolist() == [[b"a", b"bc"]]
    assert made.size == 4 + 1 + 4 + 2
    made = ptl.Tensor.from_string_array(np.array(["ü", ""]))
    assert made.to_bytes_array().tolist() == ["ü".encode(), b""]
    assert made.to_string_array().tolist() == ["ü", ""]
    assert ptl.Tensor.from_string_array(["x", "y"]).shape == (2,)
    assert ptl.Tensor.from_bytes_array([b"x"]).shape == (1,)


def test_bytes_tensor_does_not_follow_its_source():
    source = np.array([b"old"], dtype=np.object_)
    made = ptl.Tensor.from_bytes_array(source)
    source[0] = b"new"
    assert made.numpy()[0] == b"old"


@pytest.mark.parametrize("elements", [[], [""]])
def test_string_array_of_nothing(elements):
    made = ptl.Tensor.from_string_array(np.array(elements, dtype=np.str_))
    got = made.to_string_array()
    assert got.dtype.kind == "U"
    assert got.tolist() == elements


def test_bytes_that_are_no_utf8():
    made = ptl.Tensor.from_bytes_array([b"\xff"])
    assert made.to_bytes_array()[0] == b"\xff"
    with pytest.raises(UnicodeDecodeError):
        made.to_string_array()


@pytest.mark.parametrize("method", ["to_bytes_array", "to_string_array"])
def test_text_of_a_tensor_of_numbers(method):
    with pytest.raises(ptl.InvalidArgumentError, match="tensor is FP32, not BYTES"):
        getattr(ptl.Tensor("FP32", [1], bytes(4)), method)()


def test_array_protocol():
    tensor = ptl.Tensor("FP32", [2], bytearray(np.float32([1, 2]).tobytes()))
    assert np.asarray(tensor).ctypes.data == tensor.data_ptr
    assert np.asarray(tensor, dtype=np.float32).ctypes.data == tensor.data_ptr
    assert np.array(tensor, copy=True).ctypes.data != tensor.data_ptr
    assert np.asarray(tensor, dtype=np.float64).tolist() == [1, 2]
    assert np.add(tensor, 1).tolist() == [2, 3]
    assert tensor.__array__(copy=False).ctypes.data == tensor.data_ptr
    with pytest.raises(ValueError, match="a copy is needed"):
        tensor.__array__(np.float64, copy=False)


def test_bf16_tensor_from_a_buffer():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    # By hand: 1.0 and -2.0.
    tensor = ptl.Tensor("BF16", [2], b"\x80\x3f\x00\xc0")
    assert tensor.size == 4
    assert tensor.numpy().dtype == ml_dtypes.bfloat16
    assert tensor.numpy().astype(np.float32).tolist() == [1, -2]


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_tensor_is_not_pickled(way):
    with pytest.raises(TypeError, match="cannot pickle a Tensor"):
        way(ptl.Tensor("FP32", [1], bytes(4)))


def test_repr_of_a_tensor():
    assert repr(ptl.Tensor("FP32", [1, 2], bytes(8))) == "Tensor(FP32, shape=[1, 2])"


# -- models ----------------------------------------------------------------------------

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.buffer = np.zeros(4, np.float32)
        self.base = np.zeros(8, np.float32)
        self.kept = []
        self.calls = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            self.calls += 1
            x = pb_utils.get_input_tensor_by_name(request, "IN")
            responses.append(self.answer(request, x))
        return responses

    def response(self, tensor, address=0):
        address = pb_utils.Tensor("ADDRESS", np.array([address], np.int64))
        return pb_utils.InferenceResponse([tensor, address])

    def answer(self, request, x):
{body}
"""
CONFIG = """
backend: "python"
input [{ name: "IN" data_type: TYPE_FP32 dims: [-1] }]
output [
  { name: "OUT" data_type: TYPE_FP32 dims: [-1] },
  { name: "TEXT" data_type: TYPE_STRING dims: [-1] },
  { name: "ADDRESS" data_type: TYPE_INT64 dims: [1] }
]
instance_group [{ kind: KIND_CPU }]
"""


@pytest.fixture(params=["inline", "thread"])
def run(request, tmp_path):
    """``run(body)`` starts a server whose model answers by `body` and returns the model."""
    servers = []

    def start(body, **options):
        folder = tmp_path / f"repository_{len(servers)}" / "m"
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(CONFIG)
        code = MODEL.replace("{body}", textwrap.indent(textwrap.dedent(body), " " * 8))
        (folder / "1" / "model.py").write_text(code)
        server = ptl.Server(str(folder.parent), execution=request.param, **options).start()
        servers.append(server)
        return server.model("m")

    live = live_tensor_count()
    yield start
    for server in servers:
        server.stop()
    servers.clear()
    gc.collect()
    assert live_tensor_count() == live


X = np.arange(4, dtype=np.float32)


# -- InferenceResponse -----------------------------------------------------------------


def test_response_of_a_model(run):
    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy() * 2))")
    response = model.run({"IN": X}, request_id="r1")
    assert type(response) is ptl.InferenceResponse
    assert list(response.outputs) == ["OUT", "ADDRESS"]
    assert response.outputs is response.outputs
    assert type(response.outputs["OUT"]) is ptl.Tensor
    assert response["OUT"].tolist() == [0, 2, 4, 6]
    assert response["OUT"].ctypes.data == response.outputs["OUT"].data_ptr
    assert list(response.to_dict()) == ["OUT", "ADDRESS"]
    assert response.to_dict()["OUT"].tolist() == [0, 2, 4, 6]
    assert response.error is None
    assert response.final is True
    assert response.request_id == "r1"
    assert response.model_name == "m"
    assert response.model_version == 1
    assert response.parameters == {}
    assert repr(response).startswith("<InferenceResponse of 'm': {'OUT': Tensor(FP32, shape=[4])")


def test_unknown_output_of_a_response(run):
    response = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy()))").run({"IN": X})
    with pytest.raises(KeyError, match="'m' has no output 'NO', only"):
        response["NO"]
    with pytest.raises(TypeError):
        response[0]


def test_parameters_of_a_response(run):
    model = run("return pb_utils.InferenceResponse([], parameters={'a': 1, 'b': True, 'c': 'x'})")
    assert model.run({"IN": X}).parameters == {"a": 1, "b": True, "c": "x"}


def test_the_first_of_two_outputs_with_one_name_counts(run):
    model = run("""
        return pb_utils.InferenceResponse([
            pb_utils.Tensor("OUT", np.float32([1])), pb_utils.Tensor("OUT", np.float32([2]))
        ])
    """)
    assert model({"IN": X})["OUT"].tolist() == [1]
    response = model.run({"IN": X})
    assert response["OUT"].tolist() == [1]
    assert response.outputs["OUT"].numpy().tolist() == [1]


def test_error_of_a_response(run):
    model = run("""
        error = pb_utils.TritonError("no luck", pb_utils.TritonError.NOT_FOUND)
        return pb_utils.InferenceResponse([x], error=error)
    """)
    with pytest.raises(ptl.NotFoundError, match=r"^no luck$") as caught:
        model.run({"IN": X}, request_id="r1")
    assert caught.value.model == "m"
    assert caught.value.request_id == "r1"
    (response,) = model.infer(inputs={"IN": X}, raise_on_error=False)
    assert type(response.error) is ptl.NotFoundError
    assert response.outputs == {}
    assert response.to_dict() == {}
    assert "NotFoundError: no luck" in repr(response)


def test_error_response_by_hand():
    error = ptl.UnavailableError("gone")
    response = error_response(error, "r", "m", 3)
    assert response.error is error
    assert (response.request_id, response.model_name, response.model_version) == ("r", "m", 3)
    assert response.final is True
    assert response.outputs == {}
    assert response.parameters == {}


def test_undeclared_outputs_are_dropped(run):
    model = run(
        "return pb_utils.InferenceResponse([pb_utils.Tensor('ZZ', np.zeros(1)), x,"
        " pb_utils.Tensor('OUT', np.zeros(1))])"
    )
    assert list(model({"IN": X})) == ["OUT"]


def test_outputs_are_sent_as_they_are(run):
    # Type and shape are what the model returned: Triton does not look at the configuration.
    model = run("return pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.int8([[1, 2]]))])")
    got = model({"IN": X})["OUT"]
    assert got.dtype == np.int8
    assert got.tolist() == [[1, 2]]


# -- ownership: outputs ----------------------------------------------------------------


def test_an_array_that_nobody_else_holds_is_not_copied(run):
    model = run("""
        y = x.as_numpy() * 2
        return self.response(pb_utils.Tensor("OUT", y), y.ctypes.data)
    """)
    for _ in range(5):
        answer = model({"IN": X})
        assert answer["OUT"].ctypes.data == answer["ADDRESS"][0]
        assert answer["OUT"].flags.writeable
        assert answer["OUT"].tolist() == [0, 2, 4, 6]


def test_a_view_of_an_array_that_nobody_else_holds_is_not_copied(run):
    model = run("""
        y = (x.as_numpy() * 2).reshape(2, 2)
        return self.response(pb_utils.Tensor("OUT", y), y.ctypes.data)
    """)
    answer = model({"IN": X})
    assert answer["OUT"].ctypes.data == answer["ADDRESS"][0]
    assert answer["OUT"].tolist() == [[0, 2], [4, 6]]


def test_a_reused_buffer_is_copied(run):
    model = run("""
        self.buffer[...] = x.as_numpy() + self.calls
        return self.response(pb_utils.Tensor("OUT", self.buffer), self.buffer.ctypes.data)
    """)
    first = model({"IN": X})
    second = model({"IN": X})
    assert first["OUT"].tolist() == [1, 2, 3, 4]
    assert second["OUT"].tolist() == [2, 3, 4, 5]
    assert first["OUT"].ctypes.data != first["ADDRESS"][0]
    # And the caller may write into its answer.
    second["OUT"][...] = -1
    assert model({"IN": X})["OUT"].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "keep",
    [
        "self.kept.append(y)",
        "self.kept.append(y[1:])",
        "self.kept.append(y.view(np.uint8))",
        "self.kept.append(memoryview(y))",
        "self.kept.append(np.from_dlpack(y))",
        "self.kept.append(y.__array_interface__ and y.T)",
        "import weakref; self.kept.append(weakref.ref(y))",
        "self.kept.append(lambda: y)",
    ],
)
def test_an_array_that_the_model_keeps_is_copied(run, keep):
    model = run(f"""
        y = x.as_numpy() * 2
        {keep}
        return self.response(pb_utils.Tensor("OUT", y), y.ctypes.data)
    """)
    answer = model({"IN": X})
    assert answer["OUT"].ctypes.data != answer["ADDRESS"][0]
    assert answer["OUT"].tolist() == [0, 2, 4, 6]
    assert answer["OUT"].flags.owndata


@pytest.mark.parametrize(
    "keep",
    [
        "self.kept.append(out)",
        "self.kept.append(out.to_dlpack())",
        "self.kept.append(np.from_dlpack(out))",
        "self.kept.append(response)",
        "self.kept.append(response.output_tensors())",
    ],
)
def test_what_the_model_keeps_of_its_answer_is_copied(run, keep):
    model = run(f"""
        y = x.as_numpy() * 2
        address = y.ctypes.data
        out = pb_utils.Tensor("OUT", y)
        response = self.response(out, address)
        {keep}
        return response
    """)
    answer = model({"IN": X})
    assert answer["OUT"].ctypes.data != answer["ADDRESS"][0]
    assert answer["OUT"].tolist() == [0, 2, 4, 6]


def test_a_view_of_a_kept_base_is_copied(run):
    model = run("""
        part = self.base[:4]
        part[...] = self.calls
        return self.response(pb_utils.Tensor("OUT", part), part.ctypes.data)
    """)
    first, second = model({"IN": X}), model({"IN": X})
    assert first["OUT"].tolist() == [1] * 4
    assert second["OUT"].tolist() == [2] * 4
    assert first["OUT"].ctypes.data != first["ADDRESS"][0]


def test_foreign_memory_is_copied(run):
    # A bytearray may be reachable behind the array's back.
    model = run("""
        self.store = getattr(self, "store", None) or bytearray(16)
        y = np.frombuffer(self.store, np.float32)
        y[...] = self.calls
        return self.response(pb_utils.Tensor("OUT", y), y.ctypes.data)
    """)
    first, second = model({"IN": X}), model({"IN": X})
    assert first["OUT"].tolist() == [1] * 4
    assert second["OUT"].tolist() == [2] * 4


def test_an_output_taken_by_dlpack_is_copied(run):
    model = run("""
        self.buffer[...] = self.calls
        out = pb_utils.Tensor.from_dlpack("OUT", pb_utils.Tensor("T", self.buffer))
        return self.response(out, self.buffer.ctypes.data)
    """)
    first, second = model({"IN": X}), model({"IN": X})
    assert first["OUT"].tolist() == [1] * 4
    assert second["OUT"].tolist() == [2] * 4
    assert first["OUT"].flags.owndata


def test_a_kept_response_can_be_returned_again(run):
    model = run("""
        if not self.kept:
            self.kept.append(self.response(pb_utils.Tensor("OUT", np.float32([1]))))
        return self.kept[0]
    """)
    first = model({"IN": X})["OUT"]
    first[...] = 99
    assert model({"IN": X})["OUT"].tolist() == [1]


def test_read_only_outputs(run):
    model = run("""
        y = np.float32([1, 2])
        y.flags.writeable = False
        return self.response(pb_utils.Tensor("OUT", y))
    """)
    assert model({"IN": X})["OUT"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "value",
    ["np.float32(7)[...]", "np.zeros((0, 3), np.float32)", "np.float32([[1, 2], [3, 4]]).T"],
)
def test_outputs_of_any_layout(run, value):
    model = run(f"return self.response(pb_utils.Tensor('OUT', {value}))")
    wanted = eval(value, {"np": np})
    got = model({"IN": X})["OUT"]
    assert got.shape == wanted.shape
    assert got.tolist() == wanted.tolist()
    assert got.flags.c_contiguous


def test_bytes_are_sent_as_they_were_at_construction(run):
    # mutate_own_object, observed on 2.51.
    model = run("""
        array = np.array(["old", 1, None, b"\\0\\xff"], dtype=object)
        tensor = pb_utils.Tensor("TEXT", array)
        array[0] = "new"
        assert tensor.as_numpy()[0] == "new"
        return pb_utils.InferenceResponse([tensor])
    """)
    got = model({"IN": X})["TEXT"]
    assert got.dtype == np.object_
    assert got.tolist() == [b"old", b"1", b"None", b"\0\xff"]


def test_fixed_width_bytes_lose_trailing_nuls(run):
    model = run("""
        return pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", np.array([b"ab\\0", b"c"]))])
    """)
    assert model({"IN": X})["TEXT"].tolist() == [b"ab", b"c"]


def test_numbers_are_sent_as_they_are_when_execute_returns(run):
    # mutate_own_tensor, observed on 2.51.
    model = run("""
        y = x.as_numpy() * 0
        tensor = pb_utils.Tensor("OUT", y)
        y[...] = 5
        return self.response(tensor)
    """)
    assert model({"IN": X})["OUT"].tolist() == [5] * 4


def test_a_bytes_answer_that_the_model_keeps_is_copied(run):
    model = run("""
        if not self.kept:
            self.kept.append(pb_utils.Tensor("TEXT", np.array(["a"], dtype=object)))
        return pb_utils.InferenceResponse([self.kept[0]])
    """)
    first = model({"IN": X})["TEXT"]
    first[0] = b"changed"
    assert model({"IN": X})["TEXT"].tolist() == [b"a"]


# -- ownership: inputs -----------------------------------------------------------------


def test_an_identity_model_does_not_hand_the_callers_memory_back(run):
    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy()))")
    array = X.copy()
    answer = model({"IN": array})["OUT"]
    assert answer.tolist() == [0, 1, 2, 3]
    assert not np.shares_memory(answer, array)
    answer[...] = -1
    assert array.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "source",
    ["x", "x.to_dlpack()", "pb_utils.Tensor('T', np.from_dlpack(x))", "x.__dlpack__()"],
)
def test_an_input_passed_on_by_dlpack_does_not_either(run, source):
    model = run(f"return self.response(pb_utils.Tensor.from_dlpack('OUT', {source}))")
    array = X.copy()
    answer = model({"IN": array})["OUT"]
    assert answer.tolist() == [0, 1, 2, 3]
    assert not np.shares_memory(answer, array)


def test_a_dlpack_view_of_an_input_as_output_is_copied(run):
    model = run("return self.response(pb_utils.Tensor('OUT', np.from_dlpack(x)))")
    array = X.copy()
    answer = model({"IN": array})["OUT"]
    assert not np.shares_memory(answer, array)


def test_answers_of_an_identity_model_are_independent(run):
    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy()))")
    answers = [model({"IN": X + i})["OUT"] for i in range(5)]
    for i, answer in enumerate(answers):
        assert answer.tolist() == [i, i + 1, i + 2, i + 3]
    parts = [model({"IN": X + i})["OUT"][1:3] for i in range(5)]
    assert [part.tolist() for part in parts] == [[i + 1, i + 2] for i in range(5)]


def test_answers_of_several_callers_at_once(run):
    # Two callers never get, nor see, each other's memory, whatever is reused between requests.
    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy()))")
    barrier = threading.Barrier(4)
    failures = []

    def call(number):
        barrier.wait(30)
        kept = [(model({"IN": X + i})["OUT"], i) for i in range(number, 400, 4)]
        failures.extend(i for answer, i in kept if answer.tolist() != (X + i).tolist())

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []


def test_inputs_of_other_shapes_in_turn(run):
    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy()))")
    for size in (4, 0, 5, 4, 100_000, 3, 4):
        array = np.arange(size, dtype=np.float32)
        got = model({"IN": array})["OUT"]
        assert got.shape == (size,)
        np.testing.assert_array_equal(got, array)
        assert got.flags.writeable


@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array")  # from numpy 2.5 on
def test_a_model_that_changes_the_nature_of_its_input(run):
    # Whatever it does to its private array, the next request gets an ordinary one.
    model = run("""
        seen = x.as_numpy()
        answer = self.response(pb_utils.Tensor("OUT", seen + 0))
        assert seen.shape == (4,) and seen.dtype == np.float32 and seen.flags.writeable
        if self.calls % 4 == 0:
            seen.flags.writeable = False
        if self.calls % 4 == 1:
            seen.shape = (2, 2)
        if self.calls % 4 == 2:
            seen[...] = -1
        return answer
    """)
    for i in range(9):
        assert model({"IN": X + i})["OUT"].tolist() == [i, i + 1, i + 2, i + 3]


def test_writing_into_an_input_does_not_change_the_callers_array(run):
    # Nor what is sent when the same tensor is returned: mutate_passthrough, observed on 2.51.
    model = run("""
        seen = x.as_numpy()
        seen[...] = -1
        assert x.as_numpy()[0] == -1
        return self.response(pb_utils.Tensor("OUT", np.from_dlpack(x).copy()))
    """)
    array = X.copy()
    assert model({"IN": array})["OUT"].tolist() == [0, 1, 2, 3]
    assert array.tolist() == [0, 1, 2, 3]


def test_read_only_input(run):
    model = run("""
        seen = x.as_numpy()
        seen += 1
        return self.response(pb_utils.Tensor("OUT", seen))
    """)
    array = X.copy()
    array.flags.writeable = False
    assert model({"IN": array})["OUT"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("keep", "read"),
    [
        ("self.kept.append(x)", "self.kept[0].as_numpy()"),
        ("self.kept.append(request)", "self.kept[0].inputs()[0].as_numpy()"),
        ("self.kept.append(request.inputs())", "self.kept[0][0].as_numpy()"),
        ("self.kept.append(x.as_numpy())", "self.kept[0]"),
        ("self.kept.append(x); x.as_numpy()", "self.kept[0].as_numpy()"),
        ("self.kept.append(x)", "np.from_dlpack(self.kept[0])"),
        # Views of the private copy: its memory may not be used for the next request.
        ("self.kept.append(x.as_numpy()[:])", "self.kept[0]"),
        ("self.kept.append(memoryview(x.as_numpy()))", "np.asarray(self.kept[0])"),
        ("self.kept.append(np.from_dlpack(x.as_numpy()))", "self.kept[0]"),
        ("self.kept.append(x.as_numpy().reshape(2, 2).T)", "self.kept[0].T.ravel()"),
        ("self.kept.append(lambda seen=x.as_numpy(): seen)", "self.kept[0]()"),
    ],
)
def test_inputs_that_the_model_keeps_keep_their_values(run, keep, read):
    model = run(f"""
        if not self.kept:
            {keep}
        return self.response(pb_utils.Tensor("OUT", {read}.copy()))
    """)
    array = X.copy()
    model({"IN": array})
    array[...] = -1
    assert model({"IN": array})["OUT"].tolist() == [0, 1, 2, 3]


def test_inputs_kept_after_an_exception_keep_their_values(run):
    model = run("""
        if not self.kept:
            self.kept.append(x)
            raise ValueError("first")
        return self.response(pb_utils.Tensor("OUT", self.kept[0].as_numpy()))
    """)
    array = X.copy()
    with pytest.raises(ptl.InternalError, match="ValueError: first"):
        model({"IN": array})
    array[...] = -1
    assert model({"IN": array})["OUT"].tolist() == [0, 1, 2, 3]


def test_inputs_are_let_go_after_the_call(run):
    import sys

    model = run("return self.response(pb_utils.Tensor('OUT', x.as_numpy() + 1))")
    array = X.copy()
    before = sys.getrefcount(array)
    live = live_tensor_count()
    for _ in range(50):
        model({"IN": array})
    # A thread instance may hold the last request until it is rung again or ends: an answered
    # request has no tensors any more.
    assert sys.getrefcount(array) == before
    assert live_tensor_count() <= live + 2


# -- share_memory ----------------------------------------------------------------------


def test_shared_memory_both_ways(run):
    model = run(
        """
        seen = x.as_numpy()
        seen[0] = 42
        return self.response(pb_utils.Tensor("OUT", seen), seen.ctypes.data)
        """,
        share_memory=True,
    )
    array = X.copy()
    answer = model({"IN": array})
    assert answer["ADDRESS"][0] == array.ctypes.data
    assert answer["OUT"].ctypes.data == array.ctypes.data
    assert array[0] == 42


def test_shared_memory_of_a_reused_buffer(run):
    model = run(
        """
        self.buffer[...] = self.calls
        return self.response(pb_utils.Tensor("OUT", self.buffer), self.buffer.ctypes.data)
        """,
        share_memory=True,
    )
    first = model({"IN": X})
    assert first["OUT"].ctypes.data == first["ADDRESS"][0]
    model({"IN": X})
    assert first["OUT"].tolist() == [2] * 4
