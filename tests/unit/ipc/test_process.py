"""Child processes: start, output, death, end; with real ones."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytriton_lite._ipc import output
from pytriton_lite._ipc.backoff import Backoff
from pytriton_lite._ipc.exit_report import ExitReport, describe_exit, signal_name
from pytriton_lite._ipc.lifeline import LIFELINE_VARIABLE, watch_lifeline
from pytriton_lite._ipc.output import BACKLOG_LIMIT_BYTES, LINE_LIMIT_BYTES, LineSplitter
from pytriton_lite._ipc.process import LAST_LINES, ProcessMonitor, StubProcess
from pytriton_lite.errors import UnsupportedError
from tests.support.limits import until
from tests.support.scripted import hard_limit


def processes(field: int, number: int) -> dict[int, str]:
    """Processes with this parent (field 1) or process group (2), with their states."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                if int(fields[field]) == number:
                    found[int(name)] = fields[0].decode()
    return found


def children() -> set[int]:
    return set(processes(1, os.getpid()))


def group_members(group: int) -> dict[int, str]:
    """Members of a process group that are not zombies; in a container, nobody may reap those."""
    return {pid: state for pid, state in processes(2, group).items() if state not in "ZX"}


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Each test has half a minute, and leaves no child, zombie, thread or descriptor behind."""
    before = children(), len(open_fds()), set(threading.enumerate())
    with hard_limit(30):
        yield
        until(lambda: children() <= before[0])
        until(lambda: set(threading.enumerate()) <= before[2])
        until(lambda: len(open_fds()) <= before[1])


class Started:
    """A process with what is told about it."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.reports: list[ExitReport] = []
        self.lines: list[tuple[str, str]] = []
        if options.pop("is_captured", True):
            options["on_line"] = lambda stream, line: self.lines.append((stream, line))
        options.setdefault("on_exit", self.reports.append)
        self.process = StubProcess(command, name="m_0", **options)
        self.process.start()

    def end(self, *, within_s: float = 0, **options: Any) -> ExitReport:
        """Terminate it, at once unless there is time; returns the report."""
        assert self.process.terminate(after(within_s), **options)
        assert self.process.report is not None
        return self.process.report

    def died(self) -> ExitReport:
        """Wait until it has ended by itself, and everything of it."""
        assert self.process.wait(after(20))
        assert self.process.report is not None
        return self.process.report

    def says(self, text: str) -> None:
        """Wait for a line."""
        until(lambda: any(line == text for _, line in self.lines))


def after(seconds: float) -> int:
    return time.monotonic_ns() + round(seconds * 1e9)


def sh(script: str, **options: Any) -> Started:
    return Started(["/bin/sh", "-c", script], **options)


def py(script: str, **options: Any) -> Started:
    env = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1"}
    # Bare where it can be: that starts several times faster.
    bare = [] if "pytriton_lite" in script else ["-S"]
    return Started([sys.executable, *bare, "-c", textwrap.dedent(script)], env=env, **options)


def test_start_gives_group_environment_descriptors_and_folder() -> None:
    read_fd, write_fd = os.pipe()
    script = (
        "import os; print(os.getpgrp() == os.getpid(), os.environ['X']);"
        f"os.write({write_fd}, b'here');"
        "print(os.readlink('/proc/self/fd/0'), os.getcwd())"
    )
    try:
        started = Started(
            [sys.executable, "-S", "-c", script],
            env={**os.environ, "X": "y"},
            pass_fds=[write_fd],
            cwd="/",
        )
        assert started.process.pid > 0
        assert started.died().exit_code == 0
        assert os.read(read_fd, 10) == b"here"
    finally:
        os.close(read_fd)
        os.close(write_fd)
    assert started.lines == [("stdout", "True y"), ("stdout", "/dev/null /")]


def test_start_inherits_nothing_else() -> None:
    with open("/dev/null") as file:
        os.set_inheritable(file.fileno(), True)
        other = sh("sleep 100")
        started = sh("ls /proc/self/fd; echo $" + LIFELINE_VARIABLE)
        started.died()
        other.end()
    *fds, lifeline = [line for _, line in started.lines]
    # One more is the folder that `ls` reads.
    assert len(fds) == 5
    assert {"0", "1", "2", lifeline} < set(fds)


