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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from pytriton_lite._core.queue import Executor, RequestQueue
from pytriton_lite._environment.cache import ExecutionEnvironment
from pytriton_lite._environment.carried import FINDER, VARIABLE, carried_packages
from pytriton_lite._instance.base import Instance, InstanceState, Outage
from pytriton_lite._instance.breakpoints import Breakpoints
from pytriton_lite._instance.loader import InstancePlan, ModelCode
from pytriton_lite._instance.readiness import CLOSED, Refusal
from pytriton_lite._instance.services.control import answer_control
from pytriton_lite._instance.services.log import answer_logs, log_levels
from pytriton_lite._instance.services.metrics import StubMetrics
from pytriton_lite._instance.services.readiness import StubReadiness
from pytriton_lite._instance.stub import (
    CALLERS_VARIABLE,
    SEGMENT_VARIABLE,
    STACK_SIGNAL,
    STACKS_VARIABLE,
)
from pytriton_lite._instance.stub_plan import plan_to_wire
from pytriton_lite._ipc.backoff import Backoff
from pytriton_lite._ipc.bls_port import BlsPort
from pytriton_lite._ipc.caller_memory import CallerMemory
from pytriton_lite._ipc.exceptions import error_of_wire
from pytriton_lite._ipc.exit_report import ExitReport, describe_exit
from pytriton_lite._ipc.process import StubProcess
from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._ipc.remote import RemoteContract
from pytriton_lite._ipc.segment import BrokenSegmentError, Segment
from pytriton_lite._ipc.wire import Link, RecordKind
from pytriton_lite._typing import override
from pytriton_lite.errors import InternalError, UnavailableError

_log = logging.getLogger("pytriton_lite.instance")

# The server's own Python may have this package elsewhere, too, in another version.
_SAME_PACKAGE = """
sys.meta_path.insert(0, Carried)
import pytriton_lite
sys.meta_path.remove(Carried)  # that at the start; it stays at the end
"""
_BOOT = "from pytriton_lite._instance.stub import main\nmain()\n"

# What an idle model has for `finalize` at least, when another one has used up the time of a stop.
_FINALIZE_NS = 3_000_000_000

# For a stub to write its stacks, before it is killed.
_STACK_S = 1.0
_STACK_PAUSE_S = 0.02
_STACK_BYTES = 64 << 10

# For the interpreter of `auto_complete_config` to end: what runs at exit, and threads of the model.
_EXIT_S = 10.0


@dataclass(frozen=True, slots=True)
class StubSettings:
    """How the stubs of a model version are started.

    Attributes
    ----------
    interpreter
        Path of the Python.
    is_own
        Whether it is the server's.
    flags
        Its options.
    environment
        Its environment variables.
    restored
        Those that get another value before the model's code runs, None for none.
    start_timeout_s
        Seconds until the interpreter must run our code.
    load_timeout_s
        Seconds that the import and `initialize` may take.
    callers
        Memory that callers have inputs in; None for a stub that takes no requests.
    """

    interpreter: str
    is_own: bool
    flags: tuple[str, ...]
    environment: Mapping[str, str]
    restored: Mapping[str, str | None]
    start_timeout_s: float
    load_timeout_s: float
    callers: CallerMemory | None = None


def own_interpreter(*, start_timeout_s: float, load_timeout_s: float) -> StubSettings:
    """Stubs run in the Python of this process, and find the packages that it finds."""
    flags = []
    if sys.flags.ignore_environment:
        flags.append("-E")
    if sys.flags.no_user_site:
        flags.append("-s")
    return StubSettings(
        interpreter=sys.executable,
        is_own=True,
        flags=tuple(flags),
        environment=os.environ,
        restored={},
        start_timeout_s=start_timeout_s,
        load_timeout_s=load_timeout_s,
    )


def environment_interpreter(
    environment: ExecutionEnvironment, *, start_timeout_s: float, load_timeout_s: float
) -> StubSettings:
    """Stubs run in the Python of an execution environment."""
    return StubSettings(
        interpreter=environment.interpreter,
        is_own=False,
        flags=("-s",),
        environment=environment.variables,
        restored={"LD_LIBRARY_PATH": environment.library_path},
        start_timeout_s=start_timeout_s,
        load_timeout_s=load_timeout_s,
    )


