from typing import final

from pytriton_lite._core.slot import CallSlot

PATIENCE_S: float

def watch_slice_s() -> float: ...

@final
class Watch:
    def __init__(self, slot: CallSlot) -> None: ...