def test_start_reads_stdin_from_a_given_descriptor() -> None:
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"typed\n")
    os.close(write_fd)
    started = sh("cat", stdin=read_fd)
    os.close(read_fd)
    started.died()
    assert started.lines == [("stdout", "typed")]


def test_start_of_nothing_raises_and_leaves_nothing() -> None:
    process = StubProcess(["/no/such/program"], name="m_0")
    with pytest.raises(FileNotFoundError):
        process.start()
    assert not process.is_alive
    assert process.terminate(after(1))


def test_start_twice_raises() -> None:
    started = sh("sleep 100")
    with pytest.raises(RuntimeError, match="'m_0' has been started before"):
        started.process.start()
    started.end()


def test_start_fails_where_pidfds_are_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(UnsupportedError, match="need pidfd_open"):
        sh("sleep 100")


def test_start_fails_where_no_more_can_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ProcessMonitor._watch

    def refuse(self: Any, fd: int, stub: Any, pipe: Any) -> None:
        if pipe is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        watch(self, fd, stub, pipe)

    monkeypatch.setattr(ProcessMonitor, "_watch", refuse)
    process = StubProcess(["/bin/sh", "-c", "sleep 100"], name="m_0")
    with pytest.raises(OSError, match="No space"):
        process.start()
    assert not process.is_alive
    deadline = time.monotonic() + 10
    while group_members(process.pid):  # killed, and gone when the system gets to it
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert process.terminate(after(1))


# What a process says.


def test_output_appears_tagged_in_current_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    sh("echo one; echo two >&2; echo; printf three", is_captured=False).died()
    assert out.getvalue() == "[m_0] one\n[m_0] \n[m_0] three\n"
    assert err.getvalue() == "[m_0] two\n"


def test_output_appears_before_the_end() -> None:
    started = sh("echo now; sleep 100")
    started.says("now")
    assert started.process.is_alive
    started.end()


@pytest.mark.parametrize("stream", [None, io.TextIOWrapper(io.BytesIO(), "ascii"), "closed"])
def test_output_to_odd_streams_breaks_nothing(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    sh("echo 'ä'", is_captured=False).died()
    if stream is not None and not stream.closed:
        assert stream.buffer.getvalue() == b"[m_0] \\xe4\n"


def test_output_lines_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    script = "i=0; while [ $i -lt 300 ]; do printf abc; echo def; i=$((i+1)); done"
    all_started = [sh(script, is_captured=False) for _ in range(6)]
    for started in all_started:
        started.died()
    assert out.getvalue() == "[m_0] abcdef\n" * 1800


def test_output_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    lines = []

    def on_line(stream: str, line: str) -> None:
        lines.append(line)
        raise SystemExit

    sh("echo 1; echo 2", is_captured=False, on_line=on_line).died()
    assert lines == ["1", "2"]
    assert "callback for output failed" in caplog.text


def test_flood_is_slowed_down_not_kept() -> None:
    allowed = threading.Event()
    lines = []

    def on_line(stream: str, line: str) -> None:
        allowed.wait()
        lines.append(line)

    script = "import os\nfor i in range(200): os.write(1, (b'x' * 9999 + b'\\n'))\nos.write(2, b'')"
    started = py(script, is_captured=False, on_line=on_line)
    until(lambda: started.process._is_paused)
    channel = started.process._channel
    assert channel is not None
    assert channel.backlog_bytes < BACKLOG_LIMIT_BYTES + 2 * (64 << 10)
    assert started.process.is_alive
    allowed.set()
    started.died()
    assert lines == ["x" * 9999] * 200


def test_blocked_output_does_not_block_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "STALL_S", 0.2)
    allowed = threading.Event()
    lines = []

    def on_line(stream: str, line: str) -> None:
        allowed.wait()
        lines.append(line)

    script = "import os\nfor i in range(500): os.write(1, (b'x' * 9999 + b'\\n'))"
    started = py(script, is_captured=False, on_line=on_line)
    until(lambda: started.reports)
    # A death is noticed meanwhile, too.
    other = sh("exit 1")
    until(lambda: other.reports)
    allowed.set()
    started.died()
    other.died()
    *first, note = lines
    assert set(first) == {"x" * 9999}
    assert note == f"... {500 - len(first)} lines were lost, because the output was blocked"


