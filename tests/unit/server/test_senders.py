"""Response senders in default mode: who answers, when, and what comes of misuse.

Texts and sequences of the checks are those of section 4.5 of Triton's contract, observed on
2.51, unless a comment says otherwise.
"""

from __future__ import annotations

import asyncio
import gc
import logging
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
    pb_utils,
    response,
    start_thread,
    there,
    value_of,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("time_limit", "in_stubs")

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])
PREFIX = "Failed to process the request(s) for model 'm_0', message: "
UNANSWERED = "real Triton would leave the client waiting for ever."

CLOSED = "Unable to send response. Response sender has been closed."
TOO_MANY = "Unable to send response. Non-decoupled model cannot send more than one response."
FINAL_FIRST = (
    "Unable to send response. Non-decoupled model cannot send complete final before sending a "
    "response."
)
BAD_FLAG = "Unable to send response. Unsupported flag provided."
NO_RESPONSE = "Inference Response object must be provided when the response flags is set to zero."


@pytest.fixture(params=ALL)
def execution(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ask(model: ptl.Model, value: float = 1) -> list[float]:
    return model({"IN": np.float32([value])}, timeout_s=20)["OUT"].tolist()


# -- one response, one way -------------------------------------------------------------


def send_with_final(sender: Any) -> None:
    sender.send(response(3), FINAL)


def send_then_final(sender: Any) -> None:
    sender.send(response(3))
    sender.send(flags=FINAL)


def send_by_name(sender: Any) -> None:
    sender.send(response=response(3), flags=FINAL)


@pytest.mark.parametrize("send", [send_with_final, send_then_final, send_by_name])
@pytest.mark.parametrize("returned", [None, [None]])
@pytest.mark.parametrize("form", ["call", "run", "submit", "stream", "infer"])
def test_the_sender_answers(
    model: ptl.Model, script: Script, send: Callable, returned: Any, form: str
) -> None:
    def execute(requests: list) -> Any:
        send(requests[0].get_response_sender())
        return returned

    script.execute = execute
    if form == "call":
        assert ask(model) == [3]
        return
    if form == "run":
        answers = [model.run({"IN": X}, timeout_s=20, request_id="r")]
    elif form == "submit":
        answers = [model.submit({"IN": X}, request_id="r").result(20)]
    elif form == "stream":
        answers = list(model.stream({"IN": X}, timeout_s=20, request_id="r"))
    else:
        answers = list(model.infer(inputs={"IN": X}, request_id="r"))
    assert [(a["OUT"].tolist(), a.final, a.request_id) for a in answers] == [([3], True, "r")]


def test_the_sender_is_the_same_object_at_each_call(model: ptl.Model, script: Script) -> None:
    seen = []

    def execute(requests: list) -> None:
        seen.extend(requests[0].get_response_sender() for _ in range(2))
        seen[0].send(response(1), FINAL)
        seen.append(requests[0].get_response_sender())

    script.execute = execute
    assert ask(model) == [1]
    wait_for(lambda: len(seen) == 3)
    assert seen[0] is seen[1] is seen[2]


@not_inline
def test_answers_come_in_the_order_of_the_model(model: ptl.Model, script: Script) -> None:
    kept: list[Any] = []
    script.execute = kept.extend
    futures = [model.submit({"IN": np.float32([n])}) for n in range(5)]
    wait_for(lambda: len(kept) == 5)
    assert not any(future.done() for future in futures)
    for n in (3, 0, 4, 1, 2):
        request = kept[n]
        sender = request.get_response_sender()
        sender.send(response(10 * value_of(request)), FINAL)
        assert futures[n].result(20)["OUT"].tolist() == [10 * n]
        assert [f.done() for f in futures].count(True) == [3, 0, 4, 1, 2].index(n) + 1


@pytest.mark.parametrize("keeps", ["sender", "request"])
def test_answer_from_another_thread_after_execute(
    model: ptl.Model, script: Script, keeps: str
) -> None:
    threads = []

    def work(kept: Any, returned: threading.Event) -> None:
        returned.wait(20)
        time.sleep(0.01)
        sender = kept.get_response_sender() if keeps == "request" else kept
        sender.send(response(5))
        time.sleep(0.01)
        sender.send(flags=FINAL)

    def execute(requests: list) -> None:
        returned = threading.Event()
        kept = requests[0] if keeps == "request" else requests[0].get_response_sender()
        threads.append(start_thread(work, kept, returned))
        returned.set()

    script.execute = execute
    assert ask(model) == [5]
    assert model.submit({"IN": X}).result(20)["OUT"].tolist() == [5]
    for thread in threads:
        thread.join(20)


def test_inputs_that_are_kept_are_the_models_own(model: ptl.Model, script: Script) -> None:
    # Demand 1 of large backends: the caller may reuse its array, once it has its answer or has
    # given the request up.
    kept: list[Any] = []

    def execute(requests: list) -> None:
        kept.append(requests[0])
        kept.append(pb_utils.get_input_tensor_by_name(requests[0], "IN"))
        requests[0].get_response_sender().send(response(0), FINAL)

    script.execute = execute
    array = np.float32([1, 2, 3])
    model({"IN": array})
    array[:] = -1
    request, tensor = kept
    assert pb_utils.get_input_tensor_by_name(request, "IN") is tensor
    assert tensor.as_numpy().tolist() == [1, 2, 3]
    assert there(np.from_dlpack, tensor).tolist() == [1, 2, 3]
    del request
    kept.clear()
    gc.collect()
    assert tensor.as_numpy().tolist() == [1, 2, 3]


VIEWS: list[np.ndarray] = []


def keep_a_view(request: Any) -> None:
    VIEWS.append(pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[1:])


def told_views(_request: Any) -> list[list[float]]:
    told = [view.tolist() for view in VIEWS]
    VIEWS.clear()
    return told


def test_a_view_of_an_input_outlives_the_request(model: ptl.Model, script: Script) -> None:
    def execute(requests: list) -> None:
        there(keep_a_view, requests[0])
        requests[0].get_response_sender().send(response(0), FINAL)

    script.execute = execute
    for n in range(4):
        array = np.float32([n, n + 1])
        model({"IN": array})
        array[:] = -1
    told: list[Any] = []

    def tell(requests: list) -> Any:
        told.extend(there(told_views, requests[0]))
        return [response(0)]

    script.execute = tell
    ask(model)
    assert told == [[1], [2], [3], [4]]


# -- misuse ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "arguments", "text"),
    [
        ([], (None, 2), BAD_FLAG),
        ([], (response(1), 3), BAD_FLAG),
        ([], (), NO_RESPONSE),
        ([], (None, 0), NO_RESPONSE),
        ([], (None, FINAL), FINAL_FIRST),
        ([(0,)], (response(1),), TOO_MANY),
        ([(0,)], (response(1), FINAL), TOO_MANY),
        ([(FINAL,)], (response(1), FINAL), TOO_MANY),
        ([(FINAL,)], (None, FINAL), CLOSED),
        ([(FINAL,)], (), NO_RESPONSE),
        ([(FINAL,)], (response(1), 9), BAD_FLAG),
    ],
)
def test_misuse_raises_with_tritons_words(
    model: ptl.Model, script: Script, before: list, arguments: tuple, text: str
) -> None:
    caught = []

    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        for flags in before:
            sender.send(response(7), *flags)
        try:
            sender.send(*arguments)
        except pb_utils.TritonModelException as error:
            caught.append(str(error))
        # What was misused can still be used: rs_final_first_caught.
        if not before:
            sender.send(response(7))
        if (FINAL,) not in before:
            sender.send(flags=FINAL)

    script.execute = execute
    assert ask(model) == [7]
    wait_for(lambda: caught)
    assert caught == [text]


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [
        (("abc", 1), {}),
        ((None, -1), {}),
        ((None, "1"), {}),
        ((None, 1 << 32), {}),
        ((None, 1, 2), {}),
        ((), {"flag": 1}),
        ((pb_utils.TritonError("x"), 1), {}),
    ],
)
def test_arguments_of_another_kind(
    model: ptl.Model, script: Script, arguments: tuple, keywords: dict
) -> None:
    def execute(requests: list) -> None:
        requests[0].get_response_sender().send(*arguments, **keywords)

    script.execute = execute
    words = r"TypeError: send\(\): incompatible function arguments\."
    with pytest.raises(ptl.InternalError, match=words) as caught:
        ask(model)
    assert str(caught.value).startswith(PREFIX)
    assert type(caught.value.__cause__) is TypeError


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((None, FINAL), FINAL_FIRST), ((None, 2), BAD_FLAG), ((), NO_RESPONSE)],
)
def test_uncaught_misuse_is_the_answer(
    model: ptl.Model, script: Script, arguments: tuple, text: str
) -> None:
    def execute(requests: list) -> None:
        requests[0].get_response_sender().send(*arguments)

    script.execute = execute
    with pytest.raises(ptl.InternalError) as caught:
        ask(model)
    assert str(caught.value).splitlines()[0] == f"{PREFIX}TritonModelException: {text}"


