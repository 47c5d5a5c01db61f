"""The build step that needs code: where numpy keeps its headers.

Used by ``pyproject.toml`` only; nothing imports it at run time.
"""

from __future__ import annotations

import os

import numpy as np
from Cython.Build import cythonize
from setuptools.command.build_ext import build_ext


class BuildExt(build_ext):
    """`build_ext` that finds numpy's headers and compiles the modules side by side."""

    def build_extensions(self) -> None:
        # Cython first and in turn, since it is not made for threads; then gcc side by side.
        generated = {made.name: made for made in cythonize(self.extensions, quiet=True)}
        for extension in self.extensions:
            extension.sources = generated[extension.name].sources
        super().build_extensions()

    def finalize_options(self) -> None:
        super().finalize_options()
        self.include_dirs.append(np.get_include())
        for extension in self.extensions:
            extension.extra_compile_args += ["-O3", "-fno-plt"]
        self.define = [*(self.define or []), ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")]
        self.parallel = self.parallel or os.cpu_count()
