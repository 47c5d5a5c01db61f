"""A model as a load finds it: in a repository, or in the parameters of the load call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import text_format

from pytriton_lite._config.explain import ConfigHistory, ConfigStep
from pytriton_lite._config.json_form import from_json
from pytriton_lite._loading import prepare_config, read_config
from pytriton_lite._options import Options
from pytriton_lite._overrides import OverrideFolder, read_parameters
from pytriton_lite._repository.files import FileTimes, file_times
from pytriton_lite._repository.folders import RepositoryFolders, check_name
from pytriton_lite.errors import TritonError


class PolledModel(NamedTuple):
    """A prepared configuration, and where the model's files are.

    Attributes
    ----------
    history
        Of the configuration; also places errors in its file.
    own_folder
        Is `folder` when the load call gave the files.
    files
        Those in the repository, as they were before they were read.
    """

    message: Any
    history: ConfigHistory
    folder: str
    own_folder: OverrideFolder | None
    files: FileTimes | None = None


class PollError(Exception):
    """A model could not be read. Its text is Triton's, which has the reason in its log only."""

    def __init__(self, name: str, reason: TritonError) -> None:
        super().__init__(f"failed to load '{name}', failed to poll from model repository")
        self.reason = reason


def poll_model(
    identifier: str,
    parameters: Mapping[str, object],
    user: object,
    *,
    folders: RepositoryFolders,
    options: Options,
) -> PolledModel:
    """Read a model.

    Parameters
    ----------
    parameters
        Of the load call.
    user
        Keeps the folder of given files, see `OverrideFolder.add_user`.

    Raises
    ------
    TritonError
        There is no such model, or its configuration is not valid.
    """
    name = folders.name_of(identifier)
    given = read_parameters(name, parameters)
    strict = options.strict_model_config
    if given.files:
        check_name(name)
        message, history = _read_override(name, given.config or "")
        own = OverrideFolder(name, given.files, text_format.MessageToString(message))
        own.add_user(user)
        try:
            prepare_config(message, name, own.path, strict=strict, history=history)
        except BaseException:
            own.remove_user(user)
            raise
        return PolledModel(message, history, own.path, own)
    folder = folders.find(identifier)
    files = file_times(folder)  # before they are read
    if given.config is not None:
        message, history = _read_override(name, given.config)
    else:
        message, history = read_config(
            name,
            folder,
            strict=strict,
            config_name=options.model_config_name,
            values=options.substitute_of(name),
        )
        if os.path.basename(folder) != name:
            message.name = name  # a mapping names it, whatever its configuration says
            history.note(ConfigStep.NAMED, message, "name_mapping of the repository")
    prepare_config(message, name, folder, strict=strict, history=history)
    return PolledModel(message, history, folder, None, files)


def _read_override(name: str, config: str) -> tuple[Any, ConfigHistory]:
    """The configuration that a load call gives."""
    message = from_json(config, model=name)
    history = ConfigHistory(None, load_call=config)
    history.note(ConfigStep.WRITTEN, message)
    return message, history
