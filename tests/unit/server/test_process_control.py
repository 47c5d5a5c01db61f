"""`pb_utils.load_model`, `unload_model` and `is_model_ready` in a stub process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pytriton_lite as ptl
from tests.support.process import wait_until
from tests.support.repository import RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]
X = np.float32([1, 2])

CONFIG = {
    "backend": "python",
    "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}],
}

# Runs the text of the parameter `code`; the answer is what `result` is then, as UTF-8 numbers.
CALLER = echo_model(
    """
def answer(x, request):
    import json
    names = {"pb_utils": pb_utils}
    exec(json.loads(request.parameters())["code"], names)
    return np.frombuffer(repr(names["result"]).encode(), np.uint8).astype(np.float32)
"""
)
INITIALIZE = """
def initialize(self, args):
    pb_utils.load_model("in_initialize")
    self.is_there = pb_utils.is_model_ready("in_initialize")

def answer(self, x, request):
    return x * (2 if self.is_there else 1)
"""
# Writes what each step gave to `log` in its version folder.
LIFE = """
def log(*calls):
    import os
    with open(os.path.join(os.path.dirname(__file__), "log"), "a") as file:
        for call in calls:
            try:
                line = call()
            except Exception as error:
                line = error
            print(str(line).rpartition("message: ")[2], file=file)

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        log(lambda: pb_utils.is_model_ready("other"))
        return config

    def initialize(self, args):
        log(
            lambda: pb_utils.load_model("third"),
            lambda: pb_utils.is_model_ready("third"),
            lambda: pb_utils.load_model("other"),
            lambda: pb_utils.is_model_ready("other"),
            lambda: pb_utils.unload_model("other"),
        )

    def execute(self, requests):
        return [pb_utils.InferenceResponse([]) for _ in requests]

    def finalize(self):
        log(lambda: pb_utils.load_model("other"))
"""
MUTUAL = """
def initialize(self, args):
    pb_utils.load_model({"a": "b", "b": "a"}[args["model_name"]])
"""
GATED = """
def initialize(self, args):
    import os, pathlib, time
    (pathlib.Path(__file__).parent / "entered").touch()
    while not (pathlib.Path(__file__).parent / "gate").exists():
        time.sleep(0.01)
"""
ITSELF = "cannot be loaded here: its load would wait for the one that this code is part of"
FAILING = """
def initialize(self, args):
    raise ValueError("no licence")
"""


def run(server: ptl.Server, code: str) -> str:
    """`result` after `code` has run in the model `caller`."""
    out = server["caller"].run({"IN": X}, parameters={"code": code})["OUT"]
    return bytes(np.asarray(out).astype(np.uint8)).decode()


def outcome_of(call: str) -> str:
    """Code whose `result` tells what a call returned or raised."""
    return f"""
try:
    result = {call}
except pb_utils.TritonModelException as error:
    cause = error.__cause__
    result = (str(error), type(cause).__name__, cause.code.name, str(cause), cause.model,
              [str(e) for e in getattr(cause, "exceptions", ())])
"""


def test_same_as_in_process(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("caller", CALLER)
    repository.model("other", echo_model())
    repository.model("failing", echo_model("def answer(x, request): return x", FAILING))
    config = json.dumps(CONFIG)
    tripled = echo_model("def answer(x, request): return 3 * x").encode()
    calls = [
        "pb_utils.is_model_ready('other')",
        "pb_utils.load_model('other')",
        "pb_utils.is_model_ready('other')",
        "pb_utils.is_model_ready('other', '1'), pb_utils.is_model_ready('other', '2')",
        "pb_utils.is_model_ready('other', 'x')",
        "pb_utils.load_model('failing')",
        "pb_utils.load_model('nowhere')",
        "pb_utils.load_model('made', files={'file:1/model.py': b''})",
        f"pb_utils.load_model('made', {config!r}, {{'file:1/model.py': {tripled!r}, 'file:1/b': "
        "bytes(range(256))})",
        "pb_utils.unload_model('nowhere')",
        "pb_utils.is_model_ready('made')",
    ]
    told = {}
    for mode in ("thread", "process"):
        server = serve(
            execution={"caller": mode, "*": "thread"},
            model_control_mode="explicit",
            startup_models=["caller"],
        )
        told[mode] = [run(server, outcome_of(call)) for call in calls]
        assert server["other"]({"IN": X})["OUT"].tolist() == [1, 2]
        made = server["made"]
        assert made({"IN": X})["OUT"].tolist() == [3, 6]
        run(server, outcome_of("pb_utils.unload_model('made')"))
        assert not made.ready()
        server.stop()
    assert told["process"] == told["thread"]
    assert told["process"][:4] == ["False", "None", "True", "(True, False)"]
    text, kind, code, *_ = eval(told["process"][5])
    assert "message: load failed for model 'failing'" in text
    assert "ValueError: no licence" in text
    assert (kind, code) == ("ModelLoadError", "INTERNAL")


def test_a_file_that_is_larger_than_the_ring(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("caller", CALLER)
    source = """
