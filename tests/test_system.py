"""The machine: what it has, and that training gets it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmcli import system
from lmcli.system import (
    SPIN_COUNT,
    LoadMeter,
    available_cores,
    available_memory,
    is_intel,
    starting_child,
)

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


@pytest.mark.parametrize(("maker", "intel"), [("GenuineIntel", True), ("AuthenticAMD", False)])
def test_the_maker_of_the_processor_is_read_from_linux(tmp_path: Path, maker, intel) -> None:
    (tmp_path / "proc").mkdir()
    entry = f"processor\t: 0\nvendor_id\t: {maker}\nmodel name\t: Some CPU\n\n"
    (tmp_path / "proc/cpuinfo").write_text(entry + entry.replace("0", "1", 1))
    assert is_intel(tmp_path) == intel


def test_where_linux_says_nothing_the_platform_names_the_maker(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6, GenuineIntel")
    assert is_intel(tmp_path)


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
        with starting_child():
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


# ------------------------------------------------------------------ threads that wait


SPINNING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def loading(code, **given):
    """What a process prints that had only these of the variables of OpenMP."""
    env = {k: v for k, v in os.environ.items() if k not in SPINNING} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_idle_threads_sleep_soon_from_before_torch_is_loaded():
    code = """
import os, sys

class Watch:
    def find_spec(self, name, *rest):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Watch())
import lmcli
assert "torch" not in sys.modules
import lmcli.training.job
"""
    assert loading(code) == [str(SPIN_COUNT)]


@pytest.mark.parametrize("name", SPINNING)
def test_what_the_user_says_of_waiting_threads_is_left_alone(name):
    value = "passive" if name == "OMP_WAIT_POLICY" else "7"
    code = f"import os, lmcli; print(*(os.environ.get(n) for n in {SPINNING}))"
    assert loading(code, **{name: value}) == [value if n == name else "None" for n in SPINNING]


# ------------------------------------------------------------------ child processes


CHILDREN = """
import os, sys, time
from lmcli.errors import UsageError
from lmcli.system import ChildProcesses, Ended

def count(number, send):
    for n in range(number):
        send(n)

def fail(send):
    raise UsageError("wrong", "right")

def crash(send):
    send(bytes(10))
    os.kill(os.getpid(), 9)

def half(send):
    os.write(send.__self__.fileno(), (1 << 20).to_bytes(4, "big") + bytes(100))
    os.kill(os.getpid(), 9)

def sleep(send):
    send("asleep")
    time.sleep(100)

def path(send):
    import module_beside_the_text
    send(module_beside_the_text.__file__)

def all_of(processes):
    events = {}
    while processes.running:
        for name, event in processes.events(1):
            events.setdefault(name, []).append(event)
    return events
"""


@pytest.fixture
def children(tmp_path):
    """``children(code)``: what a script prints that may start the functions above."""

    def run(code, begin=subprocess.run, **more):
        (tmp_path / "children.py").write_text(CHILDREN)
        script = tmp_path / "script.py"
        script.write_text(f"from children import *\nif __name__ == '__main__':\n    {code}\n")
        words = [sys.executable, "-W", "error", str(script)]
        env = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}
        if begin is not subprocess.run:
            return begin(words, env=env, **more)
        done = begin(words, env=env, capture_output=True, text=True, timeout=60, **more)
        return done.stdout, done.stderr

    return run


WITHIN = "with ChildProcesses('lmcli.errors') as processes: "


def test_processes_send_events_errors_and_how_they_ended(children):
    out, err = children(
        f"{WITHIN}[processes.start(n, *w) for n, w in "
        "{'a': (count, 3), 'b': (fail,), 'c': (crash,)}.items()]; found = all_of(processes); "
        "print(found['a'], [e.hint if isinstance(e, UsageError) else e for e in found['b']], "
        "found['c'][1:])"
    )
    assert err == ""
    ended = "Ended(code=0)"
    assert out == f"[0, 1, 2, {ended}] ['right', {ended}] [Ended(code=-9)]\n"


def test_processes_that_still_run_when_the_block_ends_are_killed(children):
    out, err = children(
        f"{WITHIN}processes.start(1, sleep); list(processes.events(50)); "
        "child = next(iter(processes.running.values()))[1]\n"
        "    print(child.exitcode)"
    )
    assert (out, err) == ("-9\n", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_processes_end_when_their_parent_is_killed(children):
    parent = children(
        f"{WITHIN}processes.start(1, sleep); list(processes.events(50)); "
        "print(next(iter(processes.running.values()))[1].pid, flush=True); time.sleep(100)",
        begin=subprocess.Popen,
        stdout=subprocess.PIPE,
    )
    child = Path("/proc") / parent.stdout.readline().decode().strip()
    assert child.exists()
    parent.kill()
    parent.communicate()
    end = time.monotonic() + 20
    while child.exists():
        assert time.monotonic() < end, "it goes on"
        time.sleep(0.05)


def test_no_process_imports_from_the_working_folder(children, tmp_path):
    working = tmp_path / "working"
    working.mkdir()
    for name in ("difflib", "module_beside_the_text"):  # lmcli.errors imports the first
        (working / f"{name}.py").write_text("open('executed', 'w')")
    out, err = children(f"{WITHIN}processes.start(1, path); print(all_of(processes))", cwd=working)
    assert "No module named 'module_beside_the_text'" in err
    assert out == "{1: [Ended(code=1)]}\n"
    assert not (working / "executed").exists()


def test_the_load_of_others_is_what_the_cores_did_without_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cores 0 and 1 are this process's; 100 ticks are a second."""
    clock = SimpleNamespace(now=0.0, own=0.0)
    monkeypatch.setattr(system, "available_cores", lambda: [0, 1])
    monkeypatch.setattr(system.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(system.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(system.time, "process_time", lambda: clock.own)

    def ticks(first: int, second: int, third: int) -> None:
        rows = [
            f"cpu{core} {busy} 0 0 9999 7 0 0 0 0 0"
            for core, busy in enumerate((first, second, third))
        ]
        write(
            tmp_path, {"proc/stat": "cpu 1 2 3 4 5 6 7 8 9 10\n" + "\n".join(rows) + "\nintr 5\n"}
        )

    ticks(500, 500, 500)
    meter = LoadMeter(tmp_path)
    ticks(700, 650, 700)  # 2 s, 1.5 s, and 2 s of another program's core
    clock.now, clock.own = 2.0, 1.0
    assert meter.others() == pytest.approx((2.0 + 1.5 - 1.0) / 2)
    clock.own = 9.0  # counted more finely than the system does
    assert meter.others() == 0.0


def test_a_system_that_counts_no_ticks_has_no_load(tmp_path: Path) -> None:
    assert LoadMeter(tmp_path).others() == 0.0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not say")
def test_a_busy_loop_is_seen() -> None:
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.1)
        meter = LoadMeter()
        time.sleep(0.4)
        assert meter.others() > 0.3
    finally:
        loop.kill()
        loop.wait()


def test_a_process_killed_within_an_event_blocks_nobody(children):
    """As one that the kernel kills for its memory while it sends its result."""
    out, err = children(f"{WITHIN}processes.start('a', half); print(all_of(processes))")
    assert (out, err) == ("{'a': [Ended(code=-9)]}\n", "")
