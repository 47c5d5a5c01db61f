"""Defaults, instance groups, and the backend of a configuration without one."""

from __future__ import annotations

import pytest

from pytriton_lite._config.json_form import to_dict
from pytriton_lite._config.normalize import (
    deduce_backend,
    fill_defaults,
    override_instance_kind,
    resolve_instance_groups,
)
from pytriton_lite._config.pbtxt import parse_pbtxt
from pytriton_lite.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "name", "files", "found"),
    [
        ("", "m", ["model.py"], ("python", "model.py", "")),
        ("", "m", ["model.onnx", "model.py"], ("onnxruntime", "model.onnx", "onnxruntime_onnx")),
        ("", "m", ["model.pt2"], ("pytorch", "model.pt2", "pytorch_libtorch")),
        ("", "m", ["model.xml"], ("openvino", "model.xml", "")),
        ('default_model_filename: "model.py"', "m", [], ("python", "model.py", "")),
        (
            'platform: "tensorrt_plan"',
            "m",
            ["model.py"],
            ("tensorrt", "model.plan", "tensorrt_plan"),
        ),
        ("", "model.custom", [], ("custom", "model.custom", "")),
        ("", "a.b.c", [], ("b.c", "model.b.c", "")),
        ("", "model.custom", ["model.py"], ("python", "model.py", "")),
        ('backend: "mine"', "m", ["model.py"], ("mine", "", "")),
        ('platform: "python"', "m", ["model.py"], ("", "", "python")),
        ('platform: "ensemble"', "m", ["model.py"], ("", "", "ensemble")),
    ],
)
def test_deduce_backend(
    text: str, name: str, files: list[str], found: tuple[str, str, str]
) -> None:
    message = parse_pbtxt(text)
    deduce_backend(message, model_name=name, first_version_files=files)
    assert (message.backend, message.default_model_filename, message.platform) == found


def test_no_backend_and_no_files() -> None:
    with pytest.raises(ConfigError) as caught:
        deduce_backend(parse_pbtxt(""), model_name="m")
    assert caught.value.message == (
        "Invalid model name: Could not determine backend for model 'm' with no backend in model "
        "configuration. Expected model name of the form 'model.<backend_name>'."
    )
    assert caught.value.model == "m"


def test_fill_defaults_again_after_auto_complete() -> None:
    message = parse_pbtxt('backend: "python" dynamic_batching { }')
    fill_defaults(message, model_name="m")
    assert list(message.dynamic_batching.preferred_batch_size) == []
    message.max_batch_size = 3
    fill_defaults(message, model_name="m")
    once = to_dict(message)
    assert once["dynamic_batching"]["preferred_batch_size"] == [3]
    fill_defaults(message, model_name="m")
    assert to_dict(message) == once


def test_python_based_backend_gets_no_filename() -> None:
    message = parse_pbtxt('backend: "mine"')
    fill_defaults(message, model_name="m")
    assert message.default_model_filename == ""


def test_ensemble_gets_no_optimization_and_no_groups() -> None:
    message = parse_pbtxt('platform: "ensemble" ensemble_scheduling { step { } }')
    fill_defaults(message, model_name="m")
    resolve_instance_groups(message)
    assert "optimization" not in to_dict(message)
    assert to_dict(message)["instance_group"] == []


@pytest.mark.parametrize(
    ("text", "gpu_count", "groups"),
    [
        ("", 0, [("m", "KIND_CPU", 1, [])]),
        ("", 2, [("m", "KIND_GPU", 1, [0, 1])]),
        ("instance_group { }", 0, [("m_0", "KIND_CPU", 1, [])]),
        ("instance_group { gpus: [1] }", 2, [("m_0", "KIND_GPU", 1, [1])]),
        ("instance_group { kind: KIND_GPU count: 2 }", 1, [("m_0", "KIND_GPU", 2, [0])]),
        ("instance_group { kind: KIND_CPU }", 2, [("m_0", "KIND_CPU", 1, [])]),
        (
            'instance_group [ { name: "a" count: -3 }, { count: 2 kind: KIND_MODEL } ]',
            0,
            [("a", "KIND_CPU", 1, []), ("m_1", "KIND_MODEL", 2, [])],
        ),
    ],
)
def test_instance_groups(text: str, gpu_count: int, groups: list[tuple[object, ...]]) -> None:
    message = parse_pbtxt(text)
    message.name = "m"
    resolve_instance_groups(message, gpu_count=gpu_count)
    resolve_instance_groups(message, gpu_count=gpu_count)
    assert [
        (group["name"], group["kind"], group["count"], group["gpus"])
        for group in to_dict(message)["instance_group"]
    ] == groups


