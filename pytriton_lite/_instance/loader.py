"""Loading a model's code: import, `auto_complete_config`, `initialize`, `finalize`."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytriton_lite import pb_utils
from pytriton_lite._backend import ResolvedBackend
from pytriton_lite._control import InstanceScope, ModelControl
from pytriton_lite._core.contract import Contract, is_ctrl_c
from pytriton_lite._core.message import SCOPE_KEY
from pytriton_lite._instance.bls import BlsCalls
from pytriton_lite._instance.event_loop import InstanceLoop
from pytriton_lite._instance.exception_text import describe_exception
from pytriton_lite._instance.readiness import ReadinessCheck
from pytriton_lite._metrics import MetricRegistry
from pytriton_lite._utils_modules import add_native_names, utils_modules
from pytriton_lite.errors import InternalError
from pytriton_lite.pb_utils.control import make_control_functions
from pytriton_lite.pb_utils.log import make_logger_class
from pytriton_lite.pb_utils.metrics import MetricOwner, make_metric_family_class

if TYPE_CHECKING:
    from pytriton_lite._instance.namespace import ModuleNamespace

_log = logging.getLogger("pytriton_lite.instance")


@dataclass(frozen=True, slots=True)
class ModelCode:
    """Where a model version's code is, and what it is told about itself.

    Attributes
    ----------
    model_folder
        The folder in the repository, with ``config.pbtxt``.
    """

    model_name: str
    version: int
    model_folder: str
    backend: ResolvedBackend

    @property
    def version_folder(self) -> str:
        """What `pb_utils.get_model_dir` gives."""
        return os.path.join(self.model_folder, str(self.version))


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """One instance to make.

    Attributes
    ----------
    kind
        ``KIND_CPU`` and so on.
    config_json
        Triton's JSON text of the completed configuration.
    output_names
        All configured outputs, in order.
    check_outputs
        See `Contract`.
    output_reshapes
        See `Contract`; None when no output has ``reshape``.
    metrics
        Where its custom metrics go.
    control
        The models of its server.
    """

    code: ModelCode
    name: str
    kind: str
    device_id: int
    config_json: str
    output_names: tuple[str, ...]
    max_batch_size: int
    is_decoupled: bool
    is_iterative: bool
    share_memory: bool
    check_outputs: Callable[[tuple[str, ...], int, Any], None] | None
    output_reshapes: dict[str, tuple[int, ...]] | None
    metrics: MetricRegistry
    control: ModelControl | None


def _private_namespace(*arguments: Any) -> ModuleNamespace:
    # Imported here, since an instance that is alone in its process does not need it.
    from pytriton_lite._instance.namespace import ModuleNamespace

    return ModuleNamespace(*arguments)


@dataclass(frozen=True, slots=True)
class Home:
    """What differs between the homes of an instance: in this process, or alone in one of its own.

    Attributes
    ----------
    make_namespace, make_bls, make_contract
        Called as `ModuleNamespace`, `BlsCalls` and `Contract`.
    """

    make_namespace: Callable[..., Any] = _private_namespace
    make_bls: Callable[..., Any] = BlsCalls
    make_contract: Callable[..., Contract] = Contract


IN_PROCESS = Home()


class ImportedModel:
    """A model's module in a namespace of its own.

    Parameters
    ----------
    code
        What to import.
    label
        Appears in the private module names, and for the instance in errors of `pb_utils`.
    metrics
        Where the module's metrics go; None when it can make none.
    control
        The models of the server; None when it cannot reach them.
    home
        Where it lives.

    Raises
    ------
    InternalError
        The file is missing or its import fails; the text is Triton's, ``__cause__`` the
        exception.
    """

    def __init__(
        self,
        code: ModelCode,
        label: str,
        metrics: MetricRegistry | None,
        control: ModelControl | None,
        home: Home = IN_PROCESS,
    ) -> None:
        self.code = code
        _check_file(code)
        logger = logging.getLogger(f"pytriton_lite.model.{code.model_name}")
        self._metrics = owner = MetricOwner(metrics, label)
        self._scope = scope = InstanceScope(control, label)
        self._utils = utils_modules(
            {
                "Logger": make_logger_class(logger),
                "MetricFamily": make_metric_family_class(lambda: owner),
                **make_control_functions(lambda: scope),
            }
        )
        folders = [code.model_folder]
        if code.backend.folder is not None:
            folders.append(code.backend.folder)
        self.namespace = home.make_namespace(label, code.backend.search_path, folders, self._utils)
        self.namespace.scope = scope
        self.bls = home.make_bls(scope)
        self.namespace.add_builtin(SCOPE_KEY, self.bls)
        try:
            with self.errors():
                module = self.namespace.load(code.backend.module_name)
                if not hasattr(module, "TritonPythonModel"):
                    raise InternalError(
                        f"AttributeError: module '{code.backend.module_name}' has no attribute "
                        "'TritonPythonModel'",
                        model=code.model_name,
                    )
                self.model_class: Any = module.TritonPythonModel
        except BaseException:
            self.close()
            raise
        add_native_names(self._utils, _constant(code.version_folder))

    def errors(self) -> _ModelErrors:
        """Context in which an exception of model code becomes an InternalError."""
        return _ModelErrors(self.code.model_name, self.namespace)

    def describe(self, error: BaseException) -> str:
        """Triton's text of an exception of this model."""
        return describe_exception(error, self.namespace.prefix)

    def close(self) -> None:
        """Forget the modules, and end their metrics and their way to the server."""
        self.namespace.close()
        self._metrics.close()
        self._scope.close()
        self.model_class = None
        if not self.namespace.is_for_good:
            for module in self._utils.values():
                vars(module).clear()


