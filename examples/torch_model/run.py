"""Search documents by a torch model; print hits and latency for both execution modes."""

import argparse
import time
from pathlib import Path

import torch

import pytriton_lite as ptl

MODELS = Path(__file__).resolve().parent / "models"


def make_documents(count, width=64):
    """Random embeddings, and a disturbed copy of some of them as queries."""
    generator = torch.Generator().manual_seed(1)
    documents = torch.randn(count, width, generator=generator)
    wanted = torch.randperm(count, generator=generator)[:8]
    queries = documents[wanted] + 0.3 * torch.randn(8, width, generator=generator)
    return documents.bfloat16(), queries.bfloat16(), wanted


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=50, help="calls per latency figure")
    args = parser.parse_args()
    documents, queries, wanted = make_documents(args.documents)
    inputs = {"QUERIES": queries, "DOCUMENTS": documents}
    print(f"{len(documents)} documents, {documents.nbytes} bytes, never copied")
    print(f"\n{'mode':8}{'found':>8}{'worst score':>13}{'p50 us':>9}")
    for execution in ("thread", "inline"):
        with ptl.Server(MODELS, execution=execution) as server:
            nearest = server.model("nearest")
            response = nearest.run(inputs)
            index = torch.from_dlpack(response.outputs["INDEX"])
            score = torch.from_dlpack(response.outputs["SCORE"])
            found = int((index[:, 0] == wanted).sum())
            times = []
            for _ in range(args.calls):
                before = time.perf_counter_ns()
                nearest(inputs)
                times.append(time.perf_counter_ns() - before)
        p50 = sorted(times)[len(times) // 2] / 1000
        print(f"{execution:8}{found:>6}/{len(wanted)}{score[:, 0].min():>13.3f}{p50:>9.0f}")


if __name__ == "__main__":
    main()