def _start_process(
    name: str,
    settings: StubSettings,
    segment: Segment,
    stacks: _StackFile,
    *,
    model: str,
    on_exit: Callable[[ExitReport], object],
) -> StubProcess:
    environment = {
        **settings.environment,
        SEGMENT_VARIABLE: str(segment.fd),
        STACKS_VARIABLE: str(stacks.fd),
        VARIABLE: carried_packages(),
    }
    fds = [segment.fd, stacks.fd]
    if settings.callers is not None:
        fds.append(settings.callers.fd)
        environment[CALLERS_VARIABLE] = str(settings.callers.fd)
    command = [
        settings.interpreter,
        *settings.flags,
        "-P",  # in the working directory a file may be called as a module of ours
        "-u",  # what is printed before a crash is seen
        "-c",
        FINDER + (_SAME_PACKAGE if settings.is_own else "") + _BOOT,
    ]
    process = StubProcess(command, name=name, env=environment, pass_fds=fds, on_exit=on_exit)
    try:
        process.start()
    except OSError as error:
        raise InternalError(
            f"the process of instance '{name}' cannot be started with interpreter "
            f"'{settings.interpreter}': {error.strerror}",
            model=model,
        ) from error
    return process


class _StackFile:
    """Where a stub that loads writes the stacks of its threads on `STACK_SIGNAL`.

    Not its stderr, of which only the last lines are kept, and where others write, too.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("pytriton_lite_stacks")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget what is written; the stub keeps its own descriptor."""
        os.close(self.fd)

    def lines(self, limit_s: float) -> list[str]:
        """What is written, once it has come to an end, or the limit has passed."""
        until = time.monotonic() + limit_s
        size = -1
        while time.monotonic() < until:
            time.sleep(_STACK_PAUSE_S)
            before, size = size, os.fstat(self.fd).st_size
            if size == before > 0:
                break
        data = os.pread(self.fd, _STACK_BYTES, 0)
        return data.decode(errors="replace").splitlines()


class _Loading:
    """A stub from its start to its first word about the model."""

    def __init__(
        self,
        link: Link,
        process: StubProcess,
        stacks: _StackFile,
        breakpoints: Breakpoints,
        *,
        settings: StubSettings,
        name: str,
        model: str,
    ) -> None:
        self._link = link
        self._breakpoints = breakpoints
        self._process = process
        self._stacks = stacks
        self._settings = settings
        self._name = name
        self._model = model
        self._is_started = False

    def begin(self, plan: dict[str, Any]) -> None:
        """Tell it what it is there for."""
        wire = {**plan, "restored": dict(self._settings.restored)}
        with contextlib.suppress(UnavailableError):  # `wait` finds out why
            self._link.post(RecordKind.PLAN, 0, None, wire, aside=False)

    def wait(self) -> Any:
        """What it says when it has done that."""
        self._next(RecordKind.STARTED, "start", self._settings.start_timeout_s)
        self._is_started = True
        return self._next(RecordKind.LOADED, "load", self._settings.load_timeout_s)

    def _next(self, kind: RecordKind, what: str, limit_s: float) -> Any:
        deadline_ns = time.monotonic_ns() + round(limit_s * 1e9)
        excused_ns = self._breakpoints.paused_ns()
        while True:
            try:
                record = self._link.next(aside=False, deadline_ns=deadline_ns)
                break
            except TimeoutError:
                paused_ns = self._breakpoints.paused_ns()
                if paused_ns == excused_ns:
                    raise self._stuck(what, limit_s) from None
                deadline_ns += paused_ns - excused_ns
                excused_ns = paused_ns
            except UnavailableError:
                raise self._died() from None
        if record.kind == RecordKind.FAILED:
            raise error_of_wire(record.json(), self._model, None)
        if record.kind != kind:
            raise BrokenSegmentError(f"instance '{self._name}' sent a record of kind {record.kind}")
        return record.json()

    def _stuck(self, what: str, limit_s: float) -> InternalError:
        lines: Sequence[str] = ()
        if self._is_started:  # else the signal would only kill it
            self._process.send_signal(STACK_SIGNAL)
            lines = self._stacks.lines(_STACK_S)
        self._process.kill()
        self._process.wait(time.monotonic_ns() + round(_STACK_S * 1e9))
        text = f"instance '{self._name}' did not {what} within {limit_s:g} s and was killed"
        if lines:
            text += "; the stacks of its threads at the end:"
        elif self._process.report is not None and self._process.report.last_lines:
            lines = self._process.report.last_lines
            text += "; its last lines on stderr:"
        return InternalError(text + "".join(f"\n    {line}" for line in lines), model=self._model)

    def _died(self) -> InternalError:
        self._process.wait(time.monotonic_ns() + round(_STACK_S * 1e9))
        report = self._process.report
        how = "ended" if report is None else describe_exit(report)
        where = "" if self._is_started else f" (interpreter '{self._settings.interpreter}')"
        return InternalError(
            f"the process of instance '{self._name}'{where} {how}", model=self._model
        )


