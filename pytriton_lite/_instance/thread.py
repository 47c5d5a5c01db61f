"""`thread` instances: one dedicated thread does everything, as a stub's main thread on Triton."""

from __future__ import annotations

import logging
import threading
import time

from pytriton_lite._core.queue import Executor, RequestQueue
from pytriton_lite._instance.base import Instance, InstanceState
from pytriton_lite._instance.loader import InstancePlan, LoadedModel
from pytriton_lite._typing import override
from pytriton_lite.errors import UnavailableError

_log = logging.getLogger("pytriton_lite.instance")


class ThreadInstance(Instance):
    """Runs `__init__`, `initialize`, every `execute` and `finalize` on one thread of its own."""

    def __init__(self, plan: InstancePlan, queue: RequestQueue) -> None:
        super().__init__(plan, queue)
        self._is_loaded = threading.Event()
        self._failure: BaseException | None = None
        self._dismissing = threading.Lock()
        self._executor: Executor | None = None  # until it is dismissed
        # A daemon, so that a model stuck in `execute` cannot keep the process from ending;
        # the orderly way is `finish`, which servers left open go at exit, too.
        self._thread = threading.Thread(target=self._main, name=plan.name, daemon=True)

    @override
    def start(self) -> None:
        self._thread.start()

    @override
    def wait_loaded(self) -> None:
        self._is_loaded.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @override
    def dismiss(self) -> None:
        with self._dismissing:
            executor, self._executor = self._executor, None
        if executor is not None:
            self.queue.dismiss(executor)

    @override
    def finish(self, deadline_ns: int) -> bool:
        self._thread.join(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            try:
                model = LoadedModel(self.plan, is_inline=False)
                self.readiness = model.readiness
                executor = self._executor = Executor(model.contract)
            except BaseException as error:
                self._failure = error
                return
            finally:
                self._is_loaded.set()
            self.state = InstanceState.READY
            try:
                self.queue.serve(executor)
                self.state = InstanceState.DRAINING
                # Response senders may still owe answers.
                model.contract.wait_until_answered(0)
            finally:
                if not self.queue.is_closed:
                    self.queue.forget(executor)  # it was dismissed
                model.close()
        except BaseException as error:
            _log.exception("instance '%s' ended", self.plan.name)
            self._fail_all(error)
        finally:
            self.state = InstanceState.DEAD

    def _fail_all(self, cause: BaseException) -> None:
        """Let nobody wait for an instance that ended by a defect."""

        def error() -> UnavailableError:
            failure = UnavailableError(
                f"instance '{self.plan.name}' ended: {type(cause).__name__}: {cause}",
                model=self.queue.model_name,
            )
            failure.__cause__ = cause
            return failure

        self.queue.close()
        self.queue.fail_queued(error)
        self.queue.fail_running(error)
