"""Streams of decoupled models, read by threads.

What a client sees follows sections 5 and 10 of Triton's contract, observed on 2.51; what is
said to be ours was derived by hand.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.modes import ALL, not_inline
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import (
    DECOUPLED,
    FINAL,
    Script,
    error_response,
    pb_utils,
    response,
    start_thread,
    value_of,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("time_limit", "in_stubs")

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
PREFIX = "Failed to process the request(s) for model 'm_0', message: "
CLOSED = "Unable to send response. Response sender has been closed."


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def script_config() -> str:
    return DECOUPLED


def sends(count: int, *, final: str = "alone") -> Callable[[list], None]:
    """An `execute` that sends 0, 1, ... to each request."""

    def execute(requests: list) -> None:
        for request in requests:
            sender = request.get_response_sender()
            for n in range(count):
                is_last = final == "with the last" and n == count - 1
                sender.send(response(n), FINAL if is_last else 0)
            if final == "alone":
                sender.send(flags=FINAL)

    return execute


def endless(requests: list) -> None:
    """Sends from a thread until it is cancelled."""
    sender = requests[0].get_response_sender()

    def work() -> None:
        n = 0
        while not sender.is_cancelled():
            sender.send(response(n))
            n += 1
        sender.send(flags=FINAL)

    start_thread(work)


def values(responses: Any) -> list[float]:
    return [float(r["OUT"][0]) for r in responses]


# -- what arrives ----------------------------------------------------------------------


@pytest.mark.parametrize("final", ["alone", "with the last"])
@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_responses_come_in_order(model: ptl.Model, script: Script, count: int, final: str) -> None:
    # dec_two, dec_final_with_last, dec_one_final
    script.execute = sends(count, final=final)
    responses = list(model.stream({"IN": X}, request_id="r", timeout_s=20))
    assert values(responses) == list(range(count))
    assert [r.final for r in responses] == [False] * (count - 1) + [final != "alone"]
    assert {(r.request_id, r.model_name, r.model_version) for r in responses} == {("r", "m", 1)}

    responses = list(model.infer(inputs={"IN": X}, request_id="r"))
    if final == "alone":
        empty = responses.pop()
        assert (empty.final, empty.outputs, empty.error, empty.request_id) == (True, {}, None, "r")
    assert values(responses) == list(range(count))


def test_no_response_is_an_answer(model: ptl.Model, script: Script) -> None:
    # dec_zero
    script.execute = sends(0)
    assert list(model.stream({"IN": X})) == []
    (empty,) = model.infer(inputs={"IN": X}, request_id="z")
    assert (empty.final, empty.outputs, empty.request_id) == (True, {}, "z")


def test_from_a_thread_after_execute(model: ptl.Model, script: Script) -> None:
    # dec_thread
    threads = []

    def execute(requests: list) -> None:
        threads.append(start_thread(lambda: (time.sleep(0.02), sends(3)(requests))))

    script.execute = execute
    stream = model.stream({"IN": X}, timeout_s=20)
    assert values(stream) == [0, 1, 2]
    assert list(stream) == []
    threads[0].join(20)


def test_types_and_shapes_may_change(model: ptl.Model, script: Script) -> None:
    # dec_varshape
    arrays = [np.float32([1]), np.zeros((2, 0), np.int8), np.array(7, np.uint64), None]

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        for array in arrays:
            tensors = [] if array is None else [pb_utils.Tensor("OUT", array)]
            sender.send(pb_utils.InferenceResponse(tensors))
        sender.send(flags=FINAL)

    script.execute = execute
    got = [r.to_dict().get("OUT") for r in model.stream({"IN": X})]
    assert got.pop() is None
    for array, expected in zip(got, arrays, strict=False):
        assert (array.shape, array.dtype) == (expected.shape, expected.dtype)


def test_only_requested_outputs_are_sent(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    script = Script()
    more = ' output [ { name: "MORE" data_type: TYPE_FP32 dims: [ 1 ] } ]'
    script.write(repository, "m", DECOUPLED + more)
    model = serve(execution=execution)["m"]

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        tensors = [pb_utils.Tensor(name, X) for name in ("MORE", "NOPE", "OUT")]
        for _ in range(2):
            sender.send(pb_utils.InferenceResponse(tensors))
        sender.send(flags=FINAL)

    script.execute = execute
    assert [list(r.outputs) for r in model.stream({})] == [["MORE", "OUT"]] * 2
    assert [list(r.outputs) for r in model.stream({}, outputs=["OUT"])] == [["OUT"]] * 2


def test_parameters_of_responses_arrive(model: ptl.Model, script: Script) -> None:
    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        sender.send(pb_utils.InferenceResponse([], parameters={"n": 1}))
        sender.send(pb_utils.InferenceResponse([], parameters={"n": 2}), FINAL)

    script.execute = execute
    assert [r.parameters for r in model.stream({"IN": X})] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("form", ["stream", "infer"])
def test_a_default_model_gives_its_one_response(
    repository: RepositoryBuilder, serve: Serve, execution: str, form: str
) -> None:
    script = Script()
    script.write(repository, "m")
    model = serve(execution=execution)["m"]
    script.execute = lambda requests: [response(value_of(requests[0]))]
    call = model.stream if form == "stream" else lambda inputs: model.infer(inputs=inputs)
    (answer,) = call({"IN": X})
    assert (answer["OUT"].tolist(), answer.final) == ([1], True)
    script.execute = lambda requests: 1 / 0
    with pytest.raises(ptl.InternalError, match="ZeroDivisionError"):
        list(call({"IN": X}))


# -- errors ----------------------------------------------------------------------------


def test_iteration_goes_on_after_an_error_response(model: ptl.Model, script: Script) -> None:
    # dec_error_then_more
    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        sender.send(response(0))
        sender.send(error_response("bad one", pb_utils.TritonError.NOT_FOUND))
        sender.send(response(2), FINAL)

    script.execute = execute
    stream = model.stream({"IN": X})
    assert values([next(stream)]) == [0]
    with pytest.raises(ptl.NotFoundError, match=r"^bad one$"):
        next(stream)
    assert values(stream) == [2]
    with pytest.raises(StopIteration):
        next(stream)
    first, bad, last = model.infer(inputs={"IN": X}, raise_on_error=False)
    assert (first.error, last.error, str(bad.error)) == (None, None, "bad one")
    assert [r.final for r in (first, bad, last)] == [False, False, True]
    assert bad.outputs == {}


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_an_exception_ends_the_stream(model: ptl.Model, script: Script, sent: int) -> None:
    # dec_raise, dec_raise_after_send
    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        for n in range(sent):
            sender.send(response(n))
        raise ValueError("boom")

    script.execute = execute
    stream = model.stream({"IN": X}, request_id="r")
    assert values([next(stream) for _ in range(sent)]) == list(range(sent))
    with pytest.raises(ptl.InternalError) as caught:
        next(stream)
    assert str(caught.value).startswith(PREFIX + "ValueError: boom\n\nAt:\n")
    assert type(caught.value.__cause__) is ValueError
    assert caught.value.request_id == "r"
    assert list(stream) == []
    responses = list(model.infer(inputs={"IN": X}, raise_on_error=False))
    assert [r.error is None for r in responses] == [True] * sent + [False]
    assert responses[-1].final


@pytest.mark.parametrize("returned", [[], [None], [1], "x", 0])
def test_execute_must_return_none(model: ptl.Model, script: Script, returned: Any) -> None:
    # dec_return_list, dec_return_empty_list
    script.execute = lambda requests: returned
    with pytest.raises(ptl.InternalError) as caught:
        list(model.stream({"IN": X}))
    assert str(caught.value) == (
        f"{PREFIX}Python model 'm_0' is using the decoupled mode and the execute function must "
        "return None."
    )


@pytest.mark.parametrize("what", ["raises", "sends", "sends final"])
def test_after_final_the_stream_is_over(model: ptl.Model, script: Script, what: str) -> None:
    # dec_raise_after_final, dec_after_final
    caught: list[str] = []

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        sender.send(response(0), FINAL)
        if what == "raises":
            caught.append(CLOSED)
            raise ValueError("late")
        try:
            sender.send(*((response(1),) if what == "sends" else (None, FINAL)))
        except pb_utils.TritonModelException as error:
            caught.append(str(error))

    script.execute = execute
    assert values(model.stream({"IN": X})) == [0]
    wait_for(lambda: caught)
    assert caught == [CLOSED]


@pytest.mark.parametrize("sent", [0, 2])
def test_no_final_ends_with_an_error(model: ptl.Model, script: Script, sent: int) -> None:
    # dec_no_final. On Triton the client waits for ever; the error is ours.
    script.execute = sends(sent, final="never")
    stream = model.stream({"IN": X}, timeout_s=20)
    assert values([next(stream) for _ in range(sent)]) == list(range(sent))
    what = (
        "sent 2 response(s), but never the FINAL flag"
        if sent
        else "answered neither by a returned response nor by its response sender"
    )
    with pytest.raises(ptl.InternalError) as caught:
        next(stream)
    assert str(caught.value) == (
        f"{PREFIX}{what}, and dropped the response sender; real Triton would leave the client "
        "waiting for ever."
    )
    assert list(stream) == []


def test_a_model_that_forgets_the_sender_altogether(model: ptl.Model, script: Script) -> None:
    script.execute = lambda requests: None
    with pytest.raises(ptl.InternalError, match="but no response sender was taken that could"):
        list(model.stream({"IN": X}, timeout_s=20))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((None, 3), "Unable to send response. Unsupported flag provided."),
        (
            (),
            "Inference Response object must be provided when the response flags is set to zero.",
        ),
    ],
)
def test_misuse_is_an_error_response(
    model: ptl.Model, script: Script, arguments: tuple, text: str
) -> None:
    # dec_bad_flag, dec_none_noflag
    script.execute = lambda requests: requests[0].get_response_sender().send(*arguments)
    with pytest.raises(ptl.InternalError) as caught:
        list(model.stream({"IN": X}))
    assert str(caught.value).splitlines()[0] == f"{PREFIX}TritonModelException: {text}"


def test_what_is_wrong_with_the_request_is_raised_at_once(model: ptl.Model) -> None:
    with pytest.raises(ptl.InvalidArgumentError, match="unexpected inference output 'NOPE'"):
        model.stream({"IN": X}, outputs=["NOPE"])
    (failed,) = model.infer(inputs={"IN": "x"}, raise_on_error=False, request_id="q")
    assert isinstance(failed.error, ptl.InvalidArgumentError)
    assert (failed.final, failed.request_id) == (True, "q")


# -- back-pressure ---------------------------------------------------------------------


class Counted:
    """An `execute` that counts what its thread has sent, from `start` on."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0
        self.sender: Any = None
        self.threads: list[threading.Thread] = []
        self.failure: BaseException | None = None
        self.start = threading.Event()

    def __call__(self, requests: list) -> None:
        self.sender = requests[0].get_response_sender()
        self.threads.append(start_thread(self.work))

    def work(self) -> None:
        self.start.wait(20)
        try:
            for n in range(self.count):
                self.sender.send(response(n))
                self.sent = n + 1
            self.sender.send(flags=FINAL)
        except BaseException as error:
            self.failure = error

    def settled(self) -> int:
        """What was sent, once that does not change any more."""
        self.start.set()
        before, rounds = -1, 0
        while rounds < 2:
            rounds = rounds + 1 if before == self.sent else 0
            before = self.sent
            time.sleep(0.05)
        return before

    def join(self) -> None:
        self.start.set()
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        assert self.failure is None


