"""A private module namespace for every instance.

On Triton each instance has an interpreter of its own, so two backends with a package
``utils`` never meet and module globals belong to one instance. Here many instances share
one interpreter, and each gets:

* a package under a unique name in `sys.modules`, below which the modules of its own
  folders are loaded: ``utils`` becomes ``<unique>.utils``;
* a private ``__builtins__`` in the globals of each of those modules, whose ``__import__``
  looks into the instance's folders by Triton's rule: they come last on the path, so an
  installed package of the same name wins. An import is thereby resolved by the code that
  contains it, at any time and on any thread;
* `importlib` as a proxy whose `import_module` does the same, and its own
  `triton_python_backend_utils` and `c_python_backend_utils`.

What is not lexical is library code that imports the model's modules by name (``pickle``,
``unittest.main("model")``): `AmbientFinder` resolves those by the instance whose code the
current thread runs.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib
import importlib.util
import itertools
import os
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType
from typing import Any

from pytriton_lite._control import InstanceScope
from pytriton_lite._core.contract import Contract, current_contract
from pytriton_lite._instance.import_lists import add_finder_first, remove_finder, remove_folders
from pytriton_lite._instance.spawn_folder import TRIGGERS, SpawnFolder

_numbers = itertools.count()
_spawn_folder = SpawnFolder()


def _installed_path() -> list[str]:
    """Entries of `sys.path` that a model's interpreter on Triton would have too.

    Those are the standard library, the site folders and PYTHONPATH, but not the folder of
    the user's script or what a test runner put there.
    """
    paths = sysconfig.get_paths()
    installed = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    installed.update(site.getsitepackages(), [site.getusersitepackages()])
    installed.update(os.environ.get("PYTHONPATH", "").split(os.pathsep))
    # `lib` and `lib64`; an application may well live elsewhere below /usr.
    prefixes = tuple(os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.prefix))
    return [p for p in sys.path if p and (p in installed or p.startswith(prefixes))]


def _unique_name(label: str) -> str:
    """Name of a private package; in a child the number may be taken by one of the parent's."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", label)
    names = (f"pytriton_lite_{number}_{plain}" for number in _numbers)
    return next(name for name in names if name not in sys.modules)


class _PrivateSourceLoader(SourceFileLoader):
    """Loads a source file into a namespace."""

    namespace: ModuleNamespace

    def exec_module(self, module: ModuleType) -> None:
        self.namespace.prepare(module)
        super().exec_module(module)


class _PrivateBytecodeLoader(SourcelessFileLoader):
    """Loads a ``.pyc`` without source into a namespace."""

    namespace: ModuleNamespace

    def exec_module(self, module: ModuleType) -> None:
        self.namespace.prepare(module)
        super().exec_module(module)


