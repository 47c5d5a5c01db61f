"""The tables of the specification of model configurations, one row each, by section.

Sections are those of the specification: 2 parser messages, 3 defaults, 4 auto-complete,
5 validation, 7 error tables A (while the folder is read), B (load of a version) and C (versions
and dependencies), 8 accepted oddities, 9 overrides. All texts were seen on Triton 2.51, but where
a row says 2.73: those were read in its sources.

Configurations are abbreviated as in the specification; `expand` writes them out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["poll", "load", "dependency", "loaded"]

MODEL = {"1/model.py": "class TritonPythonModel:\n    def execute(self, requests): return []\n"}
NO_MODEL = {"1/empty": ""}
NO_VERSION: dict[str, str] = {}
VERSION_V1 = {"v1/model.py": MODEL["1/model.py"]}
VERSION_01 = {"01/model.py": MODEL["1/model.py"]}
VERSION_0 = {"0/model.py": MODEL["1/model.py"]}
SMALL = {**MODEL, "warmup/small": "abc"}

_TENSOR = "data_type: TYPE_FP32 dims: [4]"
_STEP = (
    'step [ { model_name: "ok" model_version: -1 input_map { key: "IN0" value: "IN0" } '
    'output_map { key: "OUT0" value: "OUT0" } } ]'
)
_ABBREVIATIONS = {
    "PY": 'backend: "python"',
    "IO": f'input [{{ name: "IN0" {_TENSOR} }}] output [{{ name: "OUT0" {_TENSOR} }}]',
    "MBS4": "max_batch_size: 4",
    "ENS": 'platform: "ensemble"',
    "STEP": _STEP,
}

COMPOSING = {
    "ok": "PY IO",
    "ok2": f'PY IO input [{{ name: "IN1" {_TENSOR} }}]',
    "okdec": "PY IO model_transaction_policy { decoupled: true }",
}
"""Models that the ensembles are made of."""


def expand(config: str) -> str:
    """Write out the abbreviations, which stand outside of quotes only."""
    words = "|".join(_ABBREVIATIONS)
    return re.sub(rf'"[^"]*"|\b(?:{words})\b', lambda m: _ABBREVIATIONS.get(m[0], m[0]), config)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the tables 7A to 7C, or of the list 8.

    Attributes
    ----------
    config
        ``config.pbtxt``; None for none.
    reason
        With the status word before it in phase ``load``. `M` is the model, ``<repo>`` the
        repository, ``<backends>`` the backend directory.
    files
        The model folder beside ``config.pbtxt``.
    """

    section: str
    case: str
    config: str | None
    phase: Phase
    reason: str = ""
    files: Mapping[str, str] = field(default_factory=lambda: MODEL)


