"""A tiny language model: goes on with a prompt, word by word, and sends each word as it comes.

A word that follows the last one somewhere in `rhyme.txt` may follow it here. Requests run side by
side, as coroutines.
"""

import asyncio
import itertools
import json
import os
import random
from collections import defaultdict

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.seconds_per_token = float(config["parameters"]["seconds_per_token"]["string_value"])
        self.followers = defaultdict(list)
        with open(os.path.join(pb_utils.get_model_dir(), "rhyme.txt"), encoding="utf-8") as file:
            for line in file:
                words = line.split()
                for word, follower in itertools.pairwise(words):
                    self.followers[word].append(follower)

    async def execute(self, requests):
        await asyncio.gather(*(self.stream(request) for request in requests))

    async def stream(self, request):
        sender = request.get_response_sender()
        try:
            await self.send_words(request, sender)
        except Exception as error:
            # Triton tells the client nothing of what a decoupled coroutine raises.
            code = pb_utils.TritonError.INTERNAL
            if isinstance(error, ValueError):
                code = pb_utils.TritonError.INVALID_ARG
            failed = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
            sender.send(failed, flags=FINAL)
        else:
            sender.send(flags=FINAL)

    async def send_words(self, request, sender):
        prompt = pb_utils.get_input_tensor_by_name(request, "PROMPT").as_numpy()[0].decode()
        limit = pb_utils.get_input_tensor_by_name(request, "MAX_TOKENS")
        limit = 100 if limit is None else int(limit.as_numpy()[0])
        choose = random.Random(json.loads(request.parameters()).get("seed", 0)).choice
        word = prompt.split()[-1] if prompt.split() else ""
        if word not in self.followers:
            raise ValueError(f"no line of the rhyme goes on after '{word}'")
        for count in range(limit):
            await asyncio.sleep(self.seconds_per_token)  # the work of a larger model
            if sender.is_cancelled():
                pb_utils.Logger.log_info(f"the client has gone after {count} words")
                return
            word = choose(self.followers[word])
            if word == ".":
                return
            token = pb_utils.Tensor("TOKEN", np.array([word], dtype=np.object_))
            sender.send(pb_utils.InferenceResponse([token]))
