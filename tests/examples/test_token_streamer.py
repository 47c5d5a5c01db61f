from __future__ import annotations

import asyncio
import gc
import logging
import re
import shlex
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

import pytriton_lite as ptl

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "token_streamer"
COMMAND = "python examples/token_streamer/run.py"
RHYME = (FOLDER / "models" / "rhyme" / "1" / "rhyme.txt").read_text()
PAIRS = {pair for line in RHYME.splitlines() for pair in pairwise(line.split())}


@pytest.fixture(scope="module")
def output():
    assert COMMAND in (FOLDER / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, *shlex.split(COMMAND)[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_prints_whole_sentences(output):
    first, second = (line.split() for line in output.splitlines()[:2])
    assert first != second
    for words in (first, second):
        assert set(pairwise(words)) <= PAIRS
        assert (words[-1], ".") in PAIRS or len(words) == 3 + 100


def test_command_breaks_off(output):
    words = re.search(r"^up to 'that': (.*)$", output, re.MULTILINE)[1].split()
    assert words.index("that") == len(words) - 1


def test_command_prints_an_error(output):
    assert "\nno line of the rhyme goes on after 'unicorn'\n" in output


def test_command_reads_two_streams_side_by_side(output):
    prompts = re.findall(r"^ +(the \w+) \.\.\. ", output.partition("side by side")[2], re.MULTILINE)
    assert set(prompts[:2]) == {"the dog", "the maiden"}  # both begin before one ends


class Log(logging.Handler):
    """Lets a test wait for the message of a model."""

    def __init__(self):
        super().__init__()
        self.messages = []
        self.has_message = threading.Event()

    def emit(self, record):
        self.messages.append(record.getMessage())
        self.has_message.set()


@pytest.fixture
def log():
    logger = logging.getLogger("pytriton_lite.model.rhyme")
    level, handler = logger.level, Log()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(scope="module", params=["thread", "inline"])
def rhyme(request):
    with ptl.Server(FOLDER / "models", execution=request.param) as server:
        yield server.model("rhyme")


def word_of(response):
    return response["TOKEN"][0].decode()


def test_equal_seeds_give_equal_words(rhyme):
    texts = [
        [word_of(r) for r in rhyme.stream({"PROMPT": "is the"}, parameters={"seed": seed})]
        for seed in (7, 7, 8)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_words_follow_each_other_in_the_rhyme(rhyme):
    words = ["Jack", *map(word_of, rhyme.stream({"PROMPT": "Jack"}))]
    # By hand: only "built" follows "Jack", and only the full stop "built".
    assert words == ["Jack", "built"]


def test_limit(rhyme):
    responses = list(rhyme.infer(inputs={"PROMPT": "horn", "MAX_TOKENS": 3}))
    assert [response.final for response in responses] == [False, False, False, True]
    assert not responses[-1].outputs
    assert word_of(responses[0]) == "that"


def test_many_streams_share_the_instance(rhyme):
    streams = [rhyme.stream({"PROMPT": "the", "MAX_TOKENS": 20}) for _ in range(20)]
    firsts = [word_of(next(stream)) for stream in streams]
    # Equal seeds, equal words; and all have begun while none has ended.
    assert len(set(firsts)) == 1
    for stream in streams:
        stream.close()


def test_errors_keep_their_code(rhyme):
    with pytest.raises(ptl.InvalidArgumentError, match=r"^no line of the rhyme goes on after ''$"):
        next(rhyme.stream({"PROMPT": " "}))


@pytest.mark.parametrize("how", ["break", "close", "drop"])
def test_model_stops_when_the_reader_goes(rhyme, log, how):
    stream = rhyme.stream({"PROMPT": "the", "MAX_TOKENS": 1_000_000})
    next(stream)
    if how == "close":
        stream.close()
    elif how == "break":
        with stream:
            for _ in stream:
                break
    else:
        del stream
        gc.collect()
    assert log.has_message.wait(10)
    assert re.fullmatch(r"the client has gone after \d+ words", log.messages[0])


def test_model_stops_when_the_task_is_cancelled(rhyme, log):
    async def main():
        started = asyncio.Event()

        async def read():
            inputs = {"PROMPT": "the", "MAX_TOKENS": 1_000_000}
            async for _ in rhyme.async_stream(inputs, parameters={"seed": 1}):
                started.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log.has_message.wait(10)


@pytest.mark.parametrize("call", ["async_stream", "async_infer"])
def test_model_stops_when_a_loop_is_left(rhyme, log, call):
    inputs = {"PROMPT": "the", "MAX_TOKENS": 1_000_000}

    async def main():
        responses = (
            rhyme.async_stream(inputs)
            if call == "async_stream"
            else rhyme.async_infer(inputs=inputs)
        )
        count = 0
        async for _ in responses:
            count += 1
            if count == 3:
                break
        del responses
        assert await asyncio.to_thread(log.has_message.wait, 10)

    asyncio.run(main())


def test_streams_of_a_loop_run_side_by_side(rhyme):
    async def main():
        async def read(seed):
            words = rhyme.async_stream({"PROMPT": "the"}, parameters={"seed": seed})
            return [word_of(response) async for response in words]

        return await asyncio.gather(*(read(seed) for seed in (1, 2, 1)))

    first, second, third = asyncio.run(main())
    assert first == third
    assert {*pairwise(first), *pairwise(second)} <= PAIRS


def test_one_response_is_not_enough(rhyme):
    with pytest.raises(ptl.UnsupportedError, match=r"use stream\(\)"):
        rhyme({"PROMPT": "the", "MAX_TOKENS": 2})
