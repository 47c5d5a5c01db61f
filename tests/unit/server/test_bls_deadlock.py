"""Rings of BLS requests: found, named and failed; what is only busy is left alone.

Real Triton blocks for good in each ring here; that the error is UNAVAILABLE and names the
chain is a promise of our own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._core import deadlock
from tests.support.bls import DECOUPLED_CONFIG, source, within
from tests.support.repository import ECHO_CONFIG, RepositoryBuilder

Serve = Callable[..., ptl.Server]
STUCK = (
    "Model {} - Error when running inference: no instance can ever become free for the request: "
)
X = {"IN": np.float32([0])}
PATIENCE_S = 0.2


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch, bls: SimpleNamespace) -> None:
    monkeypatch.setattr(deadlock, "PATIENCE_S", PATIENCE_S)


# Sends its input, one greater, to the model NEXT, until the input is LAST; answers what it got.
LINK = """
    def execute(self, requests):
        responses = []
        for request in requests:
            x = input_of(request)
            shared.log.append("NAME")
            responses.append(answer(request, x) if x[0] >= LAST else make("NEXT", x + 1).exec())
        return responses
"""
ASYNC_LINK = LINK.replace("def execute", "async def execute").replace(
    'make("NEXT", x + 1).exec()', 'await make("NEXT", x + 1).async_exec()'
)
STREAM_LINK = """
    def execute(self, requests):
        for request in requests:
            sender, x = request.get_response_sender(), input_of(request)
            if x[0] >= LAST:
                sender.send(answer(request, x), flags=1)
                continue
            for response in make("NEXT", x + 1).exec(decoupled=True):
                sender.send(response)
            sender.send(flags=1)