class ModuleNamespace:
    """Modules of one instance (or of one run of `auto_complete_config`).

    Parameters
    ----------
    label
        Appears in module names; the unique name is made from it.
    search_path
        Folders whose modules are private, in the order in which Triton appends them to
        `sys.path`.
    folders
        The model's and the backend's folder: modules below them are private as well once
        model code adds a folder below them to `sys.path`.
    injected
        Modules under top-level names of their own, such as `triton_python_backend_utils`.
    root
        The unique name: that of the same namespace in the parent process. When None it is
        made from `label` and a number.

    Attributes
    ----------
    scope
        The instance whose modules they are; None until it is set.
    is_for_good
        Whether the modules stay as they are until the interpreter ends, for what runs at its exit.
    """

    is_for_good = False
    scope: InstanceScope | None = None

    def __init__(
        self,
        label: str,
        search_path: Sequence[str],
        folders: Sequence[str],
        injected: Mapping[str, ModuleType],
        *,
        root: str | None = None,
    ) -> None:
        self.root = root or _unique_name(label)
        self._is_inherited = root is not None
        self.prefix = self.root + "."
        self._folders = [os.path.join(os.path.realpath(folder), "") for folder in folders]
        self._injected = dict(injected)
        self._finders: dict[str, FileFinder] = {}
        self._is_private: dict[str, bool] = {}
        self._path_before = list(sys.path)
        self._builtins = dict(vars(builtins))
        self._builtins["__import__"] = self._import
        self._injected["importlib"] = self._importlib_proxy()
        package = ModuleType(self.root)
        package.__path__ = self._search_path = [os.path.realpath(p) for p in search_path]
        package.__spec__ = ModuleSpec(self.root, None, is_package=True)
        sys.modules[self.root] = package
        add_finder_first(self)
        if not TRIGGERS.isdisjoint(sys.modules):
            self._expect_children()

    # -- loading -----------------------------------------------------------------------

    def load(self, name: str) -> ModuleType:
        """Import the module that is called `name` inside the namespace."""
        with self.active():
            return importlib.import_module(self.prefix + name)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module of this namespace; part of the import protocol."""
        if fullname in TRIGGERS:
            self._expect_children()
        if path is None or not fullname.startswith(self.prefix):
            return None
        portions: list[str] = []
        for entry in path:
            spec = self._finder(entry).find_spec(fullname)
            if spec is None:
                continue
            if spec.loader is not None:
                if isinstance(spec.loader, _PrivateSourceLoader | _PrivateBytecodeLoader):
                    spec.loader.namespace = self
                return spec
            portions.extend(spec.submodule_search_locations or ())
        if not portions:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = portions
        return spec

    def _finder(self, entry: str) -> FileFinder:
        finder = self._finders.get(entry)
        if finder is None:
            finder = self._finders[entry] = FileFinder(
                entry,
                (ExtensionFileLoader, EXTENSION_SUFFIXES),
                (_PrivateSourceLoader, SOURCE_SUFFIXES),
                (_PrivateBytecodeLoader, BYTECODE_SUFFIXES),
            )
        return finder

    def prepare(self, module: ModuleType) -> None:
        """Give a fresh module the private builtins, before its body runs."""
        vars(module)["__builtins__"] = self._builtins
        if module.__package__ == self.root:
            # A top-level module on Triton: it has no parent package, so a relative import fails.
            module.__package__ = ""

    def add_builtin(self, name: str, value: object) -> None:
        """Add a name that all code of the namespace can be known by."""
        self._builtins[name] = value

    def _expect_children(self) -> None:
        """Let children that are spawned from now on import these modules by their names."""
        if not self._is_inherited:  # else this process has the folder from its parent, to pass on
            _spawn_folder.add(self.root, self._search_path, self._folders)

    # -- importing from model code -----------------------------------------------------

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level:
            self._check_relative(globals, level)
            with self._plain_names():
                return builtins.__import__(name, globals, locals, fromlist or (), level)
        top = name.partition(".")[0]
        injected = self._injected.get(top)
        if injected is not None and (name == top or not fromlist):
            if name != top:
                importlib.import_module(name)  # `import importlib.util`: the proxy shows it
            return injected
        if not self.is_private(top):
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        with self._plain_names():
            module = builtins.__import__(self.prefix + name, globals, locals, fromlist or (), 0)
        return module if fromlist else sys.modules[self.prefix + top]

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """`importlib.import_module` as model code sees it."""
        if name.startswith("."):
            name = importlib.util.resolve_name(name, package or "")
        if name in self._injected:
            return self._injected[name]
        if name.startswith(self.prefix) or not self.is_private(name.partition(".")[0]):
            return importlib.import_module(name)
        with self._plain_names():
            return importlib.import_module(self.prefix + name)

    def is_private(self, top: str) -> bool:
        """Whether the top-level module `top` is one of the instance's own."""
        known = self._is_private.get(top)
        if known is None:
            found = self._decide(top)
            if found is None:
                return False  # not there (yet): ask again next time
            known = self._is_private[top] = found
        return known

    def _decide(self, top: str) -> bool | None:
        if top in sys.builtin_module_names or top in sys.stdlib_module_names:
            return False
        installed = PathFinder.find_spec(top, _installed_path())
        if installed is not None and installed.loader is not None:
            return False
        if self.find_spec(self.prefix + top, self._search_path) is not None:
            return True
        if installed is not None:
            return False
        self._adopt_added_folders()
        found = self.find_spec(self.prefix + top, self._search_path)
        return None if found is None else True

    def _adopt_added_folders(self) -> None:
        """Search folders of the model's that its code has added to `sys.path`."""
        added = [p for p in map(os.path.realpath, sys.path) if self._is_own_folder(p)]
        self._search_path.extend(p for p in added if p not in self._search_path)

    def _is_own_folder(self, path: str) -> bool:
        return os.path.join(path, "").startswith(tuple(self._folders))

    def _check_relative(self, globals: Mapping[str, Any] | None, level: int) -> None:
        package = (globals or {}).get("__package__") or ""
        if not package:
            raise ImportError("attempted relative import with no known parent package")
        if package.count(".") < level:
            # One step more would leave the instance's own modules.
            raise ImportError("attempted relative import beyond top-level package")

    def _importlib_proxy(self) -> ModuleType:
        proxy = _ImportlibProxy("importlib", importlib.__doc__)
        proxy.import_module = self.import_module  # type: ignore[attr-defined]
        proxy.__import__ = self._import  # type: ignore[attr-defined]
        return proxy

    @contextlib.contextmanager
    def _plain_names(self) -> Iterator[None]:
        """Let import errors speak of the names that the model used."""
        try:
            yield
        except ImportError as error:
            if isinstance(error.name, str):
                error.name = error.name.removeprefix(self.prefix)
            error.msg = self.plain(error.msg or "")
            error.args = (error.msg, *error.args[1:])
            raise

    def plain(self, text: str) -> str:
        """Replace the private names in a text by those that the model used."""
        return text.replace(self.prefix, "")

    # -- the thread's current namespace ------------------------------------------------

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make this the namespace of imports by name on the current thread."""
        before = _active.namespace, _active.outer_contract
        _active.namespace, _active.outer_contract = self, current_contract()
        try:
            yield
        finally:
            _active.namespace, _active.outer_contract = before

    # -- end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Forget the modules and undo what they did to `sys.path`. Safe to call twice."""
        remove_finder(self)
        _spawn_folder.remove(self.root)
        for name in list(sys.modules):
            if name != self.root and not name.startswith(self.prefix):
                continue
            del sys.modules[name]
        added = [entry for entry in sys.path if entry not in self._path_before]
        remove_folders([entry for entry in added if self._is_own_folder(os.path.realpath(entry))])
        self._finders.clear()
        self._injected.clear()


