"""Random arrivals, cancellations and failures at a model with dynamic batching.

Whatever comes in whatever order: no request is lost or run twice, no batch is too large or mixes
what must not be mixed, and with `preserve_ordering` the answers leave in the order of arrival.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder

MOST = 8

# A request's first number is what it gets: 0 answer, 1 error, 2 exception; the second is its id.
MODEL = """
import threading

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "IN").as_numpy() for r in requests]
        threading.batching_log.append([(int(x[0, 1]), *x.shape) for x in arrays])
        if any(x[0, 0] == 2 for x in arrays):
            raise ValueError("broken")
        return [
            pb_utils.InferenceResponse([], pb_utils.TritonError("refused")) if x[0, 0] == 1
            else pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x)])
            for x in arrays
        ]
"""

CONFIG = """
backend: "python"
max_batch_size: {most}
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ count: {count} kind: KIND_CPU }} ]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {delay}
  preserve_ordering: {ordered}
  default_queue_policy {{ max_queue_size: 20 }}
}}
"""


class BatchingMachine(RuleBasedStateMachine):
    @initialize(
        execution=st.sampled_from(["inline", "thread"]),
        count=st.integers(1, 3),
        preferred=st.sampled_from([MOST, 2, 3]),
        delay=st.sampled_from([0, 300]),
        is_ordered=st.booleans(),
    )
    def begin(
        self, execution: str, count: int, preferred: int, delay: int, is_ordered: bool
    ) -> None:
        self.stack = contextlib.ExitStack()
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        repository = RepositoryBuilder(root)
        config = CONFIG.format(
            most=MOST,
            count=count,
            preferred=preferred,
            delay=delay,
            ordered=str(is_ordered).lower(),
        )
        repository.model("m", MODEL, config=config)
        self.log: list[list[tuple[int, int, int]]] = []
        threading.batching_log = self.log  # type: ignore[attr-defined]
        server = ptl.Server(repository.models, execution=execution)
        self.model = self.stack.enter_context(server)["m"]
        self.is_ordered = is_ordered
        self.holds: list[Any] = []
        self.requests: list[tuple[int, int, int]] = []  # kind, rows, width
        self.futures: list[Future[Any]] = []
        self.done: list[int] = []
        self.cancelled: set[int] = set()
        self.threads: list[threading.Thread] = []

    def inputs(self, kind: int, rows: int, width: int) -> dict[str, Any]:
        x = np.zeros((rows, width), np.float32)
        x[:, 0], x[:, 1] = kind, len(self.requests)
        self.requests.append((kind, rows, width))
        return {"IN": x}

    @rule(
        kind=st.sampled_from([0, 0, 0, 0, 1, 2]),
        rows=st.integers(1, MOST),
        width=st.sampled_from([2, 2, 3]),
        count=st.integers(1, 4),
    )
    def submit(self, kind: int, rows: int, width: int, count: int) -> None:
        for _ in range(count):
            number = len(self.requests)
            future = self.model.submit(self.inputs(kind, rows, width))
            self.futures.append(future)
            future.add_done_callback(lambda _, number=number: self.done.append(number))

    @rule(width=st.sampled_from([2, 3]))
    def call(self, width: int) -> None:
        number = len(self.requests)
        inputs = self.inputs(0, 1, width)
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
        assert not wait(self.futures, 5).not_done

    def teardown(self) -> None:
        if not hasattr(self, "stack"):
            return
        with self.stack:
            while self.holds:
                self.release()
            for thread in self.threads:
                thread.join(20)
            self.wait()
        self.check()

    def check(self) -> None:
        run = [entry[0] for batch in self.log for entry in batch]
        assert len(run) == len(set(run))
        for batch in self.log:
            assert sum(rows for _, rows, _ in batch) <= MOST
            assert len({width for _, _, width in batch}) == 1
        broken = {n for b in self.log if any(self.requests[e[0]][0] == 2 for e in b) for n, *_ in b}
        for number, (kind, rows, width) in enumerate(self.requests):
            if number in self.cancelled:
                continue
            error = self.futures[number].exception()
            if isinstance(error, ptl.UnavailableError):
                assert "Exceeds maximum queue size" in str(error)
                assert number not in run
                self.cancelled.add(number)
                continue
            assert number in run
            if number in broken:
                assert "ValueError: broken" in str(error)
            elif kind == 1:
                assert str(error) == "refused"
            else:
                out = self.futures[number].result()["OUT"]
                assert out.shape == (rows, width)
                assert (out[:, 1] == number).all()
        if self.is_ordered:
            done = [number for number in self.done if number not in self.cancelled]
            assert done == sorted(done)


TestBatching = BatchingMachine.TestCase
TestBatching.settings = settings(
    max_examples=30,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
