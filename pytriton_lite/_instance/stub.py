"""The program that a stub process runs: one instance, or one run of `auto_complete_config`."""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import threading
from typing import Any

from pytriton_lite._instance.loader import Home, InstancePlan, LoadedModel, auto_complete
from pytriton_lite._instance.services.control import StubControl
from pytriton_lite._instance.services.log import send_logs
from pytriton_lite._instance.services.metrics import StubRegistry
from pytriton_lite._instance.services.readiness import answer_readiness
from pytriton_lite._instance.stub_bls import StubBls
from pytriton_lite._instance.stub_breakpoint import install_breakpoints
from pytriton_lite._instance.stub_namespace import StubNamespace
from pytriton_lite._instance.stub_plan import code_of_wire, plan_of_wire
from pytriton_lite._ipc.caller_memory import CallerMemory
from pytriton_lite._ipc.exceptions import error_to_wire
from pytriton_lite._ipc.lifeline import kill_own_group, take_lifeline, watch_lifeline
from pytriton_lite._ipc.numpy_memory import allocate_in
from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite._ipc.segment import Segment
from pytriton_lite._ipc.stub_bls import StubQueue
from pytriton_lite._ipc.stub_contract import StubContract
from pytriton_lite._ipc.wire import Link, RecordKind
from pytriton_lite.errors import TritonError, UnavailableError

SEGMENT_VARIABLE = "PYTRITON_LITE_SEGMENT"
"""Tells the stub which descriptor is the shared memory."""

CALLERS_VARIABLE = "PYTRITON_LITE_CALLERS"
"""The same of the memory that callers have inputs in."""

STACKS_VARIABLE = "PYTRITON_LITE_STACKS"
"""Tells the stub which descriptor takes the stacks of its threads while it loads."""

STACK_SIGNAL = signal.SIGRTMAX - 1
"""Makes a stub write the stacks of all its threads there, and to stderr when it is loaded."""

# What a stub whose server is gone has for `finalize`.
_FINALIZE_S = 10.0


def main() -> None:
    """Run the stub; the server started it."""
    # Of the thread that crashes only: what the model said last shall not be lost behind others.
    faulthandler.enable(all_threads=False)
    stacks_fd = _take_fd(STACKS_VARIABLE)
    faulthandler.register(STACK_SIGNAL, file=stacks_fd, all_threads=True)
    segment = Segment.attach(_take_fd(SEGMENT_VARIABLE))
    callers = None
    if CALLERS_VARIABLE in os.environ:
        callers = CallerMemory.attach(_take_fd(CALLERS_VARIABLE))
    link = Link(segment, is_stub=True, callers=callers)
    atexit.register(_end_family, link)  # the first of all, so that it runs as the last
    lifeline = take_lifeline()
    if lifeline is not None:
        watch_lifeline(lifeline, link.close, grace_s=_FINALIZE_S)
    sys.argv[:] = [""]
    try:
        link.post(RecordKind.STARTED, 0, None, None, aside=False)
        wire = link.next(aside=False).json()
        _restore(wire["restored"])
        if "plan" in wire:
            _Stub(link, wire["plan"], stacks_fd).run()
        else:
            _complete(link, wire["auto_complete"])
    except UnavailableError:
        if link.is_forked:
            print(
                "a forked child of the model's process left `initialize`; it must end there, by "
                "os._exit()",
                file=sys.stderr,
                flush=True,
            )
            os._exit(1)
        if not link.is_closed:
            raise
        # Nobody reads what this process says.
        kill_own_group()


def _end_family(link: Link) -> None:
    """What the model started ends with this process; a server that is there sees to it itself."""
    if link.is_closed:
        kill_own_group()


def _take_fd(variable: str) -> int:
    """A descriptor that the server passed; children of this process do not get it."""
    fd = int(os.environ.pop(variable))
    os.set_inheritable(fd, False)
    return fd


def _restore(variables: dict[str, str | None]) -> None:
    """Undo what only the start of this process needed in its environment."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _complete(link: Link, wire: dict[str, Any]) -> None:
    code = code_of_wire(wire["code"])
    asker = Asker(link, code.model_name)
    send_logs(asker, wire["log_levels"])
    install_breakpoints(asker, f"{code.model_name}_auto_complete")
    threading.Thread(
        target=link.read_aside,
        args=({RecordKind.REPLY: asker.replied},),
        name="server",
        daemon=True,
    ).start()
    home = Home(make_namespace=StubNamespace)
    try:
        completed = auto_complete(code, wire["config_json"], home)
    except TritonError as error:
        link.post(RecordKind.FAILED, 0, None, error_to_wire(error), aside=False)
    else:
        link.post(RecordKind.LOADED, 0, None, {"config": completed}, aside=False)


class _Stub:
    """One instance."""

    def __init__(self, link: Link, wire: dict[str, Any], stacks_fd: int) -> None:
        self._link = link
        self._stacks_fd = stacks_fd
        name = wire["name"]
        self._asker = Asker(link, wire["code"]["model_name"])
        install_breakpoints(self._asker, name)
        self._answerer = Answerer(link, name)
        send_logs(self._asker, wire["log_levels"])
        self._plan: InstancePlan = plan_of_wire(
            wire, metrics=StubRegistry(self._asker), control=StubControl(self._asker)
        )
        self._bls = StubQueue(link)
        self._contract: StubContract | None = None
        self._reader = threading.Thread(target=self._read_aside, name="server", daemon=True)

    def run(self) -> None:
        """Load the model, serve until the server says stop, and finalize."""
        self._reader.start()
        home = Home(
            make_namespace=StubNamespace,
            make_bls=lambda _scope: StubBls(self._bls),
            make_contract=self._make_contract,
        )
        try:
            model = LoadedModel(self._plan, is_inline=False, home=home)
        except TritonError as error:
            self._link.post(RecordKind.FAILED, 0, None, error_to_wire(error), aside=False)
            return
        # Not before: what a model keeps from its load, such as weights, is better off elsewhere.
        allocate_in(self._link.arena)
        if model.readiness is not None:
            answer_readiness(self._answerer, model.readiness)
        try:
            self._link.post(
                RecordKind.LOADED,
                0,
                None,
                {"has_is_ready": model.readiness is not None},
                aside=False,
            )
            faulthandler.register(STACK_SIGNAL, all_threads=True)
            os.close(self._stacks_fd)  # nobody reads it any more
            assert self._contract is not None
            # The server has waited for response senders, or does so no longer.
            self._contract.serve()
        except UnavailableError:
            if not self._link.is_closed:
                raise
        finally:
            if not self._link.is_forked:
                model.close()

    def _make_contract(self, model: object, **options: Any) -> StubContract:
        self._contract = StubContract(
            model, link=self._link, all_outputs=self._plan.output_names, **options
        )
        return self._contract

    def _read_aside(self) -> None:
        def contract() -> StubContract:
            assert self._contract is not None  # else the server has no calls to speak of
            return self._contract

        self._link.read_aside(
            {
                RecordKind.CANCEL: lambda record: contract().cancelled(record),
                RecordKind.CREDIT: lambda record: contract().credited(record),
                RecordKind.REPLY: self._asker.replied,
                RecordKind.ASK: self._answerer.asked,
                RecordKind.BLS_RESPONSE: self._bls.responded,
            }
        )
        self._asker.close()
        self._bls.close()


if __name__ == "__main__":
    main()
