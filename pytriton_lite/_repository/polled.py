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
from pytriton_lite._repository.files import FileTimes, ReadFiles, file_times
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
    given_config
        JSON text of the configuration, when the load call gave it.
    files
        Those in the repository, as they were before they were read.
    """

    message: Any
    history: ConfigHistory
    folder: str
    own_folder: OverrideFolder | None = None
    given_config: str | None = None
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
    name = folders.name_of(identifier)
    given = read_parameters(name, parameters)
    strict = options.strict_model_config
    if given.files:
        check_name(name)
        message = from_json(given.config or "", model=name)
        own = OverrideFolder(name, given.files, text_format.MessageToString(message))
        return _poll_own_folder(name, own, given.config or "", user, strict=strict)
    folder = folders.find(identifier)
    files = file_times(folder)  # before they are read
    if read is not None:
        read.add(folder)
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
    return PolledModel(message, history, folder, None, given.config, files)


def poll_again(
    identifier: str,
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
        name = folders.name_of(identifier)
        return _poll_own_folder(name, last.own_folder, config or "", user, strict=strict)
    parameters = {} if config is None else {"config": config}
    return poll_model(identifier, parameters, user, folders=folders, options=options, read=read)


def _poll_own_folder(
    name: str, own: OverrideFolder, config: str, user: object, *, strict: bool
) -> PolledModel:
    message, history = _read_override(name, config)
    own.add_user(user)
    try:
        prepare_config(message, name, own.path, strict=strict, history=history)
    except BaseException:
        own.remove_user(user)
        raise
    return PolledModel(message, history, own.path, own, config)


def _read_override(name: str, config: str) -> tuple[Any, ConfigHistory]:
    """The configuration that a load call gives."""
    message = from_json(config, model=name)
    history = ConfigHistory(None, load_call=config)
    history.note(ConfigStep.WRITTEN, message)
    return message, history
