"""`inline` instances: the caller's own thread runs the model."""

from __future__ import annotations

from typing_extensions import override

from pytriton_lite._core.queue import Executor
from pytriton_lite._instance.base import Instance, InstanceState
from pytriton_lite._instance.loader import LoadedModel


class InlineInstance(Instance):
    """Loads and finalizes on the thread that starts and stops the server, executes on the callers'.

    For tests and debugging (``breakpoint()`` stops in the test's own thread) and for the
    lowest latency.
    """

    _model: LoadedModel | None = None

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
        self.queue.add_inline(Executor(self._model.contract))

    @override
    def finish(self, deadline_ns: int) -> bool:
        if self._model is None:
            return True
        self.state = InstanceState.DRAINING
        if not self.queue.wait_until_idle(deadline_ns):
            return False
        self._model.close()
        self._model = None
        self.state = InstanceState.DEAD
        return True