def test_a_sender_cannot_be_made(model: ptl.Model) -> None:
    with pytest.raises(TypeError, match="No constructor defined!"):
        pb_utils.InferenceResponseSender()
    request = pb_utils.InferenceRequest(inputs=[], requested_output_names=[], model_name="m")
    with pytest.raises(pb_utils.TritonModelException, match="needs a request that execute rec"):
        request.get_response_sender()


# -- the first answer counts -----------------------------------------------------------


@pytest.mark.parametrize("what", ["raises", "sends", "returns", "returns rubbish"])
def test_after_final_everything_is_only_logged(
    model: ptl.Model, script: Script, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    def execute(requests: list) -> Any:
        sender = requests[0].get_response_sender()
        sender.send(response(4), FINAL)
        if what == "raises":
            raise ValueError("too late")
        if what == "sends":
            sender.send(flags=FINAL)
        return [response(5)] if what == "returns" else "rubbish" * (what == "returns rubbish")

    script.execute = execute
    with caplog.at_level(logging.ERROR, "pytriton_lite.instance"):
        assert ask(model) == [4]
        wait_for(lambda: caplog.records)
    words = {
        "raises": "ValueError: too late",
        "sends": CLOSED,
        "returns": "execute returned a response for a request that its sender has answered",
        "returns rubbish": "Expected a list in the execute return, found type '<class 'str'>'.",
    }
    text = caplog.records[0].getMessage()
    assert text.startswith("instance 'm_0', after the request was answered: ")
    assert words[what] in text
    assert ask(model) == [4]


def test_sending_and_returning_is_one_response_too_many(model: ptl.Model, script: Script) -> None:
    def execute(requests: list) -> Any:
        requests[0].get_response_sender().send(response(4))
        return [response(5)]

    script.execute = execute
    with pytest.raises(ptl.InternalError) as caught:
        ask(model)
    assert str(caught.value) == f"{PREFIX}expected a single response, got 2"


def test_an_exception_before_final_is_the_answer(model: ptl.Model, script: Script) -> None:
    # Ours: of the two documents of 2.51, a caller can only have one.
    def execute(requests: list) -> Any:
        requests[0].get_response_sender().send(response(4))
        raise ValueError("boom")

    script.execute = execute
    with pytest.raises(ptl.InternalError, match="ValueError: boom") as caught:
        ask(model)
    assert type(caught.value.__cause__) is ValueError


def test_a_returned_response_counts_although_a_sender_was_taken(
    model: ptl.Model, script: Script
) -> None:
    senders = []

    def execute(requests: list) -> Any:
        senders.append(requests[0].get_response_sender())
        return [response(6)]

    script.execute = execute
    assert ask(model) == [6]
    with pytest.raises(pb_utils.TritonModelException, match="has been closed"):
        senders[0].send(response(7), FINAL)


def test_an_error_response_is_an_answer(model: ptl.Model, script: Script) -> None:
    def execute(requests: list) -> None:
        answer = error_response("sent error", pb_utils.TritonError.UNAVAILABLE)
        requests[0].get_response_sender().send(answer, FINAL)

    script.execute = execute
    with pytest.raises(ptl.UnavailableError, match=r"^sent error$"):
        ask(model)


# -- nobody hangs ----------------------------------------------------------------------


def drops_all(requests: list) -> None:
    requests[0].get_response_sender()


def sends_without_final(requests: list) -> None:
    requests[0].get_response_sender().send(response(1))


def drops_in_a_thread(requests: list) -> None:
    kept = [requests[0], requests[0].get_response_sender()]
    start_thread(lambda: (time.sleep(0.02), kept.clear()))


def drops_a_kept_request(requests: list) -> None:
    kept = [requests[0]]
    start_thread(lambda: (time.sleep(0.02), kept.clear()))


def drops_a_cycle(requests: list) -> None:
    ring: list[Any] = [requests[0].get_response_sender()]
    ring.append(ring)
    start_thread(lambda: (time.sleep(0.02), gc.collect()))


NEITHER = "answered neither by a returned response nor by its response sender, and dropped"


@pytest.mark.parametrize(
    ("execute", "words"),
    [
        (lambda requests: None, "execute returned None in place of a response, but no response"),
        (lambda requests: [None], "execute returned None in place of a response, but no resp"),
        (drops_all, NEITHER),
        (drops_in_a_thread, NEITHER),
        (drops_a_kept_request, NEITHER),
        (drops_a_cycle, NEITHER),
        (sends_without_final, "sent its response without the FINAL flag, and dropped the respons"),
    ],
)
def test_who_drops_the_sender_answers_with_an_error(
    model: ptl.Model, script: Script, execute: Callable, words: str
) -> None:
    script.execute = execute
    with pytest.raises(ptl.InternalError) as caught:
        model.run({"IN": X}, request_id="lost", timeout_s=20)
    assert str(caught.value).startswith(PREFIX + words)
    assert str(caught.value).endswith(UNANSWERED)
    assert (caught.value.model, caught.value.request_id) == ("m", "lost")
    script.execute = lambda requests: [response(1)]
    assert ask(model) == [1]


def test_is_cancelled_and_the_wait_is_over(model: ptl.Model, script: Script) -> None:
    kept: list[Any] = []

    def execute(requests: list) -> None:
        kept.extend([requests[0], requests[0].get_response_sender()])
        assert not kept[0].is_cancelled()
        assert not kept[1].is_cancelled()

    script.execute = execute
    with pytest.raises(ptl.RequestTimeoutError):
        model({"IN": X}, timeout_s=0.5)  # enough for execute to have begun
    request, sender = kept
    wait_for(request.is_cancelled)  # a stub hears of it a moment later
    assert sender.is_cancelled()
    sender.send(response(1))  # dropped
    with pytest.raises(pb_utils.TritonModelException, match="cannot send more than one"):
        sender.send(response(1))
    sender.send(flags=FINAL)
    with pytest.raises(pb_utils.TritonModelException, match="has been closed"):
        sender.send(flags=FINAL)
    with pytest.raises(TypeError, match=r"is_cancelled\(\): incompatible function arguments"):
        sender.is_cancelled(1)


# -- the end of the server -------------------------------------------------------------


def test_unload_waits_for_the_answers_then_finalizes(
    serve: Serve, script: Script, execution: str
) -> None:
    # Demand 16 of large backends.
    server = serve(execution=execution, model_control_mode="explicit", startup_models=["m"])
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    futures = [server["m"].submit({"IN": X}) for _ in range(3)]
    wait_for(lambda: len(kept) == 3)
    # An inline model is finalized on the thread that unloads it, so unload() waits there.
    unloading = start_thread(server.unload, "m")
    for number, sender in enumerate(kept):
        time.sleep(0.02)
        assert "finalize" not in script.log
        sender.send(response(number))
        script.log.append(number)
        sender.send(flags=FINAL)
    assert [f.result(20)["OUT"].tolist() for f in futures] == [[0], [1], [2]]
    wait_for(lambda: server.index()[0].state.value == "UNAVAILABLE")
    unloading.join(20)
    assert script.log == ["initialize", 0, 1, 2, "finalize"]
    if execution != "process":  # whose end is the end of all that it had
        with pytest.raises(pb_utils.TritonModelException, match="has been closed"):
            kept[0].send(flags=FINAL)


def test_stop_does_not_wait_for_ever(serve: Serve, script: Script, execution: str) -> None:
    server = serve(execution=execution, exit_timeout=0.1)
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    future = server["m"].submit({"IN": X})
    wait_for(lambda: kept)
    begin = time.monotonic()
    server.stop()
    assert 0.1 <= time.monotonic() - begin < 10
    assert script.log == ["initialize", "finalize"]
    with pytest.raises(ptl.UnavailableError) as caught:
        future.result(20)
    assert str(caught.value) == "model 'm' was stopped and did not answer within 0.1 s"
    # The sender outlives the server, and nothing that it does matters.
    if execution != "process":
        assert kept[0].is_cancelled()
        kept[0].send(response(1), FINAL)
    kept.clear()


@in_process("the sender ends with its process")
def test_a_dropped_sender_after_the_end_is_harmless(
    serve: Serve, script: Script, execution: str
) -> None:
    server = serve(execution=execution, exit_timeout=0.05)
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0])
    future = server["m"].submit({"IN": X})
    wait_for(lambda: kept)
    server.stop()
    with pytest.raises(ptl.UnavailableError):
        future.result(20)
    assert value_of(kept[0]) == 1
    sender = kept[0].get_response_sender()
    kept.clear()
    gc.collect()
    assert sender.is_cancelled()


