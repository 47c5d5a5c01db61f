"""`triton_python_backend_utils` in `sys.modules` while a server needs it.

Model code finds its own copy lexically (see `_instance.namespace`); this registration is
for library code that imports the module by name. It is never installed as a top-level
package, where it would shadow Triton's own module inside a Triton container.
"""

from __future__ import annotations

import sys
import threading
from types import ModuleType
from typing import Any

from pytriton_lite import pb_utils
from pytriton_lite._instance.namespace import AmbientFinder, active_namespace

UTILS_NAME = "triton_python_backend_utils"
NATIVE_NAME = "c_python_backend_utils"


def utils_modules(logger_class: type[Any] | None = None) -> dict[str, ModuleType]:
    """Make fresh copies of both modules, with a `Logger` of their own if one is given."""
    utils = ModuleType(UTILS_NAME, pb_utils.__doc__)
    vars(utils).update({name: getattr(pb_utils, name) for name in pb_utils.__all__})
    native = ModuleType(NATIVE_NAME, "Native part of triton_python_backend_utils.")
    vars(native).update(pb_utils.NATIVE_NAMES)
    if logger_class is not None:
        for module in (utils, native):
            vars(module)["Logger"] = logger_class
    return {UTILS_NAME: utils, NATIVE_NAME: native}


def _model_dir_of_thread() -> str:
    namespace = active_namespace()
    utils = None if namespace is None else namespace.import_module(UTILS_NAME)
    if utils is None or not hasattr(utils, "get_model_dir"):
        raise AttributeError("get_model_dir() is available in model code only")
    result: str = utils.get_model_dir()
    return result


_lock = threading.Lock()
_users = 0
_finder = AmbientFinder()
_replaced: dict[str, ModuleType] = {}


def install() -> None:
    """Register the modules; each call needs one `uninstall`."""
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        modules = utils_modules()
        vars(modules[UTILS_NAME])["get_model_dir"] = _model_dir_of_thread
        for name, module in modules.items():
            if name in sys.modules:
                _replaced[name] = sys.modules[name]
            sys.modules[name] = module
        sys.meta_path.append(_finder)  # type: ignore[arg-type]  # a finder needs find_spec only


def uninstall() -> None:
    """Take the modules out again when nobody uses them any more."""
    global _users
    with _lock:
        _users -= 1
        if _users:
            return
        for name in (UTILS_NAME, NATIVE_NAME):
            sys.modules.pop(name, None)
        sys.modules.update(_replaced)
        _replaced.clear()
        if _finder in sys.meta_path:
            sys.meta_path.remove(_finder)  # type: ignore[arg-type]
        _finder.forget()
