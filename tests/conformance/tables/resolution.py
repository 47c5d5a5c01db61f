"""Which file runs a model, what its import sees, and the texts when nothing is found."""

from __future__ import annotations

from ..schema import (
    STRINGS_IO,
    BackendFiles,
    Group,
    ModelFiles,
    answering,
    ask,
    asked,
    plain,
    source,
)

WHO = (
    "[__name__, __package__, __file__, TritonPythonModel.__module__, "
    "pb_utils.get_model_dir(), self.args['model_repository']]"
)
PARAMETERS = (
    "[__name__, __package__, __file__, pb_utils.get_model_dir(), PARAMETERS, "
    "json.loads(self.args['model_config'])['runtime'], "
    "json.loads(self.args['model_config'])['default_model_filename']]"
)
READ_PARAMETERS = """
global PARAMETERS
with open(os.path.join(pb_utils.get_model_dir(), "parameters.json")) as file:
    PARAMETERS = json.load(file)
"""
LOCAL = '"from the version folder"'


def of_backend(name: str, backend: str, config: str = "", **files: str) -> ModelFiles:
    """Return a model of a Python-based backend; the version folder holds ``parameters.json``."""
    text = f'backend: "{backend}"\n{STRINGS_IO}{config}'
    return ModelFiles(name, text, files or {"1/parameters.json": f'{{"from": "{name}"}}'})


def bare(name: str, config: str | None, **files: str) -> ModelFiles:
    """Return a model folder whose config is exactly the given text."""
    return ModelFiles(name, config, {path.replace("__", "/"): text for path, text in files.items()})


BACKENDS = (
    BackendFiles(
        "shared", {"model.py": answering(PARAMETERS, initialize=READ_PARAMETERS), "other.py": ""}
    ),
    BackendFiles(
        "first",
        {
            "model.py": answering(
                "[WORD, words.late(), __name__]",
                setup="from utils.words import WORD\nfrom utils import words",
            ),
            "utils/__init__.py": "",
            "utils/words.py": source("""
                WORD = "first"

                def late():
                    from utils.late import LATE
                    return LATE
            """),
            "utils/late.py": 'LATE = "first, imported late"\n',
        },
    ),
    BackendFiles(
        "second",
        {
            "model.py": answering(
                "[WORD, words.late(), __name__]",
                setup="from utils.words import WORD\nfrom utils import words",
            ),
            "utils/__init__.py": "",
            "utils/words.py": source("""
                import importlib

                WORD = "second"

                def late():
                    return importlib.import_module("utils.late").LATE
            """),
            "utils/late.py": 'LATE = "second, imported late"\n',
        },
    ),
    BackendFiles("unused_1", {"model.py": answering(WHO), "other.py": answering(WHO)}),
    BackendFiles("unused_2", {"model.py": answering(WHO)}),
    BackendFiles(
        "relative", {"model.py": "from .sibling import WORD\n", "sibling.py": "WORD = 1\n"}
    ),
    BackendFiles(
        "stateful",
        {
            "model.py": answering(
                "COUNTER", setup="COUNTER = []", initialize="COUNTER.append(args['model_name'])"
            )
        },
    ),
    BackendFiles("hollow", {"helper.py": "WORD = 1\n"}),
    BackendFiles(
        "needy", {"model.py": answering("WORD", setup="from beside_the_model import WORD")}
    ),
    BackendFiles("broken", {"model.py": "import no_such_module_at_all\n"}),
    BackendFiles("classless", {"model.py": "x = 1\n"}),
)

