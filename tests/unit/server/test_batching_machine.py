"""Random arrivals, cancellations, failures and deaths at a model with dynamic batching.

Whatever comes in whatever order: no request is lost or run twice, no batch is too large or mixes
what must not be mixed, requests of one priority begin in the order of their arrival, and with
`preserve_ordering` their answers leave in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder

MOST = 8
ANSWER, ERROR, EXCEPTION, DEATH = range(4)
SHORT_US = 500

# A request's first number is its kind; the second is its own number. Each execution is a line of
# the log: the process and, for each request, its number and shape.
MODEL = """
import json
import os

import triton_python_backend_utils as pb_utils

LOG = os.open({log!r}, os.O_WRONLY | os.O_APPEND)


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "IN").as_numpy() for r in requests]
        batch = [[int(x[0, 1]), *x.shape] for x in arrays]
        os.write(LOG, (json.dumps([os.getpid(), batch]) + "\\n").encode())
        if any(x[0, 0] == 3 for x in arrays):
            os._exit(1)
        if any(x[0, 0] == 2 for x in arrays):
            raise ValueError("broken")
        return [
            pb_utils.InferenceResponse([], pb_utils.TritonError("refused")) if x[0, 0] == 1
            else pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x)])
            for x in arrays
        ]

    def finalize(self):
        os.close(LOG)
