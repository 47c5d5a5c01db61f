# ruff: noqa: ANN001, ANN201 - written as users write models
"""Sends as many small responses as it is told."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils

TOKEN = np.zeros(1, dtype=np.int32)


class TritonPythonModel:
    """Like a language model that is infinitely fast; or, with PAUSE, one that is not."""

    def execute(self, requests):
        """COUNT responses; with PAUSE one every so many seconds, with its time."""
        for request in requests:
            count = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0])
            pause = pb_utils.get_input_tensor_by_name(request, "PAUSE")
            sender = request.get_response_sender()
            if pause is None:
                for _ in range(count):
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("TOKEN", TOKEN)]))
            else:
                seconds = float(pause.as_numpy()[0])
                for _ in range(count):
                    time.sleep(seconds)
                    sent = np.array([time.perf_counter_ns()])
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("SENT", sent)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
