"""The way of a configuration from a model folder to what a model is told, without running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytriton_lite._backend import resolve_backend
from pytriton_lite._config.model_config import select_versions
from pytriton_lite._config.model_files import check_model_files
from pytriton_lite._config.normalize import resolve_instance_groups
from pytriton_lite._config.validate import validate_io, validate_parameters
from pytriton_lite._environment.setting import canonical_path, environment_setting
from pytriton_lite._loading import prepare_config, read_config
from pytriton_lite.errors import TritonError

BACKENDS = "/no/backends"

_MAPS = ("cc_model_filenames", "metric_tags", "parameters", "priority_queue_policy", "inputs")


@dataclass(slots=True)
class Refused(Exception):
    """A phase, and the error that it ended with."""

    phase: str
    error: TritonError


def write_model(folder: Path, config: str | None, files: Mapping[str, str]) -> None:
    """Write a model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    if config is not None:
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")


def load_config(folder: Path, *, backends: str = BACKENDS) -> Any:
    """Return the completed configuration of the model in a folder.

    Raises
    ------
    Refused
        It is not valid.
    """
    name = folder.name
    try:
        message, history = read_config(name, str(folder), strict=False)
        prepare_config(message, name, str(folder), history=history)
    except TritonError as error:
        raise Refused("poll", error) from error
    numbers = [
        int(entry.name)
        for entry in folder.iterdir()
        if entry.name.isdecimal() and str(int(entry.name)) == entry.name
    ]
    versions = select_versions(message, numbers)
    if not versions:
        reason = (
            f"at least one version must be available under the version policy of model '{name}'"
        )
        raise Refused("dependency", TritonError(reason))
    if message.platform == "ensemble":
        return message
    try:
        backend = resolve_backend(
            model_name=name,
            backend=message.backend,
            runtime=message.runtime,
            default_model_filename=message.default_model_filename,
            model_folder=str(folder),
            version=versions[-1],
            backend_directory=backends,
        )
        message.runtime = backend.runtime
        resolve_instance_groups(message)
        validate_parameters(message)
        parameters = {key: message.parameters[key].string_value for key in message.parameters}
        environment = environment_setting(parameters, backend, str(folder))
        if environment is not None:
            canonical_path(environment, name)
        validate_io(message)
        check_model_files(message, str(folder))
    except TritonError as error:
        raise Refused("load", error) from error
    return message


def reason_of(refused: Refused, repository: Path) -> str:
    """Return the text of a refusal as Triton puts it, with ``<repo>`` for the repository."""
    text = str(refused.error).replace(str(repository), "<repo>").replace(BACKENDS, "<backends>")
    return f"{refused.error.code.status}: {text}" if refused.phase == "load" else text


def with_sorted_maps(value: Any, key: str = "") -> Any:
    """Sort what Triton prints in hash order; all else keeps its order."""
    if isinstance(value, dict):
        # `input` is a map only inside `cuda.graph_spec`, where it is an object.
        is_map = key in (*_MAPS, "input", "input_map", "output_map")
        items = sorted(value.items()) if is_map else value.items()
        return {name: with_sorted_maps(item, name) for name, item in items}
    if isinstance(value, list):
        return [with_sorted_maps(item) for item in value]
    return value


def compact(value: Any) -> str:
    """Return JSON text in which key order counts."""
    return json.dumps(value, ensure_ascii=False)
