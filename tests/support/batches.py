"""A model that does to a batch what the first request's input says, and running batches of it."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

import pytriton_lite as ptl

CONFIG = """
backend: "python"
max_batch_size: 8
input [
  { name: "WHAT" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }
]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] } ]
"""
DECOUPLED = "model_transaction_policy { decoupled: true }\n"
ITERATIVE = "sequence_batching { iterative_sequence: true }\n"

MODEL = textwrap.dedent('''
    import os
    import threading
    import time

    import numpy as np
    import triton_python_backend_utils as pb_utils

    FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
    AGAIN = pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE


    def value(request):
        return pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()


    def reply(array):
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])


    def error(text):
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(text))


    def doubled(requests):
        return [reply(value(request) * 2) for request in requests]


    class ListOfResponses(list):
        pass


    class TritonPythonModel:
        def initialize(self, args):
            self.kept = []
            self.calls = []

        def execute(self, requests):
            what = pb_utils.get_input_tensor_by_name(requests[0], "WHAT").as_numpy()
            self.calls.append(len(requests))
            return getattr(self, what.ravel()[0].decode())(requests)

        def fine(self, requests):
            return doubled(requests)

        def count(self, requests):
            return [reply(np.float32([[len(requests)]])) for request in requests]

        def subclass(self, requests):
            return ListOfResponses(doubled(requests))

        def one_error(self, requests):
            return [*doubled(requests[:-1]), error("bad one")]

        def raises(self, requests):
            raise ValueError("boom")

        def exits(self, requests):
            raise SystemExit(3)

        def dies(self, requests):
            os._exit(3)

        def none(self, requests):
            return None

        def all_none(self, requests):
            return [None] * len(requests)

        def one_none(self, requests):
            return [*doubled(requests[:-1]), None]

        def short(self, requests):
            return doubled(requests)[:-1]

        def long(self, requests):
            return doubled(requests) * 2

        def empty(self, requests):
            return []

        def a_tuple(self, requests):
            return tuple(doubled(requests))

        def wrong_last(self, requests):
            return [*doubled(requests[:-1]), "abc"]

        def wrong_first(self, requests):
            return ["abc", *doubled(requests[1:])]

        def popped(self, requests):
            replies = doubled(requests)
            requests.pop()
            return replies

        def sender_last(self, requests):
            requests[-1].get_response_sender().send(reply(value(requests[-1])), FINAL)
            return [*doubled(requests[:-1]), None]

        def senders_later(self, requests):
            senders = [request.get_response_sender() for request in requests]
            arrays = [value(request) for request in requests]

            def send():
                for sender, array in zip(reversed(senders), reversed(arrays)):
                    sender.send(reply(array), FINAL)

            threading.Timer(0.01, send).start()
            return None

        def sent_and_returned(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])), FINAL)
            return doubled(requests)

        def sent_then_raises(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])), FINAL)
            raise ValueError("late")

        def sent_then_short(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])), FINAL)
            return []

        def open_then_raises(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])))
            raise ValueError("late")

        def same_response(self, requests):
            return [reply(np.float32([[7]]))] * len(requests)

        def same_tensor(self, requests):
            tensor = pb_utils.Tensor("OUT", np.float32([[7]]))
            return [pb_utils.InferenceResponse([tensor]) for request in requests]

        def same_array(self, requests):
            array = np.float32([[7]])
            return [reply(array) for request in requests]

        def views(self, requests):
            out = np.concatenate([value(request) for request in requests]) * 2
            return [reply(out[i : i + 1]) for i in range(len(requests))]

        def swapped(self, requests):
            return [reply(value(request)) for request in reversed(requests)]

        def again_last(self, requests):
            if len(requests) == 1:
                return doubled(requests)
            requests[-1].set_release_flags(AGAIN)
            return [*doubled(requests[:-1]), None]

        def again_and_reply(self, requests):
            requests[-1].set_release_flags(AGAIN)
            return doubled(requests)

        def keeps(self, requests):
            replies = doubled(requests)
            self.kept.append(requests)
            return replies

        def kept_values(self, requests):
            kept = self.kept.pop()
            return [reply(value(request)) for request in kept[: len(requests)]]

        async def coroutine(self, requests):
            return doubled(requests)

        async def coroutine_raises(self, requests):
            raise ValueError("boom")

        # Decoupled

        def stream(self, requests):
            for request in requests:
                sender = request.get_response_sender()
                array = value(request)
                sender.send(reply(array))
                sender.send(flags=FINAL)
            return None

        def stream_then_raises(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])), FINAL)
            raise ValueError("late")

        async def stream_later(self, requests):
            self.stream(requests)

        async def stream_raises(self, requests):
            requests[0].get_response_sender().send(reply(value(requests[0])), FINAL)
            raise ValueError("boom")
''')  # fmt: skip


def inputs(what: str, value: float) -> dict[str, Any]:
    """Inputs of a request of one row."""
    return {"WHAT": np.array([[what]], dtype=np.object_), "IN": np.float32([[value]])}


def contract_of(model: ptl.Model) -> Any:
    """The contract of the one instance of a model."""
    (contract,) = model._endpoint.served.queue.contracts
    return contract


class Slots:
    """Call slots of requests that go past the queue of their model."""

    def __init__(self, model: ptl.Model, requests: Sequence[dict[str, Any]], **fields: Any) -> None:
        options = {**NO_OPTIONS, **fields} if fields else None
        self.slots = [model._prepare(request, options)[1] for request in requests]
        self._are_done = [threading.Event() for _ in requests]
        for slot, is_done in zip(self.slots, self._are_done, strict=True):
            slot.notify_when_done(lambda _slot, is_done=is_done: is_done.set())

    def outcomes(self, again: Sequence[Any] = ()) -> list[Any]:
        """Wait for the answers; each or its exception, and ``"again"`` of what was rescheduled."""
        return [
            "again" if slot in again else self._outcome(slot, is_done)
            for slot, is_done in zip(self.slots, self._are_done, strict=True)
        ]

    @staticmethod
    def _outcome(slot: Any, is_done: threading.Event) -> Any:
        assert is_done.wait(20), "no answer came"
        return slot.take_outcome()


NO_OPTIONS = {
    "outputs": None, "parameters": None, "request_id": "", "priority": 0, "correlation_id": 0,
    "flags": 0, "timeout": 0,
}  # fmt: skip


def run_batch(model: ptl.Model, requests: Sequence[dict[str, Any]], **fields: Any) -> list[Any]:
    """Run requests in one `execute`, past the queue; their outcomes, see `Slots.outcomes`."""
    slots = Slots(model, requests, **fields)
    return slots.outcomes(contract_of(model).run_slots(slots.slots))
