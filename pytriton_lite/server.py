"""`Server`: loads a model repository and serves it in this process."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pytriton_lite._backend import BackendTable, backend_table
from pytriton_lite._options import ModelControlMode, Options, StrPath, make_options
from pytriton_lite._typing import override
from pytriton_lite.errors import (
    ModelLoadError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from pytriton_lite.model import Model

if TYPE_CHECKING:
    import numpy.typing as npt

    from pytriton_lite._index import ModelIndexEntry
    from pytriton_lite._repository import Repository

_log = logging.getLogger("pytriton_lite.server")

_EXTENSIONS = ("model_repository", "model_configuration", "parameters", "statistics")


class Server:
    """Triton's runtime for Python models and Python-based backends, in this process.

    ::

        with Server("models", backend_directory="backends") as server:
            outputs = server.model("add_sub")({"INPUT0": x, "INPUT1": y})

    Parameters
    ----------
    model_repository
        Path or paths of model repositories, or an `Options` object.
    **options
        Fields of `Options`, by keyword.

    Raises
    ------
    TypeError
        Unknown options; the text names the nearest one.

    Notes
    -----
    Many servers may live in one process. A server that is still running when the
    interpreter exits is stopped then, so that every model's `finalize` runs. Loading a
    repository runs the code in it.
    """

    def __init__(
        self, model_repository: StrPath | list[StrPath] | Options | None = None, **options: Any
    ) -> None:
        self._options = make_options(model_repository, options)
        self._repository: Repository | None = None
        self._state = "new"
        self._lock = threading.RLock()

    # -- life --------------------------------------------------------------------------

    def start(self) -> Self:
        """Load the models and begin to serve.

        Returns
        -------
        Server
            This object.

        Raises
        ------
        ModelLoadError
            A model failed to load, unless ``exit_on_error=False``; nothing is left running.
        """
        with self._lock:
            if self._state == "running":
                return self
            # What only a running server needs is imported now, not with the package.
            from pytriton_lite import _import_hook
            from pytriton_lite._repository import Repository

            self._set_log_level()
            _import_hook.install()
            self._repository = repository = Repository(self._options)
            try:
                repository.start()
            except ModelLoadError as error:
                if self._options.exit_on_error:
                    self._close()
                    raise
                _log.error("%s", error)
            except BaseException:
                self._close()
                raise
            self._state = "running"
            _running.add(self)
            _log.info("backends:\n%s", self.backends())
            return self

    def stop(self) -> None:
        """Refuse new requests, let those in flight finish, and unload all models.

        Requests that are not done after ``exit_timeout`` seconds fail with
        `UnavailableError`. Safe to call again.
        """
        with self._lock:
            if self._state == "running":
                self._close()

    def _close(self) -> None:
        from pytriton_lite import _import_hook

        self._state = "stopped"
        _running.discard(self)
        try:
            if self._repository is not None:
                self._repository.stop()
        finally:
            _import_hook.uninstall()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        import asyncio

        # On another thread, so that the loop is not blocked; inline models load there, too.
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)

    @override
    def __repr__(self) -> str:
        return f"<Server {', '.join(self._options.repositories)}: {self._state}>"

    def _set_log_level(self) -> None:
        options = self._options
        given = (options.log_info, options.log_warn, options.log_error, options.log_verbose)
        if all(value is None for value in given):
            return
        level = logging.CRITICAL
        for value, its_level in zip(
            (options.log_error, options.log_warn, options.log_info, options.log_verbose),
            (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG),
            strict=True,
        ):
            if value:
                level = its_level
        logging.getLogger("pytriton_lite").setLevel(level)

    @property
    def _loaded(self) -> Repository:
        if self._repository is None:
            raise UnavailableError(
                "the server is not started: call start(), or use it as a context manager"
            )
        return self._repository

    # -- models ------------------------------------------------------------------------

    def model(self, model_name: str, model_version: int = -1) -> Model:
        """A model to call.

        Parameters
        ----------
        model_name
            Name of its folder; or its identifier, with `model_namespacing` (see `Options`).
        model_version
            -1: always the greatest ready version.

        Raises
        ------
        NotFoundError
            No repository has such a model.
        """
        repository = self._loaded
        # What is loaded needs no look at the folders.
        if not repository.models.ready_versions(model_name) and not repository.has(model_name):
            error = NotFoundError(
                f"Request for unknown model: '{model_name}' is not found", model=model_name
            )
            error.add_note("models of the repository: " + (", ".join(repository.names()) or "none"))
            raise error
        return Model(repository.models, model_name, model_version)

    def __getitem__(self, model_name: str) -> Model:
        return self.model(model_name)

    def models(self, *, exclude_not_ready: bool = False) -> Mapping[str | tuple[str, int], Model]:
        """All models of the repository, by name; also found by ``(name, version)``."""
        return _Models(self, exclude_not_ready)

    def empty(
        self, shape: int | Sequence[int], dtype: npt.DTypeLike = np.float32
    ) -> npt.NDArray[Any]:
        """A new array for inputs of models in processes, which is sent to them without a copy.

        So are C-contiguous views of it. Like all inputs it must not be changed before the answer
        is there. The model's ``as_numpy()`` gives a private copy, as always; with
        ``share_memory=True`` it gives the memory itself, which the model can only read, and an
        output made of it is a read-only view of the same memory. To models elsewhere it is an array
        like any other.

        Parameters
        ----------
        shape
            Size of each dim.
        dtype
            A numpy dtype that Triton has, but not BYTES. Default float32.

        Raises
        ------
        InvalidArgumentError
            There is no such tensor.
        MemoryError
            The address space reserved for this, 64 GiB, is used up.

        Notes
        -----
        The content is undefined. The memory is freed with the last array over it and may outlive
        the server. It is shared memory: a forked child shares it with its parent.
        """
        return self._loaded.caller_memory().empty(shape, dtype)

    def load(self, model_name: str, parameters: Mapping[str, Any] | None = None) -> Model:
        """Load a model, or load it anew, in explicit mode; returns when it is ready.

        The version loaded before serves until then, and stays if the load fails. If nothing but
        instance groups has changed, instances are kept, and only missing ones are loaded.

        Parameters
        ----------
        parameters
            ``"config"``: JSON text of a whole configuration, in place of ``config.pbtxt``.
            ``"file:<path>"``: content of a file, as `bytes`. With such files, which need
            ``"config"``, the model folder consists of them alone, in a temporary folder that is
            removed when the model is unloaded or loaded anew; the model need not be in a
            repository, and if it is not, the index does not list it.

        Raises
        ------
        UnavailableError
            The server does not run in explicit mode.
        ModelLoadError
            The load failed.
        """
        self._check_explicit()
        self._loaded.load(model_name, parameters)
        return Model(self._loaded.models, model_name, -1)

    def register_model_repository(
        self, repository_path: StrPath, name_mapping: Mapping[str, str] | None = None
    ) -> None:
        """Add a model repository, in explicit mode; nothing of it is loaded by this.

        Parameters
        ----------
        repository_path
            Folder of the models.
        name_mapping
            Names that models are to have, by the names of their folders. A model has no second
            name: not that of its folder, and not that in its configuration.

        Raises
        ------
        UnsupportedError
            The server does not run in explicit mode.
        InvalidArgumentError
            There is no such folder.
        AlreadyExistsError
            The repository is registered, or another model has got one of the names by a mapping.
        """
        self._loaded.register(os.fspath(repository_path), name_mapping or {})

    def unregister_model_repository(self, repository_path: StrPath) -> None:
        """Forget a model repository, in explicit mode; what is loaded from it goes on serving.

        Raises
        ------
        UnsupportedError
            The server does not run in explicit mode.
        InvalidArgumentError
            It is not registered.
        """
        self._loaded.unregister(os.fspath(repository_path))

    def poll_model_repository(self) -> None:
        """Look for new, changed and removed models now; returns when they are loaded.

        What fails to load is logged, and what was loaded before stays.

        Raises
        ------
        UnavailableError
            The server does not run in poll mode.
        """
        self._loaded.poll()

    def unload(
        self,
        model: str | Model,
        unload_dependents: bool = False,
        wait_until_unloaded: bool = False,
    ) -> None:
        """Stop serving a model; requests it has accepted finish, then `finalize` runs.

        Parameters
        ----------
        model
            Unknown names are no error, as on Triton.
        unload_dependents
            Also unload the models that an ensemble is made of and that nobody else uses; of other
            models it means nothing.
        wait_until_unloaded
            Return only when `finalize` has run.

        Raises
        ------
        UnavailableError
            The server does not run in explicit mode.
        """
        self._check_explicit()
        name = model.name if isinstance(model, Model) else model
        self._loaded.unload(name, wait=wait_until_unloaded)

    def _check_explicit(self) -> None:
        if self._options.model_control_mode is not ModelControlMode.EXPLICIT:
            from pytriton_lite._repository import MODEL_CONTROL_OFF

            raise UnavailableError(MODEL_CONTROL_OFF)

    # -- description -------------------------------------------------------------------

    def backends(self) -> BackendTable:
        """The backends in use: a tuple of `BackendRecord` whose `str` is Triton's table."""
        return backend_table(
            self._loaded.models.backends(),
            backend_directory=str(self._options.backend_directory),
            auto_complete_config=not self._options.strict_model_config,
            settings=self._options.backend_configuration,
        )

    def index(self) -> list[ModelIndexEntry]:
        """The repository index: state and reason of every model version."""
        return self._loaded.models.index()

    def live(self) -> bool:
        """Whether the server is started and not stopped."""
        return self._state == "running"

    def ready(self) -> bool:
        """Whether the server is live and every model that was loaded is ready, as `Model.ready`.

        With ``strict_readiness=False``: whether it is live.
        """
        return self.live() and self._loaded.models.all_ready()

    def statistics(self) -> dict[str, Any]:
        """Triton's statistics of all ready models, in the form of ``/v2/models/stats``.

        ``{"model_stats": [...]}``, sorted by name and version; see `Model.statistics`.
        """
        models = self._loaded.models
        loaded = sorted(models.loaded_versions(), key=lambda x: (x.name, x.version))
        return {
            "model_stats": [
                version.statistics_json()
                for version in loaded
                if version.version in models.ready_versions(version.name)
            ]
        }

    def metrics(self) -> str:
        """Metrics of all models, in the text format of Prometheus.

        Triton's own for each loaded version (``nv_inference_...``), then the custom ones.

        Raises
        ------
        UnavailableError
            The server was never started.
        UnsupportedError
            The server runs with ``metrics=False``.

        Notes
        -----
        A family is listed while one of its series is there, and a series while a
        `MetricFamily` object that it was made with is alive and its model loaded.
        """
        registry = self._loaded.metrics
        if not registry.is_enabled:
            raise UnsupportedError("metrics are not supported: the server has metrics=False")
        return registry.text(self._loaded.models.loaded_versions())

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions, as in the KServe v2 protocol."""
        from pytriton_lite import __version__

        return {
            "name": self._options.server_id,
            "version": __version__,
            "extensions": list(_EXTENSIONS),
        }


class _Models(Mapping["str | tuple[str, int]", Model]):
    def __init__(self, server: Server, exclude_not_ready: bool) -> None:
        self._server = server
        self._exclude_not_ready = exclude_not_ready

    def _names(self) -> list[str]:
        repository = self._server._loaded
        names = repository.names()
        if not self._exclude_not_ready:
            return names
        return [name for name in names if repository.models.ready_versions(name)]

    def __getitem__(self, key: str | tuple[str, int]) -> Model:
        name, version = key if isinstance(key, tuple) else (key, -1)
        if name not in self._names():
            raise KeyError(key)
        return self._server.model(name, version)

    def __iter__(self) -> Iterator[str | tuple[str, int]]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


_running: weakref.WeakSet[Server] = weakref.WeakSet()


def _stop_servers() -> None:
    for server in list(_running):
        server.stop()


# A forked child has the models' memory, but none of their threads, and must not finalize them.
os.register_at_fork(after_in_child=_running.clear)

# Before the interpreter joins threads: `atexit` would come after a backend's own
# non-daemon threads have been waited for, which may never end without `finalize`.
threading._register_atexit(_stop_servers)  # type: ignore[attr-defined]
