"""Which requests a model accepts: counts, names, types, shapes, batch sizes, outputs."""

from __future__ import annotations

from ..schema import Group, InferCase, ModelFiles, Values, source, tensor, words

ECHO = source("""
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            return [
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor(tensor.name().replace("IN", "OUT"), tensor.as_numpy())
                        for tensor in sorted(request.inputs(), key=lambda tensor: tensor.name())
                    ]
                )
                for request in requests
            ]
""")


def echo(name: str, *tensors: str, extra: str = "") -> ModelFiles:
    """Return a model that copies ``IN<i>`` to ``OUT<i>``; each text follows the name."""
    text = 'backend: "python"\n' + extra + "\n"
    for index, fields in enumerate(tensors):
        fields_in, _, fields_out = fields.partition(" -> ")
        text += f'input [ {{ name: "IN{index}" {fields_in} }} ]\n'
        fields_out = fields_out or fields_in.replace("optional: true", "")
        text += f'output [ {{ name: "OUT{index}" {fields_out} }} ]\n'
    return ModelFiles(name, text, {"1/model.py": ECHO})


def fp32(*shape: int) -> Values:
    """Return 0, 1, 2 ... in this shape."""
    count = 1
    for dim in shape:
        count *= dim
    return tensor("FP32", shape, *map(float, range(count)))


TWO = "data_type: TYPE_FP32 dims: [ 2 ]"
ONE = "data_type: TYPE_FP32 dims: [ 1 ]"
MODELS = (
    echo("nb", TWO, TWO),
    echo("b4", TWO, TWO, extra="max_batch_size: 4"),
    echo("b1", TWO, extra="max_batch_size: 1"),
    echo("wild", "data_type: TYPE_INT32 dims: [ -1, 3 ]"),
    echo("opt", TWO, f"{TWO} optional: true"),
    echo("allopt", f"{TWO} optional: true"),
    echo("batched_opt", TWO, f"{TWO} optional: true", extra="max_batch_size: 4"),
    echo("str", "data_type: TYPE_STRING dims: [ 2 ]"),
    echo("boolm", "data_type: TYPE_BOOL dims: [ 2 ]"),
    echo("f16", "data_type: TYPE_FP16 dims: [ 2 ]"),
    echo("u8", "data_type: TYPE_UINT8 dims: [ 2 ]"),
    echo(
        "resh",
        "data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] }"
        " -> data_type: TYPE_FP32 dims: [ 2, 2 ]",
    ),
    echo(
        "resh_wild",
        "data_type: TYPE_FP32 dims: [ -1, 2 ] reshape { shape: [ -1, 1, 2 ] }"
        " -> data_type: TYPE_FP32 dims: [ -1, 1, 2 ]",
    ),
    echo(
        "resh_out",
        "data_type: TYPE_FP32 dims: [ 2, 2 ]"
        " -> data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] }",
    ),
    echo("scalar", f"{ONE} reshape {{ shape: [ ] }}", extra="max_batch_size: 4"),
    echo("scalar_nb", f"{ONE} reshape {{ shape: [ ] }}"),
    echo(
        "ragged",
        f"data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true -> {ONE}",
        extra="max_batch_size: 4",
    ),
)


def case(name: str, model: str, *values: Values, **more: object) -> InferCase:
    """Return a request with inputs ``IN0``, ``IN1`` ... in this order."""
    inputs = {f"IN{index}": value for index, value in enumerate(values)}
    return InferCase(f"{model}/{name}", model, inputs, **more)  # type: ignore[arg-type]


def named(name: str, model: str, inputs: dict[str, Values], **more: object) -> InferCase:
    """Return a request with inputs of any name."""
    return InferCase(f"{model}/{name}", model, inputs, **more)  # type: ignore[arg-type]


