"""Commands killed for real at random moments, and what is left compared with an unbroken training.

**In:** the number of kills, a seed: ``python tests/kills.py 100 --seed 7``.
**Out:** a line for each kill: its seed, what was killed, by which signal, when, what was found; at
the end the number of kills and of differences. The exit code is 1 if there is one.

A command runs in a process group of its own, and is sent SIGKILL, SIGTERM, SIGHUP or SIGINT after
a random part of the time that it takes unbroken. What is left must open or say what is wrong; where
there is a checkpoint, resuming ends with the same weights, training state and log byte for byte;
where there is none, the command is repeated. Nothing may run on after it.

One worker is a fork of this process, which has imported torch; two workers and comparisons are
commands as a user starts them.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

PROJECT = Path(__file__).parent.parent
SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
SAME = ("weights.safetensors", "training.safetensors", "log.jsonl")
WORDS = ["the", "a", "cat", "dog", "bird", "sees", "hears", "chases", "old", "small", "tree"]
TINY = ("--steps", "60", "--set", "hidden=8", "--set", "batch=4", "--set", "truncation=8")
TINY += ("--set", "validations=8", "--set", "patience=0", "--set", "threads=1", "-q")
ARCHS = ("ngram", "window", "rnn", "gru", "lstm", "attention", "mingru", "minlstm", "hybrid")
COMPARED = "ngram,gru,lstm,hybrid"
SLOW = {"lstm, 2 workers": 1, "gru, 2 workers": 1, "compare": 2, "compare, jobs": 2}


def command(name):
    """The command line of a kind of training; its run is `run`."""
    if name.startswith("compare"):
        words = ("compare", "my.txt", "--arch", COMPARED, *TINY, "-o", "run")
        rate = ("--set", "learning_rate=0.01", "--set", "order=3")
        return (*words, *rate, "--jobs", "2" if "jobs" in name else "1")
    arch, _, workers = name.partition(", ")
    more = ("--set", "dropout=0.2") if arch != "ngram" else ()
    settings = TINY if arch != "ngram" else ("-q",)
    words = ("train", "my.txt", "--arch", arch, *settings, *more, "-o", "run")
    return (*words, "--workers", "2") if workers else words


def begin(words, folder, forked):
    """A process that runs a command as the leader of a group of its own."""
    with (folder / "err").open("wb") as err:
        if not forked:
            python = (sys.executable, "-W", "error", "-m", "lmcli")
            return subprocess.Popen(
                [*python, *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
                start_new_session=True,
            ).pid
        if pid := os.fork():
            return pid
        os.setsid()
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        for number, opened in ((0, null), (1, null), (2, err.fileno())):
            os.dup2(opened, number)
        sys.argv = ["lmcli", *words]
        code = 70
        try:
            from lmcli.__main__ import main

            main()
        except SystemExit as done:
            code = done.code or 0
        finally:
            sys.stderr.flush()
            os._exit(code)


def ended(pid, seconds):
    """The exit code of a process, which is killed if it takes longer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def alive(leader):
    """The processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for_orphans(leader, seconds=30):
    end = time.monotonic() + seconds
    while (left := alive(leader)) and time.monotonic() < end:
        time.sleep(0.02)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


class Kills:
    """A text, and for each kind of command its unbroken result and the seconds it takes."""

    def __init__(self, folder):
        self.folder, self.unbroken, self.seconds = folder, {}, {}
        draw = random.Random(0)
        text = "".join(" ".join(draw.choices(WORDS, k=6)) + " .\n" for _ in range(60))
        (folder / "my.txt").write_text(text)

    def runs(self, name, words=()):
        """Whether a command has succeeded in the folder, and how."""
        forked = not (set(words or command(name)) & {"compare", "--workers"})
        forked = forked and name not in SLOW
        code = ended(begin(words or command(name), self.folder, forked), 120)
        return code == 0

    def content(self, name):
        rows = [f"run/{arch}" for arch in COMPARED.split(",")]
        runs = rows if name.startswith("compare") else ["run"]
        files = [self.folder / run / file for run in runs for file in SAME]
        return [file.read_bytes() if file.exists() else None for file in files]

    def learn(self, name):
        """Run it unbroken, twice: the cache is warm the second time."""
        for _ in range(2):
            shutil.rmtree(self.folder / "run", ignore_errors=True)
            began = time.monotonic()
            assert self.runs(name), (name, (self.folder / "err").read_text())
            self.seconds[name] = time.monotonic() - began
        self.unbroken[name] = self.content(name)

    def kill(self, name, draw):
        """Kill it once; what was found, and what is wrong with it ("" if nothing is)."""
        if name not in self.unbroken:
            self.learn(name)
        number = getattr(signal, draw.choice(SIGNALS))
        after = draw.uniform(0.02, 1.0) * self.seconds[name]
        to_all = draw.random() < 0.5
        shutil.rmtree(self.folder / "run", ignore_errors=True)
        pid = begin(command(name), self.folder, name not in SLOW)
        time.sleep(after)
        with suppress(ProcessLookupError):
            (os.killpg if to_all else os.kill)(pid, number)
        code = ended(pid, 60)
        left = wait_for_orphans(pid)
        said = (self.folder / "err").read_text()
        how = f"{number.name}{' to all' if to_all else ''} after {after:.2f} s: code {code}"
        if left:
            return how, f"{len(left)} processes run on"
        if code is None:
            return how, "it does not end"
        if "Traceback" in said and number != signal.SIGKILL:  # then a child may speak of its pipe
            return how, f"it says: {said[-300:]}"
        found, wrong = self.go_on(name)
        return f"{how}, {found}", wrong

    def go_on(self, name):
        """Resume what is left, or repeat the command; and what is wrong with the outcome."""
        from lmcli.errors import RunError
        from lmcli.run import Run

        if name.startswith("compare"):
            found = "repeated"
            if not self.runs(name, (*command(name), "--force")):
                return found, (self.folder / "err").read_text()
        else:
            try:
                run = Run.open(self.folder / "run")
                if run.record.arch != "ngram":
                    run.load_training()
                found, words = "resumed", ("train", "--resume", "-o", "run", "-q")
            except RunError:
                found, words = "repeated", (*command(name), "--force")
            if not self.runs(name, words):
                return found, (self.folder / "err").read_text()
        names = [p.name for p in self.folder.rglob(".*") if "cache" not in p.parts]
        if names:
            return found, f"it leaves {names}"
        same = self.content(name) == self.unbroken[name]
        return found, "" if same else "the files differ"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    os.environ.update({"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)})
    sys.path.insert(0, str(PROJECT))
    import torch

    import lmcli.evaluation.probes.ceiling.one_line
    import lmcli.training.launch
    import lmcli.training.sweep  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this one
    names = [n for n in (*ARCHS * 3, *SLOW) if options.only in n]
    counts, wrong = Counter(), 0
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        os.environ["LMCLI_CACHE"] = f"{folder}/cache"
        kills = Kills(Path(folder))
        for number in range(options.kills):
            draw = random.Random(f"{options.seed} {number}")
            name = draw.choice(names)
            how, problem = kills.kill(name, draw)
            counts[name] += 1
            wrong += bool(problem)
            line = (
                f"{options.seed} {number}: {name}: {how}{'; WRONG: ' if problem else ''}{problem}"
            )
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    of_each = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
    sys.stdout.write(f"{options.kills} kills ({of_each}), {wrong} differences\n")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