"""


def link(name: str, following: str, last: int = 100, methods: str = LINK) -> str:
    text = methods.replace("NAME", name).replace("NEXT", following).replace("LAST", str(last))
    return source(methods=text)


def write_ring(
    repository: RepositoryBuilder,
    names: list[str],
    *,
    methods: str = LINK,
    last: int = 100,
    config: str = ECHO_CONFIG,
) -> None:
    for name, following in zip(names, names[1:] + names[:1], strict=True):
        repository.model(name, link(name, following, last, methods), config=config)


MODES: dict[str, Any] = {
    "inline": "inline",
    "thread": "thread",
    "mixed": {"a": "inline", "b": "thread", "c": "inline", "*": "inline"},
    "process": "process",
    "mixed with processes": {"a": "process", "b": "thread", "c": "process", "*": "inline"},
    "mixed the other way": {"a": "thread", "b": "inline", "c": "thread", "*": "thread"},
}


@pytest.fixture(params=list(MODES))
def mode(request: pytest.FixtureRequest) -> Any:
    return MODES[request.param]


def error_of(model: ptl.Model) -> ptl.TritonError:
    with pytest.raises(ptl.TritonError) as caught:
        within(20, model, X)
    return caught.value


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
def test_a_ring_is_found_at_once(
    repository: RepositoryBuilder, serve: Serve, mode: Any, names: list[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(deadlock, "PATIENCE_S", 1000.0)
    write_ring(repository, names)
    server = serve(execution=mode)
    begin = time.monotonic()
    error = error_of(server["a"])
    assert time.monotonic() - begin < 10
    assert isinstance(error, ptl.UnavailableError)
    # By hand: the last one in the ring sends to `a`, whose instance waits for the second, ...
    waits = [
        f"instance '{name}_0' waits for model '{following}'"
        for name, following in zip(names, names[1:] + names[:1], strict=True)
    ]
    assert str(error) == STUCK.format("a") + "; ".join(waits)
    # Nothing stays behind: the same again, and the models still work.
    assert isinstance(error_of(server["a"]), ptl.UnavailableError)
    assert within(20, server["a"], {"IN": np.float32([100])})["OUT"].tolist() == [100]


@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=len)
def test_free_instances_keep_a_ring_alive(
    repository: RepositoryBuilder, serve: Serve, mode: Any, names: list[str]
) -> None:
    # Goes round twice, so that each model runs twice at once.
    config = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
    write_ring(repository, names, last=2 * len(names) - 1, config=config)
    server = serve(execution=mode)
    for _ in range(3):
        out = within(20, server["a"], X)
        assert out["OUT"].tolist() == [2 * len(names) - 1]


def test_one_turn_is_no_ring(repository: RepositoryBuilder, serve: Serve, mode: Any) -> None:
    write_ring(repository, ["a", "b", "c"], last=2)
    assert within(20, serve(execution=mode)["a"], X)["OUT"].tolist() == [2]


@pytest.mark.parametrize("methods", [LINK, ASYNC_LINK], ids=["sync", "async"])
def test_busy_callees_are_left_alone(
    repository: RepositoryBuilder, serve: Serve, mode: Any, methods: str
) -> None:
    # Two chains end in one slow model, from many callers; the waits add up to far more than the
    # patience.
    repository.model("a", link("a", "b", methods=methods))
    repository.model("d", link("d", "c", methods=methods))
    repository.model("b", link("b", "c", methods=methods))
    slow = """
        def execute(self, requests):
            time.sleep(0.1)
            return [answer(r, input_of(r)) for r in requests]
    """
    repository.model("c", source(methods=slow))
    server = serve(execution=mode)
    answers: list[float] = []

    def work(name: str) -> None:
        answers.append(within(25, server[name], X)["OUT"][0])

    threads = [threading.Thread(target=work, args=(n,)) for n in ["a", "b", "c", "d"] * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(28)
    assert sorted(answers) == [0] * 2 + [1] * 4 + [2] * 2


def test_a_slow_link_beside_a_ring_is_left_alone(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    # `b` has a second instance that works for a while on something else: it will be free.
    repository.model("a", link("a", "b", last=2))
    config = ECHO_CONFIG + "instance_group [ { count: 2 } ]"
    body = """
        def execute(self, requests):
            request, x = requests[0], input_of(requests[0])
            if x[0] < 0:
                shared.entered.set()
                time.sleep(1)
                return [answer(request, x)]
            return [make("a", x + 1).exec()]
    """
    repository.model("b", source(methods=body), config=config)
    repository.model("c", link("c", "b", last=9), config=config)
    server = serve(execution={"a": "thread", "*": "thread"})
    slow = server["b"].submit({"IN": np.float32([-1])})
    assert bls.entered.wait(20)
    # c -> b -> a, while a second way b -> a is busy.
    assert within(20, server["c"], {"IN": np.float32([0.0])})["OUT"].tolist() == [2]
    assert slow.result(20)["OUT"].tolist() == [-1]


@pytest.mark.parametrize("methods", [LINK, ASYNC_LINK], ids=["sync", "async"])
def test_many_threads_on_a_ring(
    repository: RepositoryBuilder, serve: Serve, mode: Any, methods: str
) -> None:
    # a -> b is no ring, a -> b -> a is one when `a` has no other instance.
    write_ring(repository, ["a", "b"], last=2, methods=methods)
    server = serve(execution=mode)
    answers: list[Any] = []
    turns = [0, 1, 2] if methods is LINK else [0, 2]  # each ring of coroutines takes its time

    def work(number: int) -> None:
        name = "ab"[number % 2]
        for turn in turns:
            try:
                out = server[name]({"IN": np.float32([turn])}, timeout_s=25)["OUT"].tolist()
                answers.append(out)
            except ptl.UnavailableError as error:
                answers.append(str(error))

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(28)
    assert len(answers) == 8 * len(turns)
    failed = [a for a in answers if isinstance(a, str)]
    # Each first turn goes round once more than there are instances: its ring must fail.
    assert len(failed) >= 8
    assert all("no instance can ever become free" in text for text in failed)
    assert [2] in answers


# -- rings that only patience can tell from work ---------------------------------------


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
def test_a_ring_of_coroutines(
    repository: RepositoryBuilder, serve: Serve, mode: Any, names: list[str]
) -> None:
    write_ring(repository, names, methods=ASYNC_LINK)
    server = serve(execution=mode)
    for _ in range(2):
        begin = time.monotonic()
        error = error_of(server["a"])
        assert PATIENCE_S <= time.monotonic() - begin < 10
        assert isinstance(error, ptl.UnavailableError)
        assert str(error).startswith(STUCK.format("a") + "instance 'a_0' waits for model")
        assert all(f"instance '{name}_0' waits" in str(error) for name in names)
    assert within(20, server["a"], {"IN": np.float32([100])})["OUT"].tolist() == [100]


@pytest.mark.parametrize(
    "awaiting",
    [
        "(await asyncio.gather(FUTURE, asyncio.sleep(0)))[0]",
        "await asyncio.wait_for(FUTURE, 60)",
        "(await asyncio.wait([FUTURE]))[0].pop().result()",
        "await asyncio.get_running_loop().run_in_executor(None, make('b', x + 1).exec)",
        "await asyncio.shield(FUTURE)",
    ],
)
def test_ways_to_await_in_a_ring(
    repository: RepositoryBuilder, serve: Serve, awaiting: str
) -> None:
    awaiting = awaiting.replace("FUTURE", 'make("b", x + 1).async_exec()')
    methods = ASYNC_LINK.replace('await make("NEXT", x + 1).async_exec()', awaiting)
    repository.model("a", link("a", "b", methods=methods))
    repository.model("b", link("b", "a"))
    error = error_of(serve(execution="thread")["a"])
    assert isinstance(error, ptl.UnavailableError)
    assert "instance 'a_0' waits for model 'b'" in str(error)


def test_a_ring_beside_other_answers(
    repository: RepositoryBuilder, serve: Serve, mode: Any
) -> None:
    # The coroutine gets one answer late, then only the ring is left.
    repository.model(
        "a",
        source(
            methods="""
            async def execute(self, requests):
                slow, ring = make("c").async_exec(), make("b").async_exec()
                shared.log.append(told(await slow))
                return [await ring]
            """
        ),
    )
    repository.model("b", link("b", "a"))
    slow = (
        "def execute(self, requests):\n    time.sleep(0.8)\n    return [answer(requests[0], 5)]\n"
    )
    repository.model("c", source(methods=slow))
    server = serve(execution=mode)
    assert isinstance(error_of(server["a"]), ptl.UnavailableError)
    # An inline `c` has answered before `b` is asked, so either may come first.
    assert sorted(threading.bls.log, key=str) == ["b", {"OUT": 5}]  # type: ignore[attr-defined]


def test_a_coroutine_that_does_other_things_is_left_alone(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    # It has a request in a ring pending, and does not await it: its instance becomes free.
    repository.model(
        "a",
        source(
            methods="""
            async def execute(self, requests):
                if input_of(requests[0])[0] == 0:
                    shared.future = make("b", [0]).async_exec()
                    await asyncio.sleep(0.8)
                    shared.loop = asyncio.get_running_loop()
                return [answer(requests[0], input_of(requests[0]))]
            """
        ),
    )
    repository.model("b", link("b", "a"))
    server = serve(execution="thread")
    assert within(20, server["a"], X)["OUT"].tolist() == [0]
    shared = threading.bls  # type: ignore[attr-defined]

    async def result() -> list[float]:
        response = await shared.future
        return [t.as_numpy().tolist() for t in response.output_tensors()]

    import asyncio

    told = asyncio.run_coroutine_threadsafe(result(), shared.loop).result(20)
    assert told == [[1]]


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]], ids=len)
def test_a_ring_of_streams(
    repository: RepositoryBuilder, serve: Serve, mode: Any, names: list[str]
) -> None:
    write_ring(repository, names, methods=STREAM_LINK, config=DECOUPLED_CONFIG)
    server = serve(execution=mode)

    def read() -> list[Any]:
        return [r.error for r in server["a"].infer(inputs=X, raise_on_error=False)]

    for _ in range(2):
        errors = [e for e in within(20, read) if e is not None]
        assert len(errors) == 1
        assert isinstance(errors[0], ptl.UnavailableError)
        assert "no instance can ever become free" in str(errors[0])
        assert all(f"instance '{name}_0' waits" in str(errors[0]) for name in names)


@pytest.fixture
def half_ring(repository: RepositoryBuilder, bls: SimpleNamespace) -> None:
    """`a` reads a stream of `b`, whose `execute` took its sender and waits for `a`."""
    read = """
        def execute(self, requests):
            request = requests[0]
            if input_of(request)[0] != 0:
                return [answer(request, [7])]
            shared.log.append([told(r) for r in make("b").exec(decoupled=True)])
            return [answer(request, [1])]
    """
    ask = """
        def execute(self, requests):
            request = requests[0]
            sender = request.get_response_sender()
            def send():
                for n in range(shared.count):
                    time.sleep(shared.pause)
                    sender.send(answer(request, [n]))
                sender.send(flags=1)
            thread = threading.Thread(target=send)
            if shared.count:
                thread.start()
            shared.asked = ask("a", [1])
            shared.has_asked.set()
            if not shared.count:
                send()
            else:
                thread.join()
    """
    repository.model("a", source(methods=read))
    repository.model("b", source(methods=ask), config=DECOUPLED_CONFIG)
    bls.has_asked = threading.Event()


def test_a_ring_through_a_sender(
    half_ring: None, serve: Serve, mode: Any, bls: SimpleNamespace
) -> None:
    bls.count, bls.pause = 0, 0
    assert within(20, serve(execution=mode)["a"], X)["OUT"].tolist() == [1]
    text, code = bls.asked
    assert text.startswith(STUCK.format("a") + "instance 'a_0' waits for model 'b'")
    assert "instance 'b_0' waits for model 'a'" in text
    assert code == "UNAVAILABLE"
    assert bls.log == [[{}]]


def test_a_sender_that_goes_on_on_another_thread_is_left_alone(
    half_ring: None, serve: Serve, bls: SimpleNamespace
) -> None:
    # Each response is news, so that the picture never stays the same for long enough.
    bls.count, bls.pause = 8, 0.1
    assert within(20, serve(execution="thread")["a"], X)["OUT"].tolist() == [1]
    assert bls.has_asked.wait(20)
    assert bls.asked == {"OUT": [7]}
    assert bls.log == [[*({"OUT": [n]} for n in range(8)), {}]]


def test_an_inline_leader_does_not_run_what_needs_its_own_instance(
    repository: RepositoryBuilder, serve: Serve, bls: SimpleNamespace
) -> None:
    # `a` leads `b` for itself; a request of a third caller waits there, and needs `a`.
    repository.model("a", link("a", "b", last=2))
    body = """
        def execute(self, requests):
            x = input_of(requests[0])
            if x[0] == 1:
                shared.entered.set()
                assert shared.gate.wait(20)
            if x[0] >= 9:
                return [make("a", [5]).exec()]
            return [answer(requests[0], x)]
    """
    repository.model("b", source(methods=body))
    server = serve(execution="inline")
    results: list[Any] = []

    def call(name: str, x: float) -> None:
        results.append(within(25, server[name], {"IN": np.float32([x])})["OUT"].tolist())

    first = threading.Thread(target=call, args=("a", 0))
    first.start()
    assert bls.entered.wait(20)
    second = threading.Thread(target=call, args=("b", 9))
    second.start()
    # A future has no thread that could lead: this one has to run it, and its ring is found.
    future = server["b"].submit({"IN": np.float32([9])})
    time.sleep(0.2)
    bls.gate.set()
    first.join(28)
    second.join(28)
    assert sorted(results) == [[1], [5]]
    error = future.exception(20)
    assert error is None or "instance 'a_0' waits for model 'b'" in str(error)


def test_a_ring_of_streams_on_the_main_thread(
    repository: RepositoryBuilder, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which wakes up for signals more often than it looks for rings.
    monkeypatch.setattr(deadlock, "PATIENCE_S", 1.0)
    write_ring(repository, ["a"], methods=STREAM_LINK, config=DECOUPLED_CONFIG)
    server = serve(execution="inline")
    errors = [r.error for r in server["a"].infer(inputs=X, raise_on_error=False)]
    assert "no instance can ever become free" in str(errors[0])
