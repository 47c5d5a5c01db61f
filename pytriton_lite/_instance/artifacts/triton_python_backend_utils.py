"""For children that a model in a stub starts: without the native names, as on Triton (2.51).

In the stub itself the module is in `sys.modules` before anything looks for it here.
"""

import os
import runpy
import sys

try:
    import pytriton_lite  # noqa: F401 - whether it is there
except ModuleNotFoundError:
    # It came along with the stub, whose finder the child does not have.
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    carried = runpy.run_path(os.path.join(package, "_environment", "carried.py"))
    exec(carried["FINDER"], {})

from pytriton_lite._utils_modules import UTILS_NAME, utils_modules

sys.modules[__name__] = utils_modules({})[UTILS_NAME]
