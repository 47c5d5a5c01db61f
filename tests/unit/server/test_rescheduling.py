"""Rescheduling: requests of iterative sequences that a model wants again.

Flags, correlation ids and texts were observed on 2.51 (section 5.1 of Triton's contract).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.modes import ALL, not_inline, thread_only
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import (
    DECOUPLED,
    FINAL,
    ITERATIVE,
    RESCHEDULE,
    Script,
    overwrite,
    pb_utils,
    response,
    there,
    value_of,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("time_limit", "in_stubs")

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
PREFIX = "Failed to process the request(s) for model 'm_0', message: "


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["default", "decoupled"])
def is_decoupled(request: pytest.FixtureRequest) -> bool:
    return request.param == "decoupled"


@pytest.fixture
def script_config(is_decoupled: bool) -> str:
    return ITERATIVE + DECOUPLED * is_decoupled


class Repeats:
    """An `execute` that wants each request `count` times, and tells what it saw."""

    def __init__(self, count: int, is_decoupled: bool) -> None:
        self.count = count
        self.is_decoupled = is_decoupled
        self.turns: dict[Any, int] = {}
        self.seen: list[tuple] = []

    def __call__(self, requests: list) -> Any:
        (request,) = requests
        turn = self.turns[key] = self.turns.get(key := request.correlation_id(), 0) + 1
        array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        self.seen.append((key, request.flags(), array.tolist(), request.request_id()))
        there(overwrite, request, -9)
        is_last = turn == self.count
        if is_last:
            self.turns[key] = 0
        else:
            request.set_release_flags(RESCHEDULE)
        if self.is_decoupled:
            left = self.count - turn
            request.get_response_sender().send(response(left), FINAL if is_last else 0)
            return None
        return [response(turn) if is_last else None]


def test_flags_ids_and_fresh_inputs(
    serve: Serve, script: Script, execution: str, is_decoupled: bool
) -> None:
    # resched, resched_dec. On a new server, since it counts the ids that it gives.
    script.execute = repeats = Repeats(3, is_decoupled)
    model = serve(execution=execution)["m"]
    x = np.float32([1, 2])
    for number in (1, 2):
        answers = [r["OUT"][0] for r in model.stream({"IN": x}, request_id="r", timeout_s=20)]
        assert answers == ([2, 1, 0] if is_decoupled else [3])
        assert repeats.seen == [(number, flags, [1, 2], "r") for flags in (1, 0, 0)]
        repeats.seen.clear()
    assert x.tolist() == [1, 2]
    list(model.stream({"IN": x}, correlation_id=77, sequence_start=True, parameters={"p": 1}))
    assert repeats.seen == [(77, flags, [1, 2], "") for flags in (1, 0, 0)]


def test_parameters_come_again(model: ptl.Model, script: Script, is_decoupled: bool) -> None:
    repeats, seen = Repeats(2, is_decoupled), []

    def execute(requests: list) -> Any:
        seen.append((requests[0].parameters(), requests[0].timeout()))
        return repeats(requests)

    script.execute = execute
    list(model.stream({"IN": X}, parameters={"p": 1}, timeout=5))
    assert seen == [('{"p":1}', 5)] * 2


@pytest.mark.parametrize("is_decoupled", [False])
@pytest.mark.parametrize("form", ["call", "run", "submit", "async"])
def test_every_call(model: ptl.Model, script: Script, form: str, is_decoupled: bool) -> None:
    script.execute = Repeats(3, is_decoupled)
    if form == "call":
        answer = model({"IN": X}, timeout_s=20)
    elif form == "run":
        answer = model.run({"IN": X}, timeout_s=20)
    elif form == "submit":
        answer = model.submit({"IN": X}).result(20)
    else:
        answer = asyncio.run(model.async_run({"IN": X}, timeout_s=20))
    assert answer["OUT"].tolist() == [3]


@pytest.mark.parametrize("is_decoupled", [False])
def test_rescheduled_with_a_response(model: ptl.Model, script: Script, is_decoupled: bool) -> None:
    # resched_with_response

    def execute(requests: list) -> Any:
        requests[0].set_release_flags(RESCHEDULE)
        return [response(1)]

    script.execute = execute
    with pytest.raises(ptl.InternalError) as caught:
        model({"IN": X})
    assert str(caught.value) == (
        f"{PREFIX}Expected a None object in the execute function return list for reschduled "
        "request, found type '<class 'c_python_backend_utils.InferenceResponse'>'."
    )


@pytest.mark.parametrize("config", ["", DECOUPLED])
def test_without_the_configuration_it_is_an_error_at_once(
    repository: RepositoryBuilder, serve: Serve, execution: str, config: str
) -> None:
    # resched_not_configured: on Triton the client waits for ever. The text is that of newer
    # versions.
    script = Script()
    script.write(repository, "m", config)

    def execute(requests: list) -> None:
        requests[0].set_release_flags(RESCHEDULE)

    script.execute = execute
    with pytest.raises(ptl.InternalError) as caught:
        list(serve(execution=execution)["m"].stream({"IN": X}, timeout_s=20))
    assert str(caught.value) == (
        f"{PREFIX}Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the "
        "model is not configured to handle such a flag."
    )


def test_an_exception_after_some_turns(
    model: ptl.Model, script: Script, is_decoupled: bool
) -> None:
    repeats = Repeats(5, is_decoupled)

    def execute(requests: list) -> Any:
        if len(repeats.seen) == 2:
            raise ValueError("third")
        return repeats(requests)

    script.execute = execute
    stream = model.stream({"IN": X}, timeout_s=20)
    with pytest.raises(ptl.InternalError, match="ValueError: third"):
        list(stream)
    assert list(stream) == []


@not_inline
def test_requests_take_turns(model: ptl.Model, script: Script, is_decoupled: bool) -> None:
    script.execute = repeats = Repeats(20, is_decoupled)
    streams = [model.stream({"IN": np.float32([n])}, timeout_s=20) for n in range(8)]
    last = 0 if is_decoupled else 20
    assert [[r["OUT"][0] for r in stream][-1] for stream in streams] == [last] * 8
    assert len(repeats.seen) == 8 * 20
    for n in range(8):
        mine = [entry for entry in repeats.seen if entry[2] == [n]]
        assert [flags for _, flags, _, _ in mine] == [1] + [0] * 19
        assert len({key for key, *_ in mine}) == 1
    # Behind the others each time: nobody is served to the end before the next one begins.
    firsts = [repeats.seen.index(entry) for entry in repeats.seen if entry[1] == 1]
    assert max(firsts) < 100


def forever(turns: list, is_decoupled: bool, *, sends: bool = True) -> Callable[[list], Any]:
    def execute(requests: list) -> Any:
        turns.append(requests[0].is_cancelled())
        requests[0].set_release_flags(RESCHEDULE)
        if is_decoupled:
            if sends:
                requests[0].get_response_sender().send(response(len(turns)))
            return None
        return [None]

    return execute


@pytest.mark.parametrize("how", ["timeout", "close"])
@not_inline
def test_giving_up_ends_it(
    serve: Serve, script: Script, execution: str, is_decoupled: bool, how: str
) -> None:
    turns: list[bool] = []
    script.execute = forever(turns, is_decoupled)
    model = serve(execution=execution, stream_backlog=5)["m"]
    stream = model.stream({"IN": X}, timeout_s=0.05 if how == "timeout" else None)
    wait_for(lambda: len(turns) > 3)
    if how == "close":
        stream.close()
    else:
        with pytest.raises(ptl.RequestTimeoutError):
            list(stream)
    before = -1
    while before != len(turns):  # the one that runs may end, and no other begins
        before = len(turns)
        time.sleep(0.02)
    script.execute = Repeats(2, is_decoupled)
    assert len(list(model.stream({"IN": X}, timeout_s=20))) == (2 if is_decoupled else 1)


@pytest.mark.parametrize("case", [(1, True), (1, False), (4, True), (4, False)])
@not_inline
def test_a_stop_ends_it(
    serve: Serve, script: Script, execution: str, is_decoupled: bool, case: tuple[int, bool]
) -> None:
    count, sends = case
    turns: list[bool] = []
    script.execute = forever(turns, is_decoupled, sends=sends)
    server = serve(execution=execution, exit_timeout=0.1, stream_backlog=0)
    streams = [server["m"].stream({"IN": X}) for _ in range(count)]
    wait_for(lambda: len(turns) > 10)
    server.stop()
    for stream in streams:
        with pytest.raises(ptl.UnavailableError):
            list(stream)
    if execution != "process":  # a stub that is busy is killed
        wait_for(lambda: "finalize" in script.log)


def test_a_stop_lets_it_come_to_its_end(
    serve: Serve, script: Script, execution: str, is_decoupled: bool
) -> None:
    repeats = Repeats(30, is_decoupled)

    def execute(requests: list) -> Any:
        time.sleep(0.001)
        return repeats(requests)

    script.execute = execute
    server = serve(execution=execution)
    streams = [server["m"].stream({"IN": X}) for _ in range(3)]
    server.stop()
    for stream in streams:
        answers = [r["OUT"][0] for r in stream]
        assert answers == (list(range(29, -1, -1)) if is_decoupled else [30])
    assert len(repeats.seen) == 90


@thread_only("what stays in a stub is named one by one; test_bls.py has BLS of stubs")
def test_a_bls_cancel_ends_it(repository: RepositoryBuilder, serve: Serve, execution: str) -> None:
    callee, caller, turns = Script(), Script(), []
    callee.write(repository, "callee", ITERATIVE + DECOUPLED)
    caller.write(repository, "caller")
    callee.execute = forever(turns, True, sends=False)

    def execute(requests: list) -> Any:
        request = pb_utils.InferenceRequest(
            model_name="callee", requested_output_names=["OUT"], inputs=requests[0].inputs()
        )
        responses = request.exec(decoupled=True)
        wait_for(lambda: len(turns) > 3)
        responses.cancel()
        (last,) = responses
        return [response(float(last.has_error()))]

    caller.execute = execute
    assert serve(execution=execution)["caller"]({"IN": X}, timeout_s=20)["OUT"].tolist() == [1]


def test_a_sender_that_is_dropped_between_turns(
    model: ptl.Model, script: Script, is_decoupled: bool
) -> None:
    # The request keeps its sender over the turns, though the model does not.
    seen = []

    def execute(requests: list) -> Any:
        seen.append(value_of(requests[0]))
        sender = requests[0].get_response_sender()
        if len(seen) < 3:
            requests[0].set_release_flags(RESCHEDULE)
        else:
            sender.send(response(8), FINAL)

    script.execute = execute
    stream = model.stream({"IN": X}, timeout_s=20)
    assert [r["OUT"][0] for r in stream] == [8]
