"""The table of request validation: what Triton 2.51 was seen to answer over HTTP, row by row.

Every row is here. One that a call in this process cannot express says so in `Row.why` and has no
inputs; one that is answered in another way says why in the same place, and how in `Row.ours`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytriton_lite.errors import ErrorCode

NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)
_ID = "[request id: <id_unknown>] "
_LATER = "sequence batching is not supported yet"

# Reasons why a row has no meaning here.
HTTP = "the syntax of an HTTP request"
LISTS = "JSON and its binary extension give data as a flat list or bytes beside a shape; an array \
is both at once"
BINARY = "FP16 and BF16 are a matter of JSON, which has no such numbers; arrays have"
ONE_NAME = "the inputs of a call are a mapping, in which a name is there once"
EXTENSION = "the classification extension is one of the protocols; a call asks for names"

# Why a row is answered in another way.
IN_ORDER = "inputs are checked in the order of the request, on Triton in that of a hash table"
TYPED = "lists take the configured data type where they fit it; what does not fit is refused"
SHAPED = "a list has a shape, which is checked before its elements are counted"
NO_PARSER = "there is no parser: an argument of a wrong type is INVALID_ARG, with a text of our own"

INVALID, MISSING = ErrorCode.INVALID_ARG, ErrorCode.NOT_FOUND

MODELS = {
    "nb": "input [ {0}, {1} ] output [ {O0}, {O1} ]",
    "b4": "max_batch_size: 4 input [ {0}, {1} ] output [ {O0}, {O1} ]",
    "wild": "input {{ name: 'IN0' data_type: TYPE_INT32 dims: [ -1, 3 ] }} "
    "output {{ name: 'OUT0' data_type: TYPE_INT32 dims: [ -1, 3 ] }}",
    "opt": "input [ {0}, {{ name: 'IN1' data_type: TYPE_FP32 dims: 2 optional: true }} ] "
    "output [ {O0}, {O1} ]",
    "allopt": "input {{ name: 'IN0' data_type: TYPE_FP32 dims: 2 optional: true }} output {O0}",
    "str": "input {{ name: 'IN0' data_type: TYPE_STRING dims: 2 }} "
    "output {{ name: 'OUT0' data_type: TYPE_STRING dims: 2 }}",
    "boolm": "input {{ name: 'IN0' data_type: TYPE_BOOL dims: 2 }} "
    "output {{ name: 'OUT0' data_type: TYPE_BOOL dims: 2 }}",
    "f16": "input {{ name: 'IN0' data_type: TYPE_FP16 dims: 2 }} "
    "output {{ name: 'OUT0' data_type: TYPE_FP16 dims: 2 }}",
    "resh": "input {{ name: 'IN0' data_type: TYPE_FP32 dims: 4 reshape {{ shape: [ 2, 2 ] }} }} "
    "output {{ name: 'OUT0' data_type: TYPE_FP32 dims: [ 2, 2 ] }}",
    "scalar": "max_batch_size: 4 "
    "input {{ name: 'IN0' data_type: TYPE_FP32 dims: 1 reshape {{ shape: [ ] }} }} "
    "output {{ name: 'OUT0' data_type: TYPE_FP32 dims: 1 reshape {{ shape: [ ] }} }}",
    "prio": "max_batch_size: 4 input {{ name: 'IN0' data_type: TYPE_FP32 dims: 1 }} "
    "output {{ name: 'OUT0' data_type: TYPE_FP32 dims: 1 }} "
    "dynamic_batching {{ priority_levels: 2 default_priority_level: 1 }}",
    "u8": "input {{ name: 'IN0' data_type: TYPE_UINT8 dims: 2 }} "
    "output {{ name: 'OUT0' data_type: TYPE_UINT8 dims: 2 }}",
}
"""Configurations of the models that the rows ask; all copy ``IN<i>`` to ``OUT<i>``."""

SEQUENCES = {
    "seq": "max_batch_size: 4 sequence_batching { control_input [ "
    "{ name: 'START' control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }, "
    "{ name: 'CORRID' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } } ] }",
    "seqs": "max_batch_size: 4 sequence_batching { control_input "
    "{ name: 'CORRID' control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } } }",
}
"""Models of the rows about sequences, which do not load yet."""


def config_of(name: str) -> str:
    """Text of a model's ``config.pbtxt``."""
    inputs, outputs = (
        [f"{{ name: '{kind}{index}' data_type: TYPE_FP32 dims: 2 }}" for index in range(2)]
        for kind in ("IN", "OUT")
    )
    return 'backend: "python" ' + MODELS[name].format(*inputs, O0=outputs[0], O1=outputs[1])


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs, or an error."""

    outputs: Mapping[str, Any] | None = None
    code: ErrorCode | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes
    ----------
    inputs
        Arrays, or lists where the row is about JSON; None when it does not apply.
    answer
        Triton's; for an error over HTTP 500, which is one of the parser, the code says nothing.
    more
        Further arguments of `Model.run`.
    version
        -1: any.
    ours
        The answer here, if it is another one.
    why
        The row does not apply, or is answered differently.
    """

    case: str
    model: str = ""
    inputs: Mapping[str, Any] | None = None
    answer: Answer | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    version: int = -1
    ours: Answer | None = None
    why: str = ""


