"""One training, by this process, by `workers` processes that it starts, or under torchrun.

**In:** the options of `lmcli.api.train`.
**Out:** the run. Progress comes from the main process (rank 0) only. What goes wrong in all
workers is raised once; a worker that is killed ends the others within seconds.

The workers of this machine meet in a file, so that no port can be taken, and send their progress
through pipes. torch.distributed.launcher would need a port and torch in this process, which is a
second more until the first step, and would end workers that are still saving.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError, LostWorkerError, RunError, UsageError
from lmcli.report import result
from lmcli.report.progress import Message, OnProgress, SlowdownWatch, Training
from lmcli.run import TRAINING, ReadOnlyRun, Run, check_free
from lmcli.system import ChildProcesses, Ended, LoadMeter, available_cores, world_size
from lmcli.write_lock import check_unlocked, locked

GRACE = 5.0
"""seconds that the others have to end when a worker has failed"""
MOST_UNASKED = 16
"""processes that a run, which may be a stranger's, starts on fewer cores without being told to"""
POLL = 0.2
"""seconds after which the callback is called again, so that it can stop"""


def train(options: Mapping[str, Any], on_progress: OnProgress) -> Run:
    """Train; if the callback stops it, the run can be resumed and has no result "train".

    With `resume` the options hold only what the caller has given.
    """
    path, on_progress = Path(options["output"]), SlowdownWatch(on_progress)
    if options["resume"] and options.get("force"):
        raise UsageError("--resume goes on with a run, --force replaces it", "leave one out")
    count = _workers(options.get("workers"), path if options["resume"] else None)
    if count > 1 and "-" in (options.get("texts") or ()):
        raise UsageError("several workers cannot share standard input", "name a file")
    if count == 1 or world_size(os.environ) > 1:
        return _train(options, count, None, on_progress)
    return _launch(options, count, path, on_progress)


def _workers(wanted: int | None, resumed: Path | None) -> int:
    """The number of processes of the training; a UsageError or RunError if it is contradicted."""
    started = world_size(os.environ)
    if started > 1 and wanted not in (None, started):
        problem = f"--workers {wanted}, but this is one of {started} workers already"
        raise UsageError(problem, "leave --workers out")
    count = started if started > 1 or "RANK" in os.environ else wanted
    if resumed is None:
        return count or 1
    recorded = Run.open(resumed).record.workers
    if count not in (None, recorded):
        raise RunError(
            f"{count} worker{'s' * (count != 1)} cannot go on with '{resumed}': "
            f"it is trained by {recorded}",
            f"--workers {recorded}, or as many processes by torchrun",
        )
    if count is None and recorded > max(MOST_UNASKED, cores := len(available_cores())):
        problem = f"'{resumed}' is trained by {recorded} processes, and there are {cores} cores"
        raise RunError(problem, f"--workers {recorded} starts as many")
    return recorded


def train_result(values: Mapping[str, Any]) -> result.Result:
    """What a run holds as its result "train", as a table with the next commands."""
    columns = [
        result.Column("run", result.text("run")),
        result.Column("parameters", result.PARAMETERS),
        result.Column("vocabulary", result.COUNT, "vocabulary"),
        result.Column("tokens_seen", result.COUNT, "tokens seen"),
        result.Column("epochs", result.EPOCHS),
        result.Column("seconds", result.SECONDS),
        result.Column("tokens_per_second", result.PER_SECOND),
        result.Column("valid.nats_per_token", result.NATS, "validation nats/token"),
        result.Column("valid.bits_per_char", result.BITS_PER_CHAR, "validation bits/char"),
    ]
    if values.get("test"):
        columns += [
            result.Column("test.perplexity", result.PERPLEXITY, "test perplexity"),
            result.Column("test.bits_per_char", result.BITS_PER_CHAR, "test bits/char"),
        ]
    path = shlex.quote(values["run"])
    commands = [f"lmcli sample {path}", f"lmcli eval {path} --split test"]
    blocks: list[result.Block] = [result.Facts(columns, values)]
    if ceiling := values.get("ceiling"):
        blocks.append(result.Passage(ceiling["sentence"]))
    return result.Result("train", values, blocks, commands)


# ------------------------------------------------------------------ as one of several, or alone


