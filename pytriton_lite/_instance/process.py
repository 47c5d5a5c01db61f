"""`process` instances: each in an interpreter of its own, which may crash alone.

::

    LOADING ──> READY ──> DRAINING ──> DEAD
                  │ ^
            death │ │ a new stub is loaded
                  v │
                 DEAD ──┘  after a pause that grows with deaths in a row

A `_Stub` is one life of an instance: the process, the memory shared with it, and the threads that
serve it. Nothing of it is used again by the next one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

import pytriton_lite
from pytriton_lite._core.queue import Executor, RequestQueue
from pytriton_lite._instance.base import Instance, InstanceState
from pytriton_lite._instance.loader import InstancePlan, ModelCode
from pytriton_lite._instance.readiness import Answer, KnownAnswer, Readiness, Refusal
from pytriton_lite._instance.stub import SEGMENT_VARIABLE, STACK_SIGNAL
from pytriton_lite._instance.stub_plan import plan_to_wire
from pytriton_lite._ipc.backoff import Backoff
from pytriton_lite._ipc.bls_port import BlsPort
from pytriton_lite._ipc.exceptions import error_of_wire
from pytriton_lite._ipc.exit_report import ExitReport, describe_exit
from pytriton_lite._ipc.process import StubProcess
from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._ipc.remote import RemoteContract
from pytriton_lite._ipc.segment import BrokenSegmentError, Segment
from pytriton_lite._ipc.wire import Link, RecordKind
from pytriton_lite.errors import InternalError, UnavailableError

_log = logging.getLogger("pytriton_lite.instance")

# The package may be importable here in a way that a new interpreter knows nothing of.
_BOOT = """
import sys
root = sys.argv.pop()
try:
    import pytriton_lite
except ImportError:
    sys.path.append(root)
