"""What `initialize` is given, and what its failures and those of its neighbours look like."""

from __future__ import annotations

from ..schema import Group, InferCase, ModelFiles, ask, asked, plain, words

ARGS = (
    "{**{k: v for k, v in self.args.items() if k != 'model_config'}, "
    "'config': json.loads(self.args['model_config'])}"
)
INSTANCE = (
    "[self.args['model_instance_name'], self.args['model_instance_kind'], "
    "self.args['model_instance_device_id'], "
    "json.loads(self.args['model_config'])['instance_group']]"
)
COUNT_INSTANCES = """
name = args["model_instance_name"]
with open(os.path.join(pb_utils.get_model_dir(), f"instance {name}"), "w") as file:
    file.write(args["model_instance_kind"])
"""
INSTANCES = (
    "sorted(name for name in os.listdir(pb_utils.get_model_dir()) if name.startswith('instance'))"
)
ECHO = """
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", pb_utils.get_input_tensor_by_name(r, "IN").as_numpy())]
            )
            for r in requests
        ]
"""


def with_class(name: str, *methods: str, top: str = "") -> ModelFiles:
    """Return a model whose class has these methods besides an echoing `execute`."""
    return plain(
        name,
        "import sys\n\nimport triton_python_backend_utils as pb_utils\n"
        + f"{top}\n\nclass TritonPythonModel:{ECHO}"
        + "".join(f"\n    {method}\n" for method in methods),
    )


def force_cpu(value: str) -> str:
    """Return the parameter that says where the model wants its inputs."""
    key = "FORCE_CPU_ONLY_INPUT_TENSORS"
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


GROUPS = {
    "group_none": "",
    "group_empty": "instance_group [ { } ]",
    "group_count_1": "instance_group [ { count: 1 } ]",
    "group_cpu": "instance_group [ { kind: KIND_CPU } ]",
    "group_model": "instance_group [ { kind: KIND_MODEL } ]",
    "group_auto": "instance_group [ { kind: KIND_AUTO } ]",
    "group_named": 'instance_group [ { name: "workers" kind: KIND_CPU } ]',
    "group_count_0": "instance_group [ { count: 0 kind: KIND_CPU } ]",
    "group_cpu_with_gpus": "instance_group [ { kind: KIND_CPU gpus: [ 0 ] } ]",
    "group_negative": "instance_group [ { count: -1 kind: KIND_CPU } ]",
}
MANY = {
    "groups_same_name": (
        'instance_group [ { name: "w" kind: KIND_CPU }, { name: "w" kind: KIND_MODEL } ]'
    ),
    "groups_two": "instance_group [ { kind: KIND_CPU }, { kind: KIND_MODEL } ]",
    "groups_count_2": "instance_group [ { count: 2 kind: KIND_CPU } ]",
    "groups_named": 'instance_group [ { name: "a" count: 2 kind: KIND_CPU }, { kind: KIND_CPU } ]',
}
FORCE_CPU = {
    "force_cpu_yes": "yes",
    "force_cpu_no": "no",
    "force_cpu_other": "maybe",
    "force_cpu_empty": "",
    "force_cpu_upper": "YES",
    "force_cpu_blank": " yes",
    "force_cpu_quote": "a'b",
}
RICH_CONFIG = """
max_batch_size: 8
parameters { key: "threshold" value { string_value: "0.5" } }
parameters { key: "empty" value { } }
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 100 }
metric_tags { key: "team" value: "search" }
optimization { priority: PRIORITY_MAX }
"""

