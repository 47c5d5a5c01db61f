from collections.abc import Collection
from typing import final

from pytriton_lite._config.model_config import DynamicBatchingSettings
from pytriton_lite._core.queue import RequestQueue
from pytriton_lite._timer import ExpiryTimer

@final
class BatchQueue(RequestQueue):
    def __init__(
        self,
        model_name: str,
        settings: DynamicBatchingSettings,
        max_batch_size: int,
        *,
        is_inline: bool,
        is_remote: bool,
        equal_inputs: Collection[str],
        has_optional: bool,
        is_decoupled: bool,
        timer: ExpiryTimer,
    ) -> None: ...
    def expire(self) -> int: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def explain(self) -> list[tuple[int, int, str, int, str]]: ...
