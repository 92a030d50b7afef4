"""The trainings of a comparison, one after another or side by side.

**In:** a `Trial` for each training.
**Out:** `Training` events while they run, and a `TrialResult` each: what it cost, how it scores.

Two small trainings on one core each process more text than one on two, so trials run in processes
of their own, each on its share of the cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError, TrainingError
from lmcli.evaluation.trial_result import TrialResult
from lmcli.report.progress import Finished, Message, OnProgress, Training, Trainings
from lmcli.run import Run
from lmcli.system import ChildProcesses, Ended, available_cores
from lmcli.training.checkpoint import Trained, save_result, train_into
from lmcli.training.job import Job, throttled
from lmcli.training.lr_search import learning_rate_search
from lmcli.training.order_search import order_search
from lmcli.training.stopping_criterion import RecallCriterion
from lmcli.write_lock import locked

POLL = 0.5
"""seconds after which the callback is called again, so that it can stop"""


@dataclass(frozen=True)
class Trial:
    """One training of a comparison."""

    name: str
    job: Job
    path: Path
    search: bool
    """whether the learning rate, or the order of an n-gram, is searched"""
    stop_when_recalled: bool = False
    """whether it ends as soon as the items beside the text are answered"""

    @property
    def row(self) -> str:
        """The row that it belongs to: its name without the seed."""
        return self.name.partition("#")[0]


# ------------------------------------------------------------------ sharing the cores


def trainings_side_by_side(trained: int, wanted: int | None, device: str) -> int:
    """How many of some trainings run at a time: by default one a core, on a GPU one.

    >>> trainings_side_by_side(4, 3, "cpu"), trainings_side_by_side(4, 3, "cuda")
    (3, 1)
    """
    if device != "cpu":
        return 1
    return max(1, min(wanted or len(available_cores()), trained))


def sharing_cores(made: Sequence[Trial], jobs: int | None) -> tuple[list[Trial], int]:
    """The trials, each with its share of the threads, and how many run side by side."""
    cores, trained = len(available_cores()), sum(not trial.job.is_count_based for trial in made)
    device = next((t.job.device for t in made if t.job.device != "cpu"), "cpu")
    jobs = trainings_side_by_side(trained, jobs, device)

    def share(trial: Trial) -> Trial:
        training = trial.job.training
        if jobs == 1 or trial.job.is_count_based or training.threads:
            return trial
        training = replace(training, threads=max(1, cores // jobs))
        return replace(trial, job=replace(trial.job, training=training))

    return [share(trial) for trial in made], jobs


# ------------------------------------------------------------------ training one


def run_trial(trial: Trial, on_progress: Callable[[Training], object]) -> TrialResult:
    """Search, train, score; everything is saved in the trial's run."""
    job = trial.job
    with locked(trial.path):
        run, trained = (_count if job.is_count_based else _train)(trial, on_progress)
        run.drop_checkpoint()
        model = run.model()
        result = TrialResult.of(trial.row, run, model, job.dataset, vars(trained))
        save_result(run, model, job.dataset, trained, result.valid, result.test)
    return result


def _count(trial: Trial, on_progress: Callable[[Training], object]) -> tuple[Run, Trained]:
    """A model of counts; the time of its search is its own."""
    job, race = trial.job, tuple[Mapping[str, Any], ...]()
    began = time.perf_counter()
    if trial.search:
        job, race = order_search(job)
    run = job.create(trial.path, force=True)
    trained = job.count_into(run)
    return run, replace(trained, race=race, seconds=time.perf_counter() - began)