@pytest.mark.parametrize("backlog", [1, 2, 7])
def test_a_slow_reader_blocks_the_sender(
    serve: Serve, script: Script, execution: str, backlog: int
) -> None:
    script.execute = counted = Counted(50)
    stream = serve(execution=execution, stream_backlog=backlog)["m"].stream({"IN": X})
    assert counted.settled() == backlog
    assert values([next(stream)]) == [0]
    assert backlog <= counted.settled() <= backlog + 1
    assert values(stream) == list(range(1, 50))
    counted.join()


@not_inline
def test_without_a_limit_nothing_blocks(serve: Serve, script: Script, execution: str) -> None:
    count = 10_000 if execution == "thread" else 1_000
    script.execute = counted = Counted(count)
    stream = serve(execution=execution, stream_backlog=0)["m"].stream({"IN": X})
    counted.join()
    assert values(stream) == list(range(count))


@pytest.mark.parametrize("end", ["close", "cancel", "drop", "with", "timeout"])
def test_a_reader_that_goes_frees_the_sender(
    serve: Serve, script: Script, execution: str, end: str
) -> None:
    script.execute = counted = Counted(1_000)
    model = serve(execution=execution, stream_backlog=3)["m"]
    stream = model.stream({"IN": X}, timeout_s=0.3 if end == "timeout" else None)
    assert counted.settled() == 3
    assert not counted.sender.is_cancelled()
    if end == "timeout":
        time.sleep(0.3)
        with pytest.raises(ptl.RequestTimeoutError):
            next(stream)
    elif end == "with":
        with stream:
            next(stream)
    elif end == "drop":
        del stream
    else:
        getattr(stream, end)()
        getattr(stream, end)()
        assert list(stream) == []
    counted.join()
    assert counted.sent == 1_000
    assert counted.sender.is_cancelled()
    script.execute = sends(2)
    assert values(model.stream({"IN": X})) == [0, 1]