MODELS = (
    asked("args", ARGS),
    asked("args_rich", ARGS, RICH_CONFIG),
    asked("args_config_text", "self.args['model_config']"),
    asked("args_types", "sorted({type(x).__name__ for pair in self.args.items() for x in pair})"),
    *(asked(name, INSTANCE, config) for name, config in GROUPS.items()),
    *(asked(name, INSTANCES, config, initialize=COUNT_INSTANCES) for name, config in MANY.items()),
    *(asked(name, "'loaded'", force_cpu(value)) for name, value in FORCE_CPU.items()),
    plain("force_cpu_before_the_code", "syntax error(", force_cpu("maybe")),
    asked("working_directory", "os.getcwd() == os.path.realpath('.')"),
    asked(
        "main_thread",
        "threading.current_thread() is threading.main_thread()",
        setup="import threading",
    ),
    with_class("no_initialize"),
    with_class("initialize_returns", "def initialize(self, args): return 'ignored'"),
    with_class("initialize_static", "@staticmethod\n    def initialize(args): pass"),
    with_class("initialize_class_method", "@classmethod\n    def initialize(cls, args): pass"),
    with_class("initialize_not_callable", "initialize = 3"),
    with_class("constructor", "def __init__(self): self.ready = True"),
    with_class(
        "constructor_raises", "def __init__(self):\n        raise ValueError('in constructor')"
    ),
    with_class("constructor_args", "def __init__(self, args): pass"),
    with_class(
        "initialize_raises", "def initialize(self, args):\n        raise ValueError('init boom')"
    ),
    with_class("initialize_noargs", "def initialize(self): pass"),
    with_class("initialize_two_args", "def initialize(self, args, more): pass"),
    with_class("initialize_exits", "def initialize(self, args):\n        sys.exit(1)"),
    with_class(
        "initialize_interrupted", "def initialize(self, args):\n        raise KeyboardInterrupt"
    ),
    with_class("initialize_empty_text", "def initialize(self, args):\n        raise RuntimeError"),
    with_class(
        "initialize_non_ascii",
        "def initialize(self, args):\n        raise ValueError('größer → 大')",
    ),
    with_class(
        "initialize_two_lines", "def initialize(self, args):\n        raise ValueError('one\\ntwo')"
    ),
    with_class(
        "initialize_model_exception",
        "def initialize(self, args):\n        raise pb_utils.TritonModelException('no weights')",
    ),
    with_class(
        "initialize_chained",
        "def initialize(self, args):\n        try:\n            {}['weights']\n"
        "        except KeyError as error:\n            raise ValueError('no weights') from error",
    ),
    with_class(
        "initialize_nested_class",
        "class Oops(Exception): pass\n",
        "def initialize(self, args):\n        raise self.Oops('nested')",
    ),
    with_class(
        "initialize_deep",
        "def initialize(self, args):\n        first()",
        top="\ndef first():\n    second()\n\n\n"
        "def second():\n    raise LookupError('two calls down')\n",
    ),
    with_class(
        "initialize_triton_error",
        "def initialize(self, args):\n        raise pb_utils.TritonError('no')",
    ),
    with_class("finalize_raises", "def finalize(self):\n        raise ValueError('fin boom')"),
    with_class("finalize_exits", "def finalize(self):\n        sys.exit(2)"),
    with_class("finalize_arity", "def finalize(self, more): pass"),
    with_class("is_ready_false", "def is_ready(self): return False"),
    plain("no_execute", "class TritonPythonModel:\n    pass\n"),
    plain("execute_noargs", "class TritonPythonModel:\n    def execute(self): pass\n"),
    plain(
        "execute_two_args",
        "class TritonPythonModel:\n    def execute(self, requests, more): pass\n",
    ),
    plain("execute_not_callable", "class TritonPythonModel:\n    execute = 3\n"),
    plain("execute_none", "class TritonPythonModel:\n    execute = None\n"),
    with_class(
        "execute_static",
        "@staticmethod\n    def execute(requests):\n"
        "        raise ValueError(type(requests).__name__)",
    ),
    with_class(
        "execute_class_method",
        "@classmethod\n    def execute(cls, requests):\n        raise ValueError(cls.__name__)",
    ),
    with_class(
        "execute_set_by_initialize",
        "def initialize(self, args):\n        self.execute = self.other",
        "def other(self, requests):\n        raise ValueError('the other')",
    ),
    plain(
        "class_from_function",
        "def make():\n    class Model:\n        def execute(self, requests):\n"
        "            raise ValueError(type(self).__qualname__)\n    return Model\n\n\n"
        "TritonPythonModel = make()\n",
    ),
    plain(
        "class_is_a_factory",
        "class Model:\n    def execute(self, requests):\n        raise ValueError('made')\n\n\n"
        "def TritonPythonModel():\n    return Model()\n",
    ),
    plain(
        "class_inherits",
        "class Base:\n    def initialize(self, args):\n        self.name = args['model_name']\n\n"
        "    def execute(self, requests):\n        raise ValueError(self.name)\n\n\n"
        "class TritonPythonModel(Base):\n    pass\n",
    ),
)

LIFECYCLE = Group(
    "lifecycle",
    models=MODELS,
    requests=(
        *(ask(f"{m.name}/answer", m.name, "hello") for m in MODELS if m.name != "args_rich"),
        InferCase("args_rich/answer", "args_rich", {"IN": words("hello", shape=(1, 1))}),
    ),
)
