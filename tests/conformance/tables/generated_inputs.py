"""`batch_input` and `batch_output`, which a Python model can declare, but never sees."""

from __future__ import annotations

from ..schema import Group, InferCase, ModelFiles, answering, tensor

KINDS = (
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
)
GENERATED = ",\n".join(
    f'  {{ kind: {kind} target_name: "{kind}" data_type: TYPE_INT32 source_input: "IN" }}'
    for kind in KINDS
)
CONFIG = f"""
backend: "python"
max_batch_size: 4
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }} ]
output [ {{ name: "OUT" data_type: TYPE_STRING dims: [ -1 ] }} ]
batch_input [
{GENERATED}
]
batch_output [
  {{ kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "OUT" source_input: "IN" }}
]
"""
SEEN = "[[one.name(), one.shape(), one.as_numpy().tolist()] for one in request.inputs()]"

GENERATED_INPUTS = Group(
    name="generated_inputs",
    models=(ModelFiles("generated_inputs", CONFIG, {"1/model.py": answering(SEEN)}),),
    requests=(
        InferCase(
            "generated_inputs/one",
            "generated_inputs",
            {"IN": tensor("FP32", (1, 3), 1.0, 2.0, 3.0)},
        ),
        InferCase(
            "generated_inputs/two", "generated_inputs", {"IN": tensor("FP32", (2, 1), 4.0, 5.0)}
        ),
        InferCase(
            "generated_inputs/generated",
            "generated_inputs",
            {
                "IN": tensor("FP32", (1, 1), 1.0),
                "BATCH_ELEMENT_COUNT": tensor("INT32", (1, 1), 1),
            },
        ),
    ),
)
