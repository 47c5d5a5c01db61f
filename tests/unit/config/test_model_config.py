"""The typed view, and which versions a policy picks."""

from __future__ import annotations

import dataclasses

import pytest

from pytriton_lite._config.json_form import to_json
from pytriton_lite._config.model_config import (
    InstanceGroupSettings,
    QueuePolicySettings,
    TensorSettings,
    VersionPolicy,
    select_versions,
    settings_of,
)
from pytriton_lite._config.normalize import fill_defaults, resolve_instance_groups
from pytriton_lite._config.pbtxt import parse_pbtxt

TEXT = """
name: "m" backend: "python" platform: "p" runtime: "model.py" max_batch_size: 4
input [ { name: "A" data_type: TYPE_FP32 dims: [ 1 ] reshape { } optional: true },
        { name: "B" data_type: TYPE_STRING dims: [ -1, 2 ] allow_ragged_batch: true } ]
output { name: "O" data_type: TYPE_INT64 dims: [ 4 ] reshape { shape: [ 2, 2 ] }
         label_filename: "l.txt" }
instance_group [ { count: 2 }, { name: "g" kind: KIND_MODEL passive: true host_policy: "h" } ]
dynamic_batching { max_queue_delay_microseconds: 7 preserve_ordering: true
  priority_levels: 2 default_priority_level: 1 default_queue_policy { max_queue_size: 3 }
  priority_queue_policy { key: 2 value { timeout_action: DELAY
    default_timeout_microseconds: 5 allow_timeout_override: true } } }
parameters { key: "k" value { string_value: "v" } } parameters { key: "e" }
model_transaction_policy { decoupled: true }
"""


def test_settings() -> None:
    message = parse_pbtxt(TEXT)
    fill_defaults(message, model_name="m")
    resolve_instance_groups(message)
    model = settings_of(message)
    assert (model.name, model.backend, model.platform, model.runtime) == (
        "m",
        "python",
        "p",
        "model.py",
    )
    assert model.default_model_filename == "model.py"
    assert model.max_batch_size == 4
    assert model.inputs == (
        TensorSettings("A", 11, (1,), reshape=(), is_optional=True),
        TensorSettings("B", 13, (-1, 2), allow_ragged_batch=True),
    )
    assert model.outputs == (TensorSettings("O", 9, (4,), reshape=(2, 2), label_filename="l.txt"),)
    assert [tensor.model_dims for tensor in (*model.inputs, *model.outputs)] == [
        (),
        (-1, 2),
        (2, 2),
    ]
    assert model.instance_groups == (
        InstanceGroupSettings("m_0", "KIND_CPU", 2),
        InstanceGroupSettings("g", "KIND_MODEL", 1, is_passive=True, host_policy="h"),
    )
    assert model.is_decoupled
    assert model.scheduler == "dynamic_batching"
    batching = model.dynamic_batching
    assert batching is not None
    assert batching.preferred_batch_sizes == (4,)
    assert (batching.max_queue_delay_us, batching.preserve_ordering) == (7, True)
    assert (batching.priority_levels, batching.default_priority_level) == (2, 1)
    assert batching.default_queue_policy == QueuePolicySettings(max_queue_size=3)
    assert batching.priority_queue_policies == {
        2: QueuePolicySettings(is_delay=True, default_timeout_us=5, allow_timeout_override=True)
    }
    assert model.parameters == {"e": "", "k": "v"}
    assert model.version_policy == VersionPolicy("latest", num_versions=1)
    assert model.json == to_json(message)


def test_settings_are_frozen() -> None:
    model = settings_of(parse_pbtxt(""))
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "scheduler"),
    [
        ("", None),
        ("sequence_batching { }", "sequence_batching"),
        ("ensemble_scheduling { }", "ensemble_scheduling"),
    ],
)
def test_scheduler(text: str, scheduler: str | None) -> None:
    model = settings_of(parse_pbtxt(text))
    assert model.scheduler == scheduler
    assert model.dynamic_batching is None
    assert not model.is_decoupled


# The last two rows were seen on Triton 2.51.
@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("", [10]),
        ("latest { num_versions: 2 }", [3, 10]),
        ("latest { num_versions: 9 }", [1, 2, 3, 10]),
        ("latest { num_versions: 0 }", []),
        ("all { }", [1, 2, 3, 10]),
        ("specific { versions: [2, 1] }", [1, 2]),
        ("specific { versions: [7] }", []),
        ("specific { }", []),
        ("specific { versions: [3, 1, 3, 9] }", [1, 3]),
        (None, [1, 2, 3, 10]),
    ],
)
def test_select_versions(policy: str | None, versions: list[int]) -> None:
    text = "version_policy { }" if policy is None else policy and f"version_policy {{ {policy} }}"
    message = parse_pbtxt(text)
    assert select_versions(message, [10, 2, 1, 3]) == versions
    assert select_versions(settings_of(message).version_policy, {1, 2, 3, 10}) == versions
