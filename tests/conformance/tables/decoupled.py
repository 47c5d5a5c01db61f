"""Models that send any number of responses, asked by streams.

Each probe is the body of a function that `execute` calls, as in `sender`; ``notes``
are asked for by the request that follows.
"""

from __future__ import annotations

from ..schema import InferCase, ModelFiles, StreamCase, StreamGroup, words
from .sender import PROBE

CONFIG = """backend: "python"
model_transaction_policy { decoupled: true }
input [ { name: "IN" data_type: TYPE_STRING dims: [ -1 ] } ]
output [
  { name: "OUT" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "B" data_type: TYPE_FP32 dims: [ -1 ] }
]
"""
STREAM_PROBE = PROBE.replace(
    "return [reply(text)]", "return request.get_response_sender().send(reply(text), 1)"
).replace(
    "def later(",
    """def error(text="sent error"):
    code = pb_utils.TritonError.NOT_FOUND
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, code))

def numbers(*values):
    return pb_utils.InferenceResponse([pb_utils.Tensor("B", np.array(values, np.float32))])


def wait_for(function, seconds=3.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if function():
            return True
        time.sleep(0.01)
    return False


def later(""",
)
ASYNC_PROBE = (
    STREAM_PROBE.replace("import textwrap", "import asyncio\nimport textwrap")
    .replace("    def execute(", "    async def execute(")
    .replace("time.sleep(0.3)", "await asyncio.sleep(1)")
    .replace('"def body():', '"async def body():')
    .replace('return names.pop("body")()', 'return await names.pop("body")()')
)

