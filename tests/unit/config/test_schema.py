"""The schema: fields, numbers, and how it lives beside other copies of itself."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pytriton_lite._config.schema import file_descriptor_proto, is_repeated, model_config_class
from pytriton_lite._dtypes import DATA_TYPES


def _message(path: str) -> Any:
    descriptor = model_config_class().DESCRIPTOR.file
    first, *rest = path.split(".")
    found = descriptor.message_types_by_name[first]
    for name in rest:
        found = found.nested_types_by_name[name]
    return found


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        (
            "ModelConfig",
            {
                "name": 1, "platform": 2, "version_policy": 3, "max_batch_size": 4, "input": 5,
                "output": 6, "instance_group": 7, "default_model_filename": 8,
                "cc_model_filenames": 9, "metric_tags": 10, "dynamic_batching": 11,
                "optimization": 12, "sequence_batching": 13, "parameters": 14,
                "ensemble_scheduling": 15, "model_warmup": 16, "backend": 17,
                "model_operations": 18, "model_transaction_policy": 19, "batch_input": 20,
                "batch_output": 21, "model_repository_agents": 23, "response_cache": 24,
                "runtime": 25, "model_metrics": 26,
            },
        ),
        (
            "ModelInstanceGroup",
            {
                "name": 1, "count": 2, "gpus": 3, "kind": 4, "profile": 5, "rate_limiter": 6,
                "passive": 7, "secondary_devices": 8, "host_policy": 9,
            },
        ),
        (
            "ModelOutput",
            {
                "name": 1, "data_type": 2, "dims": 3, "label_filename": 4, "reshape": 5,
                "is_shape_tensor": 6, "is_non_linear_format_io": 7,
            },
        ),
        (
            "ModelSequenceBatching.Control",
            {
                "kind": 1, "int32_false_true": 2, "fp32_false_true": 3, "data_type": 4,
                "bool_false_true": 5,
            },
        ),
        ("ModelEnsembling", {"step": 1, "max_inflight_requests": 2}),
        ("ModelMetrics.MetricControl.HistogramOptions", {"buckets": 1}),
    ],
)  # fmt: skip
def test_field_numbers(message: str, numbers: dict[str, int]) -> None:
    fields = _message(message).fields
    assert {field.name: field.number for field in fields} == numbers


def test_field_kinds() -> None:
    fields = model_config_class().DESCRIPTOR.fields_by_name
    assert [name for name, field in fields.items() if field.containing_oneof] == [
        "dynamic_batching",
        "sequence_batching",
        "ensemble_scheduling",
    ]
    assert is_repeated(fields["input"])
    assert is_repeated(fields["parameters"])
    assert not is_repeated(fields["optimization"])
    assert fields["parameters"].message_type.GetOptions().map_entry
    assert fields["metric_tags"].message_type.name == "MetricTagsEntry"


def test_data_types_agree_with_the_table() -> None:
    numbers = model_config_class().DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_name
    assert {name: value.number for name, value in numbers.items()} == {
        "TYPE_INVALID": 0,
        **{row.config_name: row.number for row in DATA_TYPES},
    }


def test_binary_form() -> None:
    message = model_config_class()(name="m", max_batch_size=4, backend="python")
    message.input.add(name="A", data_type=11, dims=[1, -1])
    # Numbers 1, 4, 5 and 17 of the schema, as any other copy of it reads them.
    assert message.SerializeToString(deterministic=True) == (
        b"\x0a\x01m\x20\x04\x2a\x12\x0a\x01A\x10\x0b\x22\x0b\x01" + b"\xff" * 9 + b"\x01"
        b"\x8a\x01\x06python"
    )


def test_class_is_made_once() -> None:
    assert model_config_class() is model_config_class()


def test_protobuf_is_imported_late_and_the_default_pool_stays_free() -> None:
    code = """
import sys
import pytriton_lite._config.autocomplete, pytriton_lite._config.model_config
import pytriton_lite._config.normalize, pytriton_lite._config.validate
assert not any(name.startswith("google.protobuf") for name in sys.modules)
from google.protobuf import descriptor_pool
from pytriton_lite._config.schema import file_descriptor_proto, model_config_class
model_config_class()
# What tritonclient does when it is imported after us: the same symbols, in the default pool.
file = file_descriptor_proto()
file.name = "model_config.proto"
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
assert descriptor_pool.Default().FindMessageTypeByName("inference.ModelConfig") is not (
    model_config_class().DESCRIPTOR)
model_config_class()(name="m").SerializeToString()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_file_descriptor_names_no_other_file() -> None:
    assert list(file_descriptor_proto().dependency) == []
