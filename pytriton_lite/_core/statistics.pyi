from typing import Any

from typing_extensions import disjoint_base

FAILURE_REASONS: tuple[str, ...]

@disjoint_base
class VersionStatistics:
    def failures(self) -> tuple[int, ...]: ...
    def executed(
        self, queued_ns: int, began_ns: int, ended_ns: int, rows: int, has_failed: bool
    ) -> None: ...
    def to_dict(self) -> dict[str, Any]: ...
    def counters(self) -> dict[str, int]: ...
