"""Worker process of the engine: upper case, line by line, by a child of its own."""

import subprocess
import sys

CODE = "print(input().upper())"

for line in sys.stdin:
    print(subprocess.check_output([sys.executable, "-c", CODE], input=line, text=True).strip())
    sys.stdout.flush()
