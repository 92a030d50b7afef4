"""The machine: device, precision, cores, threads, memory, child processes.

**In:** what the user wants ("auto" or a name); what the system says of itself; work for processes.
**Out:** a device, a precision, numbers of cores, bytes of memory, events of child processes; a
device that the machine lacks is a TrainingError. torch is imported by the functions that need it.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.errors import LmcliError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor

# ------------------------------------------------------------------ device and precision

ROUNDS = 8
"""of two products of a millisecond, by which the precision of a CPU is chosen"""
FASTER = 1.2
"""how many times as fast the one in bfloat16 has to be: chance is not to decide"""


def pick_device(wanted: str) -> str:
    """ "auto" is the best there is: cuda, mps, cpu."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": bool(torch.backends.mps.is_available()),
        "cpu": True,
    }
    if wanted == "auto":
        return next(name for name, there in available.items() if there)
    if not available.get(wanted.partition(":")[0], False):
        raise TrainingError(f"no device '{wanted}' on this machine", "--device cpu always works")
    return wanted


def move(tensor: Tensor, device: str) -> Tensor:
    """A tensor on the device; to a GPU through pinned memory, without waiting for the copy."""
    if device.startswith("cuda"):
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pick_precision(wanted: str, device: str) -> str:
    """bfloat16 where the hardware computes in it; on a CPU, where products are faster in it."""
    if wanted != "auto":
        return wanted
    if not has_bfloat16(device):
        return "float32"
    if device.startswith("cuda"):
        return "bfloat16"
    seconds, bf16_seconds = _product_seconds()
    return "bfloat16" if FASTER * bf16_seconds < seconds else "float32"


def has_bfloat16(device: str) -> bool:
    """Whether the hardware has instructions for bfloat16, and the libraries kernels with them."""
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return fast and torch.backends.mkldnn.is_available() and device == "cpu" and _has_bf16_lstm()


def _has_bf16_lstm() -> bool:
    """Whether oneDNN has an LSTM in bfloat16: ONEDNN_MAX_CPU_ISA can take it away."""
    import torch

    state, matrix, bias = torch.zeros(1, 1, 1), torch.zeros(4, 1), torch.zeros(4)
    weights = matrix, matrix, bias, bias
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.lstm(state, (state, state), weights, True, 1, 0.0, True, False, False)
    except RuntimeError:
        return False
    return True


@functools.cache
def _product_seconds() -> tuple[float, float]:
    """What a matrix product takes in float32 and in bfloat16: the least of ROUNDS, in turn.

    AMX makes bfloat16 several times as fast. On a virtual Xeon without it a product takes twice as
    long as in float32, and the update of an LSTM 1.6 times, although there are instructions.
    """
    import torch

    left, right = (torch.ones(rows, 512, dtype=torch.float32) for rows in (128, 512))
    kinds = (left, right), (left.bfloat16(), right.bfloat16())
    seconds = [math.inf, math.inf]
    for _ in range(ROUNDS):
        for index, (a, b) in enumerate(kinds):
            began = time.perf_counter()
            torch.mm(a, b)
            seconds[index] = min(seconds[index], time.perf_counter() - began)
    return seconds[0], seconds[1]


@functools.cache
def is_intel(root: Path = Path("/")) -> bool:
    """Whether the processor is Intel's, as Linux or Windows names its maker."""
    with suppress(OSError):
        return "GenuineIntel" in (root / "proc/cpuinfo").read_text().partition("\n\n")[0]
    return "GenuineIntel" in platform.processor()


# ------------------------------------------------------------------ memory

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HELD = 1 << 30
"""bytes; up to this size, what is freed at the heap's end is held for the next step"""


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


