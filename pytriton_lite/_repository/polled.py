"""A model as a load finds it: in a repository, or in the parameters of the load call."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import text_format

from pytriton_lite._config.json_form import from_json
from pytriton_lite._config.pbtxt import place_error
from pytriton_lite._loading import config_path, parse_config, prepare_config
from pytriton_lite._options import Options
from pytriton_lite._overrides import OverrideFolder, read_parameters
from pytriton_lite._repository.files import FileTimes, file_times
from pytriton_lite._repository.folders import RepositoryFolders, check_name
from pytriton_lite.errors import ConfigError, TritonError


class PolledModel(NamedTuple):
    """A prepared configuration, and where the model's files are.

    Attributes
    ----------
    own_folder
        Is `folder` when the load call gave the files.
    files
        Those in the repository, as they were before they were read.
    config_file
        Where the configuration was written, for errors.
    """

    message: Any
    folder: str
    own_folder: OverrideFolder | None
    files: FileTimes | None = None
    config_file: str | None = None


class PollError(Exception):
    """A model could not be read. Its text is Triton's, which has the reason in its log only."""

    def __init__(self, name: str, reason: TritonError) -> None:
        super().__init__(f"failed to load '{name}', failed to poll from model repository")
        self.reason = reason


def poll_model(
    name: str,
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
    given = read_parameters(name, parameters)
    strict = options.strict_model_config
    if given.files:
        check_name(name)
        message = from_json(given.config or "", model=name)
        own = OverrideFolder(name, given.files, text_format.MessageToString(message))
        own.add_user(user)
        try:
            prepare_config(message, name, own.path, strict=strict)
        except BaseException:
            own.remove_user(user)
            raise
        return PolledModel(message, own.path, own)
    folder = folders.find(name)
    files = file_times(folder)  # before they are read
    if given.config is not None:
        message = from_json(given.config, model=name)
        prepare_config(message, name, folder, strict=strict)
        return PolledModel(message, folder, None, files)
    config_name = options.model_config_name
    message = parse_config(name, folder, strict=strict, config_name=config_name)
    if os.path.basename(folder) != name:
        message.name = name  # a mapping names it, whatever its configuration says
    file = config_path(folder, config_name)
    try:
        prepare_config(message, name, folder, strict=strict)
    except ConfigError as error:
        place_error(error, file)
        raise
    return PolledModel(message, folder, None, files, config_file=file)
