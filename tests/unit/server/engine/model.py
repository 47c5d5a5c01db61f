"""A backend as large engines have them: threads of its own answer, `execute` only hands over."""

import asyncio
import json
import os
import queue
import subprocess
import sys
import threading

import numpy as np
import triton_python_backend_utils as pb_utils
from utils.metrics import Metrics


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        given = config.as_dict()
        if given["max_batch_size"] != 0 or given["input"] or given["output"]:  # always there
            raise ValueError("this backend makes its own configuration")
        config.add_input({"name": "text", "data_type": "TYPE_STRING", "dims": [1]})
        optional = {"data_type": "TYPE_BOOL", "dims": [1], "optional": True}
        config.add_input({"name": "stream", **optional})
        config.add_input({"name": "weights", **optional, "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "text", "data_type": "TYPE_STRING", "dims": [-1]})
        config.add_output({"name": "count", "data_type": "TYPE_UINT32", "dims": [1]})
        config.set_model_transaction_policy({"decoupled": True})
        return config

    def initialize(self, args):
        self.name = args["model_name"]
        self.options = json.loads(args["model_config"])["parameters"]  # without a test
        if "fail" in self.options:
            raise RuntimeError("the engine does not start")
        os.environ["ENGINE_STARTED"] = self.name
        self.is_dead = False
        self.responses = queue.Queue()
        self.metrics = Metrics(self.name)
        self.loop = asyncio.new_event_loop()
        self.threads = [
            threading.Thread(target=self.loop.run_forever, name=f"{self.name}-engine"),
            threading.Thread(target=self.send_all, name=f"{self.name}-responses"),
        ]
        for thread in self.threads:
            thread.start()
        helper = os.path.join(os.path.dirname(__file__), "utils", "child.py")
        self.child = subprocess.Popen(
            [sys.executable, helper], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def execute(self, requests):
        for request in requests:
            if self.is_dead:
                pb_utils.unload_model(self.name)
                error = pb_utils.TritonError("the engine is dead", pb_utils.TritonError.UNAVAILABLE)
                response = pb_utils.InferenceResponse(error=error)
                request.get_response_sender().send(response, flags=1)
                continue
            task = asyncio.run_coroutine_threadsafe(self.generate(request), self.loop)
            task.add_done_callback(lambda done: done.result())  # an error is logged
        # the requests are used later, on other threads

    async def generate(self, request):
        # On the engine's thread: the late import by a common name, as engines do it.
        from utils.words import split

        sender = request.get_response_sender()
        text = pb_utils.get_input_tensor_by_name(request, "text").as_numpy().flat[0].decode()
        stream = pb_utils.get_input_tensor_by_name(request, "stream")
        weights = pb_utils.get_input_tensor_by_name(request, "weights")
        options = json.loads(request.parameters())
        self.metrics.requests.increment(1)
        if text == "die":
            self.is_dead = True
        if text == "ask the child":
            text = await asyncio.to_thread(self.ask_child, text)
        if text == "fail":
            error = pb_utils.TritonError("the request failed")
            # A bound method in an object array: of no interest beside an error.
            tensor = pb_utils.Tensor("text", np.array([error.message], dtype=object))
            self.responses.put((sender, pb_utils.InferenceResponse([tensor], error), 1))
            return
        words = split(text) * int(options.get("repeat", 1))
        if weights:  # true whatever it holds
            capsule = weights.to_dlpack()
            words.append(str(np.from_dlpack(_Held(capsule)).sum()))
        if not stream or not stream.as_numpy().item():
            self.responses.put((sender, self.response(words), 1))
            return
        for word in words:
            if sender.is_cancelled():
                self.metrics.cancelled.increment(1)
                error = pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED)
                self.responses.put((sender, pb_utils.InferenceResponse(error=error), 1))
                return
            self.responses.put((sender, self.response([word]), 0))
            await asyncio.sleep(0.001)
        self.responses.put((sender, pb_utils.InferenceResponse(), 1))

    def response(self, words):
        # The count has no dims, although the configuration says [ 1 ].
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor("text", np.array(words, dtype=np.object_)),
                pb_utils.Tensor("count", np.array(len(words), np.uint32)),
            ]
        )

    def send_all(self):
        while (item := self.responses.get()) is not None:
            sender, response, flags = item
            if flags:
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                sender.send(response)
            self.metrics.tokens.put(1)

    def ask_child(self, text):
        self.child.stdin.write(text + "\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()

    def finalize(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.responses.put(None)
        for thread in self.threads:
            thread.join()
        self.loop.close()
        self.metrics.close()
        self.child.communicate()
        with open(os.path.join(os.path.dirname(__file__), f"finalized-{self.name}"), "w") as file:
            file.write(str(self.child.returncode))


class _Held:
    def __init__(self, capsule):
        self.capsule = capsule

    def __dlpack__(self, **_):
        return self.capsule

    def __dlpack_device__(self):
        return (1, 0)
