"""``--workers``: the processes that train one model on this machine.

Each is started with the same command line and with what torchrun would put in its environment, so
that a worker does not know who has started it, torchrun, Slurm, Kubernetes or this file. The first
speaks; of the others only what went wrong is shown. They meet in a file: no port can be taken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import typer

from lmcli.cli.console import say
from lmcli.errors import LostWorkerError, RunError, UsageError
from lmcli.system import available_cores

if TYPE_CHECKING:
    from lmcli.cli.progress import Stop
    from lmcli.training.distributed import Workers

MEETING = "LMCLI_MEETING"
"""environment variable of a worker: the file in which the workers of this machine meet"""
LOST = 75
"""exit code of a worker that has lost another one: whoever started them knows which, and why"""
GRACE = 5.0
"""seconds that the others have to end when a worker has failed"""


# ------------------------------------------------------------------ as one of several


def processes(wanted: int | None, resumed: Path | None) -> tuple[int, bool]:
    """How many workers this process has to start, and whether the training has several."""
    started = 0
    if "RANK" in os.environ:
        from lmcli.training.distributed import expected

        started = expected(os.environ)
    several = started > 1
    if several and wanted not in (None, started):
        raise UsageError(
            f"--workers {wanted}, but this is one of {started} workers already",
            "leave --workers out",
        )
    size = started if several else wanted or started or None
    if resumed is not None:
        size = _as_recorded(resumed, size)
    size = size or 1
    return 0 if several or size == 1 else size, size > 1


def _as_recorded(path: Path, size: int | None) -> int:
    """The number of workers that a run was trained by; a RunError if another one is asked for."""
    from lmcli.run import Run

    recorded = Run.open(path).record.workers
    if size not in (None, recorded):
        raise RunError(
            f"{size} worker{'s' * (size != 1)} cannot go on with '{path}': "
            f"it is trained by {recorded}",
            f"--workers {recorded}, or as many processes by torchrun",
        )
    return recorded


@contextmanager
def joined(path: Path) -> Iterator[Workers]:
    """This process as one of the workers that train the run at `path`, or alone."""
    from lmcli.training import distributed

    meeting = os.environ.get(MEETING)
    if meeting:
        threading.Thread(target=_stop_with_the_starter, daemon=True).start()
    with distributed.joined(meeting) as group:
        try:
            yield group
        except LostWorkerError as error:
            if meeting:
                raise typer.Exit(LOST) from None
            raise LostWorkerError(error.problem, how_to_go_on(path)) from None


def _stop_with_the_starter() -> None:
    """Save and stop when the process that started this worker is gone: standard input ends then."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def how_to_go_on(path: Path) -> str:
    """The hint for a training that was cut off."""
    from lmcli.run import TRAINING

    if (path / TRAINING).is_file():
        return f"lmcli train --resume -o {path} goes on from the last checkpoint"
    return "there may be too little memory: try fewer workers"


# ------------------------------------------------------------------ as the one that starts them


def launch(words: Sequence[str], count: int, path: Path) -> int:
    """Run a command line as so many workers; the exit code for all of them."""
    from lmcli.cli.progress import graceful_stop

    with tempfile.TemporaryDirectory(prefix="lmcli-") as folder, graceful_stop() as stop:
        place = Path(folder)
        workers = [_Worker(rank, count, words, path, place) for rank in range(count)]
        try:
            _wait(workers, stop)
        finally:
            for worker in workers:
                worker.end()
        if stop and any(worker.code for worker in workers):
            return stop.exit_code
        code = _verdict(workers, path)
        if code == 0 and workers[0].unwritten:
            raise workers[0].unwritten[0]
        return code


class _Worker:
    """One process; `code` is that of its end, None while it runs."""

    def __init__(self, rank: int, count: int, words: Sequence[str], run: Path, place: Path) -> None:
        self.rank = rank
        self.abandoned = False
        self.unwritten: list[OSError] = []
        """why its result could not be passed on"""
        self.errors = place / f"{rank}.txt"
        out: int | None = subprocess.DEVNULL
        err: Any = self.errors.open("wb")
        if rank == 0:  # a terminal is handed on; what only Python knows as a stream is written to
            out = None if sys.stdout.isatty() else subprocess.PIPE
            err.close()
            err = None if sys.stderr.isatty() else subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lmcli", *words],
            env=_environment(rank, count, run, place),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
        )
        lost: list[OSError] = []  # what it says, unlike its result, may be
        pipes = (
            (self.process.stdout, sys.stdout, self.unwritten),
            (self.process.stderr, sys.stderr, lost),
        )
        self.copies = [
            threading.Thread(target=_copy, args=(pipe, stream, failures), daemon=True)
            for pipe, stream, failures in pipes
            if pipe
        ]
        for copy in self.copies:
            copy.start()
        if rank:
            err.close()

    @property
    def code(self) -> int | None:
        return self.process.poll()

    def end(self) -> None:
        """Kill it if it is still there, and let go of everything."""
        self.abandoned = self.code is None
        if self.abandoned:
            self.process.kill()
        self.process.wait()
        for copy in self.copies:
            copy.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                pipe.close()


def _environment(rank: int, count: int, run: Path, place: Path) -> dict[str, str]:
    """That of this process, with a worker's numbers and its share of the cores."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    usual = {"OMP_NUM_THREADS": str(max(1, len(available_cores()) // count))}
    if sys.platform != "win32":
        usual["GLOO_SOCKET_IFNAME"] = loopback  # whatever the name of this machine stands for
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    fixed = {MEETING: str(place / "meeting"), "LMCLI_OUTPUT": str(run)}
    return {**usual, **os.environ, **fixed, **{k: str(v) for k, v in numbers.items()}}


def _copy(pipe: IO[bytes], stream: Any, failures: list[OSError]) -> None:
    """What a worker writes, on a stream of ours as it comes.

    A stream that fails is not tried again, but the worker is read to its end: it must not wait.
    """
    for line in pipe:
        if failures:
            continue
        try:
            if hasattr(stream, "buffer"):
                stream.buffer.write(line)
            else:
                stream.write(line.decode("utf-8", "replace"))
            stream.flush()
        except OSError as error:
            failures.append(error)


def _wait(workers: Sequence[_Worker], stop: Stop) -> None:
    """Until all have ended; a stop is passed on once, and a failure ends all after a grace."""
    told, deadline = False, float("inf")
    while any(worker.code is None for worker in workers):
        if stop and not told:
            told = True
            for worker in workers:
                worker.process.terminate()
        if not stop and deadline == float("inf") and any(worker.code for worker in workers):
            deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            return
        time.sleep(0.02)


def _verdict(workers: Sequence[_Worker], path: Path) -> int:
    """The exit code, after what the first worker has not said itself."""
    failed = [w for w in workers if not w.abandoned and w.code not in (0, LOST)]
    first = workers[0].code
    if first is not None and first >= 0 and first != LOST:
        return first  # 0: the result is there, whatever happened to the others on their way out
    for worker in failed:
        said = worker.errors.read_text(encoding="utf-8", errors="replace") if worker.rank else ""
        if worker.code and worker.code > 0 and said:
            say(said.rstrip("\n"))
            return worker.code
    for worker in failed:
        if worker.code and worker.code < 0:
            name = signal.Signals(-worker.code).name
            problem = f"worker {worker.rank + 1} of {len(workers)} was ended by {name}"
            raise LostWorkerError(problem, how_to_go_on(path))
    raise LostWorkerError("the workers lost each other", how_to_go_on(path))
