"""Large tensors to and from stubs: which are copied, and who holds the memory.

Offsets and counts are derived by hand; "the same memory" is seen by addresses in one process, or by
what a write there changes.
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.processes import link_of
from tests.support.repository import RepositoryBuilder, echo_model

MIB = 1 << 20
COUNT = MIB // 4  # of float32 in 1 MiB

# Lets a model say how many blocks of its arena are in use.
WHERE = """
import gc
from pytriton_lite._ipc.wire import Link

def link():
    return next(o for o in gc.get_objects() if type(o) is Link)

def used():
    return link().arena.used_blocks
"""


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def flush(model: ptl.Model) -> None:
    """Calls without a block, whose records give back what both sides still hold."""
    for _ in range(2):
        model({"IN": np.zeros(1, np.float32)})


Serve = Callable[..., ptl.Server]


@pytest.fixture
def model(repository: RepositoryBuilder, serve: Serve) -> Callable[..., ptl.Model]:
    def start(
        body: str = "def answer(x, r): return x", *, config: str | None = None, **options: Any
    ):
        text = WHERE + body
        repository.model("m", echo_model(text), **({} if config is None else {"config": config}))
        server = serve(execution="process", exit_timeout=10, **options)
        started = server["m"]
        started.server = server
        return started

    return start


def test_an_input_that_is_returned_comes_back_in_its_block(model: Callable[..., Any]) -> None:
    served = model()
    link = link_of(served.server)
    x = np.arange(COUNT, dtype=np.float32)
    out = served({"IN": x})["OUT"]
    assert np.array_equal(out, x)
    assert not np.shares_memory(out, x)
    # It was copied into the server's arena, and is there still; the stub has used none of its own.
    assert link.arena.used_blocks == 1
    first = address(out)
    del out
    assert link.arena.used_blocks == 0
    assert address(served({"IN": x})["OUT"]) == first
    out = served({"IN": x})["OUT"]
    out[:] = 5  # it is the caller's
    assert x[1] == 1


def test_an_array_of_the_model_goes_over_as_it_is(model: Callable[..., Any]) -> None:
    served = model("""
at = []
def answer(x, r):
    if x.size == 1:
        return np.float32([at[-1] - at[0], used(), len(at)])
    y = x * 2
    at.append(y.__array_interface__["data"][0])
    return y
""")
    x = np.arange(COUNT, dtype=np.float32)
    outs = [served({"IN": x})["OUT"] for _ in range(3)]
    assert all(np.array_equal(out, x * 2) for out in outs)
    moved, used, count = served({"IN": np.zeros(1, np.float32)})["OUT"]
    # Three blocks of 1 MiB side by side, in the order in which they were made there and are here.
    assert (moved, used, count) == (2 * MIB, 3, 3)
    assert [address(out) - address(outs[0]) for out in outs] == [0, MIB, 2 * MIB]
    outs.clear()
    flush(served)
    assert served({"IN": np.zeros(1, np.float32)})["OUT"][1] == 0


@pytest.mark.parametrize(
    "body",
    [
        "kept = []\ndef answer(x, r):\n kept[:] = [x * 1]\n return kept[0]",
        "import weakref as r\nw = []\ndef answer(x, _):\n y = x * 1\n w[:] = [r.ref(y)]\n return y",
        "big = []\ndef answer(x, r):\n big[:] = [np.concatenate([x, x])]\n return big[0][: x.size]",
        "def answer(x, r): return np.concatenate([x, x])[x.size :]",
        "def answer(x, r): return np.concatenate([x] * 8)[: x.size]",
        "kept = []\ndef answer(x, r):\n kept[:] = [x]\n return x",
        "def answer(x, r): return x[::-1][::-1].copy()[::1]",
        "def answer(x, r): return np.frombuffer(x.tobytes(), np.float32)",
    ],
    ids=["kept", "weakref", "slice", "tail", "little", "kept-input", "view", "foreign"],
)
def test_what_the_model_can_still_reach_is_copied(model: Callable[..., Any], body: str) -> None:
    served = model(f"{body}\n")
    rng = np.random.default_rng(1)
    held = []
    for _ in range(20):
        x = rng.random(COUNT, dtype=np.float32)
        out = served({"IN": x})["OUT"]
        assert np.array_equal(out, x)
        held.append((out, x))
    for out, x in held:  # none has been written over by a later call
        assert np.array_equal(out, x)


def test_a_buffer_that_the_model_uses_again_does_not_change_an_answer(
    model: Callable[..., Any],
) -> None:
    served = model("""
buffer = None
def answer(x, r):
    global buffer
    if buffer is None:
        buffer = np.empty_like(x)
    np.multiply(x, 3, out=buffer)
    return buffer
""")
    x = np.arange(COUNT, dtype=np.float32)
    first = served({"IN": x})["OUT"]
    second = served({"IN": x + 1})["OUT"]
    assert np.array_equal(first, x * 3)
    assert np.array_equal(second, (x + 1) * 3)
    second[:] = 0
    assert np.array_equal(served({"IN": x})["OUT"], x * 3)


def test_an_input_that_the_model_keeps_stays(model: Callable[..., Any]) -> None:
    served = model("""
