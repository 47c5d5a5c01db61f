"""`execute` in default mode: what a client sees when the rules are kept and broken."""

from __future__ import annotations

from ..schema import Group, InferCase, ModelFiles, plain, source, words

CONFIG = """
backend: "python"
input [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]
output [
  { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "MORE" data_type: TYPE_INT32 dims: [ -1 ] }
]
"""
NUMBERS = source("""
    import numpy as np

    TWO = np.array([1.5, 2.5], dtype=np.float32)
    INTS = np.array([1, 2, 3], dtype=np.int32)
""")
MODEL = source("""
    import sys

    import helper
    import numpy as np
    import triton_python_backend_utils as pb_utils
    from numbers_to_send import INTS, TWO


    class Failure(Exception):
        class Inner(Exception):
            pass


    class Quiet(BaseException):
        pass


    class Unprintable(Exception):
        def __str__(self):
            raise RuntimeError("in __str__")


    class ListOfResponses(list):
        pass


    def out(array, name="OUT"):
        return pb_utils.Tensor(name, array)


    def reply(*tensors, error=None):
        return pb_utils.InferenceResponse(list(tensors), error)


    class TritonPythonModel:
        def execute(self, requests):
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            name, _, argument = text.partition(" ")
            return getattr(self, name)(requests, *argument.split())

        def fine(self, requests):
            return [reply(out(TWO))]

        # Exceptions

        def value_error(self, requests):
            raise ValueError("boom")

        def model_exception(self, requests):
            raise pb_utils.TritonModelException("boom tme")

        def no_text(self, requests):
            raise ValueError

        def empty_text(self, requests):
            raise ValueError("")

        def non_ascii(self, requests):
            raise ValueError("größer → 大")

        def two_lines(self, requests):
            raise ValueError("one\\ntwo\\n")

        def percent(self, requests):
            raise ValueError("100% of {things} \\\\ \\"quoted\\"")

        def two_arguments(self, requests):
            raise ValueError("one", 2)

        def nested_class(self, requests):
            raise Failure.Inner("inner")

        def local_class(self, requests):
            class Local(Exception):
                pass

            raise Local("local")

        def base_exception(self, requests):
            raise Quiet("base")

        def keyboard_interrupt(self, requests):
            raise KeyboardInterrupt("kb")

        def system_exit(self, requests):
            sys.exit(3)

        def system_exit_text(self, requests):
            sys.exit("bye")

        def stop_iteration(self, requests):
            raise StopIteration(4)

        def generator_exit(self, requests):
            raise GeneratorExit

        def key_error(self, requests):
            return {}["absent"]

        def os_error(self, requests):
            raise FileNotFoundError(2, "No such file", "weights.bin")

        def assertion(self, requests):
            assert not requests, "requests came"

        def zero_division(self, requests):
            return 1 / 0

        def unprintable(self, requests):
            raise Unprintable("never seen")

        def group_of_errors(self, requests):
            raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

        def with_cause(self, requests):
            try:
                {}["absent"]
            except KeyError as error:
                raise RuntimeError("outer") from error

        def with_note(self, requests):
            error = ValueError("noted")
            error.add_note("a note")
            raise error

        def in_helper(self, requests):
            helper.outer(requests)

        def in_lambda(self, requests):
            (lambda: helper.inner())()

        def in_library(self, requests):
            np.zeros(2).reshape(3)

        def in_evaluated(self, requests):
            eval("1 / 0")

        def reraised(self, requests):
            try:
                helper.inner()
            except LookupError as error:
                raise error

        def unicode_decode(self, requests):
            b"\\xff".decode()

        def raise_triton_error(self, requests):
            raise pb_utils.TritonError("not an exception")

        def recursion(self, requests):
            raise RecursionError("deep")

        # What is returned

        def tuple_returned(self, requests):
            return (reply(out(TWO)),)

        def dict_returned(self, requests):
            return {}

        def str_returned(self, requests):
            return "abc"

        def int_returned(self, requests):
            return 5

        def response_returned(self, requests):
            return reply(out(TWO))

        def array_returned(self, requests):
            return np.zeros(1)

        def own_class_returned(self, requests):
            return Failure()

        def list_subclass_returned(self, requests):
            return ListOfResponses([reply(out(TWO))])

        def generator_returned(self, requests):
            return (reply(out(TWO)) for _ in requests)

        def iterator_returned(self, requests):
            return iter([reply(out(TWO))])

        def too_few(self, requests):
            return []

        def too_many(self, requests):
            return [reply(out(TWO)), reply(out(TWO))]

        def str_element(self, requests):
            return ["abc"]

        def tensor_element(self, requests):
            return [out(TWO)]

        def request_element(self, requests):
            return [requests[0]]

        def error_element(self, requests):
            return [pb_utils.TritonError("bare")]

        def list_element(self, requests):
            return [[reply(out(TWO))]]

        def too_many_wrong(self, requests):
            return ["abc", None]

        # Outputs

        def no_outputs(self, requests):
            return [reply()]

        def default_response(self, requests):
            return [pb_utils.InferenceResponse()]

        def other_output_only(self, requests):
            return [reply(out(INTS, "MORE"))]

        def unknown_output(self, requests):
            return [reply(out(TWO, "NOPE"))]

        def extra_output(self, requests):
            return [reply(out(TWO, "NOPE"), out(TWO))]

        def both_outputs(self, requests):
            return [reply(out(TWO), out(INTS, "MORE"))]

        def both_reversed(self, requests):
            return [reply(out(INTS, "MORE"), out(TWO))]

        def same_output_twice(self, requests):
            return [reply(out(TWO), out(TWO * 2))]

        def same_tensor_twice(self, requests):
            tensor = out(TWO)
            return [reply(tensor, tensor)]

        def wrong_dtype(self, requests):
            return [reply(out(INTS))]

        def wrong_dims(self, requests):
            return [reply(out(np.zeros(3, np.float32)))]

        def wrong_rank(self, requests):
            return [reply(out(np.zeros((1, 2, 1), np.float32)))]

        def strings_for_numbers(self, requests):
            return [reply(out(np.array(["a", b"b"], np.object_)))]

        def zero_rank(self, requests):
            return [reply(out(np.array(7, np.float32)))]

        def zero_size(self, requests):
            return [reply(out(np.zeros(0, np.float32)))]

        def zero_size_2d(self, requests):
            return [reply(out(np.zeros((3, 0), np.float32)))]

        def numpy_scalar(self, requests):
            return [reply(out(TWO.sum()))]

        def transposed(self, requests):
            return [reply(out(np.arange(6, dtype=np.float32).reshape(2, 3).T))]

        def strided(self, requests):
            return [reply(out(np.arange(6, dtype=np.float32)[::-2]))]

        def broadcast(self, requests):
            return [reply(out(np.broadcast_to(np.float32(3), (2, 2))))]

        def input_returned(self, requests):
            return [reply(requests[0].inputs()[0])]

        def input_in_output(self, requests):
            return [reply(out(requests[0].inputs()[0].as_numpy()))]

        def changed_after(self, requests):
            array = TWO.copy()
            tensor = out(array)
            array[0] = -1
            return [reply(tensor)]

        def changed_after_strided(self, requests):
            array = np.zeros(4, np.float32)
            tensor = out(array[::2])
            array[0] = -1
            return [reply(tensor)]

        def changed_after_strings(self, requests):
            array = np.array(["before"], np.object_)
            tensor = out(array)
            array[0] = "after"
            return [reply(tensor)]

        def changed_through_tensor(self, requests):
            tensor = out(TWO.copy())
            tensor.as_numpy()[0] = -1
            return [reply(tensor)]

        def appended_later(self, requests):
            response = reply(out(TWO))
            response.output_tensors().append(out(INTS, "MORE"))
            return [response]

        def through_dlpack(self, requests):
            tensor = pb_utils.Tensor.from_dlpack("OUT", out(TWO).to_dlpack())
            return [reply(tensor)]

        # Errors of one request

        def error_only(self, requests):
            return [reply(error=pb_utils.TritonError("per request"))]

        def error_and_outputs(self, requests):
            return [reply(out(TWO), error=pb_utils.TritonError("only me"))]

        def error_empty(self, requests):
            return [reply(error=pb_utils.TritonError(""))]

        def error_non_ascii(self, requests):
            return [reply(error=pb_utils.TritonError("größer → 大\\nzwei"))]

        def error_code(self, requests, code):
            error = pb_utils.TritonError(code, getattr(pb_utils.TritonError, code))
            return [reply(error=error)]
""")
HELPER = source("""
    def outer(requests):
        for _ in requests:
            inner()


    def inner():
        raise LookupError("in the helper")
""")
RULES = ModelFiles(
    "rules",
    CONFIG,
    {"1/model.py": MODEL, "1/helper.py": HELPER, "1/numbers_to_send.py": NUMBERS},
)
CODES = (
    "UNKNOWN",
    "INTERNAL",
    "NOT_FOUND",
    "INVALID_ARG",
    "UNAVAILABLE",
    "UNSUPPORTED",
    "ALREADY_EXISTS",
    "CANCELLED",
)
BEHAVIOURS = tuple(
    line.split("(")[0].split()[1]
    for line in MODEL.splitlines()
    if line.startswith("    def ") and "(self, requests)" in line and " execute" not in line
)


