"""Requests that models send to each other.

Each probe is the body of a function that the caller's `execute` runs; what it
returns is the answer, as text.
"""

from __future__ import annotations

from dataclasses import replace

from ..schema import Group, ModelFiles, ask, plain, source
from .decoupled import STREAM_PROBE

HELPERS = source("""
    import asyncio
    import ctypes
    import json
    import textwrap
    import threading
    import time

    import numpy as np
    import triton_python_backend_utils as pb_utils

    NATIVE = ("Tensor", "InferenceRequest", "InferenceResponse", "TritonError", "PreferredMemory")


    def floats(*values):
        return np.array(values, np.float32)


    def text(*values):
        return np.array(values, dtype=np.object_)


    def bfloat16(source, code=4):
        # The type of a DLPack tensor: byte 20 of the struct.
        tensor = source if isinstance(source, pb_utils.Tensor) else pb_utils.Tensor("IN", source)
        capsule = tensor.to_dlpack()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + 20).value = code
        return pb_utils.Tensor.from_dlpack("IN", capsule)


    def make(model, *arrays, inputs=None, outputs=(), **changes):
        if inputs is None:
            inputs = [pb_utils.Tensor("IN", array) for array in arrays or (floats(1, 2),)]
        return pb_utils.InferenceRequest(
            model_name=model, inputs=inputs, requested_output_names=list(outputs), **changes
        )


    def elements(array):
        return [x.decode() if isinstance(x, bytes) else x for x in array.reshape(-1).tolist()]


    def show(response):
        if response.has_error():
            code = str(response.error().code())
            return ["error", response.error().message(), code, len(response.output_tensors())]
        return [
            [t.name(), t.as_numpy().dtype.str, list(t.shape()), elements(t.as_numpy())]
            for t in response.output_tensors()
        ]


    def run(*arguments, **changes):
        return show(make(*arguments, **changes).exec())


    def each(*arguments, **changes):
        return [show(r) for r in make(*arguments, **changes).exec(decoupled=True)]


    def outcome(function):
        try:
            return function()
        except BaseException as error:
            lines = str(error).splitlines() or [""]
            return f"{type(error).__name__}: {lines[0]}"


    def reply(answer):
        array = np.array([json.dumps(answer, default=repr)], dtype=np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])


    notes = {}
""")
CALLER = HELPERS + source("""


    class TritonPythonModel:
        def execute(self, requests):
            request = requests[0]
            code = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()
            names = {**globals(), "self": self, "request": request}
            names.update((name, getattr(pb_utils, name)) for name in NATIVE)
            exec("def body():\\n" + textwrap.indent(code.strip("\\n"), "    "), names)
            return [reply(names.pop("body")())]
""")
ASYNC_CALLER = (
    CALLER.replace("        def execute", "        async def execute")
    .replace("    def execute", "    async def execute")
    .replace('"def body', '"async def body')
    .replace('names.pop("body")()', 'await names.pop("body")()')
)


def callee(name: str, body: str, config: str, top: str = "") -> ModelFiles:
    """Return a model with one statement list per request, which sets ``response``."""
    lines = "".join(f"            {line}\n" for line in source(body).splitlines())
    code = (
        "import time\n\nimport numpy as np\nimport triton_python_backend_utils as pb_utils\n"
        f"{top}\n\nclass TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        responses = []\n"
        "        for request in requests:\n"
        '            tensor = pb_utils.get_input_tensor_by_name(request, "IN")\n'
        f"{lines}"
        "            responses.append(response)\n"
        "        return responses\n"
    )
    return ModelFiles(name, f'backend: "python"\n{config}', {"1/model.py": code})


def io(datatype: str) -> str:
    """Return an input ``IN`` and an output ``OUT`` of one type."""
    return (
        f'input [ {{ name: "IN" data_type: {datatype} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "OUT" data_type: {datatype} dims: [ -1 ] }} ]\n'
    )


ECHO = 'response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor.as_numpy())])'
VERSIONED = "response = pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.float32([{n}]))])"


def version(n: int) -> str:
    """Return the code of one version of a model."""
    return callee("x", VERSIONED.format(n=n), "").files["1/model.py"]


