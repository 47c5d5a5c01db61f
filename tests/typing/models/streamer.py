"""Decoupled: tokens one by one, from a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import assert_type

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.add_input({"name": "COUNT", "data_type": "TYPE_INT32", "dims": [1]})
        config.add_output({"name": "TOKEN", "data_type": "TYPE_INT32", "dims": [1]})
        config.set_model_transaction_policy({"decoupled": True})
        return config

    def initialize(self, args: dict[str, str]) -> None:
        self.threads: list[threading.Thread] = []

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "COUNT")
            sender = request.get_response_sender()
            if tensor is None:
                error = pb_utils.TritonError("COUNT is missing")
                sender.send(
                    pb_utils.InferenceResponse(error=error),
                    flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                )
                continue
            count = int(tensor.as_numpy()[0])
            thread = threading.Thread(target=self.stream, args=(sender, count))
            self.threads.append(thread)
            thread.start()

    def stream(self, sender: pb_utils.InferenceResponseSender, count: int) -> None:
        for i in range(count):
            if sender.is_cancelled():
                break
            token = pb_utils.Tensor("TOKEN", np.array([i], dtype=np.int32))
            sender.send(pb_utils.InferenceResponse([token]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self) -> None:
        for thread in self.threads:
            thread.join()


class Rescheduled:
    """An iterative sequence; a response may come or not."""

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse | None]:
        responses: list[pb_utils.InferenceResponse | None] = []
        for request in requests:
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
                responses.append(pb_utils.InferenceResponse(request.inputs()))
            else:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
                responses.append(None)
        return responses


class Unfinished:
    """Ways to send, in default mode."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[None]:
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        for request in requests:
            sender = request.get_response_sender()
            response: pb_utils.InferenceResponse | None = self.answer(request)
            sender.send(response, final)
            sender.send(response=response, flags=final)
            sender.send(None, final)
        return [None] * len(requests)

    def answer(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse | None:
        return None if request.is_cancelled() else pb_utils.InferenceResponse()


class Coroutines:
    """Decoupled with ``async def execute``; senders are kept and found by request id."""

    def initialize(self, args: dict[str, str]) -> None:
        self.senders: dict[str, pb_utils.InferenceResponseSender] = {}
        self.is_decoupled = pb_utils.using_decoupled_model_transaction_policy(
            json.loads(args["model_config"])
        )

    async def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        await asyncio.gather(*(self.stream(request) for request in requests))

    async def stream(self, request: pb_utils.InferenceRequest) -> None:
        sender = self.senders[request.request_id()] = request.get_response_sender()
        assert_type(sender.is_cancelled(), bool)
        try:
            async for word in self.words(request):
                token = pb_utils.Tensor("TOKEN", np.array([word], dtype=np.object_))
                sender.send(pb_utils.InferenceResponse([token]), flags=0)
                if sender.is_cancelled():
                    break
        except ValueError as error:
            failed = pb_utils.InferenceResponse(
                error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            )
            assert_type(sender.send(failed, flags=1), None)
        else:
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        finally:
            del self.senders[request.request_id()]

    async def words(self, request: pb_utils.InferenceRequest) -> AsyncIterator[bytes]:
        for tensor in request.inputs():
            for text in tensor.as_numpy():
                await asyncio.sleep(0)
                yield text


class RescheduledStream:
    """Decoupled and rescheduled: a response each time."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            sender.send(pb_utils.InferenceResponse(request.inputs()))
            if request.flags() & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
