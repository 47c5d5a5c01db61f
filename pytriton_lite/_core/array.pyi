# Nothing here is for Python: `array` serves the other compiled modules through array.pxd.
from typing_extensions import disjoint_base

@disjoint_base
class MemoryOwner: ...
