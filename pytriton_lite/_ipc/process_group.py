"""Process groups, as far as their end is concerned."""

from __future__ import annotations

import os


def is_group_gone(group: int, *, is_thorough: bool) -> bool:
    """Whether a process group has no member, or, looking thoroughly, none but zombies."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    if not is_thorough:
        return False
    # Where process 1 does not reap, as in many containers, zombies stay.
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return False
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The second field, a name in parentheses, may contain anything.
                state, _, member_of, *_ = file.read().rpartition(b")")[2].split()
        except (OSError, ValueError):
            continue  # gone meanwhile
        if int(member_of) == group and state not in (b"Z", b"X"):
            return False
    return True