def auto_complete_in_stub(
    code: ModelCode, config_json: str, settings: StubSettings
) -> dict[str, Any] | None:
    """`loader.auto_complete`, in a process of its own that ends afterwards."""
    segment = Segment.create_largest()
    link = Link(segment, is_stub=False)
    name = f"{code.model_name}_auto_complete"
    answerer = Answerer(link, name)
    answer_logs(answerer, name)
    breakpoints = Breakpoints(answerer, code.model_name)

    def exited(_: ExitReport) -> None:
        link.close()
        breakpoints.close()

    with _StackFile() as stacks:
        process = _start_process(
            name, settings, segment, stacks, model=code.model_name, on_exit=exited
        )
        reader = threading.Thread(
            target=_read_questions, args=(link, process, answerer), name=f"{name}-stub", daemon=True
        )
        reader.start()
        try:
            loading = _Loading(
                link,
                process,
                stacks,
                breakpoints,
                settings=settings,
                name=name,
                model=code.model_name,
            )
            plan = {
                "auto_complete": {
                    "code": asdict(code),
                    "config_json": config_json,
                    "log_levels": log_levels(),
                }
            }
            loading.begin(plan)
            config: dict[str, Any] | None = loading.wait()["config"]
            return config
        finally:
            process.terminate(time.monotonic_ns() + round(_EXIT_S * 1e9))
            reader.join(1.0)


def _read_questions(link: Link, process: StubProcess, answerer: Answerer) -> None:
    try:
        link.read_aside({RecordKind.ASK: answerer.asked, RecordKind.TELL: answerer.told})
    except BrokenSegmentError as error:
        _log.error("'%s' is killed: %s", process.name, error)
        process.kill()
        link.close()