CALLS: dict[str, str] = {
    # Ends
    "one_final": "sender.send(reply(), 1)",
    "two": "sender.send(reply('a'))\nsender.send(reply('b'))\nsender.send(flags=1)",
    "final_with_last": "sender.send(reply('a'))\nsender.send(reply('b'), 1)",
    "zero": "sender.send(flags=1)",
    "zero_none": "sender.send(None, flags=1)",
    "zero_thread": "later(lambda: sender.send(flags=1))",
    "no_outputs_final": "sender.send(InferenceResponse([]), 1)",
    "no_outputs_between": """
sender.send(InferenceResponse([]))
sender.send(reply('b'))
sender.send(InferenceResponse([]))
sender.send(flags=1)
""",
    "no_final_dropped": "sender.send(reply())",
    "nothing_dropped": "request.get_response_sender()",
    "nothing": "pass",
    "no_final_kept": "sender.send(reply())\nself.kept = sender",
    # What `execute` returns
    "return_list": "return [reply()]",
    "return_empty_list": "return []",
    "return_list_none": "return [None]",
    "return_false": "return False",
    "return_list_after_send": "sender.send(reply('a'))\nreturn []",
    "return_list_after_final": "sender.send(reply('a'), 1)\nreturn [None]",
    # Exceptions
    "raise": "raise ValueError('boom')",
    "raise_after_send": "sender.send(reply('a'))\nraise ValueError('boom')",
    "raise_after_final": "sender.send(reply('a'), 1)\nraise ValueError('boom')",
    "raise_after_final_alone": """
sender.send(reply('a'))
sender.send(flags=1)
raise ValueError('boom')
""",
    "thread_raises": """
def run():
    sender.send(reply('a'))
    raise ValueError('boom')
later(run)
""",
    "raise_then_thread": """
sent = []
def run():
    note(lambda: sender.send(reply('late')))
    note(lambda: sender.send(flags=1))
later(run)
raise ValueError('boom')
""",
    # Arguments
    "bad_flag": "sender.send(reply(), flags=3)",
    "bad_flag_after_send": "sender.send(reply())\nsender.send(reply(), flags=2)",
    "none_noflag": "sender.send(None)",
    "nothing_sent": "sender.send()",
    "wrong_type": "sender.send('abc', 1)",
    "bad_flag_caught": """
text = outcome(lambda: sender.send(reply(), 3))
sender.send(reply(text), 1)
""",
    "after_final": "sender.send(reply('a'), 1)\nsender.send(reply('b'))",
    "after_final_caught": """
sender.send(reply('a'), 1)
note(lambda: sender.send(reply('b')))
note(lambda: sender.send(flags=1))
note(lambda: sender.send())
note(lambda: sender.send(flags=2))
""",
    "after_final_alone_caught": """
sender.send(flags=1)
note(lambda: sender.send(reply('b')))
note(lambda: sender.send(flags=1))
""",
    # Errors
    "error_final": "sender.send(error(), 1)",
    "error_then_final": "sender.send(error())\nsender.send(flags=1)",
    "error_then_more": "sender.send(error())\nsender.send(reply('more'))\nsender.send(flags=1)",
    "error_between": "sender.send(reply('a'))\nsender.send(error())\nsender.send(reply('b'), 1)",
    "errors_only": "sender.send(error('1'))\nsender.send(error('2'))\nsender.send(error('3'), 1)",
    "error_and_tensors": """
sender.send(InferenceResponse(reply().output_tensors(), TritonError('both')), 1)
""",
    # Outputs
    "two_outputs": """
sender.send(InferenceResponse(numbers(1, 2).output_tensors() + reply().output_tensors()), 1)
""",
    "alternating": """
sender.send(reply('a'))
sender.send(numbers(1, 2))
sender.send(InferenceResponse(reply('c').output_tensors() + numbers(3).output_tensors()))
sender.send(flags=1)
""",
    "unknown_output": "sender.send(reply('x', 'NOPE', 'OUT'))\nsender.send(reply('x', 'NOPE'), 1)",
    "varying": """
sender.send(InferenceResponse([Tensor('OUT', np.arange(6, dtype='i2').reshape(2, 3))]))
sender.send(InferenceResponse([Tensor('OUT', np.array(1.5))]))
sender.send(InferenceResponse([Tensor('OUT', np.zeros((0, 2), np.float32))]))
sender.send(InferenceResponse([Tensor('OUT', np.array([True]))]))
sender.send(InferenceResponse([]))
sender.send(flags=1)
""",
    "same_response_twice": """
response = reply('same')
sender.send(response)
sender.send(response)
sender.send(response, 1)
""",
    "changed_between": """
array = np.zeros(2, np.float32)
response = InferenceResponse([Tensor('B', array)])
for i in range(3):
    array[:] = i
    sender.send(response)
array[:] = 9
sender.send(flags=1)
""",
    "hundred": "for i in range(100):\n    sender.send(reply(str(i)))\nsender.send(flags=1)",
    # Threads
    "thread": """
def run():
    for text in 'abc':
        sender.send(reply(text))
    sender.send(flags=1)
later(run)
""",
    "thread_and_here": "sender.send(reply('a'))\nlater(lambda: sender.send(reply('b'), 1))",
    "request_kept": "later(lambda: request.get_response_sender().send(reply(), 1))",
    "sender_fetched_later": """
self.request = request
def run():
    s = self.request.get_response_sender()
    s.send(reply('a'))
    s.send(reply(str(s is self.request.get_response_sender())))
    s.send(flags=1)
    self.request = None
later(run)
""",
    "input_read_later": """
def run():
    text = pb_utils.get_input_tensor_by_name(request, 'IN').as_numpy()[0].strip()[:3].decode()
    sender.send(reply(text), 1)
later(run)
""",
    # The object
    "same_object": "sender.send(reply(str(request.get_response_sender() is sender)), 1)",
    "cancelled": "sender.send(reply(str([request.is_cancelled(), sender.is_cancelled()])), 1)",
    "names": "sender.send(reply(str(sorted(request.requested_output_names()))), 1)",
    "sees": """
seen = [request.request_id(), request.correlation_id(), request.flags(), request.parameters()]
sender.send(reply(str(seen)), 1)
""",
    "release_1": "request.set_release_flags(1)\nsender.send(reply(), 1)",
}
COLLECTED: dict[str, str] = {
    "no_final_collected": "sender.send(reply())\nlater(__import__('gc').collect)",
    "nothing_collected": "request.get_response_sender()\nlater(__import__('gc').collect)",
}
ASYNC_CALLS: dict[str, str] = {
    "one": "sender.send(reply(), 1)",
    "three": """
for text in 'abc':
    sender.send(reply(text))
    await asyncio.sleep(0.01)
sender.send(flags=1)
""",
    "zero": "await asyncio.sleep(0.01)\nsender.send(flags=1)",
    "return_list": "await asyncio.sleep(0)\nsender.send(reply(), 1)\nreturn [1]",
    "raise_first": "raise ValueError('boom')",
    "raise_after_send": "sender.send(reply('a'))\nawait asyncio.sleep(0)\nraise ValueError('boom')",
    "raise_after_final": "sender.send(reply('a'), 1)\nraise ValueError('boom')",
    "error_then_more": "sender.send(error())\nawait asyncio.sleep(0)\nsender.send(reply('b'), 1)",
    "task": """
async def more():
    await asyncio.sleep(0.05)
    sender.send(reply('from task'), 1)
self.task = asyncio.create_task(more())
""",
    "loop": """
thread = threading.current_thread()
loop = asyncio.get_running_loop()
same = getattr(self, 'loop', loop) is loop
self.loop = loop
sender.send(reply(str([thread is threading.main_thread(), thread.daemon, same])), 1)
""",
    "executor": """
text = await asyncio.get_running_loop().run_in_executor(None, lambda: 'from executor')
sender.send(reply(text), 1)
""",
    "after_final_caught": "sender.send(flags=1)\nnote(lambda: sender.send(reply()))",
}


