"""On which machine figures were made."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""instructions of a processor that matter here"""


def machine() -> dict[str, object]:
    """The processor's name, what of its instructions matters here, threads, torch."""
    entries = dict[str, str]()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().partition("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            entries[name.strip()] = value.strip()
    flags = entries.get("flags", "").split()
    return {
        "processor": entries.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
