from typing import final

from pytriton_lite._core.queue import RequestQueue

@final
class RemoteQueue(RequestQueue):
    def __init__(self, model_name: str, *, is_iterative: bool) -> None: ...
