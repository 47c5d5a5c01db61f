"""What the code of a model may ask of the server that loaded it.

`_repository` implements `ModelControl`; `_instance` and `pb_utils` know this interface only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pytriton_lite._core.calls import Endpoint
from pytriton_lite.errors import UnavailableError


class ModelControl(Protocol):
    """A server's models, as one loaded model version reaches them. Thread-safe.

    All methods but `endpoint` raise UnavailableError ``Server not ready`` while the server starts
    or stops.
    """

    def load(self, name: str, parameters: Mapping[str, str | bytes]) -> None:
        """Load a model and return when it is ready; what it replaces ends in the background.

        Raises
        ------
        TritonError
            The load failed. The text is Triton's, without the reason that it would only log.
        """

    def unload(self, name: str) -> None:
        """Stop serving a model and return at once; unknown names are no error."""

    def is_ready(self, name: str, version: int) -> bool:
        """Whether a version takes requests; for -1, whether any does."""

    def endpoint(self, name: str, version: int) -> Endpoint:
        """Where requests to a model go; `version` -1 means the greatest ready one."""


class InstanceScope:
    """A model instance and its way to the server.

    Parameters
    ----------
    control
        None where there is none: in `auto_complete_config`.
    name
        Of the instance, for texts.
    """

    def __init__(self, control: ModelControl | None, name: str) -> None:
        self.name = name
        self._control = control

    def control(self) -> ModelControl:
        """The server's models; raises UnavailableError when they are out of reach."""
        control = self._control
        if control is None:
            raise UnavailableError(
                "the models of the server can be reached while an instance is loaded only, not "
                "in `auto_complete_config`"
            )
        return control

    def close(self) -> None:
        """Cut the way: what is left of the instance cannot use it."""
        self._control = None