class _ImportlibProxy(ModuleType):
    """`importlib` with the instance's `import_module`; all else comes from the real module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


class _Active(threading.local):
    namespace: ModuleNamespace | None = None
    # The contract that ran when `namespace` became active: an inline model may load another
    # one in its `execute`, and then the other one's code runs.
    outer_contract: Contract | None = None


_active = _Active()


def active_namespace() -> ModuleNamespace | None:
    """Namespace of the instance whose code the current thread runs, or None."""
    contract = current_contract()
    if contract is not None and contract is not _active.outer_contract:
        namespace: ModuleNamespace | None = contract.namespace
        return namespace
    return _active.namespace


class _AmbientModule(ModuleType):
    """Stands in `sys.modules` for a name that means another module in each instance."""

    def __getattr__(self, name: str) -> Any:
        namespace = active_namespace()
        if namespace is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(namespace.import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        namespace = active_namespace()
        return [] if namespace is None else dir(namespace.import_module(self.__name__))


class AmbientFinder:
    """Last finder of all: library code that imports a module of the running model by name.

    Such an import is not written in the model, so it cannot be resolved lexically; what it
    finds depends on the thread. Behind every other finder, so that it changes nothing that
    could be imported without it.
    """

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a name that is private in the instance of the current thread."""
        namespace = active_namespace()
        if namespace is None or not namespace.is_private(fullname.partition(".")[0]):
            return None
        namespace.import_module(fullname)  # raises here, where the text is right
        return ModuleSpec(fullname, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make the stand-in."""
        return _AmbientModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Leave the stand-in empty."""

    @staticmethod
    def forget() -> None:
        """Remove all stand-ins from `sys.modules`."""
        for name in [n for n, m in list(sys.modules.items()) if isinstance(m, _AmbientModule)]:
            del sys.modules[name]
