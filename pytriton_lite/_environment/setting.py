"""Where the execution environment of a model is."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pytriton_lite._backend import ResolvedBackend
from pytriton_lite.errors import InternalError

PARAMETER = "EXECUTION_ENV_PATH"
_MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"
_BACKEND_ARCHIVE = "pb_exec_env_model.py.tar.gz"


def environment_setting(
    parameters: Mapping[str, str], backend: ResolvedBackend, model_folder: str
) -> str | None:
    """Find the path that a model names as its execution environment.

    Parameters
    ----------
    parameters
        Of the model's configuration.
    backend
        Of the model; a Python-based one may carry an environment for all its models.
    model_folder
        ``R``.

    Returns
    -------
    str or None
        The path as Triton would look it up, not resolved yet; None for the server's own
        interpreter.
    """
    given = parameters.get(PARAMETER)
    if given is None:
        if backend.folder is None:
            return None
        archive = os.path.join(backend.folder, _BACKEND_ARCHIVE)
        return archive if os.path.exists(archive) else None
    # An empty value also keeps the backend's archive from being used (observed on 2.51).
    if not given:
        return None
    # Elsewhere in the path 2.51 replaces the name, too, and cuts off what follows: a defect.
    if given.startswith(_MODEL_DIRECTORY):
        given = model_folder + given[len(_MODEL_DIRECTORY) :]
    return _without_parents(given)


def _without_parents(path: str) -> str:
    """Drop each ``name/..`` without looking at the disk, as 2.51 does (observed)."""
    if ".." not in path:
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] not in ("", ".", ".."):
            parts.pop()
        elif part != ".." or parts != [""]:
            parts.append(part)
    return "/".join(parts) or ("/" if path.startswith("/") else ".")


def canonical_path(setting: str, model_name: str) -> str:
    """Resolve links, so that one environment has one name.

    A relative path starts at the working directory, and ``~`` means nothing (both observed
    on 2.51).

    Raises
    ------
    InternalError
        There is no such file or folder, or its name cannot be used.
    """
    try:
        # A trailing slash asks for a folder; `realpath` would drop it unseen.
        os.stat(setting)
        path = os.path.realpath(setting, strict=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        failure = InternalError(
            f"Failed to get the canonical path for {setting}.", model=model_name
        )
        failure.add_note(
            f"Model '{model_name}' asks for it by its parameter '{PARAMETER}': {reason}."
            + _path_hint(setting)
        )
        raise failure from error
    if os.pathsep in path:
        raise InternalError(
            f"The execution environment '{path}' of model '{model_name}' has a '{os.pathsep}' in "
            "its path, which separates the folders of PATH: it cannot be used under this name.",
            model=model_name,
        )
    return path


def _path_hint(setting: str) -> str:
    if _MODEL_DIRECTORY in setting:
        return f" '{_MODEL_DIRECTORY}' is replaced at the start of the path only."
    if setting.startswith("$"):
        return f" The model folder is written '{_MODEL_DIRECTORY}', with two dollar signs."
    if setting.startswith("~"):
        return " '~' is not replaced by a home folder."
    if not setting.startswith("/"):
        return (
            " The path is relative to the working directory of the server; write "
            f"'{_MODEL_DIRECTORY}/...' for a path in the model folder."
        )
    return ""
