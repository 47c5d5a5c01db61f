"""Execution environments: where they are, what is unpacked, which interpreter is taken.

Texts and paths marked "2.51" are recorded from that version of Triton; `archive_read_...` and
the rule of the activate script are in its documents, too.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pytriton_lite as ptl
from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._environment import archive, cache, interpreter
from pytriton_lite._environment.archive import ArchiveError, unpack
from pytriton_lite._environment.cache import EnvironmentCache, ExecutionEnvironment
from pytriton_lite._environment.problem import EnvironmentProblem
from pytriton_lite._environment.setting import environment_setting
from pytriton_lite.errors import InternalError, UnavailableError

ACTIVATE = "The Python environment should contain an 'activate' script."


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that sees numpy and this package."""
    path = tmp_path_factory.mktemp("real") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    add_packages(path)
    return path


def add_packages(path: Path) -> None:
    site = path / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    places = [Path(np.__file__).parents[1], Path(ptl.__file__).parents[1]]
    (site / "packages.pth").write_text("".join(f"{place}\n" for place in places))


@pytest.fixture
def environments(tmp_path: Path) -> Iterator[EnvironmentCache]:
    parent = tmp_path / "temporary"
    parent.mkdir()
    made = EnvironmentCache(temporary_folder=str(parent))
    yield made
    made.close()
    assert list(parent.iterdir()) == []


