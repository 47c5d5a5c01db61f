"""All groups of the suite, in the order in which they are recorded."""

from __future__ import annotations

from .schema import Group, InferCase
from .tables.autocomplete import AUTOCOMPLETE
from .tables.execute import EXECUTE, SILENT
from .tables.later import LATER
from .tables.lifecycle import LIFECYCLE
from .tables.pb_utils import PB_UTILS
from .tables.resolution import RESOLUTION
from .tables.tensors import TENSORS
from .tables.validation import VALIDATION

GROUPS: tuple[Group, ...] = (
    RESOLUTION,
    LIFECYCLE,
    AUTOCOMPLETE,
    EXECUTE,
    PB_UTILS,
    TENSORS,
    VALIDATION,
    SILENT,  # last: the server may be left with a load that never ends
)

LATER_GROUPS: tuple[Group, ...] = (LATER,)
"""Recorded for later features; the test does not run them."""

LATER_CASES: tuple[InferCase, ...] = tuple(
    case for group in LATER_GROUPS for case in group.requests
)
