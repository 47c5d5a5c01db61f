"""Custom metrics of all kinds."""

from __future__ import annotations

import time
from typing import assert_type

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig:
        config.set_max_batch_size(8)
        config.set_dynamic_batching()
        return config

    def initialize(self, args: dict[str, str]) -> None:
        self.family = pb_utils.MetricFamily(
            name="requests_seen",
            description="Requests that reached execute",
            kind=pb_utils.MetricFamily.COUNTER,
        )
        self.seen = self.family.Metric(labels={"model": args["model_name"]})
        assert_type(self.seen, pb_utils.Metric)
        self.depth_family = pb_utils.MetricFamily(
            "batch_size", "Requests of the last batch", pb_utils.MetricFamily.GAUGE
        )
        self.depth: pb_utils.Metric = self.depth_family.Metric()
        self.time_family = pb_utils.MetricFamily(
            name="seconds", description="Time", kind=pb_utils.MetricFamily.HISTOGRAM
        )
        self.seconds = self.time_family.Metric(labels=None, buckets=[0.1, 1, 10])

    def execute(
        self, requests: list[pb_utils.InferenceRequest]
    ) -> list[pb_utils.InferenceResponse]:
        start = time.monotonic()
        self.seen.increment(len(requests))
        self.depth.set(len(requests))
        self.depth.increment(-1.5)
        self.depth.set(np.float32(2))
        self.seconds.observe(time.monotonic() - start)
        assert_type(self.seen.value(), float)
        return [pb_utils.InferenceResponse(request.inputs()) for request in requests]