def test_a_stop_frees_the_sender(serve: Serve, script: Script, execution: str) -> None:
    server = serve(execution=execution, stream_backlog=3, exit_timeout=0.1)
    script.execute = counted = Counted(1_000)
    stream = server["m"].stream({"IN": X})
    assert counted.settled() == 3
    server.stop()
    # Nobody has read anything, and the reader still holds the stream.
    counted.threads[0].join(20)
    assert not counted.threads[0].is_alive()
    assert values([next(stream) for _ in range(3)]) == [0, 1, 2]
    with pytest.raises(ptl.UnavailableError, match=r"'m' was stopped and did not answer within"):
        next(stream)
    assert list(stream) == []


def test_an_inline_model_that_waits_for_its_own_sender(serve: Serve, script: Script) -> None:
    # The only reader is the thread that runs execute: ours, blocking there could never end.
    counted = Counted(20)

    def execute(requests: list) -> None:
        counted(requests)
        counted.join()

    script.execute = execute
    model = serve(execution="inline", stream_backlog=3)["m"]
    assert values(model.stream({"IN": X})) == list(range(20))
    script.execute = sends(20)
    assert values(model.stream({"IN": X})) == list(range(20))


# -- giving up -------------------------------------------------------------------------


def test_breaking_off_reaches_the_sender(model: ptl.Model, script: Script) -> None:
    # Demand 17 of large backends.
    cancelled = threading.Event()

    def execute(requests: list) -> None:
        request, sender = requests[0], requests[0].get_response_sender()

        def work() -> None:
            sender.send(response(0))
            wait_for(sender.is_cancelled)
            assert request.is_cancelled()
            sender.send(error_response("cancelled"), FINAL)
            cancelled.set()

        start_thread(work)

    script.execute = execute
    for _ in model.stream({"IN": X}):
        break
    assert cancelled.wait(20)