def behave(name: str, *outputs: str, suffix: str = "") -> InferCase:
    """Return the request that makes the model ``rules`` show one behaviour."""
    return InferCase(f"rules/{name}{suffix}", "rules", {"IN": words(name)}, outputs or None)


NO_OUTPUTS = ModelFiles(
    "no_declared_outputs",
    'backend: "python"\ninput [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]',
    RULES.files,
)
NO_INPUTS = ModelFiles(
    "no_declared_inputs",
    'backend: "python"\noutput [ { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] } ]',
    {
        "1/model.py": source("""
            import numpy as np
            import triton_python_backend_utils as pb_utils


            class TritonPythonModel:
                def execute(self, requests):
                    array = np.array([len(requests[0].inputs()), 2], dtype=np.float32)
                    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])]
        """)
    },
)
NAMED_OUTPUTS = (
    ("both_outputs", ("OUT",)),
    ("both_outputs", ("MORE",)),
    ("both_outputs", ("MORE", "OUT")),
    ("both_outputs", ("OUT", "OUT")),
    ("both_outputs", ("NOPE",)),
    ("both_outputs", ("OUT", "NOPE")),
    ("other_output_only", ("OUT",)),
    ("unknown_output", ("NOPE",)),
    ("extra_output", ("OUT",)),
    ("same_output_twice", ("OUT",)),
    ("error_only", ("OUT",)),
    ("no_outputs", ("OUT",)),
)
UNANSWERED = plain(
    "unanswered",
    """
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            return None if text == "none" else [None]
    """,
)

