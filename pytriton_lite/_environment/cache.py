"""The execution environments of one server, unpacked and checked once each."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar, cast

from pytriton_lite._environment.archive import (
    MAX_ENTRIES,
    MAX_TOTAL_BYTES,
    ArchiveError,
    hash_of,
    remove_folder,
    unpack,
)
from pytriton_lite._environment.interpreter import (
    Interpreter,
    find_interpreter,
    stub_variables,
    warn_of_exports,
)
from pytriton_lite._environment.problem import EnvironmentProblem
from pytriton_lite._environment.setting import PARAMETER, canonical_path
from pytriton_lite.errors import InternalError, UnavailableError

_log = logging.getLogger("pytriton_lite.server")

_PREFIX = "pytriton_lite_env_"
_LOCK = "lock"

_Signature = tuple[int, int, int]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ExecutionEnvironment:
    """Where and how a model's stub starts.

    Attributes
    ----------
    path
        Folder of the environment; stays as it is until the cache is closed.
    interpreter
        Path of its Python.
    python_version
        Major, minor, micro.
    variables
        All environment variables of the new process.
    library_path
        The server's own ``LD_LIBRARY_PATH``, None if it has none: what the stub sets again
        before the model's code runs, as Triton's stub does.
    origin
        Canonical path of the folder or archive that the model names.
    """

    path: str
    interpreter: str
    python_version: tuple[int, int, int]
    variables: dict[str, str] = field(repr=False)
    library_path: str | None
    origin: str


@dataclass(slots=True)
class _Unpacked:
    """What was made of one archive."""

    signature: _Signature
    content: str
    folder: str


class EnvironmentCache:
    """Prepares environments for the models of one server.

    Parameters
    ----------
    temporary_folder
        Where archives are unpacked, in a private folder of the cache. Default: the system's.
    max_bytes, max_entries
        Limits for one archive.

    Notes
    -----
    Any thread may call every method. What is unpacked is removed by `close`. If that is
    forgotten, it is removed when the cache is collected or the interpreter exits; and after a
    kill, when the next cache unpacks something in the same temporary folder. For that each
    folder holds a locked file, which the system unlocks when its process ends, however it does.
    """

    def __init__(
        self,
        *,
        temporary_folder: str | None = None,
        max_bytes: int = MAX_TOTAL_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        self._parent = temporary_folder
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._root: _Root | None = None
        self._numbers = itertools.count()
        self._is_closed = False
        # By canonical path.
        self._unpacked: dict[str, _Unpacked] = {}
        # What a thread does right now and others wait for, by name and path.
        self._running: dict[tuple[str, str], Future[object]] = {}
        # By folder; only those that can run a stub: what is missing may be installed meanwhile.
        self._interpreters: dict[str, tuple[Interpreter, _Signature]] = {}

    def prepare(
        self, setting: str, *, model_name: str, parent: Mapping[str, str] | None = None
    ) -> ExecutionEnvironment:
        """Make an environment ready for stubs.

        Parameters
        ----------
        setting
            From `environment_setting`.
        model_name
            For errors.
        parent
            Variables of the server; default `os.environ`.

        Raises
        ------
        InternalError
            It is missing, broken, unsafe, or cannot run a stub.
        UnavailableError
            The cache is closed.

        Notes
        -----
        Blocks while the archive is unpacked, by this thread or another.
        """
        if parent is None:
            parent = os.environ
        origin = canonical_path(setting, model_name)
        is_folder = os.path.isdir(origin)
        folder = origin
        if not is_folder:
            folder = self._once("unpack", origin, self._refreshed, origin, model_name)
        _check_activate(folder, None if is_folder else origin, model_name)
        variables = stub_variables(folder, parent)

        def find(folder: str) -> Interpreter:
            # Folders may be made anew, with another Python.
            known = self._interpreters.get(folder)
            if known is not None and _is_same(*known):
                return known[0]
            found = find_interpreter(folder, variables)
            self._interpreters[folder] = (found, _signature_of(found.path))
            return found

        interpreter = self._once("find", folder, find, origin, model_name)
        warn_of_exports(folder, model_name)
        return ExecutionEnvironment(
            path=folder,
            interpreter=interpreter.path,
            python_version=interpreter.version,
            variables=variables,
            library_path=parent.get("LD_LIBRARY_PATH"),
            origin=origin,
        )

    def close(self, limit_s: float | None = None) -> None:
        """Remove all that was unpacked. Stubs must have ended. Safe to call again.

        What is being unpacked is waited for, at most `limit_s` seconds; then the thread that does
        it removes everything when it is through.
        """
        until = None if limit_s is None else time.monotonic() + limit_s
        with self._lock:
            self._is_closed = True
            running = list(self._running.values())
        for future in running:
            with contextlib.suppress(TimeoutError):
                future.exception(None if until is None else max(0.0, until - time.monotonic()))
        self._remove_closed()

    def _remove_closed(self) -> None:
        with self._lock:
            if not self._is_closed or self._running:
                return
            root, self._root = self._root, None
            self._unpacked.clear()
            self._interpreters.clear()
        if root is not None:
            root.remove()

    def _once(
        self, what: str, path: str, make: Callable[[str], _T], origin: str, model_name: str
    ) -> _T:
        """Call `make`, unless another thread does it for the same path; then wait for that."""
        key = (what, path)
        with self._lock:
            if self._is_closed:
                raise UnavailableError("the server is stopped", model=model_name)
            future = self._running.get(key)
            is_ours = future is None
            if future is None:
                future = self._running[key] = Future()
        if is_ours:
            try:
                made = make(path)
            except BaseException as error:
                is_ordinary = isinstance(error, Exception)
                self._end(key).set_exception(
                    error if is_ordinary else EnvironmentProblem("The load was interrupted.")
                )
                if not is_ordinary:
                    raise
            else:
                self._end(key).set_result(made)
            self._remove_closed()
        try:
            return cast(_T, future.result())
        except EnvironmentProblem as problem:
            failure = InternalError(
                f"{problem.message} Model '{model_name}' has '{origin}' for its execution "
                "environment.",
                model=model_name,
            )
            note = problem.hint or f"The model names it by its parameter '{PARAMETER}'."
            if what == "find" and path != origin:
                # Where it is unpacked, nothing that is installed would stay.
                note += f" Do it where the environment was packed, and make '{origin}' again."
            failure.add_note(note)
            raise failure from problem

    def _end(self, key: tuple[str, str]) -> Future[object]:
        with self._lock:
            return self._running.pop(key)

    def _refreshed(self, archive: str) -> str:
        try:
            signature = _signature_of(archive)
            known = self._unpacked.get(archive)
            if known is not None:
                if known.signature == signature:
                    return known.folder
                if known.content == hash_of(archive):
                    known.signature = signature
                    return known.folder
            root = self._made_root()
        except OSError as error:
            raise ArchiveError(f"It cannot be read or unpacked: {error}.") from error
        # Never over the old folder, which stubs may be using still; Triton does that.
        folder = os.path.join(root.path, str(next(self._numbers)))
        content = unpack(archive, folder, max_bytes=self._max_bytes, max_entries=self._max_entries)
        try:
            is_same = _signature_of(archive) == signature
        except OSError:
            is_same = False
        if not is_same:
            remove_folder(folder)
            raise ArchiveError("The file was changed while it was unpacked.", "Load again.")
        self._unpacked[archive] = _Unpacked(signature, content, folder)
        return folder

    def _made_root(self) -> _Root:
        with self._lock:
            if self._root is None:
                parent = os.path.realpath(self._parent or tempfile.gettempdir())
                _remove_abandoned(parent)
                self._root = _Root(parent)
                weakref.finalize(self, self._root.remove)
            return self._root


class _Root:
    """A private folder, removed by the process that made it."""

    def __init__(self, parent: str) -> None:
        self.path = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._handle: int | None = None
        name = os.path.join(self.path, _LOCK)
        try:
            # Not yet under its name, or a search for abandoned folders might lock it first.
            self._handle = os.open(f"{name}.new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            os.rename(f"{name}.new", name)
        except BaseException:
            remove_folder(self.path)
            if self._handle is not None:
                os.close(self._handle)
            raise

    def remove(self) -> None:
        # A forked child has this object, too, with the lock in whatever state it was.
        if os.getpid() != self._owner:
            return
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            remove_folder(self.path)
            os.close(handle)


def _remove_abandoned(parent: str) -> None:
    """Remove folders whose processes were killed."""
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    status = os.lstat(path)
    # The temporary folder may be open to others, who could lead us astray by a link.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        return
    handle = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _log.info("removing '%s', which a killed process left behind", path)
        remove_folder(path)
    finally:
        os.close(handle)


def _signature_of(path: str) -> _Signature:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size, status.st_ino


def _is_same(interpreter: Interpreter, signature: _Signature) -> bool:
    try:
        return _signature_of(interpreter.path) == signature
    except OSError:
        return False


def _check_activate(folder: str, archive: str | None, model_name: str) -> None:
    path = os.path.join(folder, "bin", "activate")
    if os.path.isfile(path):
        return
    what = "is not a file" if os.path.exists(path) else "does not exist"
    error = InternalError(
        f"Path {path} {what}. The Python environment should contain an 'activate' script.",
        model=model_name,
    )
    note = f"Model '{model_name}' asks for it by its parameter '{PARAMETER}'"
    if archive is not None:
        note += f", from the archive '{archive}'"
    inner = _inner_environment(folder)
    if inner is not None:
        note += f". There is '{inner}/bin/activate': " + (
            "pack what is in that folder" if archive else "name that folder"
        )
    error.add_note(note + ".")
    raise error


def _inner_environment(folder: str) -> str | None:
    """Name of the sub-folder that is meant, if there is just one."""
    with contextlib.suppress(OSError):
        names = [
            name
            for name in os.listdir(folder)
            if os.path.isfile(os.path.join(folder, name, "bin", "activate"))
        ]
        if len(names) == 1:
            return names[0]
    return None
