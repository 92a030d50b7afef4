"""The main job without what only POSIX has: as on Windows, as far as Linux can show it."""

import json
import subprocess
import sys

import pytest

HIDDEN = """
import os, signal, sys
for name in ("fcntl", "pty", "resource", "termios", "grp", "pwd"):
    sys.modules[name] = None
for name in ("fork", "sched_setaffinity", "sched_getaffinity", "killpg", "getuid", "geteuid",
             "mkfifo", "O_NOFOLLOW", "O_DIRECTORY"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "pthread_sigmask"):
    delattr(signal, name)
from lmcli.__main__ import main
main()
"""
TEXT = "".join(f"the {n % 7} old cats see {n} dogs and {n % 11} birds .\n" for n in range(500))
TINY = ("--steps", "4", "--set", "hidden=8")


@pytest.fixture
def hidden(tmp_path):
    """The command where those names do not exist."""
    (tmp_path / "my.txt").write_text(TEXT)

    def run(*words):
        command = [sys.executable, "-c", HIDDEN, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_main_job_needs_nothing_that_only_posix_has(hidden, tmp_path):
    hidden("make", "france", "--size", "small", "-o", "france.txt", "--quiet")
    hidden("train", "my.txt", *TINY, "-o", "run", "--quiet")
    assert len(hidden("sample", "run", "--length", "20", "--seed", "1").strip("\n")) == 20
    assert json.loads(hidden("eval", "run", "--json"))["tokens"] > 0
    words = ("compare", "my.txt", "--arch", "ngram,gru", "--workers", "1", *TINY, "-o", "both")
    assert len(json.loads(hidden(*words, "--json"))["rows"]) == 2
    hidden("export", "run", "--to", "numpy", "-o", "exported")
    assert hidden("list", "--runs", ".").count("run") >= 1
    assert not list(tmp_path.rglob("*.lock"))
