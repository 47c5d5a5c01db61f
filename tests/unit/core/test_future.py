"""The condition of request futures, as `concurrent.futures` uses one."""

from __future__ import annotations

import concurrent.futures
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION

import pytest

from pytriton_lite._core.future import Condition, RequestFuture
from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._core.reply import InferenceResponse
from pytriton_lite._core.slot import CallSlot
from tests.support.limits import until
from tests.support.scripted import hard_limit


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    with hard_limit(30):
        yield


def make_future() -> RequestFuture:
    return RequestFuture(RequestQueue("m", is_inline=True, is_iterative=False), CallSlot())


def response() -> InferenceResponse:
    return InferenceResponse.__new__(InferenceResponse)


def test_it_stands_in_for_that_of_this_python() -> None:
    assert isinstance(make_future()._condition, Condition)
    assert vars(make_future()) == {}
    for name in vars(concurrent.futures.Future()):
        assert hasattr(make_future(), name)


def test_who_has_it_may_take_it_again() -> None:
    condition = Condition()
    taken = threading.Event()

    def take() -> None:
        with condition:
            taken.set()

    with condition:
        with condition:
            pass
        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)  # still held, once
    thread.join()
    assert taken.is_set()


def test_what_is_not_held_is_neither_given_back_nor_waited_on() -> None:
    condition = Condition()
    with pytest.raises(RuntimeError, match="not held"):
        condition.release()
    with pytest.raises(RuntimeError, match="not held"):
        condition.wait(0)
    with condition:
        errors = []

        def release() -> None:
            try:
                condition.release()
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=release)
        thread.start()
        thread.join()
        assert len(errors) == 1


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_a_wait_ends_in_time_and_has_it_again(timeout: float) -> None:
    condition = Condition()
    with condition, condition:
        assert condition.wait(timeout) is False
        condition.release()
        condition.acquire()
    with pytest.raises(RuntimeError):
        condition.release()


def test_all_who_wait_are_woken() -> None:
    condition = Condition()
    waiting, woken = [], []

    def wait() -> None:
        with condition:
            waiting.append(None)
            woken.append(condition.wait(1e10))

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(waiting) == 8)
    with condition:  # each of them has given it back to sleep
        condition.notify_all()
        assert woken == []
    for thread in threads:
        thread.join()
    assert woken == [True] * 8


def test_only_one_thread_has_it_at_a_time() -> None:
    condition = Condition()
    total = 0

    def count() -> None:
        nonlocal total
        for _ in range(2000):
            with condition:
                before = total
                if before % 50 == 0:
                    condition.wait(1e-6)
                    before = total
                total = before + 1
                condition.notify_all()

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total == 32000


def test_a_signal_handler_ends_a_wait() -> None:
    def stop(*_: object) -> None:
        raise TimeoutError("signal")

    before = signal.signal(signal.SIGALRM, stop)
    condition = Condition()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with condition:
            with pytest.raises(TimeoutError, match="signal"):
                condition.wait()
            condition.notify_all()  # it is held again
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- with the functions of the standard library --------------------------------------------


def test_futures_are_waited_for() -> None:
    first, second, third = make_future(), make_future(), make_future()
    answer, error = response(), ValueError("x")
    threading.Timer(0.02, first.set_result, [answer]).start()
    done, rest = concurrent.futures.wait([first, second], return_when=FIRST_COMPLETED)
    assert (done, rest) == ({first}, {second})
    threading.Timer(0.02, second.set_exception, [error]).start()
    done, rest = concurrent.futures.wait([first, second, third], return_when=FIRST_EXCEPTION)
    assert (done, rest) == ({first, second}, {third})
    # Asks the futures for their exceptions while it holds their conditions.
    done, rest = concurrent.futures.wait([second, third], return_when=FIRST_EXCEPTION)
    assert (done, rest) == ({second}, {third})
    threading.Timer(0.02, third.cancel).start()
    assert set(concurrent.futures.as_completed([first, second, third])) == {first, second, third}
    assert first.result() is answer
    assert second.exception() is error
    with pytest.raises(ValueError, match="x"):
        second.result()
    with pytest.raises(concurrent.futures.CancelledError):
        third.result()
    with pytest.raises(TimeoutError):
        make_future().result(0.01)


def test_callbacks_are_called_once() -> None:
    future, called = make_future(), []
    future.add_done_callback(called.append)
    future.set_result(response())
    future.add_done_callback(called.append)
    assert called == [future, future]
    assert "finished" in repr(future)
