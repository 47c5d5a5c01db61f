"""The interpreter of an execution environment: its variables, and whether it can run a stub."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytriton_lite
from pytriton_lite._environment.carried import ABI, FINDER, VARIABLE, carried_packages
from pytriton_lite._environment.problem import EnvironmentProblem

_log = logging.getLogger("pytriton_lite.server")

OLDEST_PYTHON = (3, 11)
NEWEST_PYTHON = (3, 13)
OLDEST_NUMPY = (1, 26)
# Importing numpy from a cold network file system takes long.
PROBE_TIMEOUT_S = 60.0

_VERSION_PARTS = 3
_MARK = "pytriton_lite-probe:"
# Runs under any Python since 2.7, to say which one it is. Its working directory must not shadow
# what is installed, and `.pth` files may print.
_PROBE = """
import json, platform, sys
sys.path[:] = [p for p in sys.path if p]
found = {
    "version": list(sys.version_info[:3]),
    "implementation": platform.python_implementation(),
    "prefix": sys.prefix,
}
try:
    from importlib.machinery import EXTENSION_SUFFIXES
    found["abi"] = EXTENSION_SUFFIXES[0]
except ImportError:
    pass
if found.get("abi") == sys.argv.pop():
FINDER
for name in ("numpy", "pytriton_lite"):
    try:
        found[name] = str(__import__(name).__version__)
    except BaseException as error:
        found[name] = None
        found[name + "_error"] = "%s: %s" % (type(error).__name__, error)
sys.stdout.write("\\nMARK" + json.dumps(found) + "\\n")
sys.stdout.flush()
""".replace("MARK", _MARK).replace("FINDER", textwrap.indent(FINDER, "    "))

# What a stub's interpreter does not look at on Triton (2.51: an isolated configuration), and
# what would lead another Python to the packages of this one.
_DROPPED = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__")

# Of the scripts that venv, virtualenv and conda-pack write.
_USUAL_EXPORTS = re.compile(
    r"PATH|PS1|PYTHONHOME|VIRTUAL_ENV(_PROMPT)?|PKG_CONFIG_PATH|T(CL|K)_LIBRARY|_?CONDA_\w*|_OLD_\w*"
)
_EXPORT = re.compile(r"^\s*export\s+([A-Za-z_]\w*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that can run a stub.

    Attributes
    ----------
    path
        Of the executable.
    version
        Major, minor, micro.
    """

    path: str
    version: tuple[int, int, int]


def stub_variables(folder: str, parent: Mapping[str, str]) -> dict[str, str]:
    """Compute the environment variables that a stub starts with.

    As the newest sources of Triton do, the environment's activate script is not run.

    Parameters
    ----------
    folder
        Of the environment.
    parent
        Variables of the server.
    """
    variables = {key: value for key, value in parent.items() if key not in _DROPPED}
    variables["VIRTUAL_ENV"] = folder
    if os.path.isdir(os.path.join(folder, "conda-meta")):
        variables["CONDA_PREFIX"] = folder
    variables["PATH"] = _prepended(os.path.join(folder, "bin"), parent.get("PATH", os.defpath))
    # The loader reads it once, at the start; the stub puts the old value back for its children.
    # It would split the folder's name, or replace something in it.
    if not set(folder) & set(";$"):
        variables["LD_LIBRARY_PATH"] = _prepended(
            os.path.join(folder, "lib"), parent.get("LD_LIBRARY_PATH", "")
        )
    # Packages in the home folder are not seen by a stub on Triton (observed on 2.51).
    variables["PYTHONNOUSERSITE"] = "1"
    return variables


def _prepended(folder: str, path: str) -> str:
    # An empty part would mean the working directory.
    return f"{folder}{os.pathsep}{path}" if path else folder


def warn_of_exports(folder: str, model_name: str) -> None:
    """Log which variables an activate script sets beyond the usual; a stub lacks them."""
    try:
        with open(os.path.join(folder, "bin", "activate"), encoding="utf-8") as file:
            names = dict.fromkeys(_EXPORT.findall(file.read()))
    except (OSError, UnicodeDecodeError):
        return
    names = dict.fromkeys(name for name in names if not _USUAL_EXPORTS.fullmatch(name))
    if names:
        _log.warning(
            "model '%s': '%s/bin/activate' exports %s; the script is not run (as in the newest "
            "Triton), so set what the model needs in the model or for the server",
            model_name,
            folder,
            ", ".join(names),
        )


