"""Options that let a repository made for another machine load here, and what they are seen by."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]

GPU = "instance_group [ { kind: KIND_GPU } ]"
NO_GPU = "instance group m_0 of model m has kind KIND_GPU but no GPUs are available"

TELLS = echo_model(
    """
    import json

    def kinds(args):
        config = json.loads(args["model_config"])
        return [
            args["model_instance_kind"], args["model_instance_device_id"],
            args["model_instance_name"], [g["kind"] for g in config["instance_group"]],
        ]
    """,
    """
    def initialize(self, args):
        self.kinds = np.frombuffer(json.dumps(kinds(args)).encode(), np.uint8)

    def answer(self, x, request):
        return self.kinds.astype(np.float32)
    """,
)


def told(model: ptl.Model) -> Any:
    """What an instance of `TELLS` was initialized with."""
    return json.loads(bytes(model({"IN": np.float32([0])})["OUT"].astype(np.uint8)))


def load_error(serve: Serve, **options: Any) -> ptl.ConfigError:
    with pytest.raises(ptl.ModelLoadError) as caught:
        serve(**options)
    (error,) = caught.value.exceptions
    assert isinstance(error, ptl.ConfigError)
    return error


# -- instance_kind ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "text"),
    [
        ("{ kind: KIND_GPU }", NO_GPU),
        # The texts of Triton 2.51, see `tests/unit/config/test_normalize.py`.
        (
            "{ kind: KIND_GPU gpus: [ 0 ] }",
            "instance group m_0 of model m specifies invalid or unsupported gpu id 0. GPUs with at "
            "least the minimum required CUDA compute compatibility of 6.000000 are: ",
        ),
        (
            "{ gpus: [ 0 ] }",
            "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
        ),
    ],
)
@pytest.mark.parametrize("option", [None, "cpu", "auto"])
def test_a_model_for_gpus(
    group: str, text: str, option: Any, repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", TELLS, config=f"{ECHO_CONFIG}instance_group [ {group} ]")
    if option is None:
        error = load_error(serve)
        assert str(error) == text
        assert "Server(instance_kind=" in str(error.hint)
        assert error.__notes__ == [error.hint]
        return
    model = serve(instance_kind=option)["m"]
    assert told(model) == ["CPU", "0", "m_0_0", ["KIND_CPU"]]
    config = model.config()
    assert (config["instance_group"][0]["kind"], config["instance_group"][0]["gpus"]) == (
        "KIND_CPU",
        [],
    )


def test_names_and_counts_stay(repository: RepositoryBuilder, serve: Serve) -> None:
    groups = (
        '{ name: "a" count: 2 kind: KIND_GPU gpus: [ 0, 1 ] }, { kind: KIND_CPU count: 1 }, '
        "{ kind: KIND_MODEL }"
    )
    repository.model("m", TELLS, config=f"{ECHO_CONFIG}instance_group [ {groups} ]")
    config = serve(instance_kind="cpu")["m"].config()
    found = [(group["name"], group["kind"], group["count"]) for group in config["instance_group"]]
    assert found == [("a", "KIND_CPU", 2), ("m_1", "KIND_CPU", 1), ("m_2", "KIND_MODEL", 1)]


def test_by_model(repository: RepositoryBuilder, serve: Serve) -> None:
    for name in ("m", "other", "third"):
        repository.model(name, TELLS, config=ECHO_CONFIG + GPU)
    error = load_error(serve, instance_kind={"other": "cpu", "third": "auto"})
    assert str(error) == NO_GPU
    assert error.model == "m"
    server = serve(instance_kind={"other": "auto", "*": "cpu"})
    assert {told(server[name])[0] for name in ("m", "other", "third")} == {"CPU"}


def test_configurations_of_load_calls(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", TELLS)
    server = serve(instance_kind="cpu", model_control_mode="explicit")
    config = {**server.load("m").config(), "instance_group": [{"kind": "KIND_GPU", "gpus": [3]}]}
    model = server.load("m", {"config": json.dumps(config)})
    assert told(model)[3] == ["KIND_CPU"]
    value = model.config(explain=True)["instance_group[0].kind"]
    assert str(value) == "option, instance_kind='cpu'; instead of \"KIND_GPU\" (load call)"


@pytest.mark.parametrize("option", ["gpu", "KIND_CPU", "", {"m": "model"}])
def test_other_kinds(option: Any, repository: RepositoryBuilder) -> None:
    with pytest.raises(ptl.InvalidArgumentError, match=r"^instance_kind .* is none of"):
        ptl.Server(repository.models, instance_kind=option)


# -- substitute ------------------------------------------------------------------------

TEMPLATE = """
backend: "python"
max_batch_size: ${size}
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: ${type} dims: [ -1 ] } ]
parameters { key: "who" value { string_value: "I am ${who}" } }
"""


def test_substitute(repository: RepositoryBuilder, serve: Serve) -> None:
    for name in ("m", "n"):
        repository.model(name, echo_model(), config=TEMPLATE)
    repository.model("plain", echo_model())
    server = serve(
        substitute={"size": 2, "type": "TYPE_FP32", "*": {"who": "any"}, "n": {"who": 'the "n"'}}
    )
    assert server["m"].config()["max_batch_size"] == 2
    assert [server[name].config()["parameters"]["who"]["string_value"] for name in ("m", "n")] == [
        "I am any",
        'I am the "n"',
    ]
    assert server["m"]({"IN": np.float32([[1], [2]])})["OUT"].shape == (2, 1)


def test_a_template_that_is_not_filled(repository: RepositoryBuilder, serve: Serve) -> None:
    folder = repository.model("m", echo_model(), config=TEMPLATE)
    error = load_error(serve)
    assert (error.line, error.column) == (3, 17)
    assert error.hint == (
        "the file is a template; give Server(substitute={'size': ..., 'type': ..., 'who': ...})"
    )
    error = load_error(serve, substitute={"size": 2})
    assert str(error) == (
        f"failed to read text proto from {folder}/config.pbtxt: no value for '${{type}}' (5:35), "
        "'${who}' (6:53) in `substitute`"
    )
    assert (error.file, error.line, error.column) == (str(folder / "config.pbtxt"), 5, 35)


def test_a_wrong_value_is_placed(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model(), config=TEMPLATE)
    for size, line in ((-1, 3), ("many", 3)):
        error = load_error(serve, substitute={"size": size, "type": "TYPE_FP32", "who": ""})
        assert (error.line, error.column) == (line, 17)
    error = load_error(serve, substitute={"size": 1, "type": "FLOAT", "who": ""})
    assert (error.line, error.column, error.hint) == (5, 35, "did you mean 'TYPE_FP32'?")


def test_files_are_read_as_they_are_without_the_option(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    text = 'parameters { key: "who" value { string_value: "${who}" } }'
    repository.model("m", echo_model(), config=ECHO_CONFIG + text)
    parameters = serve()["m"].config()["parameters"]
    assert parameters == {"who": {"string_value": "${who}"}}


def test_configurations_of_load_calls_are_no_templates(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model())
    server = serve(substitute={"who": "me"}, model_control_mode="explicit")
    config = {**server.load("m").config(), "parameters": {"who": {"string_value": "${who}"}}}
    model = server.load("m", {"config": json.dumps(config)})
    assert model.config()["parameters"] == {"who": {"string_value": "${who}"}}


def test_named_alternatives_are_templates(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("m", echo_model(), files={"configs/big.pbtxt": TEMPLATE})
    server = serve(
        model_config_name="big", substitute={"size": 64, "type": "TYPE_FP32", "who": "big"}
    )
    assert server["m"].config()["max_batch_size"] == 64


def test_values_are_written_once(repository: RepositoryBuilder, serve: Serve) -> None:
    """What a value looks like matters to nobody, not even when it is a placeholder."""
    repository.model("m", echo_model(), config=TEMPLATE)
    server = serve(substitute={"size": 1, "type": "TYPE_FP32", "who": "${size}"})
    assert server["m"].config()["parameters"]["who"]["string_value"] == "I am ${size}"


def test_wrong_types(repository: RepositoryBuilder) -> None:
    with pytest.raises(ptl.InvalidArgumentError, match=r"substitute\['m'\]\['x'\] must be"):
        ptl.Server(repository.models, substitute={"m": {"x": object()}})
    ptl.Server(repository.models, substitute={"x": math.pi})


# -- explain ---------------------------------------------------------------------------

COMPLETES = echo_model(
    "def answer(x, request): return x",
    """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(4)
        config.set_dynamic_batching()
        return config
    """,
)


@pytest.mark.parametrize("execution", ["thread", "process"])
def test_explain(execution: str, repository: RepositoryBuilder, serve: Serve) -> None:
    folder = repository.model(
        "m",
        COMPLETES,
        config='max_batch_size: ${size}\ninput { name: "IN" dims: -1 }\n' + GPU,
    )
    server = serve(instance_kind="cpu", substitute={"size": 2}, execution=execution)
    model = server["m"]
    found = model.config(explain=True)
    code = folder / "1" / "model.py"
    assert {path: str(found[path]) for path in found if found[path].origin != DEFAULT} == {
        "name": "deduced, name of the model",
        "backend": "deduced, the files of the model",
        "default_model_filename": "deduced, the files of the model",
        "max_batch_size": f"auto-complete, {code}; instead of 2 (config.pbtxt:1, substitute size)",
        "input[0].name": "config.pbtxt:2",
        "input[0].dims": "config.pbtxt:2",
        "input[0].data_type": f"auto-complete, {code}",
        "output[0].name": f"auto-complete, {code}",
        "output[0].data_type": f"auto-complete, {code}",
        "output[0].dims": f"auto-complete, {code}",
        "instance_group[0].name": "deduced, name of the model",
        "instance_group[0].kind": "option, instance_kind='cpu'; instead of \"KIND_GPU\" "
        "(config.pbtxt:3)",
    }
    assert found["dynamic_batching.preferred_batch_size"].value == [4]
    assert found["dynamic_batching.preferred_batch_size"].origin is DEFAULT
    assert found["instance_group[0].count"].value == 1
    config = model.config()
    assert found["max_batch_size"].value == config["max_batch_size"] == 4
    assert found["input[0].data_type"].value == config["input"][0]["data_type"]
    assert str(found).startswith("model 'm' version 1\n")


DEFAULT = ptl.ConfigOrigin.DEFAULT


def test_explain_by_name_mapping(
    repository: RepositoryBuilder, serve: Serve, tmp_path: Any
) -> None:
    (tmp_path / "more" / "folder" / "1").mkdir(parents=True)
    (tmp_path / "more" / "folder" / "1" / "model.py").write_text(echo_model())
    (tmp_path / "more" / "folder" / "config.pbtxt").write_text('name: "folder"' + ECHO_CONFIG)
    server = serve(model_control_mode="explicit")
    server.register_model_repository(tmp_path / "more", {"folder": "mapped"})
    value = server.load("mapped").config(explain=True)["name"]
    assert value.value == "mapped"
    assert str(value) == (
        'option, name_mapping of the repository; instead of "folder" (config.pbtxt:1)'
    )


def test_explain_a_python_based_backend(repository: RepositoryBuilder, serve: Serve) -> None:
    code = repository.backend("mine", echo_model()) / "model.py"
    repository.model("m", config=ECHO_CONFIG.replace("python", "mine"))
    found = serve()["m"].config(explain=True)
    assert (found["runtime"].value, str(found["runtime"])) == (
        "model.py",
        f"deduced, the backend is {code}",
    )


def test_versions_are_explained_apart(repository: RepositoryBuilder, serve: Serve) -> None:
    config = "version_policy { all { } }" + ECHO_CONFIG
    repository.model("m", echo_model(), config=config)
    repository.model("m", COMPLETES, config=config, version=2)
    server = serve()
    found = [server.model("m", version).config(explain=True) for version in (1, 2)]
    assert [str(explained).splitlines()[0] for explained in found] == [
        "model 'm' version 1",
        "model 'm' version 2",
    ]
    origins = [explained["max_batch_size"].origin for explained in found]
    assert origins == [DEFAULT, ptl.ConfigOrigin.AUTO_COMPLETE]


def test_explain_after_a_load_that_changes_instances_alone(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    lines = 'backend: "python"\nmax_batch_size: 2\n'
    folder = repository.model("m", COMPLETES, config=lines + GPU)
    server = serve(model_control_mode="explicit", instance_kind="cpu")
    instance = server.load("m").config(explain=True)
    assert instance["instance_group[0].kind"].line is None
    text = f"# more\n{lines}instance_group [ {{ kind: KIND_GPU count: 2 }} ]"
    (folder / "config.pbtxt").write_text(text)
    found = server.load("m").config(explain=True)
    assert str(found["instance_group[0].count"]) == "config.pbtxt:4"
    assert str(found["instance_group[0].kind"]) == (
        "option, instance_kind='cpu'; instead of \"KIND_GPU\" (config.pbtxt:4)"
    )
    size = found["max_batch_size"]
    assert size.origin is ptl.ConfigOrigin.AUTO_COMPLETE
    assert str(size).endswith("; instead of 2 (config.pbtxt:3)")
    assert found["dynamic_batching.preferred_batch_size"].origin is DEFAULT
    config = server["m"].config()
    assert config["instance_group"][0]["kind"] == "KIND_CPU"
    assert {v.path for v in found.by_origin(ptl.ConfigOrigin.FILE)} == {
        "backend",
        "instance_group[0].count",
    }
