"""Models that need no process of their own to know that they complete no configuration."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._instance.plain_source import has_no_auto_complete

EXECUTE = "    def execute(self, requests):\n        pass\n"
PLAIN = f"class TritonPythonModel:\n{EXECUTE}"


def says(folder, source) -> bool:
    path = folder / "model.py"
    path.write_text(source, encoding="utf-8")
    return has_no_auto_complete(str(path))


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        f'"""About TritonPythonModel."""\nimport os\n{PLAIN}',
        f"class Base:\n    pass\nclass Other(Base):\n    pass\n{PLAIN}",
    ],
)
def test_plain_models(source, tmp_path):
    assert says(tmp_path, source)


@pytest.mark.parametrize(
    "source",
    [
        f"{PLAIN}\n    def auto_complete_config(config):\n        return config\n",
        f"{PLAIN}\n# auto_complete_config\n",
        f"from base import Base\nclass TritonPythonModel(Base):\n{EXECUTE}",
        f"import base\nclass TritonPythonModel(base.object):\n{EXECUTE}",
        f"import base\nclass TritonPythonModel(metaclass=base.Type):\n{EXECUTE}",
        f"import base\n@base.decorator\n{PLAIN}",
        f"{PLAIN}\nfrom base import *\n",
        "from base import TritonPythonModel\n",
        f"{PLAIN}\nfrom base import Model as TritonPythonModel\n",
        f"{PLAIN}\nimport base as TritonPythonModel\n",
        f"import base\n{PLAIN}\nTritonPythonModel = base.wrapped(TritonPythonModel)\n",
        f"import base\n{PLAIN}\nbase.complete(TritonPythonModel)\n",
        f"{PLAIN}\n{PLAIN}",
        f"class TritonPythonModel(object):\n{EXECUTE}",
        f"import base\n{PLAIN}\nglobals()['TritonPythonModel'] = base.Model\n",
        f"if True:\n{textwrap.indent(PLAIN, '    ')}",
        "def TritonPythonModel():\n    pass\n",
        "class TritonPythonModel:\n    def execute(self:\n",
        "x = 1\n",
        "",
        "\0",
    ],
)
def test_models_that_must_be_imported_to_know(source, tmp_path):
    assert not says(tmp_path, source)


def test_many_models_at_once(tmp_path):
    # Python 3.11 mixes up the depths of trees that several threads make.
    body = "".join(
        f"    def f{n}(self):\n        return [{n}, (({n},), {{}})]\n" for n in range(300)
    )
    path = tmp_path / "model.py"
    path.write_text(f"class TritonPythonModel:\n{body}", encoding="utf-8")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(has_no_auto_complete, [str(path)] * 64))


def test_missing_file(tmp_path):
    assert not has_no_auto_complete(str(tmp_path / "model.py"))


MODEL = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils

with open({log!r}, "a") as log:
    log.write(f"{{os.getpid()}}\\n")

class TritonPythonModel:
    {function}
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("PID", np.array([os.getpid()]))])
            for _ in requests
        ]
"""
CONFIG = """
backend: "python"
output [ {{ name: "PID" data_type: TYPE_INT64 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
"""
FUNCTION = "auto_complete_config = staticmethod(lambda config: config)"


@pytest.mark.parametrize(("function", "count"), [("", 1), (FUNCTION, 2)])
def test_a_plain_model_is_imported_by_its_instance_alone(function, count, tmp_path):
    folder, log = tmp_path / "repository" / "m", tmp_path / "imports"
    (folder / "1").mkdir(parents=True)
    source = MODEL.format(function=function, log=str(log))
    (folder / "1" / "model.py").write_text(source, encoding="utf-8")
    (folder / "config.pbtxt").write_text(CONFIG.format(), encoding="utf-8")
    with ptl.Server(folder.parent, execution="process") as server:
        pid = int(np.asarray(server["m"]({})["PID"])[0])
    pids = [int(line) for line in log.read_text(encoding="utf-8").split()]
    assert len(pids) == count
    assert pids[-1] == pid
