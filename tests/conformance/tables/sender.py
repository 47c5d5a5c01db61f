"""The response sender of default-mode models, and `async def execute`.

A probe is the body of a function that `execute` calls; what it returns, `execute`
returns. What happens after the answer is kept in ``notes``; the case after it,
``<name>:notes``, asks for them.
"""

from __future__ import annotations

from ..schema import Group, InferCase, ModelFiles, ask, plain, source, words

SENDER = plain(
    "sender",
    """
    import asyncio
    import threading

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        def execute(self, requests):
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            return getattr(self, text)(requests[0].get_response_sender())

        def reply(self, text="sent"):
            array = np.array([text], dtype=np.object_)
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])

        def final(self, sender):
            sender.send(self.reply(), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

        def final_and_list(self, sender):
            sender.send(self.reply(), flags=1)
            return [None]

        def final_alone_after(self, sender):
            sender.send(self.reply())
            sender.send(flags=1)

        def from_thread(self, sender):
            threading.Thread(target=self.final, args=(sender,)).start()

        def final_first(self, sender):
            sender.send(flags=1)

        def bad_flag(self, sender):
            sender.send(self.reply(), flags=2)

        def nothing(self, sender):
            sender.send()

        def wrong_type(self, sender):
            sender.send("abc", flags=1)

        def error(self, sender):
            error = pb_utils.TritonError("sent error", pb_utils.TritonError.UNAVAILABLE)
            sender.send(pb_utils.InferenceResponse(error=error), flags=1)

        def sent_and_returned(self, sender):
            sender.send(self.reply(), flags=1)
            return [self.reply("returned")]
    """,
)
ASYNC = plain(
    "async_execute",
    """
    import asyncio

    import numpy as np
    import triton_python_backend_utils as pb_utils


    class TritonPythonModel:
        async def execute(self, requests):
            await asyncio.sleep(0)
            text = pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0].decode()
            if text == "raise":
                raise ValueError("in coroutine")
            if text == "tuple":
                return ()
            array = np.array([text], dtype=np.object_)
            if text == "sender":
                reply = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])
                requests[0].get_response_sender().send(reply)
                await asyncio.sleep(0.01)
                requests[0].get_response_sender().send(flags=1)
                return None
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])]
    """,
)

PROBE = source("""
    import textwrap
    import threading
    import time

    import numpy as np
    import triton_python_backend_utils as pb_utils

    NATIVE = ("Tensor", "InferenceRequest", "InferenceResponse", "TritonError")
    notes = []


    def reply(text="sent", *names):
        array = np.array([text], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor(n, array) for n in names or ("OUT",)])


    def make(**changes):
        arguments = {"inputs": [], "requested_output_names": [], "model_name": "callee"}
        return pb_utils.InferenceRequest(**{**arguments, **changes})


    def outcome(function):
        try:
            return repr(function())
        except BaseException as error:
            lines = str(error).splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"


    def note(function):
        notes.append(outcome(function))


    def later(function):
        threading.Timer(0.1, function).start()


    class TritonPythonModel:
        def execute(self, requests):
            request = requests[0]
            code = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()
            if code == "notes":
                time.sleep(0.3)
                text = str(list(notes))
                notes.clear()
                return [reply(text)]
            names = {**globals(), "self": self, "request": request}
            names.update((name, getattr(pb_utils, name)) for name in NATIVE)
            names["sender"] = None if "sender" not in code else request.get_response_sender()
            exec("def body():\\n" + textwrap.indent(code.strip("\\n"), "    "), names)
            del request, requests
            return names.pop("body")()
""")