def test_an_answer_within_the_exit_timeout_arrives(
    serve: Serve, script: Script, execution: str
) -> None:
    server = serve(execution=execution)
    kept: list[Any] = []
    script.execute = lambda requests: kept.append(requests[0].get_response_sender())
    future = server["m"].submit({"IN": X})
    wait_for(lambda: kept)
    timer = threading.Timer(0.05, kept[0].send, (response(8), FINAL))
    timer.start()
    server.stop()
    assert future.result(20)["OUT"].tolist() == [8]
    timer.join()
    assert script.log == ["initialize", "finalize"]


# -- many threads ----------------------------------------------------------------------


def test_of_32_threads_that_send_one_answers(model: ptl.Model, script: Script) -> None:
    failures: list[str] = []
    threads: list[threading.Thread] = []

    def work(sender: Any, barrier: threading.Barrier, number: int) -> None:
        barrier.wait(20)
        sender.is_cancelled()
        try:
            sender.send(response(number), FINAL)
        except pb_utils.TritonModelException as error:
            failures.append(str(error))

    def execute(requests: list) -> None:
        barrier = threading.Barrier(32)
        sender = requests[0].get_response_sender()
        threads.extend(start_thread(work, sender, barrier, n) for n in range(32))

    script.execute = execute
    for turn in range(10):
        (answer,) = ask(model)
        assert answer in range(32)
        for thread in threads:
            thread.join(20)
        threads.clear()
        assert failures == [TOO_MANY] * 31 * (turn + 1)