"""

CONFIG = """
backend: "python"
max_batch_size: {most}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ count: {setup.count} kind: KIND_CPU }} ]
dynamic_batching {{
  preferred_batch_size: [ {setup.preferred} ]
  max_queue_delay_microseconds: {setup.delay_us}
  preserve_ordering: {ordered}
  {levels}
  default_queue_policy {{
    max_queue_size: 20
    timeout_action: {setup.timeout_action}
    allow_timeout_override: true
  }}
}}
"""


LEVELS = "priority_levels: {setup.levels} default_priority_level: {setup.default_level}"


@dataclass(frozen=True)
class Setup:
    execution: str
    count: int
    preferred: int
    delay_us: int
    is_ordered: bool
    timeout_action: str

    @property
    def levels(self) -> int:
        return 1 if self.is_ordered else 3  # an ordered model has no others

    @property
    def default_level(self) -> int:
        return (self.levels + 1) // 2


def setups(*executions: str) -> st.SearchStrategy[Setup]:
    return st.builds(
        Setup,
        execution=st.sampled_from(executions),
        count=st.integers(1, 3),
        preferred=st.sampled_from([MOST, 2, 3]),
        delay_us=st.sampled_from([0, 300]),
        is_ordered=st.booleans(),
        timeout_action=st.sampled_from(["REJECT", "DELAY"]),
    )


@dataclass(frozen=True)
class Request:
    """What was asked for; its number is its place in the list of all."""

    kind: int
    rows: int
    width: int
    level: int = 0  # 0: the default one
    timeout_us: int = 0
    is_submitted: bool = True  # else a thread of its own calls


class BatchingMachine(RuleBasedStateMachine):
    @initialize(setup=setups("inline", "thread"))
    def begin(self, setup: Setup) -> None:
        self.setup = setup
        self.stack = contextlib.ExitStack()
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.log = root / "log"
        self.log.touch()
        repository = RepositoryBuilder(root)
        config = CONFIG.format(
            most=MOST,
            setup=setup,
            ordered=str(setup.is_ordered).lower(),
            levels=LEVELS.format(setup=setup) if setup.levels > 1 else "",
        )
        repository.model("m", MODEL.format(log=str(self.log)), config=config)
        server = ptl.Server(repository.models, execution=setup.execution)
        self.model = self.stack.enter_context(server)["m"]
        self.holds: list[Any] = []
        self.requests: list[Request] = []
        self.futures: list[Future[Any]] = []
        self.done: list[int] = []
        self.cancelled: set[int] = set()
        self.threads: list[threading.Thread] = []
        self.deaths = 0

    def inputs_of(self, request: Request) -> dict[str, Any]:
        x = np.zeros((request.rows, request.width), np.float32)
        x[:, 0], x[:, 1] = request.kind, len(self.requests)
        self.requests.append(request)
        return {"IN": x}

    @rule(
        request=st.builds(
            Request,
            kind=st.sampled_from([ANSWER] * 4 + [ERROR, EXCEPTION]),
            rows=st.integers(1, MOST),
            width=st.sampled_from([2, 2, 3]),
            level=st.integers(0, 3),
            timeout_us=st.sampled_from([0, 0, SHORT_US, 10_000_000]),
        ),
        count=st.integers(1, 4),
    )
    def submit(self, request: Request, count: int) -> None:
        for _ in range(count):
            self.submit_one(replace(request, level=min(request.level, self.setup.levels)))

    def submit_one(self, request: Request) -> None:
        number = len(self.requests)
        future = self.model.submit(
            self.inputs_of(request), priority=request.level, timeout=request.timeout_us
        )
        self.futures.append(future)
        future.add_done_callback(lambda _: self.done.append(number))

    @rule(width=st.sampled_from([2, 3]))
    def call(self, width: int) -> None:
        number = len(self.requests)
        inputs = self.inputs_of(Request(ANSWER, 1, width, is_submitted=False))
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # so that it cannot be cancelled
        self.futures.append(future)

        def run() -> None:
            try:
                future.set_result(self.model.run(inputs))
            except Exception as error:
                future.set_exception(error)

        self.threads.append(threading.Thread(target=run, name=f"call {number}"))
        self.threads[-1].start()

    @precondition(lambda self: len(self.holds) < 2)
    @rule()
    def hold(self) -> None:
        hold = self.model.hold_queue()
        hold.__enter__()
        self.holds.append(hold)

    @precondition(lambda self: self.holds)
    @rule()
    def release(self) -> None:
        self.holds.pop().__exit__(None, None, None)

    @precondition(lambda self: self.futures)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        number = data.draw(st.integers(0, len(self.futures) - 1))
        if self.futures[number].cancel():
            self.cancelled.add(number)

    @precondition(lambda self: not self.holds)
    @rule()
    def wait(self) -> None:
        assert not wait(self.futures, 20).not_done

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        with self.stack:
            while self.holds:
                self.release()
            for thread in self.threads:
                thread.join(20)
            self.wait()
            self.batches = [batch for _, batch in self.executions()]
        self.check_batches()
        self.check_outcomes()
        self.check_order()

    # -- what must hold ----------------------------------------------------------------

    def executions(self) -> list[tuple[int, list[list[int]]]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [tuple(json.loads(line)) for line in lines]

    def check_batches(self) -> None:
        self.begun = [number for batch in self.batches for number, _, _ in batch]
        assert len(self.begun) == len(set(self.begun))
        for batch in self.batches:
            assert sum(rows for _, rows, _ in batch) <= MOST
            assert len({width for _, _, width in batch}) == 1
            for number, rows, width in batch:
                request = self.requests[number]
                assert (rows, width) == (request.rows, request.width)

    def in_batches_with(self, kind: int) -> set[int]:
        """Numbers of requests that ran together with one of that kind."""
        found: set[int] = set()
        for batch in self.batches:
            numbers = {number for number, _, _ in batch}
            if any(self.requests[number].kind == kind for number in numbers):
                found |= numbers
        return found

    def check_outcomes(self) -> None:
        self.refused: set[int] = set()
        dead, broken = self.in_batches_with(DEATH), self.in_batches_with(EXCEPTION)
        killed = 0
        for number, request in enumerate(self.requests):
            if number in self.cancelled:
                continue
            error = self.futures[number].exception()
            if number not in self.begun and not self.is_killed(error):
                self.refused.add(number)
                if "Request timeout expired" in str(error):
                    assert request.timeout_us == SHORT_US
                    assert self.setup.timeout_action == "REJECT"
                else:
                    assert isinstance(error, ptl.UnavailableError)
                    assert "Exceeds maximum queue size" in str(error)
            elif number in dead:
                assert self.is_killed(error)
            elif self.is_killed(error):
                killed += 1
            elif number in broken:
                assert "ValueError: broken" in str(error)
            elif request.kind == ERROR:
                assert str(error) == "refused"
            else:
                out = self.futures[number].result()["OUT"]
                assert out.shape == (request.rows, request.width)
                assert (out[:, 1] == number).all()
        assert killed <= self.deaths * MOST

    @staticmethod
    def is_killed(error: BaseException | None) -> bool:
        return isinstance(error, ptl.UnavailableError) and "the process of instance" in str(error)

    def check_order(self) -> None:
        for level in range(1, self.setup.levels + 1):
            if self.setup.count == 1:
                begun = [number for number in self.begun if self.keeps_its_place(number, level)]
                assert begun == sorted(begun)
            if self.setup.is_ordered:
                done = [number for number in self.done if self.keeps_its_place(number, level)]
                assert done == sorted(done)

    def keeps_its_place(self, number: int, level: int) -> bool:
        """Whether the order of a request among those of its level is that of arrival."""
        request = self.requests[number]
        return (
            (request.level or self.setup.default_level) == level
            and request.is_submitted
            and number not in self.cancelled
            and number not in self.refused
            and not (self.setup.timeout_action == "DELAY" and request.timeout_us == SHORT_US)
        )


class DyingMachine(BatchingMachine):
    @initialize(setup=setups("process"))
    def begin(self, setup: Setup) -> None:
        super().begin(setup)

    # Few of them: each makes the next restart take longer.

    @precondition(lambda self: self.deaths < 3)
    @rule(width=st.sampled_from([2, 3]))
    def die(self, width: int) -> None:
        self.deaths += 1
        self.submit_one(Request(DEATH, 1, width))

    @precondition(lambda self: self.deaths < 3)
    @rule()
    def kill(self) -> None:
        self.deaths += 1
        pids = [pid for pid, _ in self.executions()]
        with contextlib.suppress(IndexError, ProcessLookupError):  # none yet; dead already
            os.kill(pids[-1], signal.SIGKILL)


TestBatching = BatchingMachine.TestCase
TestBatching.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestDeaths = DyingMachine.TestCase
TestDeaths.settings = settings(TestBatching.settings, max_examples=12)
