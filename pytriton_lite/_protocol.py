"""`TritonPythonModel` as a type: what the class in a ``model.py`` must look like."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, Protocol, TypeVar

_Element_co = TypeVar("_Element_co", covariant=True)


class Response(Protocol):
    """`pb_utils.InferenceResponse`."""

    def output_tensors(self) -> list[Any]:
        """Outputs."""

    def has_error(self) -> bool:
        """Whether it is an error response."""


class ListOf(Protocol[_Element_co]):
    """A real list, which the runtime insists on, of elements that are only read."""

    def __iter__(self) -> Iterator[_Element_co]: ...

    def reverse(self) -> None:
        """Have what lists have and tuples, sets, dicts and generators do not."""


class TritonPythonModel(Protocol):
    """The class ``TritonPythonModel`` of a ``model.py``, as a type.

    Annotate with it what takes such a class, or check a model in one line::

        checked: type[pytriton_lite.TritonPythonModel] = TritonPythonModel

    Only `execute` is required. The server also calls these, if the class has them:

    ``auto_complete_config(config: pb_utils.ModelConfig) -> pb_utils.ModelConfig``
        A static or class method. Completes the configuration, before there are instances.
    ``initialize(self, args: dict[str, str]) -> None``
        Once per instance, before it serves. ``args`` has ``model_config`` (JSON),
        ``model_name``, ``model_version``, ``model_repository`` (the model's folder),
        ``model_instance_name``, ``model_instance_kind`` and ``model_instance_device_id``.
    ``finalize(self) -> None``
        Once per instance, after its last request.
    ``is_ready(self) -> bool``
        Also as ``async def``. Called by `Model.ready` and `Server.ready`, on a thread of its
        own while `execute` may run; has 5 s. Newer than Triton 2.51, which ignores it.

    The class is made without arguments.

    Notes
    -----
    A protocol cannot have optional members, so a type checker judges `execute` alone: its
    parameters and what it returns. Elements of `requests` are not compared. The class is not
    ``runtime_checkable``: the server looks methods up when it calls them, as Triton does.
    """

    def execute(
        self, requests: list[Any], /
    ) -> ListOf[Response | None] | Coroutine[Any, Any, ListOf[Response | None] | None] | None:
        """Answer a batch of requests; may be ``async def``.

        Parameters
        ----------
        requests
            At least one `pb_utils.InferenceRequest`.

        Returns
        -------
        list of pb_utils.InferenceResponse or None
            One response per request, in order; None for a request that is answered by its
            response sender or was rescheduled. None instead of the list means that senders
            answer all of them, and is what a decoupled model returns always.
        """