class _ModelErrors:
    def __init__(self, model_name: str, namespace: ModuleNamespace) -> None:
        self._model_name = model_name
        self._namespace = namespace
        self._active = namespace.active()

    def __enter__(self) -> None:
        self._active.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._active.__exit__(kind, error, traceback)
        if error is None or isinstance(error, InternalError):
            return
        if is_ctrl_c(error):
            return  # of the user, who loads an inline model
        text = describe_exception(error, self._namespace.prefix)
        raise InternalError(text, model=self._model_name) from error


def _constant(value: str) -> Callable[[], str]:
    def get_model_dir() -> str:
        return value

    return get_model_dir


def _check_file(code: ModelCode) -> None:
    path = code.backend.model_file
    name = os.path.basename(path)
    if not name.endswith(".py"):
        raise InternalError(
            f"Model name must end with '.py'. Model name is \"{name}\".", model=code.model_name
        )
    if not os.path.isfile(path):
        raise InternalError(f"Python model file not found in '{path}'", model=code.model_name)


def auto_complete(
    code: ModelCode, config_json: str, home: Home = IN_PROCESS
) -> dict[str, Any] | None:
    """Run `auto_complete_config` on a copy of the module of its own, which is dropped afterwards.

    Returns
    -------
    dict or None
        The configuration that the model returned; None when it has no such function.

    Raises
    ------
    InternalError
        The import or the function failed, or it returned something else.
    """
    # No metrics and no models: on Triton who asks for one here never gets an answer, in the
    # function and in the module's body (observed on 2.51).
    label = f"{code.model_name}_auto_complete"
    imported = ImportedModel(code, label, metrics=None, control=None, home=home)
    try:
        function = getattr(imported.model_class, "auto_complete_config", None)
        if function is None:
            return None
        with imported.errors():
            completed = function(pb_utils.ModelConfig(config_json))
        if not isinstance(completed, pb_utils.ModelConfig):
            raise InternalError(
                f"auto_complete_config function in model '{code.model_name}' must return a valid "
                "pb.ModelConfig object.",
                model=code.model_name,
            )
        return _plain_json(completed.as_dict(), code.model_name)
    finally:
        imported.close()


