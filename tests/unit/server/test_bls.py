"""BLS: what goes to the callee and what comes back, in all combinations of executions.

Texts are those of the spec, observed on Triton 2.51; codes are the callee's, as in newer
versions, where those that are not observed follow from the error classes.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.bls import DECOUPLED, DECOUPLED_CONFIG, source
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder, echo_model

Act = Callable[..., Any]

PREFIX = "Model {} - Error when running inference: "
NOT_READY = PREFIX + "Failed for execute the inference request. Model '{}' is not ready."

ECHO = source(
    methods="""
    def execute(self, requests):
        return [answer(r, input_of(r) * 2) for r in requests]
    """
)
# Does what the parameter "plan" says, letter by letter.
DEC = source(
    methods="""
    def execute(self, requests):
        for request in requests:
            sender, number = request.get_response_sender(), 0
            for step in __import__("json").loads(request.parameters())["plan"]:
                if step in "rR":
                    number += 1
                    sender.send(answer(request, [number]), int(step == "R"))
                elif step in "eE":
                    error = pb_utils.TritonError("as asked", pb_utils.TritonError.NOT_FOUND)
                    sender.send(pb_utils.InferenceResponse(error=error), int(step == "E"))
                elif step == "F":
                    sender.send(flags=1)
                elif step == "x":
                    raise ValueError("raised")
                elif step == "w":
                    shared.entered.set()
                    assert shared.gate.wait(20)
                elif step == "c":
                    shared.entered.set()
                    begin = time.monotonic()
                    while not sender.is_cancelled():
                        assert time.monotonic() - begin < 20
                        time.sleep(0.001)
                    shared.log.append("cancelled")
    """
)
TELL = source(
    """
    import json
    """,
    """
    def execute(self, requests):
        responses = []
        for r in requests:
            told = [r.request_id(), r.correlation_id(), r.flags(), r.timeout(), r.parameters(),
                    sorted(r.requested_output_names()), r.is_cancelled()]
            out = np.array([json.dumps(told)], dtype=object)
            responses.append(pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT", out), pb_utils.Tensor("MORE", np.zeros(2, np.int8))],
                parameters={"cost": 3, "final": True}))
        return responses
    """,
)
TELL_CONFIG = """
backend: "python"
output [ { name: "OUT" data_type: TYPE_STRING dims: [ 1 ] },
         { name: "MORE" data_type: TYPE_INT8 dims: [ 2 ] } ]
