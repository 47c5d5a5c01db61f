"""Calls of instances in processes: what the way through another process adds to the contract.

The contract itself is compared with recordings in tests/conformance, in this mode, too. Expected
values are derived by hand.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import within
from tests.support.probe import CONFIG, PROBE, ask, held_up, inputs
from tests.support.repository import RepositoryBuilder

DECOUPLED = CONFIG + "model_transaction_policy { decoupled: true }\n"

SEND = """
sender = request.get_response_sender()
no_answer = True
def run():
    state["sent"] = 0
    while state["sent"] < COUNT and not sender.is_cancelled():
        sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.float32([state["sent"]]))]))
        state["sent"] += 1
    sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
threading.Thread(target=run).start()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ptl.Server]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp("process"))
    repository.model("probe", PROBE, config=CONFIG)
    repository.model(
        "pair", PROBE, config=CONFIG + "instance_group [ { count: 2 kind: KIND_CPU } ]\n"
    )
    repository.model("stream", PROBE, config=DECOUPLED)
    with ptl.Server(repository.models, execution="process", stream_backlog=8) as server:
        yield server


@pytest.fixture
def probe(server: ptl.Server) -> ptl.Model:
    return server.model("probe")


def test_it_is_another_process(probe: ptl.Model) -> None:
    pid = ask(probe, "result = os.getpid()")
    assert pid != os.getpid()
    assert os.path.exists(f"/proc/{pid}")
    assert ask(probe, "result = __import__('sys').argv") == [""]


@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 2049, 5000, 100_000, 1_000_000])
def test_sizes_on_both_sides_of_each_limit(probe: ptl.Model, count: int) -> None:
    x = np.arange(count, dtype=np.float32)
    for _ in range(3):
        y = probe(inputs("outputs = [pb_utils.Tensor('Y', given.as_numpy() + 1)]", X=x))["Y"]
        np.testing.assert_array_equal(y, x + 1)
        y[:1] = -1  # it is the caller's


def test_a_record_that_is_too_large_for_the_ring(probe: ptl.Model) -> None:
    text = "ä" * 700_000
    response = probe.run(
        inputs("result = len(request.parameters())"), parameters={"text": text}, timeout_s=20
    )
    # Two bytes each in UTF-8, one character in the model's text, and {"text":""} around it.
    assert json.loads(response["TEXT"][0]) == 700_000 + len('{"text":""}')
    with pytest.raises(ptl.InternalError) as caught:
        ask(probe, "raise ValueError('x' * 700_000)")
    assert "x" * 700_000 in str(caught.value)


def test_an_input_that_the_model_keeps(probe: ptl.Model) -> None:
    for count in (4, 100_000):
        x = np.full(count, 1, np.float32)
        ask(probe, "state['kept'] = given", X=x)
        ask(probe, "state['array'] = given.as_numpy()", X=x)
        for value in range(2, 6):
            ask(probe, "result = 0", X=np.full(count, value, np.float32))
        assert ask(probe, "result = float(state['kept'].as_numpy().sum())") == count
        assert ask(probe, "result = float(state['array'].sum())") == count
        ask(probe, "state.clear(); state['instance'] = 'probe_0'")


def test_an_output_that_the_caller_keeps(probe: ptl.Model) -> None:
    code = "outputs = [pb_utils.Tensor('Y', given.as_numpy() * 1)]"
    kept = [probe(inputs(code, X=np.full(50_000, v, np.float32)))["Y"] for v in range(20)]
    for value, array in enumerate(kept):
        assert array.flags.writeable
        assert (array == value).all()


def test_a_buffer_that_the_model_uses_again(probe: ptl.Model) -> None:
    code = (
        "buffer = state.setdefault('buffer', np.empty(50_000, np.float32))\n"
        "buffer[:] = given.as_numpy()[0]\noutputs = [pb_utils.Tensor('Y', buffer)]"
    )
    answers = [probe(inputs(code, X=[float(v)]))["Y"] for v in range(4)]
    assert [float(a[0]) for a in answers] == [0, 1, 2, 3]


