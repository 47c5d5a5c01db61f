"""What it costs to read, check and print model configurations.

1,000 different configurations a pass: three quarters as models have them (some 600 characters),
a quarter with every scheduler setting, states, policies and warmup (some 2,000). The baselines
are protobuf's own text and JSON forms of the same messages, which check nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from typing import Any

from google.protobuf import json_format, text_format
from harness import Figures, Report, of

from pytriton_lite._config.json_form import from_json, to_json
from pytriton_lite._config.normalize import deduce_backend, fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite._config.schema import model_config_class
from pytriton_lite._config.validate import (
    check_agents,
    validate_general,
    validate_io,
    validate_parameters,
)

COUNT = 1_000
NAME = "model"
TYPES = ("TYPE_FP32", "TYPE_INT64", "TYPE_STRING", "TYPE_FP16", "TYPE_BOOL")


def plain_config(number: int) -> str:
    """Text of a configuration with 2 to 4 inputs and a dynamic batcher."""
    inputs = ",\n".join(
        f'  {{\n    name: "INPUT_{i}"\n    data_type: {TYPES[(number + i) % 5]}\n'
        f"    dims: [ -1, {number % 512 + 1} ]\n    optional: {str(i > 1).lower()}\n  }}"
        for i in range(2 + number % 3)
    )
    return f"""
# Configuration {number}
name: "{NAME}"
backend: "python"
max_batch_size: {8 + number % 100}
input [
{inputs}
]
output [
  {{
    name: "OUTPUT"
    data_type: TYPE_FP32
    dims: [ -1, {number % 1000 + 1} ]
  }}
]
instance_group [ {{ count: {1 + number % 4} kind: KIND_CPU }} ]
dynamic_batching {{
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: {number}
}}
parameters {{ key: "number" value {{ string_value: "{number}" }} }}
parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value {{ string_value: "no" }} }}
"""


def full_config(number: int) -> str:
    """Text of a configuration with a sequence batcher and most of what else there is."""
    signals = ("START", "END", "READY")
    controls = ",\n".join(
        f'    {{ name: "{kind}" control [ {{ kind: CONTROL_SEQUENCE_{kind} '
        "fp32_false_true: [ 0, 1 ] } ] }"
        for kind in signals
    )
    states = ",\n".join(
        f'    {{ input_name: "STATE_IN_{i}" output_name: "STATE_OUT_{i}" data_type: TYPE_FP32\n'
        f"      dims: [ {number % 64 + 1}, 4 ] initial_state {{ data_type: TYPE_FP32\n"
        f'        dims: [ {number % 64 + 1}, 4 ] zero_data: true name: "zero" }} }}'
        for i in range(4)
    )
    plain = plain_config(number)
    return (
        plain[: plain.index("dynamic_batching")]
        + f"""
sequence_batching {{
  max_sequence_idle_microseconds: 5000000
  control_input [
{controls},
    {{ name: "CORRID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 }} ] }}
  ]
  oldest {{ max_candidate_sequences: {number % 30 + 1} preferred_batch_size: [ 4, 8 ] }}
  state [
{states}
  ]
}}
version_policy {{ specific {{ versions: [ 1, 2, 3 ] }} }}
optimization {{ priority: PRIORITY_MAX cuda {{ graphs: true }} eager_batching: true }}
model_transaction_policy {{ decoupled: {str(number % 2 == 0).lower()} }}
metric_tags {{ key: "team" value: "a" }}
"""
    )


TEXTS = [full_config(i) if i % 4 == 3 else plain_config(i) for i in range(COUNT)]


def prepare(message: Any) -> None:
    """Fill in and check a configuration as a load does, without a look at files."""
    check_agents(message, model_name=NAME)
    deduce_backend(message, model_name=NAME)
    fill_defaults(message, model_name=NAME)
    validate_general(message, model_name=NAME)
    resolve_instance_groups(message)
    validate_parameters(message)
    validate_io(message)


def parsed_and_checked(text: str) -> Any:
    """Return a message that is ready for a model."""
    message = parse_pbtxt(text)
    prepare(message)
    return message


def protobuf_parsed(text: str) -> Any:
    """Parse by protobuf."""
    return text_format.Parse(text, model_config_class()())


def protobuf_json(message: Any) -> str:
    """Print as Triton does before its own changes."""
    return json.dumps(
        json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def protobuf_from_json(text: str) -> Any:
    """Read JSON by protobuf."""
    return json_format.Parse(text, model_config_class()())


@contextmanager
def contender(work: Callable[[Any], object], items: list[Any], count: int) -> Iterator[Any]:
    """Measure ``us`` per item."""
    chosen = list(islice(cycle(items), count))

    def measure() -> Figures:
        begin = time.perf_counter_ns()
        for item in chosen:
            work(item)
        return {"us": (time.perf_counter_ns() - begin) / count / 1e3}

    work(items[0])
    yield measure


def main() -> None:
    """Run all."""
    report = Report.from_command_line("Benchmarks of model configurations.")
    count = report.count(COUNT)
    messages = [parsed_and_checked(text) for text in TEXTS]
    jsons = [to_json(message) for message in messages]
    rows = [
        ("parse and validate, config.pbtxt", parsed_and_checked, TEXTS, "parse", 1000),
        ("parse, config.pbtxt", parse_pbtxt, TEXTS, "parse", None),
        ("JSON for a model", to_json, messages, "print", None),
        ("JSON of an override", from_json, jsons, "read", None),
    ]
    bases = {
        "parse": ("text_format.Parse", protobuf_parsed, TEXTS),
        "print": ("json_format.MessageToDict", protobuf_json, messages),
        "read": ("json_format.Parse", protobuf_from_json, jsons),
    }
    for name, work, items, base, most in rows:
        base_name, base_work, base_items = bases[base]
        rounds = report.compare(
            {
                "ours": partial(contender, work, items, count),
                "base": partial(contender, base_work, base_items, count),
            },
            passes=2,
        )
        report.add(
            name, "us", of(rounds["ours"], "us"),
            baseline=base_name, base=of(rounds["base"], "us"), most=most,
        )  # fmt: skip
    report.finish()


if __name__ == "__main__":
    main()