"""
BOOM = echo_model(
    """
    def answer(x, request):
        raise ValueError("boom")
    """
)
FAULT = source(
    methods="""
    def execute(self, requests):
        error = pb_utils.TritonError("not here", pb_utils.TritonError.NOT_FOUND)
        return [pb_utils.InferenceResponse(error=error) for _ in requests]
    """
)


@pytest.fixture(autouse=True)
def callees(repository: RepositoryBuilder, bls: SimpleNamespace) -> None:
    repository.model("echo", ECHO)
    repository.model("dec", DEC, config=DECOUPLED_CONFIG)
    repository.model("tell", TELL, config=TELL_CONFIG)
    repository.model("boom", BOOM)
    repository.model("fault", FAULT)


ERRORS: dict[str, tuple[str, str]] = {
    "make('absent')": (NOT_READY.format("absent", "absent"), "INTERNAL"),
    "make('')": (NOT_READY.format("", ""), "INTERNAL"),
    "make('echo', model_version=7)": (NOT_READY.format("echo", "echo"), "INTERNAL"),
    "make('echo', outputs=['NOPE'])": (
        PREFIX.format("echo") + "unexpected inference output 'NOPE' for model 'echo'",
        "INTERNAL",
    ),
    "make('echo', names=['NOPE'])": (
        PREFIX.format("echo") + "unexpected inference input 'NOPE' for model 'echo'",
        "INTERNAL",
    ),
    "make('echo', names=[])": (
        PREFIX.format("echo") + "[request id: <id_unknown>] expected 1 inputs but got 0 inputs for"
        " model 'echo'. Got input(s) [], but missing required input(s) ['IN']. Please provide all"
        " required input(s).",
        "INTERNAL",
    ),
    "make('echo', [[1, 2], [3, 4]])": (
        PREFIX.format("echo") + "[request id: <id_unknown>] unexpected shape for input 'IN' for "
        "model 'echo'. Expected [-1], got [2,2]. ",
        "INTERNAL",
    ),
    "make('echo', names=['IN', 'IN'], request_id='r')": (
        PREFIX.format("echo") + "[request id: r] input 'IN' already exists in request",
        "INTERNAL",
    ),
    "typed(np.int32)": (
        PREFIX.format("echo") + "[request id: <id_unknown>] inference input 'IN' data-type is "
        "'INT32', but model 'echo' expects 'FP32'",
        "INTERNAL",
    ),
    "make('fault')": ("not here", "NOT_FOUND"),
    "make('boom')": (
        "Failed to process the request(s) for model 'boom_0', message: ValueError: boom\n\nAt:\n",
        "INTERNAL",
    ),
}
DECOUPLED_CALLEE = (
    PREFIX.format("dec") + "Model dec is using the decoupled. The current BLS request call doesn't "
    "support models using the decoupled transaction policy. Please use 'decoupled=True' "
    "argument to the 'exec' or 'async_exec' calls for decoupled models.'"
)
TYPED = """
def typed(dtype):
    tensor = pb_utils.Tensor("IN", np.ones(2, dtype))
    return pb_utils.InferenceRequest(model_name="echo", inputs=[tensor], requested_output_names=[])
"""


def same_error(found: Any, text: str, code: str) -> bool:
    """Only the file in a traceback, and what may follow it, is not compared."""
    return (found[0] == text or found[0].startswith(text)) and found[1] == code


def test_errors_are_responses(act: Act) -> None:
    requests = ", ".join([*ERRORS, "make('dec', parameters={'plan': 'R'})"])
    sync, asynchronous, streamed = act(
        f"""{TYPED}
async def act():
    sync = [told(r.exec()) for r in [{requests}]]
    asynchronous = [told(await r.async_exec()) for r in [{requests}]]
    streamed = [[told(r) for r in q.exec(decoupled=True)] for q in [{requests}]]
    return sync, asynchronous, streamed
"""
    )
    for found, (text, code) in zip(sync, ERRORS.values(), strict=False):
        assert same_error(found, text, code), found
    assert sync[-1][0] == DECOUPLED_CALLEE
    assert asynchronous == sync
    assert [item[0] for item in streamed[:-1]] == sync[:-1]
    assert all(len(items) == 1 for items in streamed)
    assert streamed[-1] == [{"OUT": [1]}]


def test_exec_answers(act: Act) -> None:
    assert act(
        """
def act():
    request = make("echo")
    again = [ask_again(request), ask_again(request)]  # a request object may be executed again
    received = request_with(pb_utils.Tensor("IN", np.float32([7])))
    return again, ask("echo", [], outputs=["OUT"]), told(received.exec())

def ask_again(request):
    return told(request.exec())

def request_with(tensor):
    return pb_utils.InferenceRequest("", 0, [tensor], ("OUT",), "echo")
"""
    ) == ([{"OUT": [2, 4]}] * 2, {"OUT": []}, {"OUT": [14]})


def test_everything_arrives_at_the_callee(act: Act) -> None:
    full, one, plain = act(
        """
def act():
    details = dict(request_id="r1", correlation_id=7, flags=3, timeout=5000,
                   parameters={"b": True, "i": 3, "s": "ä"})
    cpu = pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
    return [look(make("tell", names=[], **d)) for d in (
        details,
        {"outputs": ["OUT"], "correlation_id": "text", "preferred_memory": cpu},
        {"model_version": 1})]

