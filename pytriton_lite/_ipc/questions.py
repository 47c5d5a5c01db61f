"""Questions that one side asks the other, with an answer or an error each.

For what is rare: tensors and responses have records of their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pytriton_lite._ipc.exceptions import error_of_wire, error_to_wire
from pytriton_lite._ipc.wire import Link, Reader, RecordKind
from pytriton_lite.errors import TritonError, UnavailableError

# What has been said is mostly dealt with in microseconds.
_SETTLE_S = 1.0

Answer = Callable[..., Any]
"""Makes a reply of the data of a question, and of the bytes that came with it.

Data and reply are what JSON can carry.
"""


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
        self._waiting: dict[int, Question] = {}
        self._is_closed = False
        self._pid = os.getpid()

    @property
    def is_closed(self) -> bool:
        """Whether the other side is gone; or is not ours, in a forked child of this process."""
        return self._link.is_closed or os.getpid() != self._pid

    def _check(self) -> None:
        # Before any lock of the rings: in a forked child somebody may hold it for ever, and what
        # it wrote would go across what its parent writes.
        if self.is_closed:
            raise UnavailableError("the other process is gone", model=self._model_name)

    def ask(
        self,
        what: str,
        data: object = None,
        *,
        blobs: tuple[bytes, ...] = (),
        timeout_s: float | None = None,
    ) -> Any:
        """Ask, with what JSON can carry and with bytes, and return the reply.

        Raises
        ------
        TritonError
            The other side's error.
        UnavailableError
            It is gone.
        TimeoutError
            No reply within `timeout_s`.
        """
        question = self.begin(what, data, blobs)
        try:
            return question.wait(timeout_s)
        finally:
            self._waiting.pop(question.number, None)

    def begin(self, what: str, data: object = None, blobs: tuple[bytes, ...] = ()) -> Question:
        """Ask, and do not wait for the reply."""
        self._check()
        number = next(self._numbers)
        question = self._waiting[number] = Question(number)
        try:
            self._link.post(RecordKind.ASK, number, what, data, blobs=blobs)
        except BaseException:
            del self._waiting[number]
            raise
        if self._is_closed:
            self._fail(question)
        return question

    def tell(self, what: str, data: object = None, *, is_quiet: bool = False) -> None:
        """Say something that needs no reply; `is_quiet`: that may be heard later."""
        self._check()
        if is_quiet:
            self._link.post_quietly(RecordKind.TELL, what, data)
            return
        self._link.post(RecordKind.TELL, 0, what, data)

    def settle(self) -> None:
        """Wait until what the other side has said is dealt with, but not for long."""
        if not self.is_closed:
            self._link.wait_until_read_aside(_SETTLE_S)

    def replied(self, record: Reader) -> None:
        """Take a REPLY; on the thread that reads what comes aside."""
        reply = record.json()
        question = self._waiting.pop(record.call, None)
        if question is None or not isinstance(reply, dict):
            return
        if "error" in reply:
            question.end(None, error_of_wire(reply["error"], self._model_name, None))
        else:
            question.end(reply.get("value"), None)

    def close(self) -> None:
        """The other side is gone: everybody who waits is told."""
        self._is_closed = True
        for question in list(self._waiting.values()):
            self._fail(question)

    def _fail(self, question: Question) -> None:
        self._waiting.pop(question.number, None)
        gone = UnavailableError("the other process is gone", model=self._model_name)
        question.end(None, gone)


class Question:
    """What was asked, and in time the reply."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._done = threading.Event()
        self._value: Any = None
        self._error: TritonError | None = None

    @property
    def is_done(self) -> bool:
        """Whether there is a reply."""
        return self._done.is_set()

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait for the reply; raises as `Asker.ask`. Any number of threads may."""
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"no reply within {timeout_s:g} s")
        if self._error is not None:
            raise self._error
        return self._value

    def end(self, value: Any, error: TritonError | None) -> None:
        """Take the reply."""
        self._value, self._error = value, error
        self._done.set()


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
        # Of slow answers. Only the thread that reads what comes aside changes it.
        self._threads: list[threading.Thread] = []

    def add(self, what: str, answer: Answer, *, may_wait: bool = False) -> None:
        """Answer questions of a kind; with `may_wait` each on a thread of its own."""
        (self._slow if may_wait else self._quick)[what] = answer

    def asked(self, record: Reader) -> None:
        """Take an ASK; on the thread that reads what comes aside."""
        what, data, blobs, number = record.text(), record.json(), record.blobs(), record.call
        slow = self._slow.get(what)
        if slow is None:
            self._answer(self._quick.get(what), what, (data, *blobs), number)
            return
        thread = threading.Thread(
            target=self._answer,
            args=(slow, what, (data, *blobs), number),
            name=f"{self._name}-{what}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:  # no more threads to be had, or the interpreter ends
            self._reply(number, {"error": error_to_wire(error)})
            return
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def join(self, limit_s: float) -> None:
        """Wait for the threads of slow answers."""
        until = time.monotonic() + limit_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def told(self, record: Reader) -> None:
        """Take a TELL; on the thread that reads what comes aside."""
        what, data = record.text(), record.json()
        answer = self._quick.get(what)
        if answer is not None:
            answer(data)

    def _answer(
        self, answer: Answer | None, what: str, given: tuple[Any, ...], number: int
    ) -> None:
        try:
            if answer is None:
                raise UnavailableError(f"the other process answers no question '{what}'")
            reply: dict[str, Any] = {"value": answer(*given)}
        except Exception as error:
            reply = {"error": error_to_wire(error)}
        self._reply(number, reply)

    def _reply(self, number: int, reply: dict[str, Any]) -> None:
        with contextlib.suppress(UnavailableError):  # who asked is gone
            self._link.post(RecordKind.REPLY, number, None, reply)