def asked(case_id: str, model: str, code: str, *outputs: str, request_id: str = "") -> InferCase:
    """Return a request that runs a probe."""
    return InferCase(case_id, model, {"IN": words(code)}, outputs or None, request_id)


def single(name: str, model: str, code: str, *outputs: str) -> StreamCase:
    """Return one request on its own, with the notes if it makes any."""
    case_id = f"{model}/{name}"
    then = asked(f"{case_id}:notes", model, "notes") if "note(" in code else None
    return StreamCase(case_id, (asked(case_id, model, code, *outputs),), then=then)


def many(name: str, model: str, *codes: str, notes: bool = True, gap_s: float = 0.2) -> StreamCase:
    """Return requests that run at the same time, and the notes."""
    case_id = f"{model}/{name}"
    return StreamCase(
        case_id,
        tuple(asked(f"{case_id}:{i}", model, code) for i, code in enumerate(codes)),
        gap_s=gap_s,
        then=asked(f"{case_id}:notes", model, "notes") if notes else None,
        both=False,
    )


SUBSET = """
both = reply('x').output_tensors() + numbers(1).output_tensors()
names = sorted(request.requested_output_names())
sender.send(InferenceResponse(both))
sender.send(reply(str(names)))
sender.send(numbers(2))
sender.send(flags=1)
"""
STORY = """
notes.append('{name} starts')
sender.send(reply('{name}1'))
await asyncio.sleep(0.6)
notes.append('{name} goes on')
sender.send(reply('{name}2'), 1)
"""
SLOW = """
notes.append('{name} starts')
time.sleep(0.6)
notes.append('{name} ends')
sender.send(reply('{name}'), 1)
"""
CANCELLED = """
def run():
    before = [request.is_cancelled(), sender.is_cancelled()]
    sender.send(reply('first'))
    note(lambda: before)
    note(lambda: wait_for(request.is_cancelled))
    note(sender.is_cancelled)
    note(lambda: sender.send(reply('late')))
    note(lambda: sender.send(flags=1))
"""
CANCELLED_ASYNC = """
sender.send(reply('first'))
for _ in range(100):
    if request.is_cancelled():
        break
    await asyncio.sleep(0.02)
note(request.is_cancelled)
note(sender.is_cancelled)
note(lambda: sender.send(flags=1))
"""