def look(request):
    response = request.exec()
    out = pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy()
    return out[0], [t.name() for t in response.output_tensors()], response.parameters()
"""
    )
    # Made by hand from spec 3.4 and 6.2: what a client sends is compact JSON.
    names = ["MORE", "OUT"]
    assert json.loads(full[0]) == [
        "r1", 7, 3, 5000, '{"b":true,"i":3,"s":"ä"}', names, False,
    ]  # fmt: skip
    assert full[1:] == (["OUT", "MORE"], '{"cost": 3, "final": true}')
    assert json.loads(one[0]) == ["", "text", 0, 0, "{}", ["OUT"], False]
    assert one[1] == ["OUT"]
    assert json.loads(plain[0]) == ["", 0, 0, 0, "{}", names, False]


def test_a_received_request_asks_the_model_that_received_it(
    act: Act, repository: RepositoryBuilder, bls: SimpleNamespace
) -> None:
    repository.model(
        "forward",
        source(
            methods="""
            def execute(self, requests):
                shared.log.append(told(requests[0].exec()))
                return [answer(requests[0], [1])]
            """
        ),
    )
    act("def act(): return None")
    bls.server["forward"]({"IN": np.float32([1])}, timeout_s=20)
    ((message, code),) = bls.log
    assert code == "UNAVAILABLE"
    assert message.endswith("instance 'forward_0' waits for model 'forward'")


SPECIAL_CONFIG = """
backend: "python"
input [ { name: "BYTES" data_type: TYPE_STRING dims: [ -1 ] optional: true },
        { name: "BF16" data_type: TYPE_BF16 dims: [ -1 ] optional: true },
        { name: "ONE" data_type: TYPE_INT64 dims: [ 1 ] optional: true },
        { name: "EMPTY" data_type: TYPE_BOOL dims: [ -1, 3 ] optional: true } ]
output [ { name: "BYTES" data_type: TYPE_STRING dims: [ -1 ] },
         { name: "BF16" data_type: TYPE_BF16 dims: [ -1 ] },
         { name: "ONE" data_type: TYPE_INT64 dims: [ 1 ] },
         { name: "EMPTY" data_type: TYPE_BOOL dims: [ -1, 3 ] } ]
"""
SPECIAL = source(
    methods="""
    def execute(self, requests):
        outputs = requests[0].inputs()
        one = pb_utils.get_input_tensor_by_name(requests[0], "ONE")
        shared.log.append(one is None)
        if one:
            # Without dims: sent as it is, whatever the configuration says.
            outputs = [pb_utils.Tensor("ONE", one.as_numpy().reshape(()))]
        return [pb_utils.InferenceResponse(outputs)]
    """
)


def test_special_tensors(act: Act, repository: RepositoryBuilder, bls: SimpleNamespace) -> None:
    repository.model("special", SPECIAL, config=SPECIAL_CONFIG)
    words, bits, one, empty, nothing = act(
        """
def act():
    words = np.array([b"a", b"", b"\\x00\\xff", "ä".encode()], dtype=object)
    # BF16 exists through DLPack only: the same bits as unsigned 16 bit, named BF16.
    bits = np.array([0x3F80, 0x4000], np.uint16)
    return (
        run(pb_utils.Tensor("BYTES", words)),
        bf16(bits),
        run(pb_utils.Tensor("ONE", np.array([5]))),
        run(pb_utils.Tensor("EMPTY", np.zeros((0, 3), bool))),
        run(),
    )

def run(*tensors):
    request = pb_utils.InferenceRequest(
        model_name="special", inputs=tensors, requested_output_names=[])
    response = request.exec()
    if response.has_error():
        return response.error().message()
    return {t.name(): (t.as_numpy().tolist(), t.as_numpy().shape) for t in
            response.output_tensors()}

