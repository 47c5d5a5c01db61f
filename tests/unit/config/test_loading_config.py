"""Which file configures a model, and when it is checked. All was observed on Triton 2.51."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytriton_lite._loading import prepare_config, read_config
from pytriton_lite.errors import ConfigError

from .pipeline import write_model
from .spec_tables import MODEL

PLAIN = 'backend: "python" max_batch_size: 1'


@pytest.mark.parametrize(
    ("given", "config_name", "size"),
    [
        ("alt", "alt", 2),
        ("alt", "", 1),
        ("alt", "other", 1),
    ],
)
def test_config_name(tmp_path: Path, given: str, config_name: str, size: int) -> None:
    files = {**MODEL, f"configs/{given}.pbtxt": 'backend: "python" max_batch_size: 2'}
    write_model(tmp_path / "M", PLAIN, files)
    message, _ = read_config("M", str(tmp_path / "M"), strict=False, config_name=config_name)
    assert message.max_batch_size == size


def test_error_names_the_alternative(tmp_path: Path) -> None:
    write_model(tmp_path / "M", PLAIN, {"configs/alt.pbtxt": "\n bad"})
    with pytest.raises(ConfigError) as caught:
        read_config("M", str(tmp_path / "M"), strict=False, config_name="alt")
    path = str(tmp_path / "M" / "configs" / "alt.pbtxt")
    assert (caught.value.file, caught.value.line, caught.value.column) == (path, 2, 2)
    assert str(caught.value).startswith(f"failed to read text proto from {path}: 2:2: ")


def test_no_config(tmp_path: Path) -> None:
    write_model(tmp_path / "M", None, MODEL)
    assert not read_config("M", str(tmp_path / "M"), strict=False)[0].name
    with pytest.raises(ConfigError) as caught:
        read_config("M", str(tmp_path / "M"), strict=True)
    path = tmp_path / "M" / "config.pbtxt"
    assert str(caught.value) == (
        f"failed to open text file for read {path}: No such file or directory"
    )


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            'backend: "python" input { name: "A" data_type: TYPE_FP32 }',
            "model input 'A' must specify 'dims' for M",
        ),
        (
            'backend: "python" instance_group { kind: KIND_GPU } '
            'input { name: "A" data_type: TYPE_FP32 }',
            "model input 'A' must specify 'dims' for M",
        ),
        (
            'backend: "python" batch_output { target_name: "x" }',
            "batch output kind 'BATCH_SCATTER_WITH_INPUT_SHAPE' expects 1 source input, got 0 "
            "for M",
        ),
        (
            'name: "other" backend: "python" input { name: "A" data_type: TYPE_FP32 }',
            "model input 'A' must specify 'dims' for other",
        ),
        ('backend: "python"', None),
        # Not a matter of the folder's first reading, strict or not.
        ('backend: "python" output { name: "A" data_type: 1 dims: 1 label_filename: "x" }', None),
    ],
)
def test_strict_checks_inputs_and_outputs_at_once(
    tmp_path: Path, config: str, reason: str | None
) -> None:
    folder = tmp_path / "M"
    write_model(folder, config, MODEL)
    message, _ = read_config("M", str(folder), strict=True)
    if reason is None:
        prepare_config(message, "M", str(folder), strict=True)
        return
    with pytest.raises(ConfigError) as caught:
        prepare_config(message, "M", str(folder), strict=True)
    assert str(caught.value) == reason
    message, _ = read_config("M", str(folder), strict=False)
    if not message.name:
        prepare_config(message, "M", str(folder))
