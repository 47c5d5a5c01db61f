"""Models that load, unload and look at other models."""

from __future__ import annotations

from ..schema import Group, ModelFiles, ask, asked, plain, source
from .bls import CALLER, HELPERS, somewhere

TOOLS = source("""


    def wait_until(function, seconds=3.0):
        end = time.monotonic() + seconds
        while not function() and time.monotonic() < end:
            time.sleep(0.02)
        return function()


    def ready(*arguments, **changes):
        return outcome(lambda: pb_utils.is_model_ready(*arguments, **changes))


    def gone(name):
        return wait_until(lambda: not pb_utils.is_model_ready(name))


    def load(*arguments, **changes):
        return outcome(lambda: pb_utils.load_model(*arguments, **changes))


    def unload(*arguments, **changes):
        return outcome(lambda: pb_utils.unload_model(*arguments, **changes))


    def config(**changes):
        io = [{"name": "IN", "data_type": "TYPE_STRING", "dims": [-1]}]
        out = [{"name": "OUT", "data_type": "TYPE_STRING", "dims": [-1]}]
        return json.dumps({"backend": "python", "input": io, "output": out, **changes})


    def says(name):
        return run(name, text("?"))


    def batched(name):
        return run(name, np.array([["?"]], dtype=np.object_))


    OTHER = b'''
    import numpy as np
    import triton_python_backend_utils as pb_utils

    class TritonPythonModel:
        def execute(self, requests):
            array = np.array(["other file"], dtype=np.object_)
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]) for _ in requests]
    '''
""")
PROBE = CALLER.replace("class TritonPythonModel", f"{TOOLS}\n\nclass TritonPythonModel")
CONFIG_SEEN = "[json.loads(self.args['model_config'])[k] for k in ('max_batch_size', 'parameters')]"
SELF_UNLOAD = HELPERS + source("""


    class TritonPythonModel:
        def execute(self, requests):
            pb_utils.unload_model("self_unload")
            time.sleep(0.2)
            return [reply(["still here", pb_utils.is_model_ready("self_unload")])]

        def finalize(self):
            open(pb_utils.get_model_dir() + "/finalized", "w").close()
""")

CALLS: dict[str, str] = {
    # Readiness
    "ready": "return ready('target')",
    "ready_version": "return ready('target', '1')",
    "ready_keyword": "return ready(model_name='target', model_version='1')",
    "ready_other_version": "return ready('target', '2')",
    "ready_self": "return ready('control')",
    "ready_unknown": "return ready('nope')",
    "ready_empty": "return ready('')",
    "ready_failed": "return ready('broken')",
    "ready_version_empty": "return ready('target', '')",
    "ready_version_zero": "return ready('target', '0')",
    "ready_version_spaces": "return ready('target', ' 1')",
    "ready_version_float": "return ready('target', '1.5')",
    "ready_version_suffix": "return ready('target', '1x')",
    "ready_version_number": "return ready('target', 1)",
    "ready_version_none": "return ready('target', None)",
    "ready_name_none": "return ready(None)",
    "ready_nothing": "return ready()",
    # Unload and load
    "unload": "return [unload('target'), gone('target'), says('target')]",
    "load": "return [load('target'), ready('target'), says('target')]",
    "load_again": "return [load('target'), ready('target'), says('target')]",
    "load_keyword": "return load(model_name='target')",
    "load_unknown": "return load('nope')",
    "load_empty": "return load('')",
    "load_broken": "return [load('broken'), ready('broken')]",
    "load_none": "return load(None)",
    "load_nothing": "return load()",
    "load_bad_json": "return [load('target', config='{'), ready('target')]",
    "load_no_json": "return [load('target', 'x'), ready('target')]",
    "load_config_list": "return [load('target', '[]'), ready('target')]",
    "load_config_dict": "return load('target', config={})",
    "load_config_unknown_field": "return load('target', config=config(nope=1))",
    "load_config_empty": "return [load('target', config=''), says('target')]",
    "load_config_braces": "return [load('target', config='{}'), ready('target')]",
    "load_config_parameters": """
parameters = {'x': {'string_value': 'given'}}
return [load('target', config=config(parameters=parameters)), says('target')]
""",
    "load_config_batch": "return [load('target', config(max_batch_size=4)), batched('target')]",
    "load_config_name": "return [load('target', config=config(name='other')), says('target')]",
    "load_config_new_model": "return [load('made', config=config()), ready('made')]",
    "load_back": "return [load('target'), says('target')]",
    "load_files": """
return [load('target', config=config(), files={'file:1/model.py': OTHER}), says('target')]
""",
    "load_files_new_model": """
done = load('made', config=config(), files={'file:1/model.py': OTHER})
return [done, says('made'), unload('made'), gone('made')]
""",
    "load_files_other_version": """
done = load('target', config=config(), files={'file:7/model.py': OTHER})
return [done, says('target'), ready('target', '1'), ready('target', '7')]
""",
    "load_files_without_config": "return load('target', files={'file:1/model.py': OTHER})",
    "load_files_empty_config": "return load('target', '', {'file:1/model.py': OTHER})",
    "load_files_empty": "return [load('target', config(), {}), says('target')]",
    "load_files_none": "return [load('target', config(), None), says('target')]",
    "load_files_no_prefix": """
return [load('target', config(), {'1/model.py': OTHER}), says('target')]
""",
    "load_files_list": "return load('target', config(), ['file:1/model.py'])",
    "load_files_str": "return load('target', config(), {'file:1/model.py': 'text'})",
    "load_files_int": "return load('target', config(), {'file:1/model.py': 1})",
    "load_files_key": "return load('target', config(), {1: OTHER})",
    "load_files_bytearray": """
return load('target', config(), {'file:1/model.py': bytearray(OTHER)})
""",
    "load_files_without_model": """
return [load('target', config(), {'file:1/data.txt': b'x'}), says('target')]
""",
    "load_after_files": "return [load('target'), says('target')]",
    "unload_unknown": "return unload('nope')",
    "unload_empty": "return unload('')",
    "unload_twice": "return [unload('target'), unload('target'), gone('target')]",
    "unload_dependents": "return unload('target', unload_dependents=True)",
    "unload_positional": "return unload('target', True)",
    "unload_number": "return unload('target', 1)",
    "unload_word": "return unload('target', 'x')",
    "unload_none": "return unload(None)",
    "unload_nothing": "return unload()",
    "load_at_end": "return load('target')",
    # Elsewhere
    "finalize": """
path = pb_utils.get_model_dir() + '/../../control_finalize/1/seen'
unload('control_finalize')
wait_until(lambda: os.path.exists(path))
time.sleep(0.2)
with open(path) as file:
    return json.load(file)
""",
    "self_unload": """
shown = run('self_unload', text('?'))
path = pb_utils.get_model_dir() + '/../../self_unload/1/finalized'
return [shown, gone('self_unload'), wait_until(lambda: os.path.exists(path))]
""",
    "thread": """
result = []
thread = threading.Thread(target=lambda: result.append(load('target')))
thread.start()
thread.join()
return result
""",
    # The server does not always survive these
    "ready_version_word": "return ready('target', 'abc')",
    "ready_version_negative": "return ready('target', '-1')",
    "ready_version_minus_2": "return ready('target', '-2')",
    "ready_version_huge": "return ready('target', '99999999999999999999')",
    "ready_version_word_unknown": "return ready('nope', 'abc')",
}