class Bf16:
    # A producer of BF16 made of 16 bit integers: only the type code in the capsule differs.
    def __init__(self, bits):
        self.bits = bits
    def __dlpack_device__(self):
        return (1, 0)
    def __dlpack__(self, stream=None):
        import ctypes
        capsule = self.bits.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        address = pointer(capsule, b"dltensor")
        ctypes.c_uint8.from_address(address + 20).value = 4  # kDLBfloat
        return capsule

def bf16(bits):
    request = pb_utils.InferenceRequest(
        model_name="special", inputs=[pb_utils.Tensor.from_dlpack("BF16", Bf16(bits))],
        requested_output_names=[])
    response = request.exec()
    if response.has_error():
        return response.error().message()
    tensor, = response.output_tensors()
    import ctypes
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = tensor.to_dlpack()
    address = pointer(capsule, b"dltensor")
    data = ctypes.c_void_p.from_address(address).value
    code = ctypes.c_uint8.from_address(address + 20).value
    return code, np.ctypeslib.as_array((ctypes.c_uint16 * 2).from_address(data)).tolist()
"""
    )
    assert words == {"BYTES": ([b"a", b"", b"\x00\xff", "ä".encode()], (4,))}
    assert bits == (4, [0x3F80, 0x4000])
    assert one == {"ONE": (5, ())}
    assert empty == {"EMPTY": ([], (0, 3))}
    assert nothing == {}
    assert bls.log == [True, True, False, True, True]


def test_a_batching_callee(act: Act, repository: RepositoryBuilder) -> None:
    config = ECHO_CONFIG + "max_batch_size: 2"
    repository.model("batching", ECHO, config=config)
    good, large, flat = act(
        """
def act():
    return ask("batching", [[1], [2]]), ask("batching", [[1]] * 3), ask("batching", [1, 2])
"""
    )
    assert good == {"OUT": [[2], [4]]}
    # Texts of Triton's core, as a client gets them, behind the prefix of BLS.
    prefix = PREFIX.format("batching")
    assert large[0].startswith(prefix)
    assert "batch-size must be <= 2 for 'batching'" in large[0]
    assert flat[0].startswith(prefix)
    assert "unexpected shape for input 'IN' for model 'batching'. Expected [-1,-1]" in flat[0]


# -- decoupled=True --------------------------------------------------------------------


def test_responses_of_a_decoupled_callee(act: Act) -> None:
    plans = ["rrF", "rR", "R", "F", "reF", "eR", "E", "rx", "x"]
    found, default = act(
        f"""
def act():
    plans = {plans}
    return [all_of("dec", parameters={{"plan": p}}) for p in plans], all_of("echo")
"""
    )
    one, two, fault = {"OUT": [1]}, {"OUT": [2]}, ("as asked", "NOT_FOUND")
    # FINAL alone is an empty response; with a response there is none (spec 6.3, observed).
    assert found[:7] == [
        [one, two, {}], [one, two], [one], [{}], [one, fault, {}], [fault, one], [fault],
    ]  # fmt: skip
    text = "Failed to process the request(s) for model 'dec_0', message: ValueError: raised"
    assert found[7][0] == one
    for items in (found[7][1:], found[8]):
        (item,) = items
        assert same_error(item, text, "INTERNAL")
    assert default == [{"OUT": [2, 4]}]


def test_an_iterator_replays_and_ends(act: Act) -> None:
    first, second, ends, mixed, kind = act(
        """
def act():
    responses = make("dec", parameters={"plan": "rrF"}).exec(decoupled=True)
    first, second = [told(r) for r in responses], [told(r) for r in responses]
    ends = []
    for _ in range(2):
        try:
            next(responses)
        except StopIteration as error:
            ends.append(str(error))
    replay = iter(responses)
    mixed = [told(next(replay)), told(next(responses))]
    return first, second, ends, mixed, (type(responses).__module__, type(responses).__name__)
"""
    )
    assert first == second == [{"OUT": [1]}, {"OUT": [2]}, {}]
    assert ends == ["Iteration is done for the responses."] * 2
    assert mixed == [{"OUT": [1]}, {"OUT": [2]}]
    assert kind == ("c_python_backend_utils", "ResponseIterator")


def test_an_awaited_iterator(act: Act) -> None:
    assert act(
        """