def answer(x, request):
    import hashlib, os
    with open(os.path.join(os.path.dirname(__file__), "weights"), "rb") as file:
        return np.frombuffer(hashlib.sha256(file.read()).digest(), np.uint8).astype(np.float32)
"""
    server = serve(execution="process", model_control_mode="explicit", startup_models=["caller"])
    code = f"""
import numpy as np
weights = np.random.default_rng(5).bytes(5 << 20)
files = {{"file:1/model.py": {echo_model(source)!r}.encode(), "file:1/weights": weights}}
result = pb_utils.load_model("made", {json.dumps(CONFIG)!r}, files)
"""
    assert run(server, code) == "None"
    digest = hashlib.sha256(np.random.default_rng(5).bytes(5 << 20)).digest()
    assert bytes(np.asarray(server["made"]({"IN": X})["OUT"]).astype(np.uint8)) == digest


def test_a_load_in_initialize_is_part_of_the_load(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    repository.model("m", echo_model("", INITIALIZE))
    repository.model("in_initialize", echo_model())
    server = serve(execution="process", model_control_mode="explicit", startup_models=[])
    assert server.load("m")({"IN": X})["OUT"].tolist() == [2, 4]
    assert server["in_initialize"].ready()


def test_without_model_control(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("caller", CALLER)
    server = serve(execution="process")
    text, kind, code, cause, *_ = eval(run(server, outcome_of("pb_utils.load_model('caller')")))
    assert (kind, code) == ("UnavailableError", "UNAVAILABLE")
    assert cause == "explicit model load / unload is not allowed if polling is enabled"
    assert text == (
        "Failed to load model: Failed to process the request for model 'caller_0', message: "
        + cause
    )


def test_a_model_that_loads_itself_anew(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("caller", CALLER)
    server = serve(execution="process", model_control_mode="explicit", startup_models=["caller"])
    pid = "result = __import__('os').getpid()"
    before = run(server, pid)
    repository.touch("caller")
    assert run(server, outcome_of("pb_utils.load_model('caller')")) == "None"
    assert run(server, pid) != before


def test_every_step_of_a_life(repository: RepositoryBuilder, serve: Serve) -> None:
    # As tests/unit/pb_utils has it for models in this process.
    folder = repository.model("third", "import triton_python_backend_utils as pb_utils\n" + LIFE)
    repository.model("other", echo_model())
    server = serve(execution="process", model_control_mode="explicit", startup_models=[])
    server.load("third")
    server.unload("third", wait_until_unloaded=True)
    assert (folder / "1" / "log").read_text().splitlines() == [
        "the models of the server can be reached while an instance is loaded only, not in "
        "`auto_complete_config`",
        f"model 'third' {ITSELF}",
        "False",
        "None",
        "True",
        "None",
        "None",
    ]
    assert server["other"].ready()


def test_loads_that_wait_for_each_other_are_refused(
    repository: RepositoryBuilder, serve: Serve
) -> None:
    for name in "ab":
        repository.model(name, echo_model("def answer(x, request): return x", MUTUAL))
    server = serve(execution="process", model_control_mode="explicit", startup_models=[])
    with pytest.raises(ptl.ModelLoadError, match=f"model 'a' {ITSELF}"):
        server.load("a")
    assert [entry.state.value for entry in server.index()] == ["UNAVAILABLE"] * 2


def test_a_stop_during_a_load(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.model("caller", CALLER)
    folder = repository.model("gated", echo_model("def answer(x, request): return x", GATED)) / "1"
    server = serve(execution="process", model_control_mode="explicit", startup_models=["caller"])
    model = server["caller"]
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(run, server, outcome_of("pb_utils.load_model('gated')"))
        wait_until((folder / "entered").exists)
        stopping = pool.submit(server.stop)
        wait_until(lambda: not model.ready())
        (folder / "gate").touch()
        stopping.result(20)
        assert "the server is stopping and loads no models" in answer.result(20)
