"""`pb_utils.load_model`, `unload_model` and `is_model_ready` of a stub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pytriton_lite._control import ModelControl
from pytriton_lite._ipc.questions import Answerer, Asker
from pytriton_lite.errors import UnsupportedError


class StubControl:
    """The server's models, as the code in a stub reaches them: a `ModelControl`."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def load(self, name: str, parameters: Mapping[str, str | bytes]) -> None:
        """As `ModelControl.load`."""
        texts = {key: value for key, value in parameters.items() if isinstance(value, str)}
        files = {key: value for key, value in parameters.items() if isinstance(value, bytes)}
        order = list(parameters)
        wire = [name, order, texts, list(files)]
        self._asker.ask("load_model", wire, blobs=tuple(files.values()))

    def unload(self, name: str) -> None:
        """As `ModelControl.unload`."""
        self._asker.ask("unload_model", name)

    def is_ready(self, name: str, version: int) -> bool:
        """As `ModelControl.is_ready`."""
        return bool(self._asker.ask("is_model_ready", [name, version]))

    def endpoint(self, name: str, version: int) -> NoReturn:
        """Refuse: requests have a way of their own."""
        raise UnsupportedError(f"model '{name}' cannot be called from a stub process")


def answer_control(answerer: Answerer, control: ModelControl) -> None:
    """Do in the server what `StubControl` asks for.

    Each on a thread of its own: a load may take long, and may need this very stub.
    """

    def load(data: Any, *contents: bytes) -> None:
        name, order, texts, files = data
        values = {**texts, **dict(zip(files, contents, strict=True))}
        control.load(name, {key: values[key] for key in order})

    def is_ready(data: Any) -> bool:
        name, version = data
        return control.is_ready(name, version)

    answerer.add("load_model", load, may_wait=True)
    answerer.add("unload_model", control.unload, may_wait=True)
    answerer.add("is_model_ready", is_ready, may_wait=True)
