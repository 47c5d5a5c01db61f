"""Futures of instances in processes: who waits for one leads the process meanwhile.

Expected values are derived by hand.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, as_completed, wait
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.limits import until, within
from tests.support.probe import CONFIG, PROBE, ask, held_up, inputs
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import hard_limit

INCREMENT = "outputs = [pb_utils.Tensor('Y', given.as_numpy() + 1)]"


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    with hard_limit(120):
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ptl.Server]:
    repository = RepositoryBuilder(tmp_path_factory.mktemp("futures"))
    repository.model("probe", PROBE, config=CONFIG)
    repository.model(
        "pair", PROBE, config=CONFIG + "instance_group [ { count: 2 kind: KIND_CPU } ]\n"
    )
    with ptl.Server(repository.models, execution="process") as server:
        yield server


@pytest.fixture
def probe(server: ptl.Server) -> ptl.Model:
    return assisted(server.model("probe"))


def assisted(model: ptl.Model) -> ptl.Model:
    """The model, which is known to be fast, and which a thread that waited for a future has led."""
    for _ in range(150):
        within_reach(model, 0).result(20)
    return model


def within_reach(model: ptl.Model, value: float) -> Future[ptl.InferenceResponse]:
    return model.submit(inputs(INCREMENT, X=[float(value)]))


def answer(future: Future[ptl.InferenceResponse]) -> float:
    return float(future.result(20)["Y"][0])


def test_the_thread_that_waits_completes_what_comes_before(probe: ptl.Model) -> None:
    me, completed_by = threading.get_ident(), list[int]()

    def burst() -> bool:
        futures = [within_reach(probe, i) for i in range(10)]
        for future in futures[:-1]:
            future.add_done_callback(lambda _: completed_by.append(threading.get_ident()))
        assert answer(futures[-1]) == 10
        return me in completed_by

    # The pump takes the instance when this thread is away for some milliseconds.
    until(burst)


def test_each_gets_its_own_answer(probe: ptl.Model) -> None:
    futures: list[Future[Any]] = []
    for i in range(2000):
        futures.append(within_reach(probe, i))
        if i >= 40:
            assert answer(futures[i - 40]) == i - 39
    assert [answer(f) for f in futures] == [i + 1 for i in range(2000)]


@pytest.mark.parametrize("pause", [0, 0.02])
def test_nobody_waits(probe: ptl.Model, pause: float) -> None:
    for i in range(20):
        assert answer(within_reach(probe, i)) == i + 1
        time.sleep(pause)  # after the longer one, the pump looks no more
        called: Queue[Future[Any]] = Queue()
        futures = [within_reach(probe, n) for n in range(5)]
        for future in futures:
            future.add_done_callback(called.put)
        assert [answer(called.get(timeout=20)) for _ in futures] == [1, 2, 3, 4, 5]


def test_functions_of_the_standard_library(probe: ptl.Model) -> None:
    for _ in range(20):
        assert answer(within_reach(probe, 0)) == 1
        futures = [within_reach(probe, i) for i in range(10)]
        done, rest = wait(futures, 20, ALL_COMPLETED)
        assert (len(done), len(rest)) == (10, 0)
        futures = [within_reach(probe, i) for i in range(10)]
        assert sorted(answer(f) for f in as_completed(futures, 20)) == [i + 1 for i in range(10)]
        assert [f.exception(20) for f in futures] == [None] * 10


def other_calls(model: ptl.Model) -> dict[str, Callable[[], float]]:
    given = inputs(INCREMENT, X=[41.0])
    return {
        "call": lambda: float(model(given, timeout_s=20)["Y"][0]),
        "run": lambda: float(model.run(given, timeout_s=20)["Y"][0]),
        "async": lambda: float(asyncio.run(model.async_run(given, timeout_s=20))["Y"][0]),
        "stream": lambda: float(next(iter(model.infer(inputs=given)))["Y"][0]),
        "thread": lambda: within(20, lambda: float(model(given)["Y"][0])),
    }


@pytest.mark.parametrize("kind", ["call", "run", "async", "stream", "thread"])
@pytest.mark.parametrize("name", ["probe", "pair"])
def test_other_calls_meanwhile(server: ptl.Server, name: str, kind: str) -> None:
    model = assisted(server.model(name))
    call = other_calls(model)[kind]
    for _ in range(30):
        futures = [within_reach(model, i) for i in range(7)]
        assert call() == 42
        futures += [within_reach(model, i) for i in range(7, 14)]
        assert [answer(f) for f in futures] == [i + 1 for i in range(14)]


def test_several_threads_wait(server: ptl.Server) -> None:
    for name in ("probe", "pair"):
        model = assisted(server.model(name))
        wrong: list[Any] = []

        def work(number: int, model: ptl.Model = model, wrong: list[Any] = wrong) -> None:
            for i in range(60):
                values = [1000 * number + 10 * i + n for n in range(1 + number % 5)]
                futures = [within_reach(model, value) for value in values]
                if number % 2:
                    futures.reverse()
                    values.reverse()
                if [answer(f) for f in futures] != [value + 1 for value in values]:
                    wrong.append((number, i))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_the_time_is_up(probe: ptl.Model, tmp_path: Path) -> None:
    running, gate = held_up(probe, tmp_path)
    other = within_reach(probe, 1)
    for future in (running, other):
        for seconds in (0, 0.03):
            with pytest.raises(TimeoutError):
                future.result(seconds)
            with pytest.raises(TimeoutError):
                future.exception(seconds)
    gate.touch()
    assert json.loads(running.result(20)["TEXT"][0]) == "probe_0"
    assert answer(other) == 2


def test_a_cancelled_future(probe: ptl.Model, tmp_path: Path) -> None:
    running, gate = held_up(probe, tmp_path)
    others = [within_reach(probe, i) for i in range(10)]
    assert all(future.cancel() for future in others[::2])
    gate.touch()
    running.result(20)
    assert [answer(f) for f in others[1::2]] == [2, 4, 6, 8, 10]
    assert all(future.cancelled() for future in others[::2])


def test_another_thread_cancels(probe: ptl.Model, tmp_path: Path) -> None:
    running, gate = held_up(probe, tmp_path)
    others = [within_reach(probe, i) for i in range(3)]
    timer = threading.Timer(0.1, running.cancel)
    timer.start()
    with pytest.raises(CancelledError):
        running.result(20)
    timer.join()
    assert not others[0].done()
    gate.touch()
    assert [answer(f) for f in others] == [1, 2, 3]


def test_an_interrupt(probe: ptl.Model, tmp_path: Path) -> None:
    running, gate = held_up(probe, tmp_path)
    others = [within_reach(probe, i) for i in range(10)]
    for _ in range(2):
        timer = threading.Timer(0.05, ctypes.pythonapi.PyErr_SetInterrupt)
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            running.result()
        timer.join()
    gate.touch()
    assert [answer(f) for f in others] == [i + 1 for i in range(10)]
    assert json.loads(running.result(20)["TEXT"][0]) == "probe_0"


def test_an_interrupt_in_a_callback(probe: ptl.Model) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    def wait_for(future: Future[Any]) -> None:
        future.result(20)
        time.sleep(20)

    for _ in range(10):
        futures = [within_reach(probe, i) for i in range(10)]
        futures[3].add_done_callback(interrupt)
        with pytest.raises(KeyboardInterrupt):
            wait_for(futures[-1])
        assert [answer(f) for f in futures] == [i + 1 for i in range(10)]


def test_a_slow_one_before_the_others(server: ptl.Server, tmp_path: Path) -> None:
    pair = assisted(server.model("pair"))
    running, gate = held_up(pair, tmp_path)
    names = [pair.submit(inputs("result = state['instance']")) for _ in range(20)]
    answers = {json.loads(future.result(20)["TEXT"][0]) for future in names}
    assert len(answers) == 1  # the other instance
    gate.touch()
    assert json.loads(running.result(20)["TEXT"][0]) not in answers


def test_large_requests(probe: ptl.Model) -> None:
    # More than may be sent ahead, and more than fits into a ring.
    arrays = [np.full(30_000, i, np.float32) for i in range(64)]
    futures = [probe.submit(inputs(INCREMENT, X=array)) for array in arrays]
    for i, future in enumerate(futures):
        assert (future.result(20)["Y"] == i + 1).all()


def test_an_error_and_a_crash(repository: RepositoryBuilder) -> None:
    repository.model("probe", PROBE, config=CONFIG)
    with ptl.Server(repository.models, execution="process") as server:
        model = server.model("probe")
        for way in ("1 / 0", "os._exit(3)", "os.kill(os.getpid(), 9)"):
            until(model.ready)
            assisted(model)
            before = [within_reach(model, i) for i in range(5)]
            failing = model.submit(inputs(way))
            after = [within_reach(model, i) for i in range(5)]
            error = ptl.InternalError if way == "1 / 0" else ptl.UnavailableError
            with pytest.raises(error):
                failing.result(20)
            assert [answer(f) for f in before] == [1, 2, 3, 4, 5]
            # They were not begun with, and wait for the next process.
            assert [answer(f) for f in after] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_the_server_stops(repository: RepositoryBuilder, seconds: float) -> None:
    repository.model("probe", PROBE, config=CONFIG)
    with ptl.Server(repository.models, execution="process") as server:
        model = assisted(server.model("probe"))
        assert ask(model, "result = 1") == 1
        futures = [within_reach(model, i) for i in range(30)]
        time.sleep(seconds)
    assert [answer(f) for f in futures] == [i + 1 for i in range(30)]
    with pytest.raises(ptl.UnavailableError):
        within_reach(model, 0)


def test_no_processor_time_when_nothing_is_in_flight(probe: ptl.Model) -> None:
    assert answer(within_reach(probe, 0)) == 1
    time.sleep(0.05)
    before = sum(os.times()[:2])
    time.sleep(0.3)
    assert sum(os.times()[:2]) - before <= 0.03
