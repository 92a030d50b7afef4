"""Processes and the cores they run on.

**In:** what the system says.
**Out:** the numbers of cores; processes that leave Ctrl-C to their parent, and are there soon.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def available_cores() -> list[int]:
    """The numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Put SIGINT off for a moment, where the system can; a process begun in it is born deaf."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def process_maker(module: str) -> Any:
    """A context of multiprocessing whose processes have loaded a module before they begin.

    To load torch takes longer than many a training. So one process does it and nothing else, and
    all others are copies of it, which has no threads yet that a copy would lack. It begins with the
    first call, so that the module may be there when it is needed.
    """
    import multiprocessing

    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    resource_tracker.ensure_running()  # it lets SIGINT in again
    with deaf_to_ctrl_c():  # which is inherited: the parent decides
        forkserver.ensure_running()
    return context
