"""Load parameters: a configuration and files in place of those in the repository."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from pytriton_lite.errors import InternalError, InvalidArgumentError

FILE_PREFIX = "file:"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a load call gives.

    Attributes
    ----------
    config
        JSON text of the whole configuration; None for that in the repository.
    files
        Contents by path in the model folder; with any, the repository's folder is not used.
    """

    config: str | None
    files: dict[str, bytes]


def read_parameters(model_name: str, parameters: Mapping[str, object]) -> Overrides:
    """Sort the parameters of a load call.

    Raises
    ------
    InvalidArgumentError
        A parameter means nothing, or there are files without a configuration.
    """
    given = parameters.get("config")
    config = given if isinstance(given, str) else None
    files: dict[str, bytes] = {}
    for key, value in parameters.items():
        if isinstance(value, bytes | bytearray | memoryview):
            if key.startswith(FILE_PREFIX):
                files[key] = bytes(value)
                continue
            if config is not None:
                continue  # contents under another name are passed over then (observed on 2.51)
        elif key == "config" and config is not None:
            continue
        raise InvalidArgumentError(
            f"Unrecognized load parameter '{key}' with type '{_type_name(value)}'",
            model=model_name,
        )
    if files and config is None:
        raise InvalidArgumentError(
            "Load parameter 'config' must be specified for model file override", model=model_name
        )
    return Overrides(config, files)


def _type_name(value: object) -> str:
    for kind, name in (
        (bool, "BOOL"),
        (int, "INT"),
        (float, "DOUBLE"),
        (str, "STRING"),
        (bytes | bytearray | memoryview, "BYTES"),
    ):
        if isinstance(value, kind):
            return name
    return type(value).__name__


class OverrideFolder:
    """A model folder made of a load call's files; it is removed with its last user.

    Parameters
    ----------
    model_name
        For errors.
    files
        Contents by ``file:<path>``, as in `Overrides`.
    config_text
        Content of ``config.pbtxt``, unless that is among the files. Nothing reads it, but on
        Triton it is there (observed on 2.51).

    Raises
    ------
    InvalidArgumentError
        A path leaves the folder.
    InternalError
        A file cannot be written.
    """

    def __init__(self, model_name: str, files: Mapping[str, bytes], config_text: str) -> None:
        self.path = os.path.realpath(tempfile.mkdtemp(prefix="pytriton_lite_"))
        self._lock = threading.Lock()
        self._users: set[object] = set()
        contents = {os.path.join(self.path, "config.pbtxt"): config_text.encode()}
        try:
            for key, content in files.items():
                contents[self._inside(key, model_name)] = content
            for path, content in contents.items():
                _write(path, content, model_name)
        except BaseException:
            self._remove()
            raise

    def _inside(self, key: str, model_name: str) -> str:
        path = key.removeprefix(FILE_PREFIX)
        # A path that begins with a slash is below the folder, too (observed on 2.51).
        normal = os.path.normpath(f"{self.path}/{path}")
        if not f"{normal}/".startswith(f"{self.path}/"):
            raise InvalidArgumentError(
                f"Invalid file parameter '{key}' with normalized path '{normal}' must stay within "
                "model directory.",
                model=model_name,
            )
        # What ends in a slash names a folder, which cannot be written.
        return f"{normal}/" if path.endswith("/") else normal

    def add_user(self, user: object) -> None:
        """Keep the folder until `remove_user` was called with the same object."""
        with self._lock:
            self._users.add(user)

    def remove_user(self, user: object) -> None:
        """Remove the folder if nobody else uses it. Safe to call again."""
        with self._lock:
            if user not in self._users:
                return
            self._users.remove(user)
            is_last = not self._users
        if is_last:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _write(path: str, content: bytes, model_name: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InternalError(
            f"failed to open binary file for write {path}: {reason}", model=model_name
        ) from error