def test_a_stream_is_not_cancelled_by_its_end(model: ptl.Model, script: Script) -> None:
    kept = []

    def execute(requests: list) -> None:
        kept.append(requests[0].get_response_sender())
        sends(2)(requests)

    script.execute = execute
    with model.stream({"IN": X}) as stream:
        assert values(stream) == [0, 1]
    stream.close()
    assert not kept[0].is_cancelled()


@not_inline
def test_a_queued_stream_that_is_closed_never_reaches_the_model(
    model: ptl.Model, script: Script
) -> None:
    gate, seen = threading.Event(), []

    def execute(requests: list) -> None:
        seen.append(value_of(requests[0]))
        gate.wait(20)
        sends(1)(requests)

    script.execute = execute
    streams = [model.stream({"IN": np.float32([n])}) for n in range(4)]
    wait_for(lambda: seen)
    streams[1].close()
    del streams[2]
    gate.set()
    assert [values(stream) for stream in streams] == [[0], [], [0]]
    assert seen == [0, 3]


@not_inline
@pytest.mark.parametrize("timeout_s", [0.1, 0.2])
def test_a_timeout_between_responses(model: ptl.Model, script: Script, timeout_s: float) -> None:
    kept: list[Any] = []

    def execute(requests: list) -> None:
        kept.append(requests[0].get_response_sender())
        kept[-1].send(response(0))

    script.execute = execute
    begin = time.monotonic()
    stream = model.stream({"IN": X}, timeout_s=timeout_s, request_id="slow")
    assert values([next(stream)]) == [0]
    with pytest.raises(ptl.RequestTimeoutError, match="'m' was not answered in time") as caught:
        next(stream)
    assert timeout_s <= time.monotonic() - begin < 10
    assert caught.value.request_id == "slow"
    wait_for(kept[0].is_cancelled)
    assert list(stream) == []
    kept[0].send(flags=FINAL)


