"""The recorded streams, answered by `pytriton_lite` in each execution mode."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import pytriton_lite as ptl

from .cases import STREAM_GROUPS
from .differences import (
    ENDS_WITH_ERROR,
    STREAM_DIFFERENCES,
    THREAD_ONLY,
    comparable,
    exact,
    without_prefix,
)
from .record import normaliser, readable, write_model
from .schema import InferCase, StreamCase, StreamGroup
from .test_conformance import MODES, array, options

Answer = dict[str, Any]
RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "triton_2_51_streams.json").read_text(encoding="utf-8")
)
TIMEOUT_S = 5.0


class Asked:
    """A running server with the models of a group."""

    def __init__(self, server: ptl.Server, normalise: Callable[[str], str]) -> None:
        self.server = server
        self.normalise = normalise

    def ask(self, stream: StreamCase, *, empty_final: bool) -> Answer:
        """Send the requests of a case, each from a thread of its own."""
        answers: list[Answer] = [{} for _ in stream.requests]
        unexpected: list[BaseException] = []

        def run(position: int, case: InferCase) -> None:
            try:
                answers[position] = self.infer(case, empty_final, stream)
            except BaseException as error:
                unexpected.append(error)

        threads = [
            threading.Thread(target=run, args=pair, daemon=True)
            for pair in enumerate(stream.requests)
        ]
        for thread in threads:
            thread.start()
            time.sleep(stream.gap_s)
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a stream does not end"
        for error in unexpected:
            raise error
        result: Answer = {"streams": answers}
        if stream.then is not None:
            result["then"] = self.infer(stream.then, True)
        return result

    def infer(self, case: InferCase, empty_final: bool, stream: StreamCase | None = None) -> Answer:
        """Send one request; return its responses as they are written down."""
        inputs = {name: array(values) for name, values in case.inputs.items()}
        cancel_after = None if stream is None else stream.cancel_after
        responses: list[Answer] = []
        try:
            model = self.server.model(case.model)
            if empty_final:
                fields = options(case)
                flags = fields.pop("sequence_start", False) + 2 * fields.pop("sequence_end", False)
                fields["requested_outputs"] = fields.pop("outputs", None)
                arrived = model.infer(inputs=inputs, raise_on_error=False, flags=flags, **fields)
            else:
                arrived = model.stream(inputs, **options(case))
            timer = None
            if stream is not None and stream.cancel_after_s is not None:
                timer = threading.Timer(stream.cancel_after_s, arrived.close)
                timer.start()
            while (response := self.next(arrived)) is not None:
                responses.append(response)
                if len(responses) == cancel_after:
                    arrived.close()
                    return {"responses": responses, "cancelled": True}
        except ptl.TritonError as error:
            if stream is not None and stream.cancel_after_s is not None:
                return {"responses": responses, "cancelled": True}
            responses.append({"error": without_prefix(self.normalise(str(error)))})
        return {"responses": responses, "ended": True}

    def next(self, arrived: Any) -> Answer | None:
        """Return the next response, a raised error included; the iteration may go on after it."""
        try:
            response = next(arrived, None)
        except ptl.TritonError as error:
            return {"error": without_prefix(self.normalise(str(error)))}
        return None if response is None else self.one(response)

    def one(self, response: Any) -> Answer:
        """Return one response."""
        result: Answer = {"final": bool(response.final)}
        if response.error is not None:
            return {**result, "error": without_prefix(self.normalise(str(response.error)))}
        outputs = [
            {
                "name": name,
                "datatype": tensor.data_type.name,
                "shape": list(tensor.shape),
                "data": [self.element(x) for x in tensor.numpy().reshape(-1).tolist()],
            }
            for name, tensor in response.outputs.items()
        ]
        return {**result, "outputs": outputs}

    def element(self, value: Any) -> Any:
        """Return one element of a tensor as it is written down."""
        if not isinstance(value, bytes):
            return value
        item = readable(value)
        return without_prefix(self.normalise(item)) if isinstance(item, str) else item


def check(expected: Answer, answer: Answer) -> None:
    """Assert that one request got the recorded responses."""
    responses, recorded = list(answer["responses"]), list(expected["responses"])
    if not expected.get("ended") and not expected.get("cancelled"):
        # Triton leaves it open; here it ends, with an error that says why.
        assert "error" in responses.pop(), ENDS_WITH_ERROR
    pairs = zip(responses, recorded, strict=False)
    assert exact([shown(r, w) for r, w in pairs]) == exact(
        [shown(w, r) for r, w in zip(responses, recorded, strict=False)]
    )
    assert len(responses) == len(recorded)


def shown(response: Answer, other: Answer) -> Answer:
    """Return what is compared of a response."""
    result: Answer = {}
    if "error" in response:
        result["error"] = comparable(response["error"])
    else:
        result["outputs"] = response["outputs"]
    # What is refused before the model gets it has no such parameter, and what is raised neither.
    if "final" in response and "final" in other:
        result["final"] = response["final"]
    return result


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Asked]]:
    """Return a function that gives the server of a group, started when first asked for."""
    servers: dict[tuple[str, str], Asked] = {}
    with ExitStack() as stack:

        def get(group: StreamGroup, mode: str) -> Asked:
            if (group.name, mode) not in servers:
                folder = tmp_path_factory.mktemp(f"{group.name}-{mode}").resolve()
                for model in group.models:
                    write_model(folder, model)
                server = ptl.Server(folder, execution=mode, exit_on_error=False)
                stack.enter_context(server)
                servers[group.name, mode] = Asked(server, normaliser(folder, "<no backends>"))
            return servers[group.name, mode]

        yield get


KINDS = ("empty_final", "plain")
STREAMS = [
    pytest.param(group, stream, kind, id=f"{stream.id}-{kind}")
    for group in STREAM_GROUPS
    for stream in group.streams
    for kind in KINDS[: 1 + stream.both]
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("group", "stream", "kind"), STREAMS)
def test_stream(
    group: StreamGroup,
    stream: StreamCase,
    kind: str,
    mode: str,
    asked: Callable[[StreamGroup, str], Asked],
) -> None:
    """A request gets Triton's responses, in the same order and with the same texts."""
    concurrent = len(stream.requests) > 1 or stream.id in THREAD_ONLY
    if mode == "inline" and (concurrent or stream.cancel_after_s is not None):
        pytest.skip("an inline model runs on the caller's thread")
    expected = RECORDED[kind][stream.id]
    difference = STREAM_DIFFERENCES.get(stream.id)
    if difference is not None and difference.expected is None:
        pytest.skip(difference.reason)
    answer = asked(group, mode).ask(stream, empty_final=kind == "empty_final")
    if difference is not None and difference.expected is not None:
        expected = {**expected, "streams": [dict(difference.expected)]}
    for wanted, seen in zip(expected["streams"], answer["streams"], strict=True):
        check(wanted, seen)
    if "then" in expected:
        check(expected["then"], answer["then"])


def test_every_stream_is_recorded() -> None:
    """The data file and the tables hold the same streams."""
    streams = [stream for group in STREAM_GROUPS for stream in group.streams]
    assert {stream.id for stream in streams} == set(RECORDED["empty_final"])
    assert {stream.id for stream in streams if stream.both} == set(RECORDED["plain"])
    assert set(STREAM_DIFFERENCES) <= {stream.id for stream in streams}
