"""Backend resolution: which `model.py` runs a model.

Follows Triton's search (observed on 2.51). Where Triton loads three artifacts of its
Python backend (`libtriton_python.so`, the stub, the utils file), this package plays all
three, so they are neither needed nor looked at.

With ``B`` the backend directory, ``b`` the backend, ``R`` the model folder and ``V`` its
version folder: a library ``libtriton_<b>.so`` in V, R or B/b makes a native backend, which
cannot run here; else ``B/b/model.py`` makes a Python-based backend, shared by all models
that name it; the backend ``python`` takes the model's own file in V.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytriton_lite.errors import InvalidArgumentError, NotFoundError, UnsupportedError

_log = logging.getLogger("pytriton_lite.server")

PYTHON = "python"
MODEL_PY = "model.py"
_PYTHON_LIBRARY = "libtriton_python.so"


@dataclass(frozen=True, slots=True)
class ResolvedBackend:
    """Where the code of one model version is.

    Attributes
    ----------
    name
        The backend.
    is_shared
        A Python-based backend, shared by models; else a plain Python model.
    folder
        ``B/b`` of a Python-based backend, None for a plain model.
    model_file
        The file to import; it need not exist.
    module_name
        Name of its module on Triton: ``model``, or ``<version>.model``.
    search_path
        Folders that Triton appends to `sys.path`, in order.
    runtime
        The config's ``runtime`` as the model sees it.
    """

    name: str
    is_shared: bool
    folder: str | None
    model_file: str
    module_name: str
    search_path: tuple[str, ...]
    runtime: str


@dataclass(frozen=True, slots=True)
class BackendRecord:
    """One row of the backend table.

    Attributes
    ----------
    name
        Backend name.
    path
        ``model.py`` of a Python-based backend; for ``python`` the folder of this package,
        which stands for Triton's library.
    config
        ``{"cmdline": {key: value}}``, all str.
    """

    name: str
    path: str
    config: dict[str, dict[str, str]]


class BackendTable(tuple[BackendRecord, ...]):
    """The backends that loaded models use; `str()` is the table that Triton logs."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("Backend", "Path", "Config")]
        rows += [(r.name, r.path, json.dumps(r.config, separators=(",", ":"))) for r in self]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
        lines = [
            "|"
            + "|".join(f" {cell:<{width}} " for cell, width in zip(row, widths, strict=True))
            + "|"
            for row in rows
        ]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def backend_table(
    backends: Iterable[ResolvedBackend],
    *,
    backend_directory: str,
    auto_complete_config: bool,
    settings: Mapping[str, Mapping[str, str]],
) -> BackendTable:
    """Make the table of the given backends.

    A Python-based backend shows the settings of ``python``, as on Triton, and adds a row
    ``python`` even when no model names that.
    """
    # Key order and formats as Triton 2.51 prints them.
    cmdline = {
        "auto-complete-config": str(auto_complete_config).lower(),
        "backend-directory": backend_directory,
        "min-compute-capability": "6.000000",
        **{key: str(value) for key, value in settings.get(PYTHON, {}).items()},
    }
    cmdline.setdefault("default-max-batch-size", "4")
    paths: dict[str, str] = {}
    for backend in backends:
        paths[backend.name] = backend.model_file if backend.is_shared else ""
    if paths:
        paths.pop(PYTHON, None)
        paths[PYTHON] = str(Path(__file__).parent)
    return BackendTable(
        BackendRecord(name, path, {"cmdline": cmdline}) for name, path in paths.items()
    )


