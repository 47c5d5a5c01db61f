"""Models in stubs that functions of the test drive, in the test's process.

A stub's `execute` asks the test's process to run the function, and does meanwhile what that
wants done to its requests and senders, on its own thread. Other threads of the test have
connections of their own, for each of which the stub has a thread. Requests, senders, tensors and
the model's `pb_utils` stay where they are; the test has a `Remote` in place of each, and when
that goes, the stub lets go, too. All else goes by value.

::

    stub      -> test      ("execute", script, where the stub listens, requests)
                           ("log", script, entry)
    test      -> stub      ("apply", function, arguments), any number of times
                           ("return" or "raise", value), which ends an "execute"
    each but the last with a reply: ("ok", value) or ("error", exception)
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import pickle
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client, Connection, Listener
from typing import Any
from weakref import WeakValueDictionary

from pytriton_lite import pb_utils

VARIABLE = "PYTRITON_LITE_TEST_SCRIPTS"
"""Tells stubs where the test's process listens."""
THREADS = "remote-script"
"""How the names of threads of this module begin. They stay until their stub has ended."""


class Utils:
    """`pb_utils` of a model."""

    def __init__(self, utils: Any) -> None:
        self._utils = utils

    def __getattr__(self, name: str) -> Any:
        return getattr(self._utils, name)


# Of model code, what stays in the stub.
_KEPT = (pb_utils.InferenceRequest, pb_utils.InferenceResponseSender, pb_utils.Tensor, Utils)


class Remote:
    """A request, a sender or a tensor in a stub; methods are called there."""

    __slots__ = ("__weakref__", "_number", "_received", "_stub")

    def __init__(self, stub: str, number: int) -> None:
        self._stub = stub
        self._number = number
        self._received = 0

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)
        return lambda *arguments, **keywords: apply(self, _call, method, arguments, keywords)

    def __del__(self) -> None:
        _drops.append(self._stub, (self._number, self._received))


def apply(remote: Remote, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of a module in the stub, with the object there as its first argument."""
    return _ask(remote._stub, function, (remote, *arguments))


def _call(target: Any, method: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return getattr(target, method)(*arguments, **keywords)


# -- what goes over ------------------------------------------------------------------------


def _response(
    tensors: list[tuple[str, Any]], failure: tuple[str, int] | None, parameters: Any
) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, array) for name, array in tensors],
        None if failure is None else _error(*failure),
        parameters,
    )


def _error(text: str, code: int) -> Any:
    codes = ("UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED",
             "ALREADY_EXISTS", "CANCELLED")  # fmt: skip
    by_number = {int(getattr(pb_utils.TritonError, name)): name for name in codes}
    return pb_utils.TritonError(text, getattr(pb_utils.TritonError, by_number[code]))


def _exception(text: str, cause: BaseException | None) -> BaseException:
    made = pb_utils.TritonModelException(text)
    made.__cause__ = cause
    return made


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, table: _Table | None) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._table = table

    def persistent_id(self, thing: Any) -> Any:
        if type(thing) is Remote:
            return thing._number
        if self._table is not None and type(thing) in _KEPT:
            return self._table.add(thing)
        return None

    def reducer_override(self, thing: Any) -> Any:
        if type(thing) is pb_utils.Tensor:
            return pb_utils.Tensor, (thing.name(), thing.as_numpy())
        if type(thing) is pb_utils.TritonError:
            return _error, (thing.message(), int(thing.code()))
        if type(thing) is pb_utils.InferenceResponse:
            tensors = [(t.name(), t.as_numpy()) for t in thing.output_tensors()]
            error = thing.error()
            failure = None if error is None else (error.message(), int(error.code()))
            return _response, (tensors, failure, json.loads(thing.parameters() or "{}") or None)
        if type(thing) is pb_utils.TritonModelException:
            return _exception, (str(thing), thing.__cause__)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, find: Callable[[int], Any]) -> None:
        super().__init__(io.BytesIO(data))
        self._find = find

    def persistent_load(self, number: Any) -> Any:
        return self._find(number)


def _send(connection: Connection, message: Any, table: _Table | None = None) -> None:
    file = io.BytesIO()
    _Pickler(file, table).dump(message)
    connection.send_bytes(file.getvalue())


# -- in the test's process -----------------------------------------------------------------

_local = threading.local()
_remotes: WeakValueDictionary[tuple[str, int], Remote] = WeakValueDictionary()
_remotes_lock = threading.RLock()


class _Drops:
    """What went here and is still to go in the stubs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held until a stub has done what was taken for it
        self._by_stub: dict[str, deque[tuple[int, int]]] = {}
        # Both take an entry at any time, in the midst of anything: finalizers come so.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, stub: str) -> None:
        self._by_stub[stub] = deque()
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._settle_all, name=f"{THREADS}-drops", daemon=True
            )
            self._thread.start()

    def end(self, stub: str) -> None:
        self._by_stub.pop(stub, None)

    def append(self, stub: str, drop: tuple[int, int]) -> None:
        drops = self._by_stub.get(stub)
        if drops is not None:
            drops.append(drop)
            self._wake.put(None)

    def settle(self, stub: str, connection: Connection) -> None:
        """Have a stub let go of what went here so far."""
        with self._lock:
            drops, taken = self._by_stub.get(stub, ()), []
            while drops:
                taken.append(drops.popleft())
            if taken:
                _send(connection, ("apply", _drop, (taken,)))
                _reply(connection, stub)

    def _settle_all(self) -> None:
        while True:
            self._wake.get()
            for stub, drops in list(self._by_stub.items()):
                if drops:
                    with contextlib.suppress(EOFError, OSError):
                        self.settle(stub, _connection_to(stub))


