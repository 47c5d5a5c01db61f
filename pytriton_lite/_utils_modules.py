"""Copies of `triton_python_backend_utils` and of its native part, one pair for each instance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pytriton_lite import pb_utils
from pytriton_lite.pb_utils.native import NATIVE_NAME

UTILS_NAME = "triton_python_backend_utils"


class _Utils(ModuleType):
    """`triton_python_backend_utils`, at first without the names that its native part adds.

    On Triton those names come after the model's module was imported (observed on 2.51), so
    that model code can use them in functions, but not while its module body runs.
    """

    def __getattr__(self, name: str) -> Any:
        error = AttributeError(
            f"module {UTILS_NAME!r} has no attribute {name!r}", name=name, obj=self
        )
        if name in pb_utils.NATIVE_NAMES or name == "get_model_dir":
            error.add_note(
                f"{name} exists only after the model's module was imported, on Triton too: use "
                "it in functions; for annotations, write `from __future__ import annotations`"
            )
        raise error


def utils_modules(own: Mapping[str, Any]) -> dict[str, ModuleType]:
    """Make fresh copies of both modules, the first without the native names.

    Parameters
    ----------
    own
        Native classes and functions of the copies' own in place of those of `pb_utils`.
    """
    utils = _Utils(UTILS_NAME, pb_utils.__doc__)
    names = (name for name in pb_utils.__all__ if name not in pb_utils.NATIVE_NAMES)
    vars(utils).update({name: getattr(pb_utils, name) for name in names})
    native = ModuleType(NATIVE_NAME, "Native part of triton_python_backend_utils.")
    vars(native).update(pb_utils.NATIVE_NAMES, **own)
    return {UTILS_NAME: utils, NATIVE_NAME: native}


def add_native_names(modules: dict[str, ModuleType], get_model_dir: Callable[[], str]) -> None:
    """Complete the modules of `utils_modules`, once the model's module is imported."""
    native = vars(modules[NATIVE_NAME])
    names = {name: native[name] for name in pb_utils.__all__ if name in native}
    utils = modules[UTILS_NAME]
    vars(utils).update(names, get_model_dir=get_model_dir)
    # A `__getattr__` of the class slows every lookup down, even of names that are there.
    utils.__class__ = ModuleType
