"""Objects of a test that its models use, also from other processes.

A test's process offers an object under a Unix socket. In a stub, `connect` gives one that looks the
same: plain values are read and written there, methods of events and lists are called there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from types import SimpleNamespace
from typing import Any

VARIABLE = "PYTRITON_LITE_TEST_SHARED"
THREADS = "shared-with-stubs"
"""Name of threads that stay until their stub has ended."""
_local = threading.local()


@contextlib.contextmanager
def offered(shared: SimpleNamespace, path: str) -> Iterator[None]:
    """Let models in stubs use `shared`; `VARIABLE` must tell them the path."""
    listener = Listener(path)

    def accept() -> None:
        while True:
            connection = listener.accept()
            if is_closed:
                return
            threading.Thread(
                target=_answer, args=(shared, connection), name=THREADS, daemon=True
            ).start()

    is_closed: list[bool] = []
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield
    is_closed.append(True)
    Client(path).close()
    thread.join()
    listener.close()


def _answer(shared: SimpleNamespace, connection: Connection) -> None:
    with contextlib.suppress(EOFError, OSError), connection:
        while True:
            what, name, *rest = connection.recv()
            try:
                if what == "set":
                    setattr(shared, name, rest[0])
                    reply: Any = None
                elif what == "get":
                    reply = getattr(shared, name)
                    if isinstance(reply, list | threading.Event | threading.Barrier):
                        reply = _Remote(name)
                else:
                    method, arguments = rest
                    reply = getattr(getattr(shared, name), method)(*arguments)
                connection.send((reply, None))
            except Exception as error:
                connection.send((None, error))


def _ask(*question: Any) -> Any:
    if getattr(_local, "owner", None) != os.getpid():
        _local.connection = Client(os.environ[VARIABLE])
        _local.owner = os.getpid()
    _local.connection.send(question)
    reply, error = _local.connection.recv()
    if error is not None:
        raise error
    return reply


class _Remote:
    """An event, a barrier or a list of the test's process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        return lambda *arguments: _ask("call", self._name, method, arguments)

    def __len__(self) -> int:
        return int(_ask("call", self._name, "__len__", ()))

    def __getitem__(self, place: int) -> Any:
        return _ask("call", self._name, "__getitem__", (place,))


class _Shared:
    def __getattr__(self, name: str) -> Any:
        return _ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask("set", name, value)


def connect() -> Any:
    """What the test shares with its models: in its own process the object itself."""
    return _Shared() if VARIABLE in os.environ and not hasattr(threading, "bls") else threading.bls
