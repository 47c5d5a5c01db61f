"""Loading and unloading of models by model code."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import FunctionType
from typing import Any, NoReturn

from pytriton_lite._control import InstanceScope
from pytriton_lite._core.tensor import TritonModelException
from pytriton_lite.errors import InvalidArgumentError, TritonError, UnsupportedError
from pytriton_lite.pb_utils.native import NATIVE_NAME, WrongType, native, refusal, text_of

_MAX_VERSION = (1 << 63) - 1


def find_no_scope() -> NoReturn:
    """Refuse to reach a server from outside of a model."""
    raise UnsupportedError(
        "this function belongs to no server: models are loaded and unloaded by model code, with "
        "the `triton_python_backend_utils` that it imports, or by `Server.load` and `unload`"
    )


def make_control_functions(
    find_scope: Callable[[], InstanceScope],
) -> dict[str, Callable[..., Any]]:
    """Make the functions for one instance, or for all that `find_scope` tells apart."""

    @native("(model_name: str, config: str = '', files: object = None) -> None")
    def load_model(
        model_name: str, config: str = "", files: dict[str, bytes] | None = None
    ) -> None:
        """Load a model, or load it anew, and wait until it is ready. Explicit mode only.

        What it replaces, which may be this very model, serves its last requests in the
        background.

        Parameters
        ----------
        model_name
            Name of its folder in a repository.
        config
            JSON text that replaces its ``config.pbtxt``; empty to keep that.
        files
            Contents by ``"file:<path in the model folder>"``: the folder then consists of
            these files. They need `config`. Other keys are passed over.

        Raises
        ------
        TypeError
            Arguments of another type.
        TritonModelException
            The model did not load; ``__cause__`` is the error that tells why.
        """
        name, config = text_of(model_name), text_of(config)
        parameters: dict[str, str | bytes] = {"config": config} if config else {}
        parameters.update(_contents(name, files))
        scope = find_scope()
        try:
            scope.control().load(name, parameters)
        except TritonError as error:
            raise refusal("Failed to load model", scope.name, str(error)) from error

    @native("(model_name: str, unload_dependents: bool = False) -> None")
    def unload_model(model_name: str, unload_dependents: bool = False) -> None:
        """Stop serving a model, and return at once. Explicit mode only.

        The requests that it has accepted are served, then `finalize` runs. A model may unload
        itself.

        Parameters
        ----------
        model_name
            An unknown one is no error.
        unload_dependents
            Without effect: no model depends on others here.

        Raises
        ------
        TypeError
            Arguments of another type.
        TritonModelException
            The server allows no model control, or is not ready.
        """
        name = text_of(model_name)
        _check_bool(unload_dependents)
        scope = find_scope()
        try:
            scope.control().unload(name)
        except TritonError as error:
            raise refusal("Failed to unload model", scope.name, str(error)) from error

    @native("(model_name: str, model_version: str = '') -> bool")
    def is_model_ready(model_name: str, model_version: str = "") -> bool:
        """Whether a model takes requests; False for an unknown one.

        Parameters
        ----------
        model_name
            Name of the model.
        model_version
            A number as text; empty for any version.

        Raises
        ------
        TypeError
            Arguments of another type.
        TritonModelException
            `model_version` is no version number, or the server is not ready.
        """
        name, version = text_of(model_name), text_of(model_version)
        scope = find_scope()
        try:
            control = scope.control()
            # Asked first: where the server is not ready Triton does not look at the version.
            is_ready = control.is_ready(name, -1)
            return control.is_ready(name, _version_number(version)) if version else is_ready
        except TritonError as error:
            raise refusal("Failed to check model readiness", scope.name, str(error)) from error

    functions: dict[str, Callable[..., Any]] = {}
    for function in (load_model, unload_model, is_model_ready):
        assert isinstance(function, FunctionType)
        function.__module__ = NATIVE_NAME
        function.__qualname__ = function.__name__
        functions[function.__name__] = function
    return functions


def _contents(name: str, files: object) -> dict[str, bytes]:
    if files is None:
        return {}
    if not isinstance(files, dict):
        raise TritonModelException(
            f"failed to load model '{name}', files should be a dictionary of file paths and "
            "file contents"
        )
    contents = {}
    for path, content in files.items():
        try:
            key = text_of(path)
        except WrongType:
            raise RuntimeError(
                "Unable to cast Python instance to C++ type (#define "
                "PYBIND11_DETAILED_ERROR_MESSAGES or compile in debug mode for details)"
            ) from None
        if not isinstance(content, bytes):
            raise TypeError(
                f"Object of type '{type(content).__name__}' is not an instance of 'bytes'"
            )
        contents[key] = content
    return contents


def _check_bool(value: object) -> None:
    """Refuse what has no truth value of its own: None, texts, lists (observed on 2.51)."""
    if value is None or not hasattr(type(value), "__bool__"):
        raise WrongType
    try:
        bool(value)
    except Exception:
        raise WrongType from None


def _version_number(text: str) -> int:
    """The version as C's `strtol` reads it: what follows the digits does not matter."""
    prefix = f"failed to get model version from specified version string '{text}'"
    rule = "version should be an integral value > 0"
    found = re.match(r"[ \t\n\v\f\r]*([+-]?[0-9]+)", text)
    try:
        number = None if found is None else int(found[1])
    except ValueError:  # more digits than Python converts
        number = None
    if number is None or not -_MAX_VERSION - 1 <= number <= _MAX_VERSION:
        raise InvalidArgumentError(f"{prefix} (details: stol), {rule}")
    if number < 0:
        raise InvalidArgumentError(f"{prefix}, {rule}")
    return number


_outside = make_control_functions(find_no_scope)
load_model = _outside["load_model"]
unload_model = _outside["unload_model"]
is_model_ready = _outside["is_model_ready"]
