from typing_extensions import disjoint_base

FAILURE_REASONS: tuple[str, ...]

@disjoint_base
class VersionStatistics:
    def failures(self) -> tuple[int, ...]: ...
    def counters(self) -> dict[str, int]: ...
