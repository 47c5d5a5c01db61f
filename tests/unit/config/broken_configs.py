"""Configurations that Triton may refuse: random ones with one or two defects, and ensembles.

With two defects the answer shows which check comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .random_configs import Generator, Message, Name

_FP32 = Name("TYPE_FP32")

Breaker = Callable[[Generator, Message], None]


def _list(message: Message, name: str) -> list[Any]:
    """Return a repeated field, which is made if it is not there."""
    return message.fields.setdefault(name, [])  # type: ignore[return-value]


def _part(message: Message, name: str) -> Message:
    """Return a message field, which is made if it is not there."""
    return message.fields.setdefault(name, Message())  # type: ignore[return-value]


def _tensor(generator: Generator, config: Message) -> Message:
    """Return some input or output; an input is made if there is none."""
    tensors = _list(config, "input") + config.fields.get("output", [])  # type: ignore[operator]
    if not tensors:
        tensors = [Message({"name": "IN0", "data_type": _FP32, "dims": [4]})]
        config.fields["input"] = tensors
    return generator.random.choice(tensors)


def _without(name: str) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        tensor = _tensor(generator, config)
        if name == "dims":
            tensor.fields.pop("reshape", None)
            tensor.fields.pop("format", None)
        tensor.fields.pop(name)

    return apply


def _tensor_with(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        tensor = _tensor(generator, config)
        if "dims" in values or "reshape" in values:
            tensor.fields.pop("reshape", None)
            tensor.fields.pop("format", None)
        tensor.set(**values)

    return apply


def _input_with(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        inputs = _list(config, "input")
        if not inputs:
            inputs.append(Message({"name": "IN0", "data_type": _FP32, "dims": [4]}))
        generator.random.choice(inputs).set(**values)

    return apply


def _output_with(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        outputs = _list(config, "output")
        if not outputs:
            outputs.append(Message({"name": "OUT0", "data_type": _FP32, "dims": [4]}))
        generator.random.choice(outputs).set(**values)

    return apply


def _config_with(**values: Any) -> Breaker:
    return lambda generator, config: config.set(**values) and None


def _batching(config: Message) -> Message:
    for name in ("sequence_batching", "ensemble_scheduling"):
        config.fields.pop(name, None)
    return _part(config, "dynamic_batching")


def _dynamic_with(**values: Any) -> Breaker:
    return lambda generator, config: _batching(config).set(**values) and None


def _dynamic_preferred(difference: int) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        size = config.fields.get("max_batch_size", 0)
        size = min(max(size + difference, 1), 2**31 - 1)  # type: ignore[operator]
        _batching(config).set(preferred_batch_size=[size])

    return apply


def _sequence(config: Message) -> Message:
    for name in ("dynamic_batching", "ensemble_scheduling"):
        config.fields.pop(name, None)
    return _part(config, "sequence_batching")


def _sequence_with(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        batching = _sequence(config)
        if "direct" in values or "oldest" in values:
            batching.fields.pop("direct", None)
            batching.fields.pop("oldest", None)
        batching.set(**values)

    return apply


def _control(*tensors: Any) -> Breaker:
    """Add control inputs; a tensor is a name and its controls, each a dict."""

    def apply(generator: Generator, config: Message) -> None:
        for name, *controls in tensors:
            _list(_sequence(config), "control_input").append(
                Message().set(
                    name=name,
                    control=[
                        Message(
                            {
                                key: Name(value) if isinstance(value, str) else value
                                for key, value in control.items()
                            }
                        )
                        for control in controls
                    ],
                )
            )

    return apply


def _state(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        state = Message(
            {"input_name": "SI", "output_name": "SO", "data_type": _FP32, "dims": [2]}
        ).set(**values)
        _list(_sequence(config), "state").append(state)

    return apply


def _initial(**values: Any) -> Message:
    given = {"name": "i", "data_type": _FP32, "dims": [2], "zero_data": True, **values}
    return Message().set(**given)


def _group(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        _list(config, "instance_group").append(Message().set(**values))

    return apply


def _parameter(key: str, value: str) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        parameters = config.fields.setdefault("parameters", {})
        parameters[key] = Message({"string_value": value})  # type: ignore[index]

    return apply


def _batch_input(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        given = {
            "kind": Name("BATCH_ELEMENT_COUNT"),
            "target_name": ["B"],
            "data_type": _FP32,
            "source_input": ["IN0"],
        }
        _list(config, "batch_input").append(Message().set(**{**given, **values}))

    return apply


def _batch_output(**values: Any) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        given = {"target_name": ["OUT0"], "source_input": ["IN0"]}
        _list(config, "batch_output").append(Message().set(**{**given, **values}))

    return apply


def _warmup(inputs: dict[str, dict[str, Any]], **values: Any) -> Breaker:
    """Give the configuration one warmup sample and the inputs that it is for."""

    def apply(generator: Generator, config: Message) -> None:
        given = {"name": "w", "batch_size": 1, **values}
        config.set(
            input=[Message({"name": "IN0", "data_type": _FP32, "dims": [-1]})],
            model_warmup=[
                Message(given).set(
                    inputs={
                        name: Message({"data_type": _FP32, "dims": [4]}).set(**data)
                        for name, data in inputs.items()
                    }
                )
            ],
        )
        for name in ("batch_input", "batch_output", "sequence_batching"):
            config.fields.pop(name, None)

    return apply


def _platform_only(platform: str) -> Breaker:
    def apply(generator: Generator, config: Message) -> None:
        for name in ("backend", "default_model_filename"):
            config.fields.pop(name, None)
        config.set(platform=platform)

    return apply


def _ensemble_in_python(generator: Generator, config: Message) -> None:
    for name in ("dynamic_batching", "sequence_batching"):
        config.fields.pop(name, None)
    config.set(ensemble_scheduling=Message({"step": [Message({"model_name": "ok"})]}))


def _cache_and_decoupled(generator: Generator, config: Message) -> None:
    config.set(
        response_cache=Message({"enable": True}),
        model_transaction_policy=Message({"decoupled": True}),
    )


def _cache_and_sequence(generator: Generator, config: Message) -> None:
    _sequence(config)
    config.set(response_cache=Message({"enable": True}))


_START = {"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}
_END = {"kind": "CONTROL_SEQUENCE_END", "bool_false_true": [False, True]}
_CORRID = {"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}

BREAKERS: dict[str, Breaker] = {
    "name": _config_with(name="other"),
    "max_batch_size": _config_with(max_batch_size=-1),
    "platform": _platform_only("whatever"),
    "platform_python": _platform_only("python"),
    "pair": _config_with(platform="onnxruntime_onnx", backend="tensorrt"),
    "backend": _config_with(backend="nosuch"),
    "runtime": _config_with(runtime="nope.so"),
    "agent": _config_with(model_repository_agents=Message({"agents": [Message({"name": "nope"})]})),
    "versions": _config_with(version_policy=Message({"specific": Message({"versions": [7]})})),
    "no_versions": _config_with(version_policy=Message({"latest": Message({"num_versions": 0})})),
    "cache_decoupled": _cache_and_decoupled,
    "cache_sequence": _cache_and_sequence,
    "ensemble": _ensemble_in_python,
    # dynamic batching
    "preferred_zero": _dynamic_with(preferred_batch_size=[0]),
    "preferred_negative": _dynamic_with(preferred_batch_size=[-1]),
    "preferred_large": _dynamic_preferred(1),
    "preferred_many": _dynamic_with(preferred_batch_size=[1, 2**31 - 1, 0]),
    "default_level": _dynamic_with(priority_levels=3, default_priority_level=4),
    "no_default_level": _dynamic_with(priority_levels=2**64 - 1, default_priority_level=0),
    "policy_level": _dynamic_with(
        priority_levels=2, default_priority_level=1, priority_queue_policy={9: Message()}
    ),
    "policy_level_zero": _dynamic_with(
        priority_levels=2, default_priority_level=1, priority_queue_policy={0: Message()}
    ),
    "policy_without_levels": _dynamic_with(
        priority_levels=0, default_priority_level=5, priority_queue_policy={9: Message()}
    ),
    "ordered_levels": _dynamic_with(
        preserve_ordering=True, priority_levels=2, default_priority_level=1
    ),
    "ordered_delay": _dynamic_with(
        preserve_ordering=True,
        default_queue_policy=Message(
            {"timeout_action": Name("DELAY"), "default_timeout_microseconds": 1}
        ),
    ),
    "ordered_delay_level": _dynamic_with(
        preserve_ordering=True,
        priority_levels=1,
        default_priority_level=1,
        priority_queue_policy={
            1: Message({"timeout_action": Name("DELAY"), "default_timeout_microseconds": 1})
        },
    ),
    "ordered_delay_unused": _dynamic_with(
        preserve_ordering=True,
        priority_levels=0,
        default_priority_level=0,
        priority_queue_policy={
            7: Message({"timeout_action": Name("DELAY"), "default_timeout_microseconds": 1})
        },
    ),
    "ordered_delay_never": _dynamic_with(
        preserve_ordering=True,
        priority_levels=0,
        default_queue_policy=Message(
            {"timeout_action": Name("DELAY"), "default_timeout_microseconds": 0}
        ),
    ),
    # sequence batching
    "oldest_large": _sequence_with(oldest=Message({"preferred_batch_size": [2**31 - 1]})),
    "oldest_zero": _sequence_with(oldest=Message({"preferred_batch_size": [0]})),
    "oldest_candidates": _sequence_with(oldest=Message({"max_candidate_sequences": -1})),
    "utilization": _sequence_with(direct=Message({"minimum_slot_utilization": 1.5})),
    "utilization_negative": _sequence_with(direct=Message({"minimum_slot_utilization": -0.5})),
    "control_no_name": _control((None, _START)),
    "control_no_signal": _control(("S",)),
    "control_twice": _control(("S", _START), ("S", _END)),
    "control_kinds": _control(("S", _START), ("T", _START)),
    "control_kinds_in_one": _control(("S", _START, _START)),
    "control_corrid_twice": _control(("S", _CORRID), ("T", _CORRID)),
    "control_none": _control(("S", {"kind": "CONTROL_SEQUENCE_READY"})),
    "control_both": _control(("S", {**_START, "bool_false_true": [False, True]})),
    "control_one": _control(("S", {"kind": "CONTROL_SEQUENCE_END", "fp32_false_true": [1.0]})),
    "control_typed": _control(("S", {**_START, "data_type": "TYPE_INT8"})),
    "control_corrid": _control(("S", {**_CORRID, "data_type": "TYPE_INT16"})),
    "control_corrid_values": _control(("S", {**_CORRID, "fp32_false_true": [0.0, 1.0]})),
    "control_corrid_both": _control(
        ("S", {"kind": "CONTROL_SEQUENCE_CORRID", "fp32_false_true": [0.0, 1.0]})
    ),
    "control_is_input": _control(("IN0", _START)),
    "state_untyped": _state(data_type=Name("TYPE_INVALID")),
    "state_no_dims": _state(dims=[]),
    "state_zero_dim": _state(dims=[0]),
    "state_negative_dim": _state(dims=[-2]),
    "state_growable": _state(use_growable_memory=True),
    "state_growable_same": _state(use_growable_memory=True, use_same_buffer_for_input_output=True),
    "state_two": _state(initial_state=[_initial(), _initial()]),
    "state_no_name": _state(initial_state=[_initial(name=None)]),
    "state_type": _state(initial_state=[_initial(data_type=Name("TYPE_INT8"))]),
    "state_no_type": _state(initial_state=[_initial(data_type=None)]),
    "state_rank": _state(initial_state=[_initial(dims=[2, 1])]),
    "state_dim": _state(initial_state=[_initial(dims=[3])]),
    "state_wild": _state(dims=[-1], initial_state=[_initial(dims=[-1])]),
    "state_nothing": _state(initial_state=[_initial(zero_data=None)]),
    "state_file": _state(initial_state=[_initial(zero_data=None, data_file="nope")]),
    "state_file_outside": _state(
        initial_state=[_initial(zero_data=None, data_file="../labels.txt")]
    ),
    "state_file_large": _state(initial_state=[_initial(zero_data=None, data_file="sixteen")]),
    "state_file_small": _state(
        dims=[5], initial_state=[_initial(zero_data=None, dims=[5], data_file="sixteen")]
    ),
    "state_file_text": _state(
        data_type=Name("TYPE_STRING"),
        initial_state=[
            _initial(zero_data=None, data_type=Name("TYPE_STRING"), data_file="sixteen")
        ],
    ),
    "state_zero_text": _state(
        data_type=Name("TYPE_STRING"),
        initial_state=[_initial(data_type=Name("TYPE_STRING"))],
    ),
    "state_not_zero": _state(initial_state=[_initial(zero_data=False)]),
    # inputs and outputs
    "no_name": _without("name"),
    "no_type": _without("data_type"),
    "no_dims": _without("dims"),
    "zero_dim": _tensor_with(dims=[3, 0]),
    "negative_dim": _tensor_with(dims=[-1, -2]),
    "input_format": _input_with(format=Name("FORMAT_NCHW"), dims=[4]),
    "shape_tensor": _tensor_with(is_shape_tensor=True),
    "non_linear": _tensor_with(is_non_linear_format_io=True),
    "reshape_empty": _tensor_with(dims=[4], reshape=Message()),
    "reshape_empty_one": _tensor_with(dims=[1], reshape=Message()),
    "reshape_empty_many": _tensor_with(dims=[1, 1], reshape=Message()),
    "reshape_empty_wild": _tensor_with(dims=[-1], reshape=Message()),
    "reshape_zero": _tensor_with(dims=[4], reshape=Message({"shape": [0]})),
    "reshape_negative": _tensor_with(dims=[4], reshape=Message({"shape": [-4]})),
    "reshape_size": _tensor_with(dims=[4, 2], reshape=Message({"shape": [9]})),
    "reshape_wild": _tensor_with(dims=[-1, 2], reshape=Message({"shape": [-1, -1]})),
    "reshape_wild_size": _tensor_with(dims=[-1, 2], reshape=Message({"shape": [2, -1]})),
    "reshape_wild_last": _tensor_with(dims=[2, -1], reshape=Message({"shape": [2, -1, 3]})),
    "reshape_overflow": _tensor_with(
        dims=[2**40, 2**40], reshape=Message({"shape": [2**40, 2**40, 1]})
    ),
    "ragged_output": _input_with(allow_ragged_batch=True, dims=[0]),
    "label": _output_with(label_filename="nope.txt"),
    "label_outside": _output_with(label_filename="../other/labels.txt"),
    "label_absolute": _output_with(label_filename="/nope.txt"),
    "batch_input_source": _batch_input(source_input=["ZZ"]),
    "batch_input_sources": _batch_input(source_input=["IN0", "IN0"]),
    "batch_input_type": _batch_input(data_type=Name("TYPE_INT64")),
    "batch_input_no_target": _batch_input(target_name=None),
    "batch_input_kind": _batch_input(kind=Name("7")),
    "batch_output_source": _batch_output(source_input=["ZZ"]),
    "batch_output_none": _batch_output(source_input=None),
    "batch_output_target": _batch_output(target_name=["ZZ"]),
    "batch_output_twice": _batch_output(target_name=["OUT0", "OUT0"]),
    # instance groups
    "group_gpu": _group(kind=Name("KIND_GPU")),
    "group_gpu_0": _group(kind=Name("KIND_GPU"), gpus=[0]),
    "group_cpu_gpus": _group(kind=Name("KIND_CPU"), gpus=[0]),
    "group_auto_gpus": _group(gpus=[3]),
    "group_profile": _group(name="p", profile=["0"]),
    "group_kind": _group(kind=Name("9")),
    # parameters that the Python backend reads
    "force_cpu": _parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "maybe"),
    "force_cpu_empty": _parameter("FORCE_CPU_ONLY_INPUT_TENSORS", ""),
    "force_cpu_yes": _parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "yes"),
    "batch_strategy": _parameter("TRITON_BATCH_STRATEGY_PATH", "/nope.so"),
    # warmup
    "warmup_wild": _warmup({"IN0": {"dims": [-1], "zero_data": True}}),
    "warmup_wild_second": _warmup(
        {"IN0": {"zero_data": True}, "A": {"dims": [2, -1], "zero_data": True}}
    ),
    "warmup_skipped": _warmup({"IN0": {"dims": [-1], "zero_data": True}}, batch_size=0),
    "warmup_no_file": _warmup({"IN0": {"input_data_file": "nope"}}),
    "warmup_small_file": _warmup({"IN0": {"dims": [5], "input_data_file": "sixteen"}}),
    "warmup_large_file": _warmup({"IN0": {"dims": [3], "input_data_file": "sixteen"}}),
    "warmup_outside": _warmup({"IN0": {"input_data_file": "../labels.txt"}}),
    "warmup_nothing": _warmup({"IN0": {}}),
    "warmup_unknown": _warmup({"ZZ": {"zero_data": True}}),
    "warmup_more": _warmup({"IN0": {"zero_data": True}, "ZZ": {"zero_data": True}}),
    "warmup_none": _warmup({}),
    "warmup_type": _warmup({"IN0": {"data_type": Name("TYPE_INT8"), "zero_data": True}}),
    "warmup_rank": _warmup({"IN0": {"dims": [1, 2], "zero_data": True}}),
    "warmup_untyped": _warmup({"IN0": {"data_type": Name("TYPE_INVALID"), "zero_data": True}}),
    "warmup_text_file": _warmup(
        {"IN0": {"data_type": Name("TYPE_STRING"), "input_data_file": "sixteen"}}
    ),
    "warmup_batch": _warmup({"IN0": {"zero_data": True}}, batch_size=2**20),
    "warmup_count": _warmup({"IN0": {"zero_data": True}}, count=2),
}


def broken_config(seed: int, name: str) -> tuple[list[str], str]:
    """Return the defects and the text of a configuration; each defect comes alone once, first."""
    generator = Generator(f"broken {seed}")
    config = generator.config(name)
    # Each instance of a recording is a process; few are enough to be refused.
    config.fields.pop("instance_group", None)
    names = list(BREAKERS)
    defects = [names[seed]] if seed < len(names) else generator.random.sample(names, 2)
    for defect in defects:
        BREAKERS[defect](generator, config)
    return defects, generator.write(config) + "\n"
