"""Another process that holds the lock on a path."""

import subprocess
import sys

HOLD = """
import sys
from pathlib import Path
from lmcli.write_lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holding(path):
    """A process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process
