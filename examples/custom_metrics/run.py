"""Ask a model with custom metrics, and print what a Prometheus server would scrape."""

from pathlib import Path

import pytriton_lite as ptl

MODELS = Path(__file__).resolve().parent / "models"


def main():
    with ptl.Server(MODELS) as server:
        word_count = server.model("word_count")
        print(
            *word_count({"TEXT": ["one", "two words", "the longest of all three texts"]})["WORDS"]
        )
        try:
            word_count({"TEXT": [b"\xff"]})
        except ptl.InvalidArgumentError as error:
            print(error)
        print(f"\n{server.metrics()}")


if __name__ == "__main__":
    main()
