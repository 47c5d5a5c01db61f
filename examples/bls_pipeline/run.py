"""Ask two pipelines that ask other models in turn; what they do when one of these is missing."""

import logging
from pathlib import Path

import numpy as np

import pytriton_lite as ptl

MODELS = Path(__file__).resolve().parent / "models"

# Length and width of the sepals, of the petals, in centimetres.
FLOWERS = np.array(
    [[5.1, 3.5, 1.4, 0.2], [6.4, 3.2, 4.5, 1.5], [5.9, 3.0, 5.1, 1.8], [6.0, 2.7, 5.1, 1.6]],
    np.float32,
)


def show(title, answer):
    print(f"\n{title}")
    for label, row in zip(answer["SPECIES"][:, 0], answer["PROBABILITY"], strict=True):
        print(f"{label.decode():>12}", *(f"{p:6.2f}" for p in row))


def main():
    logging.basicConfig(format="\n%(name)s: %(message)s")
    with ptl.Server(MODELS) as server:
        classify, vote = server.model("classify"), server.model("vote")
        inputs = {"MEASURES": FLOWERS}
        for name in ("nearest_centroid", "naive_bayes"):
            show(name, classify.run(inputs, parameters={"classifier": name}))
        show("mean of both", vote(inputs))

        try:
            classify.run(inputs, parameters={"classifier": "perceptron"})
        except ptl.InternalError as error:
            print(f"\n{error}")
        names = "perceptron,naive_bayes"
        show(f"mean of {names}", vote.run(inputs, parameters={"classifiers": names}))
        try:
            vote({"MEASURES": -FLOWERS})
        except ptl.InvalidArgumentError as error:
            print(f"\n{error}")


if __name__ == "__main__":
    main()
