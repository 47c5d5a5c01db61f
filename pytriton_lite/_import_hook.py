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

from pytriton_lite._control import InstanceScope
from pytriton_lite._instance.import_lists import add_finder_last, remove_finder
from pytriton_lite._instance.namespace import AmbientFinder, active_namespace
from pytriton_lite._utils_modules import UTILS_NAME, add_native_names, utils_modules
from pytriton_lite.pb_utils.control import find_no_scope, make_control_functions
from pytriton_lite.pb_utils.metrics import MetricFamily, MetricOwner, make_metric_family_class
from pytriton_lite.pb_utils.native import NATIVE_NAME


def _model_dir_of_thread() -> str:
    namespace = active_namespace()
    utils = None if namespace is None else namespace.import_module(UTILS_NAME)
    if utils is None or not hasattr(utils, "get_model_dir"):
        raise AttributeError("get_model_dir() is available in model code only")
    result: str = utils.get_model_dir()
    return result


def _metric_owner_of_thread() -> MetricOwner:
    namespace = active_namespace()
    if namespace is None:
        return MetricFamily._find_owner()  # raises
    native: Any = namespace.import_module(NATIVE_NAME)
    owner: MetricOwner = native.MetricFamily._find_owner()
    return owner


def _scope_of_thread() -> InstanceScope:
    namespace = active_namespace()
    scope = None if namespace is None else namespace.scope
    return find_no_scope() if scope is None else scope


_lock = threading.Lock()
_users = 0
_finder = AmbientFinder()
_replaced: dict[str, ModuleType] = {}


def install() -> None:
    """Register the modules; each call needs one `uninstall`."""
    global _users  # noqa: PLW0603 - sys.modules is the process's, so its users are counted there
    with _lock:
        _users += 1
        if _users > 1:
            return
        modules = utils_modules(
            {
                "MetricFamily": make_metric_family_class(_metric_owner_of_thread),
                **make_control_functions(_scope_of_thread),
            }
        )
        add_native_names(modules, _model_dir_of_thread)
        for name, module in modules.items():
            if name in sys.modules:
                _replaced[name] = sys.modules[name]
            sys.modules[name] = module
        add_finder_last(_finder)


def uninstall() -> None:
    """Take the modules out again when nobody uses them any more."""
    global _users  # noqa: PLW0603 - see install
    with _lock:
        _users -= 1
        if _users:
            return
        for name in (UTILS_NAME, NATIVE_NAME):
            sys.modules.pop(name, None)
        sys.modules.update(_replaced)
        _replaced.clear()
        remove_finder(_finder)
        _finder.forget()
