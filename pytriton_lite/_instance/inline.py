"""`inline` instances: the caller's own thread runs the model."""

from __future__ import annotations

import threading

from pytriton_lite._core.queue import Executor, RequestQueue
from pytriton_lite._instance.base import Instance, InstanceState
from pytriton_lite._instance.loader import InstancePlan, LoadedModel
from pytriton_lite._typing import override


class InlineInstance(Instance):
    """Loads and finalizes on the thread that starts and stops the server, executes on the callers'.

    A model that model code loads or unloads is loaded on its thread, and finalized on another.

    For tests and debugging (``breakpoint()`` stops in the test's own thread) and for the
    lowest latency.
    """

    def __init__(self, plan: InstancePlan, queue: RequestQueue) -> None:
        super().__init__(plan, queue)
        self._model: LoadedModel | None = None
        self._executor: Executor | None = None
        self._is_dismissed = False
        # A stop of the server may meet an unload that runs in the background.
        self._finishing = threading.Lock()

    @override
    def start(self) -> None:
        """Do nothing: `wait_loaded` loads, on the thread that calls it."""

    @override
    def wait_loaded(self) -> None:
        try:
            self._model = LoadedModel(self.plan, is_inline=True)
        except BaseException:
            self.state = InstanceState.DEAD
            raise
        self.readiness = self._model.readiness
        self.state = InstanceState.READY
        self._executor = Executor(self._model.contract)
        self.queue.add_inline(self._executor)

    @override
    def dismiss(self) -> None:
        with self._finishing:
            was_dismissed, self._is_dismissed = self._is_dismissed, True
        if self._executor is not None and not was_dismissed:
            self.queue.dismiss(self._executor)

    @override
    def finish(self, deadline_ns: int) -> bool:
        if self._model is None:
            return True
        self.state = InstanceState.DRAINING
        if not self._wait_until_unused(deadline_ns):
            return False
        with self._finishing:
            model = self._model
        if model is not None and not model.contract.wait_until_answered(deadline_ns):
            return False
        with self._finishing:
            model, self._model = self._model, None
        if model is not None:
            if self._is_dismissed and self._executor is not None:
                self.queue.forget(self._executor)
            model.close()
            self.state = InstanceState.DEAD
        return True

    def _wait_until_unused(self, deadline_ns: int) -> bool:
        if self._is_dismissed and self._executor is not None:
            return self.queue.wait_until_out(self._executor, deadline_ns)
        return self.queue.wait_until_idle(deadline_ns)