def test_grandchild_outside_the_group_does_not_keep_the_pipes() -> None:
    started = sh("setsid sleep 100 & echo $!; sleep 0.2; exec sleep 100")
    until(lambda: started.lines)
    before_ns = time.monotonic_ns()
    pid = int(started.lines[0][1])
    started.end()
    assert time.monotonic_ns() - before_ns < 2e9
    os.kill(pid, signal.SIGKILL)


@given(
    data=st.binary(max_size=200) | st.text("aé€😀\n\r", max_size=100).map(str.encode),
    cuts=st.lists(st.integers(0, 200), max_size=6),
    limit=st.integers(1, 12),
)
def test_splitter_does_not_depend_on_the_pieces(data: bytes, cuts: list[int], limit: int) -> None:
    whole, parts = LineSplitter(limit), LineSplitter(limit)
    expected = whole.feed(data) + whole.finish()
    cuts = sorted(cuts)
    lines = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        lines += parts.feed(data[start:end])
        assert len(parts._rest) <= limit
    assert lines + parts.finish() == expected


@given(data=st.binary(max_size=300))
def test_splitter_makes_the_lines_of_the_text(data: bytes) -> None:
    splitter = LineSplitter()
    lines = splitter.feed(data) + splitter.finish()
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert lines == [line.removesuffix(b"\r").decode(errors="replace") for line in expected]


@given(text=st.text("aé€😀", min_size=1), limit=st.integers(4, 9))
def test_splitter_cuts_between_characters(text: str, limit: int) -> None:
    splitter = LineSplitter(limit)
    lines = splitter.feed(text.encode()) + splitter.finish()
    assert "".join(lines) == text
    assert all(limit - 3 <= len(line.encode()) <= limit for line in lines[:-1])


def test_long_line_is_split() -> None:
    started = py(f"import os; os.write(1, b'x' * {2 * LINE_LIMIT_BYTES + 5})")
    started.died()
    assert [len(line) for _, line in started.lines] == [LINE_LIMIT_BYTES, LINE_LIMIT_BYTES, 5]


# Death.


def test_exit_is_reported_once_with_the_last_lines() -> None:
    started = sh("for i in $(seq 50); do echo $i >&2; done; printf last >&2; exit 3")
    report = started.died()
    assert started.reports == [report]
    assert (report.exit_code, report.signal_name, report.is_expected) == (3, None, False)
    assert report.last_lines == (*map(str, range(12, 51)), "last")
    assert len(report.last_lines) == LAST_LINES
    assert 0 < report.lived_s < 20
    assert not started.process.is_alive


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGTERM"])
def test_death_by_signal_is_reported(name: str) -> None:
    report = sh(f"kill -{name[3:]} $$; sleep 100").died()
    assert (report.exit_code, report.signal_name) == (None, name)


def test_death_takes_the_group_along() -> None:
    started = sh("sleep 100 & (sleep 100 & sleep 100) & echo up; wait")
    started.says("up")
    until(lambda: len(group_members(started.process.pid)) >= 4)
    os.kill(started.process.pid, signal.SIGKILL)
    started.died()
    assert not group_members(started.process.pid)


def test_process_that_forks_and_exits_leaves_nobody() -> None:
    started = sh("(trap '' TERM HUP; sleep 100; sleep 100) & exit 0")
    assert started.died().exit_code == 0
    assert not group_members(started.process.pid)