_CONTROL_GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
}
"""where control groups tell limit and usage: version 2, version 1"""


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can still be taken: of the machine, or of the share that a container has of it.

    None where the system does not say; then nothing should be refused.
    """
    limits = list(_container_memory(root))
    with suppress(OSError, ValueError, KeyError):
        limits.append(1024 * _number_table(root / "proc/meminfo")["MemAvailable:"])
    return min(limits, default=None)


def _container_memory(root: Path) -> Iterator[int]:
    lines: list[str] = []
    with suppress(OSError):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for name in {"memory", ""} & set(controllers.split(",")):
            base, limit, usage = _CONTROL_GROUPS[name]
            for folder in (root / base / group.lstrip("/"), root / base):
                with suppress(OSError, ValueError):
                    most, used = (int((folder / file).read_text()) for file in (limit, usage))
                    yield max(0, most - used + _page_cache(folder))


def _page_cache(folder: Path) -> int:
    """Pages of files, which are given back when they are needed elsewhere."""
    with suppress(OSError, ValueError):
        table = _number_table(folder / "memory.stat")
        names = ("inactive_file", "active_file")
        return sum(table.get(f"total_{n}", table.get(n, 0)) for n in names)
    return 0


def _number_table(file: Path) -> dict[str, int]:
    """A file of lines that are a name and a number."""
    rows = [line.split() for line in file.read_text().splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}


# ------------------------------------------------------------------ cores and threads

SPIN_COUNT = 10_000
"""rounds of a loop in which an idle OpenMP thread waits at a barrier before it sleeps"""


def limit_spinning() -> None:
    """Make OpenMP threads that wait give up their core soon; call it before torch is loaded.

    By default they wait in a loop for milliseconds. Where another program needs the cores as well,
    a training on all cores is then slower than on one, up to 50 times. A value of the user's stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Within, torch computes with this many CPU threads; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> list[int]:
    """The numbers of the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


class LoadMeter:
    """How many of this process's cores other programs keep busy, since the meter was made."""

    SHORTEST = 0.3
    """seconds: in less, a program that only starts looks like one that keeps a core busy"""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._began = self._read()

    def others(self) -> float:
        """Cores in use by others, on average; 0 where the system does not say."""
        time.sleep(max(0.0, self.SHORTEST - (time.monotonic() - self._began[0])))
        wall, busy, own = (b - a for a, b in zip(self._began, self._read(), strict=True))
        return max(0.0, (busy - own) / wall)

    def _read(self) -> tuple[float, float, float]:
        """Seconds: of the clock, that these cores were busy, that this process has computed."""
        return time.monotonic(), self._busy_seconds(), time.process_time()

    def _busy_seconds(self) -> float:
        names, busy = {f"cpu{core}" for core in available_cores()}, 0
        with suppress(OSError, ValueError):
            for line in (self.root / "proc/stat").read_text().splitlines():
                name, *ticks = line.split()
                if name in names:
                    user, nice, system, _, _, irq, softirq, steal = map(int, ticks[:8])
                    busy += user + nice + system + irq + softirq + steal
        return busy / os.sysconf("SC_CLK_TCK") if busy else 0.0


def world_size(environment: Mapping[str, str]) -> int:
    """The number of processes that a launcher like torchrun has started, this one included.

    >>> world_size({"WORLD_SIZE": "4", "RANK": "1"}), world_size({})
    (4, 1)
    """
    if "RANK" not in environment:
        return 1
    size = environment.get("WORLD_SIZE", "1")
    return int(size) if size.isdecimal() else 1


# ------------------------------------------------------------------ child processes


@contextmanager
def starting_child() -> Iterator[None]:
    """Within, a new process ignores Ctrl-C and imports nothing from the working folder.

    Where the system can, SIGINT is blocked, and delivered to this process at the end.
    """
    has_masks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if has_masks else set()
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        os.environ.update({"PYTHONSAFEPATH": before} if before is not None else {})
        if has_masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def preloaded_context(module: str) -> Any:
    """A context of multiprocessing whose processes have imported a module before they start.

    Importing torch takes longer than many trainings. So one process imports it and does nothing
    else; all others are forks of it, and it has no threads that a fork would lack. It starts with
    the first call, so that the module may be imported by the time it is needed.
    """
    import multiprocessing

    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # started within, it would leave SIGINT unblocked
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    with starting_child():
        forkserver.ensure_running()
    return context


@dataclass(frozen=True)
class Ended:
    """The last event of a child process."""

    code: int
    """its exit code; minus the number of the signal that ended it"""


class ChildProcesses:
    """Processes that send events to this one; those that still run when the block ends are killed.

    Each has a pipe of its own, so that one that is killed in the middle of an event blocks no
    other. None outlives this process: it gets SIGTERM when this one has ended.
    """

    def __init__(self, module: str | None) -> None:
        """`module` holds what the processes run and is imported before they start.

        Without one they are forks of this process, which may have no other threads.
        """
        from multiprocessing import get_context

        self.context: Any = preloaded_context(module) if module else get_context("fork")
        self.running: dict[Any, tuple[Any, Any]] = {}
        """the receiving end of a pipe -> name and process"""

    def __enter__(self) -> ChildProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for _, process in self.running.values():
            process.kill()
        for connection, (_, process) in self.running.items():
            process.join()
            connection.close()

    def start(self, name: Any, target: Callable[..., object], *arguments: Any) -> None:
        """Run ``target(*arguments, send)`` in a process; `send` sends an event."""
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(
            target=_run_child, args=(target, arguments, sender), daemon=True
        )
        with starting_child():
            process.start()
        sender.close()
        self.running[receiver] = name, process

    def terminate(self) -> None:
        """Send SIGTERM to all."""
        for _, process in self.running.values():
            process.terminate()

    def events(self, seconds: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Names and events that arrive within this time: sent ones, an LmcliError, `Ended`."""
        from multiprocessing.connection import wait

        ready: list[Any] = wait(list(self.running), seconds)
        for connection in ready:
            name, process = self.running[connection]
            try:
                event = connection.recv()
            except (EOFError, OSError):
                process.join()
                event = Ended(process.exitcode)
            if isinstance(event, Ended):
                process.join()
                connection.close()
                del self.running[connection]
            yield name, event


def _run_child(target: Callable[..., object], arguments: Sequence[Any], sender: Any) -> None:
    """What the child process runs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_terminate_with_parent, daemon=True).start()
    with suppress(BrokenPipeError):  # the parent has ended
        try:
            target(*arguments, sender.send)
        except LmcliError as error:
            sender.send(error)
        sender.send(Ended(0))  # the exit code is lost where the server of forks has ended


def _terminate_with_parent() -> None:
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
