"""What stubs take along from the server where their own Python lacks it: this package."""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

ABI = EXTENSION_SUFFIXES[0]
"""End of the file names of our compiled modules, which a Python of another kind cannot load."""

# `google` is made without a folder: nothing else of the server's may be found in it.
_PACKAGES = ("pytriton_lite", "typing_extensions", "google.protobuf", "google._upb")

VARIABLE = "PYTRITON_LITE_CARRIED"
"""Tells the finder what `carried_packages` returned, in the stub and in the model's children."""

FINDER = """
import os, sys
from importlib.machinery import ModuleSpec, PathFinder

class Carried:
    folders = dict(pair.split("=", 1) for pair in os.environ["VARIABLE"].split(chr(10)))

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "google":
            return ModuleSpec(name, None, is_package=True)
        folder = cls.folders.get(name)
        return None if folder is None else PathFinder.find_spec(name, [folder])

sys.meta_path.append(Carried)
""".replace("VARIABLE", VARIABLE)
"""Source of the finder.

It comes last, so that what the Python itself has goes first, and it finds nothing else: with the
server's folders on the path, a model would import packages that its environment lacks.
"""


def carried_packages() -> str:
    """Make lines ``<package>=<folder it is in>``."""
    pairs = []
    for name in _PACKAGES:
        spec = find_spec(name)
        if spec is not None:
            places = spec.submodule_search_locations or [spec.origin or ""]
            folder = os.path.dirname(os.path.abspath(next(iter(places))))
            pairs.append(f"{name}={folder}")
    return "\n".join(pairs)