def _plain_json(config: dict[str, Any], model_name: str) -> dict[str, Any]:
    """The dict as JSON carries it: what is no JSON is refused, and a tuple becomes a list."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(config))
    except (TypeError, ValueError, RecursionError) as error:
        raise InternalError(f"{type(error).__name__}: {error}", model=model_name) from error
    return plain


class LoadedModel:
    """An initialised `TritonPythonModel` object and the `Contract` that runs it.

    Construction imports the module, makes the object and calls `initialize`, all on the
    current thread. `close` calls `finalize`.

    Attributes
    ----------
    readiness
        Asks the model's `is_ready`; None if it has none.

    Raises
    ------
    InternalError
        A step failed; `finalize` is not called then, as on Triton.
    """

    def __init__(self, plan: InstancePlan, *, is_inline: bool, home: Home = IN_PROCESS) -> None:
        self._plan = plan
        code = plan.code
        self._imported = ImportedModel(code, plan.name, plan.metrics, plan.control, home)
        self._loop = InstanceLoop(plan.name, self._imported.namespace)
        try:
            with self._imported.errors():
                self._model = self._imported.model_class()
                initialize = getattr(self._model, "initialize", None)
                if initialize is not None:
                    initialize(_initialize_args(plan))
        except BaseException:
            self._imported.close()
            raise
        self.readiness: ReadinessCheck | None = None
        if _has_is_ready(self._model):
            self.readiness = ReadinessCheck(
                self._model,
                plan.name,
                namespace=self._imported.namespace,
                describe=self._imported.describe,
                loop=self._loop,
            )
        self.contract = home.make_contract(
            self._model,
            model_name=code.model_name,
            model_version=code.version,
            instance_name=plan.name,
            model_file=code.backend.model_file,
            describe=self._imported.describe,
            loop=self._loop,
            check_outputs=plan.check_outputs,
            output_reshapes=plan.output_reshapes,
            max_batch_size=plan.max_batch_size,
            is_decoupled=plan.is_decoupled,
            is_iterative=plan.is_iterative,
            share_memory=plan.share_memory,
            is_inline=is_inline,
        )
        self.contract.namespace = self._imported.namespace
        self.contract.scope = self._imported.bls
        self._imported.bls.open(self.contract)

    def close(self) -> None:
        """Call `finalize` and let go of the model; its exceptions are only logged."""
        limit_s = None if self.readiness is None else self.readiness.close()
        if not self._loop.stop(limit_s):
            _log.warning(
                "instance '%s': is_ready does not end, its event loop is left behind",
                self._plan.name,
            )
        if self.readiness is not None:
            self.readiness.join()
        self._imported.bls.close()
        try:
            with self._imported.errors():
                finalize = getattr(self._model, "finalize", None)
                if finalize is not None:
                    finalize()
        except InternalError as error:
            # INFO is the level at which Triton logs it; the unload succeeds all the same.
            _log.info("finalize of instance '%s' failed: %s", self._plan.name, error)
        self.contract.release()
        del self._model
        self._imported.close()


def _has_is_ready(model: Any) -> bool:
    """Whether there is `is_ready`, recorded once, right after `initialize`, as on Triton."""
    try:
        return hasattr(model, "is_ready")
    except Exception:  # a property or `__getattr__` of the model's; to C++ code that means no
        return False


def _initialize_args(plan: InstancePlan) -> dict[str, str]:
    return {
        "model_config": plan.config_json,
        "model_instance_kind": plan.kind.removeprefix("KIND_"),
        "model_instance_name": plan.name,
        "model_instance_device_id": str(plan.device_id),
        "model_repository": plan.code.model_folder,
        "model_version": str(plan.code.version),
        "model_name": plan.code.model_name,
    }
