"""Real signals at random moments; the seed is shown."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT, KILLS = Path(__file__).parent.parent / "kills.py", "40"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_whatever_is_killed_goes_on_to_the_same_end():
    done = subprocess.run([sys.executable, SCRIPT, KILLS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} kills" in done.stdout
    assert "0 differences" in done.stdout
