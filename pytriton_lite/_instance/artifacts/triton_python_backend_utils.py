"""For children that a model in a stub starts: without the native names, as on Triton (2.51).

In the stub itself the module is in `sys.modules` before anything looks for it here.
"""

import sys

from pytriton_lite._import_hook import UTILS_NAME, utils_modules

sys.modules[__name__] = utils_modules({})[UTILS_NAME]
