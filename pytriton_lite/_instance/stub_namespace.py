"""Modules of the one instance in a stub: the interpreter's own, as on Triton."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from pytriton_lite._control import InstanceScope

# Has the module that children of the model import, at the place of Triton's own.
_ARTIFACTS = str(Path(__file__).with_name("artifacts"))


class StubNamespace:
    """Has the methods of `ModuleNamespace` that its users call.

    Parameters
    ----------
    label, folders
        Without a meaning here.
    search_path
        Appended to `sys.path`, so that installed packages come first.
    injected
        Modules under top-level names of their own, such as `triton_python_backend_utils`.
    """

    prefix = ""
    is_for_good = True
    scope: InstanceScope | None = None

    def __init__(
        self,
        label: str,
        search_path: Sequence[str],
        folders: Sequence[str],
        injected: Mapping[str, ModuleType],
    ) -> None:
        sys.path.extend([*search_path, _ARTIFACTS])
        sys.modules.update(injected)

    def load(self, name: str) -> ModuleType:
        """Import a module."""
        return importlib.import_module(name)

    def add_builtin(self, name: str, value: object) -> None:
        """Add a name that all code of the interpreter can be known by."""
        vars(builtins)[name] = value

    def plain(self, text: str) -> str:
        """Return the text as it is: no name is private."""
        return text

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Do nothing: there is one instance."""
        yield

    def close(self) -> None:
        """Do nothing: the interpreter ends."""