def test_zombie_that_nobody_reaps_is_not_waited_for() -> None:
    # Its parent has left the group, lives on and does not look after it.
    started = py(
        """
        import os, time
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(100)
            os.setpgid(0, 0)
            print(os.getpid())
        time.sleep(100)
        """
    )
    until(lambda: started.lines)
    began_ns = time.monotonic_ns()
    started.end()
    assert time.monotonic_ns() - began_ns < 1.5e9
    assert set(processes(2, started.process.pid).values()) == {"Z"}
    os.kill(int(started.lines[0][1]), signal.SIGKILL)


def test_exit_callback_may_fail_or_start_another(caplog: pytest.LogCaptureFixture) -> None:
    restarted = []

    def on_exit(report: ExitReport) -> None:
        restarted.append(sh("exit 5"))
        raise SystemExit

    sh("exit 4", on_exit=on_exit).died()
    until(lambda: restarted)
    assert restarted[0].died().exit_code == 5
    assert "the exit callback of 'm_0' failed" in caplog.text


def test_exit_callback_must_not_wait() -> None:
    errors = []
    other = sh("sleep 100")

    def on_exit(report: ExitReport) -> None:
        try:
            other.process.terminate(after(1))
        except RuntimeError as error:
            errors.append(str(error))

    sh("exit 4", on_exit=on_exit).died()
    other.end()
    assert errors == ["`on_exit` must not wait for a process"]


def test_many_deaths_at_once() -> None:
    all_started = [sh("echo up; exec sleep 100") for _ in range(50)]
    for started in all_started:
        started.says("up")
    killed_ns = time.monotonic_ns()
    for started in all_started:
        os.kill(started.process.pid, signal.SIGKILL)
    until(lambda: all(started.reports for started in all_started))
    for started in all_started:
        report = started.died()
        assert report.signal_name == "SIGKILL"
        assert killed_ns < report.died_ns < killed_ns + 5e9
        assert started.reports == [report]


def test_exit_code_unknown_where_children_are_not_waited_for() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        report = sh("exit 3").died()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert (report.exit_code, report.signal_name) == (None, None)


def test_eight_threads_start_and_end_a_hundred() -> None:
    scripts = ["sleep 100", "exit 3", "trap '' TERM; sleep 100; sleep 100", "sleep 100 & exit 0"]
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, 100, 8):
                started = sh(scripts[number % len(scripts)])
                started.end(within_s=0.2)
                assert len(started.reports) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_last_process_takes_the_threads_along() -> None:
    before = set(threading.enumerate())
    first, second = sh("sleep 100"), sh("sleep 100")
    assert len(set(threading.enumerate()) - before) == 2
    first.end()
    assert len(set(threading.enumerate()) - before) == 2
    second.end()
    assert set(threading.enumerate()) == before


# Forks and the end of the parent.