class _Fate:
    """How a stub ended. Apart from it, since requests may outlive the stub and must not keep it."""

    def __init__(self, plan: InstancePlan, link: Link) -> None:
        self._plan = plan
        self._link = link
        self.process: StubProcess | None = None
        self.report: ExitReport | None = None
        self._fault: BaseException | None = None
        self.leave: Callable[[], object] | None = None  # so that it gets no more requests

    @property
    def is_sealed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self.report is not None or self._fault is not None

    def error(self) -> UnavailableError:
        """For requests that the stub had when it died."""
        text = f"the process of instance '{self._plan.name}' "
        if self._fault is not None:
            text += f"was killed, since it broke the rules of the shared memory: {self._fault}"
        elif self.report is not None:
            text += describe_exit(self.report)
        else:
            text += "is gone"
        return UnavailableError(text, model=self._plan.code.model_name)

    def broken(self, error: BaseException) -> None:
        """End a stub that does not keep the rules."""
        if self._fault is None:
            self._fault = error
            _log.error("instance '%s' is killed: %s", self._plan.name, str(error))
        # First, else what the stub has not begun with would come back to it.
        leave = self.leave
        if leave is not None:
            leave()
        if self.process is not None:
            self.process.kill()
        self._link.close()


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
        self._is_serving = False
        self._is_loaded = False
        self._is_ending = False
        self._lock = threading.Lock()
        segment = Segment.create_largest()
        self._link = Link(segment, is_stub=False, callers=settings.callers)
        self._fate = fate = _Fate(plan, self._link)
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
            make_dead_error=fate.error,
            on_broken=fate.broken,
        )
        self.executor = Executor(self.contract)
        self.asker = Asker(self._link, plan.code.model_name)
        self._answerer = Answerer(self._link, plan.name)
        self._metrics = StubMetrics(plan.metrics, self._answerer, self.asker.settle)
        self._breakpoints = Breakpoints(self._answerer, plan.code.model_name)
        answer_logs(self._answerer, plan.name)
        if plan.control is not None:
            answer_control(self._answerer, plan.control)
        self._stacks = _StackFile()
        try:
            self._process = _start_process(
                plan.name,
                settings,
                segment,
                self._stacks,
                model=plan.code.model_name,
                on_exit=self._exited,
            )
        except BaseException:
            self._metrics.close()
            self._stacks.close()
            raise
        fate.process = self._process
        fate.leave = self._leave
        self._threads = [
            threading.Thread(target=self._read_aside, name=f"{plan.name}-stub", daemon=True),
            threading.Thread(
                target=queue.pump, args=(self.executor,), name=f"{plan.name}-pump", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()
        self._loading = _Loading(
            self._link,
            self._process,
            self._stacks,
            self._breakpoints,
            settings=settings,
            name=plan.name,
            model=plan.code.model_name,
        )
        # Not when somebody waits for it: the instances of a model load side by side.
        self._loading.begin({"plan": plan_to_wire(plan)})

    def load(self) -> None:
        """Wait until the model is loaded, and take requests."""
        try:
            with self._stacks:
                said = self._loading.wait()
            # What was logged, and the metrics that the model holds: the instance that this one
            # replaces must not let go of theirs before.
            self.asker.settle()
            self.has_is_ready = bool(said["has_is_ready"])
        except BaseException:
            self.end(time.monotonic_ns())
            raise
        with self._lock:
            is_serving = self._is_serving = not self._fate.is_sealed
            if is_serving:
                self._is_loaded = True
                self._queue.add_remote(self.executor)
        if not is_serving:
            raise self.error()

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, or is about to since it broke the rules."""
        return self._fate.is_sealed

    def error(self) -> UnavailableError:
        """Why it does not answer."""
        return self._fate.error()

    def end(self, deadline_ns: int) -> bool:
        """Finalize the model if it is there, and end the process; False if something is left."""
        self._is_ending = True
        if self._leave():
            with contextlib.suppress(UnavailableError):
                self._link.post(RecordKind.STOP, 0, None, None, aside=False)
            self._process.wait(max(deadline_ns, time.monotonic_ns() + _FINALIZE_NS))
        is_gone = self._process.terminate(deadline_ns)
        self._bls.look_out.close()
        self._queue.end_pump(self.executor)
        for thread in self._threads:
            thread.join(1.0)
        self._answerer.join(1.0)
        return is_gone

    def dismiss(self) -> None:
        """Take no more requests; what it has not begun with goes to others."""
        self._leave()

    def kill(self) -> None:
        """Kill the process; who waits for it is told."""
        self._process.kill()

    def _leave(self) -> bool:
        """Take no more requests; False when that was so before."""
        with self._lock:
            was_serving, self._is_serving = self._is_serving, False
            if was_serving:
                self._queue.retire(self.executor)
        return was_serving

    def _exited(self, report: ExitReport) -> None:
        with self._lock:
            self._fate.report = report
        self._leave()
        self._fate.leave = None
        self._link.close()
        self.asker.close()
        self._breakpoints.close()
        self._bls.fail_all()
        self._queue.end_pump(self.executor)
        if self._is_loaded and not self._is_ending:
            self._on_death(self)

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
            self._fate.broken(error)
        finally:
            # After the last of what it sent, which may be an answer.
            self.contract.fail_all()
            self._metrics.close()


class ProcessInstance(Instance):
    """An instance in a process of its own, started again when it dies."""

    def __init__(self, plan: InstancePlan, queue: RequestQueue, settings: StubSettings) -> None:
        super().__init__(plan, queue)
        self._settings = settings
        self._backoff = Backoff()
        self._outage: Outage | None = None
        # Guards the state, and the start of a stub against the stop of the instance.
        self._lock = threading.Lock()
        self._stub: _Stub | None = None
        self._start_error: BaseException | None = None
        self._is_stopping = threading.Event()
        self._restarting: threading.Thread | None = None
        self._is_dismissed = False
        self.readiness = StubReadiness(plan.code.model_name, self._why_not, self._asker)

    @override
    def start(self) -> None:
        try:
            self._stub = _Stub(self.plan, self.queue, self._settings, self._died)
        except Exception as error:  # for `wait_loaded`: other instances have been started
            self._start_error = error

    @override
    def wait_loaded(self) -> None:
        try:
            if self._start_error is not None:
                raise self._start_error
            assert self._stub is not None
            self._stub.load()
        except BaseException:
            self.state = InstanceState.DEAD
            raise
        self._begin(self._stub)

    @override
    def dismiss(self) -> None:
        with self._lock:
            self._is_stopping.set()
            self._is_dismissed = True
            stub = self._stub
        if stub is not None:
            stub.dismiss()

    @override
    def finish(self, deadline_ns: int) -> bool:
        with self._lock:
            self._is_stopping.set()
            stub = self._stub
        restarting = self._restarting
        if restarting is not None:
            # Requests that were accepted may wait for it.
            is_needed = self.queue.depth and not self._is_dismissed
            if stub is not None and self.state is InstanceState.DEAD and not is_needed:
                stub.kill()
            restarting.join(max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
            if restarting.is_alive():
                return False
        if stub is None or self.state is InstanceState.DEAD:
            self._fail_left()
            self._stub = None
            # It is gone, but threads may be about to end that have looked after it.
            return stub is None or stub.end(deadline_ns)
        self.state = InstanceState.DRAINING
        if not self._wait_until_unused(stub, deadline_ns):
            return False
        if not stub.contract.wait_until_answered(deadline_ns):
            return False
        is_gone = stub.end(deadline_ns)
        self.state = InstanceState.DEAD
        self._stub = None
        return is_gone

    def _wait_until_unused(self, stub: _Stub, deadline_ns: int) -> bool:
        if not self._is_dismissed:
            return self.queue.wait_until_idle(deadline_ns)
        stub.dismiss()  # it may have been made since the first time
        return self.queue.wait_until_out(stub.executor, deadline_ns)

    @override
    def abandon(self) -> None:
        stub = self._stub
        if stub is None:
            return
        # One whose requests have been failed is idle, and finalized by the next `finish`.
        is_idle = stub.executor.running is None
        if not is_idle or not stub.contract.wait_until_answered(time.monotonic_ns()):
            stub.kill()

    @property
    @override
    def outage(self) -> Outage | None:
        outage, stub = self._outage, self._stub
        if outage is not None or stub is None or self.state is not InstanceState.READY:
            return outage
        # Between the death and its handling, too.
        return Outage(str(stub.error())) if stub.is_dead else None

    def _begin(self, stub: _Stub) -> None:
        with self._lock:
            if stub.is_dead:
                return  # that is dealt with elsewhere, or has been
            self._backoff.began()
            self.state, self._outage = InstanceState.READY, None
        self._tell_outage()

    def _set_outage(self, outage: Outage) -> None:
        with self._lock:
            self.state, self._outage = InstanceState.DEAD, outage
        self._tell_outage()

    def _tell_outage(self) -> None:
        if self.on_outage is not None:
            self.on_outage()

    def _died(self, stub: _Stub) -> None:
        """Start the instance again. On the thread that watches processes, which must go on."""
        text = str(stub.error())
        self._set_outage(Outage(text))
        thread = threading.Thread(
            target=self._restart, name=f"{self.plan.name}-restart", daemon=True
        )
        failure: RuntimeError | None = None
        with self._lock:
            is_stopping = self._is_stopping.is_set()
            if not is_stopping:
                try:
                    thread.start()
                    self._restarting = thread
                except RuntimeError as error:  # no more threads to be had
                    failure = error
        if is_stopping:
            self._fail_left()
        elif failure is not None:
            self._note_failure(failure)
        else:
            _log.error("%s; it is started again", text)

    def _restart(self) -> None:
        while not self._is_stopping.wait(self._backoff.failed()):
            try:
                with self._lock:
                    if self._is_stopping.is_set():
                        break
                    stub = self._stub = _Stub(self.plan, self.queue, self._settings, self._died)
                stub.load()
            except Exception as error:
                if not self._is_stopping.is_set():  # else `finish` has ended it
                    self._note_failure(error)
                continue
            self._begin(stub)
            _log.warning("instance '%s' is ready again", self.plan.name)
            return

    def _note_failure(self, error: Exception) -> None:
        text = f"instance '{self.plan.name}' could not be started again: {error}"
        _log.error("%s", text)
        self._set_outage(Outage(text, is_lasting=True, cause=error))

    def _fail_left(self) -> None:
        """While the server stops: nobody shall wait for an instance that does not come back."""
        if not self._is_dismissed and not self.queue.contracts:
            self.queue.fail_queued(self._gone_error)

    def _gone_error(self) -> UnavailableError:
        outage = self.outage
        text = f"instance '{self.plan.name}' is gone" if outage is None else outage.text
        return UnavailableError(text, model=self.plan.code.model_name)

    def _why_not(self) -> Refusal | None:
        outage = self.outage
        if outage is not None:
            return Refusal(outage.text)
        return CLOSED if self._is_stopping.is_set() else None

    def _asker(self) -> Asker | None:
        stub = self._stub
        return stub.asker if stub is not None and stub.has_is_ready else None
