"""Questions that one side asks the other, with an answer or an error each.

For what is rare: tensors and responses have records of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Any

from pytriton_lite._ipc.exceptions import error_of_wire, error_to_wire
from pytriton_lite._ipc.wire import Link, Reader, RecordKind
from pytriton_lite.errors import TritonError, UnavailableError

Answer = Callable[[Any], Any]
"""Makes a reply of the data of a question; both are what JSON can carry."""


class Asker:
    """Asks, and waits for replies. Thread-safe.

    Parameters
    ----------
    link
        To the other side. `replied` must get the REPLY records that come.
    model_name
        For errors.
    """

    def __init__(self, link: Link, model_name: str) -> None:
        self._link = link
        self._model_name = model_name
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._is_closed = False

    def ask(self, what: str, data: object = None, *, timeout_s: float | None = None) -> Any:
        """Ask and return the reply.

        Raises
        ------
        TritonError
            The other side's error.
        UnavailableError
            It is gone.
        TimeoutError
            No reply within `timeout_s`.
        """
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting()
        try:
            self._link.post(RecordKind.ASK, number, what, data)
            if self._is_closed:
                raise UnavailableError("the other process is gone", model=self._model_name)
            if not waiting.is_done.wait(timeout_s):
                raise TimeoutError(f"no reply within {timeout_s:g} s")
        finally:
            self._waiting.pop(number, None)
        if waiting.error is not None:
            raise waiting.error
        return waiting.value

    def tell(self, what: str, data: object = None) -> None:
        """Say something that needs no reply."""
        self._link.post(RecordKind.TELL, 0, what, data)

    def replied(self, record: Reader) -> None:
        """Take a REPLY; on the thread that reads what comes aside."""
        reply = record.json()
        waiting = self._waiting.get(record.call)
        if waiting is None or not isinstance(reply, dict):
            return
        if "error" in reply:
            waiting.error = error_of_wire(reply["error"], self._model_name, None)
        else:
            waiting.value = reply.get("value")
        waiting.is_done.set()

    def close(self) -> None:
        """The other side is gone: everybody who waits is told."""
        self._is_closed = True
        for waiting in list(self._waiting.values()):
            waiting.error = UnavailableError("the other process is gone", model=self._model_name)
            waiting.is_done.set()


class _Waiting:
    def __init__(self) -> None:
        self.is_done = threading.Event()
        self.value: Any = None
        self.error: TritonError | None = None


class Answerer:
    """Answers the questions of the other side.

    Parameters
    ----------
    link
        To the other side. `asked` must get the ASK records that come, `told` the TELL records.
    name
        Of the instance, for threads.
    """

    def __init__(self, link: Link, name: str) -> None:
        self._link = link
        self._name = name
        self._quick: dict[str, Answer] = {}
        self._slow: dict[str, Answer] = {}

    def add(self, what: str, answer: Answer, *, may_wait: bool = False) -> None:
        """Answer questions of a kind; with `may_wait` each on a thread of its own."""
        (self._slow if may_wait else self._quick)[what] = answer

    def asked(self, record: Reader) -> None:
        """Take an ASK; on the thread that reads what comes aside."""
        what, data, number = record.text(), record.json(), record.call
        slow = self._slow.get(what)
        if slow is None:
            self._answer(self._quick.get(what), what, data, number)
            return
        threading.Thread(
            target=self._answer,
            args=(slow, what, data, number),
            name=f"{self._name}-{what}",
            daemon=True,
        ).start()

    def told(self, record: Reader) -> None:
        """Take a TELL; on the thread that reads what comes aside."""
        what, data = record.text(), record.json()
        answer = self._quick.get(what)
        if answer is not None:
            answer(data)

    def _answer(self, answer: Answer | None, what: str, data: Any, number: int) -> None:
        reply: dict[str, Any]
        try:
            if answer is None:
                raise UnavailableError(f"the other process answers no question '{what}'")
            reply = {"value": answer(data)}
        except Exception as error:
            reply = {"error": error_to_wire(error)}
        with contextlib.suppress(UnavailableError):  # who asked is gone
            self._link.post(RecordKind.REPLY, number, None, reply)
