"""Devices: what training asks of the machine, and that it gets it."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from lmcli.devices import hold_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16_000_000)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()  # the heap finds its size
print(faults())
"""


def pages_cleared(call: str) -> int:
    """How often the kernel had to hand out a page while large blocks came and went."""
    code = FAULTS.format(call=call)
    return int(subprocess.check_output([sys.executable, "-c", code], text=True))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_freed_memory_is_held_for_the_next_step():
    assert pages_cleared("hold_freed_memory()") < 100
    assert pages_cleared("") > 100