# -- what is sent ----------------------------------------------------------------------


def send_and_use_again(request: Any) -> None:
    buffer = np.float32([1, 2])
    sender = request.get_response_sender()
    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", buffer)]))
    buffer[:] = 9
    sender.send(flags=FINAL)


def test_what_is_sent_is_copied(model: ptl.Model, script: Script) -> None:
    script.execute = lambda requests: there(send_and_use_again, requests[0])
    assert model({"IN": X})["OUT"].tolist() == [1, 2]


@in_process("no array of the caller's is the model's own; see test_large_tensors.py")
def test_share_memory_hands_over_the_models_array(
    serve: Serve, script: Script, execution: str
) -> None:
    model = serve(execution=execution, share_memory=True)["m"]
    seen = []
    buffer = np.float32([1, 2])

    def execute(requests: list) -> None:
        seen.append(pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy())
        answer = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", buffer)])
        requests[0].get_response_sender().send(answer, FINAL)

    script.execute = execute
    array = np.float32([5, 6])
    assert model({"IN": array})["OUT"] is buffer
    assert seen[0] is array


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (lambda: pb_utils.Tensor("OUT", np.array(3.5, np.float32)), np.array(3.5, np.float32)),
        (lambda: pb_utils.Tensor("OUT", np.zeros((0, 2), np.int8)), np.zeros((0, 2), np.int8)),
        (
            lambda: pb_utils.Tensor("OUT", np.array([b"a\0", "ä", 1], np.object_)),
            np.array([b"a\0", "ä".encode(), b"1"], np.object_),
        ),
        (lambda: pb_utils.Tensor("OUT", np.array(b"x", np.object_)), np.array(b"x", np.object_)),
    ],
)
def test_tensors_of_any_kind(
    model: ptl.Model, script: Script, tensor: Callable, expected: np.ndarray
) -> None:
    # Demand 4: a 0-d array stays one, whatever the config says.
    def execute(requests: list) -> None:
        answer = pb_utils.InferenceResponse([tensor()])
        requests[0].get_response_sender().send(answer, FINAL)

    script.execute = execute
    answer = model({"IN": X})["OUT"]
    assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
    assert answer.tolist() == expected.tolist()