def test_exceptions(probe: ptl.Model) -> None:
    with pytest.raises(ptl.InternalError, match="ZeroDivisionError: division by zero") as caught:
        ask(probe, "1 / 0")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    notes = "".join(caught.value.__cause__.__notes__)
    assert "in execute" in notes
    assert "1 / 0" not in notes  # exec has no source lines
    code = "class Odd(Exception): pass\nraise Odd('strange', object())"
    with pytest.raises(ptl.InternalError, match="Odd: ") as caught:
        ask(probe, code)
    cause = caught.value.__cause__
    assert type(cause).__name__ == "RemoteModelError"
    assert cause.type_name.endswith(".Odd")
    assert "in execute" in cause.traceback_text


def test_the_time_is_up_while_it_runs(probe: ptl.Model, tmp_path: Path) -> None:
    gate, seen = tmp_path / "gate", tmp_path / "seen"
    code = (
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.001)\n"
        f"open({str(seen)!r}, 'w').write(str(request.is_cancelled()))"
    )
    with pytest.raises(ptl.RequestTimeoutError, match="'probe' was not answered in time"):
        probe(inputs(code), timeout_s=0.05)
    other = probe.submit(inputs("result = 'next'"))
    gate.touch()
    assert json.loads(within(20, other.result)["TEXT"][0]) == "next"
    assert seen.read_text() == "True"


