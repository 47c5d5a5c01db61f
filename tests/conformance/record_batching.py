"""Send every arrival pattern to a running tritonserver and write down the batches that it formed.

    python -m tests.conformance.record_batching --write-repository DIR
    tritonserver --model-repository=DIR
    python -m tests.conformance.record_batching --url 127.0.0.1:8001 \\
        --out tests/conformance/triton_2_51_batching.json

``tritonclient[grpc]`` is needed. A pattern's answer is the list of its batches, each a list of
the arrivals' places, and the errors by place.
"""

from __future__ import annotations

import argparse
import json
import queue
import time
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient

from .batching_cases import MODEL, PATTERNS, Arrival, Pattern


def inputs_of(arrival: Arrival, value: float) -> list[Any]:
    """Return the inputs of a request."""
    arrays = {"IN": np.full((arrival.rows, arrival.width), value, np.float32)}
    if arrival.has_more:
        arrays["MORE"] = np.zeros((arrival.rows, 1), np.float32)
    made = []
    for name, array in arrays.items():
        made.append(grpcclient.InferInput(name, list(array.shape), "FP32"))
        made[-1].set_data_from_numpy(array)
    return made


def ask(client: Any, pattern: Pattern) -> dict[str, Any]:
    """Send a pattern; return its batches and errors."""
    done: queue.Queue[Any] = queue.Queue()

    def send(place: int, arrival: Arrival, value: float) -> None:
        client.async_infer(
            pattern.id,
            inputs_of(arrival, value),
            lambda result, error: done.put((place, result, error)),
            priority=arrival.priority,
            timeout=arrival.timeout_us or None,
        )

    if not pattern.is_live:
        send(-1, Arrival(width=pattern.arrivals[0].width), -1)
        time.sleep(0.3)  # the instance is busy with it by then
    for place, arrival in enumerate(pattern.arrivals):
        time.sleep(arrival.gap_ms / 1000)  # the pattern
        send(place, arrival, place)
    batches: dict[int, list[tuple[int, int]]] = {}
    errors = {}
    for _ in range(len(pattern.arrivals) + (not pattern.is_live)):
        place, result, error = done.get(timeout=20)
        if error is not None:
            errors[str(place)] = error.message()
        elif place >= 0:
            number, position = result.as_numpy("BATCH")[0]
            batches.setdefault(int(number), []).append((int(position), place))
    return {
        "batches": [[place for _, place in sorted(batches[n])] for n in sorted(batches)],
        "errors": dict(sorted(errors.items())),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write-repository", type=Path, metavar="DIR")
    parser.add_argument("--url", help="of the server's gRPC endpoint")
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.write_repository:
        for pattern in PATTERNS:
            folder = arguments.write_repository / pattern.id
            (folder / "1").mkdir(parents=True)
            (folder / "1" / "model.py").write_text(MODEL, encoding="utf-8")
            (folder / "config.pbtxt").write_text(pattern.config(), encoding="utf-8")
    elif arguments.url and arguments.out:
        with grpcclient.InferenceServerClient(arguments.url) as client:
            answers = {pattern.id: ask(client, pattern) for pattern in PATTERNS}
        lines = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(answer)}" for name, answer in answers.items()
        )
        arguments.out.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    else:
        parser.error("give --write-repository, or --url and --out")


if __name__ == "__main__":
    main()
