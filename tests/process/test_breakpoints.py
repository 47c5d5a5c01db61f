"""`breakpoint()` in a stub: pdb at the terminal of the server's process."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pytriton_lite as ptl
from pytriton_lite._instance import breakpoints
from tests.support.limits import until, within
from tests.support.repository import RepositoryBuilder, echo_model

LIMIT_S = 30


class Session:
    """A Python script with a terminal of its own."""

    def __init__(self, script: str, folder: Path) -> None:
        (folder / "script.py").write_text(textwrap.dedent(script))
        self._fd, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, str(folder / "script.py")],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(ptl.__file__).parents[1])},
            start_new_session=True,
        )
        os.close(terminal)
        self.text = ""
        self._seen = 0

    def expect(self, pattern: str) -> re.Match[str]:
        """Read until the pattern comes, behind what was expected before."""
        deadline = time.monotonic() + LIMIT_S
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {pattern!r} in: {self.text}"
            self._read()
        self._seen = found.end()
        return found

    def go_to(self, line: str) -> str:
        """Step to a line; returns the name in the prompt. Since Python 3.13 pdb stops earlier."""
        while (found := self.expect(r"-> (.*)\n\((\w+) Pdb\) "))[1] != line:
            self.type("n")
        return found[2]

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # nobody has the other side any more
            data = b""
        assert data, f"the script ended: {self.text}"
        self.text += data.decode().replace("\r\n", "\n")

    def type(self, line: str) -> None:
        os.write(self._fd, f"{line}\n".encode())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)


# The terminal becomes that of the new session, and the script its foreground.
TAKE_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Session]]:
    sessions = []

    def start(script: str) -> Session:
        sessions.append(Session(script, tmp_path))
        return sessions[-1]

    yield start
    for session in sessions:
        session.end()


STOPS = """
def answer(x, request):
    y = x + 1
    breakpoint(header="have a look")
    y = y * 10
    print("on the way")
    return y
"""


def test_session(repository: RepositoryBuilder, run: Callable[[str], Session]) -> None:
    """Two instances: the second one waits for the terminal until the first goes on."""
    folder = repository.model("m", echo_model(STOPS))
    config = folder / "config.pbtxt"
    config.write_text(config.read_text() + "instance_group { count: 2 kind: KIND_CPU }")
    session = run(f"""
        import numpy as np, pytriton_lite as ptl
        with ptl.Server({str(repository.models)!r}, execution="process") as server:
            futures = [server["m"].submit({{"IN": np.float32([i])}}) for i in (1, 2)]
            print("answers", sorted(future.result()["OUT"].tolist() for future in futures))
    """)
    session.expect("have a look\n")
    session.expect(r"> .*model\.py\(\d+\)answer\(\)\n")
    first = session.go_to("y = y * 10")
    session.type("p float(y[0])")
    number = float(session.expect(r"(\d\.\d)\n\(m_0_\d Pdb\) ")[1])
    assert number in (2.0, 3.0)
    session.type("y[0] = 50")
    session.expect("Pdb")
    assert "have a look" not in session.text[session._seen :]
    session.type("n")
    session.expect(r'-> print\("on the way"\)\n')
    session.type("c")
    session.expect("have a look\n")
    second = session.go_to("y = y * 10")
    assert {first, second} == {"m_0_0", "m_0_1"}
    # Out of the model's code: the breakpoint is over, since nothing of the model comes next.
    for line in ("print", "return y", "--Return--", "append", "for", "return resp", "--Return--"):
        session.type("n")
        session.expect(re.escape(line) + r"[^$]*? Pdb\) ")
    session.type("n")
    other = {2.0: 3.0, 3.0: 2.0}[number]
    expected = sorted([[500.0], [other * 10]])
    session.expect(re.escape(f"answers {expected}"))
    assert session.process.wait(LIMIT_S) == 0
    assert f"[{first}] on the way" in session.text


def test_quit_is_an_error_of_the_request(
    repository: RepositoryBuilder, run: Callable[[str], Session]
) -> None:
    """And time at a breakpoint does not count for `load_timeout`, nor in `auto_complete_config`."""
    methods = """
    @staticmethod
    def auto_complete_config(config):
        breakpoint()
        return config

    def initialize(self, args):
        breakpoint()
        self.loaded = 1
    """
    repository.model("m", echo_model(STOPS, methods))
    session = run(f"""
        import numpy as np, pytriton_lite as ptl
        options = dict(execution="process", load_timeout=1)
        with ptl.Server({str(repository.models)!r}, **options) as server:
            try:
                server["m"]({{"IN": np.float32([1])}})
            except ptl.InternalError as error:
                print("failed:", error)
    """)
    assert session.go_to("return config") == "m_auto_complete"
    # Nothing tells the end of a time in which nothing happens.
    time.sleep(1.5)
    session.type("c")
    assert session.go_to("self.loaded = 1") == "m_0"
    time.sleep(1.5)
    session.type("c")
    session.go_to("y = y * 10")
    session.type("q")
    session.expect(r"failed: .*BdbQuit")
    assert session.process.wait(LIMIT_S) == 0


def test_without_a_terminal(
    repository: RepositoryBuilder, serve: Callable[..., ptl.Server], capsys: pytest.CaptureFixture
) -> None:
    repository.model("m", echo_model(STOPS))
    server = serve(execution="process")
    assert server["m"]({"IN": np.float32([1])})["OUT"].tolist() == [20.0]
    server.stop()
    output = capsys.readouterr()
    assert re.search(
        r"\[m_0\] .*model\.py:\d+: breakpoint\(\) is passed over: the server has no terminal",
        output.err,
    )


class ScriptedTerminal:
    """Says what it is told to; a read waits for ever when that is nothing."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.text = ""
        self.is_read = threading.Event()

    def is_there(self) -> bool:
        return True

    def write(self, text: str) -> None:
        self.text += text

    def read_line(self, wake_fd: int) -> str:
        if self.lines:
            return self.lines.pop(0)
        self.is_read.set()
        select.select([wake_fd], [], [])
        return ""


def test_a_stub_that_dies_gives_the_terminal_back(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = ScriptedTerminal()
    monkeypatch.setattr(breakpoints, "terminal", terminal)
    body = STOPS + "    import os\n"
    repository.model("m", echo_model(body))
    server = serve(execution="process")
    future = server["m"].submit({"IN": np.float32([1])})
    assert terminal.is_read.wait(LIMIT_S)
    assert "Pdb" in terminal.text
    (instance,) = server._repository.models.get("m", -1).instances  # type: ignore[union-attr]
    instance.abandon()
    with pytest.raises(ptl.UnavailableError, match="SIGKILL"):
        within(LIMIT_S, future.result)
    until(server["m"].ready)
    # A breakpoint that pdb sets takes the terminal anew, here and in the next request.
    terminal.text = ""
    terminal.lines = ["break 10\n", "continue\n", "clear 1\n", "y[0] = 7\n", "continue\n"]
    answer = within(LIMIT_S, server["m"], {"IN": np.float32([1])})
    assert answer["OUT"].tolist() == [7.0]
    assert re.search(r"model\.py\(10\)answer\(\)\n-> return y\n", terminal.text)


def test_other_debuggers_are_chosen_as_ever(
    repository: RepositoryBuilder,
    serve: Callable[..., ptl.Server],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONBREAKPOINT", "0")
    monkeypatch.setattr(breakpoints, "terminal", terminal := ScriptedTerminal())
    repository.model("m", echo_model(STOPS))
    server = serve(execution="process")
    assert server["m"]({"IN": np.float32([1])})["OUT"].tolist() == [20.0]
    assert not terminal.text