async def act():
    responses = await make("dec", parameters={"plan": "rrF"}).async_exec(decoupled=True)
    plain = await make("echo").async_exec(decoupled=True)
    return [told(r) for r in responses], [told(r) for r in plain]
"""
    ) == ([{"OUT": [1]}, {"OUT": [2]}, {}], [{"OUT": [2, 4]}])


def test_an_unfinished_iterator_is_dropped(
    act: Act, bls: SimpleNamespace, modes: dict[str, str]
) -> None:
    # An inline callee runs in `exec` itself: its gate is open.
    if modes["*"] == "inline":
        bls.gate.set()
    first, seconds = act(
        """
def act():
    responses = make("dec", parameters={"plan": "rwrF"}).exec(decoupled=True)
    first = told(next(responses))
    begin = time.monotonic()
    del responses
    return first, time.monotonic() - begin
"""
    )
    assert first == {"OUT": [1]}
    assert seconds < 5  # Triton drains, which would take until the gate is open
    bls.gate.set()
    # It was not cancelled: the callee goes on to its end, and answers the next request.
    assert "cancelled" not in bls.log


@pytest.mark.parametrize("plan", ["rcF", "cF", "crF"])
def test_an_iterator_is_cancelled(
    act: Act, bls: SimpleNamespace, modes: dict[str, str], plan: str
) -> None:
    if modes["*"] == "inline":
        pytest.skip("an inline callee is done before there is an iterator to cancel")
    rest = act(
        f"""
def act():
    responses = make("dec", parameters={{"plan": "{plan}"}}).exec(decoupled=True)
    assert shared.entered.wait(20)
    responses.cancel()
    rest = [told(r) for r in responses]
    responses.cancel()  # after the end: no effect
    return rest
"""
    )
    # The callee sees it and still may end the stream in its own way.
    assert bls.log == ["cancelled"]
    assert rest[-1] == {}


# -- memory ----------------------------------------------------------------------------

WRITER = source(
    methods="""
    def execute(self, requests):
        responses = []
        for request in requests:
            x = input_of(request)
            shared.log.append(x.tolist())
            x[:] = -1
            responses.append(answer(request, x))
        return responses
    """
)


def test_the_callee_cannot_change_the_callers_arrays(
    act: Act, repository: RepositoryBuilder
) -> None:
    repository.model("writer", WRITER)
    sent, out, tensor, own = act(
        """
def act():
    sent = np.float32([1, 2])
    tensor = pb_utils.Tensor("IN", sent)
    request = pb_utils.InferenceRequest(
        model_name="writer", inputs=[tensor], requested_output_names=[])
    response = request.exec()
    out = response.output_tensors()[0].as_numpy()
    return sent.tolist(), out.tolist(), tensor.as_numpy().tolist(), tensor.as_numpy() is sent
"""
    )
    assert (sent, out, tensor, own) == ([1, 2], [-1, -1], [1, 2], True)


def test_arrays_may_be_used_anew_once_the_caller_goes_on(
    act: Act, repository: RepositoryBuilder, bls: SimpleNamespace, modes: dict[str, str]
) -> None:
    # The callee is held up while the caller overwrites what it has sent.
    if modes["*"] == "inline":
        pytest.skip("an inline callee is done before the caller goes on")
    repository.model("slow", source(methods="""
    def execute(self, requests):
        shared.entered.set()
        assert shared.gate.wait(20)
        return [answer(r, input_of(r)) for r in requests]
    """))  # fmt: skip
    assert act(
        """
async def act():
    x = np.float32([1, 2])
    def request():
        return pb_utils.InferenceRequest(
            model_name="slow", inputs=[pb_utils.Tensor("IN", x)], requested_output_names=[])
    future = request().async_exec()
    x[:] = 3
    responses = request().exec(decoupled=True)
    x[:] = -1
    shared.gate.set()
    return told(await future), [told(r) for r in responses]