def _train(trial: Trial, on_progress: Callable[[Training], object]) -> tuple[Run, Trained]:
    job = trial.job
    search = learning_rate_search(job, trial.name, on_progress) if trial.search else None
    trainer = search.trainer if search else job.trainer()
    run = replace(job, training=trainer.settings).create(trial.path, force=True)
    if trial.stop_when_recalled:
        trainer.goal = RecallCriterion.of(job.dataset)
    spent = (search.tokens, search.seconds, search.race) if search else ()
    loop = train_into(run, trainer, counted=search.counted if search else None)
    del search  # and with it a copy of the weights
    with closing(loop):  # an exception of the callback saves while the run is locked
        for progress in loop:
            on_progress(job.event(trial.name, progress))
    return run, Trained.by(trainer, *spent)


# ------------------------------------------------------------------ all of them


class StoppedError(TrainingError):
    """The callback has stopped a comparison; `finished` are the runs that can be used."""

    finished: tuple[str, ...] = ()


def run_trials(made: Sequence[Trial], jobs: int, on_progress: OnProgress) -> list[TrialResult]:
    """Run all, N side by side; models that count come first, in this process.

    A trial whose loss explodes is a warning, and the others go on. A true answer of the callback
    to a Training event is a StoppedError that names the finished runs.
    """
    results: list[TrialResult] = []

    def report(event: object) -> None:
        if on_progress(event) and isinstance(event, Training):
            finished = ", ".join(result.run for result in results) or "none"
            stopped = StoppedError(f"stopped; finished runs: {finished}", "--run RUN compares them")
            stopped.finished = tuple(result.run for result in results)
            raise stopped

    def finish(trial: Trial, outcome: TrialResult | LmcliError) -> None:
        if isinstance(outcome, TrialResult):
            results.append(outcome)
        elif isinstance(outcome, StoppedError) or not isinstance(outcome, TrainingError):
            raise outcome
        else:
            on_progress(Message(f"{trial.name}: {outcome.problem}; {outcome.hint}", "warning"))
        on_progress(Finished(trial.name))

    if trained := [trial for trial in made if not trial.job.is_count_based]:
        minutes = trained[0].job.budget.minutes
        seconds = None if minutes is None else 60 * minutes
        on_progress(Trainings([trial.name for trial in trained], jobs, seconds))
    here = [trial for trial in made if jobs == 1 or trial.job.is_count_based]
    for trial in sorted(here, key=lambda trial: not trial.job.is_count_based):
        try:
            finish(trial, run_trial(trial, report))
        except TrainingError as error:
            finish(trial, error)
    _side_by_side([trial for trial in made if trial not in here], jobs, report, finish)
    return results


def _side_by_side(
    waiting: list[Trial],
    jobs: int,
    report: Callable[[object], None],
    finish: Callable[[Trial, TrialResult | LmcliError], None],
) -> None:
    """Run trials in processes, each on its own cores."""
    if not waiting:
        return
    free, last = share_cores(jobs), None
    running: dict[str, tuple[Trial, list[int]]] = {}
    with ChildProcesses(__name__) as processes:
        while waiting or processes.running:
            while waiting and free:
                trial, cores = waiting.pop(0), free.pop(0)
                running[trial.name] = trial, cores
                processes.start(trial.name, _work, trial, cores)
            events = list(processes.events(POLL))
            if last and not events:
                report(last)
            for name, event in events:
                if isinstance(event, Training):
                    last = event
                    report(event)
                elif not isinstance(event, Ended):
                    trial, cores = running.pop(name)
                    free.append(cores)
                    finish(trial, event)
                elif name in running:
                    raise TrainingError(
                        f"the training of {name} ended with code {event.code}",
                        "there may be too little memory: try --jobs 1",
                    )


def share_cores(jobs: int) -> list[list[int]]:
    """The cores this process may use, in N equal parts.

    >>> [len(s) for s in share_cores(1)] == [len(available_cores())]
    True
    """
    cores = available_cores()
    each = max(1, len(cores) // jobs)
    return [(cores * jobs)[i * each : (i + 1) * each] for i in range(jobs)]


def _work(trial: Trial, cores: list[int], send: Callable[[object], None]) -> None:
    """A process: run one trial on its cores."""
    import torch

    torch.set_num_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    send(run_trial(trial, throttled(send)))