CALLS: dict[str, str] = {
    # Arguments of `send`
    "final_positional": "sender.send(reply(), 1)",
    "final_keywords": "sender.send(flags=1, response=reply())",
    "flags_true": "sender.send(reply(), flags=True)",
    "flags_3": "sender.send(reply(), flags=3)",
    "flags_4": "sender.send(reply(), 4)",
    "flags_2_alone": "sender.send(flags=2)",
    "flags_str": "sender.send(reply(), flags='1')",
    "flags_none": "sender.send(reply(), flags=None)",
    "flags_negative": "sender.send(reply(), flags=-1)",
    "flags_float": "sender.send(reply(), flags=1.0)",
    "flags_numpy": "sender.send(reply(), flags=np.int64(1))",
    "flags_beyond_32_bit": "sender.send(reply(), flags=2**32 + 1)",
    "wrong_keyword": "sender.send(reply(), flag=1)",
    "three_arguments": "sender.send(reply(), 1, 2)",
    "response_twice": "sender.send(reply(), response=reply())",
    "none": "sender.send(None)",
    "none_flags_0": "sender.send(None, flags=0)",
    "none_final": "sender.send(None, flags=1)",
    "list": "sender.send([reply()], flags=1)",
    "tensor": "sender.send(Tensor('OUT', np.zeros(1, np.float32)), 1)",
    "triton_error": "sender.send(TritonError('x'), 1)",
    "returns": "return [reply(outcome(lambda: make().set_flags(1)))]",
    # The object
    "type": "return [reply(str(type(sender)))]",
    "repr": "return [reply(repr(sender).split(' at ')[0])]",
    "members": "return [reply(str([n for n in dir(sender) if not n.startswith('__')]))]",
    "same_object": "return [reply(str(request.get_response_sender() is sender))]",
    "equal": "return [reply(str(request.get_response_sender() == sender))]",
    "constructor": "return [reply(outcome(lambda: type(sender)()))]",
    "attribute": "return [reply(outcome(lambda: setattr(sender, 'x', 1)))]",
    "in_module": "return [reply(str(hasattr(pb_utils, 'InferenceResponseSender')))]",
    "hash": "return [reply(outcome(lambda: hash(sender) == hash(sender)))]",
    "get_with_argument": "return [reply(outcome(lambda: request.get_response_sender(1)))]",
    "cancelled_sender": "return [reply(str(sender.is_cancelled()))]",
    "cancelled_request": "return [reply(str(request.is_cancelled()))]",
    "cancelled_argument": "return [reply(outcome(lambda: sender.is_cancelled(1)))]",
    "fetched_only": "request.get_response_sender()\nreturn [reply('returned')]",
    # What is sent
    "no_outputs": "sender.send(InferenceResponse([]), 1)",
    "unknown_output": "sender.send(reply('x', 'NOPE'), 1)",
    "unknown_and_known": "sender.send(reply('x', 'NOPE', 'OUT'), 1)",
    "error_empty": "sender.send(InferenceResponse(error=TritonError('')), 1)",
    "error_and_tensors": """
error = TritonError('both', TritonError.NOT_FOUND)
sender.send(InferenceResponse(reply().output_tensors(), error), 1)
""",
    "error_then_final": """
sender.send(InferenceResponse(error=TritonError('sent', TritonError.INVALID_ARG)))
sender.send(flags=1)
""",
    "other_dtype": "sender.send(InferenceResponse([Tensor('OUT', np.ones((2, 1), 'i2'))]), 1)",
    "changed_after": """
array = np.ones(2, np.float32)
response = InferenceResponse([Tensor('OUT', array)])
sender.send(response)
array[:] = 5
sender.send(flags=1)
""",
    "pruned_in_place": """
response = reply('x', 'NOPE', 'OUT')
sender.send(response)
notes.append([t.name() for t in response.output_tensors()])
sender.send(flags=1)
""",
    # When it is sent
    "thread": "later(lambda: sender.send(reply(), 1))",
    "thread_list": "later(lambda: sender.send(reply(), 1))\nreturn [None]",
    "final_in_thread": "sender.send(reply())\nlater(lambda: sender.send(flags=1))",
    "final_in_thread_list": """
sender.send(reply())
later(lambda: sender.send(flags=1))
return [None]
""",
    "final_after_thread": """
thread = threading.Thread(target=lambda: sender.send(reply()))
thread.start()
thread.join()
sender.send(flags=1)
""",
    "sent_in_thread_final_here": """
sent = threading.Event()
def run():
    sender.send(reply())
    sent.set()
threading.Thread(target=run).start()
sent.wait()
sender.send(None, 1)
return [None]
""",
    "request_kept": "later(lambda: request.get_response_sender().send(reply(), 1))",
    "request_read_later": """
def run():
    text = pb_utils.get_input_tensor_by_name(request, 'IN').as_numpy()[0][:3].decode()
    sender.send(reply(text + request.request_id()), 1)
later(run)
""",
    "request_read_after_final": """
def run():
    sender.send(reply(), 1)
    note(lambda: [request.request_id(), request.requested_output_names(), len(request.inputs())])
later(run)
""",
    # More than one call
    "final_first_caught": "return [reply(outcome(lambda: sender.send(flags=1)))]",
    "bad_flag_caught": """
text = outcome(lambda: sender.send(reply(), 2))
sender.send(reply(text), 1)
""",
    "nothing_caught": """
text = outcome(lambda: sender.send())
sender.send(reply(text), 1)
""",
    "second_caught": """
note(lambda: sender.send(reply()))
note(lambda: sender.send(reply('second')))
note(lambda: sender.send())
note(lambda: sender.send(reply('second'), 2))
sender.send(flags=1)
""",
    "after_final_caught": """
note(lambda: sender.send(reply(), 1))
note(lambda: sender.send(flags=1))
note(lambda: sender.send(reply(), 1))
note(lambda: sender.send(reply()))
note(lambda: sender.send())
note(lambda: sender.send(flags=2))
""",
    "after_final_alone_caught": """
sender.send(reply())
note(lambda: sender.send(flags=1))
note(lambda: sender.send(flags=1))
note(lambda: sender.send(reply()))
""",
    # Release flags
    "release_0": "request.set_release_flags(0)\nreturn [reply()]",
    "release_1": "request.set_release_flags(1)\nreturn [reply()]",
    "release_3": "request.set_release_flags(3)\nreturn [reply()]",
    "release_returns": "return [reply(outcome(lambda: request.set_release_flags(1)))]",
    "release_true": "return [reply(outcome(lambda: request.set_release_flags(True)))]",
    "release_str": "return [reply(outcome(lambda: request.set_release_flags('x')))]",
    "release_none": "return [reply(outcome(lambda: request.set_release_flags(None)))]",
    "release_float": "return [reply(outcome(lambda: request.set_release_flags(1.5)))]",
    "release_negative": "return [reply(outcome(lambda: request.set_release_flags(-1)))]",
    "release_nothing": "return [reply(outcome(lambda: request.set_release_flags()))]",
    # A request made here
    "made_sender": "return [reply(outcome(lambda: make().get_response_sender()))]",
}
NOTED = (
    "pruned_in_place",
    "request_read_after_final",
    "second_caught",
    "after_final_caught",
    "after_final_alone_caught",
)
"""Calls that are followed by a request for the notes."""