EXECUTE = Group(
    "execute",
    models=(RULES, NO_OUTPUTS, NO_INPUTS),
    requests=(
        *(behave(name) for name in BEHAVIOURS),
        *(
            InferCase(f"rules/error_code_{code}", "rules", {"IN": words(f"error_code {code}")})
            for code in CODES
        ),
        *(behave(name, *names, suffix=f":{'+'.join(names)}") for name, names in NAMED_OUTPUTS),
        behave("fine", suffix=":still_alive"),
        InferCase("no_declared_outputs/fine", "no_declared_outputs", {"IN": words("fine")}),
        InferCase(
            "no_declared_outputs/asked_for", "no_declared_outputs", {"IN": words("fine")}, ("OUT",)
        ),
        InferCase("no_declared_inputs/none", "no_declared_inputs"),
        InferCase("no_declared_inputs/one", "no_declared_inputs", {"IN": words("fine")}),
    ),
)

MISSING_FILE = ModelFiles(
    "missing_model_py",
    'backend: "python"\ninput [ { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] } ]',
    {"1/readme.txt": "no model.py here\n"},
)
SILENT = Group(
    "silent",
    models=(UNANSWERED, MISSING_FILE),
    requests=(
        InferCase("unanswered/none", "unanswered", {"IN": words("none")}),
        InferCase("unanswered/none_in_list", "unanswered", {"IN": words("list")}),
    ),
)
