"""One `execute` for several requests: who gets which answer, in which words.

Tests whose name ends in `on_triton` have their expectations from Triton 2.51, asked with the same
model and two requests in one batch; those whose requests Triton never answers say what we do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.batches import (
    CONFIG,
    DECOUPLED,
    ITERATIVE,
    MODEL,
    Slots,
    contract_of,
    inputs,
    run_batch,
)  # fmt: skip
from tests.support.repository import RepositoryBuilder

Serve = Callable[..., ptl.Server]


@pytest.fixture(params=["inline", "thread", "process"])
def execution(request: pytest.FixtureRequest) -> str:
    """Each home of an instance in turn."""
    return str(request.param)


@pytest.fixture
def config() -> str:
    """What the configuration has beyond `CONFIG`."""
    return ""


@pytest.fixture
def model(repository: RepositoryBuilder, serve: Serve, execution: str, config: str) -> ptl.Model:
    repository.model("m", MODEL, config=CONFIG + config)
    return serve(execution=execution)["m"]


def batch(model: ptl.Model, what: str, count: int = 2, **fields: Any) -> list[Any]:
    """Answers of a batch of requests with the values 1, 2, ...: values or texts of errors."""
    requests = [inputs(what, i + 1) for i in range(count)]
    return [plain(outcome) for outcome in run_batch(model, requests, **fields)]


def plain(outcome: Any) -> Any:
    if isinstance(outcome, BaseException):
        return str(outcome)
    return outcome if isinstance(outcome, str) else outcome["OUT"].ravel().tolist()


FAILED = "Failed to process the request(s) for model 'm_0', message: "
COUNTS = (
    "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
    "InferenceRequest(s) size is:2, and InferenceResponse(s) size is:{}\n"
)
ELEMENT = "Expected an '{}' object in the execute function return list, found type '<class 'str'>'."
ON_TRITON = {
    "fine": ([2.0], [4.0]),
    "count": ([2.0], [2.0]),
    "subclass": ([2.0], [4.0]),
    "one_error": ([2.0], "bad one"),
    "raises": (FAILED + "ValueError: boom",) * 2,
    "exits": (FAILED + "SystemExit: 3",) * 2,
    "short": (FAILED + COUNTS.format(1),) * 2,
    "long": (FAILED + COUNTS.format(4),) * 2,
    "empty": (FAILED + COUNTS.format(0),) * 2,
    "a_tuple": (
        FAILED + "Expected a list in the execute return, found type '<class 'tuple'>'.",
    ) * 2,
    "wrong_last": (FAILED + ELEMENT.format("InferenceResponse"),) * 2,
    "wrong_first": (FAILED + ELEMENT.format("InferenceResponse"),) * 2,
    "sender_last": ([2.0], [2.0]),
    "senders_later": ([1.0], [2.0]),
    "sent_and_returned": (
        [1.0],
        FAILED
        + "Unable to send response. Non-decoupled model cannot send more than one response.",
    ),
    "same_response": ([7.0], [7.0]),
    "same_tensor": ([7.0], [7.0]),
    "same_array": ([7.0], [7.0]),
    "swapped": ([2.0], [1.0]),
    "coroutine": ([2.0], [4.0]),
    "coroutine_raises": (FAILED + "ValueError: boom",) * 2,
    "again_and_reply": (
        FAILED
        + "Expected a None object in the execute function return list for reschduled request, "
        "found type '<class 'c_python_backend_utils.InferenceResponse'>'.",
    ) * 2,
}  # fmt: skip


def without_frames(outcome: Any) -> Any:
    """The text of an error up to "At:"; below it are frames, whose files a recording has not."""
    return outcome.split("\n\nAt:")[0] if isinstance(outcome, str) else outcome


def test_answers_of_two_requests_on_triton(model: ptl.Model):
    found = {what: tuple(map(without_frames, batch(model, what))) for what in ON_TRITON}
    assert found == ON_TRITON
    assert batch(model, "fine", 3) == [[2.0], [4.0], [6.0]]


NO_ANSWER = (
    FAILED + "execute returned None in place of a response, but no response sender was taken "
    "that could answer the request; real Triton would leave the client waiting for ever."
)


UNLIKE_TRITON = {
    # Triton never answers these requests,
    "none": (NO_ANSWER, NO_ANSWER),
    "all_none": (NO_ANSWER, NO_ANSWER),
    "one_none": ([2.0], NO_ANSWER),
    "again_last": (
        [2.0],
        FAILED + "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the "
        "model is not configured to handle such a flag.",
    ),
    # and dies of these.
    "popped": ([2.0], [4.0]),
    "sent_then_raises": ([1.0], FAILED + "ValueError: late"),
    "sent_then_short": ([1.0], FAILED + COUNTS.format(0)),
    # The first one gets two answers from Triton.
    "open_then_raises": (FAILED + "ValueError: late",) * 2,
}


def test_answers_where_triton_hangs_or_dies(model: ptl.Model):
    found = {what: tuple(map(without_frames, batch(model, what))) for what in UNLIKE_TRITON}
    assert found == UNLIKE_TRITON
    assert batch(model, "fine") == [[2.0], [4.0]]


def test_each_request_gets_an_exception_object_of_its_own(model: ptl.Model):
    first, second = run_batch(model, [inputs("raises", 1), inputs("raises", 2)], request_id="r")
    assert first is not second
    assert str(first) == str(second)
    assert isinstance(first, ptl.InternalError)
    assert (first.request_id, second.request_id) == ("r", "r")
    assert type(first.__cause__) is ValueError
    assert str(second.__cause__) == "boom"


def test_answers_are_apart(model: ptl.Model):
    for what in ("same_response", "same_tensor", "same_array", "views"):
        first, second = run_batch(model, [inputs(what, 1), inputs(what, 2)])
        before = second["OUT"].tolist()
        assert not np.shares_memory(first["OUT"], second["OUT"])
        first["OUT"][...] = -1
        assert second["OUT"].tolist() == before


def test_a_model_that_keeps_its_requests_keeps_their_values(model: ptl.Model):
    given = [inputs("keeps", 1), inputs("keeps", 2)]
    assert [plain(x) for x in run_batch(model, given)] == [[2.0], [4.0]]
    for request in given:  # the caller may use its arrays anew
        request["IN"][...] = -5
    assert batch(model, "kept_values") == [[1.0], [2.0]]


def test_requested_outputs_are_each_requests_own(model: ptl.Model):
    outcomes = run_batch(model, [inputs("fine", 1), inputs("fine", 2)], outputs=["OUT"])
    assert [list(x.outputs) for x in outcomes] == [["OUT"], ["OUT"]]


def test_a_batch_of_too_many_rows_is_refused(model: ptl.Model):
    rows = {
        "WHAT": np.array([["fine"]] * 5, dtype=np.object_),
        "IN": np.float32([[1], [2], [3], [4], [5]]),
    }
    found = [str(x) for x in run_batch(model, [rows, rows])]
    assert found == [FAILED + "batch size 10 for 'm_0', max allowed is 8"] * 2
    assert batch(model, "count", 8) == [[8.0]] * 8


class TestIterative:
    """Models that may take requests again."""

    @pytest.fixture
    def config(self) -> str:
        return ITERATIVE

    def test_one_of_a_batch_is_rescheduled(self, model: ptl.Model):
        slots = Slots(model, [inputs("again_last", 1), inputs("again_last", 2)])
        contract = contract_of(model)
        again = contract.run_slots(slots.slots)
        assert again == [slots.slots[1]]
        assert contract.run_slots(again) == []
        assert [plain(x) for x in slots.outcomes()] == [[2.0], [4.0]]

    def test_a_rescheduled_request_joins_new_ones(self, model: ptl.Model):
        first = Slots(model, [inputs("again_last", 1), inputs("again_last", 2)])
        contract = contract_of(model)
        again = contract.run_slots(first.slots)
        second = Slots(model, [inputs("count", 5)])
        assert contract.run_slots([*second.slots, *again]) == []
        assert [plain(x) for x in first.outcomes()] == [[2.0], [2.0]]
        assert [plain(x) for x in second.outcomes()] == [[2.0]]

    def test_a_reply_for_a_rescheduled_request(self, model: ptl.Model):
        assert batch(model, "again_and_reply") == list(ON_TRITON["again_and_reply"])


class TestDecoupled:
    """Models that answer by senders alone."""

    @pytest.fixture
    def config(self) -> str:
        return DECOUPLED

    @pytest.mark.parametrize("what", ["stream", "stream_later"])
    def test_each_request_has_its_sender(self, model: ptl.Model, what: str):
        assert batch(model, what, 3) == [[1.0], [2.0], [3.0]]

    def test_a_returned_list_fails_all(self, model: ptl.Model):
        text = (
            FAILED + "Python model 'm_0' is using the decoupled mode and the execute function must "
            "return None."
        )
        assert batch(model, "empty") == [text, text]

    @pytest.mark.parametrize(
        ("what", "text"), [("stream_then_raises", "late"), ("stream_raises", "boom")]
    )
    def test_an_exception_fails_what_is_open(self, model: ptl.Model, what: str, text: str):
        first, *others = batch(model, what, 3)
        assert first == [1.0]
        assert [without_frames(x) for x in others] == [f"{FAILED}ValueError: {text}"] * 2


def test_a_batch_of_many_requests(repository: RepositoryBuilder, serve: Serve, execution: str):
    # More than a stub has claims for.
    repository.model("m", MODEL, config=CONFIG.replace("max_batch_size: 8", "max_batch_size: 999"))
    model = serve(execution=execution)["m"]
    assert batch(model, "count", 300) == [[300.0]] * 300
    assert batch(model, "fine", 300) == [[2.0 * (i + 1)] for i in range(300)]


def test_a_request_that_was_given_up_is_left_out(model: ptl.Model):
    slots = Slots(model, [inputs("count", 1), inputs("count", 2), inputs("count", 3)])
    queue = model._endpoint.served.queue
    queue.cancel_softly(slots.slots[1])
    contract_of(model).run_slots(slots.slots)
    assert [plain(x) for x in slots.outcomes()] == [[2.0], "", [2.0]]


@pytest.mark.parametrize("execution", ["process"], indirect=True)
def test_a_process_that_dies_of_a_batch(model: ptl.Model):
    first, second = run_batch(model, [inputs("dies", 1), inputs("dies", 2)])
    assert first is not second
    for error in (first, second):
        assert type(error) is ptl.UnavailableError
        assert "m_0" in str(error)
    assert model(inputs("fine", 4))["OUT"].tolist() == [[8.0]]  # of a process that took its place
