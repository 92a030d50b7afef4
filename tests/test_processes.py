"""Cores, and processes that leave Ctrl-C to their parent."""

import signal
import subprocess
import sys

import pytest

from lmcli.processes import available_cores, deaf_to_ctrl_c


def test_there_is_a_core_and_none_comes_twice():
    cores = available_cores()
    assert len(cores) == len(set(cores)) >= 1


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")
def test_ctrl_c_waits_until_the_moment_is_over():
    reached = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with deaf_to_ctrl_c():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end of it")
        reached.append("what comes behind")
    assert reached == ["the end of it"]


@pytest.mark.skipif(sys.platform != "linux", reason="no such process")
def test_the_process_that_others_are_copies_of_is_born_deaf_to_ctrl_c():
    code = (
        "from multiprocessing import forkserver\n"
        "from lmcli.processes import process_maker\n"
        "process_maker('lmcli.errors')\n"
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    status = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)
