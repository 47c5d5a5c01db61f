"""`typing.override`, without the import of `typing_extensions`.

That takes as long as a tenth of all else that a stub imports, and it would have to be installed in
each environment that a stub runs in.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import override
elif sys.version_info >= (3, 12):
    from typing import override
else:

    def override(method: Any) -> Any:
        """Return the method."""
        return method


__all__ = ["override"]