def in_forked_child(action: Callable[[], object]) -> None:
    """Run in a forked child, which must succeed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of threads
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_forked_child_leaves_the_processes_alone() -> None:
    fds = open_fds()
    started = sh("echo up; sleep 100")
    started.says("up")

    def in_child() -> None:
        assert open_fds() == fds
        assert not started.process.is_alive
        started.process.kill()
        assert not started.process.send_signal(signal.SIGKILL)
        assert started.process.terminate(after(5))
        own = sh("exit 3")
        assert own.died().exit_code == 3

    in_forked_child(in_child)
    assert started.process.is_alive
    assert not started.reports
    os.kill(started.process.pid, signal.SIGKILL)
    assert started.died().signal_name == "SIGKILL"


def test_forks_while_others_start() -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                sh("sleep 100").end(within_s=0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    fds = open_fds()
    for thread in threads:
        thread.start()

    def in_child() -> None:
        # Whenever the fork came, nothing is held that is the parent's.
        assert not [
            fd
            for fd in open_fds() - fds
            if os.path.exists(f"/proc/self/fd/{fd}")
            and os.readlink(f"/proc/self/fd/{fd}").startswith(("pipe:", "anon_inode:"))
        ]

    for _ in range(30):
        in_forked_child(in_child)
    stop.set()
    for thread in threads:
        thread.join()
    assert not errors


PARENT = """
import os, sys, time
from pytriton_lite._ipc.process import StubProcess
stub = StubProcess([sys.executable, "-c", {child!r}], name="m_0")
stub.start()
print(stub.pid, flush=True)
{rest}
"""

WATCHING = """
import time
from pytriton_lite._ipc.lifeline import take_lifeline, watch_lifeline
watch_lifeline(take_lifeline(){more})
print("watching", flush=True)
time.sleep(100)
"""


def parent(rest: str, more: str = "") -> subprocess.Popen[str]:
    script = PARENT.format(child=WATCHING.format(more=more), rest=rest)
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )


@pytest.mark.parametrize("has_fork", [False, True])
def test_process_ends_when_its_parent_is_killed(has_fork: bool) -> None:
    # A forked child of the parent that lives on makes no difference.
    fork = "if os.fork() == 0: time.sleep(8); os._exit(0)\n"
    with parent((fork if has_fork else "") + "time.sleep(100)") as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        assert killed.stdout.readline() == "[m_0] watching\n"
        assert group_members(pid)
        killed.kill()
        began_ns = time.monotonic_ns()
        until(lambda: not group_members(pid), 5)
        assert time.monotonic_ns() - began_ns < 5e9
        # `Popen.__exit__` would wait for the fork's end of the pipe; it need not.


def test_process_ends_when_its_parent_exits() -> None:
    with parent("time.sleep(0.1)\nprint('end')") as ending:
        out, _ = ending.communicate(timeout=20)
        assert ending.returncode == 0
    pid = int(out.split()[0])
    assert not group_members(pid)


# Ending.


def test_terminate_closes_the_lifeline_first() -> None:
    more = ", lambda: print('bye', flush=True)"
    started = py(WATCHING.format(more=more))
    started.says("watching")
    report = started.end(within_s=10)
    assert report.is_expected
    assert report.signal_name == "SIGKILL"  # by its own hand
    assert started.lines[-1] == ("stdout", "bye")
    assert report.lived_s < 5


def test_lifeline_gives_time_to_end() -> None:
    script = """
        import os, threading
        from pytriton_lite._ipc.lifeline import *
        assert "%s" in os.environ
        gone = threading.Event()
        watch_lifeline(take_lifeline(), gone.set, grace_s=50)
        assert take_lifeline() is None
        print("watching")
        gone.wait()
        raise SystemExit(7)
    """
    started = py(script % LIFELINE_VARIABLE)
    started.says("watching")
    assert started.end(within_s=20).exit_code == 7


def test_lifeline_descriptor_must_be_open() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch_lifeline(12345)


def test_terminate_sends_the_polite_signal_to_the_process_alone() -> None:
    started = sh(
        "trap 'echo asked; exit 6' INT; (trap 'echo wrong' INT; sleep 100) & echo up; wait"
    )
    started.says("up")
    assert started.end(within_s=10, polite_signal=signal.SIGINT).exit_code == 6
    assert [line for _, line in started.lines] == ["up", "asked"]


def test_terminate_goes_on_to_sigterm_once() -> None:
    started = sh("trap 'echo term' TERM; echo up; while :; do sleep 0.05; done")
    started.says("up")
    report = started.end(within_s=1)
    assert report.signal_name == "SIGKILL"
    # The shell says that its `sleep` got the signal, too.
    assert started.lines.count(("stdout", "term")) == 1


@pytest.mark.parametrize("script", ["trap '' TERM INT HUP; echo up; while :; do sleep 1; done"])
def test_terminate_kills_in_time(script: str) -> None:
    started = sh(script)
    started.says("up")
    began_ns = time.monotonic_ns()
    assert started.end(within_s=0.5).signal_name == "SIGKILL"
    assert 0.35e9 < time.monotonic_ns() - began_ns < 3e9
    assert not group_members(started.process.pid)


def test_terminate_continues_a_stopped_process() -> None:
    started = sh("trap 'exit 6' INT; echo up; while :; do sleep 0.01; done")
    started.says("up")
    started.process.send_signal(signal.SIGSTOP)
    until(lambda: group_members(started.process.pid).get(started.process.pid) == "T")
    assert started.end(within_s=10, polite_signal=signal.SIGINT).exit_code == 6


def test_terminate_kills_a_stopped_process() -> None:
    started = sh("echo up; exec sleep 100")
    started.says("up")
    os.kill(started.process.pid, signal.SIGSTOP)
    assert started.end().signal_name == "SIGKILL"


def test_terminate_by_several_threads_and_again() -> None:
    started = sh("trap '' TERM; echo up; sleep 100; sleep 100")
    started.says("up")
    results = []
    threads = [
        threading.Thread(target=lambda s=s: results.append(started.process.terminate(after(s))))
        for s in (30, 0.2, 20, 10)
    ]
    began_ns = time.monotonic_ns()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic_ns() - began_ns < 5e9
    assert results == [True] * 4
    assert started.process.terminate(0)
    assert len(started.reports) == 1


def test_terminate_from_an_output_callback() -> None:
    results = []
    made: list[StubProcess] = []

    def on_line(stream: str, line: str) -> None:
        results.append(made[0].terminate(after(0.1)))

    process = StubProcess(
        ["/bin/sh", "-c", "sleep 0.1; echo; sleep 100"], name="m", on_line=on_line
    )
    made.append(process)
    process.start()
    assert process.wait(after(20))
    until(lambda: results == [True])


def test_wait_gives_up_at_its_deadline() -> None:
    started = sh("sleep 100")
    assert not started.process.wait(after(0.01))
    started.process.kill()
    started.process.kill()
    assert started.process.wait(after(20))
    assert not started.process.send_signal(signal.SIGTERM)


# Backoff and texts.


def test_backoff_doubles_up_to_the_limit() -> None:
    backoff = Backoff(first_s=0.1, limit_s=1.0)
    assert [backoff.failed() for _ in range(7)] == [0, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.failure_count == 7


def test_backoff_starts_over_after_a_long_life() -> None:
    now_ns = 0
    backoff = Backoff(reset_s=30, clock_ns=lambda: now_ns)
    assert [backoff.failed(), backoff.failed()] == [0, 0.1]
    backoff.began()
    now_ns += 30 * 10**9 - 1
    assert backoff.failed() == 0.2
    backoff.began()
    now_ns += 30 * 10**9
    assert [backoff.failed(), backoff.failed()] == [0, 0.1]
    now_ns += 100 * 10**9
    assert backoff.failed() == 0.2  # it never was at work


@given(
    lives=st.lists(st.none() | st.floats(0, 100), max_size=200),
    first_s=st.floats(0.001, 1),
    limit_s=st.floats(1, 100),
)
def test_backoff_never_leaves_its_bounds(
    lives: list[float | None], first_s: float, limit_s: float
) -> None:
    now_ns = 0
    backoff = Backoff(first_s=first_s, limit_s=limit_s, clock_ns=lambda: now_ns)
    last_s = None
    for lived_s in lives:
        if lived_s is not None:
            backoff.began()
            now_ns += round(lived_s * 1e9)
        delay_s = backoff.failed()
        assert delay_s == 0 or first_s <= delay_s <= limit_s
        if last_s is not None and delay_s:
            assert delay_s >= last_s
        last_s = delay_s


def report_of(**fields: Any) -> ExitReport:
    defaults = {"exit_code": None, "signal_name": None, "is_expected": False, "last_lines": ()}
    return ExitReport(name="m_0", pid=1, started_ns=0, died_ns=1, **{**defaults, **fields})


def test_exit_texts() -> None:
    assert describe_exit(report_of(exit_code=3)) == "exited with code 3"
    assert describe_exit(report_of(signal_name="SIGSEGV")) == "was killed by SIGSEGV"
    assert "not known" in describe_exit(report_of())
    assert describe_exit(report_of(exit_code=1, last_lines=("Traceback", "", "  x"))) == (
        "exited with code 1; its last lines on stderr:\n    Traceback\n    \n      x"
    )


def test_signal_names() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert signal_name(signal.SIGRTMIN + 3) == "SIGRTMIN+3"
    assert signal_name(200) == "signal 200"
