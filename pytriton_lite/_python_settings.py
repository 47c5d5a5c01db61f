"""Settings of Triton's Python backend: ``--backend-config=python,<key>=<value>``.

Rules and texts are those of Triton 2.51 (observed), which gives them as the reason of every failed
load.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pytriton_lite.errors import InvalidArgumentError

DEFAULT_STUB_TIMEOUT_S = 30

# In this order; (key, least value, text). The message queue has no rule of its own.
_RULES = (
    ("shm-growth-byte-size", 1, "shm-growth-byte-size can't be smaller than or equal to zero."),
    ("shm-default-byte-size", 1 << 20, "shm-default-byte-size can't be smaller than 4 MiBs"),
    ("thread-pool-size", 1, "thread-pool-size can't be less than 1."),
    ("stub-timeout-seconds", 1, "stub-timeout-seconds can't be smaller than or equal to zero."),
    ("shm_message_queue_size", -(1 << 63), ""),
)

_WHOLE_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_LARGEST = (1 << 63) - 1


def stub_timeout_s(settings: Mapping[str, object]) -> int:
    """Seconds that a stub has to start, once all settings are found to be valid.

    Parameters
    ----------
    settings
        Values by key. Unknown keys are fine. Sizes and counts are checked and have no further
        meaning: the memory that is shared with a stub grows by itself.

    Raises
    ------
    InvalidArgumentError
        A value that Triton refuses.
    """
    values: dict[str, int] = {}
    for key, least, text in _RULES:
        if key not in settings:
            continue
        given = settings[key]
        values[key] = value = _stol(key, given)
        if value < least:
            raise _refused(text, key, given)
    if settings.get("shm-region-prefix-name") == "":
        # Triton's command line refuses it, as it does any empty value.
        raise _refused("shm-region-prefix-name can't be empty.", "shm-region-prefix-name", "")
    return values.get("stub-timeout-seconds", DEFAULT_STUB_TIMEOUT_S)


def _stol(key: str, given: object) -> int:
    """Read a number as `std::stol` does: what follows it does not count."""
    found = _WHOLE_NUMBER.match(str(given))
    value = None if found is None else int(found[1])
    # A number that is too large ends Triton's process.
    if value is None or not -_LARGEST - 1 <= value <= _LARGEST:
        raise _refused("stol", key, given)
    return value


def _refused(text: str, key: str, given: object) -> InvalidArgumentError:
    error = InvalidArgumentError(text)
    error.add_note(f"backend_configuration['python'][{key!r}] is {given!r}")
    return error
