"""`auto_complete_config`: what it may change, what it sees, and each of its error texts."""

from __future__ import annotations

from textwrap import dedent, indent

from ..schema import STRINGS_IO, Group, ModelFiles, ask, plain

FP32_IO = """
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
SEQUENCE = "sequence_batching { }"
IN = '{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}'
OUT = '{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}'
ADD_BOTH = f"config.add_input({IN})\nconfig.add_output({OUT})"
EXECUTE = "    def execute(self, requests):\n        return []\n"


def completing(name: str, body: str, config: str | None = 'backend: "python"') -> ModelFiles:
    """Return a model whose `auto_complete_config` has this body and returns its argument."""
    code = (
        "import json\nimport sys\n\nimport triton_python_backend_utils as pb_utils\n\n\n"
        "class TritonPythonModel:\n    @staticmethod\n    def auto_complete_config(config):\n"
        + indent(dedent(body).strip("\n"), " " * 8)
        + "\n        return config\n\n"
        + EXECUTE
    )
    return ModelFiles(name, config, {"1/model.py": code})


def with_io(name: str, body: str, extra: str = "") -> ModelFiles:
    """Return the same with inputs and outputs in ``config.pbtxt``."""
    return completing(name, body, f'backend: "python"{FP32_IO}{extra}')


def adding(name: str, entry: str, method: str = "add_input", config: str = "") -> ModelFiles:
    """Return a model that adds one input or output, given as Python text."""
    return completing(name, f"config.{method}({entry})", f'backend: "python"{config}')


COMPLETED = (
    completing("ac_all", f"config.set_max_batch_size(4)\n{ADD_BOTH}", None),
    completing("ac_all_empty_config", f"config.set_max_batch_size(4)\n{ADD_BOTH}", ""),
    completing("ac_no_batch", ADD_BOTH),
    completing(
        "ac_dynamic", f"config.set_max_batch_size(4)\nconfig.set_dynamic_batching()\n{ADD_BOTH}"
    ),
    completing("ac_dynamic_no_batch", f"config.set_dynamic_batching()\n{ADD_BOTH}"),
    completing(
        "ac_decoupled", f"config.set_model_transaction_policy({{'decoupled': True}})\n{ADD_BOTH}"
    ),
    completing(
        "ac_not_decoupled",
        f"config.set_model_transaction_policy({{'decoupled': False}})\n{ADD_BOTH}",
    ),
    completing("ac_policy_empty", f"config.set_model_transaction_policy({{}})\n{ADD_BOTH}"),
    completing(
        "ac_optional",
        "config.add_input("
        "{'name': 'A', 'data_type': 'TYPE_INT32', 'dims': [1], 'optional': True})\n" + ADD_BOTH,
    ),
    completing("ac_nothing", "pass"),
    with_io("ac_same_again", ADD_BOTH),
    with_io(
        "ac_same_again_batched", f"config.set_max_batch_size(8)\n{ADD_BOTH}", "max_batch_size: 8"
    ),
    with_io("ac_twice", f"{ADD_BOTH}\n{ADD_BOTH}"),
    with_io("ac_raise_batch_size", "config.set_max_batch_size(4)"),
    with_io("ac_larger_batch_size", "config.set_max_batch_size(16)", "max_batch_size: 8"),
    with_io(
        "ac_more_inputs", "config.add_input({'name': 'B', 'data_type': 'TYPE_INT8', 'dims': [2]})"
    ),
    with_io(
        "ac_more_outputs", "config.add_output({'name': 'B', 'data_type': 'TYPE_INT8', 'dims': [2]})"
    ),
    with_io(
        "ac_keeps_dynamic",
        "config.set_dynamic_batching()",
        "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 2 ] }",
    ),
    with_io("ac_dynamic_over_config", "config.set_dynamic_batching()", "max_batch_size: 8"),
    with_io("ac_decoupled_over_config", "config.set_model_transaction_policy({'decoupled': True})"),
    with_io(
        "ac_decoupled_again",
        "config.set_model_transaction_policy({'decoupled': True})",
        "model_transaction_policy { decoupled: true }",
    ),
    with_io(
        "ac_decoupled_empty_policy",
        "config.set_model_transaction_policy({'decoupled': True})",
        "model_transaction_policy { }",
    ),
    with_io(
        "ac_other_fields_dropped",
        "d = config.as_dict()\nd['parameters'] = {'k': {'string_value': 'v'}}\n"
        "d['version_policy'] = {'all': {}}\nd['instance_group'] = [{'count': 3}]\nd['name'] = 'x'",
    ),
    completing(
        "ac_through_dict",
        f"d = config.as_dict()\nd['input'].append({IN})\nd['output'].append({OUT})\n"
        "d['max_batch_size'] = 2",
    ),
    completing(
        "ac_empty_dims", "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': []})"
    ),
    completing(
        "ac_bad_type", "config.add_input({'name': 'IN', 'data_type': 'FLOAT', 'dims': [1]})"
    ),
    completing(
        "ac_bad_type_output",
        "config.add_output({'name': 'OUT', 'data_type': 'FLOAT', 'dims': [1]})",
    ),
    completing(
        "ac_dims_strings",
        "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': ['3']})",
    ),
    completing(
        "ac_dims_floats",
        "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [3.0]})",
    ),
    completing(
        "ac_dims_tuple", "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': (3,)})"
    ),
    completing(
        "ac_name_number", "config.add_input({'name': 5, 'data_type': 'TYPE_FP32', 'dims': [3]})"
    ),
    completing(
        "ac_name_empty", "config.add_input({'name': '', 'data_type': 'TYPE_FP32', 'dims': [3]})"
    ),
    completing(
        "ac_dims_minus_2",
        "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [-2]})",
    ),
    completing(
        "ac_dims_zero", "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [0]})"
    ),
    completing(
        "ac_optional_text",
        "config.add_input("
        "{'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [1], 'optional': 'yes'})",
    ),
    completing("ac_batch_negative", "config.set_max_batch_size(-1)"),
    completing("ac_batch_text", "config.set_max_batch_size('4')"),
    completing("ac_batch_float", "config.set_max_batch_size(4.0)"),
    completing("ac_not_json", "config.as_dict()['x'] = object()"),
    completing(
        "ac_returns_new",
        f"d = config.as_dict()\nd['input'] = [{IN}]\nconfig = pb_utils.ModelConfig(json.dumps(d))",
    ),
    completing(
        "ac_replaces_type",
        "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [3]})",
        'backend: "python" input [ { name: "IN" dims: [ 3 ] } ]',
    ),
    completing(
        "ac_replaces_dims",
        "config.add_input({'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [3]})",
        'backend: "python" input [ { name: "IN" data_type: TYPE_FP32 } ]',
    ),
    completing(
        "ac_replaces_output_dims",
        "config.add_output({'name': 'OUT', 'data_type': 'TYPE_FP32', 'dims': [3]})",
        'backend: "python" output [ { name: "OUT" data_type: TYPE_FP32 } ]',
    ),
    completing(
        "ac_replaces_nothing",
        "pass",
        'backend: "python" input [ { name: "IN" data_type: TYPE_FP32 } ]',
    ),
    plain("ac_absent", "class TritonPythonModel:\n" + EXECUTE, "max_batch_size: 2"),
    plain(
        "ac_class_method",
        "class TritonPythonModel:\n    @classmethod\n    def auto_complete_config(cls, config):\n"
        "        config.set_max_batch_size(3)\n        return config\n\n" + EXECUTE,
    ),
    plain(
        "ac_inherited",
        "class Base:\n    @staticmethod\n    def auto_complete_config(config):\n"
        "        config.set_max_batch_size(3)\n        return config\n\n\n"
        "class TritonPythonModel(Base):\n" + EXECUTE,
    ),
    plain(
        "ac_state_is_gone",
        """
        import triton_python_backend_utils as pb_utils

        COUNT = []


        class TritonPythonModel:
            note = "as written"

            @staticmethod
            def auto_complete_config(config):
                COUNT.append(1)
                TritonPythonModel.note = "changed"
                return config

            def execute(self, requests):
                raise ValueError(f"{COUNT} {self.note}")
        """,
    ),
)

SEEN = (
    completing(
        "ac_sees_nothing", "raise ValueError(json.dumps(config.as_dict(), sort_keys=True))", None
    ),
    completing(
        "ac_sees_empty", "raise ValueError(json.dumps(config.as_dict(), sort_keys=True))", ""
    ),
    with_io(
        "ac_sees_io",
        "raise ValueError(json.dumps(config.as_dict(), sort_keys=True))",
        "max_batch_size: 8 instance_group [ { count: 2 } ] dynamic_batching { }",
    ),
    completing(
        "ac_members", "raise ValueError(sorted(n for n in dir(config) if not n.startswith('__')))"
    ),
    completing("ac_live_dict", "raise ValueError(config.as_dict() is config.as_dict())"),
    completing("ac_model_dir", "raise ValueError(pb_utils.get_model_dir())"),
    completing(
        "ac_argument_type",
        "raise ValueError(f'{type(config).__module__}.{type(config).__qualname__}')",
    ),
)

REFUSED = (
    completing("ac_raises", "raise ValueError('ac boom')"),
    completing("ac_raises_exception", "raise pb_utils.TritonModelException('ac tme')"),
    completing("ac_exits", "sys.exit(1)"),
    completing("ac_returns_none", "return None"),
    completing("ac_returns_dict", "return config.as_dict()"),
    completing("ac_returns_text", "return 'config'"),
    plain(
        "ac_plain_method",
        "class TritonPythonModel:\n    def auto_complete_config(self, c):\n        return c\n\n"
        + EXECUTE,
    ),
    plain(
        "ac_no_argument",
        "class TritonPythonModel:\n    @staticmethod\n"
        "    def auto_complete_config():\n        pass\n\n" + EXECUTE,
    ),
    plain(
        "ac_not_callable", "class TritonPythonModel:\n    auto_complete_config = 3\n\n" + EXECUTE
    ),
    with_io("ac_smaller_batch", "config.set_max_batch_size(2)", "max_batch_size: 8"),
    with_io("ac_zero_batch", "config.set_max_batch_size(0)", "max_batch_size: 8"),
    with_io(
        "ac_dynamic_over_sequence", "config.set_dynamic_batching()", f"max_batch_size: 8 {SEQUENCE}"
    ),
    adding(
        "ac_in_unknown_key", "{'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [1], 'format': 0}"
    ),
    adding("ac_in_unknown_key_no_name", "{'data_type': 'TYPE_FP32', 'dims': [1], 'format': 0}"),
    adding("ac_in_no_name", "{'data_type': 'TYPE_FP32', 'dims': [1]}"),
    adding("ac_in_no_type", "{'name': 'IN', 'dims': [1]}"),
    adding("ac_in_no_dims", "{'name': 'IN', 'data_type': 'TYPE_FP32'}"),
    adding("ac_in_empty", "{}"),
    adding("ac_in_number", "5"),
    adding(
        "ac_in_other_type", "{'name': 'IN', 'data_type': 'TYPE_FP16', 'dims': [-1]}", config=FP32_IO
    ),
    adding(
        "ac_in_other_dims", "{'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [3]}", config=FP32_IO
    ),
    adding(
        "ac_in_other_optional",
        "{'name': 'IN', 'data_type': 'TYPE_FP32', 'dims': [-1], 'optional': True}",
        config=FP32_IO,
    ),
    adding(
        "ac_out_unknown_key",
        "{'name': 'OUT', 'data_type': 'TYPE_FP32', 'dims': [1], 'optional': True}",
        "add_output",
    ),
    adding("ac_out_unknown_key_no_name", "{'label': 'x'}", "add_output"),
    adding("ac_out_no_name", "{'data_type': 'TYPE_FP32', 'dims': [1]}", "add_output"),
    adding("ac_out_no_type", "{'name': 'OUT', 'dims': [1]}", "add_output"),
    adding("ac_out_no_dims", "{'name': 'OUT', 'data_type': 'TYPE_FP32'}", "add_output"),
    adding(
        "ac_out_other_type",
        "{'name': 'OUT', 'data_type': 'TYPE_FP16', 'dims': [-1]}",
        "add_output",
        FP32_IO,
    ),
    adding(
        "ac_out_other_dims",
        "{'name': 'OUT', 'data_type': 'TYPE_FP32', 'dims': [3]}",
        "add_output",
        FP32_IO,
    ),
    adding("ac_policy_unknown_key", "{'coupled': True}", "set_model_transaction_policy"),
    adding(
        "ac_policy_changed",
        "{'decoupled': False}",
        "set_model_transaction_policy",
        "model_transaction_policy { decoupled: true }",
    ),
    adding(
        "ac_policy_changed_back",
        "{'decoupled': True}",
        "set_model_transaction_policy",
        "model_transaction_policy { decoupled: false }",
    ),
    adding("ac_unknown_method", "1", "set_version_policy"),
    completing("ac_scheduler_without_io", "config.set_dynamic_batching()"),
    completing("ac_input_only", f"config.add_input({IN})"),
    completing("ac_output_only", f"config.add_output({OUT})"),
    completing("ac_same_name_twice", "d = config.as_dict()\n" + f"d['input'] += [{IN}, {IN}]"),
    completing(
        "ac_backend_text",
        "raise ValueError("
        "config.as_dict()['backend'] + '|' + config.as_dict()['default_model_filename'])",
        STRINGS_IO,
    ),
)

AUTOCOMPLETE = Group(
    "autocomplete",
    models=COMPLETED + SEEN + REFUSED,
    requests=(
        ask("ac_state_is_gone/answer", "ac_state_is_gone"),
        ask("ac_bad_type/request", "ac_bad_type"),
        ask("ac_nothing/request", "ac_nothing"),
    ),
)
