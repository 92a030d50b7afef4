"""The members of a comparison, trained side by side, each with its own learning rate.

**In:** `Trial`s: a job each, and where its run goes.
**Out:** Events while they train, and a `TrialResult` each: what it cost, how it scores.

Two small trainings on one core each get through more text than one on two, so members run in worker
processes, each on its own share of the cores. Learning rates come from a search within the budget:
three rates start, the best on validation goes on with what it has learnt.
"""

from __future__ import annotations

import math
import os
import queue
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcli.errors import LmcliError, TrainingError
from lmcli.evaluation.trial_result import TrialResult
from lmcli.system import available_cores, preloaded_context, sigint_blocked
from lmcli.training.checkpoint import count_into, train_into
from lmcli.training.job import Job
from lmcli.training.trainer import Progress, Trainer

RACE_RATES = (0.5, 1.0, 2.0)
"""learning rates that are tried, as multiples of the recipe's"""
RACE_SHARE = 0.04
"""share of the budget that each trial gets"""


@dataclass(frozen=True)
class Trial:
    """One training of a comparison."""

    name: str
    job: Job
    path: Path
    learning_rate_search: bool
    """whether the learning rate is to be found"""


@dataclass(frozen=True)
class Event:
    """Something a member reports while it is trained."""

    member: str
    progress: Progress | None = None
    outcome: TrialResult | None = None
    error: tuple[str, str, str] | None = None
    """kind, problem and hint of what went wrong"""


# ------------------------------------------------------------------ training one member


def run_trial(member: Trial) -> Iterator[Event]:
    """Race, train, score; everything is kept in the member's run."""
    job = member.job
    if job.counts:
        run, model = job.create(member.path, force=True), job.model()
        progress = count_into(run, model, job.dataset.tokenized.train, job.dataset.valid.stream)
        yield Event(member.name, progress)
        tokens, seconds, rate = progress.tokens, progress.seconds, None
    else:
        trainer, spent = (
            learning_rate_search(job) if member.learning_rate_search else (job.trainer(), 0.0)
        )
        job = replace(job, training=trainer.settings)
        run = job.create(member.path, force=True)
        for progress in train_into(run, trainer):
            yield Event(member.name, progress)
        tokens, seconds = trainer.tokens, trainer.seconds + spent
        rate = trainer.settings.learning_rate
    run.slim()
    outcome = TrialResult.of(member.name, run, run.model(), job.dataset, tokens, seconds, rate)
    run.save_result("train", {"tokens_seen": tokens, "seconds": seconds})
    yield Event(member.name, outcome=outcome)


def failed(member: Trial, error: LmcliError) -> Event:
    """What a member reports when it goes wrong."""
    problem = f"{member.name}: {error.problem}"
    return Event(member.name, error=(type(error).__name__, problem, error.hint))


def learning_rate_search(job: Job) -> tuple[Trainer, float]:
    """The trainer whose learning rate did best in a short trial, and what the others cost.

    The winner keeps what it has learnt, but no weights of the trial have been saved, and so none of
    them are the best so far; the budget shrinks by the seconds that the losers took.
    """
    trials = []
    for factor in RACE_RATES:
        settings = replace(job.training, learning_rate=job.training.peak_rate * factor)
        trainer = replace(job, training=settings).trainer()
        loss = math.inf
        with suppress(TrainingError):
            for progress in trainer.run(until=RACE_SHARE):
                loss = progress.loss
            loss = trainer.measure()
        trials.append((loss, trainer))
    _, winner = min(trials, key=lambda trial: trial[0])
    spent = sum(t.seconds for _, t in trials if t is not winner)
    winner.shorten(spent, RACE_SHARE * (len(RACE_RATES) - 1))
    winner.best, winner.best_step, winner.worse = math.inf, 0, 0
    return winner, spent


# ------------------------------------------------------------------ side by side


def run_trials(members: Sequence[Trial], workers: int) -> Iterator[Event]:
    """Train all, `workers` at a time in processes of their own; leaving the loop ends them.

    A member whose loss explodes reports that, and the others go on.
    """
    if workers <= 1 or len(members) == 1:
        for member in members:
            try:
                yield from run_trial(member)
            except TrainingError as error:
                yield failed(member, error)
        return
    yield from _Pool(members, workers).run()


class _Pool:
    """Worker processes, one slot of cores each."""

    def __init__(self, members: Sequence[Trial], workers: int) -> None:
        self.context = preloaded_context(__name__)
        self.events: Any = self.context.Queue()
        self.waiting = list(members)
        self.slots = share_cores(workers)
        self.running: dict[str, tuple[Any, int]] = {}
        self.free = list(range(workers))

    def run(self) -> Iterator[Event]:
        """Events of all members until the last outcome."""
        try:
            self._fill()
            while self.running:
                event = self._next_event()
                if event.error and event.error[0] != TrainingError.__name__:
                    raise LmcliError(*event.error[1:])
                if event.outcome or event.error:
                    process, slot = self.running.pop(event.member)
                    process.join()
                    self.free.append(slot)
                    self._fill()
                yield event
        finally:
            for process, _ in self.running.values():
                process.terminate()
            for process, _ in self.running.values():
                process.join()

    def _fill(self) -> None:
        while self.free and self.waiting:
            slot, member = self.free.pop(0), self.waiting.pop(0)
            arguments = (member, self.slots[slot], self.events)
            process = self.context.Process(target=_work, args=arguments, daemon=True)
            with sigint_blocked():
                process.start()
            self.running[member.name] = (process, slot)

    def _next_event(self) -> Event:
        while True:
            with suppress(queue.Empty):
                event: Event = self.events.get(timeout=1.0)
                return event
            for name, (process, _) in self.running.items():
                if not process.is_alive() and self.events.empty():
                    raise TrainingError(
                        f"the training of {name} ended with code {process.exitcode}",
                        "there may be too little memory: try --workers 1",
                    )


def share_cores(workers: int) -> list[list[int]]:
    """The cores this process may use, dealt out evenly.

    >>> [len(s) for s in share_cores(1)] == [len(available_cores())]
    True
    """
    cores = available_cores()
    each = max(1, len(cores) // workers)
    return [(cores * workers)[i * each : (i + 1) * each] for i in range(workers)]


def _work(member: Trial, cores: list[int], events: Any) -> None:
    """A worker process: train one member on its cores."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(len(cores))
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, cores)
    last = 0.0
    try:
        for event in run_trial(member):
            due = event.progress is None or event.progress.logged or event.progress.done
            if due or (event.progress and event.progress.seconds - last > 0.25):
                last = event.progress.seconds if event.progress else last
                events.put(event)
    except LmcliError as error:
        events.put(failed(member, error))
    except Exception:
        traceback.print_exc()
        raise
