# ruff: noqa: ANN001, ANN201, ANN202 - written as users write models
"""Calls add_sub many times, in the way that the request's parameters say."""

import asyncio
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Each inner call makes its tensors and its request, if not said, and reads both outputs."""

    def execute(self, requests):
        """Run one request; a coroutine for the asynchronous way."""
        order = json.loads(requests[0].parameters())
        return getattr(self, order["way"])(order["count"])

    def initialize(self, args):
        """Make what is sent."""
        self.arrays = np.arange(4, dtype=np.float32), np.ones(4, dtype=np.float32)
        self.done = [pb_utils.InferenceResponse([])]

    def request(self):
        """A new request."""
        return pb_utils.InferenceRequest(
            model_name="add_sub",
            requested_output_names=["OUTPUT0", "OUTPUT1"],
            inputs=[
                pb_utils.Tensor("INPUT0", self.arrays[0]),
                pb_utils.Tensor("INPUT1", self.arrays[1]),
            ],
        )

    def read(self, response):
        """The outputs as arrays."""
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        return [tensor.as_numpy() for tensor in response.output_tensors()]

    def nothing(self, count):
        """No inner call, and no request for one."""
        return self.done

    def ready(self, count):
        """One after another, the same request again and again."""
        request = self.request()
        for _ in range(count):
            self.read(request.exec())
        return self.done

    def exec(self, count):
        """One after another."""
        for _ in range(count):
            self.read(self.request().exec())
        return self.done

    def stream(self, count):
        """One after another, each with an iterator."""
        for _ in range(count):
            for response in self.request().exec(decoupled=True):
                self.read(response)
        return self.done

    async def gather(self, count):
        """32 at a time."""

        async def one():
            for _ in range(max(count // 32, 1)):
                self.read(await self.request().async_exec())

        await asyncio.gather(*(one() for _ in range(32)))
        return self.done
