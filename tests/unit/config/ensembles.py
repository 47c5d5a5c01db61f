"""Ensembles, with and without defects, and the models that they are made of."""

from __future__ import annotations

_FP32_4 = "data_type: TYPE_FP32 dims: 4"
_IO = f'input {{ name: "IN0" {_FP32_4} }} output {{ name: "OUT0" {_FP32_4} }}'
_PY = 'backend: "python"'

COMPOSING: dict[str, str] = {
    "ok": f"{_PY} {_IO}",
    "ok2": f'{_PY} {_IO} input {{ name: "IN1" {_FP32_4} }}',
    "okopt": f'{_PY} {_IO} input {{ name: "IN1" {_FP32_4} optional: true }}',
    "okout2": f'{_PY} {_IO} output {{ name: "OUT1" {_FP32_4} }}',
    "okint": f'{_PY} input {{ name: "IN0" data_type: TYPE_INT32 dims: 4 }} '
    f'output {{ name: "OUT0" {_FP32_4} }}',
    "okwild": f'{_PY} input {{ name: "IN0" data_type: TYPE_FP32 dims: -1 }} '
    'output { name: "OUT0" data_type: TYPE_FP32 dims: -1 }',
    "ok22": f'{_PY} input {{ name: "IN0" data_type: TYPE_FP32 dims: [2, 2] }} '
    'output { name: "OUT0" data_type: TYPE_FP32 dims: [2, 2] }',
    "okresh": f'{_PY} input {{ name: "IN0" {_FP32_4} reshape {{ shape: [2, 2] }} }} '
    f'output {{ name: "OUT0" {_FP32_4} reshape {{ shape: [2, 2] }} }}',
    "okb4": f"{_PY} {_IO} max_batch_size: 4",
    "okb8": f"{_PY} {_IO} max_batch_size: 8",
    "okdec": f"{_PY} {_IO} model_transaction_policy {{ decoupled: true }}",
    "okdec2": f"{_PY} {_IO} model_transaction_policy {{ decoupled: true }}",
    "okseq": f"{_PY} {_IO} max_batch_size: 4 sequence_batching {{ }}",
}
"""Models by name, with `random_configs.FILES` in their folders."""


def _maps(field: str, pairs: str) -> str:
    """``IN0=a IN1=b`` as entries of a map."""
    return " ".join(
        '{} {{ key: "{}" value: "{}" }}'.format(field, *pair.split("=")) for pair in pairs.split()
    )


def _step(model: str, inputs: str, outputs: str, more: str = "model_version: -1") -> str:
    return (
        f'step {{ model_name: "{model}" {more} {_maps("input_map", inputs)} '
        f"{_maps('output_map', outputs)} }}"
    )


def _ensemble(*steps: str, io: str = _IO, more: str = "") -> str:
    return f'platform: "ensemble" {more} {io} ensemble_scheduling {{ {" ".join(steps)} }}'


def _io(inputs: str, outputs: str) -> str:
    return " ".join(
        [f'input {{ name: "{name}" {_FP32_4} }}' for name in inputs.split()]
        + [f'output {{ name: "{name}" {_FP32_4} }}' for name in outputs.split()]
    )


_STRAIGHT = _step("ok", "IN0=IN0", "OUT0=OUT0")
_FIRST = _step("ok", "IN0=IN0", "OUT0=a")
_SECOND = _step("ok", "IN0=a", "OUT0=OUT0")