def _train(
    options: Mapping[str, Any],
    count: int,
    rendezvous: str | None,
    on_progress: OnProgress,
    on_ready: Callable[[], object] = lambda: None,
) -> Run:
    """The part of this process; `on_ready` is called when it has met the others and all is read."""
    load = LoadMeter()  # before torch is loaded, so that no time is lost by measuring
    from lmcli.evaluation.probes.ceiling.one_line import ceiling_of_corpus
    from lmcli.evaluation.score import warn_of_unknown
    from lmcli.evaluation.trial_result import score_parts
    from lmcli.training.checkpoint import save_result
    from lmcli.training.distributed import describe_wait, joined
    from lmcli.training.hybrid_gain import measure_gain
    from lmcli.training.job import new_job, resumed_job, train_run
    from lmcli.training.watch import Watch

    path, going_on = Path(options["output"]), bool(options["resume"])
    if world_size(os.environ) > 1 and rendezvous is None and os.environ["RANK"] == "0":
        on_progress(Message(describe_wait()))
    with ExitStack() as held:
        with joined(rendezvous, lambda: _resume_hint(path)) as group:
            held.enter_context(_writing(path, group.is_main))
            watch = Watch.of(options, group.is_main)
            report = on_progress if group.is_main else _only_training(on_progress)
            with group.local_main_first():
                if going_on:
                    run = Run.open(path)
                    job = resumed_job(run, options, report)
                else:
                    if group.is_main:
                        check_free(path, options["force"])
                        if path.is_symlink():
                            what = f"'{path}' is a link: the run at '{path.resolve()}' is replaced"
                            report(Message(what, "warning"))
                    job = new_job(options, count, load, report)
            if not going_on:
                group.local_device(job.device)
                group.check_same(job.fingerprint)
            if not group.is_main:
                run = ReadOnlyRun(path, job.record(), job.dataset.tokenized.tokenizer)
            trainer = None if job.is_count_based else job.trainer(group)  # it shows if memory lacks
            if group.is_main and not going_on:
                run = job.create(path, options["force"])
            for line in job.description(options.get("verbose", False)):
                report(Message(line))
            on_ready()
            trained = train_run(run, job, trainer, going_on, report, watch)
        if trained is not None and group.is_main:
            model = run.model()
            valid, test = score_parts(model, run.tokenizer, job.dataset)
            warn_of_unknown(valid, path, report)
            gain = measure_gain(job.dataset, model)
            if gain and (sentence := gain.sentence()):
                report(Message(sentence))
            ceiling = ceiling_of_corpus(job.dataset.corpus, trained.seconds, job.seed)
            save_result(run, model, job.dataset, trained, valid, test, ceiling)
            if options.get("slim"):
                run.drop_checkpoint()
    return run


def _writing(path: Path, is_main: bool) -> AbstractContextManager[None]:
    """Within, the main process is the only one that writes the run."""
    if is_main:
        check_unlocked(path.resolve().parent)  # a comparison reads its runs until it ends
    return locked(path) if is_main else nullcontext()


def _only_training(on_progress: OnProgress) -> OnProgress:
    """The callback of a process that does not report: its answer may be to stop."""
    return lambda event: isinstance(event, Training) and on_progress(event)


def _resume_hint(path: Path) -> str:
    """The hint for a training that was interrupted."""
    if (path / TRAINING).is_file():
        return f"lmcli train --resume -o {path} goes on from the last checkpoint"
    return "there may be too little memory: try fewer workers"


# ------------------------------------------------------------------ as the one that starts them


def _launch(options: Mapping[str, Any], count: int, path: Path, on_progress: OnProgress) -> Run:
    """Run all workers to their ends; a stop is passed on once."""
    errors: dict[int, LmcliError] = {}
    codes: dict[int, int] = {}
    last, wanted, stopped, deadline = None, False, False, float("inf")
    directory = tempfile.TemporaryDirectory(prefix="lmcli-")
    with directory as folder, ChildProcesses("lmcli.training.job") as workers:
        for rank in range(count):
            workers.start(rank, _work, rank, count, f"{folder}/rendezvous", options)
        while workers.running and time.monotonic() < deadline:
            events = list(workers.events(POLL))
            for rank, event in events:
                if isinstance(event, Ended):
                    codes[rank] = event.code
                elif isinstance(event, LmcliError):
                    errors[rank] = event
                else:
                    answer = on_progress(event)
                    if isinstance(event, Training):
                        last, wanted = event, wanted or bool(answer)
            if last and not events:
                wanted = bool(on_progress(last))
            if wanted and not stopped:
                workers.terminate()
                stopped = True
            if deadline == float("inf") and (errors or any(codes.values())):
                deadline = time.monotonic() + GRACE
    if codes.get(0) != 0 or 0 in errors:  # else the run is complete, or stopped
        raise _failure(errors, codes, count, path)
    return Run.open(path)


def _failure(
    errors: Mapping[int, LmcliError], codes: Mapping[int, int], count: int, path: Path
) -> LmcliError:
    """The error that explains the others."""
    own = [errors[rank] for rank in sorted(errors) if not isinstance(errors[rank], LostWorkerError)]
    if own:
        return own[0]
    for rank, code in sorted(codes.items()):
        if code:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
            problem = f"worker {rank + 1} of {count} was ended {how}"
            return LostWorkerError(problem, _resume_hint(path))
    said = next(iter(errors.values()), None)
    problem = said.problem if said else "the workers lost contact with each other"
    return LostWorkerError(problem, _resume_hint(path))


def _work(
    rank: int, count: int, rendezvous: str, options: Mapping[str, Any], send: Callable[[Any], None]
) -> None:
    """One worker: what torchrun would put in the environment, and its share of the cores."""
    import torch

    from lmcli.training.job import throttled

    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    if sys.platform != "win32":  # the loopback, whatever the name of this machine stands for
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(available_cores()) // count))
    stop: list[int] = []
    send_some = throttled(send)

    def report(event: object) -> bool:
        if rank == 0:
            send_some(event)
        return bool(stop)

    def stop_at_a_step() -> None:
        """Until this is called SIGTERM ends the worker, which may wait for one that never comes."""
        signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))

    _train(options, count, rendezvous, report, stop_at_a_step)
