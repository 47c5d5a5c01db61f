"""An instance's modules in a child that the instance's code has started; see `spawn_folder`.

Imported in such children only.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytriton_lite._instance.namespace import ModuleNamespace
from pytriton_lite._utils_modules import UTILS_NAME, utils_modules


def install(root: str, search_path: Sequence[str], folders: Sequence[str]) -> None:
    """Make the namespace `root` of the parent importable here, too, for good.

    Its `triton_python_backend_utils` has no native names, as in a child on Triton.
    """
    utils = {UTILS_NAME: utils_modules({})[UTILS_NAME]}
    ModuleNamespace(root, search_path, folders, utils, root=root)
