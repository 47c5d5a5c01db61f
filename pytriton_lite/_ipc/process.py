"""Child processes of any command: started, watched, heard and ended.

::

                   start          noticed by the monitor        pipes closed, group gone
    (made) ---------------> LIVE ------------------------> DEAD -------------------------> CLOSED
                              |                              |                               |
                      ASK, TERMINATE, KILL            reaped, the rest of             `wait` returns
                      (`terminate`, `kill`)           its group killed,
                                                      `on_exit` called

Each process leads a process group of its own: Ctrl-C in the terminal reaches the parent alone, and
what a model started ends with its stub. Two threads serve all processes, from the first one's start
to the last one's end: the monitor reads pidfds and pipes and never blocks on anything else, the
printer (see `output`) writes what was read.

Linux 5.4 or newer. Nothing here forks: `subprocess` uses vfork.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum

from pytriton_lite._ipc.descriptors import close_all, make_pipe, open_pidfd
from pytriton_lite._ipc.exit_report import ExitReport, signal_name
from pytriton_lite._ipc.lifeline import LIFELINE_VARIABLE
from pytriton_lite._ipc.output import Channel, OutputPipe, Printer
from pytriton_lite._ipc.process_group import is_group_gone

_log = logging.getLogger("pytriton_lite.ipc")

# Lines of stderr that an `ExitReport` shows, and characters of each. The stack of a crash takes
# half of them.
LAST_LINES = 40
LAST_LINE_CHARS = 1000

# Shares of the time that `terminate` has: SIGTERM and SIGKILL get these parts of it, at most so
# many seconds, and the polite request gets the rest, since that is where a model finalizes.
TERMINATE_SHARE, TERMINATE_LIMIT_S = 0.25, 5.0
KILL_SHARE, KILL_LIMIT_S = 0.15, 1.0

# How long `terminate` waits at most after its deadline: a kill takes milliseconds, on a busy
# machine tens of them. What the kernel cannot kill (uninterruptible sleep) is left behind.
OVERTIME_S = 1.0

# After the stub's death, time for the rest of its group to die. What left the group (`setsid`) and
# keeps a pipe open is not waited for: the pipe is closed, and its next write fails.
GROUP_LIMIT_S = 2.0

# Looks for the group that take microseconds and mostly suffice; later ones go through `/proc`.
_QUICK_LOOKS = 3

_READ_BYTES = 64 << 10
# What is read from a pipe at once when its stub is dead: all that such a pipe holds, while a
# process that left the group may go on filling it.
_DRAIN_BYTES = 1 << 20


class Stage(IntEnum):
    """How hard a process was asked to end; only ever raised."""

    NONE = 0
    ASK = 1
    TERMINATE = 2
    KILL = 3


class StubProcess:
    """A child process that is watched, and ended with its whole process group.

    Parameters
    ----------
    command
        Program and arguments.
    name
        What to call it in output and texts.
    env
        Its environment; this process's by default. `LIFELINE_VARIABLE` is added.
    pass_fds
        Descriptors that it inherits, under the same numbers.
    cwd
        Its working directory.
    stdin
        A descriptor; ``/dev/null`` by default.
    on_exit
        Called once with the report when it is dead, on the monitor's thread: quick work only,
        nothing that waits. It may start another process. What it raises is logged.
    on_line
        Called with ``"stdout"`` or ``"stderr"`` and a line, in place of printing it as
        ``[<name>] <line>`` to the current `sys.stdout` or `sys.stderr`.

    Notes
    -----
    Any thread may call any method. In a child that the parent forks, nothing happens and
    everything seems to have ended: the processes are the parent's.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | None = None,
        stdin: int | None = None,
        on_exit: Callable[[ExitReport], object] | None = None,
        on_line: Callable[[str, str], object] | None = None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._env = env
        self._pass_fds = tuple(pass_fds)
        self._cwd = cwd
        self._stdin = stdin
        self._on_exit = on_exit
        self._on_line = on_line
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._owner_pid: int | None = None  # the process that started it
        self._pid = 0
        self._started_ns = 0
        self._report: ExitReport | None = None
        self._closed = threading.Event()
        # Guards what follows. While it is held and `_is_reaped` is false, the process id belongs
        # to this process or its zombie, and signals cannot hit anybody else.
        # Reentrant, for signal handlers that end processes.
        self._lock = threading.RLock()
        self._is_reaped = False
        self._stage = Stage.NONE
        self._lifeline_fd = -1
        self._pidfd = -1
        # The monitor's own.
        self._pipes: list[OutputPipe] = []
        self._channel: Channel | None = None
        self._is_paused = False
        self._check_ns = 0  # when to look again whether the group of a dead stub is gone
        self._check_count = 0

    def start(self) -> None:
        """Start the process; returns when the program runs.

        Raises
        ------
        OSError
            It cannot be started: no such program, no more descriptors or processes.
        UnsupportedError
            The kernel is too old, or forbids pidfds.
        """
        # The lock also keeps other threads from forking meanwhile: their child would hold copies
        # of the new descriptors that nobody closes there, the lifeline's among them.
        with _monitor.lock:
            if self._owner_pid is not None:
                raise RuntimeError(f"'{self.name}' has been started before")
            printer = _monitor.ensure_running()
            try:
                self._spawn()
                self._channel = printer.open(self.name, self._on_line)
                try:
                    _monitor.add(self)
                except BaseException:
                    self._undo()
                    raise
            finally:
                _monitor.wake()  # it ends if this was to be the first and failed

    @property
    def pid(self) -> int:
        """Process id, and process group id; 0 before the start."""
        return self._pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return self._is_ours and not self._is_reaped

    @property
    def report(self) -> ExitReport | None:
        """How it ended; None before that."""
        return self._report

    @property
    def _is_ours(self) -> bool:
        return self._owner_pid == os.getpid()

    def send_signal(self, number: int) -> bool:
        """Send a signal to the process alone; returns whether it was there."""
        if not self._is_ours:
            return False
        with self._lock:
            return self._send(number)

    def kill(self) -> None:
        """Kill the process group; returns at once."""
        self._advance(Stage.KILL)

    def terminate(self, deadline_ns: int, *, polite_signal: int | None = None) -> bool:
        """End the process, politely first, and wait until nothing of it is left.

        Parameters
        ----------
        deadline_ns
            When it must be over (`time.monotonic_ns`): at first the process is asked, then its
            group gets SIGTERM, then SIGKILL, each with a share of the time. In the past: SIGKILL.
        polite_signal
            How to ask: a signal for the process alone. By default the lifeline is closed.

        Returns
        -------
        bool
            False if something is left `OVERTIME_S` after the deadline.

        Notes
        -----
        May be called again, and by several threads with deadlines of their own; the earliest one
        counts. A stopped process is continued, so that it can obey.
        """
        left_ns = deadline_ns - time.monotonic_ns()
        if left_ns > 0:
            kill_ns = deadline_ns - _share_ns(left_ns, KILL_SHARE, KILL_LIMIT_S)
            term_ns = kill_ns - _share_ns(left_ns, TERMINATE_SHARE, TERMINATE_LIMIT_S)
            self._advance(Stage.ASK, polite_signal)
            if self.wait(term_ns):
                return True
            self._advance(Stage.TERMINATE)
            if self.wait(kill_ns):
                return True
        self._advance(Stage.KILL)
        return self.wait(max(deadline_ns, time.monotonic_ns()) + round(OVERTIME_S * 1e9))

    def wait(self, deadline_ns: int) -> bool:
        """Wait until the process and its group are gone and its output has been printed.

        Returns False when `deadline_ns` (`time.monotonic_ns`) passed before they were gone. For
        output that is blocked, and for the serving threads to end after the last process, it
        waits no longer than `OVERTIME_S`.
        """
        if not self._is_ours:
            return True
        _monitor.check_may_wait()
        if not self._closed.wait(_left_s(deadline_ns)):
            return False
        _monitor.settle(self._channel, OVERTIME_S)
        return True

    def _spawn(self) -> None:
        """Start the process and keep its descriptors."""
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for _ in range(3):
                read_fd, write_fd = make_pipe()
                is_lifeline = not theirs
                theirs.append(read_fd if is_lifeline else write_fd)
                ours.append(write_fd if is_lifeline else read_fd)
            env = dict(os.environ if self._env is None else self._env)
            env[LIFELINE_VARIABLE] = str(theirs[0])
            self._started_ns = time.monotonic_ns()
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL if self._stdin is None else self._stdin,
                stdout=theirs[1],
                stderr=theirs[2],
                pass_fds=(*self._pass_fds, theirs[0]),
                env=env,
                cwd=self._cwd,
                process_group=0,
            )
            try:
                pidfd = open_pidfd(process.pid)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            # The monitor waits for it from here on; Popen must not, nor warn that it still runs.
            process.returncode = 0
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        self._lifeline_fd, *output_fds = ours
        for stream, fd in zip(("stdout", "stderr"), output_fds, strict=True):
            os.set_blocking(fd, False)
            self._pipes.append(OutputPipe(stream, fd))
        self._pid = process.pid
        self._pidfd = pidfd
        self._owner_pid = os.getpid()

    def _undo(self) -> None:
        """End a process that cannot be watched (the kernel limits that, too)."""
        os.killpg(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)
        self._forget()
        self._owner_pid = None
        self._is_reaped = True

    def _advance(self, stage: Stage, polite_signal: int | None = None) -> None:
        """Do what a stage says, unless that or a later one was done."""
        if not self._is_ours:
            return
        with self._lock:
            if self._is_reaped or stage <= self._stage:
                return
            self._stage = stage
            if stage is Stage.ASK:
                if polite_signal is None:
                    self._close_lifeline()
                else:
                    self._send(polite_signal)
            else:
                number = signal.SIGTERM if stage is Stage.TERMINATE else signal.SIGKILL
                self._send_group(number)
            self._send_group(signal.SIGCONT)

    def _send(self, number: int) -> bool:
        """Signal the process. The lock is held."""
        if self._is_reaped or self._pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except (ProcessLookupError, PermissionError):  # the latter: it has another user by now
            return False
        return True

    def _send_group(self, number: int) -> None:
        """Signal the group. The lock is held, and the process not reaped."""
        try:
            os.killpg(self._pid, number)
        except (ProcessLookupError, PermissionError):
            # It moved to another group. In all other cases one signal must not become two.
            self._send(number)

    def _close_lifeline(self) -> None:
        """Close it, once. The lock is held."""
        # The monitor's lock at every close: a forked child closes what it finds open here.
        with _monitor.lock:
            close_all([self._lifeline_fd])
            self._lifeline_fd = -1

    def _reap(self) -> bool:
        """Kill what is left of the group, reap and make the report; False if it is alive."""
        with self._lock:
            exit_code, signal_number = None, None
            if self._pidfd >= 0:
                try:
                    result = os.waitid(
                        os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT
                    )
                    if result is None:
                        return False
                    if result.si_code == os.CLD_EXITED:
                        exit_code = result.si_status
                    else:
                        signal_number = result.si_status
                except ChildProcessError:
                    pass  # SIGCHLD is ignored, or somebody waits for any child
            died_ns = time.monotonic_ns()
            # Before the process id becomes free. A process that is being forked in the group
            # cannot escape: the kernel sends to the group or forks, not both at once.
            self._send_group(signal.SIGKILL)
            if self._pidfd >= 0:
                with contextlib.suppress(ChildProcessError):
                    os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
                with _monitor.lock:
                    os.close(self._pidfd)
                    self._pidfd = -1
            self._is_reaped = True
            self._close_lifeline()
            is_expected = self._stage is not Stage.NONE
        last_lines = list(self._last_lines)
        for pipe in self._pipes:
            if pipe.stream == "stderr":
                last_lines += pipe.splitter.pending()
        self._report = ExitReport(
            name=self.name,
            pid=self._pid,
            exit_code=exit_code,
            signal_name=None if signal_number is None else signal_name(signal_number),
            is_expected=is_expected,
            last_lines=tuple(line[:LAST_LINE_CHARS] for line in last_lines[-LAST_LINES:]),
            started_ns=self._started_ns,
            died_ns=died_ns,
        )
        return True

    def _forget(self) -> None:
        """Close all descriptors: they are not watched here."""
        close_all([self._lifeline_fd, self._pidfd, *(pipe.fd for pipe in self._pipes)])


