"""Model repositories made of text, for tests."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

ECHO_CONFIG = """
backend: "python"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""

# A model whose function `answer(array, request)` makes the output array; the functions may be
# replaced by a module body of the test's own.
ECHO_MODEL = """
import triton_python_backend_utils as pb_utils
import numpy as np

{body}

class TritonPythonModel:
    {methods}

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            out = self.answer(x, request) if hasattr(self, "answer") else answer(x, request)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)]))
        return responses
"""


def echo_model(body: str = "def answer(x, request): return x", methods: str = "pass") -> str:
    """Source of a model with one float input and output."""
    methods = textwrap.indent(textwrap.dedent(methods).strip(), "    ").strip()
    return ECHO_MODEL.format(body=textwrap.dedent(body).strip(), methods=methods)


class RepositoryBuilder:
    """Writes models and backends below a folder."""

    def __init__(self, root: Path) -> None:
        self.models = root / "models"
        self.backends = root / "backends"
        self.models.mkdir()
        self.backends.mkdir()

    def model(
        self,
        name: str,
        source: str | None = None,
        *,
        config: str = ECHO_CONFIG,
        version: int = 1,
        files: dict[str, str] | None = None,
    ) -> Path:
        """Write a model; `files` are relative to its folder."""
        folder = self.models / name
        (folder / str(version)).mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(config)
        if source is not None:
            (folder / str(version) / "model.py").write_text(source)
        write_files(folder, files or {})
        return folder

    def touch(self, name: str, version: int = 1) -> None:
        """Have the code of a model look modified, so that a load makes it anew."""
        path = self.models / name / str(version) / "model.py"
        found = path.stat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))

    def backend(self, name: str, source: str, *, files: dict[str, str] | None = None) -> Path:
        """Write a Python-based backend; `files` are relative to its folder."""
        folder = self.backends / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(source)
        write_files(folder, files or {})
        return folder


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write text files below a folder."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(textwrap.dedent(text))