RISKY: dict[str, str] = {
    # Never answered
    "unsent": "sender.send(reply())",
    "unsent_list": "sender.send(reply())\nreturn [None]",
    "dropped": "request.get_response_sender()",
    "thread_raises": "later(lambda: sender.send(reply(), 2))",
    "reschedule": "request.set_release_flags(2)\nreturn [None]",
    "reschedule_none": "request.set_release_flags(2)",
    "reschedule_and_reply": "request.set_release_flags(2)\nreturn [reply()]",
    "reschedule_and_sent": "request.set_release_flags(2)\nsender.send(reply(), 1)",
    # More than one answer
    "twice": "sender.send(reply())\nsender.send(reply('second'), 1)",
    "sent_then_returned": "sender.send(reply())\nreturn [reply('returned')]",
    "sent_then_raise": "sender.send(reply())\nraise ValueError('after')",
    "final_then_raise": "sender.send(reply(), 1)\nraise ValueError('after')",
    "final_then_final": "sender.send(reply(), 1)\nsender.send(flags=1)",
    "final_then_second": "sender.send(reply(), 1)\nsender.send(reply('second'))",
    "raise_then_thread": """
def run():
    note(lambda: sender.send(reply(), 1))
later(run)
raise ValueError('first')
""",
    "returned_then_thread": """
def run():
    note(lambda: sender.send(reply(), 1))
later(run)
return [reply('returned')]
""",
    # More after the end
    "final_first_caught_sent": """
text = outcome(lambda: sender.send(flags=1))
sender.send(reply(text), 1)
""",
    "sent_then_bad_return": "sender.send(reply(), 1)\nreturn 'abc'",
    "sent_then_short_list": "sender.send(reply(), 1)\nreturn []",
    "raise_after_fetch": "request.get_response_sender()\nraise ValueError('unsent')",
    "cancelled_after_final": "sender.send(reply(), 1)\nnote(sender.is_cancelled)",
    "request_cancelled_after_final": "sender.send(reply(), 1)\nnote(request.is_cancelled)",
    "cancelled_later": """
sender.send(reply(), 1)
later(lambda: note(sender.is_cancelled))
""",
    "sender_after_final": """
def run():
    sender.send(reply(), 1)
    note(lambda: request.get_response_sender() is sender)
later(run)
""",
    # A request made here
    "made_cancelled": "return [reply(outcome(lambda: make().is_cancelled()))]",
    "made_release": "return [reply(outcome(lambda: make().set_release_flags(1)))]",
}
"""What Triton does not answer, or dies of; each with a model of its own."""


