"""The model ``trivial``: on a thread of ours, and bare for other ways to a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from harness import MODELS, model_object, ready_request

import pytriton_lite as ptl

TRIVIAL = {"INPUT0": np.zeros(1, dtype=np.float32)}


@contextmanager
def thread_instance() -> Iterator[ptl.Model]:
    """The trivial model in a thread instance of its own."""
    with ptl.Server(
        MODELS, execution="thread", model_control_mode="explicit", startup_models=["trivial"]
    ) as server:
        yield server.model("trivial")


@contextmanager
def trivial_execute() -> Iterator[Callable[[], object]]:
    """The trivial model's bare `execute` on a ready-made request."""
    with ptl.Server(MODELS, model_control_mode="explicit"):
        execute = model_object("trivial", {}).execute
        yield partial(execute, [ready_request(TRIVIAL, "trivial")])