"""
    ) == ({"OUT": [1, 2]}, [{"OUT": [3, 3]}])


POINTERS = """
import ctypes

def address(tensor):
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = tensor.to_dlpack()
    return ctypes.c_void_p.from_address(pointer(capsule, b"dltensor")).value
"""


def test_tensors_are_passed_by_reference(
    act: Act, repository: RepositoryBuilder, in_process: None
) -> None:
    repository.model(
        "where",
        source(
            POINTERS,
            """
            def execute(self, requests):
                out = np.zeros(1000, np.float32)
                shared.log.append((address(requests[0].inputs()[0]), out.ctypes.data))
                response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", out)])
                del out
                return [response]
            """,
        ),
    )
    sent, got, (seen, made) = act(
        f"""{POINTERS}
def act():
    x = np.ones(1000, np.float32)
    response = pb_utils.InferenceRequest(
        model_name="where", inputs=[pb_utils.Tensor("IN", x)], requested_output_names=[]).exec()
    return x.ctypes.data, address(response.output_tensors()[0]), shared.log[0]
"""
    )
    assert sent == seen
    assert got == made


def test_an_output_of_bls_is_an_output_of_the_caller(
    act: Act, repository: RepositoryBuilder, bls: SimpleNamespace
) -> None:
    # The same memory from the callee's array to the client's.
    repository.model(
        "big",
        source(
            methods="""
            def execute(self, requests):
                return [pb_utils.InferenceResponse([self.made()])]

            def made(self):
                out = np.full(1000, 5, np.float32)
                shared.log.append(out.ctypes.data)
                return pb_utils.Tensor("OUT", out)
            """
        ),
    )
    repository.model(
        "through",
        source(
            methods="""
            def execute(self, requests):
                return [pb_utils.InferenceResponse(make("big").exec().output_tensors())]
            """
        ),
    )
    act("def act(): return None")
    out = bls.server["through"]({"IN": np.float32([1])}, timeout_s=20)["OUT"]
    assert out.tolist() == [5] * 1000
    assert out.ctypes.data == bls.log[0]


def test_outputs_stay_valid_and_private(
    act: Act, repository: RepositoryBuilder, bls: SimpleNamespace
) -> None:
    repository.model(
        "buffer",
        source(
            methods="""
            def initialize(self, args):
                self.out = np.zeros(2, np.float32)

            def execute(self, requests):
                self.out[:] = input_of(requests[0])  # one buffer for all answers
                return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", self.out)])]
            """
        ),
    )
    arrays = act(
        """
def act():
    kept = [make("buffer", [n, n]).exec().output_tensors()[0] for n in range(3)]
    arrays = [tensor.as_numpy() for tensor in kept]
    arrays[0][:] = 9  # a private copy: the tensor itself is as it was
    sent = ask_with(kept[0])
    del kept
    return [a.tolist() for a in arrays], sent

def ask_with(tensor):
    renamed = pb_utils.Tensor.from_dlpack("IN", tensor)
    return told(pb_utils.InferenceRequest(
        model_name="echo", inputs=[renamed], requested_output_names=[]).exec())
"""
    )
    gc.collect()
    assert arrays == ([[9, 9], [1, 1], [2, 2]], {"OUT": [0, 0]})


@pytest.mark.parametrize(
    "answer",
    [
        "[fresh()]",
        "[frozen()]",
        "self.kept",
        "[keep(fresh())]",
        "[pb_utils.InferenceResponse(keep(fresh()).output_tensors())]",
        "[twice()]",
    ],
)
def test_what_the_caller_does_to_outputs_stays_with_it(
    act: Act, repository: RepositoryBuilder, answer: str
) -> None:
    """As spec section 7 says of BLS outputs: private, writable, and what is sent on stays.

    Whoever else holds the callee's response, tensor or array.
    """
    repository.model(
        "callee",
        f"""
