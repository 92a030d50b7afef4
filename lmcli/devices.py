"""Where the arithmetic happens, and how precisely.

**In:** what the user wants: a device or "auto", a precision or "auto".
**Out:** what this machine has; a device that it lacks is a TrainingError.
"""

from __future__ import annotations

import ctypes
import functools
import os

import torch
from torch import Tensor

from lmcli.errors import TrainingError


def pick_device(wanted: str) -> str:
    """ "auto" is the best there is: cuda, mps, cpu."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if _has_mps() else "cpu"
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": _has_mps(),
    }
    if not available.get(wanted.partition(":")[0], False):
        raise TrainingError(f"no device '{wanted}' on this machine", "--device cpu always works")
    return wanted


def move(tensor: Tensor, device: str) -> Tensor:
    """A tensor on the device; to a GPU by way of pinned memory, so that nobody waits for it."""
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HELD = 1 << 30
"""bytes; what is freed at the heap's end is kept for the next step up to so many"""


@functools.cache
def hold_freed_memory() -> None:
    """Have the C library keep what a step frees for the step after it, where it can be told to.

    Left alone, glibc maps every block of 32 MiB or more anew and gives it back at once; the kernel
    has to clear its pages each time, which is a third of an LSTM's training at batch 32 x 128.
    """
    set_option = getattr(ctypes.CDLL(None) if os.name == "posix" else None, "mallopt", None)
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, HELD)
        set_option(M_TRIM_THRESHOLD, HELD)


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available())


def pick_precision(wanted: str, device: str) -> str:
    """bfloat16 where the hardware computes in it and the kernels are faster for it."""
    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if fast else "float32"
    has_kernels: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    fast = device == "cpu" and has_kernels and _bf16_instructions()
    return "bfloat16" if fast else "float32"


def _bf16_instructions() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