# Ours alone: what the option `instance_kind` makes of groups, here and on machines with GPUs.
@pytest.mark.parametrize(
    ("kind", "text", "gpu_count", "groups"),
    [
        ("cpu", "kind: KIND_GPU gpus: [0]", 0, [("KIND_CPU", [])]),
        ("cpu", "kind: KIND_GPU gpus: [0]", 2, [("KIND_CPU", [])]),
        ("cpu", "gpus: [0]", 1, [("KIND_CPU", [])]),
        ("cpu", "kind: KIND_MODEL", 1, [("KIND_MODEL", [])]),
        ("auto", "kind: KIND_GPU gpus: [1]", 1, [("KIND_CPU", [])]),
        ("auto", "kind: KIND_GPU gpus: [1]", 2, [("KIND_GPU", [1])]),
        ("auto", "kind: KIND_GPU", 2, [("KIND_GPU", [0, 1])]),
        ("auto", "gpus: [-1]", 2, [("KIND_CPU", [])]),
        ("auto", "kind: KIND_CPU", 2, [("KIND_CPU", [])]),
        ("cpu", None, 2, [("KIND_CPU", [])]),
        ("auto", None, 2, [("KIND_GPU", [0, 1])]),
        ("auto", None, 0, [("KIND_CPU", [])]),
    ],
)
def test_override_instance_kind(
    kind: str, text: str | None, gpu_count: int, groups: list[tuple[str, list[int]]]
) -> None:
    message = parse_pbtxt("" if text is None else f"instance_group {{ {text} }}")
    message.name = "m"
    override_instance_kind(message, kind, gpu_count=gpu_count)
    resolve_instance_groups(message, gpu_count=gpu_count)
    found = to_dict(message)["instance_group"]
    assert [(group["kind"], group["gpus"]) for group in found] == groups
    # A group that nobody wrote has the model's plain name.
    assert found[0]["name"] == ("m" if text is None else "m_0")


def test_override_leaves_ensembles_alone() -> None:
    message = parse_pbtxt('platform: "ensemble"')
    override_instance_kind(message, "cpu", gpu_count=1)
    assert not message.instance_group


# Recorded from Triton 2.51, but for the GPU that is not there among others.
@pytest.mark.parametrize(
    ("text", "gpu_count", "reason"),
    [
        ("kind: KIND_GPU", 0, "has kind KIND_GPU but no GPUs are available"),
        ("kind: KIND_CPU gpus: [0]", 0, "has kind KIND_CPU but specifies one or more GPUs"),
        ("kind: KIND_MODEL gpus: [0]", 0, "has kind KIND_MODEL but specifies one or more GPUs"),
        ("gpus: [0]", 0, "has kind KIND_CPU but specifies one or more GPUs"),
        ('profile: ["0"] gpus: [0]', 0, "has kind KIND_CPU but specifies one or more GPUs"),
        (
            'profile: ["0"]',
            0,
            "and platform foospecifies profile field which is only supported for TensorRT models",
        ),
        (
            "kind: KIND_GPU gpus: [0]",
            0,
            "specifies invalid or unsupported gpu id 0. GPUs with at least the minimum required "
            "CUDA compute compatibility of 6.000000 are: ",
        ),
        (
            "kind: KIND_GPU gpus: [1, 2]",
            2,
            "specifies invalid or unsupported gpu id 2. GPUs with at least the minimum required "
            "CUDA compute compatibility of 6.000000 are: 0 1",
        ),
    ],
)
def test_instance_group_errors(text: str, gpu_count: int, reason: str) -> None:
    message = parse_pbtxt(f'name: "m" platform: "foo" instance_group {{ {text} }}')
    with pytest.raises(ConfigError) as caught:
        resolve_instance_groups(message, gpu_count=gpu_count)
    assert caught.value.message == f"instance group m_0 of model m {reason}"
    assert caught.value.model == "m"
