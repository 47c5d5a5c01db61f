"""Read the words of a decoupled model as they come: in order, side by side, and not to the end."""

import asyncio
from pathlib import Path

import pytriton_lite as ptl

MODELS = Path(__file__).resolve().parent / "models"


def word_of(response):
    return response["TOKEN"][0].decode()


def one_stream(rhyme):
    for seed in (1, 2):
        words = rhyme.stream({"PROMPT": "This is the"}, parameters={"seed": seed})
        print("This is the", *map(word_of, words))


def broken_off(rhyme):
    words = []
    with rhyme.stream({"PROMPT": "the cow"}, parameters={"seed": 3}) as stream:
        for response in stream:
            words.append(word_of(response))
            if words[-1] == "that":
                break  # cancels the request: the model stops
    print("\nup to 'that':", *words)


def refused(rhyme):
    try:
        list(rhyme.stream({"PROMPT": "the unicorn"}))
    except ptl.InvalidArgumentError as error:
        print(f"\n{error}")


async def side_by_side(rhyme):
    """Two streams of one model at a time; returns their words in the order of their arrival."""
    arrived = []

    async def read(prompt, seed):
        stream = rhyme.async_stream({"PROMPT": prompt, "MAX_TOKENS": 6}, parameters={"seed": seed})
        async for response in stream:
            arrived.append((prompt, word_of(response)))

    await asyncio.gather(read("the dog", 4), read("the maiden", 5))
    return arrived


async def main():
    async with ptl.Server(MODELS) as server:
        rhyme = server.model("rhyme")
        for part in (one_stream, broken_off, refused):
            await asyncio.to_thread(part, rhyme)
        print("\nside by side:")
        for prompt, word in await side_by_side(rhyme):
            print(f"{prompt:>12} ... {word}")


if __name__ == "__main__":
    asyncio.run(main())