import numpy as np
import triton_python_backend_utils as pb_utils

all_kept = []

def fresh():
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.float32([1, 2]))])

def frozen():
    array = np.float32([1, 2])
    array.flags.writeable = False
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])

def twice():
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("OUT", np.float32([n, 2])) for n in (1, 3)])

def keep(thing):
    all_kept.append(thing)
    return thing

class TritonPythonModel:
    def initialize(self, args):
        self.kept = [fresh()]

    def execute(self, requests):
        return {answer}
""",
        config=ECHO_CONFIG,
    )
    read, sent, again = act(
        """
import ctypes

def act():
    tensors = make("callee").exec().output_tensors()
    assert len(tensors) == 1
    array = tensors[0].as_numpy()
    assert array is tensors[0].as_numpy()
    read = array.tolist()
    array[:] = 9
    renamed = pb_utils.Tensor.from_dlpack("IN", tensors[0])
    sent = told(pb_utils.InferenceRequest(
        model_name="echo", inputs=[renamed], requested_output_names=[]).exec())
    # The tensor's own memory is not the callee's either.
    ctypes.memset(np.from_dlpack(tensors[0]).ctypes.data, 0, 8)
    return read, sent, ask("callee")
"""
    )
    assert read == [1, 2]
    assert sent == {"OUT": [2, 4]}
    assert again == {"OUT": [1, 2]}


def test_wrong_arguments_of_exec(act: Act) -> None:
    found = act(
        """
def act():
    found = []
    for call in ("exec", "async_exec"):
        for args, named in (((1, 2), {}), (("x",), {}), ((), {"decouple": True})):
            try:
                getattr(make("echo"), call)(*args, **named)
            except TypeError as error:
                found.append(str(error).splitlines()[0])
            except RuntimeError as error:
                found.append(str(error))
    try:
        make("echo").async_exec()
    except RuntimeError as error:
        found.append(str(error))
    return found
"""
    )
    wrong = "(): incompatible function arguments. The following argument types are supported:"
    assert found == ["exec" + wrong] * 3 + ["async_exec" + wrong] * 3 + ["no running event loop"]


def test_the_share_memory_option(act: Act, repository: RepositoryBuilder, in_process: None) -> None:
    repository.model("writer", WRITER)
    assert act(
        """
def act():
    sent = np.float32([1, 2])
    pb_utils.InferenceRequest(
        model_name="writer", inputs=[pb_utils.Tensor("IN", sent)], requested_output_names=[]).exec()
    return sent.tolist()
""",
        share_memory=True,
    ) == [-1, -1]


def test_the_decoupled_caller(
    repository: RepositoryBuilder, act: Act, bls: SimpleNamespace
) -> None:
    # Sync and as coroutines that run beside each other.
    body = """
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for response in make("dec", parameters={"plan": "rrF"}).exec(decoupled=True):
                sender.send(pb_utils.InferenceResponse(response.output_tensors()))
            sender.send(flags=1)
    """
    repository.model("relay", source(methods=body), config=DECOUPLED_CONFIG)
    repository.model(
        "gather",
        source(
            methods="""
            async def execute(self, requests):
                for request in requests:
                    sender = request.get_response_sender()
                    made = [make("echo", [n]).async_exec() for n in range(3)]
                    for response in await asyncio.gather(*made):
                        sender.send(response)
                    sender.send(flags=1)
            """
        ),
        config=ECHO_CONFIG + DECOUPLED,
    )
    act("def act(): return None")
    inputs = {"IN": np.float32([1])}
    relayed = [
        r["OUT"].tolist() for r in bls.server["relay"].stream(inputs, timeout_s=20) if r.outputs
    ]
    assert relayed == [[1], [2]]
    models = bls.server["gather"]
    streams = [models.stream(inputs, timeout_s=20) for _ in range(5)]
    assert [[r["OUT"].tolist() for r in s] for s in streams] == [[[0], [2], [4]]] * 5