def out(*arrays: Any) -> Answer:
    """Outputs ``OUT0``, ``OUT1`` ..."""
    return Answer({f"OUT{index}": array for index, array in enumerate(arrays)})


def bad(text: str, code: ErrorCode = INVALID) -> Answer:
    return Answer(code=code, text=text)


def ins(*arrays: Any) -> dict[str, Any]:
    return {f"IN{index}": array for index, array in enumerate(arrays)}


def f32(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def i32(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


X = np.float32([1, 2])
BOTH = ins(X, X)
ONE = np.float32([[7]])


def _converts(model: str, data_type: str, reason: str) -> Answer:
    return bad(
        f"{_ID}input 'IN0' of model '{model}' cannot be converted to '{data_type}': {reason}"
    )


def _count(model: str, wanted: str, given: str, names: str, missing: str) -> Answer:
    return bad(
        f"{_ID}expected {wanted} but got {given} inputs for model '{model}'. Got input(s) {names}, "
        f"but missing required input(s) {missing}. Please provide all required input(s)."
    )


def _shape(name: str, model: str, wanted: str, got: str, note: str = "") -> Answer:
    return bad(
        f"{_ID}unexpected shape for input '{name}' for model '{model}'. Expected {wanted}, got "
        f"{got}. {note}"
    )


ROWS = (
    Row("ok", "nb", BOTH, out(X, X), {"request_id": "r1"}),
    Row(
        "unknown_model",
        "ghost",
        BOTH,
        bad("Request for unknown model: 'ghost' is not found", MISSING),
    ),
    Row(
        "unknown_version",
        "nb",
        BOTH,
        bad("Request for unknown model: 'nb' version 9 is not found", MISSING),
        version=9,
    ),
    Row("bad_version_string", why=HTTP),
    Row("missing_input", "nb", ins(X), _count("nb", "2 inputs", "1", "['IN0']", "['IN1']")),
    Row(
        "missing_input_with_id",
        "nb",
        ins(X),
        bad(
            _count("nb", "2 inputs", "1", "['IN0']", "['IN1']").text.replace(
                _ID, "[request id: req-7] "
            )
        ),
        {"request_id": "req-7"},
    ),
    Row("no_inputs", "nb", {}, _count("nb", "2 inputs", "0", "[]", "['IN0','IN1']")),
    Row("inputs_key_absent", why=HTTP),
    Row(
        "extra_input",
        "nb",
        ins(X, X, X),
        _count("nb", "2 inputs", "3", "['IN2','IN1','IN0']", "]"),
        ours=_count("nb", "2 inputs", "3", "['IN0','IN1','IN2']", "]"),
        why=IN_ORDER,
    ),
    Row(
        "replaced_input",
        "nb",
        {"IN0": X, "ZZ": X},
        bad("unexpected inference input 'ZZ' for model 'nb'"),
    ),
    Row("duplicate_input", why=ONE_NAME),
    Row(
        "wrong_dtype",
        "nb",
        ins(np.int32([1, 2]), X),
        bad(f"{_ID}inference input 'IN0' data-type is 'INT32', but model 'nb' expects 'FP32'"),
    ),
    Row("unknown_dtype", why=HTTP),
    Row("lowercase_dtype", why=HTTP),
    Row("dtype_absent", why=HTTP),
    Row("shape_absent", why=HTTP),
    Row("name_absent", why=HTTP),
    Row("data_absent", why=HTTP),
    Row("wrong_rank", "nb", ins(f32(1, 2), X), _shape("IN0", "nb", "[2]", "[1,2]")),
    Row("wrong_dim", "nb", ins(f32(3), X), _shape("IN0", "nb", "[2]", "[3]")),
    Row("too_few_data", why=LISTS),
    Row("too_many_data", why=LISTS),
    Row("neg_dim", why=LISTS),
    Row("neg_dim2", why=LISTS),
    Row("zero_dim", "wild", ins(i32(0, 3)), out(i32(0, 3))),
    Row("wild_wrong_fixed", "wild", ins(i32(2, 4)), _shape("IN0", "wild", "[-1,3]", "[2,4]")),
    Row(
        "int_float_value",
        "wild",
        ins([[1.5, 2, 3]]),
        bad("Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer"),
        ours=_converts("wild", "INT32", "expected integers, got floats"),
        why=NO_PARSER,
    ),
    Row(
        "int_string_value",
        "wild",
        ins([["a", 2, 3]]),
        bad("Unable to parse 'data': attempt to access JSON non-signed-integer as signed-integer"),
        ours=_converts("wild", "INT32", "expected numbers, got <U21"),
        why=NO_PARSER,
    ),
    Row(
        "int_overflow",
        "wild",
        ins([[1099511627776, 2, 3]]),
        out(np.int32([[0, 2, 3]])),
        ours=_converts("wild", "INT32", "a value does not fit into int32"),
        why=TYPED,
    ),
    Row(
        "u8_overflow",
        "u8",
        ins([300, 2]),
        out(np.uint8([44, 2])),
        ours=_converts("u8", "UINT8", "a value does not fit into uint8"),
        why=TYPED,
    ),
    Row(
        "u8_negative",
        "u8",
        ins([-1, 2]),
        bad(
            "Unable to parse 'data': attempt to access JSON non-unsigned-integer as "
            "unsigned-integer"
        ),
        ours=_converts("u8", "UINT8", "a value does not fit into uint8"),
        why=NO_PARSER,
    ),
    Row(
        "nested_data",
        "wild",
        ins([[[1, 2, 3]]]),
        out(np.int32([[1, 2, 3]])),
        ours=_shape("IN0", "wild", "[-1,3]", "[1,1,3]"),
        why=SHAPED,
    ),
    Row(
        "bool_int_values",
        "boolm",
        ins([0, 1]),
        bad("Unable to parse 'data': attempt to access JSON non-boolean as boolean"),
        ours=_converts("boolm", "BOOL", "expected booleans, got int64"),
        why=NO_PARSER,
    ),
    Row("bool_ok", "boolm", ins([True, False]), out(np.array([True, False]))),
    Row(
        "fp16_json",
        "f16",
        ins([1, 2]),
        bad(
            "receiving FP16 data via JSON is not supported. Please use the binary data format for "
            "input IN0"
        ),
        ours=out(np.float16([1, 2])),
        why=BINARY,
    ),
    Row("bf16_json", why=BINARY),
    Row("b4_ok", "b4", ins(f32(2, 2), f32(2, 2)), out(f32(2, 2), f32(2, 2))),
    Row(
        "b4_no_batch_dim",
        "b4",
        BOTH,
        _shape("IN1", "b4", "[-1,2]", "[2]", NOTE),
        ours=_shape("IN0", "b4", "[-1,2]", "[2]", NOTE),
        why=IN_ORDER,
    ),
    Row(
        "b4_too_big",
        "b4",
        ins(f32(5, 2), f32(5, 2)),
        bad(f"{_ID}inference request batch-size must be <= 4 for 'b4'"),
    ),
    Row(
        "b4_mismatch",
        "b4",
        ins(f32(2, 2), f32(1, 2)),
        bad(f"{_ID}input 'IN0' batch size does not match other inputs for 'b4'"),
        ours=bad(f"{_ID}input 'IN1' batch size does not match other inputs for 'b4'"),
        why=IN_ORDER,
    ),
    Row(
        "b4_batch0",
        "b4",
        ins(f32(0, 2), f32(0, 2)),
        bad(f"{_ID}input byte size mismatch for input 'IN1' for model 'b4'. Expected 8, got 0"),
        ours=bad(
            f"{_ID}input byte size mismatch for input 'IN0' for model 'b4'. Expected 8, got 0"
        ),
        why=IN_ORDER,
    ),
    Row(
        "b4_empty_shape",
        "b4",
        ins(f32(), f32()),
        bad(f"{_ID}input 'IN1' has no shape but model requires batch dimension for 'b4'"),
        ours=bad(f"{_ID}input 'IN0' has no shape but model requires batch dimension for 'b4'"),
        why=IN_ORDER,
    ),
    Row(
        "b4_wrong_dim",
        "b4",
        ins(f32(1, 3), f32(1, 2)),
        _shape("IN0", "b4", "[-1,2]", "[1,3]", NOTE),
    ),
    Row(
        "unknown_output",
        "nb",
        BOTH,
        bad("unexpected inference output 'ZZ' for model 'nb'"),
        {"outputs": ["ZZ"]},
    ),
    Row("one_output", "nb", BOTH, Answer({"OUT1": X}), {"outputs": ["OUT1"]}),
    Row("dup_output", "nb", BOTH, Answer({"OUT1": X}), {"outputs": ["OUT1", "OUT1"]}),
    Row("empty_outputs", "nb", BOTH, out(X, X), {"outputs": []}),
    Row(
        "output_no_name",
        "nb",
        BOTH,
        bad("Unable to parse 'name': attempt to access non-existing object member 'name'"),
        {"outputs": [{}]},
        ours=bad("outputs of a request to model 'nb' must be a list of names, not [{}]"),
        why=NO_PARSER,
    ),
    Row("classification", why=EXTENSION),
    Row("opt_missing_ok", "opt", ins(X), out(X)),
    Row(
        "opt_none",
        "opt",
        {},
        _count("opt", "number of inputs between 1 and 2", "0", "[]", "['IN0']"),
    ),
    Row("opt_only_optional", "opt", {"IN1": X}, Answer({"OUT1": X})),
    Row(
        "opt_extra",
        "opt",
        ins(X, X, X),
        _count("opt", "number of inputs between 1 and 2", "3", "['IN2','IN1','IN0']", "]"),
        ours=_count("opt", "number of inputs between 1 and 2", "3", "['IN0','IN1','IN2']", "]"),
        why=IN_ORDER,
    ),
    Row("allopt_none", "allopt", {}, Answer({})),
    Row("str_ok", "str", ins(["a", "bc"]), out(np.array(["a", "bc"]))),
    Row(
        "str_few",
        "str",
        ins(["a"]),
        bad(f"{_ID}expected 2 string elements for inference input 'IN0' for model 'str', got 1"),
        ours=_shape("IN0", "str", "[2]", "[1]"),
        why=SHAPED,
    ),
    Row(
        "str_many",
        "str",
        ins(["a", "b", "c"]),
        bad(
            f"{_ID}unexpected number of string elements 3 for inference input 'IN0' for model "
            "'str', expecting 2"
        ),
        ours=_shape("IN0", "str", "[2]", "[3]"),
        why=SHAPED,
    ),
    Row(
        "str_num",
        "str",
        ins([1, 2]),
        bad("Unable to parse JSON bytes array: attempt to access JSON non-string as string"),
        ours=_converts("str", "BYTES", "expected str or bytes, got int"),
        why=NO_PARSER,
    ),
    Row("reshape_ok", "resh", ins(f32(4)), out(f32(2, 2))),
    Row(
        "reshape_client_sends_reshaped",
        "resh",
        ins(f32(2, 2)),
        _shape("IN0", "resh", "[4]", "[2,2]"),
    ),
    Row("scalar_ok", "scalar", ins(ONE), out(ONE)),
    Row("seq_no_id", "seq", why=_LATER),
    Row("seq_zero_id", "seq", why=_LATER),
    Row("seq_not_started", "seq", why=_LATER),
    Row("seq_string_id", "seq", why=_LATER),
    Row("seqs_int_id", "seqs", why=_LATER),
    Row("seq_batch2", "seq", why=_LATER),
    Row("seq_ok", "seq", why=_LATER),
    Row("prio_3", "prio", ins(ONE), out(ONE), {"priority": 3}),
    Row("prio_2", "prio", ins(ONE), out(ONE), {"priority": 2}),
    Row(
        "prio_str",
        "prio",
        ins(ONE),
        bad(
            "Unable to parse 'priority': attempt to access JSON non-unsigned-integer as "
            "unsigned-integer"
        ),
        {"priority": "hi"},
        ours=bad("priority of a request to model 'prio' must be a non-negative int, got 'hi'"),
        why=NO_PARSER,
    ),
    Row(
        "timeout_str",
        "prio",
        ins(ONE),
        bad(
            "Unable to parse 'timeout': attempt to access JSON non-unsigned-integer as "
            "unsigned-integer"
        ),
        {"timeout": "x"},
        ours=bad("timeout of a request to model 'prio' must be a non-negative int, got 'x'"),
        why=NO_PARSER,
    ),
    Row(
        "param_reserved",
        "nb",
        BOTH,
        bad(
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not "
            "be specified."
        ),
        {"parameters": {"triton_x": 1}},
    ),
    Row(
        "param_object",
        "nb",
        BOTH,
        bad("parameter 'x' has invalid type. It should be either 'int', 'bool', or 'string'."),
        {"parameters": {"x": {"a": 1}}},
    ),
    Row(
        "param_mixed_ok",
        "nb",
        BOTH,
        out(X, X),
        {"parameters": {"s": "a", "i": 1, "b": True, "f": 1.5}},
    ),
    Row(
        "id_number",
        "nb",
        BOTH,
        bad("Unable to parse 'id': attempt to access JSON non-string as string"),
        {"request_id": 5},
        ours=bad("request_id of a request to model 'nb' must be a str, got 5"),
        why=NO_PARSER,
    ),
    Row("dec_http", why="a limit of the HTTP endpoint; calls take decoupled models"),
    Row("not_json", why=HTTP),
    Row("json_array", why=HTTP),
    Row("empty_body", why=HTTP),
    Row("inputs_not_array", why=HTTP),
    Row("input_not_object", why=HTTP),
    Row("shape_strings", why=HTTP),
    Row("bin_ok", "nb", BOTH, out(X, X)),
    Row("bin_short_payload", why=LISTS),
    Row("bin_long_payload", why=LISTS),
    Row("bin_size_small", why=LISTS),
    Row("bin_size_big", why=LISTS),
    Row("bin_and_data", why=HTTP),
    Row(
        "bin_fp16",
        "f16",
        ins(np.float16([1, 2])),
        bad(
            "sending FP16 data via JSON is not supported. Please use the binary data format for "
            "output"
        ),
        ours=out(np.float16([1, 2])),
        why=BINARY,
    ),
    Row("bin_bf16", why=BINARY),
    Row("bytes_ok", "str", ins(np.array([b"a", b"bc"])), out(np.array(["a", "bc"]))),
    Row("bytes_one", why=LISTS),
    Row("bytes_three", why=LISTS),
    Row("bytes_trunc_len", why=LISTS),
    Row("bytes_len_too_long", why=LISTS),
    Row("bytes_empty", why=LISTS),
    Row("raw_request_two_inputs", why=HTTP),
    Row("raw_request", why=HTTP),
    Row("bad_header_len", why=HTTP),
)
"""All rows, in the order of the table."""
