# Nothing here is for Python: `array` serves the other compiled modules through array.pxd.
