"""Random schedules over response senders: the caller always learns how it ended, and in time."""

from __future__ import annotations

import gc
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import pytriton_lite as ptl
from pytriton_lite import pb_utils
from pytriton_lite._core.tensor import live_tensor_count
from tests.support.repository import RepositoryBuilder
from tests.support.scripted import (
    DECOUPLED,
    FINAL,
    Script,
    error_response,
    hard_limit,
    response,
    start_thread,
)

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])


class SenderMachine(RuleBasedStateMachine):
    """One request after another, whose sender is used, misused, dropped and cancelled.

    The expected outcome is derived by hand from the rules: in default mode one response, final
    with or after it; in decoupled mode any number until FINAL.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.request: Any = None
        self.sender: Any = None
        self.stream: Any = None
        self.sent: list[float] = []
        self.is_closed = self.is_cancelled = False

    @initialize(execution=st.sampled_from(["inline", "thread"]), is_decoupled=st.booleans())
    def start(self, execution: str, is_decoupled: bool) -> None:
        repository = RepositoryBuilder(Path(self.folder.name))
        self.script = Script()
        self.script.write(repository, "m", DECOUPLED * is_decoupled)
        self.is_decoupled = is_decoupled
        self.tensors = live_tensor_count()
        self.server = ptl.Server(repository.models, execution=execution).start()
        self.model = self.server["m"]

    @precondition(lambda self: self.stream is None)
    @rule(keeps=st.sampled_from(["request", "sender", "both"]))
    def open(self, keeps: str) -> None:
        entered = threading.Event()

        def execute(requests: list) -> None:
            if keeps != "sender":
                self.request = requests[0]
            if keeps != "request":
                self.sender = requests[0].get_response_sender()
            entered.set()

        self.script.execute = execute
        self.stream = self.model.stream({"IN": X}, timeout_s=20)
        assert entered.wait(20)
        self.sent = []
        self.is_closed = self.is_cancelled = False

    @precondition(lambda self: self.stream is not None and (self.sender or self.request))
    @rule(has_response=st.booleans(), flags=st.sampled_from([0, FINAL, 2]), in_thread=st.booleans())
    def send(self, has_response: bool, flags: int, in_thread: bool) -> None:
        if self.sender is None:
            self.sender = self.request.get_response_sender()
        caught: list[str] = []

        def work() -> None:
            try:
                self.sender.send(response(len(self.sent)) if has_response else None, flags)
            except pb_utils.TritonModelException as error:
                caught.append(str(error))

        if in_thread:
            start_thread(work).join(20)
        else:
            work()
        fault = self._fault(has_response, flags)
        assert [fault in text for text in caught] == [True] * bool(fault)
        if not fault:
            if has_response:
                self.sent.append(float(len(self.sent)))
            self.is_closed = flags == FINAL

    def _fault(self, has_response: bool, flags: int) -> str:
        if flags == 2:
            return "Unsupported flag"
        if not has_response and not flags:
            return "must be provided"
        if not self.is_decoupled:
            if has_response and self.sent:
                return "more than one response"
            if not has_response and not self.sent:
                return "complete final before"
        return "has been closed" if self.is_closed else ""

    @precondition(lambda self: self.stream is not None and not self.is_cancelled)
    @rule()
    def cancel(self) -> None:
        self.stream.cancel()
        self.is_cancelled = not self.is_closed
        if self.is_closed:
            self.stream = self.request = self.sender = None

    @precondition(lambda self: self.stream is not None)
    @rule()
    def drop(self) -> None:
        self.request = self.sender = None
        got, error = [], None
        try:
            got.extend(float(r["OUT"][0]) for r in self.stream)
        except ptl.InternalError as caught:
            error = str(caught)
        assert list(self.stream) == []
        self.stream = None
        if self.is_cancelled:
            assert (got, error) == ([], None)
        elif self.is_closed:
            assert (got, error) == (self.sent, None)
        else:
            assert error is not None
            assert "real Triton would leave the client waiting for ever." in error

    @invariant()
    def cancelled_is_seen(self) -> None:
        if self.sender is not None and self.stream is not None:
            assert self.sender.is_cancelled() == self.is_cancelled

    def teardown(self) -> None:
        self.request = self.sender = self.stream = None
        if hasattr(self, "server"):
            self.script.execute = lambda requests: (
                requests[0].get_response_sender().send(response(7), FINAL)
            )
            assert self.model({"IN": X}, timeout_s=20)["OUT"].tolist() == [7]
            self.server.stop()
        gc.collect()
        self.folder.cleanup()
        if hasattr(self, "server"):
            assert live_tensor_count() <= self.tensors


@pytest.mark.stress
def test_any_sequence_of_uses() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    with hard_limit(100):
        run_state_machine_as_test(
            SenderMachine,
            settings=settings(
                max_examples=60, stateful_step_count=20, deadline=None,
                suppress_health_check=list(HealthCheck), derandomize=True,
            ),
        )  # fmt: skip


# -- several threads at once -----------------------------------------------------------


def random_use(seed: int, request: Any, sender: Any) -> None:
    """One thread's random steps; what it raises is the model's own affair."""
    choose = random.Random(seed)
    for n in range(choose.randrange(6)):
        step = choose.randrange(8)
        try:
            if step < 3:
                sender.send(response(seed, n))
            elif step == 3:
                sender.send(response(seed, n), FINAL)
            elif step == 4:
                sender.send(flags=FINAL)
            elif step == 5:
                sender.send(error_response(f"{seed}"))
            elif step == 6:
                sender = request.get_response_sender()
                sender.is_cancelled()
            else:
                time.sleep(choose.random() * 0.002)
        except pb_utils.TritonModelException:
            pass


def random_execute(seed: int) -> Callable[[list], Any]:
    def execute(requests: list) -> Any:
        choose = random.Random(seed)
        request = requests[0]
        sender = request.get_response_sender()
        for n in range(choose.randrange(4)):
            start_thread(random_use, seed * 10 + n, request, sender)
        if choose.randrange(2):
            random_use(seed * 10 + 9, request, sender)
        end = choose.randrange(5)
        if end == 0:
            raise ValueError("as drawn")
        if end == 1:
            return [response(seed)]
        if end == 2:
            return "rubbish"
        return [None] if end == 3 else None

    return execute


@pytest.mark.stress
@pytest.mark.parametrize("mode", ["default", "decoupled"])
def test_random_schedules(
    repository: RepositoryBuilder, serve: Serve, execution: str, mode: str
) -> None:
    script = Script()
    script.write(repository, "m", DECOUPLED * (mode == "decoupled"))
    model = serve(execution=execution, stream_backlog=2)["m"]
    gc.collect()
    threads, tensors = threading.active_count(), live_tensor_count()
    with hard_limit(60):
        for seed in range(300):
            choose = random.Random(seed)
            script.execute = random_execute(seed)
            form = choose.randrange(4)
            try:
                if form == 0:
                    model({"IN": X}, timeout_s=20)
                elif form == 1:
                    model.submit({"IN": X}).result(20)
                else:
                    check_stream(model.stream({"IN": X}, timeout_s=20), mode, choose, form)
            except ptl.RequestTimeoutError:
                raise
            except ptl.TritonError:
                pass  # that is an answer, too
        script.execute = lambda requests: requests[0].get_response_sender().send(response(7), FINAL)
        assert model({"IN": X}, timeout_s=20)["OUT"].tolist() == [7]
        while threading.active_count() > threads or live_tensor_count() > tensors:
            gc.collect()
            time.sleep(0.001)


def check_stream(stream: Any, mode: str, choose: random.Random, form: int) -> None:
    """Read a stream, perhaps not to its end: in order per thread, and nothing after a final."""
    limit = choose.randrange(4) if form == 3 else 1_000
    last: dict[float, float] = {}
    finals = count = 0
    while count < limit:
        try:
            answer = next(stream)
        except StopIteration:
            break
        except ptl.RequestTimeoutError:
            raise
        except ptl.TritonError:
            count += 1
            continue
        count += 1
        assert not finals
        finals += answer.final
        sent_by, number = (*answer["OUT"].tolist(), 0)[:2]
        assert number >= last.get(sent_by, 0)
        last[sent_by] = number
    if mode == "default":
        assert count <= 1