def pack(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    """Pack as conda-pack does: no top folder."""
    with (
        tarfile.open(path, mode, compresslevel=1)
        if mode == "w:gz"
        else tarfile.open(path, mode) as tar
    ):
        for entry in sorted(folder.iterdir()):
            tar.add(entry, entry.name)
    return path


def fake(folder: Path, **found: object) -> Path:
    """An environment whose Python only says what it is."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/activate").write_text("")
    answer = {
        "version": [3, 12, 4],
        "implementation": "CPython",
        "prefix": "anywhere",
        "numpy": "2.0.1",
        "pytriton_lite": ptl.__version__,
    } | found
    program(folder, f"echo noise\necho '{interpreter._MARK}{json.dumps(answer)}'")
    return folder


def program(folder: Path, text: str, name: str = "python3") -> None:
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o644
    return info, data


def tar_of(path: Path, *entries: Entry, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


def notes(error: BaseException) -> str:
    return " ".join(error.__notes__)


# --- the setting ---


def resolved(folder: Path | None = None) -> ResolvedBackend:
    return ResolvedBackend(
        name="b",
        is_shared=folder is not None,
        folder=None if folder is None else str(folder),
        model_file="",
        module_name="model",
        search_path=(),
        runtime="model.py",
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("/e/venv", "/e/venv"),
        ("$$TRITON_MODEL_DIRECTORY/env", "/models/m/env"),
        ("$$TRITON_MODEL_DIRECTORYx", "/models/mx"),
        ("$$TRITON_MODEL_DIRECTORY", "/models/m"),
        # Only at the start.
        (" $$TRITON_MODEL_DIRECTORY/env", " $$TRITON_MODEL_DIRECTORY/env"),
        ("$TRITON_MODEL_DIRECTORY/env", "$TRITON_MODEL_DIRECTORY/env"),
        ("~/env", "~/env"),
        ("", None),
        # `..` goes before links are looked at.
        ("./rel_env/../venv", "./venv"),
        ("$$TRITON_MODEL_DIRECTORY/../../e", "/e"),
        ("../e", "../e"),
        ("/../e", "/e"),
        ("a/..", "."),
    ],
)
def test_setting_of_a_plain_model(given: str, found: str | None) -> None:
    """As 2.51, except for `$$TRITON_MODEL_DIRECTORY` elsewhere, which it mangles."""
    assert environment_setting({"EXECUTION_ENV_PATH": given}, resolved(), "/models/m") == found


def test_no_setting() -> None:
    assert environment_setting({}, resolved(), "/models/m") is None


def test_archive_of_a_python_based_backend(tmp_path: Path) -> None:
    """As 2.51: an empty parameter keeps the archive from being used."""
    backend = resolved(tmp_path)
    assert environment_setting({}, backend, "/m") is None
    carried = tmp_path / "pb_exec_env_model.py.tar.gz"
    carried.write_bytes(b"")
    assert environment_setting({}, backend, "/m") == str(carried)
    assert environment_setting({"EXECUTION_ENV_PATH": "/e"}, backend, "/m") == "/e"
    assert environment_setting({"EXECUTION_ENV_PATH": ""}, backend, "/m") is None


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("/nope.tar.gz", "No such file"),
        ("~/env", "'~' is not replaced"),
        ("rel_env", "relative to the working directory"),
        (" ", "relative"),
        ("$TRITON_MODEL_DIRECTORY/env", "two dollar signs"),
        ("/x/$$TRITON_MODEL_DIRECTORY/env", "at the start of the path only"),
        ("/a\0b", "embedded null"),
    ],
)
def test_path_missing(environments: EnvironmentCache, given: str, hint: str) -> None:
    """Texts of 2.51."""
    with pytest.raises(InternalError) as caught:
        environments.prepare(given, model_name="m")
    assert caught.value.message == f"Failed to get the canonical path for {given}."
    assert caught.value.model == "m"
    assert hint in notes(caught.value)


def test_slash_behind_an_archive(environments: EnvironmentCache, tmp_path: Path) -> None:
    """As 2.51: it asks for a folder."""
    path = tmp_path / "e.tar.gz"
    path.write_bytes(b"")
    with pytest.raises(InternalError) as caught:
        environments.prepare(f"{path}/", model_name="m")
    assert caught.value.message == f"Failed to get the canonical path for {path}/."


@pytest.mark.parametrize("kind", ["missing", "folder", "inner"])
def test_no_activate_script(environments: EnvironmentCache, tmp_path: Path, kind: str) -> None:
    """Text of 2.51, which hangs when the script is a folder."""
    folder = tmp_path / "e"
    folder.mkdir()
    what = "does not exist"
    if kind == "folder":
        (folder / "bin/activate").mkdir(parents=True)
        what = "is not a file"
    elif kind == "inner":
        fake(folder / "inner")
    with pytest.raises(InternalError) as caught:
        environments.prepare(str(folder), model_name="m")
    assert caught.value.message == f"Path {folder}/bin/activate {what}. {ACTIVATE}"
    assert ("name that folder" in notes(caught.value)) == (kind == "inner")


# --- folders ---


def run(environment: ExecutionEnvironment, code: str) -> str:
    done = subprocess.run(
        [environment.interpreter, "-c", code],
        env=environment.variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_venv(environments: EnvironmentCache, venv: Path) -> None:
    parent = dict(os.environ) | {
        "PATH": "/usr/bin",
        "PYTHONHOME": "/nowhere",
        "PYTHONPATH": "/nowhere",
        "OWN": "kept",
    }
    parent.pop("LD_LIBRARY_PATH", None)
    found = environments.prepare(str(venv), model_name="m", parent=parent)
    assert (found.path, found.origin) == (str(venv), str(venv))
    assert found.interpreter == f"{venv}/bin/python3"
    assert found.python_version == sys.version_info[:3]
    assert found.library_path is None
    assert found.variables["VIRTUAL_ENV"] == str(venv)
    assert found.variables["PATH"] == f"{venv}/bin:/usr/bin"
    assert found.variables["LD_LIBRARY_PATH"] == f"{venv}/lib"
    assert found.variables["OWN"] == "kept"
    # As in a stub of 2.51, whose interpreter looks neither at these nor at the home folder.
    assert not {"PYTHONHOME", "PYTHONPATH"} & found.variables.keys()
    assert run(found, "import sys; print(sys.prefix, sys.flags.no_user_site)") == f"{venv} 1"


def test_library_path_of_the_parent_comes_second(venv: Path) -> None:
    variables = interpreter.stub_variables("/e", {"LD_LIBRARY_PATH": "/a:/b"})
    assert variables["LD_LIBRARY_PATH"] == "/e/lib:/a:/b"
    assert variables["PATH"] == f"/e/bin:{os.defpath}"


def test_conda_environment(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    variables = interpreter.stub_variables(str(tmp_path), {"CONDA_PREFIX": "/other"})
    assert variables["CONDA_PREFIX"] == str(tmp_path)
    assert interpreter.stub_variables("/e", {"CONDA_PREFIX": "/o"})["CONDA_PREFIX"] == "/o"


def test_links_and_slashes_lead_to_one_environment(
    environments: EnvironmentCache, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(venv)
    monkeypatch.chdir(tmp_path)
    for path in (f"{venv}//", f"{tmp_path}/link", "link", f"{venv}/x/.."):
        setting = environment_setting({"EXECUTION_ENV_PATH": path}, resolved(), "/m")
        assert setting is not None
        assert environments.prepare(setting, model_name="m").path == str(venv)


def test_activate_script_is_not_run(
    environments: EnvironmentCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fake(tmp_path / "e")
    (folder / "bin/activate").write_text(
        f"touch {tmp_path}/ran\nexport PATH=x\n  export VIRTUAL_ENV\nexport MINE=1 # and\n"
    )
    with caplog.at_level(logging.WARNING, "pytriton_lite.server"):
        found = environments.prepare(str(folder), model_name="m")
    assert "MINE" not in found.variables
    assert not (tmp_path / "ran").exists()
    assert "exports MINE; the script is not run" in caplog.text


@pytest.mark.parametrize("name", ["a b", "$(touch x)", "`touch x`", "a;touch x", "'\"&|<>*\n"])
def test_names_that_mean_something_to_a_shell(
    environments: EnvironmentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = fake(tmp_path / name)
    found = environments.prepare(str(folder), model_name="m", parent={})
    assert found.interpreter == f"{folder}/bin/python3"
    assert found.variables["PATH"].startswith(f"{folder}/bin:")
    # The loader would replace or split these.
    assert ("LD_LIBRARY_PATH" in found.variables) == (not set(name) & set(";$"))
    assert not (tmp_path / "x").exists()


def test_colon_in_the_path(environments: EnvironmentCache, tmp_path: Path) -> None:
    with pytest.raises(InternalError, match="separates the folders of PATH"):
        environments.prepare(str(fake(tmp_path / "a:b")), model_name="m")


# --- the interpreter ---


@pytest.mark.parametrize(
    ("found", "message", "hint"),
    [
        ({"version": [3, 10, 1]}, "has Python 3.10.1; 3.11 to 3.13 are supported.", "anew"),
        ({"version": [3, 14, 0]}, "has Python 3.14.0; 3.11 to 3.13 are supported.", "anew"),
        (
            {"implementation": "PyPy"},
            "has PyPy 3.12.4; CPython 3.11 to 3.13 is needed.",
            f"pytriton_lite=={ptl.__version__}",
        ),
        (
            {"numpy": None, "numpy_error": "ImportError: no"},
            "lacks numpy (ImportError: no).",
            '/bin/python3\' -m pip install "numpy>=1.26"',
        ),
        ({"numpy": "1.25.2"}, "has numpy 1.25.2; at least 1.26 is needed.", '"numpy>=1.26"'),
        (
            {"pytriton_lite": None, "pytriton_lite_error": "ModuleNotFoundError: no"},
            f"lacks pytriton_lite {ptl.__version__} for Python 3.12.4 (ModuleNotFoundError: no).",
            f"/bin/python3' -m pip install pytriton_lite=={ptl.__version__}",
        ),
        (
            {"pytriton_lite": "0.0.1"},
            f"has pytriton_lite 0.0.1; the server has {ptl.__version__}.",
            f"pip install pytriton_lite=={ptl.__version__}",
        ),
    ],
)
def test_mismatch(
    environments: EnvironmentCache,
    tmp_path: Path,
    found: dict[str, object],
    message: str,
    hint: str,
) -> None:
    folder = fake(tmp_path / "e", **found)
    with pytest.raises(InternalError) as caught:
        environments.prepare(str(folder), model_name="m")
    assert caught.value.message == (
        f"The execution environment '{folder}' {message} Model 'm' has '{folder}' for its "
        "execution environment."
    )
    assert hint in notes(caught.value)
    # What is missing may be installed without a restart of the server.
    shutil.rmtree(folder)
    fake(folder)
    assert environments.prepare(str(folder), model_name="m").python_version == (3, 12, 4)


def test_real_venv_without_packages(
    environments: EnvironmentCache, venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(venv, bare, symlinks=True)
    for path in bare.rglob("packages.pth"):
        path.unlink()
    # The working directory is not where packages come from.
    (tmp_path / "numpy.py").write_text("__version__ = '2.0'")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InternalError, match=r"lacks numpy \(ModuleNotFoundError: No module"):
        environments.prepare(str(bare), model_name="m")
    add_packages(bare)
    assert environments.prepare(str(bare), model_name="m").path == str(bare)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo oh >&2; exit 3", "does not run: it exited with code 3 without an answer."),
        ("kill -9 $$", "does not run: it was killed by signal 9 without an answer."),
        (f"echo '{interpreter._MARK}[1'", "does not run: it exited with code 0"),
        (f"echo '{interpreter._MARK}{{}}'", "does not run: it exited with code 0"),
    ],
)
def test_python_that_does_not_run(
    environments: EnvironmentCache, tmp_path: Path, text: str, message: str
) -> None:
    folder = fake(tmp_path / "e")
    program(folder, text)
    with pytest.raises(InternalError) as caught:
        environments.prepare(str(folder), model_name="m")
    assert message in caught.value.message
    assert ("It wrote: oh" in notes(caught.value)) == ("oh" in text)


def test_python_of_another_machine(environments: EnvironmentCache, tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    (folder / "bin/python3").write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(InternalError, match="cannot be started: Exec format error"):
        environments.prepare(str(folder), model_name="m")


def test_python_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program(folder, f"exec 3> '{pipe}'; sleep 1000 & wait")
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(EnvironmentProblem, match=r"did not answer within 0\.5 s"):
            interpreter.find_interpreter(str(folder), os.environ, timeout_s=0.5)
        # The pipe ends with the last process that has it.
        os.set_blocking(handle, True)
        assert os.read(handle, 1) == b""
    finally:
        os.close(handle)


def test_python_in_an_archive(environments: EnvironmentCache, tmp_path: Path) -> None:
    path = pack(fake(tmp_path / "e", numpy=None), tmp_path / "e.tar.gz")
    with pytest.raises(InternalError, match="lacks numpy") as caught:
        environments.prepare(str(path), model_name="m")
    assert f"Model 'm' has '{path}' for its execution environment" in caught.value.message
    assert f"where the environment was packed, and make '{path}' again" in notes(caught.value)


def test_environment_made_anew(environments: EnvironmentCache, tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    assert environments.prepare(str(folder), model_name="m").python_version == (3, 12, 4)
    shutil.rmtree(folder)
    fake(folder, version=[3, 13, 10])
    assert environments.prepare(str(folder), model_name="m").python_version == (3, 13, 10)


def test_python_that_may_not_be_executed(environments: EnvironmentCache, tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    (folder / "bin/python3").chmod(0o644)
    with pytest.raises(InternalError, match="has no Python: neither") as caught:
        environments.prepare(str(folder), model_name="m")
    assert "may not be executed" in notes(caught.value)


def test_no_python(environments: EnvironmentCache, tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    (folder / "bin/python3").unlink()
    (folder / "bin/python3").symlink_to("/gone/python3")
    with pytest.raises(InternalError, match="has no Python: neither") as caught:
        environments.prepare(str(folder), model_name="m")
    assert "is a link to '/gone/python3', which does not exist here" in notes(caught.value)
    program(folder, (fake(tmp_path / "o") / "bin/python3").read_text(), name="python")
    assert environments.prepare(str(folder), model_name="m").interpreter.endswith("/bin/python")


# --- archives ---


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:bz2", "w:xz"])
def test_packed_venv(environments: EnvironmentCache, venv: Path, tmp_path: Path, mode: str) -> None:
    """2.51 takes the first two."""
    path = pack(venv, tmp_path / "any.name", mode)
    found = environments.prepare(str(path), model_name="m")
    assert found.origin == str(path)
    assert stat.S_IMODE(os.stat(Path(found.path).parent).st_mode) == 0o700
    # On Triton the activate script, which knows the old place only, leads back to that.
    assert run(found, "import sys; print(sys.prefix)") == found.path
    original = venv / "bin/activate"
    unpacked = Path(found.path) / "bin/activate"
    assert unpacked.read_bytes() == original.read_bytes()
    assert int(unpacked.stat().st_mtime) == int(original.stat().st_mtime)
    assert environments.prepare(str(path), model_name="n") == found
    environments.close()
    assert not Path(found.path).exists()


def test_conda_unpack_is_not_run(environments: EnvironmentCache, tmp_path: Path) -> None:
    """As 2.51."""
    folder = fake(tmp_path / "e")
    program(folder, f"touch '{tmp_path}/ran'", name="conda-unpack")
    environments.prepare(str(pack(folder, tmp_path / "e.tar.gz")), model_name="m")
    assert not (tmp_path / "ran").exists()


def test_unpacked_again_when_changed(environments: EnvironmentCache, tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    path = pack(folder, tmp_path / "e.tar.gz")
    first = environments.prepare(str(path), model_name="m").path
    os.utime(path, (1, 1))
    assert environments.prepare(str(path), model_name="m").path == first
    (folder / "new").write_text("")
    pack(folder, path)
    second = environments.prepare(str(path), model_name="m").path
    assert (Path(second) / "new").exists()
    # Stubs may still run in the old one.
    assert (Path(first) / "bin/activate").exists()
    assert not (Path(first) / "new").exists()


def test_archive_without_activate_script(environments: EnvironmentCache, tmp_path: Path) -> None:
    """Text of 2.51."""
    fake(tmp_path / "top" / "inner")
    path = pack(tmp_path / "top", tmp_path / "e.tar.gz")
    with pytest.raises(
        InternalError, match=r"^Path /.*/0/bin/activate does not exist\. The Py"
    ) as e:
        environments.prepare(str(path), model_name="m")
    assert f"from the archive '{path}'" in notes(e.value)
    assert "pack what is in that folder" in notes(e.value)


def broken_archives(folder: Path) -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "text", b"hello\n" * 1000
    rng = random.Random(1)
    data = {"big": rng.randbytes(50_000), "small": b"x" * 700}
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        entries = [entry(name, content) for name, content in data.items()]
        whole = tar_of(folder / "whole", *entries, mode=mode).read_bytes()
        for at in (1, 20, 600, len(whole) // 2, len(whole) - 3):
            # What follows the end mark of a plain archive is filling.
            if mode != "w" or at < 50_000:
                yield f"{mode} cut at {at}", whole[:at]
        if mode == "w":
            # At the border between two entries.
            yield "cut before a header", whole[: 512 + 50_176]
            yield "cut before the end mark", whole[: 512 + 50_176 + 512 + 1024]
            yield "broken header", whole[: 512 + 50_176] + b"?" + whole[512 + 50_177 :]
    yield "check sum", tar_of(folder / "whole", entry("a", b"b")).read_bytes()[:-8] + bytes(8)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("bin/activate", "")
    yield "zip", stream.getvalue()
    yield "zstd", b"\x28\xb5\x2f\xfd" + bytes(100)


def test_broken_archives(environments: EnvironmentCache, tmp_path: Path) -> None:
    """The first words are those of 2.51, which then refuses every other archive, too."""
    path = tmp_path / "e.tar.gz"
    for name, content in broken_archives(tmp_path):
        path.write_bytes(content)
        with pytest.raises(InternalError) as caught:
            environments.prepare(str(path), model_name="m")
        assert caught.value.message.startswith("archive_read_open_filename() failed."), name
        assert str(path) in caught.value.message
        assert caught.value.model == "m"
        (root,) = (tmp_path / "temporary").iterdir()
        assert os.listdir(root) == ["lock"], name
    pack(fake(tmp_path / "e"), path)
    environments.prepare(str(path), model_name="m")


UNSAFE = {
    "parent": [entry("../x", b"!")],
    "parent inside": [entry("a/../../x", b"!")],
    "parent that stays inside": [entry("a/../x", b"!")],
    "absolute": [entry("/tmp/x", b"!")],
    "absolute link": [entry("lib", kind=tarfile.SYMTYPE, link="/etc")],
    "link to the outside": [entry("a/b", kind=tarfile.SYMTYPE, link="../../x")],
    "link to the parent": [entry("b", kind=tarfile.SYMTYPE, link="..")],
    "link over a link": [
        entry("d/e/f", b""),
        entry("a", kind=tarfile.SYMTYPE, link="d/e"),
        entry("b", kind=tarfile.SYMTYPE, link="a/../../.."),
    ],
    "through a link": [
        entry("a", kind=tarfile.SYMTYPE, link="."),
        entry("a/x", b"!"),
    ],
    "through the link of a venv": [
        entry("bin/python", kind=tarfile.SYMTYPE, link="/tmp"),
        entry("bin/python/x", b"!"),
    ],
    "folder through a link": [
        entry("bin/python3", kind=tarfile.SYMTYPE, link=".."),
        entry("bin/python3/x", kind=tarfile.DIRTYPE),
    ],
    "below a file": [entry("a", b""), entry("a/x", b"!")],
    "file over a folder": [entry("a/b", b""), entry("a", b"!")],
    "hard link to the outside": [entry("a", kind=tarfile.LNKTYPE, link="../x")],
    "absolute hard link": [entry("a", kind=tarfile.LNKTYPE, link="/etc/passwd")],
    "hard link to a link": [
        entry("bin/python", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        entry("a", kind=tarfile.LNKTYPE, link="bin/python"),
    ],
    "hard link to nothing": [entry("a", kind=tarfile.LNKTYPE, link="b")],
    "device": [entry("a", kind=tarfile.CHRTYPE)],
    "block device": [entry("a", kind=tarfile.BLKTYPE)],
    "pipe": [entry("a", kind=tarfile.FIFOTYPE)],
    "no name": [entry(".", b"!")],
}


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_archives(environments: EnvironmentCache, tmp_path: Path, name: str) -> None:
    """Newer Triton refuses most of them, 2.51 none."""
    path = tar_of(tmp_path / "e.tar.gz", entry("bin/activate"), *UNSAFE[name])
    with pytest.raises(InternalError, match=r"^It is not safe: the entry '"):
        environments.prepare(str(path), model_name="m")
    (root,) = (tmp_path / "temporary").iterdir()
    assert os.listdir(root) == ["lock"]


def test_what_is_safe(tmp_path: Path) -> None:
    setuid = entry("bin/sudo", b"1")
    setuid[0].mode = 0o7777
    locked = entry("locked", kind=tarfile.DIRTYPE)
    locked[0].mode = 0
    path = tar_of(
        tmp_path / "e",
        entry("./bin/activate", b"1"),
        setuid,
        locked,
        entry("locked/a", b"2"),
        entry("bin/hard", kind=tarfile.LNKTYPE, link="./bin/activate"),
        entry("bin/python3", kind=tarfile.SYMTYPE, link="/usr/bin/python3"),
        entry("lib64", kind=tarfile.SYMTYPE, link="lib"),
        entry("lib/a/b", kind=tarfile.SYMTYPE, link="../../bin/activate"),
        entry("lib/c", kind=tarfile.SYMTYPE, link="a/./nothing"),
        # A later entry replaces an earlier one, and is not written into it.
        entry("bin/activate", b"new"),
        entry("bin/python3", b"file"),
        entry("é" * 60 + "/" + "n" * 200, b"3"),
    )
    folder = tmp_path / "out"
    unpack(str(path), str(folder))
    assert stat.S_IMODE((folder / "bin/sudo").stat().st_mode) & 0o7022 == 0
    assert (folder / "bin/hard").read_bytes() == b"1"
    assert (folder / "bin/activate").read_bytes() == b"new"
    assert (folder / "bin/python3").read_bytes() == b"file"
    assert os.readlink(folder / "lib/a/b") == "../../bin/activate"
    assert (folder / "locked/a").read_bytes() == b"2"
    assert (folder / ("é" * 60) / ("n" * 200)).read_bytes() == b"3"


def test_hash_is_that_of_the_file(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "e", entry("a", b"1"))
    path.write_bytes(path.read_bytes() + bytes(5000))
    for mode in ("w", "w:gz"):
        path = tar_of(tmp_path / "e", entry("a", b"1" * 3000), mode=mode)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert unpack(str(path), str(tmp_path / "out")) == archive.hash_of(str(path))


PARTS = st.sampled_from(["..", ".", "", "a", "b", "bin", "python3", "é", "\n", "\udc80", " "])
NAMES = st.one_of(st.lists(PARTS, max_size=5).map("/".join), st.text(max_size=8))
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(entries=st.lists(st.tuples(NAMES, KINDS, NAMES), min_size=1, max_size=6))
def test_nothing_is_written_outside(tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    place = tmp_path / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "victim").write_text("old")
    stream = io.BytesIO()
    with tarfile.open(
        fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
    ) as tar:
        for name, kind, link in entries:
            info, data = entry(name, b"new" if kind == tarfile.REGTYPE else b"", kind, link)
            try:
                tar.addfile(info, io.BytesIO(data))
            except UnicodeEncodeError:
                continue
    (tmp_path / "e.tar").write_bytes(stream.getvalue())
    out = place / "out"
    try:
        unpack(str(tmp_path / "e.tar"), str(out))
    except ArchiveError:
        assert not out.exists()
    for path in out.rglob("*"):
        is_python = path.parent == out / "bin" and path.name.startswith("python")
        if path.is_symlink() and not is_python:
            target = os.path.normpath(path.parent / os.readlink(path))
            assert f"{target}/".startswith(f"{out}/")
    shutil.rmtree(out, ignore_errors=True)
    assert os.listdir(place) == ["victim"]
    assert (place / "victim").read_text() == "old"


@settings(max_examples=300, deadline=None)
@given(
    place=st.integers(0, 4095),
    value=st.binary(min_size=1, max_size=12),
    fix=st.booleans(),
)
def test_forged_bytes(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: bytes, fix: bool
) -> None:
    """Any bytes give a folder or an `ArchiveError`."""
    folder = tmp_path_factory.getbasetemp()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in (entry("é" * 80, b"1" * 600), entry("b", kind=tarfile.SYMTYPE, link="a")):
            tar.addfile(info, io.BytesIO(data))
    forged = bytearray(stream.getvalue())
    forged[place : place + len(value)] = value
    if fix:
        start = place // 512 * 512
        block = forged[start : start + 512]
        block[148:156] = b" " * 8
        forged[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    (folder / "forged").write_bytes(forged)
    out = folder / "forged_out"
    try:
        unpack(str(folder / "forged"), str(out), max_bytes=1 << 20)
    except ArchiveError:
        assert not out.exists()
    archive.remove_folder(str(out))


# --- limits ---


def test_limit_of_bytes(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "bomb", entry("zeros", bytes(5 << 20)))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArchiveError, match=r"more than the 1048576 bytes .*MAX_TOTAL_BYTES"):
        unpack(str(path), str(tmp_path / "out"), max_bytes=1 << 20)
    assert not (tmp_path / "out").exists()


def test_limit_of_entries(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "many", *[entry(f"f{number}") for number in range(11)])
    unpack(str(path), str(tmp_path / "out"), max_entries=11)
    with pytest.raises(ArchiveError, match=r"more than the 10 entries .*MAX_ENTRIES"):
        unpack(str(path), str(tmp_path / "out2"), max_entries=10)
    assert not (tmp_path / "out2").exists()


def test_sparse_file_counts_as_it_will_be(tmp_path: Path) -> None:
    info, _ = entry("sparse")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(1 << 40),
    }
    with tarfile.open(tmp_path / "e", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(ArchiveError, match="MAX_TOTAL_BYTES"):
        unpack(str(tmp_path / "e"), str(tmp_path / "out"))


def test_huge_header_is_not_read(tmp_path: Path) -> None:
    info, _ = entry("long", kind=tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 32
    (tmp_path / "e").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(ArchiveError, match="header says that it is 4294967296 bytes"):
        unpack(str(tmp_path / "e"), str(tmp_path / "out"))


def test_endless_chain_of_headers(tmp_path: Path) -> None:
    info, _ = entry("pax", kind=tarfile.XHDTYPE)
    (tmp_path / "e").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) * 5000)
    with pytest.raises(ArchiveError, match="broken"):
        unpack(str(tmp_path / "e"), str(tmp_path / "out"))


def test_full_disk(
    environments: EnvironmentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive.shutil, "copyfileobj", full)
        with pytest.raises(InternalError, match="not enough space to unpack") as caught:
            environments.prepare(str(path), model_name="m")
    assert "TMPDIR" in notes(caught.value)
    (root,) = (tmp_path / "temporary").iterdir()
    assert os.listdir(root) == ["lock"]
    environments.prepare(str(path), model_name="m")


def test_changed_while_unpacked(
    environments: EnvironmentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    real = cache.unpack

    def slow(*args: object, **limits: int) -> str:
        os.utime(path, (5, 5))
        return real(*args, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr(cache, "unpack", slow)
    with pytest.raises(InternalError, match="changed while it was unpacked"):
        environments.prepare(str(path), model_name="m")
    (root,) = (tmp_path / "temporary").iterdir()
    assert os.listdir(root) == ["lock"]


# --- one server, many threads; many servers ---


def together(count: int, call: Callable[[int], object]) -> list[object]:
    barrier = threading.Barrier(count)

    def one(number: int) -> object:
        barrier.wait()
        try:
            return call(number)
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_threads_unpack_once(
    environments: EnvironmentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake(tmp_path / "e")
    runs = tmp_path / "runs"
    with (folder / "bin/python3").open("a") as file:
        file.write(f"echo run >> '{runs}'\n")
    path = pack(folder, tmp_path / "e.tar.gz")
    calls: list[object] = []
    real = cache.unpack

    def counted(*args: str, **limits: int) -> str:
        calls.append(args)
        return real(*args, **limits)

    monkeypatch.setattr(cache, "unpack", counted)
    found = together(32, lambda n: environments.prepare(str(path), model_name=f"m{n}"))
    assert len(calls) == 1
    assert all(f == found[0] for f in found)
    assert isinstance(found[0], ExecutionEnvironment)
    assert runs.read_text() == "run\n"


def test_threads_each_get_an_error(environments: EnvironmentCache, tmp_path: Path) -> None:
    path = tmp_path / "e.tar.gz"
    path.write_bytes(b"no")
    found = together(16, lambda n: environments.prepare(str(path), model_name=f"m{n}"))
    assert [error.model for error in found if isinstance(error, InternalError)] == [
        f"m{n}" for n in range(16)
    ]


def test_two_servers_do_not_meet(tmp_path: Path) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    parent = tmp_path / "shared"
    parent.mkdir()
    first, second = (EnvironmentCache(temporary_folder=str(parent)) for _ in range(2))
    one = first.prepare(str(path), model_name="m").path
    two = second.prepare(str(path), model_name="m").path
    assert one != two
    first.close()
    first.close()
    assert not Path(one).exists()
    assert Path(two, "bin/activate").exists()
    with pytest.raises(UnavailableError):
        first.prepare(str(path), model_name="m")
    second.close()
    assert list(parent.iterdir()) == []


HOLDER = """
import os, signal, sys
from pytriton_lite._environment.cache import EnvironmentCache
environments = EnvironmentCache(temporary_folder=sys.argv[1])
print(environments.prepare(sys.argv[2], model_name="m").path, flush=True)
if sys.argv[3] == "fork":
    if os.fork() == 0:
        sys.exit()
    os.wait()
    print(os.listdir(sys.argv[1]), flush=True)
if sys.argv[3] == "wait":
    sys.stdin.read()
"""


def holder(parent: Path, path: Path, end: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HOLDER, parent, path, end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ) | {"PYTHONPATH": str(Path(ptl.__file__).parents[1])},
    )


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    parent = tmp_path / "shared"
    parent.mkdir()
    return parent


@pytest.mark.parametrize("end", ["exit", "fork"])
def test_forgotten_close(tmp_path: Path, shared: Path, end: str) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    with holder(shared, path, end) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    # The forked child's end removed nothing.
    assert ("[]" in out) is False
    assert list(shared.iterdir()) == []


def test_killed_server(tmp_path: Path, shared: Path) -> None:
    """What it left is removed by the next one, which spares the living."""
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    with holder(shared, path, "wait") as killed, holder(shared, path, "wait") as living:
        assert killed.stdout is not None
        assert living.stdout is not None
        left = Path(killed.stdout.readline().strip())
        kept = Path(living.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert left.exists()
        own = EnvironmentCache(temporary_folder=str(shared))
        own.prepare(str(path), model_name="m")
        assert not left.parent.exists()
        assert kept.exists()
        own.close()
        living.communicate("")
    assert list(shared.iterdir()) == []


def test_only_own_abandoned_folders_are_removed(tmp_path: Path, shared: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "lock").write_text("")
    (shared / "pytriton_lite_env_link").symlink_to(victim)
    (shared / "pytriton_lite_env_new").mkdir()
    (shared / "other").mkdir()
    (shared / "other/lock").write_text("")
    cache._remove_abandoned(str(shared))
    assert (victim / "lock").exists()
    assert len(list(shared.iterdir())) == 3


def test_forgotten_cache(tmp_path: Path, shared: Path) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    environments = EnvironmentCache(temporary_folder=str(shared))
    environments.prepare(str(path), model_name="m")
    del environments
    assert list(shared.iterdir()) == []


def test_close_while_unpacking(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    environments = EnvironmentCache(temporary_folder=str(shared))
    entered, go_on = threading.Event(), threading.Event()
    real = cache.unpack

    def held(*args: str, **limits: int) -> str:
        entered.set()
        go_on.wait()
        return real(*args, **limits)

    monkeypatch.setattr(cache, "unpack", held)
    with ThreadPoolExecutor(2) as pool:
        prepared = pool.submit(environments.prepare, str(path), model_name="m")
        entered.wait()
        closed = pool.submit(environments.close)
        go_on.set()
        closed.result()
        assert isinstance(prepared.exception(), UnavailableError | InternalError | None)
    assert list(shared.iterdir()) == []


def test_close_does_not_wait_for_ever(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(fake(tmp_path / "e"), tmp_path / "e.tar.gz")
    environments = EnvironmentCache(temporary_folder=str(shared))
    entered, go_on = threading.Event(), threading.Event()
    real = cache.unpack

    def held(*args: str, **limits: int) -> str:
        entered.set()
        go_on.wait()
        return real(*args, **limits)

    monkeypatch.setattr(cache, "unpack", held)
    with ThreadPoolExecutor(1) as pool:
        prepared = pool.submit(environments.prepare, str(path), model_name="m")
        entered.wait()
        environments.close(0.01)
        assert not prepared.done()
        with pytest.raises(UnavailableError, match="stopped"):
            environments.prepare(str(path), model_name="m")
        go_on.set()
        assert isinstance(prepared.exception(), UnavailableError | InternalError | None)
    # Who unpacks tidies up.
    assert list(shared.iterdir()) == []


def test_probe_is_plain() -> None:
    """The probe is valid for the oldest Python that it is to name."""
    compile(interpreter._PROBE, "probe", "exec", dont_inherit=True)
    assert "f'" not in interpreter._PROBE
    assert 'f"' not in interpreter._PROBE