def cancelled(name: str, model: str, code: str, **when: float) -> StreamCase:
    """Return a request that its client cancels, and what the model saw of it."""
    case_id = f"{model}/{name}"
    return StreamCase(
        case_id,
        (asked(case_id, model, code),),
        cancel_after=1 if not when else None,
        cancel_after_s=when.get("seconds"),
        then=asked(f"{case_id}:notes", model, "notes"),
        both=False,
    )


CROSSED = """
if not hasattr(self, 'first'):
    self.first = sender
    return None
self.first.send(reply('from second'), 1)
sender.send(reply('own'), 1)
del self.first
return None
"""

DECOUPLED = StreamGroup(
    "decoupled",
    models=(
        ModelFiles("dec", CONFIG, {"1/model.py": STREAM_PROBE}),
        ModelFiles("dec_async", CONFIG, {"1/model.py": ASYNC_PROBE}),
        ModelFiles("not_dec", CONFIG.replace("decoupled: true", ""), {"1/model.py": PROBE}),
        ModelFiles("not_dec_two", CONFIG.replace("decoupled: true", ""), {"1/model.py": PROBE}),
    ),
    streams=(
        *(single(name, "dec", code) for name, code in CALLS.items()),
        single("subset_out", "dec", SUBSET, "OUT"),
        single("subset_b", "dec", SUBSET, "B"),
        single("subset_b_out", "dec", SUBSET, "B", "OUT"),
        single("subset_unknown", "dec", SUBSET, "NOPE"),
        StreamCase(
            "dec/sees_more",
            (
                InferCase(
                    "dec/sees_more",
                    "dec",
                    {"IN": words(CALLS["sees"])},
                    request_id="r1",
                    parameters={"a": 1},
                    correlation_id=7,
                    sequence_start=True,
                ),
            ),
        ),
        StreamCase("dec/no_input", (InferCase("dec/no_input", "dec"),)),
        StreamCase("dec/no_model", (InferCase("dec/no_model", "nope", {"IN": words("x")}),)),
        many("one_by_one", "dec", SLOW.format(name="a"), SLOW.format(name="b")),
        many("crossed", "dec", CROSSED, CROSSED, notes=False),
        cancelled("client_cancels", "dec", CANCELLED + "threading.Thread(target=run).start()\n"),
        cancelled("client_cancels_in_execute", "dec", CANCELLED + "run()\n"),
        cancelled(
            "client_cancels_unsent",
            "dec",
            """
note(lambda: wait_for(sender.is_cancelled))
note(request.is_cancelled)
sender.send(flags=1)
""",
            seconds=0.3,
        ),
        *(single(name, "dec_async", code) for name, code in ASYNC_CALLS.items()),
        single("subset_b", "dec_async", SUBSET, "B"),
        many("overlap", "dec_async", STORY.format(name="a"), STORY.format(name="b")),
        many(
            "blocking",
            "dec_async",
            SLOW.format(name="a"),
            SLOW.format(name="b"),
        ),
        cancelled("client_cancels", "dec_async", CANCELLED_ASYNC),
        # Models in default mode answer streams as well
        single("one", "not_dec", "return [reply()]"),
        single("no_outputs", "not_dec", "return [InferenceResponse([])]"),
        single("error", "not_dec", "return [InferenceResponse(error=TritonError('sent'))]"),
        single("sent", "not_dec", "sender.send(reply(), 1)"),
        single("final_alone", "not_dec", "sender.send(reply())\nsender.send(flags=1)"),
        many("crossed", "not_dec", CROSSED, CROSSED, notes=False),
        single("raise", "not_dec", "raise ValueError('boom')"),
        # Last: what may end the server
        single("twice", "not_dec_two", "sender.send(reply())\nsender.send(reply('b'), 1)"),
        *(single(name, "dec", code) for name, code in COLLECTED.items()),
    ),
)
