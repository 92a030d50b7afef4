"""A learning rate, found within the budget of the training that uses it.

**In:** a job.
**Out:** the trainer whose rate did best on validation after a small share of the budget; it
continues with what it has learnt.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace

from lmcli.errors import TrainingError
from lmcli.report.progress import OnProgress
from lmcli.training.job import Job
from lmcli.training.trainer import Trainer

RACE_RATES = (0.5, 1.0, 2.0)
"""learning rates that are tried, as multiples of the default"""
RACE_SHARE = 0.04
"""share of the budget that each of them gets"""


def learning_rate_search(
    job: Job, name: str, on_progress: OnProgress = lambda event: None
) -> tuple[Trainer, tuple[int, float]]:
    """The trainer with the best rate, and the tokens and seconds that the others took.

    It keeps what it has learnt, but no weights of the search have been saved, so none of them are
    the best so far; its budget shrinks by the seconds of the others.
    """
    trials = []
    for factor in RACE_RATES:
        settings = replace(job.training, learning_rate=job.training.peak_rate * factor)
        trainer = replace(job, training=settings).trainer()
        loss = math.inf
        with suppress(TrainingError):
            for progress in trainer.run(until=RACE_SHARE):
                loss = progress.loss
                on_progress(job.event(name, progress))
            loss = trainer.validate()
        trials.append((loss, trainer))
    _, best = min(trials, key=lambda trial: trial[0])
    others = [trainer for _, trainer in trials if trainer is not best]
    seconds = sum(trainer.seconds for trainer in others)
    best.shorten(seconds, RACE_SHARE * (len(RACE_RATES) - 1))
    best.best, best.best_step, best.bad_validations = math.inf, 0, 0
    return best, (sum(trainer.tokens for trainer in others), seconds)