def test_a_timeout_ends_a_stream_that_never_runs_dry(
    serve: Serve, script: Script, execution: str
) -> None:
    script.execute = endless
    model = serve(execution=execution, stream_backlog=100)["m"]
    stream = model.stream({"IN": X}, timeout_s=0.1)
    begin = time.monotonic()
    with pytest.raises(ptl.RequestTimeoutError):
        for _ in stream:
            pass
    assert 0.1 <= time.monotonic() - begin < 10


@not_inline
def test_a_timeout_spares_what_the_model_sent_in_time(model: ptl.Model, script: Script) -> None:
    script.execute = sends(3)
    stream = model.stream({"IN": X}, timeout_s=5)
    assert values([next(stream)]) == [0]
    time.sleep(0.05)
    assert values(stream) == [1, 2]


@not_inline
def test_a_reader_that_waits_is_freed_by_close(model: ptl.Model, script: Script) -> None:
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    stream = model.stream({"IN": X})
    wait_for(lambda: kept)
    timer = threading.Timer(0.05, stream.close)
    timer.start()
    assert list(stream) == []
    timer.join()
    wait_for(kept[0].is_cancelled)
    kept.clear()


@not_inline
def test_a_cycle_with_a_stream_is_collected(model: ptl.Model, script: Script) -> None:
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    ring: list[Any] = [model.stream({"IN": X})]
    ring.append(ring)
    wait_for(lambda: kept)
    del ring
    gc.collect()
    wait_for(kept[0].is_cancelled)
    kept.clear()


# -- several readers -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["stream", "infer"])
def test_eight_threads_share_a_stream(
    serve: Serve, script: Script, execution: str, form: str
) -> None:
    model = serve(execution=execution, stream_backlog=16)["m"]
    count = 1_000 if execution == "process" else 5_000
    script.execute = counted = Counted(count)
    counted.start.set()
    stream = model.stream({"IN": X}) if form == "stream" else model.infer(inputs={"IN": X})
    got: list[list[Any]] = [[] for _ in range(8)]

    def read(number: int) -> None:
        got[number].extend(r.to_dict().get("OUT", [-1.0])[0] for r in stream)

    threads = [start_thread(read, n) for n in range(8)]
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert all(part == sorted(part) for part in got if -1 not in part)
    everything = sorted(value for part in got for value in part)
    # The empty final response of infer() goes to one of them.
    assert everything == [-1] * (form == "infer") + list(range(count))


def test_streams_of_one_model_side_by_side(serve: Serve, script: Script, execution: str) -> None:
    model = serve(execution=execution, stream_backlog=4)["m"]

    def execute(requests: list) -> None:
        sender, factor = requests[0].get_response_sender(), value_of(requests[0])

        def work() -> None:
            for n in range(100):
                sender.send(response(n * factor))
            sender.send(flags=FINAL)

        start_thread(work)

    script.execute = execute
    streams = [model.stream({"IN": np.float32([factor])}) for factor in (1, 10, 100)]
    rows = list(zip(*streams, strict=True))
    assert [values(row) for row in rows] == [[n, n * 10, n * 100] for n in range(100)]


def test_32_threads_send_on_one_sender(model: ptl.Model, script: Script) -> None:
    # Demand 2. Per thread the order of `send` calls; one FINAL counts, the others are misuse.
    failures: list[str] = []

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        barrier = threading.Barrier(32)

        def work(number: int) -> None:
            for n in range(50):
                sender.send(response(number, n))
            barrier.wait(20)
            try:
                sender.send(flags=FINAL)
            except pb_utils.TritonModelException as error:
                failures.append(str(error))

        for number in range(32):
            start_thread(work, number)

    script.execute = execute
    rows = [tuple(r["OUT"]) for r in model.stream({"IN": X}, timeout_s=30)]
    assert sorted(rows) == [(number, n) for number in range(32) for n in range(50)]
    for number in range(32):
        assert [n for sent_by, n in rows if sent_by == number] == list(range(50))
    wait_for(lambda: len(failures) == 31)
    assert set(failures) == {CLOSED}


