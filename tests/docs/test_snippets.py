"""Runs what the README and the pages in `docs/` show.

Blocks run in the order of their page, in one namespace, in an empty folder. An HTML comment
before a block, which readers do not see, gives it another meaning:

* ``<!-- file: models/m/1/model.py -->``: the block is that file. A file ``test_*.py`` is run by
  pytest.
* ``<!-- output -->``: what the Python block before it prints.

A comment ``<!-- needs: torch jax -->`` skips the blocks of its page where one of these is not
installed.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [*PAGES, *sorted((ROOT / "examples").glob("*/README.md"))]

_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>file: (?P<file>\S+)|output) -->\n)?"
    r"```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NEEDS = re.compile(r"^<!-- needs: (.*) -->$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


@dataclass(frozen=True, slots=True)
class Block:
    kind: str  # "file", "output", or the language
    text: str
    line: int
    file: str = ""


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text()
    return [
        Block(
            kind=(found["mark"] or found["language"]).partition(":")[0],
            text=found["text"],
            line=source.count("\n", 0, found.start("text")),
            file=found["file"] or "",
        )
        for found in _FENCE.finditer(source)
    ]


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def run_tests(file: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_blocks_run(page, tmp_path, monkeypatch, capsys):
    for module in " ".join(_NEEDS.findall(page.read_text())).split():
        pytest.importorskip(module, reason="needs pytriton_lite[frameworks]")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    stops = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: stops.append(threading.current_thread()))
    threads = set(threading.enumerate())
    namespace = {"__name__": "__main__"}
    printed = ""
    for block in blocks_of(page):
        if block.kind == "file":
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
            if path.name.startswith("test_"):
                run_tests(block.file, tmp_path)
        elif block.kind == "output":
            assert printed == block.text
        elif block.kind == "python":
            # Empty lines before it, so that a traceback shows the line of the page.
            code = compile("\n" * block.line + block.text, str(page), "exec")
            exec(code, namespace)
            printed = capsys.readouterr().out
    assert set(threading.enumerate()) == threads
    # Where a page shows a breakpoint, it stops on the thread that calls the model.
    assert stops == [threading.current_thread()] * page.read_text().count("    breakpoint()\n")


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_every_fence_is_understood(page):
    fences = page.read_text().count("```")
    blocks = blocks_of(page)
    assert fences == 2 * len(blocks)
    assert {block.kind for block in blocks} <= {"file", "output", "python", "sh", "text"}


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_links_resolve(page):
    for target, anchor in _LINK.findall(page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors_of(linked), f"{target}#{anchor}"


def commands_of(page: Path) -> list[list[str]]:
    text = "\n".join(block.text for block in blocks_of(page) if block.kind == "sh")
    return [shlex.split(part) for line in text.splitlines() if line for part in line.split("&&")]


@pytest.mark.parametrize("page", DOCUMENTS, ids=ids(DOCUMENTS))
def test_commands_name_what_is_there(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for words in commands_of(page):
        if words[:2] == ["pip", "install"]:
            requirement = words[-1]
            assert requirement.startswith("."), words
            for extra in re.findall(r"[\w-]+", requirement):
                assert extra in extras, words
        elif words[:2] == ["python", "-m"]:
            assert words[2] == "pytest", words
        else:
            assert words[0] == "python", words
            assert (ROOT / words[1]).is_file(), words


def test_readme_runs_the_tests_as_the_ci_does():
    assert ["python", "-m", "pytest"] in commands_of(ROOT / "README.md")
    assert "\npython -m pytest\n" in (ROOT / ".ci" / "run").read_text() + "\n"
