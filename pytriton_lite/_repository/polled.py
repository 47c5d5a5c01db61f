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
from pytriton_lite._repository.files import FileTimes, ReadFiles, file_times
from pytriton_lite._repository.folders import RepositoryFolders, check_name
from pytriton_lite.errors import ConfigError, TritonError


class PolledModel(NamedTuple):
    """A prepared configuration, and where the model's files are.

    Attributes
    ----------
    own_folder
        Is `folder` when the load call gave the files.
    given_config
        JSON text of the configuration, when the load call gave it.
    files
        Those in the repository, as they were before they were read.
    config_file
        Where the configuration was written, for errors.
    """

    message: Any
    folder: str
    own_folder: OverrideFolder | None = None
    given_config: str | None = None
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
    read: ReadFiles | None = None,
) -> PolledModel:
    """Read a model.

    Parameters
    ----------
    parameters
        Of the load call.
    user
        Keeps the folder of given files, see `OverrideFolder.add_user`.
    read
        Takes what is read of the repository.

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
        return _poll_own_folder(name, own, given.config or "", user, strict=strict)
    folder = folders.find(name)
    files = file_times(folder)  # before they are read
    if read is not None:
        read.add(folder)
    if given.config is not None:
        message = from_json(given.config, model=name)
        prepare_config(message, name, folder, strict=strict)
        return PolledModel(message, folder, None, given.config, files)
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
    return PolledModel(message, folder, files=files, config_file=file)


def poll_again(
    name: str,
    last: PolledModel | None,
    user: object,
    *,
    folders: RepositoryFolders,
    options: Options,
    read: ReadFiles,
) -> PolledModel:
    """Read a model again, with what the call that loaded it gave; None: nothing.

    For the parameters see `poll_model`. The folder of given files must have a user.

    Raises
    ------
    TritonError
        There is no such model any more, or its configuration is not valid.
    """
    config = None if last is None else last.given_config
    if last is not None and last.own_folder is not None:
        strict = options.strict_model_config
        return _poll_own_folder(name, last.own_folder, config or "", user, strict=strict)
    parameters = {} if config is None else {"config": config}
    return poll_model(name, parameters, user, folders=folders, options=options, read=read)


def _poll_own_folder(
    name: str, own: OverrideFolder, config: str, user: object, *, strict: bool
) -> PolledModel:
    message = from_json(config, model=name)
    own.add_user(user)
    try:
        prepare_config(message, name, own.path, strict=strict)
    except BaseException:
        own.remove_user(user)
        raise
    return PolledModel(message, own.path, own, config)
