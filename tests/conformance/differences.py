"""Where we answer differently from Triton, on purpose, and how answers are compared."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

POLL = "Triton hides the reason in its log; here the error carries it"
SILENT = "Triton never answers; here the caller gets an error at once"


NO_LIBRARIES = "no shared library is ever loaded here, and `runtime` is honoured at each load"
IN_PROCESS = "the model runs in the caller's process"
SHARED = "an import by DLPack stays the producer's memory here, which the spec promises as well"
PARAMETERS = "responses have parameters here, as in newer versions"
CRASHES = "the server or the model's process ends on Triton"
BLOCKS = "a `send` for a request that is answered does not come back on Triton"
ONE_ANSWER = "a call has one answer here, not a broken document"
CODE_KEPT = "BLS keeps the callee's error code, as newer versions do"
DELIVERED = "Triton hangs; an error in a stream is delivered here, as by newer versions"
DEADLOCK = "Triton waits for ever; here the call fails with the chain"
AT_EACH_SEND = "Triton keeps the data of the first send; here each send takes what is there"
ONE_SENDER = "a rescheduled request keeps its sender"
NO_BATCHES = "requests of iterative sequences are not batched yet"
PLAIN_SEQUENCES = "sequence batching without iterative sequences is not supported yet"
ENDS_WITH_ERROR = "a request that Triton leaves open ends with an error here"


@dataclass(frozen=True, slots=True)
class Difference:
    """What is expected here instead: a status, and a pattern that the text or outputs contain."""

    reason: str
    status: int
    pattern: str = ""


DIFFERENCES: Mapping[str, Difference] = {
    # Requests that Triton leaves without an answer
    "unanswered/none": Difference(SILENT, 500),
    "unanswered/none_in_list": Difference(SILENT, 500),
    "load/missing_model_py": Difference(SILENT, 400, r"model\.py"),
    # Models that Triton refuses while it reads the repository
    "load/other_name": Difference(POLL, 400, "some_other"),
    "load/platform_only": Difference(POLL, 400, "platform_only"),
    "load/nothing_in_version": Difference(POLL, 400, "nothing_in_version"),
    "load/config_syntax": Difference(POLL, 400, "config_syntax"),
    "load/config_unknown_field": Difference(POLL, 400, "no_such_field"),
    # `runtime` names something that is no Python-based backend
    "load/runtime_other_py": Difference(NO_LIBRARIES, 400, r"other\.py"),
    "load/runtime_other_py_in_use": Difference(NO_LIBRARIES, 400, r"other\.py"),
    "runtime_other_py_in_use/who": Difference(NO_LIBRARIES, 404, "runtime_other_py_in_use"),
    "load/runtime_escapes": Difference(NO_LIBRARIES, 400, r"\.\./unused_2/model\.py"),
    "load/runtime_escapes_in_use": Difference(NO_LIBRARIES, 400, r"\.\./shared/model\.py"),
    "runtime_escapes_in_use/who": Difference(NO_LIBRARIES, 404, "runtime_escapes_in_use"),
    # A process of its own
    "search_path/who": Difference("sys.path is the caller's; imports are resolved privately", 200),
    "load/native_name_from_import": Difference(
        "the module is made in memory",
        400,
        "cannot import name 'Tensor' from 'triton_python_backend_utils'",
    ),
    "argv/who": Difference(IN_PROCESS, 200),
    "main_thread/answer": Difference(IN_PROCESS, 200, "true|false"),
    # A completion that Triton drops without a word
    "load/ac_bad_type": Difference("a wrong data_type is an error here", 400, "FLOAT"),
    "load/ac_bad_type_output": Difference("a wrong data_type is an error here", 400, "FLOAT"),
    "ac_bad_type/request": Difference("the model is not loaded here", 404, "ac_bad_type"),
    "load/ac_name_number": Difference("a name that is no text is an error here", 400, "name"),
    # Values of pb_utils
    "probe/tensor_new_attribute": Difference(
        "Python 3.13 says more", 200, "object has no attribute 'note'"
    ),
    "probe/tensor_subclassed": Difference(
        "Tensor is final here", 200, "not an acceptable base type"
    ),
    "probe/dlpack_round_trip_aliases": Difference(SHARED, 200, r"\[7.0, 1.0\]"),
    "probe/dlpack_on_instance": Difference("a static method may be called on an instance", 200),
    "probe/error_code_order": Difference("the type's name has no module", 200, "'<' not supported"),
    "probe/tensor_triton_dtype": Difference("the method is of no use on Triton", 200),
    "probe/response_parameters": Difference(PARAMETERS, 200, "InferenceResponse object"),
    "probe/response_has_parameters": Difference(PARAMETERS, 200, "True"),
    "probe/response_members": Difference(PARAMETERS, 200, "'parameters'"),
    "probe/request_correlation_negative": Difference("a C++ text", 200, "RuntimeError: Unable to"),
    "probe/request_correlation_too_large": Difference("a C++ text", 200, "RuntimeError: Unable to"),
    "probe/type_to_numpy": Difference(
        "numpy 2 says bool, not bool_", 200, "None, 'bool_?', 'uint8'"
    ),
    # The response sender: requests that Triton leaves without an answer
    **{
        f"risk/{name}": Difference(SILENT, 500)
        for name in (
            "unsent",
            "unsent_list",
            "dropped",
            "thread_raises",
            "reschedule",
            "reschedule_none",
        )
    },
    # ... and what its process does not survive
    "risk/made_cancelled": Difference(CRASHES, 200, "False|error|Error|Exception"),
    "risk/made_release": Difference(CRASHES, 200),
    **{
        f"risk/{name}_after_final:notes": Difference(CRASHES, 200)
        for name in ("cancelled", "request_cancelled", "sender")
    },
    "risk/cancelled_later:notes": Difference(CRASHES, 200),
    "risk/raise_then_thread:notes": Difference(BLOCKS, 200, "Unable to send response"),
    "risk/returned_then_thread:notes": Difference(BLOCKS, 200, "Unable to send response"),
    **{
        f"risk/{name}": Difference(
            ONE_ANSWER, 500, "expected a single response, got 2|after|more than one response"
        )
        for name in ("twice", "sent_then_returned", "sent_then_raise")
    },
    # Model control
    "control/load_files_without_model": Difference(
        "Triton answers only if nothing has changed; a load without model.py does not return",
        200,
        r"model\.py",
    ),
    "control/load_after_files": Difference(
        "Triton has taken the files of the request before, and returns to the repository; here "
        "they were refused, and the configuration of the load before that stays in force, as it "
        "does on Triton when no files were given since",
        200,
        r"null, .*\[0, \{\}",
    ),
    "load/control_auto_complete_ready": Difference(SILENT, 400),
    "load/control_auto_complete_load": Difference(SILENT, 400),
    "load/control_auto_complete_unload": Difference(SILENT, 400),
    # BLS
    **{
        f"risk_bls/{name}": Difference(DEADLOCK, 200, "no instance can ever become free")
        for name in ("received", "received_decoupled", "to_itself")
    },
    **{
        f"bls/error_{code}": Difference(CODE_KEPT, 200, f"told.*ErrorCode.{code}")
        for code in (
            "UNKNOWN",
            "NOT_FOUND",
            "INVALID_ARG",
            "UNAVAILABLE",
            "UNSUPPORTED",
            "ALREADY_EXISTS",
            "CANCELLED",
        )
    },
    "bls/extra_input": Difference("in the order of a hash map", 200, "expected 1 inputs but got 2"),
    "risk_bls/stream_error_then_more": Difference(DELIVERED, 200, "sent error.*sent"),
    "risk_bls/stream_error_then_final": Difference(DELIVERED, 200, "sent error"),
    "risk_bls/stream_error_between": Difference(DELIVERED, 200, "sent.*sent error"),
    "risk_bls/stream_raises_after": Difference(DELIVERED, 200, "sent.*ValueError: 1"),
    "risk_bls/iterator_cancel": Difference("cancel() exists, as in newer versions", 200, "null"),
    "risk_bls/response_parameters": Difference(PARAMETERS, 200, "{}"),
    "bls/stream_error_final": Difference(CODE_KEPT, 200, "sent error.*NOT_FOUND"),
    "bls/iterator_members": Difference("cancel() exists, as in newer versions", 200, "cancel"),
    "send/made_sender": Difference("a sender that sends to nobody", 200, "TritonModelException"),
    "bls/decoupled_default_error": Difference(CODE_KEPT, 200, "told.*ErrorCode.NOT_FOUND"),
    "bls_async/error": Difference(CODE_KEPT, 200, "told.*ErrorCode.NOT_FOUND"),
    "rules/generator_returned": Difference(
        "the answer depends on the version of Python", 500, "Task got bad yield|<class 'generator'>"
    ),
}


@dataclass(frozen=True, slots=True)
class StreamDifference:
    """What is expected of a stream instead; None is compared with nothing."""

    reason: str
    expected: Mapping[str, Any] | None = None


STREAM_DIFFERENCES: Mapping[str, StreamDifference] = {
    "not_dec/final_alone": StreamDifference("the only response of a model is final here"),
    "not_dec_two/twice": StreamDifference(ONE_ANSWER),
    "dec/changed_between": StreamDifference(AT_EACH_SEND),
    "iter/objects": StreamDifference(ONE_SENDER),
    "iter_dec/objects": StreamDifference(ONE_SENDER),
    "iter_batched/two": StreamDifference(NO_BATCHES),
    "iter_batched_dec/two": StreamDifference(NO_BATCHES),
    "iter_not/start": StreamDifference(PLAIN_SEQUENCES),
    "dec/no_final_kept": StreamDifference("open while the model keeps the sender, here too"),
    **{
        f"iter_risk_{name}/{name}": StreamDifference("answered and rescheduled at once")
        for name in ("send", "final", "final_dec")
    },
    **{
        name: StreamDifference("Triton loses rescheduled requests of a sequence that had to wait")
        for name in (
            "iter/two",
            "iter/two_ids",
            "iter_dec/two",
            "iter_dec/two_ids",
            "iter_batched/four",
            "iter_batched_dec/four",
        )
    },
}
THREAD_ONLY = frozenset(
    {
        "bls/stream_while_sending",
        "dec/client_cancels_in_execute",
        "dec/client_cancels_unsent",
    }
)
"""Requests whose caller does something while the model runs, on that thread if it is inline."""

OUTPUTS_ARE_A_DICT = frozenset(
    {"rules/same_output_twice", "rules/same_output_twice:OUT", "rules/same_tensor_twice"}
)
"""Responses with two outputs of one name: one of the two is left here."""

TRIED_PATHS = frozenset(
    {"load/unknown_backend", "load/unknown_backend_own_file", "load/backend_without_file"}
)
"""Load errors where the paths that were tried follow Triton's text."""

