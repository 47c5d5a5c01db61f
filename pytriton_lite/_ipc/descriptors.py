"""Descriptors that a child process and its parent share."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence

from pytriton_lite.errors import UnsupportedError

_STDERR = 2


def make_pipe() -> tuple[int, int]:
    """A pipe whose ends, close-on-exec, are above the standard streams.

    A parent may have closed those; `subprocess` would then overwrite our descriptors in the child.
    """
    ends = list(os.pipe())
    for index, fd in enumerate(ends):
        if fd <= _STDERR:
            ends[index] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
            os.close(fd)
    return ends[0], ends[1]


def open_pidfd(pid: int) -> int:
    """The process's pidfd, or -1 if it is gone without a trace (SIGCHLD is ignored)."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            raise UnsupportedError(
                f"instances in processes need pidfd_open (Linux 5.4), which failed: {error}"
            ) from error
        raise


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