_drops = _Drops()


def _find(stub: str, number: int) -> Remote:
    with _remotes_lock:
        found = _remotes.get((stub, number))
        if found is None:
            found = _remotes[stub, number] = Remote(stub, number)
        found._received += 1
        return found


def _receive(connection: Connection, stub: str) -> Any:
    return _Unpickler(connection.recv_bytes(), lambda number: _find(stub, number)).load()


def _reply(connection: Connection, stub: str) -> Any:
    what, value = _receive(connection, stub)
    if what == "error":
        raise value
    return value


def _ask(stub: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    connection = _connection_to(stub)
    _drops.settle(stub, connection)
    _send(connection, ("apply", function, arguments))
    return _reply(connection, stub)


def _connection_to(stub: str) -> Connection:
    """This thread's: in `execute` that on which the stub waits for its end."""
    connections: dict[str, Connection] = _local.__dict__.setdefault("connections", {})
    if stub not in connections:
        connections[stub] = Client(f"\0{stub}")
    return connections[stub]


class Scripts:
    """Runs what stubs ask for.

    Parameters
    ----------
    execute, log
        ``execute(script, requests)`` and ``log(script, entry)``.
    """

    def __init__(
        self, execute: Callable[[int, list[Any]], Any], log: Callable[[int, Any], None]
    ) -> None:
        self.address = f"pytriton-lite-test-{os.getpid()}"
        self._execute = execute
        self._log = log
        self._listener = Listener(f"\0{self.address}")
        threading.Thread(target=self._accept, name=f"{THREADS}-listener", daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            threading.Thread(
                target=self._serve, args=(connection,), name=THREADS, daemon=True
            ).start()

    def _serve(self, connection: Connection) -> None:
        stub = connection.recv()
        is_first = stub not in _drops._by_stub
        if is_first:
            _drops.start(stub)
        _local.__dict__.setdefault("connections", {})[stub] = connection
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                self._serve_one(connection, stub)
        if is_first:
            _drops.end(stub)

    def _serve_one(self, connection: Connection, stub: str) -> None:
        what, number, data = _receive(connection, stub)
        if what == "log":
            self._log(number, data)
            _send(connection, ("return", None))
            return
        outcome: tuple[str, Any]
        try:
            outcome = "return", self._execute(number, data)
        except BaseException as error:
            error.__traceback__ = error.__context__ = None  # frames hold requests
            outcome = "raise", error
        del data
        _drops.settle(stub, connection)
        try:
            _send(connection, outcome)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            _send(connection, ("raise", AssertionError(f"cannot be sent: {error}")))


# -- in a stub -----------------------------------------------------------------------------


class _Table:
    """What the test's process may name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: dict[int, list[Any]] = {}  # number -> thing, how often it was sent
        self._numbers: dict[int, int] = {}  # id -> number
        self._next = itertools.count(1)

    def add(self, thing: Any) -> int:
        with self._lock:
            number = self._numbers.get(id(thing))
            if number is None:
                number = self._numbers[id(thing)] = next(self._next)
                self._things[number] = [thing, 0]
            self._things[number][1] += 1
            return number

    def find(self, number: int) -> Any:
        return self._things[number][0]

    def drop(self, number: int, count: int) -> Any:
        with self._lock:
            entry = self._things[number]
            entry[1] -= count
            if entry[1]:
                return None
            del self._things[number], self._numbers[id(entry[0])]
            return entry[0]  # goes without the lock


_table = _Table()


def _drop(drops: list[tuple[int, int]]) -> None:
    for drop in drops:
        _table.drop(*drop)


class StubScript:
    """A `Script` of the test's process, in a stub."""

    def __init__(self, number: int, *, is_async: bool) -> None:
        self._number = number
        self._is_async = is_async
        self._threads = ThreadPoolExecutor(32)
        self.log = self
        _listen()

    def execute(self, requests: list[Any]) -> Any:
        """Have the test do it; of an asynchronous model on a thread, while the others go on."""
        if self._is_async:
            loop = asyncio.get_running_loop()
            return loop.run_in_executor(self._threads, self._ask, "execute", requests)
        return self._ask("execute", requests)

    def append(self, entry: Any) -> None:
        """Of `log`. With "finalize" the process ends, so what was asked gets its reply before."""
        self._ask("log", entry)
        if entry == "finalize":
            with _replied:
                _replied.wait_for(lambda: not _unreplied, 1.0)

    def _ask(self, what: str, data: Any) -> Any:
        if getattr(_local, "connection", None) is None:
            _local.connection = Client("\0" + os.environ[VARIABLE])
            _local.connection.send(_own_address())
        _send(_local.connection, (what, self._number, data), _table)
        del data
        return _serve(_local.connection)


def _own_address() -> str:
    return f"{os.environ[VARIABLE]}-{os.getpid()}"


_listener: Listener | None = None
_replied = threading.Condition()
_unreplied: set[int] = set()  # threads that do something


def _listen() -> None:
    global _listener
    if _listener is not None:
        return
    _listener = Listener(f"\0{_own_address()}")

    def accept() -> None:
        while True:
            assert _listener is not None
            connection = _listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            _serve(connection)

    threading.Thread(target=accept, daemon=True).start()


def _serve(connection: Connection) -> Any:
    """Do what the test asks for until it says that it is over; its outcome."""
    while True:
        is_over, outcome = _serve_one(connection)
        if is_over:
            return outcome


def _serve_one(connection: Connection) -> tuple[bool, Any]:
    what, *rest = _Unpickler(connection.recv_bytes(), _table.find).load()
    if what == "return":
        return True, rest[0]
    if what == "raise":
        raise rest[0]
    function, arguments = rest
    with _replied:
        _unreplied.add(threading.get_ident())
    try:
        _do(connection, function, arguments)
    finally:
        with _replied:
            _unreplied.discard(threading.get_ident())
            _replied.notify_all()
    return False, None


def _do(connection: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    reply: tuple[str, Any]
    try:
        reply = "ok", function(*arguments)
    except BaseException as error:
        error.__traceback__ = error.__context__ = None
        reply = "error", error
    try:
        _send(connection, reply, _table)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        _send(connection, ("error", AssertionError(f"cannot be sent: {error}")))
