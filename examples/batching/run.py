"""Send texts at the same time, and look at the batches that were made of them."""

from concurrent.futures import wait
from pathlib import Path

import numpy as np

import pytriton_lite as ptl

MODELS = Path(__file__).resolve().parent / "models"
TEXTS = [[1, 2, 3], [4], [5, 6], [7, 5000], *([n] for n in range(100, 120))]


def main():
    with ptl.Server(MODELS) as server:
        model = server.model("text_vector")
        # Without `hold_queue` it would be a matter of microseconds which requests meet in a batch.
        with model.hold_queue():
            futures = [model.submit({"IDS": np.array([ids])}) for ids in TEXTS]
        wait(futures)
        for ids, future in list(zip(TEXTS, futures, strict=True))[:4]:
            print(ids, future.exception() or future.result()["VECTOR"][0].round(2))
        for batch in model.explain_batching():
            print(f"batch of {batch.request_count}: {batch.reason}")


if __name__ == "__main__":
    main()