def test_an_interrupt_while_it_runs(probe: ptl.Model, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    timer = threading.Timer(0.1, ctypes.pythonapi.PyErr_SetInterrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        probe(inputs(f"while not os.path.exists({str(gate)!r}): time.sleep(0.001)"))
    timer.join()
    gate.touch()
    assert ask(probe, "result = 'alive'") == "alive"


def test_cancelled_while_sent_ahead(probe: ptl.Model, tmp_path: Path) -> None:
    for _ in range(50):
        ask(probe, "result = 0")  # a fast model: requests are sent ahead
    running, gate = held_up(probe, tmp_path)
    futures = [
        probe.submit(inputs(f"open({str(tmp_path / str(i))!r}, 'w').close()")) for i in range(20)
    ]
    for future in futures[5:15]:
        assert future.cancel()
    gate.touch()
    within(20, running.result)
    for i, future in enumerate(futures):
        if 5 <= i < 15:
            with pytest.raises(CancelledError):
                future.result()
        else:
            within(20, future.result)
    ran = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert ran == [*range(5), *range(15, 20)]


def test_threads_that_wait_for_what_is_sent_ahead(probe: ptl.Model, tmp_path: Path) -> None:
    for _ in range(50):
        ask(probe, "result = 0")
    running, gate = held_up(probe, tmp_path)
    outcomes: dict[int, Any] = {}

    def call(number: int) -> None:
        # The fifth one is slow: those behind it are taken back.
        code = f"open({str(tmp_path / str(number))!r}, 'w').close(); result = {number}"
        if number == 4:
            code += "; time.sleep(0.05)"
        try:
            answer = probe(inputs(code), timeout_s=0.2 if number % 3 == 0 else 30)
            outcomes[number] = json.loads(answer["TEXT"][0])
        except ptl.RequestTimeoutError:
            outcomes[number] = "late"

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads[::3]:
        thread.join(20)
    gate.touch()
    within(20, running.result)
    for thread in threads:
        thread.join(20)
    assert outcomes == {number: number if number % 3 else "late" for number in range(20)}
    ran = sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit())
    assert ran == [number for number in range(20) if number % 3]


def test_order_when_requests_are_taken_back(probe: ptl.Model, tmp_path: Path) -> None:
    for _ in range(50):
        ask(probe, "result = 0")
    ask(probe, "state['order'] = []")
    first = [probe.submit(inputs(f"state['order'].append({i})")) for i in range(10)]
    running, gate = held_up(probe, tmp_path)
    rest = [probe.submit(inputs(f"state['order'].append({i})")) for i in range(10, 40)]
    time.sleep(0.02)  # in which those that were sent ahead come back
    gate.touch()
    for future in [*first, running, *rest]:
        within(20, future.result)
    assert ask(probe, "result = state['order']") == list(range(40))


def test_a_slow_instance_holds_up_nobody(server: ptl.Server, tmp_path: Path) -> None:
    pair = server.model("pair")
    for _ in range(100):
        ask(pair, "result = 0")
    running, gate = held_up(pair, tmp_path)
    futures = [pair.submit(inputs("result = state['instance']")) for _ in range(50)]
    answers = {json.loads(within(20, f.result)["TEXT"][0]) for f in futures}
    assert len(answers) == 1  # the other one
    gate.touch()
    assert json.loads(within(20, running.result)["TEXT"][0]) not in answers


def test_many_threads(server: ptl.Server) -> None:
    pair = server.model("pair")
    wrong: list[Any] = []

    def call(number: int) -> None:
        for i in range(100):
            x = np.full(4 + 3000 * (i % 2), number * 1000 + i, np.float32)
            code = "outputs = [pb_utils.Tensor('Y', given.as_numpy() + 1)]"
            if not (pair(inputs(code, X=x), timeout_s=30)["Y"] == x + 1).all():
                wrong.append((number, i))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_asyncio(server: ptl.Server) -> None:
    pair = server.model("pair")

    async def one(value: int) -> float:
        code = "outputs = [pb_utils.Tensor('Y', given.as_numpy() + 1)]"
        return float((await pair.async_run(inputs(code, X=[float(value)])))["Y"][0])

    async def main() -> list[float]:
        return await asyncio.gather(*map(one, range(64)))

    assert asyncio.run(main()) == [v + 1 for v in range(64)]


# -- response senders ------------------------------------------------------------------


def test_a_stream(server: ptl.Server) -> None:
    stream = server.model("stream").stream(inputs(SEND.replace("COUNT", "1000")), timeout_s=30)
    assert [float(r["Y"][0]) for r in stream] == list(range(1000))


def test_a_slow_reader_holds_the_sender_up(server: ptl.Server) -> None:
    model = server.model("stream")
    stream = model.stream(inputs(SEND.replace("COUNT", "1000")))
    assert float(next(stream)["Y"][0]) == 0

    def sent() -> int:
        code = (
            "request.get_response_sender().send(pb_utils.InferenceResponse([pb_utils.Tensor("
            "'TEXT', np.array([str(state['sent']).encode()], dtype=object))]), 1)\n"
            "no_answer = True"
        )
        return int(next(iter(model.stream(inputs(code))))["TEXT"][0])

    deadline = time.monotonic() + 20
    while sent() < 8:
        assert time.monotonic() < deadline
    time.sleep(0.05)
    assert sent() <= 8 + 8  # the backlog, and what the reader has taken is told in halves of it
    assert len(list(stream)) == 999


def test_leaving_a_stream_cancels(server: ptl.Server) -> None:
    model = server.model("stream")
    with model.stream(inputs(SEND.replace("COUNT", "10**9"))) as stream:
        next(stream)
    # One instance and one thread of it: the next stream ends only if the sender has seen it.
    code = (
        "no_answer = True\nsender = request.get_response_sender()\n"
        "[t.join() for t in threading.enumerate() if t.name.startswith('Thread-')]\n"
        "sender.send(pb_utils.InferenceResponse([pb_utils.Tensor('Y', np.float32([1]))]), 1)"
    )
    assert len(list(model.stream(inputs(code), timeout_s=20))) == 1


def test_a_sender_that_is_dropped(server: ptl.Server) -> None:
    code = "no_answer = True\nrequest.get_response_sender()"
    with pytest.raises(ptl.InternalError, match="and dropped the response sender"):
        list(server.model("stream").stream(inputs(code), timeout_s=20))
    with pytest.raises(ptl.InternalError, match="answered neither by a returned response nor"):
        ask(server.model("probe"), "no_answer = True; request.get_response_sender()")


def test_a_response_that_waits_for_final(probe: ptl.Model) -> None:
    code = (
        "sender = request.get_response_sender()\nno_answer = True\n"
        "array = np.float32([1, 2])\n"
        "sender.send(pb_utils.InferenceResponse([pb_utils.Tensor('Y', array)]))\n"
        "array[0] = 5\n"
        "sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)"
    )
    assert probe(inputs(code), timeout_s=20)["Y"].tolist() == [1, 2]