X = fp32(2)
INT = tensor("INT32", (2,), 1, 2)
REQUESTS = (
    case("ok", "nb", X, X, request_id="r1"),
    case("missing_input", "nb", X),
    case("missing_input_with_id", "nb", X, request_id="req-7"),
    case("no_inputs", "nb"),
    case("extra_input", "nb", X, X, X),
    named("replaced_input", "nb", {"IN0": X, "ZZ": X}),
    named("wrong_names", "nb", {"YY": X, "ZZ": X}),
    named("lower_case_name", "nb", {"in0": X, "IN1": X}),
    named("only_unknown", "nb", {"ZZ": X}),
    named("reversed", "nb", {"IN1": X, "IN0": X}),
    case("wrong_dtype", "nb", INT, X),
    case("wrong_dtype_with_id", "nb", INT, X, request_id="t"),
    case("wrong_dtype_fp64", "nb", tensor("FP64", (2,), 1.0, 2.0), X),
    case("wrong_dtype_bytes", "nb", words("a", "b"), X),
    case("wrong_rank", "nb", fp32(1, 2), X),
    case("zero_rank", "nb", fp32(), X),
    case("wrong_dim", "nb", fp32(3), X),
    case("zero_dim", "nb", fp32(0), X),
    case("wrong_dtype_and_dim", "nb", tensor("INT32", (3,), 1, 2, 3), X),
    case("both_wrong_dim", "nb", fp32(3), fp32(3)),
    case("unknown_output", "nb", X, X, outputs=("ZZ",)),
    case("unknown_output_and_input", "nb", X, outputs=("ZZ",)),
    case("one_output", "nb", X, X, outputs=("OUT1",)),
    case("dup_output", "nb", X, X, outputs=("OUT1", "OUT1")),
    case("empty_outputs", "nb", X, X, outputs=()),
    case("empty_output_name", "nb", X, X, outputs=("",)),
    case("input_as_output", "nb", X, X, outputs=("IN0",)),
    case("parameter_reserved", "nb", X, X, parameters={"triton_x": 1}),
    case("parameters_mixed", "nb", X, X, parameters={"s": "a", "i": 1, "b": True, "f": 1.5}),
    case("ok", "b4", fp32(2, 2), fp32(2, 2)),
    case("full", "b4", fp32(4, 2), fp32(4, 2)),
    case("no_batch_dim", "b4", X, X),
    case("too_big", "b4", fp32(5, 2), fp32(5, 2)),
    case("mismatch", "b4", fp32(2, 2), fp32(1, 2)),
    case("batch_0", "b4", fp32(0, 2), fp32(0, 2)),
    case("empty_shape", "b4", fp32(), fp32()),
    case("wrong_dim", "b4", fp32(1, 3), fp32(1, 2)),
    case("wrong_rank", "b4", fp32(1, 1, 2), fp32(1, 2)),
    case("wrong_dtype", "b4", tensor("INT32", (1, 2), 1, 2), fp32(1, 2)),
    case("missing", "b4", fp32(1, 2)),
    case("too_big_and_wrong_dim", "b4", fp32(5, 3), fp32(5, 3)),
    case("ok", "b1", fp32(1, 2)),
    case("two", "b1", fp32(2, 2)),
    case("ok", "wild", tensor("INT32", (2, 3), *range(6))),
    case("zero_dim", "wild", tensor("INT32", (0, 3))),
    case("wrong_fixed", "wild", tensor("INT32", (2, 4), *range(8))),
    case("wrong_rank", "wild", tensor("INT32", (3,), *range(3))),
    case("int64", "wild", tensor("INT64", (1, 3), *range(3))),
    case("missing_ok", "opt", X),
    case("both", "opt", X, X),
    case("none", "opt"),
    named("only_optional", "opt", {"IN1": X}),
    case("extra", "opt", X, X, X),
    named("unknown", "opt", {"IN0": X, "ZZ": X}),
    case("optional_wrong_dim", "opt", X, fp32(3)),
    case("missing_output_asked", "opt", X, outputs=("OUT1",)),
    case("none", "allopt"),
    case("one", "allopt", X),
    named("unknown", "allopt", {"ZZ": X}),
    case("missing_ok", "batched_opt", fp32(2, 2)),
    case("mismatch", "batched_opt", fp32(2, 2), fp32(1, 2)),
    case("ok", "str", words("a", "bc")),
    case("three", "str", words("a", "bc", "d")),
    case("one", "str", words("a")),
    case("not_utf8", "str", words(b"\xff\xfe", b"\0")),
    case("numbers", "str", INT),
    case("ok", "boolm", tensor("BOOL", (2,), True, False)),
    case("uint8", "boolm", tensor("UINT8", (2,), 1, 0)),
    case("ok", "f16", tensor("FP16", (2,), 1.5, -2.0)),
    case("fp32", "f16", X),
    case("ok", "u8", tensor("UINT8", (2,), 1, 255)),
    case("int8", "u8", tensor("INT8", (2,), 1, 2)),
    case("ok", "resh", fp32(4)),
    case("sent_reshaped", "resh", fp32(2, 2)),
    case("ok", "resh_wild", fp32(3, 2)),
    case("zero", "resh_wild", fp32(0, 2)),
    case("ok", "resh_out", fp32(2, 2)),
    case("ok", "scalar", fp32(1, 1)),
    case("three", "scalar", fp32(3, 1)),
    case("no_dims", "scalar", fp32(1)),
    case("ok", "scalar_nb", fp32(1)),
    case("zero_rank", "scalar_nb", fp32()),
    case("ok", "ragged", fp32(2, 3)),
    case("wrong_rank", "ragged", fp32(2)),
    case("not_loaded", "ghost", X),
)

VALIDATION = Group("validation", models=MODELS, requests=REQUESTS)