from pytriton_lite._instance.stub import main
main()
"""

# For a stub to write its stacks, before it is killed.
_STACK_S = 1.0


@dataclass(frozen=True, slots=True)
class StubSettings:
    """How the stubs of a model version are started.

    Attributes
    ----------
    interpreter
        Path of the Python.
    environment
        Its environment variables.
    start_timeout_s
        Seconds until the interpreter must run our code.
    load_timeout_s
        Seconds that the import and `initialize` may take.
    """

    interpreter: str
    environment: Mapping[str, str]
    start_timeout_s: float
    load_timeout_s: float


def own_interpreter(*, start_timeout_s: float, load_timeout_s: float) -> StubSettings:
    """Stubs run in the Python of this process."""
    return StubSettings(sys.executable, os.environ, start_timeout_s, load_timeout_s)


def _start_process(
    name: str,
    settings: StubSettings,
    segment: Segment,
    on_exit: Callable[[ExitReport], object] | None = None,
) -> StubProcess:
    environment = {
        **settings.environment,
        SEGMENT_VARIABLE: str(segment.fd),
        "PYTHONUNBUFFERED": "1",  # what is printed before a crash is seen
    }
    # Without the working directory on the path, where a file may be called as a module of ours.
    command = [
        settings.interpreter,
        "-P",
        "-c",
        _BOOT,
        str(Path(pytriton_lite.__file__).parents[1]),
    ]
    process = StubProcess(
        command, name=name, env=environment, pass_fds=[segment.fd], on_exit=on_exit
    )
    process.start()
    return process


class _Loading:
    """A stub from its start to its first word about the model."""

    def __init__(
        self, link: Link, process: StubProcess, settings: StubSettings, name: str, model: str
    ) -> None:
        self._link = link
        self._process = process
        self._settings = settings
        self._name = name
        self._model = model

    def load(self, plan: dict[str, Any]) -> Any:
        """Have it do what it is there for; returns what it says when that is done."""
        self._link.post(RecordKind.PLAN, 0, None, plan, aside=False)
        self._next(RecordKind.STARTED, "start", self._settings.start_timeout_s)
        return self._next(RecordKind.LOADED, "load", self._settings.load_timeout_s)

    def _next(self, kind: RecordKind, what: str, limit_s: float) -> Any:
        deadline_ns = time.monotonic_ns() + round(limit_s * 1e9)
        try:
            record = self._link.next(aside=False, deadline_ns=deadline_ns)
        except TimeoutError:
            raise self._stuck(what, limit_s) from None
        except UnavailableError:
            raise self._died() from None
        if record.kind == RecordKind.FAILED:
            raise error_of_wire(record.json(), self._model, None)
        if record.kind != kind:
            raise BrokenSegmentError(f"instance '{self._name}' sent a record of kind {record.kind}")
        return record.json()

    def _stuck(self, what: str, limit_s: float) -> InternalError:
        self._process.send_signal(STACK_SIGNAL)
        time.sleep(_STACK_S)  # it writes, and the monitor reads
        self._process.kill()
        self._process.wait(time.monotonic_ns() + round(_STACK_S * 1e9))
        lines = () if self._process.report is None else self._process.report.last_lines
        stacks = "".join(f"\n    {line}" for line in lines)
        return InternalError(
            f"instance '{self._name}' did not {what} within {limit_s:g} s and was killed; the "
            f"stacks of its threads at the end:{stacks}",
            model=self._model,
        )

    def _died(self) -> InternalError:
        self._process.wait(time.monotonic_ns() + round(_STACK_S * 1e9))
        report = self._process.report
        how = "ended" if report is None else describe_exit(report)
        return InternalError(f"the process of instance '{self._name}' {how}", model=self._model)


def auto_complete_in_stub(
    code: ModelCode, config_json: str, settings: StubSettings
) -> dict[str, Any] | None:
    """`loader.auto_complete`, in a process of its own that ends afterwards."""
    segment = Segment.create_largest()
    link = Link(segment, is_stub=False)
    name = f"{code.model_name}_auto_complete"
    process = _start_process(name, settings, segment, lambda _: link.close())
    try:
        loading = _Loading(link, process, settings, name, code.model_name)
        plan = {"auto_complete": {"code": asdict(code), "config_json": config_json}}
        config: dict[str, Any] | None = loading.load(plan)["config"]
        return config
    finally:
        process.terminate(time.monotonic_ns() + round(settings.start_timeout_s * 1e9))


class _Stub:
    """One life of an instance.

    Parameters
    ----------
    on_death
        Called with the stub, on the thread that watches processes, when it died unasked.
    """

    def __init__(
        self,
        plan: InstancePlan,
        queue: RequestQueue,
        settings: StubSettings,
        on_death: Callable[[_Stub], None],
    ) -> None:
        self._plan = plan
        self._queue = queue
        self._settings = settings
        self._on_death = on_death
        self._report: ExitReport | None = None
        self._fault: BaseException | None = None
        self._is_serving = False
        self._lock = threading.Lock()
        segment = Segment.create_largest()
        self._link = Link(segment, is_stub=False)
        assert plan.control is not None
        self._bls = BlsPort(self._link, plan.control.endpoint, plan.name)
        self.contract = RemoteContract(
            self._link,
            model_name=plan.code.model_name,
            model_version=plan.code.version,
            instance_name=plan.name,
            model_file=plan.code.backend.model_file,
            is_decoupled=plan.is_decoupled,
            is_iterative=plan.is_iterative,
            all_outputs=plan.output_names,
            bls=self._bls,
            make_dead_error=self.error,
            on_broken=self._broken,
        )
        self.executor = Executor(self.contract)
        self.asker = Asker(self._link, plan.code.model_name)
        self._answerer = Answerer(self._link, plan.name)
        self._process = _start_process(plan.name, settings, segment, self._exited)
        self._threads = [
            threading.Thread(target=self._read_aside, name=f"{plan.name}-stub", daemon=True),
            threading.Thread(
                target=queue.pump, args=(self.executor,), name=f"{plan.name}-pump", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    def load(self) -> None:
        """Wait until the model is loaded, and take requests."""
        plan = self._plan
        loading = _Loading(
            self._link, self._process, self._settings, plan.name, plan.code.model_name
        )
        try:
            said = loading.load({"plan": plan_to_wire(plan)})
            self.has_is_ready = bool(said["has_is_ready"])
        except BaseException:
            self.end(time.monotonic_ns())
            raise
        with self._lock:
            self._is_serving = self._report is None
            if self._is_serving:
                self._queue.add_remote(self.executor)
        if not self._is_serving:
            raise self.error()

    def error(self) -> UnavailableError:
        """For requests that the stub had when it died."""
        text = f"the process of instance '{self._plan.name}' "
        if self._fault is not None:
            text += f"was killed, since it broke the rules of the shared memory: {self._fault}"
        elif self._report is not None:
            text += describe_exit(self._report)
        else:
            text += "is gone"
        return UnavailableError(text, model=self._plan.code.model_name)

    def end(self, deadline_ns: int) -> bool:
        """Finalize the model if it is there, and end the process; False if something is left."""
        with self._lock:
            was_serving, self._is_serving = self._is_serving, False
        if was_serving:
            self._queue.retire(self.executor)
            with contextlib.suppress(UnavailableError):
                self._link.post(RecordKind.STOP, 0, None, None, aside=False)
            self._process.wait(deadline_ns)
        is_gone = self._process.terminate(deadline_ns)
        self._bls.look_out.close()
        self._queue.end_pump(self.executor)
        for thread in self._threads:
            thread.join(1.0)
        return is_gone

    def kill(self) -> None:
        """Kill the process; who waits for it is told."""
        self._process.kill()

    def _exited(self, report: ExitReport) -> None:
        self._report = report
        with self._lock:
            was_serving, self._is_serving = self._is_serving, False
        if was_serving:
            self._queue.retire(self.executor)
        self._link.close()
        self.asker.close()
        self.contract.fail_all()
        self._queue.end_pump(self.executor)
        if was_serving:
            self._on_death(self)

    def _broken(self, error: BaseException) -> None:
        if self._fault is None:
            self._fault = error
            _log.error("instance '%s' is killed: %s", self._plan.name, error)
        self._process.kill()
        self._link.close()

    def _read_aside(self) -> None:
        try:
            self._link.read_aside(
                {
                    RecordKind.RESPONSE: self.contract.responded,
                    RecordKind.REPLY: self.asker.replied,
                    RecordKind.ASK: self._answerer.asked,
                    RecordKind.TELL: self._answerer.told,
                    **self._bls.handlers(),
                }
            )
        except BrokenSegmentError as error:
            self._broken(error)


class ProcessInstance(Instance):
    """An instance in a process of its own, started again when it dies."""

    def __init__(self, plan: InstancePlan, queue: RequestQueue, settings: StubSettings) -> None:
        super().__init__(plan, queue)
        self._settings = settings
        self._backoff = Backoff()
        self._lock = threading.Lock()
        self._stub: _Stub | None = None
        self._is_stopping = threading.Event()
        self._restarting: threading.Thread | None = None
        self.readiness = _StubReadiness(self)

    @override
    def start(self) -> None:
        self._stub = _Stub(self.plan, self.queue, self._settings, self._died)

    @override
    def wait_loaded(self) -> None:
        assert self._stub is not None
        try:
            self._stub.load()
        except BaseException:
            self.state = InstanceState.DEAD
            raise
        self.state = InstanceState.READY
        self._backoff.began()

    @override
    def finish(self, deadline_ns: int) -> bool:
        self._is_stopping.set()
        restarting = self._restarting
        if restarting is not None:
            restarting.join(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        stub = self._stub
        if stub is None or self.state is InstanceState.DEAD:
            return restarting is None or not restarting.is_alive()
        self.state = InstanceState.DRAINING
        if not self.queue.wait_until_idle(deadline_ns):
            return False
        if not stub.contract.wait_until_answered(deadline_ns):
            return False
        is_gone = stub.end(deadline_ns)
        self.state = InstanceState.DEAD
        return is_gone

    @override
    def abandon(self) -> None:
        stub = self._stub
        if stub is not None:
            stub.kill()

    def _died(self, stub: _Stub) -> None:
        """Start the instance again. On the thread that watches processes, which must go on."""
        if self._is_stopping.is_set():
            self.state = InstanceState.DEAD
            return
        self.state = InstanceState.DEAD
        _log.error("%s; it is started again", stub.error())
        self._restarting = threading.Thread(
            target=self._restart, name=f"{self.plan.name}-restart", daemon=True
        )
        self._restarting.start()

    def _restart(self) -> None:
        while not self._is_stopping.wait(self._backoff.failed()):
            stub = None
            try:
                stub = self._stub = _Stub(self.plan, self.queue, self._settings, self._died)
                stub.load()
            except Exception as error:
                _log.error("instance '%s' could not be started again: %s", self.plan.name, error)
                continue
            self.state = InstanceState.READY
            self._backoff.began()
            _log.warning("instance '%s' is ready again", self.plan.name)
            return


class _StubReadiness(Readiness):
    """Whether an instance has a process, and what its `is_ready` says."""

    def __init__(self, instance: ProcessInstance) -> None:
        self._instance = instance

    @override
    def ask(self) -> Answer:
        if self._instance.state is not InstanceState.READY:
            return KnownAnswer(
                Refusal(f"the process of instance '{self._instance.plan.name}' is not there")
            )
        return KnownAnswer(None)