class Bfloat16:
    """1.5 and -2 as bfloat16, whose DLPack form torch and jax make."""

    data = ptl.Tensor("BF16", [2], np.array([0x3FC0, 0xC000], np.uint16))

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def send_bfloat16(request: Any) -> None:
    answer = pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("OUT", Bfloat16())])
    request.get_response_sender().send(answer, FINAL)


def test_bfloat16(model: ptl.Model, script: Script) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    script.execute = lambda requests: there(send_bfloat16, requests[0])
    answer = model({"IN": X})["OUT"]
    assert answer.dtype == ml_dtypes.bfloat16
    assert answer.astype(np.float32).tolist() == [1.5, -2]


def send_strange_tensors(request: Any) -> None:
    error = pb_utils.TritonError("bad")
    strange = pb_utils.Tensor("OUT", np.array([error.message, object()], np.object_))
    assert strange
    assert pb_utils.get_input_tensor_by_name(request, "NONE") is None
    answer = pb_utils.InferenceResponse(output_tensors=[strange], error=error)
    request.get_response_sender().send(answer, flags=FINAL)


def test_an_error_outweighs_tensors_of_anything(model: ptl.Model, script: Script) -> None:
    # Demands 2, 3 and 5: a bound method ends up in an object array beside the error.
    script.execute = lambda requests: there(send_strange_tensors, requests[0])
    with pytest.raises(ptl.InternalError, match=r"^bad$"):
        ask(model)
    script.execute = lambda requests: (
        requests[0].get_response_sender().send(pb_utils.InferenceResponse(), FINAL)
    )
    assert model({"IN": X}) == {}