kept = []
def answer(x, r):
    kept.append((x[1:], float(x[1])))
    return np.float32([all((k == v).all() for k, v in kept)])
""")
    for value in range(30):
        assert served({"IN": np.full(COUNT, value, np.float32)})["OUT"] == [1]
    assert link_of(served.server).arena.used_blocks == 30


def test_an_output_that_the_caller_keeps_stays(model: Callable[..., Any]) -> None:
    served = model("def answer(x, r): return x + 1")
    kept = served({"IN": np.zeros(COUNT, np.float32)})["OUT"]
    same = served({"IN": np.full(COUNT, 6, np.float32)})["OUT"]
    for value in range(100):
        served({"IN": np.full(COUNT, value, np.float32)})
    assert (kept == 1).all()
    assert (same == 7).all()


def test_an_output_outlives_its_stub_and_its_server(model: Callable[..., Any]) -> None:
    served = model("""
import os
def answer(x, r):
    if x.size == 1:
        os._exit(3)
    return x + 1 if x[0] else x
""")
    born_there = served({"IN": np.full(COUNT, 1, np.float32)})["OUT"]
    born_here = served({"IN": np.zeros(COUNT, np.float32)})["OUT"]
    with pytest.raises(ptl.UnavailableError):
        served({"IN": np.zeros(1, np.float32)})
    assert (born_there == 2).all()
    born_there += 1
    born_here += 1
    served.server.stop()
    gc.collect()
    assert (born_there == 3).all()
    assert (born_here == 1).all()


@pytest.mark.parametrize(
    "body",
    [
        "def work(x): return x",
        "def work(x): return x + 1",
        "kept = []\ndef work(x):\n kept[:] = [x * 1]\n return kept[0]",
        "def work(x): return np.zeros_like(x) + x[0]",
    ],
    ids=["identity", "born", "kept", "zeros"],
)
def test_no_block_is_left_after_many_calls(model: Callable[..., Any], body: str) -> None:
    served = model(f"""{body}
def answer(x, r):
    return work(x) if x.size > 1 else np.float32([used()])
""")
    link = link_of(served.server)
    x = np.ones(COUNT // 8, np.float32)
    for n in range(1000):
        out = served({"IN": x})["OUT"]
        assert out[0] in (1, 2), n
    del out
    flush(served)
    assert link.arena.used_blocks == 0
    assert served({"IN": np.zeros(1, np.float32)})["OUT"][0] <= 1  # what the model keeps itself


def test_zeros_are_zero_in_used_memory(model: Callable[..., Any]) -> None:
    served = model("""
def answer(x, r):
    dirty = np.full(x.size, 7, np.float32)
    at = dirty.__array_interface__["data"][0]
    del dirty
    zeros = np.zeros(x.size, np.float32)
    return np.float32([zeros.any(), zeros.__array_interface__["data"][0] == at])
""")
    for _ in range(3):
        assert served({"IN": np.zeros(COUNT, np.float32)})["OUT"].tolist() == [0, 1]


def test_arrays_grow_and_shrink_and_live_on_any_thread(model: Callable[..., Any]) -> None:
    served = model("""
import asyncio, threading
def answer(x, r):
    a = np.arange(20_000.0)
    for size in (30_000, 200_000, 9, 20_000, 1_000_000, 100_000):
        a.resize(size, refcheck=False)
        a[:9] = range(9)
        assert a[:9].tolist() == list(range(9)) and a.size == size
    got = []
    def work(n):
        for k in range(50):
            block = np.full(20_000 + 1_000 * k, n, np.int32)
            if (block != n).any():
                got.append(n)
    before = used()
    seen = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    threads.append(threading.Thread(target=lambda: seen.append((np.ones(COUNT), used()))))
    [t.start() for t in threads]
    [t.join() for t in threads]
    return np.float32([len(got), used() - before])
COUNT = 1 << 18
""")
    out = served({"IN": np.zeros(COUNT, np.float32)})["OUT"]
    assert out.tolist() == [0, 1]  # of the one that is still there, which a thread has made


def test_a_forked_child_has_its_own_arrays(model: Callable[..., Any]) -> None:
    served = model("""