ROWS: tuple[Row, ...] = (
    Row(
        "7A",
        "syn_garbage",
        "this is not { pbtxt",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_unknown_field",
        "PY IO no_such_field: 1",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_bad_enum",
        'PY input [{ name: "A" data_type: TYPE_FLOAT dims: [1] }]',
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_wrong_type",
        'PY IO max_batch_size: "four"',
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_dup_scalar",
        "PY PY IO",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_two_schedulers",
        "PY IO max_batch_size: 2 dynamic_batching { } sequence_batching { }",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "syn_int_overflow",
        "PY IO max_batch_size: 4294967296",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "name_mismatch",
        'name: "other" PY IO',
        "poll",
        "unexpected directory name 'M' for model 'other', directory name must equal model name",
    ),
    Row(
        "7A",
        "no_backend_no_files",
        "IO",
        "poll",
        "Invalid model name: Could not determine backend for model 'M' with no backend in model "
        "configuration. Expected model name of the form 'model.<backend_name>'.",
        files=NO_MODEL,
    ),
    Row(
        "7A",
        "platform_only_python",
        'platform: "python" IO',
        "poll",
        "unexpected platform type 'python' for M",
    ),
    Row(
        "7A",
        "platform_unknown",
        'platform: "whatever" IO',
        "poll",
        "unexpected platform type 'whatever' for M",
    ),
    Row(
        "7A",
        "ens_platform_and_backend",
        "ENS PY IO",
        "poll",
        "Ensemble model 'M' must have platform type 'ensemble' and empty backend type",
    ),
    Row(
        "7A",
        "platform_backend_pair",
        'platform: "onnxruntime_onnx" backend: "tensorrt" IO',
        "poll",
        "unexpected 'platform' and 'backend' pair, got:onnxruntime_onnx, tensorrt",
    ),
    Row(
        "7A",
        "neg_mbs",
        "PY IO max_batch_size: -1",
        "poll",
        "'max_batch_size' must be non-negative value for M",
    ),
    Row(
        "7A",
        "db_pref_neg",
        "PY IO max_batch_size: 4 dynamic_batching { preferred_batch_size: [0] }",
        "poll",
        "dynamic batching preferred size must be positive for M",
    ),
    Row(
        "7A",
        "db_pref_big",
        "PY IO max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }",
        "poll",
        "dynamic batching preferred size must be <= max batch size for M",
    ),
    Row(
        "7A",
        "db_prio_default0",
        "PY IO max_batch_size: 4 dynamic_batching { priority_levels: 2 }",
        "poll",
        "default priority level must be in range [1, 2] for M",
    ),
    Row(
        "7A",
        "db_prio_default_big",
        "PY IO max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        "poll",
        "default priority level must be in range [1, 2] for M",
    ),
    Row(
        "7A",
        "db_prio_policy",
        "PY IO max_batch_size: 4 dynamic_batching { priority_levels: 2 default_priority_level: 1 "
        "priority_queue_policy { key: 3 value { } } }",
        "poll",
        "priority queue policy must have priority level in range [1, 2] for M",
    ),
    Row(
        "7A",
        "db_order_prio",
        "PY IO max_batch_size: 4 dynamic_batching { preserve_ordering: true priority_levels: 2 "
        "default_priority_level: 1 }",
        "poll",
        "Only one priority level is allowed when 'preserve_ordering' is true for M",
    ),
    Row(
        "7A",
        "db_order_delay",
        "PY IO max_batch_size: 4 dynamic_batching { preserve_ordering: true default_queue_policy "
        "{ timeout_action: DELAY default_timeout_microseconds: 10 } }",
        "poll",
        "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for M",
    ),
    Row(
        "7A",
        "db_order_delay2",
        "PY IO max_batch_size: 4 dynamic_batching { preserve_ordering: true priority_levels: 1 "
        "default_priority_level: 1 priority_queue_policy { key: 1 value { timeout_action: DELAY "
        "default_timeout_microseconds: 10 } } }",
        "poll",
        "Queue policy can not have DELAY as timeout action when 'preserve_ordering' is true for M",
    ),
    Row(
        "7A",
        "db_mbs0_pref",
        "PY IO dynamic_batching { preferred_batch_size: [1] }",
        "poll",
        "dynamic batching preferred size must be <= max batch size for M",
    ),
    Row(
        "7A",
        "sb_ctl_noname",
        "PY IO MBS4 sequence_batching { control_input [{ control [{ kind: CONTROL_SEQUENCE_START "
        "int32_false_true: [0,1] }] }] }",
        "poll",
        "sequence batching control tensor must have a name for M",
    ),
    Row(
        "7A",
        "sb_ctl_dup_tensor",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        'CONTROL_SEQUENCE_START int32_false_true: [0,1] }] }, { name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_END int32_false_true: [0,1] }] }] }",
        "poll",
        "sequence batching control tensor 'S' is specified for multiple control kinds for M",
    ),
    Row(
        "7A",
        "sb_ctl_dup_kind",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        'CONTROL_SEQUENCE_START int32_false_true: [0,1] }] }, { name: "T" control [{ kind: '
        "CONTROL_SEQUENCE_START int32_false_true: [0,1] }] }] }",
        "poll",
        "sequence batching specifies multiple CONTROL_SEQUENCE_START tensors for M",
    ),
    Row(
        "7A",
        "sb_ctl_none",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_START }] }] }",
        "poll",
        "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or "
        "'bool_false_true' for CONTROL_SEQUENCE_START for M",
    ),
    Row(
        "7A",
        "sb_ctl_both",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_START int32_false_true: [0,1] fp32_false_true: [0,1] }] }] }",
        "poll",
        "sequence batching specifies more than one from 'int32_false_true', 'fp32_false_true' "
        "and 'bool_false_true' for CONTROL_SEQUENCE_START for M",
    ),
    Row(
        "7A",
        "sb_ctl_one",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_START int32_false_true: [1] }] }] }",
        "poll",
        "sequence batching control 'int32_false_true' must have exactly 2 entries for "
        "CONTROL_SEQUENCE_START for M",
    ),
    Row(
        "7A",
        "sb_ctl_one_fp",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_READY fp32_false_true: [1,0,1] }] }] }",
        "poll",
        "sequence batching control 'fp32_false_true' must have exactly 2 entries for "
        "CONTROL_SEQUENCE_READY for M",
    ),
    Row(
        "7A",
        "sb_ctl_one_bool",
        'PY IO MBS4 sequence_batching { control_input [{ name: "S" control [{ kind: '
        "CONTROL_SEQUENCE_END bool_false_true: [true] }] }] }",
        "poll",
        "sequence batching control 'bool_false_true' must have exactly 2 entries for "
        "CONTROL_SEQUENCE_END for M",
    ),
    Row(
        "7A",
        "sb_corrid_type",
        'PY IO MBS4 sequence_batching { control_input [{ name: "C" control [{ kind: '
        "CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 }] }] }",
        "poll",
        "unexpected data type for control CONTROL_SEQUENCE_CORRID for M. Allowed data types are "
        "TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING",
    ),
    Row(
        "7A",
        "sb_corrid_notype",
        'PY IO MBS4 sequence_batching { control_input [{ name: "C" control [{ kind: '
        "CONTROL_SEQUENCE_CORRID }] }] }",
        "poll",
        "unexpected data type for control CONTROL_SEQUENCE_CORRID for M. Allowed data types are "
        "TYPE_UINT64, TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING",
    ),
    Row(
        "7A",
        "sb_corrid_ft",
        'PY IO MBS4 sequence_batching { control_input [{ name: "C" control [{ kind: '
        "CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 int32_false_true: [0,1] }] }] }",
        "poll",
        "sequence batching must not specify either 'int32_false_true', 'fp32_false_true' or "
        "'bool_false_true' for CONTROL_SEQUENCE_CORRID for M",
    ),
    Row(
        "7A",
        "sb_oldest_pref_big",
        "PY IO MBS4 sequence_batching { oldest { max_candidate_sequences: 4 "
        "preferred_batch_size: [8] } }",
        "poll",
        "sequence batching preferred batch size must be <= max batch size for M",
    ),
    Row(
        "7A",
        "sb_oldest_pref_neg",
        "PY IO MBS4 sequence_batching { oldest { max_candidate_sequences: 4 "
        "preferred_batch_size: [-1] } }",
        "poll",
        "sequence batching preferred batch size must be positive for M",
    ),
    Row(
        "7A",
        "sb_direct_util",
        "PY IO MBS4 sequence_batching { direct { minimum_slot_utilization: 2 } }",
        "poll",
        "sequence batching minimum slot utilization must be in range (0.0, 1.0] for M",
    ),
    Row(
        "7A",
        "sb_cache",
        "PY IO MBS4 response_cache { enable: true } sequence_batching { }",
        "poll",
        "Response Cache does not currently support model M with sequence batching scheduler. "
        "Please disable the response cache.",
    ),
    Row(
        "7A",
        "ens_no_step",
        "ENS IO ensemble_scheduling { }",
        "poll",
        "must specify 'step' for ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_no_sched",
        "ENS IO",
        "poll",
        "ensemble scheduling must be set for ensemble M whose platform is ensemble",
    ),
    Row(
        "7A",
        "ens_not_platform",
        "PY IO ensemble_scheduling { STEP }",
        "poll",
        "ensemble scheduling cannot be set for model 'M' whose platform is not ensemble",
    ),
    Row(
        "7A",
        "ens_instance_group",
        "ENS IO instance_group [{ count: 1 }] ensemble_scheduling { STEP }",
        "poll",
        "instance group should not be specified for ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_optimization",
        "ENS IO optimization { } ensemble_scheduling { STEP }",
        "poll",
        "optimization should not be specified for ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_warmup",
        'ENS IO model_warmup [{ name: "w" batch_size: 1 }] ensemble_scheduling { STEP }',
        "poll",
        "model_warmup can not be specified for ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_no_model_name",
        'ENS IO ensemble_scheduling { step [ { model_name: "" model_version: -1 input_map { key: '
        '"IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "poll",
        "must specify 'model_name' in step 0 of ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_no_input_map",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: -1 output_map { '
        'key: "OUT0" value: "OUT0" } } ] }',
        "poll",
        "must specify 'input_map' in step 0 of ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_no_output_map",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: -1 input_map { '
        'key: "IN0" value: "IN0" } } ] }',
        "poll",
        "must specify 'output_map' in step 0 of ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_input_unused",
        'ENS input [{ name: "IN0" data_type: TYPE_FP32 dims: [4] },{ name: "X" data_type: '
        'TYPE_FP32 dims: [4] }] output [{ name: "OUT0" data_type: TYPE_FP32 dims: [4] }] '
        "ensemble_scheduling { STEP }",
        "poll",
        "ensemble input 'X' for ensemble M' is not used",
    ),
    Row(
        "7A",
        "ens_output_unused",
        'ENS input [{ name: "IN0" data_type: TYPE_FP32 dims: [4] }] output [{ name: "OUT0" '
        'data_type: TYPE_FP32 dims: [4] },{ name: "Y" data_type: TYPE_FP32 dims: [4] }] '
        "ensemble_scheduling { STEP }",
        "poll",
        "ensemble output 'Y' for ensemble M' is not used",
    ),
    Row(
        "7A",
        "ens_not_written",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: -1 input_map { '
        'key: "IN0" value: "ghost" } output_map { key: "OUT0" value: "OUT0" } } ] step [ { '
        'model_name: "ok" model_version: -1 input_map { key: "IN0" value: "IN0" } output_map { '
        'key: "OUT0" value: "dead" } } ] }',
        "poll",
        "output 'OUT0' for ensemble 'M' is not written: at least one of its depending tensors, "
        "'ghost', is not connected",
    ),
    Row(
        "7A",
        "ens_tensor_unused",
        'ENS IO ensemble_scheduling { STEP step [ { model_name: "ok" model_version: -1 input_map '
        '{ key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "dead" } } ] }',
        "poll",
        "ensemble tensor 'dead' is unused in ensemble 'M'",
    ),
    Row(
        "7A",
        "ens_double_write",
        "ENS IO ensemble_scheduling { STEP STEP }",
        "poll",
        "ensemble tensor 'OUT0' can appear in an output map only once for ensemble 'M' step 1",
    ),
    Row(
        "7A",
        "cache_decoupled",
        "PY IO response_cache { enable: true } model_transaction_policy { decoupled: true }",
        "poll",
        "Response Cache does not currently support model M with 'decoupled' transaction policy. "
        "Please disable the response cache.",
    ),
    Row(
        "7A",
        "mm_noident",
        "PY IO model_metrics { metric_control [{ histogram_options { buckets: [1] } }] }",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "mm_nofamily",
        "PY IO model_metrics { metric_control [{ metric_identifier { } histogram_options { "
        "buckets: [1] } }] }",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "mm_noopts",
        'PY IO model_metrics { metric_control [{ metric_identifier { family: "f" } }] }',
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "mm_nobuckets",
        'PY IO model_metrics { metric_control [{ metric_identifier { family: "f" } '
        "histogram_options { } }] }",
        "poll",
        "failed to read text proto from <repo>/M/config.pbtxt",
    ),
    Row(
        "7A",
        "repo_agent_missing",
        'PY IO model_repository_agents { agents [{ name: "nope" }] }',
        "poll",
        "unable to find 'libtritonrepoagent_nope.so' for repo agent 'nope', searched: "
        "/opt/tritonserver/repoagents",
    ),
    Row(
        "7A",
        "no_config_empty_dir",
        None,
        "poll",
        "Invalid model name: Could not determine backend for model 'M' with no backend in model "
        "configuration. Expected model name of the form 'model.<backend_name>'.",
        files=NO_MODEL,
    ),
    Row(
        "7B",
        "unknown_backend",
        'backend: "nosuch" IO',
        "load",
        "Invalid argument: unable to find backend library for backend 'nosuch', try specifying "
        "runtime on the model configuration.",
    ),
    Row(
        "7B",
        "in_no_name",
        "PY input [{ data_type: TYPE_FP32 dims: [1] }]",
        "load",
        "Invalid argument: model input must specify 'name' for M",
    ),
    Row(
        "7B",
        "in_no_dtype",
        'PY input [{ name: "A" dims: [1] }]',
        "load",
        "Invalid argument: model input 'A' must specify 'data_type' for M",
    ),
    Row(
        "7B",
        "in_no_dims",
        'PY input [{ name: "A" data_type: TYPE_FP32 }]',
        "load",
        "Invalid argument: model input 'A' must specify 'dims' for M",
    ),
    Row(
        "7B",
        "in_dim_zero",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [0] }]',
        "load",
        "Invalid argument: model input 'A' dimension must be integer >= 1, or -1 to indicate a "
        "variable-size dimension for M",
    ),
    Row(
        "7B",
        "in_dim_neg2",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [-2] }]',
        "load",
        "Invalid argument: model input 'A' dimension must be integer >= 1, or -1 to indicate a "
        "variable-size dimension for M",
    ),
    Row(
        "7B",
        "in_format_dims",
        'PY input [{ name: "A" data_type: TYPE_FP32 format: FORMAT_NHWC dims: [1] }]',
        "load",
        "Invalid argument: model input NHWC/NCHW require 3 dims for M",
    ),
    Row(
        "7B",
        "in_shape_tensor",
        'PY input [{ name: "A" data_type: TYPE_INT32 dims: [1] is_shape_tensor: true }]',
        "load",
        "Invalid argument: shape tensors are only supported for TensorRT platform for M",
    ),
    Row(
        "7B",
        "in_nonlinear",
        'PY input [{ name: "A" data_type: TYPE_INT32 dims: [1,1,1] is_non_linear_format_io: true '
        "}]",
        "load",
        "Invalid argument: Non-linear IO format is only supported for the TensorRT platform for M",
    ),
    Row(
        "7B",
        "reshape_empty_nobatch",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [1] reshape { shape: [] } }]',
        "load",
        "Invalid argument: model input 'A' cannot have empty reshape for non-batching model as "
        "scalar tensors are not supported for M",
    ),
    Row(
        "7B",
        "reshape_zero",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [1] reshape { shape: [0] } }]',
        "load",
        "Invalid argument: model input 'A' reshape dimensions must be integer >= 1, or -1 to "
        "indicate a variable-size dimension for M",
    ),
    Row(
        "7B",
        "reshape_size",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [4] reshape { shape: [2,3] } }]',
        "load",
        "Invalid argument: model input 'A' has different size for dims and reshape for M",
    ),
    Row(
        "7B",
        "reshape_wild_count",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [-1,-1] reshape { shape: [-1] } }]',
        "load",
        "Invalid argument: model input 'A' has different number of variable-size dimensions for "
        "dims and reshape for M",
    ),
    Row(
        "7B",
        "reshape_wild_size",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [2,-1] reshape { shape: [3,-1] } }]',
        "load",
        "Invalid argument: model input 'A' has different size for dims and reshape for M",
    ),
    Row(
        "7B",
        "reshape_wild_vs_fixed",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [2,-1] reshape { shape: [6] } }]',
        "load",
        "Invalid argument: model input 'A' has different size for dims and reshape for M",
    ),
    Row(
        "7B",
        "out_no_name",
        "PY output [{ data_type: TYPE_FP32 dims: [1] }]",
        "load",
        "Invalid argument: model output must specify 'name' for M",
    ),
    Row(
        "7B",
        "out_no_dtype",
        'PY output [{ name: "A" dims: [1] }]',
        "load",
        "Invalid argument: model output 'A' must specify 'data_type' for M",
    ),
    Row(
        "7B",
        "out_dim_zero",
        'PY output [{ name: "A" data_type: TYPE_FP32 dims: [0] }]',
        "load",
        "Invalid argument: model output 'A' dimension must be integer >= 1, or -1 to indicate a "
        "variable-size dimension for M",
    ),
    Row(
        "7B",
        "label_missing",
        'PY output [{ name: "A" data_type: TYPE_FP32 dims: [1] label_filename: "no.txt" }]',
        "load",
        "Internal: failed to open text file for read <repo>/M/no.txt: No such file or directory",
    ),
    Row(
        "7B",
        "label_escape",
        'PY output [{ name: "A" data_type: TYPE_FP32 dims: [1] label_filename: "../../no.txt" }]',
        "load",
        "Internal: failed to open text file for read <repo>/M/../../no.txt: No such file or "
        "directory",
    ),
    Row(
        "7B",
        "ig_gpu",
        "PY IO instance_group [{ kind: KIND_GPU }]",
        "load",
        "Invalid argument: instance group M_0 of model M has kind KIND_GPU but no GPUs are "
        "available",
    ),
    Row(
        "7B",
        "ig_cpu_gpus",
        "PY IO instance_group [{ kind: KIND_CPU gpus: [0] }]",
        "load",
        "Invalid argument: instance group M_0 of model M has kind KIND_CPU but specifies one or "
        "more GPUs",
    ),
    Row(
        "7B",
        "ig_model_gpus",
        "PY IO instance_group [{ kind: KIND_MODEL gpus: [0] }]",
        "load",
        "Invalid argument: instance group M_0 of model M has kind KIND_MODEL but specifies one "
        "or more GPUs",
    ),
    Row(
        "7B",
        "ig_auto_gpus",
        "PY IO instance_group [{ gpus: [0] }]",
        "load",
        "Invalid argument: instance group M_0 of model M has kind KIND_CPU but specifies one or "
        "more GPUs",
    ),
    Row(
        "7B",
        "ig_profile",
        'PY IO instance_group [{ profile: ["0"] }]',
        "load",
        "Invalid argument: instance group M_0 of model M and platform specifies profile field "
        "which is only supported for TensorRT models",
    ),
    Row(
        "7B",
        "sb_state_init_file_missing",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        'TYPE_FP32 dims: [1] initial_state { data_type: TYPE_FP32 dims: [1] data_file: "nope" '
        'name: "x" } }] }',
        "load",
        "Internal: failed to open text file for read <repo>/M/initial_state/nope: No such file "
        "or directory",
    ),
    Row(
        "7B",
        "sb_state_init_two",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [1] initial_state [{ data_type: TYPE_FP32 dims: [1] zero_data: true "
        'name: "x" },{ data_type: TYPE_FP32 dims: [1] zero_data: true name: "y" }] }] }',
        "load",
        "Invalid argument: initial_state field for state input 'SI' must contain exactly one or "
        "zero element. Found '2' elements.",
    ),
    Row(
        "7B",
        "sb_state_init_noname",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [1] initial_state [{ data_type: TYPE_FP32 dims: [1] zero_data: true }] "
        "}] }",
        "load",
        "Invalid argument: Field 'name' must be set when using initial_state for state input 'SI'.",
    ),
    Row(
        "7B",
        "sb_state_init_dtype",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [1] initial_state [{ data_type: TYPE_INT32 dims: [1] zero_data: true "
        'name: "x" }] }] }',
        "load",
        "Invalid argument: The data type used for 'initial_state' field of state 'SI' does not "
        "match the state data type.",
    ),
    Row(
        "7B",
        "sb_state_init_dims",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [1] initial_state [{ data_type: TYPE_FP32 dims: [2] zero_data: true "
        'name: "x" }] }] }',
        "load",
        "Invalid argument: 'initial_state' dim for input name 'SI' doesn't match 'state' dim "
        "description. 2 != 1",
    ),
    Row(
        "7B",
        "sb_state_init_wild",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [-1] initial_state [{ data_type: TYPE_FP32 dims: [-1] zero_data: true "
        'name: "x" }] }] }',
        "load",
        "Invalid argument: 'initial_state' field for state input name 'SI' contains variable "
        "dimensions.",
    ),
    Row(
        "7B",
        "bi_no_source",
        'PY IO max_batch_size: 4 batch_input [{ kind: BATCH_ELEMENT_COUNT target_name: "B" '
        "data_type: TYPE_FP32 }]",
        "load",
        "Invalid argument: batch input kind 'BATCH_ELEMENT_COUNT' expects 1 source input, got 0 "
        "for M",
    ),
    Row(
        "7B",
        "bi_dtype",
        'PY IO max_batch_size: 4 batch_input [{ kind: BATCH_ELEMENT_COUNT target_name: "B" '
        'data_type: TYPE_INT64 source_input: "IN0" }]',
        "load",
        "Invalid argument: batch input data type must be TYPE_INT32 or TYPE_FP32 for M",
    ),
    Row(
        "7B",
        "bi_unknown_source",
        'PY IO max_batch_size: 4 batch_input [{ kind: BATCH_ELEMENT_COUNT target_name: "B" '
        'data_type: TYPE_FP32 source_input: "ZZ" }]',
        "load",
        "Invalid argument: unknown source input name 'ZZ' for M",
    ),
    Row(
        "7B",
        "bo_no_source",
        'PY IO max_batch_size: 4 batch_output [{ target_name: "OUT0" }]',
        "load",
        "Invalid argument: batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source "
        "input, got 0 for M",
    ),
    Row(
        "7B",
        "bo_unknown_target",
        'PY IO max_batch_size: 4 batch_output [{ target_name: "ZZ" source_input: "IN0" }]',
        "load",
        "Invalid argument: unknown target output name 'ZZ' for M",
    ),
    Row(
        "7B",
        "bo_dup_target",
        'PY IO max_batch_size: 4 batch_output [{ target_name: ["OUT0","OUT0"] source_input: '
        '"IN0" }]',
        "load",
        "Invalid argument: target output name 'OUT0' can only be specified once for M",
    ),
    Row(
        "7B",
        "warm_wild",
        'PY input [{ name: "IN0" data_type: TYPE_FP32 dims: [-1] }] output [{ name: "OUT0" '
        'data_type: TYPE_FP32 dims: [-1] }] model_warmup [{ name: "w" batch_size: 1 inputs { '
        'key: "IN0" value { data_type: TYPE_FP32 dims: [-1] zero_data: true } } }]',
        "load",
        "Invalid argument: warmup setting expects all variable-size dimensions are specified for "
        "input 'IN0'",
    ),
    Row(
        "7B",
        "warm_nofile",
        'PY IO model_warmup [{ name: "w" batch_size: 1 inputs { key: "IN0" value { data_type: '
        'TYPE_FP32 dims: [4] input_data_file: "nope" } } }]',
        "load",
        "Internal: failed to open text file for read <repo>/M/warmup/nope: No such file or "
        "directory",
    ),
    Row(
        "7B",
        "warm_smallfile",
        'PY IO model_warmup [{ name: "w" batch_size: 1 inputs { key: "IN0" value { data_type: '
        'TYPE_FP32 dims: [4] input_data_file: "small" } } }]',
        "load",
        "Invalid argument: [request id: <id_unknown>] warmup setting expects 16 bytes, but the "
        "data provided from smallonly has 3 bytes",
        files=SMALL,
    ),
    Row(
        "7B",
        "warm_nodata",
        'PY IO model_warmup [{ name: "w" batch_size: 1 inputs { key: "IN0" value { data_type: '
        "TYPE_FP32 dims: [4] } } }]",
        "load",
        "Invalid argument: [request id: <id_unknown>] warmup setting expects input 'IN0' to have "
        "input_data_type set",
    ),
    Row(
        "7B",
        "warm_wrong_input",
        'PY IO model_warmup [{ name: "w" batch_size: 1 inputs { key: "ZZ" value { data_type: '
        "TYPE_FP32 dims: [4] zero_data: true } } }]",
        "load",
        "Invalid argument: [request id: <id_unknown>] expected 1 inputs but got 0 inputs for "
        "model 'M'. Got input(s) [], but missing required input(s) ['IN0']. Please provide all "
        "required input(s).",
    ),
    Row(
        "7B",
        "warm_batch_too_big",
        'PY IO max_batch_size: 2 model_warmup [{ name: "w" batch_size: 8 inputs { key: "IN0" '
        "value { data_type: TYPE_FP32 dims: [4] zero_data: true } } }]",
        "load",
        "Invalid argument: failed to run warmup sample 'w': batch size 8 for 'M_0', max allowed "
        "is 2; batch size 8 for 'M_0', max allowed is 2; batch size 8 for 'M_0', max allowed is "
        "2; batch size 8 for 'M_0', max allowed is 2; batch size 8 for 'M_0', max allowed is 2; "
        "batch size 8 for 'M_0', max allowed is 2; batch size 8 for 'M_0', max allowed is 2; "
        "batch size 8 for 'M_0', max allowed is 2;",
    ),
    Row(
        "7B",
        "param_bad_exec_env",
        'PY IO parameters { key: "EXECUTION_ENV_PATH" value { string_value: "/nope.tar.gz" } }',
        "load",
        "Internal: Failed to get the canonical path for /nope.tar.gz.",
    ),
    Row(
        "7B",
        "param_fcpu_bad",
        'PY IO parameters { key: "FORCE_CPU_ONLY_INPUT_TENSORS" value { string_value: "maybe" } }',
        "load",
        "Unsupported: Incorrect value for FORCE_CPU_ONLY_INPUT_TENSORS: maybe'",
    ),
    Row(
        "7B",
        "batch_strategy_missing",
        "PY IO max_batch_size: 4 dynamic_batching {} parameters { key: "
        '"TRITON_BATCH_STRATEGY_PATH" value { string_value: "/nope.so" } }',
        "load",
        "Not found: Batching library path not found: /nope.so",
    ),
    Row(
        "7B",
        "batch_strategy_seq",
        'PY IO MBS4 sequence_batching {} parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { '
        'string_value: "/nope.so" } }',
        "load",
        "Invalid argument: TRITON_BATCH_STRATEGY_PATH cannot be specified with sequence batcher, "
        "using default batching strategy",
    ),
    Row(
        "7B",
        "runtime_bad",
        'PY IO runtime: "nope.so"',
        "load",
        "Invalid argument: unable to find backend library 'nope.so' for model 'M', searched: "
        "'<repo>/M/1' '<repo>/M' '<backends>/python' ",
    ),
    Row(
        "7B",
        "runtime_escape",
        'PY IO runtime: "../../x.so"',
        "load",
        "Invalid argument: unable to find backend library '../../x.so' for model 'M', searched: "
        "'<repo>/M/1' '<repo>/M' '<backends>/python'",
    ),
    Row(
        "7C",
        "no_versions",
        "PY IO",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
        files=NO_VERSION,
    ),
    Row(
        "7C",
        "nonnumeric_version",
        "PY IO",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
        files=VERSION_V1,
    ),
    Row(
        "7C",
        "leading_zero_version",
        "PY IO",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
        files=VERSION_01,
    ),
    Row(
        "7C",
        "specific_missing_version",
        "PY IO version_policy { specific { versions: [7] } }",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
    ),
    Row(
        "7C",
        "specific_empty",
        "PY IO version_policy { specific { } }",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
    ),
    Row(
        "7C",
        "latest_zero",
        "PY IO version_policy { latest { num_versions: 0 } }",
        "dependency",
        "at least one version must be available under the version policy of model 'M'",
    ),
    Row(
        "7C",
        "ens_unknown_model",
        'ENS IO ensemble_scheduling { step [ { model_name: "ghost_model" model_version: -1 '
        'input_map { key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "dependency",
        "ensemble M contains models that are not available or ambiguous: ghost_model",
    ),
    Row(
        "7C",
        "ens_unknown_version",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: 9 input_map { '
        'key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "dependency",
        "ensemble 'M' depends on 'ok' whose required version 9 is not loaded.",
    ),
    Row(
        "7C",
        "ens_bad_input_name",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: -1 input_map { '
        'key: "ZZZ" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "dependency",
        "in ensemble M, ensemble tensor IN0 is mapping to non-existing input ZZZ in model ok",
    ),
    Row(
        "7C",
        "ens_bad_output_name",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok" model_version: -1 input_map { '
        'key: "IN0" value: "IN0" } output_map { key: "ZZZ" value: "OUT0" } } ] }',
        "dependency",
        "in ensemble M, ensemble tensor OUT0 is mapped from non-existing output ZZZ in model ok",
    ),
    Row(
        "7C",
        "ens_missing_required_input",
        'ENS IO ensemble_scheduling { step [ { model_name: "ok2" model_version: -1 input_map { '
        'key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "dependency",
        "in ensemble M, input IN1 in model ok2 is not mapped to any ensemble tensors",
    ),
    Row(
        "7C",
        "ens_dtype",
        'ENS input [{ name: "IN0" data_type: TYPE_INT32 dims: [4] }] output [{ name: "OUT0" '
        "data_type: TYPE_INT32 dims: [4] }] ensemble_scheduling { STEP }",
        "dependency",
        "in ensemble M, ensemble tensor IN0: inconsistent data type: TYPE_INT32 is inferred from "
        "model M while TYPE_FP32 is inferred from model ok",
    ),
    Row(
        "7C",
        "ens_shape",
        'ENS input [{ name: "IN0" data_type: TYPE_FP32 dims: [5] }] output [{ name: "OUT0" '
        "data_type: TYPE_FP32 dims: [5] }] ensemble_scheduling { STEP }",
        "dependency",
        "in ensemble M, ensemble tensor IN0: inconsistent shape: [5] is inferred from model M "
        "while [4] is inferred from model ok",
    ),
    Row(
        "7C",
        "ens_self",
        'ENS IO ensemble_scheduling { step [ { model_name: "M" model_version: -1 '
        'input_map { key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "dependency",
        "circular dependency between ensembles: M -> ... -> M -> M",
    ),
    Row(
        "8",
        "python_with_platform",
        'platform: "foo" PY IO',
        "loaded",
    ),
    Row(
        "8",
        "version_zero_only",
        "PY IO",
        "loaded",
        files=VERSION_0,
    ),
    Row(
        "8",
        "in_dup",
        'PY input [{ name: "A" data_type: TYPE_FP32 dims: [1] }, { name: "A" data_type: '
        "TYPE_FP32 dims: [1] }]",
        "loaded",
    ),
    Row(
        "8",
        "ig_neg_count",
        "PY IO instance_group [{ count: -3 }]",
        "loaded",
    ),
    Row(
        "8",
        "ig_kind_model",
        "PY IO instance_group [{ kind: KIND_MODEL }]",
        "loaded",
    ),
    Row(
        "8",
        "db_mbs0",
        "PY IO dynamic_batching { }",
        "loaded",
    ),
    Row(
        "8",
        "sb_oldest_nocand",
        "PY IO MBS4 sequence_batching { oldest { } }",
        "loaded",
    ),
    Row(
        "8",
        "sb_state_noname",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" data_type: TYPE_FP32 dims: [1] '
        "}] }",
        "loaded",
    ),
    Row(
        "8",
        "sb_state_dup",
        'PY IO MBS4 sequence_batching { state [{ input_name: "SI" output_name: "SO" data_type: '
        'TYPE_FP32 dims: [1] }, { input_name: "SI" output_name: "SO2" data_type: TYPE_FP32 dims: '
        "[1] }] }",
        "loaded",
    ),
    Row(
        "8",
        "sb_state_isinput",
        'PY IO MBS4 sequence_batching { state [{ input_name: "IN0" output_name: "SO" data_type: '
        "TYPE_FP32 dims: [4] }] }",
        "loaded",
    ),
    Row(
        "8",
        "sb_iterative_ok",
        "PY IO MBS4 sequence_batching { iterative_sequence: true }",
        "loaded",
    ),
    Row(
        "8",
        "ens_batch",
        "ENS IO max_batch_size: 8 ensemble_scheduling { STEP }",
        "loaded",
    ),
    Row(
        "8",
        "ens_decoupled_ok",
        'ENS IO ensemble_scheduling { step [ { model_name: "okdec" model_version: -1 input_map { '
        'key: "IN0" value: "IN0" } output_map { key: "OUT0" value: "OUT0" } } ] }',
        "loaded",
    ),
    Row(
        "8",
        "cache_noserver",
        "PY IO response_cache { enable: true }",
        "loaded",
    ),
    Row(
        "8",
        "empty_config_python",
        "",
        "loaded",
    ),
    Row(
        "8",
        "no_config_python",
        None,
        "loaded",
    ),
    Row(
        "8",
        "ok_ragged_nobatch",
        'PY input [{ name: "IN0" data_type: TYPE_FP32 dims: [4] allow_ragged_batch: true }] '
        'output [{ name: "OUT0" data_type: TYPE_FP32 dims: [4] }]',
        "loaded",
    ),
    Row(
        "8",
        "ok_no_io",
        "PY",
        "loaded",
    ),
)

ABOUT_CODE = frozenset(
    {
        "model_py_syntax",
        "model_py_noclass",
        "model_py_init_raises",
        "model_py_noexecute",
        "warm_execute_error",
    }
)
"""Rows of 7B and 8 about ``model.py``, not its configuration: see ``tests/conformance``."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Another answer than Triton's, on purpose; with no `text` the configuration loads."""

    why: str
    text: str = ""


PARSER = "the parser's own reason, which Triton has in its log, follows with line and column"
NEWER = "2.51 does not know the field; this is what newer versions say"
ONE_TEXT = "Triton repeats it for each request of the batch"
TRIED = "the paths that were tried follow"

DIFFERENCES: Mapping[str, Difference] = {
    "mm_noident": Difference(NEWER, "metric control must specify 'metric_identifier'"),
    "mm_nofamily": Difference(NEWER, "metric identifier must specify non-empty 'family'"),
    "mm_noopts": Difference(NEWER, "metric control must specify 'histogram_options'"),
    "mm_nobuckets": Difference(NEWER, "histogram options must specify non-empty 'buckets'"),
    "label_escape": Difference(
        "newer versions than 2.51 do not open it",
        "Invalid argument: label file path '<repo>/M/../../no.txt' for output 'A' in model 'M' is "
        "outside model directory",
    ),
    "runtime_escape": Difference(
        "newer versions than 2.51 say so",
        "Invalid argument: backend library name '../../x.so' escapes backend directory "
        "'<repo>/M/1', for model 'M', check model config runtime field",
    ),
    "warm_batch_too_big": Difference(
        ONE_TEXT,
        "Invalid argument: failed to run warmup sample 'w': batch size 8 for 'M_0', max allowed "
        "is 2; ",
    ),
}
"""By case; `PARSER` and `TRIED` rows are known by their beginning."""


PARSER_MESSAGES: tuple[tuple[str, str, int, int], ...] = (
    # section 2: text, message, line, column of the word
    (
        "PY\nno_such_field: 1",
        'Message type "inference.ModelConfig" has no field named "no_such_field".',
        2,
        1,
    ),
    (
        'input { name: "A" data_type: TYPE_FLOAT }',
        'Unknown enumeration value of "TYPE_FLOAT" for field "data_type".',
        1,
        30,
    ),
    ('max_batch_size: "four"', 'Expected integer, got: "four"', 1, 17),
    ("PY\n  PY", 'Non-repeated field "backend" is specified multiple times.', 2, 3),
    (
        "dynamic_batching { } sequence_batching { }",
        'Field "sequence_batching" is specified along with field "dynamic_batching", another '
        'member of oneof "scheduling_choice".',
        1,
        22,
    ),
    ("max_batch_size: 4294967296", "Integer out of range (4294967296)", 1, 17),
)

DEFAULTS: tuple[tuple[str, str, Mapping[str, object]], ...] = (
    # section 3: case, configuration, fields of the JSON that it gives
    ("name", "PY", {"name": "M"}),
    ("backend", "", {"backend": "python", "default_model_filename": "model.py"}),
    ("backend_of_filename", 'default_model_filename: "model.py"', {"backend": "python"}),
    ("platform", 'PY platform: "anything"', {"platform": "anything"}),
    ("default_model_filename", "PY", {"default_model_filename": "model.py"}),
    ("runtime", "PY", {"runtime": ""}),
    ("version_policy", "PY", {"version_policy": {"latest": {"num_versions": 1}}}),
    ("max_batch_size", "PY dynamic_batching { }", {"max_batch_size": 0}),
    (
        "preferred_batch_size",
        "PY MBS4 dynamic_batching { }",
        {
            "dynamic_batching": {
                "preferred_batch_size": [4],
                "max_queue_delay_microseconds": 0,
                "preserve_ordering": False,
                "priority_levels": 0,
                "default_priority_level": 0,
                "priority_queue_policy": {},
            }
        },
    ),
    (
        "preferred_batch_size_no_batch",
        "PY dynamic_batching { priority_levels: 1 default_priority_level: 1 }",
        {
            "dynamic_batching": {
                "preferred_batch_size": [],
                "max_queue_delay_microseconds": 0,
                "preserve_ordering": False,
                "priority_levels": 1,
                "default_priority_level": 1,
                "priority_queue_policy": {},
            }
        },
    ),
    (
        "max_sequence_idle_microseconds",
        "PY sequence_batching { oldest { } } MBS4",
        {
            "sequence_batching": {
                "oldest": {
                    "max_candidate_sequences": 0,
                    "preferred_batch_size": [4],
                    "max_queue_delay_microseconds": 0,
                    "preserve_ordering": False,
                },
                "max_sequence_idle_microseconds": 1_000_000,
                "control_input": [],
                "state": [],
                "iterative_sequence": False,
            }
        },
    ),
    (
        "optimization",
        "PY optimization { output_pinned_memory { } }",
        {
            "optimization": {
                "priority": "PRIORITY_DEFAULT",
                "input_pinned_memory": {"enable": True},
                "output_pinned_memory": {"enable": False},
                "gather_kernel_buffer_threshold": 0,
                "eager_batching": False,
            }
        },
    ),
    (
        "instance_group",
        "PY",
        {
            "instance_group": [
                {
                    "name": "M",
                    "kind": "KIND_CPU",
                    "count": 1,
                    "gpus": [],
                    "secondary_devices": [],
                    "profile": [],
                    "passive": False,
                    "host_policy": "",
                }
            ]
        },
    ),
    (
        "group_name_kind_count",
        'PY instance_group [ { count: -3 }, { name: "named" kind: KIND_MODEL count: 2 } ]',
        {
            "instance_group": [
                {
                    "name": "M_0",
                    "kind": "KIND_CPU",
                    "count": 1,
                    "gpus": [],
                    "secondary_devices": [],
                    "profile": [],
                    "passive": False,
                    "host_policy": "",
                },
                {
                    "name": "named",
                    "kind": "KIND_MODEL",
                    "count": 2,
                    "gpus": [],
                    "secondary_devices": [],
                    "profile": [],
                    "passive": False,
                    "host_policy": "",
                },
            ]
        },
    ),
    ("ensemble", "ENS IO ensemble_scheduling { STEP }", {"instance_group": []}),
    ("response_cache", "PY response_cache { enable: true }", {"response_cache": {"enable": True}}),
)
