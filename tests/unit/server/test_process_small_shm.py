"""Stubs use nothing of `/dev/shm`: with 1 MiB there, tensors of 16 MiB go to and fro."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import RepositoryBuilder, echo_model

SCRIPT = """
import os, sys
import numpy as np
import pytriton_lite as ptl

size = os.statvfs("/dev/shm")
assert size.f_blocks * size.f_frsize == 1 << 20, size
x = np.arange(4 << 20, dtype=np.float32)
with ptl.Server(sys.argv[1], execution="process") as server:
    model = server["m"]
    for _ in range(3):
        assert np.array_equal(model({"IN": x})["OUT"], 2 * x)
    futures = [model.submit({"IN": x}) for _ in range(4)]
    assert all(np.array_equal(future.result(30)["OUT"], 2 * x) for future in futures)
    assert [r["OUT"].size for r in server["stream"].stream({"IN": x})] == [x.size] * 3
    assert os.listdir("/dev/shm") == []
print("all is well")
"""
DECOUPLED = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            sender = request.get_response_sender()
            for _ in range(3):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", x)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
# Mounts as root of a user namespace of its own; nobody else sees it.
COMMAND = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = "mount -t tmpfs -o size=1m tmpfs /dev/shm"


def test_one_mebibyte_of_dev_shm(repository: RepositoryBuilder, tmp_path: Path) -> None:
    try:
        probe = subprocess.run(
            [*COMMAND, MOUNT], capture_output=True, text=True, timeout=20, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no program unshare")
    if probe.returncode:
        pytest.skip(f"private mounts are not allowed: {probe.stderr.strip()}")
    repository.model("m", echo_model("def answer(x, request): return 2 * x"))
    config = repository.models / "m" / "config.pbtxt"
    decoupled = config.read_text() + "model_transaction_policy { decoupled: true }"
    repository.model("stream", DECOUPLED, config=decoupled)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [*COMMAND, MOUNT + ' && exec "$@"', "sh", sys.executable, str(script), repository.models],
        capture_output=True, text=True, timeout=50, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout.strip() == "all is well", done.stderr