import os
def answer(x, r):
    mine = np.full(x.size, 1, np.float32)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            mine[0] = 9
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            fresh = np.full(x.size, 5, np.float32)
            code = 0 if mine[0] == 9 and (mine[1:] == 1).all() and (fresh == 5).all() else 2
            del mine
        finally:
            os._exit(code)
    os.read(ready[0], 1)
    unchanged = mine[0]
    mine[:] = 2
    del mine
    again = np.full(x.size, 3, np.float32)
    os.write(go[1], b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return np.float32([unchanged, code, (again == 3).all()])
""")
    for _ in range(3):
        assert served({"IN": np.zeros(COUNT, np.float32)})["OUT"].tolist() == [1, 0, 1]


def test_a_sender_s_arrays_are_the_model_s_to_use_again(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model(
        "m",
        """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            y = np.empty_like(x)
            for n in range(10):
                y[:] = x + n
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", y)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
""",
        config="""
backend: "python"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
model_transaction_policy { decoupled: true }
""",
    )
    server = serve(execution="process", exit_timeout=10)
    x = np.arange(COUNT, dtype=np.float32)
    got = [response["OUT"] for response in server["m"].stream({"IN": x})]
    assert len(got) == 10
    for n, array in enumerate(got):
        assert np.array_equal(array, x + n)


# -- callers' memory -------------------------------------------------------------------


def test_an_input_in_callers_memory_is_not_copied(model: Callable[..., Any]) -> None:
    served = model("def answer(x, r): return x", share_memory=True)
    link = link_of(served.server)
    x = served.server.empty((COUNT,), np.float32)
    x[:] = np.arange(COUNT)
    out = served({"IN": x})["OUT"]
    assert address(out) == address(x)
    assert not out.flags.writeable
    part = served({"IN": x[1024:]})["OUT"]
    assert (address(part), part.size) == (address(x) + 4096, COUNT - 1024)
    assert link.arena.used_blocks == 0
    assert link.callers is not None
    assert link.callers.arena is not None
    assert link.callers.arena.used_blocks == 1
    del x, out
    gc.collect()
    assert link.callers.arena.used_blocks == 1
    del part
    flush(served)
    assert link.callers.arena.used_blocks == 0


def test_without_share_memory_the_model_has_a_copy_of_its_own(model: Callable[..., Any]) -> None:
    served = model("""
def answer(x, r):
    x += 1
    return x
""")
    link = link_of(served.server)
    x = served.server.empty(COUNT)
    x[:] = 3
    out = served({"IN": x})["OUT"]
    assert (x == 3).all()
    assert (out == 4).all()
    assert out.flags.writeable
    assert link.arena.used_blocks == 0
    out[:] = 0
    assert (served({"IN": x})["OUT"] == 4).all()


def test_a_model_cannot_write_into_callers_memory(model: Callable[..., Any]) -> None:
    served = model("def answer(x, r):\n    x += 1\n    return x", share_memory=True)
    x = served.server.empty(COUNT)
    x[:] = 3
    with pytest.raises(ptl.TritonError, match="read-only"):
        served({"IN": x})
    assert (x == 3).all()
    small = np.zeros(4, np.float32)
    assert served({"IN": small})["OUT"].tolist() == [1, 1, 1, 1]


def test_what_a_model_keeps_does_not_change_with_callers_memory(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model("""
kept = []
def answer(x, r):
    if x.size > 1:
        kept.append(pb_utils.get_input_tensor_by_name(r, "IN"))
        return x[:1]
    return np.float32([t.as_numpy().max() for t in kept])
"""))  # fmt: skip
    server = serve(execution="process", exit_timeout=10)
    x = server.empty(COUNT)
    for value in (1, 2, 3):
        x[:] = value
        assert server["m"]({"IN": x})["OUT"].tolist() == [value]
    x[:] = 9
    assert server["m"]({"IN": np.zeros(1, np.float32)})["OUT"].tolist() == [1, 2, 3]


def test_callers_memory_is_lent_until_the_stub_gives_it_back_or_dies(
    model: Callable[..., Any],
) -> None:
    served = model("""
kept = []
def answer(x, r):
    kept.append(x)
    return np.float32([link().segment is not None])
""", share_memory=True)  # fmt: skip
    link = link_of(served.server)
    assert link.callers is not None
    arena = link.callers.arena
    assert arena is not None
    for _ in range(3):
        served({"IN": served.server.empty(COUNT)})
    assert arena.used_blocks == 3
    pid = served.server._loaded.models.get("m", 1).instances[0]._stub._process.pid
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while arena.used_blocks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert arena.used_blocks == 0


def test_empty(model: Callable[..., Any]) -> None:
    server = model().server
    x = server.empty((2, 3, 0))
    assert (x.shape, x.dtype) == ((2, 3, 0), np.float32)
    assert server.empty((), np.int8).shape == ()
    assert server.empty([5], "int64").dtype == np.int64
    for shape, dtype in [((2,), object), ((2,), "S4"), ((2,), complex), ((-1,), int)]:
        with pytest.raises(ptl.InvalidArgumentError):
            server.empty(shape, dtype)
    with pytest.raises(MemoryError):
        server.empty(1 << 40)
    with pytest.raises(MemoryError):
        server.empty((1 << 40, 1 << 40))
    kept = server.empty(COUNT)
    server.stop()
    kept[:] = 1
    assert kept.sum() == COUNT


def test_empty_is_an_array_like_any_other_in_process(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model("def answer(x, r): return x * 2"))
    server = serve(execution="thread")
    x = server.empty(10)
    x[:] = 4
    assert server["m"]({"IN": x})["OUT"].tolist() == [8] * 10
