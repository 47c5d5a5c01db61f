"""All groups of the suite, in the order in which they are recorded."""

from __future__ import annotations

from .schema import Group, StreamGroup
from .tables.autocomplete import AUTOCOMPLETE
from .tables.bls import BLS, BLS_AT_RISK
from .tables.control import CONTROL, CONTROL_AT_RISK, CONTROL_NONE
from .tables.decoupled import DECOUPLED
from .tables.execute import EXECUTE, SILENT
from .tables.generated_inputs import GENERATED_INPUTS
from .tables.iterative import ITERATIVE
from .tables.lifecycle import LIFECYCLE
from .tables.pb_utils import PB_UTILS
from .tables.resolution import RESOLUTION
from .tables.sender import SENDERS, SENDERS_AT_RISK
from .tables.stacking import STACKING
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
    STACKING,
    GENERATED_INPUTS,
    SENDERS,
    SENDERS_AT_RISK,
    BLS,
    BLS_AT_RISK,
    CONTROL,
    CONTROL_NONE,
    CONTROL_AT_RISK,
    SILENT,  # last: the server may be left with a load that never ends
)

STREAM_GROUPS: tuple[StreamGroup, ...] = (DECOUPLED, ITERATIVE)
"""What is asked by streams, all responses of which are looked at."""
