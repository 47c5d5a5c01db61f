"""Requests, responses and error values: sections 3.1 and 3.4 to 3.6, observed on Triton 2.51."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from pytriton_lite import pb_utils
from pytriton_lite._core.message import InferenceTrace
from pytriton_lite.pb_utils import (
    InferenceRequest,
    InferenceResponse,
    PreferredMemory,
    Tensor,
    TritonError,
    TritonModelException,
)

CONSTRUCTOR = (
    r"^__init__\(\): incompatible constructor arguments\. "
    r"The following argument types are supported:\n    1\. "
)
FUNCTION = (
    r"^{}\(\): incompatible function arguments\. "
    r"The following argument types are supported:\n    1\. "
)


@pytest.fixture
def tensor():
    return Tensor("T", np.zeros(1))


def make_request(**fields):
    return InferenceRequest(
        **{"inputs": [], "requested_output_names": [], "model_name": "m", **fields}
    )


# -- InferenceRequest: constructor -----------------------------------------------------


def test_defaults():
    request = make_request()
    assert request.request_id() == ""
    assert request.correlation_id() == 0
    assert request.inputs() == []
    assert request.requested_output_names() == set()
    assert request.flags() == 0
    assert request.timeout() == 0
    assert request.parameters() == "{}"
    assert request.is_cancelled() is False
    assert type(request.trace()) is InferenceTrace
    assert request.trace().get_context() is None


def test_order_of_positional_arguments(tensor):
    memory = PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU)
    trace = InferenceTrace()
    request = InferenceRequest(
        "id", 7, [tensor], ["OUT"], "m", 3, 1, 500, memory, trace, {"key": "value"}
    )
    assert request.request_id() == "id"
    assert request.correlation_id() == 7
    assert request.inputs() == [tensor]
    assert request.requested_output_names() == {"OUT"}
    assert request.flags() == 1
    assert request.timeout() == 500
    assert request.trace() is trace
    assert request.parameters() == '{"key": "value"}'


@pytest.mark.parametrize("missing", ["inputs", "requested_output_names", "model_name"])
def test_three_arguments_are_required(missing):
    fields = {"inputs": [], "requested_output_names": [], "model_name": "m"}
    del fields[missing]
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        InferenceRequest(**fields)


@pytest.mark.parametrize("kind", [list, tuple])
def test_inputs_are_a_list_or_tuple(tensor, kind):
    assert make_request(inputs=kind([tensor, tensor])).inputs() == [tensor, tensor]


@pytest.mark.parametrize(
    "fields",
    [
        {"inputs": None},
        {"inputs": [1]},
        {"inputs": [np.zeros(1)]},
        {"inputs": "T"},
        {"inputs": {}},
        {"inputs": iter(())},
        {"requested_output_names": None},
        {"requested_output_names": {"OUT"}},
        {"requested_output_names": "OUT"},
        {"requested_output_names": [1]},
        {"requested_output_names": [None]},
        {"model_name": None},
        {"model_name": 1},
        {"request_id": None},
        {"request_id": 1},
        {"correlation_id": None},
        {"model_version": "1"},
        {"model_version": None},
        {"model_version": 1.0},
        {"flags": -1},
        {"flags": 1 << 32},
        {"flags": 1.0},
        {"flags": None},
        {"timeout": -1},
        {"timeout": 1 << 64},
        {"timeout": 1.5},
        {"preferred_memory": None},
        {"preferred_memory": pb_utils.TRITONSERVER_MEMORY_CPU},
        {"trace": None},
        {"trace": "x"},
        {"no_such_argument": 1},
    ],
    ids=str,
)
def test_wrong_types_are_type_errors(fields):
    with pytest.raises(TypeError, match=CONSTRUCTOR) as caught:
        make_request(**fields)
    assert "\n\nInvoked with: " in str(caught.value)


def test_a_tensor_is_no_list_of_tensors(tensor):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        make_request(inputs=tensor)


def test_a_misspelt_keyword_gets_a_hint():
    with pytest.raises(TypeError, match=CONSTRUCTOR) as caught:
        make_request(request_ids="x")
    assert caught.value.__notes__ == ["unknown keyword 'request_ids': did you mean 'request_id'?"]


def test_none_among_the_inputs(tensor):
    text = r"^Input tensor for request with id 'r7' and model name 'callee' should not be empty\.$"
    with pytest.raises(TritonModelException, match=text):
        make_request(inputs=[tensor, None], request_id="r7", model_name="callee")


def test_empty_requested_output_name():
    text = (
        r"^Requested output name for request with id 'r7' and model name 'callee' "
        r"should not be empty\.$"
    )
    with pytest.raises(TritonModelException, match=text):
        make_request(requested_output_names=["A", ""], request_id="r7", model_name="callee")


@pytest.mark.parametrize(
    ("given", "kept"),
    [(0, 0), (5, 5), (True, 1), (False, 0), ("abc", "abc"), ("", ""), ((1 << 64) - 1, 2**64 - 1)],
)
def test_correlation_id(given, kept):
    request = make_request(correlation_id=given)
    assert request.correlation_id() == kept
    assert type(request.correlation_id()) is type(kept)


@pytest.mark.parametrize("value", [1.5, [], b"x", object()], ids=repr)
def test_correlation_id_of_another_type(value):
    with pytest.raises(TritonModelException, match=r"^Correlation ID must be integer or string$"):
        make_request(correlation_id=value)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_correlation_id_out_of_range(value):
    with pytest.raises(RuntimeError, match=r"^Unable to cast Python instance of type"):
        make_request(correlation_id=value)


@pytest.mark.parametrize("value", [0, 1, 3, (1 << 32) - 1])
def test_any_unsigned_flags_are_stored(value):
    assert make_request(flags=value).flags() == value


@pytest.mark.parametrize("value", [0, 1, (1 << 64) - 1])
def test_any_unsigned_timeout_is_stored(value):
    assert make_request(timeout=value).timeout() == value


def test_text_may_be_utf8_bytes():
    request = make_request(request_id="ü".encode(), requested_output_names=["ö".encode()])
    assert request.request_id() == "ü"
    assert request.requested_output_names() == {"ö"}


# -- parameters: blanks in what model code made, none in what a client sent ---------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (None, "{}"),
        ({}, "{}"),
        ({"b": True, "i": -3, "s": "x"}, '{"b": true, "i": -3, "s": "x"}'),
        ({"quote": '"'}, '{"quote": "\\""}'),
    ],
)
@pytest.mark.parametrize("make", [make_request, InferenceResponse])
def test_parameters_are_json_with_blanks(make, given, text):
    made = make(parameters=given)
    assert made.parameters() == text
    assert json.loads(made.parameters()) == (given or {})


@pytest.mark.parametrize("make", [make_request, InferenceResponse])
@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"a": 1.5},
            "Expect parameters values to have type bool/int/str, found type <class 'float'>",
        ),
        (
            {"a": None},
            "Expect parameters values to have type bool/int/str, found type <class 'NoneType'>",
        ),
        (
            {"a": []},
            "Expect parameters values to have type bool/int/str, found type <class 'list'>",
        ),
        ({1: 1}, "Expect parameters keys to have type str, found type <class 'int'>"),
        ([], "Expect N8pybind114dictE, got <class 'list'>"),
        ("x", "Expect N8pybind114dictE, got <class 'str'>"),
    ],
    ids=str,
)
def test_wrong_parameters(make, given, text):
    with pytest.raises(TritonModelException) as caught:
        make(parameters=given)
    assert str(caught.value) == text


def test_parameters_are_taken_as_they_are_now():
    given = {"a": 1}
    request = make_request(parameters=given)
    given["a"] = 2
    assert request.parameters() == '{"a": 1}'


# -- InferenceRequest: methods ---------------------------------------------------------


def test_inputs_are_a_new_list_of_the_same_tensors(tensor):
    request = make_request(inputs=[tensor])
    first = request.inputs()
    assert first == [tensor]
    assert first[0] is tensor
    first.append(tensor)
    assert len(request.inputs()) == 1


def test_inputs_are_taken_as_they_are_now(tensor):
    given = [tensor]
    request = make_request(inputs=given)
    given.clear()
    assert request.inputs() == [tensor]


def test_requested_output_names_are_a_new_set():
    request = make_request(requested_output_names=["B", "A", "B"])
    first = request.requested_output_names()
    assert type(first) is set
    assert first == {"A", "B"}
    first.clear()
    assert request.requested_output_names() == {"A", "B"}


def test_set_flags():
    request = make_request()
    assert request.set_flags(3) is None
    assert request.flags() == 3
    request.set_flags(flags=1)
    assert request.flags() == 1


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((-1,), {}),
        ((1 << 32,), {}),
        (("1",), {}),
        ((None,), {}),
        ((1, 2), {}),
        ((), {"flag": 1}),
        ((1,), {"flags": 1}),
    ],
)
def test_set_flags_with_wrong_arguments(args, kwargs):
    with pytest.raises(TypeError, match=FUNCTION.format("set_flags")):
        make_request().set_flags(*args, **kwargs)


def test_what_triton_requests_do_not_have():
    request = make_request()
    assert not hasattr(request, "model_name")
    assert not hasattr(request, "preferred_memory")


def test_a_self_made_request_has_no_sender():
    with pytest.raises(TritonModelException, match="a request that execute received"):
        make_request().get_response_sender()


@pytest.mark.parametrize("method", ["exec", "async_exec"])
def test_bls_needs_a_model(method):
    with pytest.raises(TritonModelException, match="BLS is only supported during the 'execute'"):
        getattr(make_request(), method)()
    with pytest.raises(TypeError, match=FUNCTION.format(method)):
        getattr(make_request(), method)("x")
    with pytest.raises(TypeError, match=FUNCTION.format(method)):
        getattr(make_request(), method)(other=True)


def test_release_flags():
    make_request().set_release_flags(2)
    for args, kwargs in [((), {}), (("2",), {}), ((1, 2), {}), ((), {"flags": 2})]:
        with pytest.raises(TypeError, match=FUNCTION.format("set_release_flags")):
            make_request().set_release_flags(*args, **kwargs)


# -- InferenceResponse -----------------------------------------------------------------


def test_empty_response():
    response = InferenceResponse()
    assert response.output_tensors() == []
    assert response.has_error() is False
    assert response.error() is None
    assert response.parameters() == "{}"


def test_response_by_position(tensor):
    error = TritonError("text")
    response = InferenceResponse([tensor], error, {"a": 1})
    assert response.output_tensors() == [tensor]
    assert response.error() is error
    assert response.has_error() is True
    assert response.parameters() == '{"a": 1}'


@pytest.mark.parametrize("kind", [list, tuple])
def test_output_tensors_are_a_new_list(tensor, kind):
    response = InferenceResponse(output_tensors=kind([tensor]))
    first = response.output_tensors()
    assert type(first) is list
    assert first[0] is tensor
    first.clear()
    assert response.output_tensors() == [tensor]


def test_response_keeps_its_own_list(tensor):
    given = [tensor]
    response = InferenceResponse(given)
    given.append(tensor)
    assert len(response.output_tensors()) == 1


def test_one_tensor_may_be_there_twice(tensor):
    assert InferenceResponse([tensor, tensor]).output_tensors() == [tensor, tensor]


@pytest.mark.parametrize(
    "outputs",
    [None, 1, "T", {}, iter(()), np.zeros(1), [np.zeros(1)], [1], ["T"]],
    ids=repr,
)
def test_wrong_output_tensors(outputs):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        InferenceResponse(outputs)


def test_a_single_tensor_or_generator_is_refused(tensor):
    for outputs in (tensor, (t for t in [tensor]), {tensor}):
        with pytest.raises(TypeError, match=CONSTRUCTOR):
            InferenceResponse(outputs)


def test_none_among_the_outputs(tensor):
    text = r"^Output tensor for inference response should not be empty\.$"
    for outputs in ([None], [tensor, None]):
        with pytest.raises(TritonModelException, match=text):
            InferenceResponse(outputs)


@pytest.mark.parametrize(
    "error", ["text", 1, ValueError("x"), TritonModelException("x"), TritonError], ids=repr
)
def test_error_is_a_triton_error_only(error):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        InferenceResponse(error=error)


@pytest.mark.parametrize("fields", [{"outputs": []}, {"errors": None}], ids=str)
def test_unknown_keywords_of_a_response(fields):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        InferenceResponse(**fields)


def test_too_many_arguments_of_a_response():
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        InferenceResponse([], None, None, None)


# -- TritonError -----------------------------------------------------------------------

# Section 3.1.
CODES = {
    "UNKNOWN": 0,
    "INTERNAL": 1,
    "NOT_FOUND": 2,
    "INVALID_ARG": 3,
    "UNAVAILABLE": 4,
    "UNSUPPORTED": 5,
    "ALREADY_EXISTS": 6,
    "CANCELLED": 7,
}


@pytest.mark.parametrize(("name", "number"), CODES.items())
def test_codes(name, number):
    code = getattr(TritonError, name)
    assert code == number
    assert int(code) == number
    assert code.name == name
    assert type(code).__name__ == "__ErrorCode"
    assert not isinstance(code, int)
    assert type(code).__module__ == "c_python_backend_utils"
    assert TritonError("text", code).code() is code
    assert TritonError(message="text", code=code).code() is code


def test_default_code_is_internal():
    error = TritonError("text")
    assert error.code() is TritonError.INTERNAL
    assert error.message() == "text"


@pytest.mark.parametrize("text", ["", "ü", "a\nb", "\0"])
def test_message_is_unchanged(text):
    assert TritonError(text).message() == text
    assert TritonError(text.encode()).message() == text


@pytest.mark.parametrize(
    "args",
    [
        (),
        (1,),
        (None,),
        (ValueError("x"),),
        ("x", 1),
        ("x", None),
        ("x", "INTERNAL"),
        ("x", True),
        ("x", TritonError.INTERNAL, 1),
    ],
    ids=repr,
)
def test_wrong_arguments_of_an_error(args):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        TritonError(*args)


def test_codes_of_the_callers_side_are_not_taken():
    from pytriton_lite.errors import ErrorCode

    with pytest.raises(TypeError, match=CONSTRUCTOR):
        TritonError("x", ErrorCode.INTERNAL)


def test_an_error_value_is_no_exception():
    assert not issubclass(TritonError, BaseException)
    with pytest.raises(TypeError, match="exceptions must"):
        raise TritonError("text")


# -- PreferredMemory, InferenceTrace, enums --------------------------------------------


def test_memory_types():
    assert pb_utils.TRITONSERVER_MEMORY_GPU == 0
    assert pb_utils.TRITONSERVER_MEMORY_CPU == 1
    kind = type(pb_utils.TRITONSERVER_MEMORY_CPU)
    assert kind.__name__ == "MemoryType"
    assert kind.__module__ == "c_python_backend_utils"
    assert pb_utils.TRITONSERVER_MEMORY_CPU.name == "TRITONSERVER_MEMORY_CPU"


def test_preferred_memory():
    PreferredMemory(pb_utils.TRITONSERVER_MEMORY_GPU, 1)
    PreferredMemory(preferred_memory_type=pb_utils.TRITONSERVER_MEMORY_CPU, preferred_device_id=0)
    # No accessors.
    memory = PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU)
    assert [name for name in dir(memory) if not name.startswith("_")] == []
    assert make_request(preferred_memory=memory).inputs() == []


# As observed on Triton 2.51.
@pytest.mark.parametrize(
    "device_id", [0, 1, -1, True, np.int64(1), np.int32(1), 2**63 - 1, -(2**63)], ids=repr
)
def test_device_ids_of_preferred_memory(device_id):
    PreferredMemory(pb_utils.TRITONSERVER_MEMORY_GPU, device_id)
    PreferredMemory(
        preferred_device_id=device_id, preferred_memory_type=pb_utils.TRITONSERVER_MEMORY_GPU
    )


def test_preferred_memory_cannot_be_copied():
    memory = PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU)
    for copy_of in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match=r"^cannot pickle '.*\.PreferredMemory' object$"):
            copy_of(memory)


@pytest.mark.parametrize(
    "args",
    [
        (),
        (0,),
        (1, 0),
        (pb_utils.TRITONSERVER_MEMORY_CPU, 1.0),
        (pb_utils.TRITONSERVER_MEMORY_CPU, 2**63),
        (pb_utils.TRITONSERVER_MEMORY_CPU, -(2**63) - 1),
        (None,),
        ("TRITONSERVER_MEMORY_CPU",),
        (pb_utils.TRITONSERVER_MEMORY_CPU, "0"),
        (pb_utils.TRITONSERVER_MEMORY_CPU, None),
        (pb_utils.TRITONSERVER_MEMORY_CPU, 0, 0),
        (TritonError.INTERNAL,),
    ],
    ids=repr,
)
def test_wrong_arguments_of_preferred_memory(args):
    with pytest.raises(TypeError, match=CONSTRUCTOR):
        PreferredMemory(*args)


@pytest.mark.parametrize(
    "kind", [InferenceRequest, InferenceResponse, TritonError, PreferredMemory, InferenceTrace]
)
def test_classes_are_closed(kind):
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (kind,), {})


@pytest.mark.parametrize(
    "kind",
    [Tensor, InferenceRequest, InferenceResponse, TritonError, PreferredMemory, InferenceTrace],
)
def test_classes_say_that_they_are_tritons(kind):
    # Section 3.1.
    assert kind.__module__ == "c_python_backend_utils"
    assert repr(kind) == f"<class 'c_python_backend_utils.{kind.__name__}'>"


# -- constructors are called in a way of their own, and by it understand what any call says ---

REQUIRED = {"inputs": [], "requested_output_names": ["OUT"], "model_name": "m"}
CALLS = [
    (Tensor, ("T", np.zeros(1)), {}),
    (Tensor, (b"T", np.zeros(1)), {}),
    (Tensor, (), {}),
    (Tensor, ("T",), {"array": np.zeros(1)}),
    (Tensor, ("T", [1]), {}),
    (Tensor, ("", np.zeros(1)), {}),
    (Tensor, ("T", np.zeros(1, np.complex64)), {}),
    (InferenceResponse, (), {}),
    (InferenceResponse, ([],), {}),
    (InferenceResponse, ([],), {"output_tensors": []}),
    (InferenceResponse, ([], None, {"k": 1}), {}),
    (InferenceResponse, ([], None, None, None), {}),
    (InferenceResponse, ([None],), {}),
    (InferenceResponse, (), {"tensors": []}),
    (InferenceResponse, (), {"error": TritonError("e"), "output_tensors": ()}),
    (InferenceRequest, (), REQUIRED),
    (InferenceRequest, (), {"".join(["model", "_name"]) if k == "model_name" else k: v
                            for k, v in REQUIRED.items()}),
    (InferenceRequest, (), {**REQUIRED, "requested_output_names": ("B", "A", "B")}),
    (InferenceRequest, (), {**REQUIRED, "requested_output_names": [b"A", "A", b"B"]}),
    (InferenceRequest, (), {**REQUIRED, "requested_output_names": ["A", ""]}),
    (InferenceRequest, (), {**REQUIRED, "requested_output_names": ["A", 1]}),
    (InferenceRequest, (), {**REQUIRED, "inputs": [None]}),
    (InferenceRequest, (), {**REQUIRED, "inputs": [1]}),
    (InferenceRequest, (), {**REQUIRED, "timeout": -1}),
    (InferenceRequest, (), {**REQUIRED, "request_output_names": []}),
    (InferenceRequest, ("id",), {**REQUIRED, "flags": 1, "timeout": 5, "parameters": {"k": 1}}),
    (InferenceRequest, ("id",), {**REQUIRED, "request_id": "other"}),
    (InferenceRequest, (*range(12),), {}),
]  # fmt: skip


def seen(make):
    try:
        made = make()
    except Exception as error:
        return type(error), str(error), getattr(error, "__notes__", None)
    if type(made) is Tensor:
        return made.name(), made.shape(), made.triton_dtype()
    if type(made) is InferenceResponse:
        return made.output_tensors(), made.error(), made.parameters()
    return (
        made.request_id(), made.inputs(), made.requested_output_names(), made.flags(),
        made.timeout(), made.parameters(), made.correlation_id(),
    )  # fmt: skip


@pytest.mark.parametrize(("cls", "args", "kwargs"), CALLS)
def test_a_call_of_a_type_does_what_new_and_init_do(cls, args, kwargs):
    assert seen(lambda: cls(*args, **kwargs)) == seen(
        lambda: type.__call__(cls, *args, **kwargs)  # by `__new__` and `__init__`
    )