# -- the end of the model --------------------------------------------------------------


def test_a_reload_leaves_open_streams_alone(
    repository: RepositoryBuilder, serve: Serve, script: Script, execution: str
) -> None:
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    kept: list[Any] = []

    def execute(requests: list) -> None:
        kept.append(requests[0].get_response_sender())
        kept[-1].send(response(0))

    script.execute = execute
    model = server["m"]
    old, served = model.stream({"IN": X}), model._endpoint.served
    assert values([next(old)]) == [0]
    repository.touch("m")
    reloading = start_thread(server.load, "m")  # inline it finalizes the old version, too
    wait_for(lambda: model._endpoint.served is not served)
    new = model.stream({"IN": X})
    assert values([next(new)]) == [0]
    assert "finalize" not in script.log
    kept[0].send(response(1), FINAL)
    assert values(old) == [1]
    wait_for(lambda: "finalize" in script.log)
    reloading.join(20)
    kept[1].send(response(2), FINAL)
    assert values(new) == [2]


def test_a_stop_waits_for_open_streams(serve: Serve, script: Script, execution: str) -> None:
    server = serve(execution=execution)
    script.execute = lambda requests: start_thread(lambda: sends(3)(requests)) and None
    stream = server["m"].stream({"IN": X})
    server.stop()
    assert values(stream) == [0, 1, 2]
    assert script.log == ["initialize", "finalize"]
    with pytest.raises(ptl.UnavailableError):
        server["m"].stream({"IN": X})


# -- signals and processes -------------------------------------------------------------


@not_inline
def test_ctrl_c_while_waiting_for_a_response(model: ptl.Model, script: Script) -> None:
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    stream = model.stream({"IN": X})
    wait_for(lambda: kept)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert time.monotonic() - begin < 10
    timer.join()
    # The stream is as good as before.
    kept[0].send(response(5), FINAL)
    assert values(stream) == [5]


@pytest.mark.parametrize("instances", [1, 2])
def test_ctrl_c_in_an_inline_stream_leaves_the_model_usable(
    repository: RepositoryBuilder, serve: Serve, instances: int
) -> None:
    script = Script()
    script.write(
        repository, "m", DECOUPLED + "instance_group [ { count: " + str(instances) + " } ]"
    )
    model = serve(execution="inline")["m"]

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        sender.send(response(0))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(20)

    script.execute = execute
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            model.stream({"IN": X})
    script.execute = sends(1)
    for _ in range(3):
        assert values(model.stream({"IN": X})) == [0]


def test_a_forked_child_does_not_wait_for_the_parents_stream(
    repository: RepositoryBuilder, script: Script, execution: str, tmp_path: Path
) -> None:
    program = """
        import os, signal, sys, time, warnings
        import numpy as np
        import pytriton_lite as ptl
        from tests.support import remote, scripted

        os.environ[remote.VARIABLE] = scripted.offer_scripts()
        warnings.simplefilter("ignore")
        script, kept = scripted.Script(), []
        while script.number < NUMBER:
            script = scripted.Script()

        def execute(requests):
            kept.append(requests[0].get_response_sender())
            kept[0].send(scripted.response(0))

        script.execute = execute
        with ptl.Server(sys.argv[1], execution=sys.argv[2]) as server:
            stream = server["m"].stream({"IN": np.float32([1])})
            while not kept or stream.arm(lambda: None):  # until the first response is there
                time.sleep(0.001)
            child = os.fork()
            if not child:
                signal.alarm(20)
                assert next(stream)["OUT"][0] == 0
                try:
                    next(stream)
                except ptl.UnavailableError as error:
                    assert "was opened before the process was forked" in str(error)
                    stream.close()
                    os._exit(7)
                os._exit(8)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            kept[0].send(scripted.response(1), 1)
            assert [r["OUT"][0] for r in stream] == [0, 1]
        print("done")
    """
    code = textwrap.dedent(program).replace("NUMBER", str(script.number))
    command = [sys.executable, "-c", code, str(repository.models), execution]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout == "done\n", done.stderr
