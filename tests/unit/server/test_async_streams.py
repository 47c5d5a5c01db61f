"""Streams of decoupled models on event loops: read by coroutines, and sent by them.

What `async def execute` does follows section 5 of Triton's contract, observed on 2.51; the
answer to an exception in it is ours.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.modes import ALL, in_process, not_inline
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import (
    DECOUPLED,
    FINAL,
    Script,
    error_response,
    response,
    start_thread,
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


@pytest.fixture
def script_config() -> str:
    return DECOUPLED


def send_all(sender: Any, count: int, pause_s: float = 0) -> None:
    for n in range(count):
        time.sleep(pause_s)
        sender.send(response(n))
    sender.send(flags=FINAL)


def sends(count: int) -> Callable[[list], None]:
    return lambda requests: send_all(requests[0].get_response_sender(), count)


def sends_from_a_thread(count: int, pause_s: float = 0) -> Callable[[list], None]:
    def execute(requests: list) -> None:
        start_thread(send_all, requests[0].get_response_sender(), count, pause_s)

    return execute


async def read(stream: Any) -> list[float]:
    return [float(r["OUT"][0]) async for r in stream]


# -- reading ---------------------------------------------------------------------------


@pytest.mark.parametrize("execute", [sends(20), sends_from_a_thread(20, 0.001)])
@pytest.mark.parametrize("backlog", [3, 4096])
def test_a_coroutine_reads_a_stream(
    serve: Serve, script: Script, execution: str, execute: Callable, backlog: int
) -> None:
    model = serve(execution=execution, stream_backlog=backlog)["m"]
    script.execute = execute

    async def main() -> None:
        assert await read(model.async_stream({"IN": X}, timeout_s=20)) == list(range(20))
        responses = [r async for r in model.async_infer(inputs={"IN": X}, request_id="r")]
        last = responses.pop()
        assert (last.final, last.outputs, last.request_id) == (True, {}, "r")
        assert [r["OUT"][0] for r in responses] == list(range(20))
        many = await asyncio.gather(*(read(model.async_stream({"IN": X})) for _ in range(8)))
        assert many == [list(range(20))] * 8

    asyncio.run(main())
    asyncio.run(main())


def test_errors_in_the_middle(model: ptl.Model, script: Script) -> None:
    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        sender.send(response(0))
        sender.send(error_response("bad"))
        sender.send(response(2), FINAL)

    script.execute = execute

    async def main() -> None:
        stream = model.async_stream({"IN": X})
        assert (await anext(stream))["OUT"][0] == 0
        with pytest.raises(ptl.InternalError, match=r"^bad$"):
            await anext(stream)
        assert await read(stream) == [2]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        infer = model.async_infer(inputs={"IN": X}, raise_on_error=False)
        assert [r.error is None async for r in infer] == [True, False, True]

    asyncio.run(main())


def test_a_default_model_gives_its_one_response(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    script = Script()
    script.write(repository, "m")
    model = serve(execution=execution)["m"]
    script.execute = lambda requests: [response(4)]

    async def main() -> None:
        assert await read(model.async_stream({"IN": X})) == [4]
        assert await read(model.async_infer(inputs={"IN": X})) == [4]

    asyncio.run(main())


def test_several_tasks_share_a_stream(model: ptl.Model, script: Script) -> None:
    script.execute = sends_from_a_thread(100, 0.0005)

    async def main() -> None:
        stream = model.async_stream({"IN": X})
        parts = await asyncio.gather(*(read(stream) for _ in range(5)))
        assert all(part == sorted(part) for part in parts)
        assert sorted(value for part in parts for value in part) == list(range(100))

    asyncio.run(main())


# -- giving up -------------------------------------------------------------------------


def opened(script: Script, *, first: bool = True) -> tuple[list[Any], Callable[[], None]]:
    """A model that sends one response and keeps the sender; what ends all of them."""
    kept: list[Any] = []

    def execute(requests: list) -> None:
        kept.append(requests[0].get_response_sender())
        if first:
            kept[-1].send(response(0))

    def close() -> None:
        for sender in kept:
            sender.send(flags=FINAL)

    script.execute = execute
    return kept, close


async def cancelled(sender: Any) -> None:
    """Wait until it is, which a stub hears a moment later."""
    while not sender.is_cancelled():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("how", ["task", "timeout", "timeout_s", "close", "thread", "aclose"])
def test_a_waiting_reader_gives_up(model: ptl.Model, script: Script, how: str) -> None:
    kept, close = opened(script)

    async def main() -> None:
        stream = model.async_stream({"IN": X}, timeout_s=0.05 if how == "timeout_s" else None)
        assert (await anext(stream))["OUT"][0] == 0
        begin = time.monotonic()
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(stream)
        elif how == "timeout_s":
            with pytest.raises(ptl.RequestTimeoutError, match="'m' was not answered in time"):
                await anext(stream)
        else:
            task = asyncio.create_task(read(stream))
            await asyncio.sleep(0.02)
            if how == "task":
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            else:
                if how == "close":
                    stream.close()
                elif how == "thread":
                    await asyncio.to_thread(stream.close)
                else:
                    await stream.aclose()
                assert await task == []
        assert time.monotonic() - begin < 10
        await cancelled(kept[0])
        assert await read(stream) == []

    asyncio.run(main())
    close()


def test_leaving_and_dropping(model: ptl.Model, script: Script) -> None:
    kept, close = opened(script)

    async def main() -> None:
        async with model.async_stream({"IN": X}) as stream:
            await anext(stream)
        await cancelled(kept[0])
        stream = model.async_stream({"IN": X})
        await anext(stream)
        del stream
        gc.collect()
        await cancelled(kept[1])  # the model's thread, which woke us, may still hold it
        infer = model.async_infer(inputs={"IN": X})
        async for _ in infer:
            break
        await infer.aclose()
        await cancelled(kept[2])

    asyncio.run(main())
    close()


def test_close_before_the_first_iteration(model: ptl.Model, script: Script) -> None:
    async def main() -> None:
        script.execute = sends(3)
        stream = model.async_stream({"IN": X})
        stream.close()
        assert await read(stream) == []

    asyncio.run(main())


def test_an_inline_stream_that_is_given_up_while_it_opens(serve: Serve, script: Script) -> None:
    model = serve(execution="inline")["m"]
    entered, gate, senders = threading.Event(), threading.Event(), []

    def execute(requests: list) -> None:
        senders.append(requests[0].get_response_sender())
        entered.set()
        gate.wait(20)
        send_all(senders[0], 2)

    script.execute = execute

    async def main() -> None:
        stream = model.async_stream({"IN": X})
        task = asyncio.create_task(read(stream))
        await asyncio.to_thread(entered.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await read(stream) == []

    asyncio.run(main())
    assert len(senders) == 1


def test_cancelling_an_inline_call_ends_the_wait_of_its_thread(
    serve: Serve, script: Script, repository: RepositoryBuilder
) -> None:
    one = Script()
    one.write(repository, "one")
    kept: list[Any] = []
    one.execute = lambda requests: kept.append(requests[0].get_response_sender())
    model = serve(execution="inline")["one"]

    async def main() -> None:
        task = asyncio.create_task(model.async_run({"IN": X}))
        while not kept:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())  # whose end waits for the executor's threads
    assert kept[0].is_cancelled()
    kept.clear()


@not_inline
def test_a_future_may_be_cancelled_twice(model: ptl.Model, script: Script) -> None:
    kept, close = opened(script, first=False)
    future = model.submit({"IN": X})
    wait_for(lambda: kept)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    wait_for(kept[0].is_cancelled)
    close()


def test_a_stop_ends_a_waiting_coroutine(serve: Serve, script: Script, execution: str) -> None:
    server = serve(execution=execution, exit_timeout=0.1)
    kept, _ = opened(script)

    async def main() -> None:
        stream = server["m"].async_stream({"IN": X})
        await anext(stream)
        stopping = start_thread(server.stop)
        with pytest.raises(ptl.UnavailableError, match="'m' was stopped and did not answer"):
            await anext(stream)
        assert await read(stream) == []
        await asyncio.to_thread(stopping.join, 20)

    asyncio.run(main())
    kept.clear()


def test_raise_on_error_of_a_stopped_server(serve: Serve, script: Script, execution: str) -> None:
    server = serve(execution=execution)
    model = server["m"]
    script.execute = sends(1)
    server.stop()

    async def main() -> None:
        infer = model.async_infer(inputs={"IN": X}, raise_on_error=False)
        (failed,) = [r async for r in infer]
        assert isinstance(failed.error, ptl.UnavailableError)

    asyncio.run(main())


# -- async def execute -----------------------------------------------------------------


@pytest.fixture
def coroutine(repository: RepositoryBuilder, serve: Serve, execution: str) -> Any:
    script = Script()
    script.write(repository, "m", DECOUPLED, is_async=True)
    server = serve(execution=execution)
    return server["m"], script, server


def read_now(model: ptl.Model, value: float = 1) -> list[float]:
    stream = model.stream({"IN": np.float32([value])}, timeout_s=20)
    return [float(r["OUT"][0]) for r in stream]


@pytest.mark.parametrize("result", [None, [response(1)], "ignored"])
def test_a_coroutine_streams_and_its_result_is_ignored(coroutine: Any, result: Any) -> None:
    # dec_async
    model, script, _ = coroutine

    async def execute(requests: list) -> Any:
        sender = requests[0].get_response_sender()
        for n in range(3):
            await asyncio.sleep(0)
            sender.send(response(n))
        sender.send(flags=FINAL)
        return result

    script.execute = execute
    assert read_now(model) == [0, 1, 2]


def test_requests_overlap(coroutine: Any, execution: str) -> None:
    model, script, _ = coroutine
    running, most, loops = [0], [0], set()

    async def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        loops.add((asyncio.get_running_loop(), threading.current_thread().name))
        running[0] += 1
        most[0] = max(most[0], running[0])
        for n in range(3):
            await asyncio.sleep(0.01)
            sender.send(response(n * value_of(requests[0])))
        running[0] -= 1
        sender.send(flags=FINAL)

    script.execute = execute
    streams = [model.stream({"IN": np.float32([n])}, timeout_s=20) for n in range(10)]
    for factor, stream in enumerate(streams):
        assert [r["OUT"][0] for r in stream] == [0, factor, 2 * factor]
    assert most[0] == 10
    if execution != "process":  # where the coroutines of the test run outside the model
        ((_, name),) = loops  # one loop, on a thread of its own
        assert name == "m_0-loop"


@pytest.mark.parametrize("sent", [0, 2])
def test_an_exception_reaches_the_caller(coroutine: Any, sent: int) -> None:
    # Ours: on Triton it is only logged, and the client waits for ever.
    model, script, _ = coroutine

    async def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        for n in range(sent):
            sender.send(response(n))
        await asyncio.sleep(0)
        raise ValueError("boom")

    script.execute = execute
    stream = model.stream({"IN": X}, timeout_s=20)
    assert [next(stream)["OUT"][0] for _ in range(sent)] == list(range(sent))
    with pytest.raises(ptl.InternalError) as caught:
        next(stream)
    assert str(caught.value).startswith(PREFIX + "ValueError: boom\n\nAt:\n")
    assert type(caught.value.__cause__) is ValueError


@pytest.mark.parametrize("sent", [0, 1])
def test_a_coroutine_that_ends_without_final(coroutine: Any, sent: int) -> None:
    model, script, _ = coroutine

    async def execute(requests: list) -> None:
        for _ in range(sent):
            requests[0].get_response_sender().send(response(0))

    script.execute = execute
    with pytest.raises(ptl.InternalError, match="real Triton would leave the client waiting"):
        read_now(model)


@in_process("a stub that is busy is killed")
def test_a_stop_ends_coroutines(
    repository: RepositoryBuilder, serve: Serve, execution: str
) -> None:
    script = Script()
    script.write(repository, "m", DECOUPLED, is_async=True)
    server = serve(execution=execution, exit_timeout=0.1)
    ended = []

    async def execute(requests: list) -> None:
        requests[0].get_response_sender().send(response(0))
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(asyncio.current_task().cancelling())

    script.execute = execute
    stream = server["m"].stream({"IN": X})
    assert next(stream)["OUT"][0] == 0
    server.stop()
    with pytest.raises(ptl.UnavailableError):
        next(stream)
    wait_for(lambda: ended)
    assert ended == [1]
    assert script.log == ["initialize", "finalize"]