def resolve_backend(
    *,
    model_name: str,
    backend: str,
    runtime: str,
    default_model_filename: str,
    model_folder: str,
    version: int,
    backend_directory: str,
) -> ResolvedBackend:
    """Find the code of one model version.

    Parameters
    ----------
    backend, runtime, default_model_filename
        Fields of the normalised configuration; `backend` is not empty.
    model_folder
        ``R``; the version folder is ``R/<version>``.
    backend_directory
        ``B``.

    Raises
    ------
    InvalidArgumentError
        Nothing found; the text is Triton's, followed by every path tried.
    NotFoundError
        ``runtime`` names a file that is there but no library.
    UnsupportedError
        A native library was found.
    """
    version_folder = os.path.join(model_folder, str(version))
    folder = os.path.join(backend_directory, backend)
    if os.path.dirname(os.path.normpath(folder)) != os.path.normpath(backend_directory):
        raise InvalidArgumentError(
            f"backend name '{backend}' of model '{model_name}' escapes backend directory "
            f"'{backend_directory}'",
            model=model_name,
        )
    plain = ResolvedBackend(
        name=backend,
        is_shared=False,
        folder=None,
        model_file=os.path.join(version_folder, default_model_filename or MODEL_PY),
        module_name=f"{version}.{(default_model_filename or MODEL_PY).removesuffix('.py')}",
        search_path=(version_folder, model_folder),
        runtime=runtime,
    )
    shared = ResolvedBackend(
        name=backend,
        is_shared=True,
        folder=folder,
        model_file=os.path.join(folder, MODEL_PY),
        module_name="model",
        search_path=(folder,),
        runtime=MODEL_PY,
    )
    if runtime == MODEL_PY:
        if os.path.isfile(shared.model_file):
            return shared
        raise InvalidArgumentError(
            f"unable to find Python backend based backend library '{MODEL_PY}' for model "
            f"'{model_name}', searched: '{shared.model_file}'",
            model=model_name,
        )
    searched = [version_folder, model_folder, folder]
    if runtime and not (backend == PYTHON and runtime == _PYTHON_LIBRARY):
        _refuse_runtime(runtime, searched, model_name)

    library = f"libtriton_{backend}.so"
    # Triton's own B/python/libtriton_python.so is the one library that we stand for.
    for place in searched[:2] if backend == PYTHON else searched:
        path = os.path.join(place, library)
        if os.path.isfile(path):
            raise UnsupportedError(
                f"backend '{backend}' of model '{model_name}' is a native library, '{path}': only "
                "Python models and Python-based backends run here",
                model=model_name,
            )
    if backend == PYTHON:
        return plain
    if os.path.isfile(shared.model_file):
        return shared
    tried = [os.path.join(place, library) for place in searched] + [shared.model_file]
    raise InvalidArgumentError(
        f"unable to find backend library for backend '{backend}', try specifying runtime on the "
        "model configuration. Searched: "
        + " ".join(f"'{path}'" for path in tried)
        + _nearest_backend(backend, backend_directory),
        model=model_name,
    )


def _refuse_runtime(runtime: str, searched: list[str], model_name: str) -> None:
    """Raise what Triton does for a ``runtime`` that names a library, which none can be here."""
    for place in searched:
        path = os.path.normpath(os.path.join(place, runtime))
        if not path.startswith(os.path.join(place, "")):
            raise InvalidArgumentError(
                f"backend library name '{runtime}' escapes backend directory '{place}', for model "
                f"'{model_name}', check model config runtime field",
                model=model_name,
            )
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            is_library = file.read(4) == b"\x7fELF"
        if is_library:
            raise UnsupportedError(
                f"runtime '{runtime}' of model '{model_name}' is a native library, '{path}': only "
                "Python models and Python-based backends run here",
                model=model_name,
            )
        hint = (
            "; only the name 'model.py' makes a Python-based backend"
            if path.endswith(".py")
            else ""
        )
        raise NotFoundError(
            f"unable to load shared library: {path}: invalid ELF header{hint}", model=model_name
        )
    raise InvalidArgumentError(
        f"unable to find backend library '{runtime}' for model '{model_name}', searched: "
        + "".join(f"'{place}' " for place in searched),
        model=model_name,
    )


def _nearest_backend(backend: str, backend_directory: str) -> str:
    import difflib  # for this case alone

    try:
        names = [entry.name for entry in os.scandir(backend_directory) if entry.is_dir()]
        missing = ""
    except OSError:
        names = []
        missing = (
            f"; there is no backend directory '{backend_directory}': "
            "the server's option backend_directory names it"
        )
    # The one that is always there.
    near = difflib.get_close_matches(backend, [*names, "python"], 1)
    return f"; did you mean '{near[0]}'?" if near else missing
