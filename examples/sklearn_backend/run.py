"""Serve two scikit-learn models by one Python-based backend; print accuracy and latency."""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import numpy as np
from train import make_repository

import pytriton_lite as ptl

BACKENDS = Path(__file__).resolve().parent / "backends"


def accuracy(model, rows, labels):
    found = []
    for start in range(0, len(rows), 256):  # the model's max_batch_size
        label = model({"FEATURES": rows[start : start + 256]})["LABEL"][:, 0]
        # Triton hands strings over as bytes.
        found += [x.decode() if isinstance(x, bytes) else x for x in label]
    return np.mean(np.array(found) == labels)


def latency_us(model, rows, calls):
    """Median and 99th percentile of calls with one row each, in microseconds."""
    inputs = [{"FEATURES": rows[i % len(rows)][np.newaxis]} for i in range(calls)]
    model(inputs[0])
    times = []
    for one in inputs:
        before = time.perf_counter_ns()
        model(one)
        times.append(time.perf_counter_ns() - before)
    return np.percentile(times, [50, 99]) / 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", help="where train.py has made, or will make, the repository")
    parser.add_argument("--calls", type=int, default=500, help="calls per latency figure")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "models").is_dir():
            make_repository(folder)
        for execution in ("thread", "inline"):
            with ptl.Server(
                folder / "models", backend_directory=BACKENDS, execution=execution
            ) as server:
                if execution == "thread":
                    print(server.backends())
                print(f"\n{execution:8}{'rows':>6}{'accuracy':>10}{'p50 us':>9}{'p99 us':>9}")
                for name, model in server.models().items():
                    with np.load(folder / "held_out" / f"{name}.npz") as held_out:
                        rows, labels = held_out["rows"], held_out["labels"]
                    score = accuracy(model, rows, labels)
                    p50, p99 = latency_us(model, rows, args.calls)
                    print(f"{name:8}{len(rows):6}{score:10.4f}{p50:9.0f}{p99:9.0f}")


if __name__ == "__main__":
    main()