FOUND = (
    asked("plain", WHO),
    ModelFiles("version_3", f'backend: "python"{STRINGS_IO}', {"3/model.py": answering(WHO)}),
    ModelFiles(
        "latest",
        f'backend: "python"{STRINGS_IO}',
        {f"{version}/model.py": answering(WHO) for version in (1, 2, 10)},
    ),
    ModelFiles(
        "specific",
        f'backend: "python"{STRINGS_IO}version_policy {{ specific {{ versions: [ 2 ] }} }}',
        {f"{version}/model.py": answering(WHO) for version in (1, 2, 10)},
    ),
    ModelFiles(
        "odd_version_folders",
        f'backend: "python"{STRINGS_IO}',
        {f"{version}/model.py": answering(WHO) for version in ("1", "v2", "003", "-4")},
    ),
    of_backend("shared_a", "shared"),
    of_backend("shared_b", "shared"),
    of_backend("with_utils_1", "first"),
    of_backend("with_utils_2", "second"),
    of_backend("stateful_a", "stateful"),
    of_backend("stateful_b", "stateful"),
    ModelFiles(
        "helper_in_version",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering("[helper.WORD, helper.__name__]", setup="import helper"),
            "1/helper.py": f"WORD = {LOCAL}\n",
        },
    ),
    ModelFiles(
        "helper_in_model_folder",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering("[helper.WORD, helper.__name__]", setup="import helper"),
            "helper.py": 'WORD = "from the model folder"\n',
        },
    ),
    ModelFiles(
        "helper_in_both",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering("helper.WORD", setup="import helper"),
            "1/helper.py": f"WORD = {LOCAL}\n",
            "helper.py": 'WORD = "from the model folder"\n',
        },
    ),
    ModelFiles(
        "helper_hidden_by_library",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering("hasattr(colorsys, 'rgb_to_hsv')", setup="import colorsys"),
            "1/colorsys.py": f"WORD = {LOCAL}\n",
        },
    ),
    ModelFiles(
        "relative_import",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering(
                "[WORD, sibling.__name__]", setup="from .sibling import WORD\nfrom . import sibling"
            ),
            "1/sibling.py": f"WORD = {LOCAL}\n",
        },
    ),
    ModelFiles(
        "helper_package",
        f'backend: "python"{STRINGS_IO}',
        {
            "1/model.py": answering(
                "[tools.parts.WORD, tools.__name__]", setup="import tools.parts"
            ),
            "1/tools/__init__.py": "",
            "1/tools/parts.py": "from . import inner\nWORD = inner.WORD\n",
            "1/tools/inner.py": f"WORD = {LOCAL}\n",
        },
    ),
    asked("argv", "sys.argv"),
    asked("search_path", "[p for p in sys.path if '/search_path' in p]"),
    asked(
        "model_dir_at_import",
        "AT_IMPORT",
        setup="AT_IMPORT = hasattr(pb_utils, 'get_model_dir')",
    ),
    asked(
        "names_at_import",
        "NAMES",
        setup="NAMES = sorted(name for name in dir(pb_utils) if not name.startswith('_'))",
    ),
    ModelFiles(
        "other_py",
        f'backend: "python" default_model_filename: "other.py"{STRINGS_IO}',
        {"1/other.py": answering(WHO), "1/model.py": "raise ValueError('the wrong file')\n"},
    ),
    ModelFiles(
        "backend_file_name",
        f'backend: "shared" default_model_filename: "weights.bin"{STRINGS_IO}',
        {"1/parameters.json": "[1]"},
    ),
    bare("no_backend", STRINGS_IO, **{"1__model.py": answering(WHO)}),
    bare(
        "no_backend_file_name",
        f'default_model_filename: "model.py"{STRINGS_IO}',
        **{"1__model.py": answering(WHO)},
    ),
    bare("no_config", None, **{"1__model.py": answering(WHO)}),
    bare("empty_config", "", **{"1__model.py": answering(WHO)}),
    bare("just_backend", 'backend: "python"', **{"1__model.py": answering(WHO)}),
    bare(
        "named_like_folder",
        f'name: "named_like_folder" backend: "python"{STRINGS_IO}',
        **{"1__model.py": answering(WHO)},
    ),
    of_backend("runtime_model_py", "shared", 'runtime: "model.py"'),
    asked("runtime_library", "'loaded'", 'runtime: "libtriton_python.so"'),
)