def find_interpreter(
    folder: str, variables: Mapping[str, str], *, timeout_s: float = PROBE_TIMEOUT_S
) -> Interpreter:
    """Find the Python of an environment and prove that it can run a stub.

    Parameters
    ----------
    folder
        Of the environment.
    variables
        From `stub_variables`.
    timeout_s
        For the one run of the interpreter, in seconds.

    Raises
    ------
    EnvironmentProblem
        There is none, it does not run, or something is missing in it.
    """
    tried = [os.path.join(folder, "bin", name) for name in ("python3", "python")]
    path = next((p for p in tried if os.path.isfile(p) and os.access(p, os.X_OK)), None)
    if path is None:
        hint = None
        broken = [p for p in tried if os.path.islink(p) and not os.path.exists(p)]
        if broken:
            hint = (
                f"'{broken[0]}' is a link to '{os.readlink(broken[0])}', which does not exist "
                "here. A venv needs the Python that it was made from; conda-pack takes it along."
            )
        elif files := [p for p in tried if os.path.isfile(p)]:
            hint = (
                f"'{files[0]}' may not be executed: its mode forbids it, or its file system is "
                "mounted 'noexec' (TMPDIR names another place for what is unpacked)."
            )
        raise EnvironmentProblem(
            f"The execution environment '{folder}' has no Python: neither '{tried[0]}' nor "
            f"'{tried[1]}' is a program.",
            hint,
        )
    return Interpreter(path, _checked(_probe(path, variables, timeout_s), path, folder))


def _probe(path: str, variables: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    start = f"The Python '{path}' of the execution environment "
    try:
        # A session of its own, so that what the interpreter starts can be ended with it.
        with subprocess.Popen(
            [path, "-c", _PROBE, ABI],
            env={**variables, VARIABLE: carried_packages()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException as error:
                _kill(process)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise EnvironmentProblem(
                        f"{start}did not answer within {timeout_s:g} s."
                    ) from None
                raise
    except OSError as error:
        raise EnvironmentProblem(f"{start}cannot be started: {error.strerror}.") from error
    for line in out.decode(errors="replace").splitlines():
        if line.startswith(_MARK):
            try:
                found = json.loads(line.removeprefix(_MARK))
            except ValueError:
                break
            if isinstance(found, dict) and len(found.get("version", ())) == _VERSION_PARTS:
                return found
    code = process.returncode
    ended = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
    wrote = err.decode(errors="replace").strip()[-2000:]
    raise EnvironmentProblem(
        f"{start}does not run: it {ended} without an answer.",
        f"It wrote: {wrote}" if wrote else None,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _checked(found: dict[str, Any], path: str, folder: str) -> tuple[int, int, int]:
    start = f"The execution environment '{folder}' "
    ours = pytriton_lite.__version__
    oldest_numpy = ".".join(map(str, OLDEST_NUMPY))
    install = f"Install it there: '{path}' -m pip install "
    major, minor, micro = found["version"]
    version = f"{major}.{minor}.{micro}"
    supported = ".".join(map(str, OLDEST_PYTHON)) + " to " + ".".join(map(str, NEWEST_PYTHON))
    anew = f"Make the environment anew with CPython {supported}, numpy and pytriton_lite=={ours}."
    if found.get("implementation") != "CPython":
        raise EnvironmentProblem(
            f"{start}has {found['implementation']} {version}; CPython {supported} is needed.", anew
        )
    if not OLDEST_PYTHON <= (major, minor) <= NEWEST_PYTHON:
        raise EnvironmentProblem(f"{start}has Python {version}; {supported} are supported.", anew)
    numpy = found.get("numpy")
    if numpy is None:
        raise EnvironmentProblem(
            f"{start}lacks numpy ({found.get('numpy_error')}).",
            f'{install}"numpy>={oldest_numpy}"'
            + ("" if found.get("abi") == ABI else f" pytriton_lite=={ours}"),
        )
    if tuple(map(int, re.findall(r"\d+", numpy)[:2])) < OLDEST_NUMPY:
        raise EnvironmentProblem(
            f"{start}has numpy {numpy}; at least {oldest_numpy} is needed.",
            f'{install}"numpy>={oldest_numpy}"',
        )
    theirs = found.get("pytriton_lite")
    if theirs is None and found.get("abi") == ABI:
        # The server's own is there, if it has none.
        raise EnvironmentProblem(
            f"{start}cannot import pytriton_lite ({found.get('pytriton_lite_error')}).",
            f"{install}pytriton_lite=={ours}",
        )
    if theirs is None:
        raise EnvironmentProblem(
            f"{start}lacks pytriton_lite {ours} for Python {version} "
            f"({found.get('pytriton_lite_error')}).",
            f"{install}pytriton_lite=={ours}",
        )
    if theirs != ours:
        raise EnvironmentProblem(
            f"{start}has pytriton_lite {theirs}; the server has {ours}.",
            f"{install}pytriton_lite=={ours}",
        )
    return major, minor, micro
