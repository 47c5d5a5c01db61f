"""`pb_utils.ModelConfig` and the helpers beside it. Its texts are held by `test_autocomplete`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from pytriton_lite.pb_utils.config import (
    ModelConfig,
    get_input_config_by_name,
    get_output_config_by_name,
    using_decoupled_model_transaction_policy,
)


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig('{"name": "m", "max_batch_size": 0, "input": [], "output": []}')


def test_import_brings_no_protobuf() -> None:
    code = "import sys, pytriton_lite.pb_utils.config; assert 'google.protobuf' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_as_dict_is_live(config: ModelConfig) -> None:
    config.set_max_batch_size(4)
    assert config.as_dict() is config.as_dict() is config._model_config
    assert config.as_dict()["max_batch_size"] == 4


def test_tensor_is_filled_in(config: ModelConfig) -> None:
    config.as_dict()["input"] = [{"name": "A", "data_type": "TYPE_INVALID", "dims": []}]
    config.add_input({"name": "A", "data_type": "TYPE_BOOL", "dims": [2], "optional": True})
    config.add_input({"name": "A", "data_type": "TYPE_BOOL", "dims": [2]})
    assert config.as_dict()["input"] == [
        {"name": "A", "data_type": "TYPE_BOOL", "dims": [2], "optional": True}
    ]


def test_decoupled_twice(config: ModelConfig) -> None:
    config.set_model_transaction_policy({"decoupled": False})
    with pytest.raises(ValueError, match="already set to 'False'"):
        config.set_model_transaction_policy({"decoupled": True})
    assert config.as_dict()["model_transaction_policy"] == {"decoupled": False}


def test_lookup_by_name() -> None:
    tensors = [{"name": "A", "dims": [1]}, {"name": "A", "dims": [2]}]
    model_config: dict[str, Any] = {"input": tensors, "output": tensors[1:]}
    assert get_input_config_by_name(model_config, "A") is tensors[0]
    assert get_output_config_by_name(model_config, "A") is tensors[1]
    assert get_input_config_by_name(model_config, "B") is None
    assert get_input_config_by_name({}, "A") is None
    assert get_output_config_by_name({}, "A") is None


def test_decoupled_policy() -> None:
    assert not using_decoupled_model_transaction_policy({})
    assert using_decoupled_model_transaction_policy({"model_transaction_policy": {"decoupled": 1}})
    with pytest.raises(KeyError, match="'decoupled'"):
        using_decoupled_model_transaction_policy({"model_transaction_policy": {}})