NOT_FOUND = (
    ModelFiles(
        "model_txt",
        f'backend: "python" default_model_filename: "model.txt"{STRINGS_IO}',
        {"1/model.txt": answering(WHO)},
    ),
    of_backend("runtime_nowhere", "shared", 'runtime: "nowhere.so"'),
    of_backend("runtime_other_py", "unused_1", 'runtime: "other.py"'),
    of_backend("runtime_other_py_in_use", "shared", 'runtime: "other.py"'),
    of_backend("runtime_escapes", "unused_2", 'runtime: "../unused_2/model.py"'),
    of_backend("runtime_escapes_in_use", "shared", 'runtime: "../shared/model.py"'),
    plain(
        "native_name_at_import",
        "import triton_python_backend_utils as pb_utils\n\nTensor = pb_utils.Tensor\n",
    ),
    plain("native_name_from_import", "from triton_python_backend_utils import Tensor\n"),
    plain(
        "native_module_at_import",
        "import c_python_backend_utils\n\n"
        "raise ValueError(c_python_backend_utils.Tensor.__name__)\n",
    ),
    plain(
        "native_name_in_annotation",
        """
        import triton_python_backend_utils as pb_utils


        class TritonPythonModel:
            def execute(self, requests: list[pb_utils.InferenceRequest]):
                return [pb_utils.InferenceResponse() for _ in requests]
        """,
    ),
    of_backend("runtime_but_no_file", "hollow", 'runtime: "model.py"'),
    of_backend("runtime_backend_library", "shared", 'runtime: "libtriton_python.so"'),
    asked("python_runtime_model_py", "1", 'runtime: "model.py"'),
    of_backend("unknown_backend", "nobody"),
    of_backend(
        "unknown_backend_own_file",
        "nobody",
        **{"1/model.py": answering(WHO), "model.py": answering(WHO)},
    ),
    of_backend("backend_without_file", "hollow"),
    of_backend("backend_relative_import", "relative"),
    of_backend("backend_helper_in_model", "needy", **{"1/beside_the_model.py": "WORD = 1\n"}),
    of_backend("backend_import_error", "broken"),
    of_backend("backend_without_class", "classless"),
    bare(
        "other_name",
        f'name: "some_other" backend: "python"{STRINGS_IO}',
        **{"1__model.py": answering(WHO)},
    ),
    bare("platform_only", f'platform: "python"{STRINGS_IO}', **{"1__model.py": answering(WHO)}),
    bare("nothing_in_version", STRINGS_IO, **{"1__readme.txt": "nothing here\n"}),
    bare("no_version_folder", f'backend: "python"{STRINGS_IO}', **{"readme.txt": "nothing here\n"}),
    bare("config_syntax", 'backend: "python" input [', **{"1__model.py": answering(WHO)}),
    bare(
        "config_unknown_field",
        'backend: "python" no_such_field: 1',
        **{"1__model.py": answering(WHO)},
    ),
    plain("no_class", "x = 1\n"),
    plain("empty_file", ""),
    plain("class_is_a_number", "TritonPythonModel = 5\n"),
    plain("import_error", "import no_such_module_at_all\n"),
    plain("import_from_error", "from os import no_such_name\n"),
    plain("import_raises", "def start():\n    raise ValueError('at import')\n\nstart()\n"),
    plain("import_exits", "import sys\nsys.exit(3)\n"),
    plain("syntax_error", "def broken(:\n"),
    plain("indentation_error", "if True:\nx = 1\n"),
    plain("name_error", "undefined_name\n"),
    ModelFiles(
        "helper_raises",
        f'backend: "python"{STRINGS_IO}',
        {"1/model.py": "import helper_that_raises\n", "1/helper_that_raises.py": "\n\n1 / 0\n"},
    ),
    ModelFiles(
        "helper_syntax_error",
        f'backend: "python"{STRINGS_IO}',
        {"1/model.py": "import helper_with_slip\n", "1/helper_with_slip.py": "x = = 1\n"},
    ),
    ModelFiles(
        "relative_import_missing",
        f'backend: "python"{STRINGS_IO}',
        {"1/model.py": "from .nowhere import x\n"},
    ),
)

RESOLUTION = Group(
    "resolution",
    models=FOUND + NOT_FOUND,
    backends=BACKENDS,
    requests=(
        *(ask(f"{model.name}/who", model.name) for model in FOUND),
        ask("model_txt/who", "model_txt"),
        ask("runtime_other_py_in_use/who", "runtime_other_py_in_use"),
        ask("runtime_escapes_in_use/who", "runtime_escapes_in_use"),
        ask("no_class/who", "no_class"),
        ask("other_name/who", "other_name"),
        ask("never_heard_of/who", "never_heard_of"),
    ),
)