FINALIZE = HELPERS + source("""


    class TritonPythonModel:
        def execute(self, requests):
            return [reply("?") for request in requests]

        def finalize(self):
            seen = [
                outcome(lambda: pb_utils.is_model_ready("target")),
                outcome(lambda: pb_utils.load_model("target")),
                outcome(lambda: pb_utils.unload_model("nope")),
                outcome(lambda: run("target", text("?"))),
            ]
            with open(pb_utils.get_model_dir() + "/seen", "w") as file:
                json.dump(seen, file)
""")
READY_ONLY = """
    def initialize(self, args):
        notes["seen"] = [outcome(lambda: pb_utils.is_model_ready(x)) for x in ("target", "nope")]
"""
LOAD_ONE = """
    def initialize(self, args):
        notes["seen"] = [
            outcome(lambda: pb_utils.load_model("target")),
            outcome(lambda: pb_utils.load_model("nope")),
            outcome(lambda: pb_utils.unload_model("target")),
            outcome(lambda: pb_utils.load_model("target")),
        ]
"""
AUTO_COMPLETE = """
    @staticmethod
    def auto_complete_config(config):
        {call}
        return config
"""


def in_auto_complete() -> tuple[ModelFiles, ...]:
    """Return models that call in `auto_complete_config`, which none of them survives."""
    calls = {
        "ready": 'pb_utils.is_model_ready("target")',
        "load": 'pb_utils.load_model("target")',
        "unload": 'pb_utils.unload_model("target")',
    }
    return tuple(
        somewhere(f"control_auto_complete_{name}", "", AUTO_COMPLETE.format(call=call))
        for name, call in calls.items()
    )


TARGET = asked("target", CONFIG_SEEN, 'parameters { key: "x" value { string_value: "file" } }')
BROKEN = plain(
    "broken",
    """
    class TritonPythonModel:
        def initialize(self, args):
            raise ValueError("broken")
    """,
)

CONTROL = Group(
    "control",
    models=(
        TARGET,
        BROKEN,
        plain("control", PROBE.replace("import json\n", "import json\nimport os\n", 1)),
        plain("control_finalize", FINALIZE),
        plain("self_unload", SELF_UNLOAD),
        somewhere("control_initialize", "", READY_ONLY),
        somewhere("control_initialize_load", "", LOAD_ONE),
    ),
    requests=(
        ask("control_initialize/seen", "control_initialize"),
        ask("control_initialize_load/seen", "control_initialize_load"),
        *(ask(f"control/{name}", "control", code) for name, code in CALLS.items()),
    ),
)

NONE_CALLS: dict[str, str] = {
    "ready": "return [ready('target'), ready('nope')]",
    "ready_version_word": "return ready('target', 'abc')",
    "load": "return load('target')",
    "load_unknown": "return load('nope')",
    "load_files_list": "return load('target', config(), ['file:1/model.py'])",
    "load_files_int": "return load('target', config(), {'file:1/model.py': 1})",
    "unload": "return unload('target')",
    "unload_unknown": "return unload('nope')",
    "still": "return says('target')",
}
CONTROL_NONE = Group(
    "control_none",
    models=(
        TARGET,
        plain("control_of_none", PROBE),
    ),
    requests=tuple(
        ask(f"control_none/{name}", "control_of_none", code) for name, code in NONE_CALLS.items()
    ),
    model_control_mode="none",
)

CONTROL_AT_RISK = Group("control_at_risk", models=in_auto_complete())
