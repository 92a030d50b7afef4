"""Where the arithmetic happens, and how precisely.

**In:** what the user wants: a device or "auto", a precision or "auto".
**Out:** what this machine has; a device that it lacks is a TrainingError.
"""

from __future__ import annotations

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


def patience(device: str) -> int:
    """How many steps a loss may wait to be fetched: on a GPU each fetch waits for its queue."""
    return 1 if device == "cpu" else 10


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
