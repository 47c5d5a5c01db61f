"""`backend_configuration={"python": ...}`.

Expected results are those of 2.51, whose command line gives all values as text, unless a test
says else.
"""

from __future__ import annotations

import pytest

import pytriton_lite as ptl

SIZE = "shm-default-byte-size can't be smaller than 4 MiBs"
TIMEOUT = "stub-timeout-seconds can't be smaller than or equal to zero."
THREADS = "thread-pool-size can't be less than 1."


def options(**settings: object) -> ptl.Options:
    given = {key.replace("_", "-"): value for key, value in settings.items()}
    if "shm-message-queue-size" in given:
        given["shm_message_queue_size"] = given.pop("shm-message-queue-size")
    return ptl.Options(model_repository="m", backend_configuration={"python": given})


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("shm_default_byte_size", "1048575", SIZE),
        ("shm_default_byte_size", "12abc", SIZE),
        ("shm_default_byte_size", "abc", "stol"),
        (
            "shm_growth_byte_size",
            "0",
            "shm-growth-byte-size can't be smaller than or equal to zero.",
        ),
        ("shm_growth_byte_size", "x", "stol"),
        ("stub_timeout_seconds", "0", TIMEOUT),
        ("stub_timeout_seconds", "0x10", TIMEOUT),
        ("stub_timeout_seconds", "x", "stol"),
        ("thread_pool_size", "0", THREADS),
        ("thread_pool_size", "-1", THREADS),
        ("thread_pool_size", "x", "stol"),
        ("shm_message_queue_size", "x", "stol"),
        # Of our own: such a number ends the process of 2.51, and an empty value its command line.
        ("shm_default_byte_size", "99999999999999999999", "stol"),
        ("shm_region_prefix_name", "", "shm-region-prefix-name can't be empty."),
        ("stub_timeout_seconds", "", "stol"),
    ],
)
def test_refused(key: str, value: str, text: str) -> None:
    with pytest.raises(ptl.InvalidArgumentError) as caught:
        options(**{key: value})
    assert caught.value.message == text
    assert repr(value) in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shm_default_byte_size", "1048576"),
        ("shm_default_byte_size", "2097152abc"),
        ("shm_default_byte_size", " +2097152"),
        ("stub_timeout_milliseconds", "0"),
    ],
)
def test_accepted(key: str, value: str) -> None:
    assert options(**{key: value}).stub_timeout_s == 30


@pytest.mark.parametrize(("value", "seconds"), [("1.5", 1), ("99999999999", 99999999999), (7, 7)])
def test_stub_timeout(value: object, seconds: int) -> None:
    """The last one, a number, is for Python only."""
    assert options(stub_timeout_seconds=value).stub_timeout_s == seconds


def test_the_first_of_several_is_reported() -> None:
    with pytest.raises(ptl.InvalidArgumentError, match="shm-growth"):
        options(
            thread_pool_size="0",
            stub_timeout_seconds="0",
            shm_growth_byte_size="0",
            shm_default_byte_size="1",
        )
    with pytest.raises(ptl.InvalidArgumentError, match="thread-pool-size"):
        options(stub_timeout_seconds="0", thread_pool_size="0")


def test_other_backends_have_other_settings() -> None:
    ptl.Options(model_repository="m", backend_configuration={"other": {"thread-pool-size": "0"}})
