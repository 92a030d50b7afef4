"""The machine: what it has, and that training gets it."""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lmcli.system import available_cores, available_memory, sigint_blocked

FAULTS = """
import resource, torch
from lmcli.system import hold_freed_memory
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


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def test_a_system_that_says_nothing_is_unknown(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_the_machine_says_it_in_kibibytes(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal: 200 kB\nMemAvailable:   100 kB\nPages: 3\n"})
    assert available_memory(tmp_path) == 100 * 1024


@pytest.mark.parametrize(
    ("line", "folder", "limit", "usage"),
    [
        ("0::/box", "sys/fs/cgroup/box", "memory.max", "memory.current"),
        ("0::/elsewhere", "sys/fs/cgroup", "memory.max", "memory.current"),
        (
            "4:cpu,memory:/box",
            "sys/fs/cgroup/memory/box",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
        ),
    ],
)
def test_a_container_has_its_limit_less_what_is_used_but_for_files(
    tmp_path: Path, line: str, folder: str, limit: str, usage: str
) -> None:
    files = {
        "proc/meminfo": "MemAvailable: 100 kB\n",
        "proc/self/cgroup": f"{line}\n",
        f"{folder}/{limit}": "5000\n",
        f"{folder}/{usage}": "4500\n",
        f"{folder}/memory.stat": "inactive_file 200\nactive_file 100\nanon 7\n",
    }
    write(tmp_path, files)
    assert available_memory(tmp_path) == 800


def test_a_container_without_a_limit_has_the_machine(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 100 kB\n",
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "max\n",
            "sys/fs/cgroup/memory.current": "4500\n",
        },
    )
    assert available_memory(tmp_path) == 100 * 1024


def test_there_is_a_core_and_none_comes_twice():
    cores = available_cores()
    assert len(cores) == len(set(cores)) >= 1


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")
def test_ctrl_c_waits_until_the_moment_is_over():
    reached = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with sigint_blocked():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end of it")
        reached.append("what comes after")
    assert reached == ["the end of it"]


@pytest.mark.skipif(sys.platform != "linux", reason="no such process")
def test_the_process_that_others_are_copies_of_starts_with_ctrl_c_blocked():
    code = (
        "from multiprocessing import forkserver\n"
        "from lmcli.system import preloaded_context\n"
        "preloaded_context('lmcli.errors')\n"
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)