ENSEMBLES: dict[str, str] = {
    # What loads
    "straight": _ensemble(_STRAIGHT),
    "two_steps": _ensemble(_FIRST, _SECOND),
    "any_order": _ensemble(_SECOND, _FIRST),
    "with_batch": _ensemble(_step("okb8", "IN0=IN0", "OUT0=OUT0"), more="max_batch_size: 4"),
    "batch_over_none": _ensemble(_STRAIGHT, more="max_batch_size: 8"),
    "none_over_batch": _ensemble(_step("okb8", "IN0=IN0", "OUT0=OUT0")),
    "none_over_batch_rank": _ensemble(
        _step("okb8", "IN0=IN0", "OUT0=OUT0"),
        io='input { name: "IN0" data_type: TYPE_FP32 dims: [-1, 4] } '
        'output { name: "OUT0" data_type: TYPE_FP32 dims: [-1, 4] }',
    ),
    "optional_left_out": _ensemble(_step("okopt", "IN0=IN0", "OUT0=OUT0")),
    "optional_given": _ensemble(_step("okopt", "IN0=IN0 IN1=IN0", "OUT0=OUT0")),
    "output_left_out": _ensemble(_step("okout2", "IN0=IN0", "OUT0=OUT0")),
    "only_other_output": _ensemble(_step("okout2", "IN0=IN0", "OUT1=OUT0")),
    "wildcard": _ensemble(_step("okwild", "IN0=IN0", "OUT0=OUT0")),
    "wildcard_between": _ensemble(_step("okwild", "IN0=IN0", "OUT0=a"), _SECOND),
    "reshaped": _ensemble(_step("okresh", "IN0=IN0", "OUT0=OUT0")),
    "decoupled": _ensemble(_step("okdec", "IN0=IN0", "OUT0=OUT0")),
    "decoupled_first": _ensemble(_step("okdec", "IN0=IN0", "OUT0=a"), _SECOND),
    "decoupled_twice": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=a"), _step("okdec2", "IN0=a", "OUT0=OUT0")
    ),
    "decoupled_side": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=OUT0"),
        _step("ok", "IN0=IN0", "OUT0=OUT1"),
        io=_io("IN0", "OUT0 OUT1"),
    ),
    "sequence": _ensemble(_step("okseq", "IN0=IN0", "OUT0=OUT0"), more="max_batch_size: 4"),
    "version": _ensemble(_step("ok", "IN0=IN0", "OUT0=OUT0", "model_version: 1")),
    "version_zero": _ensemble(_step("ok", "IN0=IN0", "OUT0=OUT0", "")),
    "input_is_output": _ensemble(
        _step("ok2", "IN0=IN0 IN1=OUT1", "OUT0=OUT0"),
        io=_io("IN0 OUT1", "OUT0 OUT1"),
    ),
    "everything_else": _ensemble(
        _STRAIGHT,
        more='version_policy { all { } } parameters { key: "a" value { string_value: "b" } } '
        'metric_tags { key: "t" value: "x" } response_cache { enable: true } '
        'default_model_filename: "any" cc_model_filenames { key: "7.5" value: "x" } '
        "model_transaction_policy { decoupled: true }",
    ),
    "same_model_twice": _ensemble(
        _STRAIGHT, _step("ok", "IN0=IN0", "OUT0=OUT1"), io=_io("IN0", "OUT0 OUT1")
    ),
    "no_inputs_of_ensemble_typed": _ensemble(
        _STRAIGHT, io='input { name: "IN0" } output { name: "OUT0" }'
    ),
    "inner_namespace": _ensemble(
        _step("ok", "IN0=IN0", "OUT0=OUT0", 'model_version: -1 model_namespace: "x"')
    ),
    # How the steps fit together
    "no_step": _ensemble(),
    "no_scheduling": f'platform: "ensemble" {_IO}',
    "scheduling_in_python": f"{_PY} {_IO} ensemble_scheduling {{ {_STRAIGHT} }}",
    "backend_too": _ensemble(_STRAIGHT, more=_PY),
    "scheduling_alone": f"{_IO} ensemble_scheduling {{ {_STRAIGHT} }}",
    "instance_group": _ensemble(_STRAIGHT, more="instance_group { }"),
    "optimization": _ensemble(_STRAIGHT, more="optimization { }"),
    "warmup": _ensemble(_STRAIGHT, more='model_warmup { name: "w" }'),
    "group_and_warmup": _ensemble(more='instance_group { } model_warmup { name: "w" }'),
    "no_model_name": _ensemble(_step("", "IN0=IN0", "OUT0=OUT0")),
    "second_no_model_name": _ensemble(_FIRST, _step("", "IN0=a", "OUT0=OUT0")),
    "no_input_map": _ensemble(_step("ok", "", "OUT0=OUT0")),
    "no_output_map": _ensemble(_step("ok", "IN0=IN0", "")),
    "double_write": _ensemble(_STRAIGHT, _STRAIGHT),
    "double_write_third": _ensemble(_STRAIGHT, _FIRST, _FIRST),
    "double_write_in_one": _ensemble(_step("okout2", "IN0=IN0", "OUT0=OUT0 OUT1=OUT0")),
    "double_write_before_map": _ensemble(_STRAIGHT, _STRAIGHT, _step("ok", "IN0=IN0", "")),
    "writes_input": _ensemble(_step("ok", "IN0=IN0", "OUT0=IN0"), _SECOND, _FIRST),
    "writes_input_of_ensemble": _ensemble(
        _FIRST, _step("ok", "IN0=a", "OUT0=IN0"), _step("ok", "IN0=a", "OUT0=OUT0")
    ),
    "writes_own_input": _ensemble(_step("ok", "IN0=OUT0", "OUT0=OUT0")),
    "input_unused": _ensemble(_STRAIGHT, io=_io("IN0 X", "OUT0")),
    "output_unused": _ensemble(_STRAIGHT, io=_io("IN0", "OUT0 Y")),
    "both_unused": _ensemble(_STRAIGHT, io=_io("IN0 X", "OUT0 Y")),
    "not_written": _ensemble(_step("ok", "IN0=ghost", "OUT0=OUT0"), _FIRST),
    "not_written_second": _ensemble(
        _step("ok2", "IN0=IN0 IN1=ghost", "OUT0=OUT0"),
    ),
    "not_written_far": _ensemble(
        _step("ok", "IN0=IN0", "OUT0=b"),
        _step("ok2", "IN0=b IN1=ghost", "OUT0=c"),
        _step("ok", "IN0=c", "OUT0=OUT0"),
    ),
    "only_read": _ensemble(
        _STRAIGHT, _step("ok", "IN0=OUT1", "OUT0=d"), io=_io("IN0", "OUT0 OUT1")
    ),
    "loop": _ensemble(
        _step("ok2", "IN0=IN0 IN1=b", "OUT0=a"), _step("okout2", "IN0=a", "OUT0=OUT0 OUT1=b")
    ),
    "tensor_unused": _ensemble(_STRAIGHT, _FIRST),
    "tensor_unused_not_ready": _ensemble(_STRAIGHT, _step("ok", "IN0=ghost", "OUT0=dead")),
    "output_unused_and_not_written": _ensemble(
        _step("ok", "IN0=ghost", "OUT0=OUT0"), _FIRST, io=_io("IN0", "Y OUT0")
    ),
    "no_input": _ensemble(_STRAIGHT, io=_io("", "OUT0")),
    "no_output": _ensemble(_STRAIGHT, io=_io("IN0", "")),
    "unused_and_cache": _ensemble(
        _STRAIGHT,
        io=_io("IN0 X", "OUT0"),
        more="response_cache { enable: true } model_transaction_policy { decoupled: true }",
    ),
    "dims_of_ensemble": _ensemble(
        _STRAIGHT,
        io='input { name: "IN0" data_type: TYPE_FP32 dims: 0 } '
        f'output {{ name: "OUT0" {_FP32_4} }}',
    ),
    "negative_batch": _ensemble(_STRAIGHT, _STRAIGHT, more="max_batch_size: -1"),
    "name": _ensemble(_STRAIGHT, io=_io("IN0 X", "OUT0"), more='name: "other"'),
    # How the steps fit to their models
    "unknown_model": _ensemble(_step("ghost_model", "IN0=IN0", "OUT0=OUT0")),
    "unknown_models": _ensemble(
        _step("ghost_b", "IN0=IN0", "OUT0=a"), _step("ghost_a", "IN0=a", "OUT0=OUT0")
    ),
    "unknown_version": _ensemble(_step("ok", "IN0=IN0", "OUT0=OUT0", "model_version: 9")),
    "negative_version": _ensemble(_step("ok", "IN0=IN0", "OUT0=OUT0", "model_version: -2")),
    "itself": _ensemble(_step("M", "IN0=IN0", "OUT0=OUT0")),
    "bad_input": _ensemble(_step("ok", "ZZZ=IN0", "OUT0=OUT0")),
    "bad_input_too": _ensemble(_step("ok", "IN0=IN0 ZZZ=IN0", "OUT0=OUT0")),
    "bad_output": _ensemble(_step("ok", "IN0=IN0", "ZZZ=OUT0")),
    "bad_both": _ensemble(_step("ok", "ZZZ=IN0", "YYY=OUT0")),
    "missing_input": _ensemble(_step("ok2", "IN0=IN0", "OUT0=OUT0")),
    "missing_input_bad_output": _ensemble(_step("ok2", "IN0=IN0", "YYY=OUT0")),
    "data_type": _ensemble(_step("okint", "IN0=IN0", "OUT0=OUT0")),
    "data_type_between": _ensemble(_FIRST, _step("okint", "IN0=a", "OUT0=OUT0")),
    "data_type_of_output": _ensemble(
        _STRAIGHT,
        io=f'input {{ name: "IN0" {_FP32_4} }} '
        'output { name: "OUT0" data_type: TYPE_BOOL dims: 4 }',
    ),
    "shape": _ensemble(_step("ok22", "IN0=IN0", "OUT0=OUT0")),
    "shape_between": _ensemble(_FIRST, _step("ok22", "IN0=a", "OUT0=OUT0")),
    "shape_of_output": _ensemble(
        _STRAIGHT,
        io=f'input {{ name: "IN0" {_FP32_4} }} '
        'output { name: "OUT0" data_type: TYPE_FP32 dims: [4, 1] }',
    ),
    "batch_too_large": _ensemble(_step("okb4", "IN0=IN0", "OUT0=OUT0"), more="max_batch_size: 8"),
    "batch_and_bad_input": _ensemble(
        _step("okb4", "ZZZ=IN0", "OUT0=OUT0"), more="max_batch_size: 8"
    ),
    "two_decoupled": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=a"),
        _step("okdec2", "IN0=IN0", "OUT0=b"),
        _step("ok2", "IN0=a IN1=b", "OUT0=OUT0"),
    ),
    "two_decoupled_far": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=a"),
        _step("okdec2", "IN0=IN0", "OUT0=b"),
        _step("ok", "IN0=a", "OUT0=c"),
        _step("ok2", "IN0=c IN1=b", "OUT0=OUT0"),
    ),
    "same_decoupled_twice": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=a"),
        _step("okdec", "IN0=IN0", "OUT0=b"),
        _step("ok2", "IN0=a IN1=b", "OUT0=OUT0"),
    ),
    "decoupled_and_plain": _ensemble(
        _step("okdec", "IN0=IN0", "OUT0=a"), _step("ok2", "IN0=a IN1=IN0", "OUT0=OUT0")
    ),
}
"""Configurations of an ensemble `M` by case."""
