"""Processes that leave Ctrl-C to their parent."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

MADE = """
from multiprocessing import forkserver
from pathlib import Path
from lmcli.processes import process_maker

process_maker("json")
number = forkserver._forkserver._forkserver_pid
status = Path(f"/proc/{number}/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_the_process_that_others_are_copies_of_never_hears_ctrl_c():
    done = subprocess.run(
        [sys.executable, "-c", MADE], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout, 16) & 1 << (signal.SIGINT - 1)