def model(name: str, config: str = "") -> ModelFiles:
    """Return a model that runs the code it is sent."""
    return plain(name, PROBE, config)


TWO = ModelFiles(
    "sender_two",
    """backend: "python"
input [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]
output [
  { name: "A" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "B" data_type: TYPE_STRING dims: [ -1 ] }
]
""",
    {"1/model.py": PROBE},
)


def subset(case_id: str, code: str, *outputs: str) -> InferCase:
    """Return a request for some of the outputs."""
    return InferCase(case_id, "sender_two", {"IN": words(code)}, outputs or None)


def call(name: str, code: str) -> tuple[InferCase, ...]:
    """Return the request that runs a probe, and the one that asks what it noted."""
    case = InferCase(f"send/{name}", "send", {"IN": words(code)}, request_id="r1")
    return (case, ask(f"send/{name}:notes", "send", "notes")) if name in NOTED else (case,)


SENDERS = Group(
    "sender",
    models=(SENDER, ASYNC, model("send"), TWO),
    requests=(
        *(
            ask(f"sender/{name}", "sender", name)
            for name in (
                "final",
                "final_and_list",
                "final_alone_after",
                "from_thread",
                "final_first",
                "bad_flag",
                "nothing",
                "wrong_type",
                "error",
                "sent_and_returned",
            )
        ),
        *(
            ask(f"async_execute/{name}", "async_execute", name)
            for name in ("result", "raise", "tuple", "sender")
        ),
        *(case for name, code in CALLS.items() for case in call(name, code)),
        subset("send_two/all", "sender.send(reply('x', 'B', 'A'), 1)"),
        subset("send_two/a", "sender.send(reply('x', 'B', 'A'), 1)", "A"),
        subset("send_two/b", "sender.send(reply('x', 'B', 'A'), 1)", "B"),
        subset("send_two/b_a", "sender.send(reply('x', 'A', 'B'), 1)", "B", "A"),
        subset("send_two/b_missing", "sender.send(reply('x', 'A'), 1)", "B"),
        subset(
            "send_two/names",
            "sender.send(reply(str(request.requested_output_names()), 'A', 'B'), 1)",
            "B",
        ),
    ),
)

SENDERS_AT_RISK = Group(
    "sender_at_risk",
    models=tuple(model(f"risk_{name}") for name in RISKY),
    requests=tuple(
        case
        for name, code in RISKY.items()
        for case in (
            ask(f"risk/{name}", f"risk_{name}", code),
            ask(f"risk/{name}:notes", f"risk_{name}", "notes"),
        )[: 1 + ("note" in code)]
    ),
)