ANY_INPUT = frozenset(
    {
        "b4/batch_0",
        "b4/empty_shape",
        "b4/mismatch",
        "b4/no_batch_dim",
        "b4/too_big_and_wrong_dim",
        "batched_opt/mismatch",
        "nb/both_wrong_dim",
        "nb/wrong_names",
    }
)
"""Requests with several bad inputs: Triton reports one of them, in the order of a hash map."""

_FRAME = re.compile(r"^  (?!<repo>/|<backends>/(?!python/))[^\n]*\(\d+\): [^\n]+\n", re.MULTILINE)
_EMPTY_BLOCK = re.compile(r"\n\nAt:\n(?!  )")
_PRIVATE_PREFIX = re.compile(r"pytriton_lite_\d+_\w+\.")
_SIGNATURES = re.compile(
    r"(The following argument types are supported:)\n.*?(?=\n\nAt:|\Z)", re.DOTALL
)
_COMPREHENSION = re.compile(r"^  [^\n]*: <(list|dict|set)comp>\n", re.MULTILINE)
# What Python adds to an AttributeError from 3.13 on.
_NO_DICT = " and no __dict__ for setting new attributes"
_GOT = re.compile(r"Got input\(s\) \[([^\]]*)\]")


def comparable(text: str, any_of: Iterable[str] = ()) -> str:
    """Return an error text without what may differ between two runs.

    Of a traceback block only the frames of the user's own files are left: those
    of the import system and of the runtime have other files and lines. The
    given names in quotes are all made the same. Of a binding's refusal of arguments
    the first line is left.
    """
    text = _EMPTY_BLOCK.sub("", _FRAME.sub("", text))
    if sys.version_info >= (3, 12):  # the recording is of 3.11: later on they have no frame
        text = _COMPREHENSION.sub("", text)
    text = _SIGNATURES.sub(r"\1", text)
    text = _GOT.sub(lambda m: f"Got input(s) [{','.join(sorted(m[1].split(',')))}]", text)
    for name in any_of:
        text = text.replace(f"'{name}'", "'one of the inputs'")
    return text


def without_prefix(text: str) -> str:
    """Return a text without the private package in which a model's modules live."""
    return _PRIVATE_PREFIX.sub("", text)


def exact(value: Any) -> str:
    """Return a text that is equal for equal values, NaN and signed zeros included."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).replace(_NO_DICT, "")