class ProcessMonitor:
    """The thread that watches all processes of this Python process; there is one, `_monitor`.

    Attributes
    ----------
    lock
        Guards the set of processes and the start and end of the thread. Held by forks.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._has_hooks = False
        self._reset()

    def _reset(self) -> None:
        self._stubs: set[StubProcess] = set()
        self._watched: dict[int, tuple[StubProcess, OutputPipe | None]] = {}
        self._paused: set[StubProcess] = set()  # the thread's own, like the next
        self._dead: set[StubProcess] = set()
        self._epoll: select.epoll | None = None
        self._wake_fd = -1
        self._thread: threading.Thread | None = None
        self._printer: Printer | None = None
        self._is_running = False

    def ensure_running(self) -> Printer:
        """Start the threads if they do not run. The lock is held, until a process is added."""
        if not self._has_hooks:
            self._has_hooks = True
            os.register_at_fork(
                before=self.lock.acquire,
                after_in_parent=self.lock.release,
                after_in_child=self._after_fork,
            )
            atexit.register(self._kill_all)
        if not self._is_running:
            self._epoll = select.epoll()
            try:
                self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._epoll.register(self._wake_fd, select.EPOLLIN)
                self._printer = Printer(self.wake)
                # A daemon, so that processes that nobody ends do not keep this one alive.
                self._thread = threading.Thread(
                    target=self._main, name="pytriton_lite-monitor", daemon=True
                )
                self._is_running = True
                self._thread.start()
            except BaseException:
                self._close()
                raise
        assert self._printer is not None
        return self._printer

    def add(self, stub: StubProcess) -> None:
        """Watch a process that was just started. The lock is held."""
        assert self._epoll is not None
        pipes = {pipe.fd: pipe for pipe in stub._pipes}
        fds = [fd for fd in (*pipes, stub._pidfd) if fd >= 0]
        self._stubs.add(stub)
        try:
            # The pidfd last: before it is watched, nothing ends this.
            for fd in fds:
                self._watch(fd, stub, pipes.get(fd))
        except BaseException:
            self._stubs.discard(stub)
            for fd in fds:
                self._unwatch(fd)
            raise

    def wake(self) -> None:
        """Let the thread look at everything again."""
        with self.lock:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def check_may_wait(self) -> None:
        """Refuse a wait on the thread that would have to end it."""
        if self._is_running and threading.current_thread() is self._thread:
            raise RuntimeError("`on_exit` must not wait for a process")

    def settle(self, channel: Channel | None, seconds: float) -> None:
        """Wait until the output of a closed process is printed, and, if it was the last, the end.

        A caller that looks for threads left behind finds none.
        """
        deadline_ns = time.monotonic_ns() + round(seconds * 1e9)
        with self.lock:
            printer = self._printer.thread if self._printer is not None else None
            thread = self._thread if not self._stubs else None
        if threading.current_thread() is printer:
            return
        if channel is not None:
            channel.is_done.wait(_left_s(deadline_ns))
        if thread is not None:
            thread.join(_left_s(deadline_ns))
            if printer is not None:
                printer.join(_left_s(deadline_ns))

    def _watch(self, fd: int, stub: StubProcess, pipe: OutputPipe | None) -> None:
        assert self._epoll is not None
        self._watched[fd] = (stub, pipe)  # first, since its event may come at once
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except BaseException:
            del self._watched[fd]
            raise

    def _unwatch(self, fd: int) -> None:
        """Before the descriptor is closed: another thread may get its number at once."""
        assert self._epoll is not None
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    # Below: the monitor's thread, but for the last section.

    def _main(self) -> None:
        epoll, printer = self._epoll, self._printer
        assert epoll is not None
        assert printer is not None
        while True:
            ready = [fd for fd, _ in epoll.poll(self._pause_s())]
            # Deaths first: they must not wait for a flood of output.
            pipes: list[tuple[StubProcess, OutputPipe]] = []
            for fd in ready:
                if fd == self._wake_fd:
                    os.eventfd_read(fd)
                    continue
                # None if what came before in this round closed it. Should the number be somebody
                # else's by now, there is nothing to reap or to read, and nothing happens.
                stub, pipe = self._watched.get(fd, (None, None))
                if stub is not None and pipe is None:
                    self._guarded(self._bury, stub, printer)
                elif stub is not None and pipe is not None:
                    pipes.append((stub, pipe))
            for stub, pipe in pipes:
                self._guarded(self._read, stub, pipe, printer)
            self._guarded(self._look_after, printer)
            if not self._stubs:
                with self.lock:
                    # Nobody is between `ensure_running` and `add` now.
                    if not self._stubs:
                        self._close()
                        return

    def _guarded(self, step: Callable[..., object], *args: object) -> None:
        try:
            step(*args)
        except Exception:
            # A defect of ours. The other processes must still be watched; a pause, since the
            # same may come again at once.
            _log.exception("the process monitor failed; please report this")
            time.sleep(0.01)

    def _pause_s(self) -> float | None:
        if self._dead:
            return _left_s(min(stub._check_ns for stub in self._dead))
        # Whether the printer is stalled has to be looked at; all else gives an event.
        return 0.1 if self._paused else None

    def _read(self, stub: StubProcess, pipe: OutputPipe, printer: Printer) -> bool:
        """Pass on what one read gives; returns whether there may be more."""
        assert stub._channel is not None
        if pipe.fd < 0:
            return False
        try:
            data = os.read(pipe.fd, _READ_BYTES)
        except BlockingIOError:
            return False
        lines = pipe.splitter.feed(data) if data else pipe.splitter.finish()
        if pipe.stream == "stderr":
            stub._last_lines.extend(lines[-LAST_LINES:])
        printer.put(stub._channel, pipe.stream, lines)
        if not data:
            self._close_pipe(pipe)
        elif stub._channel.is_full and stub not in self._dead and not stub._is_paused:
            stub._is_paused = True
            self._paused.add(stub)
            for other in stub._pipes:
                self._unwatch(other.fd)
        return bool(data)

    def _drain(self, stub: StubProcess, printer: Printer) -> None:
        """Read what a dead stub's pipes hold."""
        for pipe in stub._pipes:
            for _ in range(_DRAIN_BYTES // _READ_BYTES):
                if not self._read(stub, pipe, printer):
                    break

    def _close_pipe(self, pipe: OutputPipe) -> None:
        self._unwatch(pipe.fd)
        with self.lock:
            os.close(pipe.fd)
            pipe.fd = -1

    def _bury(self, stub: StubProcess, printer: Printer) -> None:
        """Reap a stub if it is dead, and tell its owner."""
        pidfd = stub._pidfd
        # So that the report has the last lines. They were written before the death.
        self._dead.add(stub)
        self._drain(stub, printer)
        self._unwatch(pidfd)
        if not stub._reap():
            self._dead.discard(stub)
            self._watch(pidfd, stub, None)
            return
        self._paused.discard(stub)
        stub._check_ns = time.monotonic_ns()
        report, on_exit = stub._report, stub._on_exit
        stub._on_exit = None  # its owner, mostly, who shall not be kept in a cycle
        assert report is not None
        if on_exit is not None:
            try:
                on_exit(report)
            except BaseException:  # a SystemExit, too, would leave all others unwatched
                _log.exception("the exit callback of '%s' failed", stub.name)

    def _look_after(self, printer: Printer) -> None:
        """Close dead stubs whose group is gone; let paused ones go on."""
        for stub in [stub for stub in self._stubs.copy() if stub._pidfd < 0]:
            if stub not in self._dead:
                self._bury(stub, printer)  # was gone before its pidfd could be opened
        now_ns = time.monotonic_ns()
        for stub in [stub for stub in self._dead if stub._check_ns <= now_ns]:
            self._close_if_gone(stub, printer, now_ns)
        for stub in list(self._paused):
            assert stub._channel is not None
            if printer.is_stalled and not stub._channel.has_room:
                printer.lose(stub._channel)
            elif not stub._channel.has_room:
                continue
            self._paused.discard(stub)
            stub._is_paused = False
            for pipe in stub._pipes:
                if pipe.fd >= 0:
                    self._watch(pipe.fd, stub, pipe)

    def _close_if_gone(self, stub: StubProcess, printer: Printer, now_ns: int) -> None:
        assert stub._channel is not None
        assert stub._report is not None
        stub._check_count += 1
        if not is_group_gone(stub._pid, is_thorough=stub._check_count > _QUICK_LOOKS):
            if now_ns - stub._report.died_ns < GROUP_LIMIT_S * 1e9:
                stub._check_ns = now_ns + min(10**6 << stub._check_count, 50 * 10**6)
                return
            _log.warning("processes of '%s' (process group %d) remain", stub.name, stub._pid)
        self._drain(stub, printer)
        for pipe in stub._pipes:
            if pipe.fd >= 0:
                printer.put(stub._channel, pipe.stream, pipe.splitter.finish())
                self._close_pipe(pipe)
        printer.close(stub._channel)
        self._dead.discard(stub)
        with self.lock:
            self._stubs.discard(stub)
        stub._closed.set()

    # Any thread.

    def _close(self) -> None:
        """End of the run; `_thread` and `_printer` stay for who waits. The lock is held."""
        self._is_running = False
        if self._printer is not None:
            self._printer.finish()
        if self._epoll is not None:
            self._epoll.close()
        close_all([self._wake_fd])
        self._epoll, self._wake_fd = None, -1

    def _after_fork(self) -> None:
        """In a forked child: the processes are its parent's."""
        # The forking thread holds the lock, so everything is consistent. epoll is told nothing:
        # what it watches is shared with the parent.
        try:
            for stub in self._stubs:
                stub._forget()
            if self._epoll is not None:
                self._epoll.close()
            close_all([self._wake_fd])
            self._reset()
        finally:
            self.lock.release()

    def _kill_all(self) -> None:
        """At exit: whatever nobody ended, ends; and no thread is inside `sys.stdout` afterwards."""
        deadline_ns = time.monotonic_ns() + round(OVERTIME_S * 1e9)
        with self.lock:
            stubs = list(self._stubs)
        for stub in stubs:
            stub.kill()
        for stub in stubs:
            stub._closed.wait(_left_s(deadline_ns))
        self.settle(None, OVERTIME_S)


def _share_ns(total_ns: int, share: float, limit_s: float) -> int:
    return min(round(total_ns * share), round(limit_s * 1e9))


def _left_s(deadline_ns: int) -> float:
    return max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)


_monitor = ProcessMonitor()
