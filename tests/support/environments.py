"""Execution environments made without a package index, for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np


def bare_venv(path: Path) -> Path:
    """Make a venv with nothing in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    return path


def site_packages(venv: Path) -> Path:
    """Where its packages are."""
    return venv / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def numpy_venv(path: Path) -> Path:
    """Make a venv with the numpy of this process and nothing else."""
    bare_venv(path)
    package = Path(np.__file__).parent
    for folder in (package, package.with_name("numpy.libs")):  # the latter is in wheels
        if folder.exists():
            (site_packages(path) / folder.name).symlink_to(folder)
    return path