CALLEES = (
    callee("echo", ECHO, io("TYPE_FP32")),
    callee("batched", ECHO, "max_batch_size: 4\n" + io("TYPE_FP32")),
    callee("strings", ECHO, io("TYPE_STRING")),
    callee(
        "bf16",
        'response = pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUT", tensor)])',
        io("TYPE_BF16"),
    ),
    callee(
        "zero_dims",
        'response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(3.5))])',
        io("TYPE_FP32"),
    ),
    callee(
        "writes",
        f"tensor.as_numpy()[:] = 9\n{ECHO}",
        io("TYPE_FP32"),
    ),
    callee(
        "two",
        """
        a, b = pb_utils.Tensor("A", np.float32([1])), pb_utils.Tensor("B", np.float32([2]))
        response = pb_utils.InferenceResponse([b, a])
        """,
        'input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        'output [ { name: "A" data_type: TYPE_FP32 dims: [ -1 ] },\n'
        '         { name: "B" data_type: TYPE_FP32 dims: [ -1 ] } ]\n',
    ),
    callee(
        "sees",
        """
        seen = [
            request.request_id(),
            request.correlation_id(),
            request.flags(),
            request.timeout(),
            request.parameters(),
            sorted(request.requested_output_names()),
            [t.name() for t in request.inputs()],
        ]
        array = np.array([repr(seen)], dtype=np.object_)
        response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])
        """,
        io("TYPE_STRING"),
    ),
    callee(
        "errors",
        """
        code = getattr(pb_utils.TritonError, tensor.as_numpy()[0].decode())
        response = pb_utils.InferenceResponse(error=pb_utils.TritonError("told", code))
        """,
        io("TYPE_STRING"),
    ),
    callee("raises", 'raise ValueError("boom")', io("TYPE_FP32")),
    callee("no_outputs", "response = pb_utils.InferenceResponse([])", io("TYPE_FP32")),
    callee("slow", f"time.sleep(0.2)\n{ECHO}", io("TYPE_FP32")),  # others come meanwhile
    ModelFiles(
        "versions",
        'backend: "python"\nversion_policy { all { } }\n' + io("TYPE_FP32"),
        {f"{n}/model.py": version(n) for n in (1, 3)},
    ),
    ModelFiles(
        "failed",
        'backend: "python"\n' + io("TYPE_FP32"),
        {
            "1/model.py": "class TritonPythonModel:\n"
            "    def initialize(self, args):\n"
            "        1 / 0\n"
        },
    ),
    ModelFiles(
        "streams",
        'backend: "python"\nmodel_transaction_policy { decoupled: true }\n' + io("TYPE_STRING"),
        {"1/model.py": STREAM_PROBE},
    ),
)

CALLS: dict[str, str] = {
    # Results
    "echo": "return run('echo')",
    "type": "return [str(type(make('echo').exec())), str(type(make('echo').exec(decoupled=True)))]",
    "no_outputs": "return run('no_outputs')",
    "strings": "return run('strings', text('größe', '', 'x'))",
    "strings_2d": "return run('strings', np.array([['a', 'b']], dtype=np.object_))",
    "empty": "return run('echo', floats())",
    "bf16": """
tensor = bfloat16(np.array([0x3F80, 0x4000], np.uint16))
response = make('bf16', inputs=[tensor]).exec()
if response.has_error():
    return show(response)
output = response.output_tensors()[0]
return [outcome(output.as_numpy), output.shape(), bfloat16(output, 1).as_numpy().tolist()]
""",
    "scalar_output": "return run('zero_dims')",
    "scalar_input": "return run('echo', np.array(1, np.float32))",
    "outputs_all": "return run('two')",
    "outputs_a": "return run('two', outputs=['A'])",
    "outputs_both": "return run('two', outputs=['A', 'B'])",
    "outputs_twice": "return run('two', outputs=['A', 'A'])",
    "batch": "return run('batched', np.ones((3, 2), np.float32))",
    "batch_too_large": "return run('batched', np.ones((5, 2), np.float32))",
    "twice": "r = make('echo')\nreturn [show(r.exec()), show(r.exec())]",
    "twice_decoupled": "r = make('echo')\nreturn [show(x) for _ in '12' for x in r.exec(True)]",
    # Errors before the callee runs
    "unknown_model": "return run('nope')",
    "empty_name": "return run('')",
    "failed_model": "return run('failed')",
    "unknown_version": "return run('echo', model_version=2)",
    "version_0": "return run('echo', model_version=0)",
    "version_minus_2": "return run('echo', model_version=-2)",
    "version_1": "return run('versions', model_version=1)",
    "version_3": "return run('versions', model_version=3)",
    "version_policy": "return run('versions')",
    "callee_decoupled": "return run('streams', text('x'))",
    "wrong_dtype": "return run('echo', np.array([1], np.int32))",
    "wrong_dtype_bytes": "return run('echo', text('1'))",
    "unknown_input": "return run('echo', inputs=[Tensor('NOPE', floats(1))])",
    "extra_input": "return run('echo', inputs=[Tensor('IN', floats(1)), Tensor('X', floats(1))])",
    "missing_input": "return run('echo', inputs=[])",
    "missing_input_id": "return run('echo', inputs=[], request_id='r1')",
    "wrong_shape": "return run('echo', np.ones((2, 2), np.float32))",
    "input_twice": "return run('echo', floats(1), floats(2))",
    "unknown_output": "return run('echo', outputs=['NOPE'])",
    "unknown_output_and_known": "return run('echo', outputs=['OUT', 'NOPE'])",
    # Errors of the callee
    **{
        f"error_{code}": f"return run('errors', text('{code}'))"
        for code in (
            "UNKNOWN",
            "INTERNAL",
            "NOT_FOUND",
            "INVALID_ARG",
            "UNAVAILABLE",
            "UNSUPPORTED",
            "ALREADY_EXISTS",
            "CANCELLED",
        )
    },
    "error_code_unknown_model": "return str(make('nope').exec().error().code())",
    "raises": "return run('raises')",
    # What the callee sees
    "sees_defaults": "return run('sees', text('x'))",
    "sees_all": """
return run('sees', text('x'), outputs=['OUT'], request_id='r1', correlation_id=7, flags=3,
           timeout=5000000, parameters={'a': 1, 'b': True, 'c': 'x'})
""",
    "sees_correlation_text": "return run('sees', text('x'), correlation_id='seq')",
    "sees_correlation_empty": "return run('sees', text('x'), correlation_id='')",
    "sees_flags_end": "return run('sees', text('x'), correlation_id=7, flags=2)",
    "sees_flags_other": "return run('sees', text('x'), flags=12)",
    "sees_set_flags": "r = make('sees', text('x'))\nr.set_flags(1)\nreturn show(r.exec())",
    "sees_empty_parameters": "return run('sees', text('x'), parameters={})",
    "timeout_1": "return run('slow', timeout=1)",
    # Memory
    "callee_writes": """
array = floats(1, 2)
shown = run('writes', array)
return [shown, array.tolist()]
""",
    "changed_after": """
array = floats(1, 2)
response = make('echo', array).exec()
array[:] = 5
return show(response)
""",
    "changed_before": """
array = floats(1, 2)
request = make('echo', array)
array[:] = 5
return show(request.exec())
""",
    "output_writable": """
array = make('echo').exec().output_tensors()[0].as_numpy()
array[:] = 7
return [array.flags.writeable, array.tolist()]
""",
    "output_alive": """
array = make('echo').exec().output_tensors()[0].as_numpy()
for _ in range(3):
    make('echo', floats(8, 9)).exec()
return array.tolist()
""",
    "output_passed_on": """
response = make('echo', floats(3, 4)).exec()
return run('echo', response.output_tensors()[0].as_numpy())
""",
    "preferred_cpu": """
memory = PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0)
return run('echo', preferred_memory=memory)
""",
    "tensor_of_request": "return run('strings', inputs=request.inputs())[0][:3]",
    # Arguments
    "positional_false": "return show(make('echo').exec(False))",
    "positional_true": "return [show(x) for x in make('echo').exec(True)]",
    "decoupled_1": "return outcome(lambda: str(type(make('echo').exec(decoupled=1))))",
    "decoupled_none": "return outcome(lambda: str(type(make('echo').exec(decoupled=None))))",
    "decoupled_str": "return outcome(lambda: str(type(make('echo').exec('x'))))",
    "unknown_keyword": "return outcome(lambda: make('echo').exec(stream=True))",
    "two_arguments": "return outcome(lambda: make('echo').exec(True, True))",
    # Threads and event loops
    "thread": """
result = []
threads = [threading.Thread(target=lambda: result.append(run('slow'))) for _ in range(3)]
[t.start() for t in threads]
[t.join() for t in threads]
return result
""",
    "thread_after_execute": """
def work():
    time.sleep(0.2)
    notes['after'] = outcome(lambda: run('echo'))
threading.Thread(target=work).start()
return 'started'
""",
    "thread_after_execute:notes": "time.sleep(0.6)\nreturn notes.pop('after', None)",
    "async_without_loop": "return outcome(lambda: make('echo').async_exec())",
    "asyncio_run": """
async def work():
    return show(await make('echo').async_exec())
return asyncio.run(work())
""",
    # Streams
    "decoupled_of_default": "return each('echo')",
    "decoupled_unknown": "return each('nope')",
    "decoupled_wrong_dtype": "return each('echo', np.array([1], np.int32))",
    "decoupled_unknown_output": "return each('streams', text('x'), outputs=['NOPE'])",
    "decoupled_default_error": "return each('errors', text('NOT_FOUND'))",
    "decoupled_default_raises": "return each('raises')",
    "stream_one": "return each('streams', text('sender.send(reply(), 1)'))",
    "stream_two": """
return each('streams', text('sender.send(reply(\"a\"))\\nsender.send(reply(\"b\"), 1)'))
""",
    "stream_final_alone": """
return each('streams', text('sender.send(reply(\"a\"))\\nsender.send(flags=1)'))
""",
    "stream_zero": "return each('streams', text('sender.send(flags=1)'))",
    "stream_no_outputs": "return each('streams', text('sender.send(InferenceResponse([]), 1)'))",
    "stream_raises": "return each('streams', text('raise ValueError(1)'))",
    "stream_returns_list": "return each('streams', text('return []'))",
    "stream_error_final": "return each('streams', text('sender.send(error(), 1)'))",
    "stream_thread": """
return each('streams', text('later(lambda: sender.send(reply(), 1))'))
""",
    "stream_hundred": """
code = 'for i in range(100):\\n    sender.send(reply(str(i)))\\nsender.send(flags=1)'
return len(each('streams', text(code)))
""",
    "iterator_replays": """
responses = make('streams', text('sender.send(reply())\\nsender.send(flags=1)')).exec(True)
return [[show(x) for x in responses] for _ in range(3)]
""",
    "iterator_replays_partly": """
code = 'for i in range(3):\\n    sender.send(reply(str(i)))\\nsender.send(flags=1)'
responses = make('streams', text(code)).exec(True)
first = [show(next(responses)), show(next(responses))]
return [first, [show(x) for x in responses]]
""",
    "iterator_next_at_end": """
responses = make('echo').exec(decoupled=True)
seen = [show(next(responses))]
for _ in range(2):
    seen.append(outcome(lambda: show(next(responses))))
return seen
""",
    "iterator_next_after_loop": """
responses = make('echo').exec(decoupled=True)
seen = [show(x) for x in responses]
seen.append(outcome(lambda: show(next(responses))))
seen.append([show(x) for x in responses])
return seen
""",
    "iterator_iter": "r = make('echo').exec(True)\nreturn iter(r) is r",
    "iterator_type": "return str(type(make('echo').exec(True)))",
    "iterator_members": """
return [n for n in dir(make('echo').exec(True)) if not n.startswith('__')]
""",
    "iterator_len": "return outcome(lambda: len(make('echo').exec(True)))",
    "iterator_constructor": "return outcome(lambda: type(make('echo').exec(True))())",
    "iterator_dropped": """
code = 'for i in range(3):\\n    sender.send(reply(str(i)))\\ntime.sleep(.1)\\nsender.send(None, 1)'
responses = make('streams', text(code)).exec(True)
first = show(next(responses))
del responses
return [first, run('echo')]
""",
    "iterator_unused": """
make('streams', text('sender.send(reply())\\nsender.send(flags=1)')).exec(True)
return run('echo')
""",
    "iterator_kept_items": """
code = 'sender.send(reply(\"a\"))\\nsender.send(reply(\"b\"), 1)'
responses = list(make('streams', text(code)).exec(True))
return [show(x) for x in responses]
""",
    "stream_while_sending": """
code = 'sender.send(reply(\"a\"))\\ntime.sleep(0.4)\\nsender.send(reply(\"b\"), 1)'
start = time.monotonic()
responses = make('streams', text(code)).exec(True)
next(responses)
early = time.monotonic() - start < 0.35
next(responses)
return [early, time.monotonic() - start >= 0.35]
""",
}
ASYNC_CALLS: dict[str, str] = {
    "one": "return show(await make('echo').async_exec())",
    "type": "return str(type(make('echo').async_exec())).split('.')[-1]",
    "gather": """
results = await asyncio.gather(*(make('slow', floats(i)).async_exec() for i in range(3)))
return [show(r) for r in results]
""",
    "gather_other_models": """
results = await asyncio.gather(make('echo').async_exec(), make('raises').async_exec())
return [show(r) for r in results]
""",
    "unknown_model": "return show(await make('nope').async_exec())",
    "callee_decoupled": "return show(await make('streams', text('x')).async_exec())",
    "error": "return show(await make('errors', text('NOT_FOUND')).async_exec())",
    "decoupled": """
code = 'sender.send(reply(\"a\"))\\nsender.send(reply(\"b\"))\\nsender.send(flags=1)'
return [show(x) for x in await make('streams', text(code)).async_exec(decoupled=True)]
""",
    "decoupled_default": "return [show(x) for x in await make('echo').async_exec(decoupled=True)]",
    "decoupled_positional": "return [show(x) for x in await make('echo').async_exec(True)]",
    "decoupled_unknown": "return [show(x) for x in await make('nope').async_exec(True)]",
    "sync_in_coroutine": "return run('echo')",
    "not_awaited": "make('echo').async_exec()\nawait asyncio.sleep(0.1)\nreturn 'done'",
    "wrong_argument": "return outcome(lambda: make('echo').async_exec('x'))",
    "cancelled": """
future = make('slow').async_exec()
cancelled = future.cancel()
await asyncio.sleep(0.3)
return [cancelled, future.cancelled()]
""",
    "wait_for": """
try:
    await asyncio.wait_for(make('slow').async_exec(), 0.01)
except asyncio.TimeoutError:
    return 'TimeoutError'
""",
    "executor_thread": """
loop = asyncio.get_running_loop()
return await loop.run_in_executor(None, lambda: run('echo'))
""",
}


def somewhere(name: str, top: str, methods: str, config: str = "") -> ModelFiles:
    """Return a model that sends a request elsewhere than in `execute`."""
    return plain(
        name,
        HELPERS
        + source(top)
        + "\n\nclass TritonPythonModel:\n"
        + methods
        + """
    def execute(self, requests):
        return [reply(notes.get("seen")) for request in requests]
""",
        config,
    )


ELSEWHERE = (
    somewhere(
        "bls_import",
        "notes['seen'] = [outcome(lambda: run('echo')), outcome(lambda: each('echo'))]",
        "",
    ),
    somewhere(
        "bls_initialize",
        "",
        """
    def initialize(self, args):
        notes["seen"] = [outcome(lambda: run("echo")), outcome(lambda: each("echo"))]
""",
    ),
    somewhere(
        "bls_initialize_async",
        "",
        """
    def initialize(self, args):
        async def work():
            return show(await make("echo").async_exec())

        notes["seen"] = outcome(lambda: asyncio.run(work()))
""",
    ),
    somewhere(
        "bls_initialize_raises", "", "    def initialize(self, args):\n        run('echo')\n"
    ),
    somewhere(
        "bls_initialize_thread",
        "",
        """
    def initialize(self, args):
        def work():
            time.sleep(0.2)
            notes["seen"] = outcome(lambda: run("echo"))

        threading.Thread(target=work).start()
""",
    ),
    somewhere(
        "bls_auto_complete",
        "",
        """
    @staticmethod
    def auto_complete_config(config):
        run("echo")
        return config
""",
    ),
)

RISKY: dict[str, str] = {
    # May end the server, or hang
    "received": "return show(request.exec())",
    "received_decoupled": "return [show(x) for x in request.exec(decoupled=True)]",
    "stream_error_then_more": """
return each('risk_streams', text('sender.send(error())\\nsender.send(reply(), 1)'))
""",
    "stream_raises_after": """
return each('risk_streams', text('sender.send(reply())\\nraise ValueError(1)'))
""",
    "stream_error_then_final": """
return each('risk_streams', text('sender.send(error())\\nsender.send(flags=1)'))
""",
    "stream_error_between": """
return each('risk_streams', text('sender.send(reply())\\nsender.send(error(), 1)'))
""",
    "to_itself": "return run('risk_bls_to_itself', text('return 1'), outputs=['OUT'])",
    "iterator_cancel": "return outcome(lambda: make('risk_echo').exec(True).cancel())",
    "response_parameters": "return outcome(lambda: make('risk_echo').exec().parameters())",
}

BLS = Group(
    "bls",
    models=(
        *CALLEES,
        plain("bls", CALLER),
        plain("bls_async", ASYNC_CALLER),
        *ELSEWHERE,
    ),
    requests=(
        *(ask(f"bls/{name}", "bls", code) for name, code in CALLS.items()),
        *(ask(f"bls_async/{name}", "bls_async", code) for name, code in ASYNC_CALLS.items()),
        ask("bls_import/seen", "bls_import"),
        ask("bls_initialize/seen", "bls_initialize"),
        ask("bls_initialize_async/seen", "bls_initialize_async"),
        ask("bls_initialize_thread/seen", "bls_initialize_thread"),  # its thread had the time
    ),
)
BLS_AT_RISK = Group(
    "bls_at_risk",
    models=(
        *(
            replace(model, name=f"risk_{model.name}")
            for model in CALLEES
            if model.name in {"echo", "streams"}
        ),
        *(plain(f"risk_bls_{name}", CALLER) for name in RISKY),
    ),
    requests=tuple(
        ask(f"risk_bls/{name}", f"risk_bls_{name}", code) for name, code in RISKY.items()
    ),
)