def test_unrequested_outputs_are_not_sent(model: ptl.Model, script: Script) -> None:
    # rs_unknown_output
    def execute(requests: list) -> None:
        tensors = [pb_utils.Tensor("NOPE", X), pb_utils.Tensor("OUT", X)]
        requests[0].get_response_sender().send(pb_utils.InferenceResponse(tensors), FINAL)

    script.execute = execute
    assert list(model({"IN": X})) == ["OUT"]


# -- the calls for one response, and a decoupled model ---------------------------------


@pytest.fixture
def decoupled(repository: RepositoryBuilder, request: pytest.FixtureRequest, execution: str) -> Any:
    script = Script()
    if execution == "process":
        shared, stand_in = request.getfixturevalue("stubs_of_scripts")(DECOUPLED)
        Script.by_number[stand_in.number] = script
        return shared, script
    script.write(repository, "m", DECOUPLED)
    return request.getfixturevalue("serve")(execution=execution)["m"], script


def forms(model: ptl.Model) -> list[Callable[[], Any]]:
    return [
        lambda: model({"IN": X}, timeout_s=20)["OUT"][0],
        lambda: model.run({"IN": X}, timeout_s=20)["OUT"][0],
        lambda: model.submit({"IN": X}).result(20)["OUT"][0],
        lambda: asyncio.run(model.async_run({"IN": X}, timeout_s=20))["OUT"][0],
    ]


@pytest.mark.parametrize("send", [send_with_final, send_then_final])
def test_one_response_of_a_decoupled_model(decoupled: Any, send: Callable) -> None:
    model, script = decoupled
    script.execute = lambda requests: send(requests[0].get_response_sender())
    assert [form() for form in forms(model)] == [3] * 4


def sends(count: int) -> Callable[[list], None]:
    def execute(requests: list) -> None:
        sender = requests[0].get_response_sender()
        for n in range(count):
            sender.send(response(n))
        sender.send(flags=FINAL)

    return execute


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (
            0,
            "Model 'm' is decoupled and sent no response: use stream() or infer(), for which none "
            "is an answer, too",
        ),
        (
            2,
            "Model 'm' is decoupled and sent more than one response: use stream() or infer() to "
            "get all of them",
        ),
        (
            5,
            "Model 'm' is decoupled and sent more than one response: use stream() or infer() to "
            "get all of them",
        ),
    ],
)
def test_another_number_says_what_to_use(decoupled: Any, count: int, text: str) -> None:
    # Ours; Triton's unary front ends refuse decoupled models whatever they send.
    model, script = decoupled
    script.execute = sends(count)
    for form in forms(model):
        with pytest.raises(ptl.UnsupportedError) as caught:
            form()
        assert str(caught.value) == text
    script.execute = sends(1)
    assert forms(model)[0]() == 0
