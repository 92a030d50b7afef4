"""A search for the learning rate, within the budget of the training that uses it.

**In:** a job.
**Out:** a `SearchedRate`: the trainer whose rate did best on validation after a small share of the
budget, which continues with what it has learnt, and every trial.

Where short documents come first, a new training starts with the best rate: a trial has read the
whole text, and continuing from one was worse. GRU, data/france.txt, 1,900 steps with the search,
bits/char for three seeds: continued 0.285, 0.286, 0.284; new 0.281, 0.275, 0.274. The cause is not
known, and other architectures were not tried.

Each trial is a short training of its own that ends with a linear anneal to 0: a loss that is
measured at the peak rate favours small rates, because those of large ones only show after decay
(short-horizon bias: Wu et al. 2018).

The longer a training, the smaller its best rate. So a trial trains with twice the rate that it
stands for; with four times, where the whole training will memorise the text, because what too large
a rate does then shows in no trial. That is where the text is read many times and has many tokens
that are rare, as words are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from lmcli.data.curriculum import LengthCurriculum
from lmcli.errors import TrainingError
from lmcli.report.progress import OnProgress
from lmcli.training.job import Job
from lmcli.training.trainer import EarlyStopping, Trainer

RACE_FACTORS = (1.0, 0.5, 2.0)
"""rates that are tried first, as multiples of the usual one"""
STEP = 2.0
"""from the best rate at the edge of these to the next"""
FIRST_ROUND, SECOND_ROUND = 0.03, 0.09
"""shares of the budget after which a trial is measured"""
ANNEAL = 1 / 3
"""share of a round in which the rate falls to 0"""
TRIAL_SCALE = 2.0
"""the best rate of a trial over that of the whole training"""
MEMORISED_SCALE = 4.0
"""the same where the text will be memorised"""
FEW_EPOCHS = 5.0
"""a text is memorised that is read more often than this, ..."""
FEW_TYPES = 0.01
"""... and has more different tokens than this share of its length"""


@dataclass
class RateTrial:
    """A training with one rate, up to where it was measured."""

    rate: float
    """of the whole training"""
    trainer: Trainer
    share: float = 0.0
    """of the budget"""
    loss: float = math.inf
    """on validation, in nats per token; inf where it exploded"""

    def to_json(self) -> dict[str, Any]:
        """An entry of ``race``."""
        loss = self.loss if math.isfinite(self.loss) else None
        return {"rate": self.rate, "loss": loss, "share": self.share}


@dataclass(frozen=True)
class SearchedRate:
    """The trainer with the best rate, what the discarded trials took, and the losses of all."""

    trainer: Trainer
    tokens: int
    seconds: float
    race: tuple[Mapping[str, Any], ...]
    counted: tuple[float, Mapping[str, Tensor]] | None = None
    """validation loss and weights of a model that has only counted; for `train_into`"""


class LearningRateSearch:
    """Trials of one job."""

    def __init__(self, job: Job, report: Callable[[Any], object]) -> None:
        self.job, self.report = job, report
        self.trials: dict[float, RateTrial] = {}
        """by the factor to the usual rate"""
        self.scale = TRIAL_SCALE
        """rate of a trial over the rate that it stands for"""

    def validate_counts(self) -> tuple[float, dict[str, Tensor]] | None:
        """What counting alone is worth, and its weights; None for a model that does not count.

        The trainer is that of the first trial. The weights are on the CPU.
        """
        if not self.job.model_class.counts_first:
            return None
        rate = self.job.training.peak_rate * RACE_FACTORS[0]
        trainer = self.new_trainer(rate, 0.0)
        self.trials[RACE_FACTORS[0]] = RateTrial(rate, trainer)
        learnt = dict(trainer.model.named_parameters())  # the counts stay
        tensors = trainer.model.tensors().items()
        copies = {n: t.detach().clone() if n in learnt else t.detach() for n, t in tensors}
        return trainer.validate(), {name: t.cpu() for name, t in copies.items()}

    def run_trial(self, factor: float, until: float) -> RateTrial:
        """Train with a rate, or go on, until a share of the budget is used; measure."""
        trial = self.trials.get(factor)
        if trial is None:
            rate = self.job.training.peak_rate * factor
            trial = self.trials[factor] = RateTrial(rate, self.new_trainer(rate, 0.0))
        trainer, begin = trial.trainer, trial.share
        trial.share, trial.loss = until, math.inf
        fall = ANNEAL * (until - begin)
        trainer.rate_factor = self.scale
        with suppress(TrainingError):
            for progress in trainer.run(until):
                self.report(progress)
                left = max(0.0, until - trainer.fraction)
                trainer.rate_factor = self.scale * min(1.0, left / fall)
            trial.loss = trainer.validate()
        trainer.rate_factor = 1.0
        return trial

    def new_trainer(self, rate: float, curriculum: float) -> Trainer:
        """At step 0, with the counts of the first trial where the model begins by counting."""
        settings = replace(self.job.training, learning_rate=rate, curriculum=curriculum)
        first = next((trial.trainer.model for trial in self.trials.values()), None)
        counted = first if self.job.model_class.counts_first else None
        return replace(self.job, training=settings).trainer(counted=counted)

    def expected_epochs(self) -> float:
        """How often the whole training will read the text, by the trials so far."""
        trainer = next(iter(self.trials.values())).trainer
        return trainer.step / trainer.streams.steps_per_epoch / max(1e-9, trainer.fraction)

    def will_memorise(self) -> bool:
        """Whether the whole training will memorise the text; known after the first trial."""
        types = self.job.vocabulary / len(self.job.dataset.tokenized.train)
        return self.expected_epochs() > FEW_EPOCHS and types > FEW_TYPES

    def adapt_scale(self) -> None:
        """Which rate the first trial stands for."""
        if not self.will_memorise():
            return
        (factor, trial), *_ = self.trials.items()
        ratio = self.scale / MEMORISED_SCALE
        trial.rate *= ratio
        trial.trainer.settings = replace(trial.trainer.settings, learning_rate=trial.rate)
        self.trials = {factor * ratio: trial}
        self.scale = MEMORISED_SCALE

    def best(self) -> float:
        """The factor with the least loss, of those that came furthest."""
        return min(self.trials, key=lambda f: (-self.trials[f].share, self.trials[f].loss))

    def two_best(self) -> list[float]:
        """The factors with the least losses."""
        return sorted(self.trials, key=lambda f: self.trials[f].loss)[:2]

    def beyond(self) -> float:
        """The factor one step out from the best, on the side away from those that came as far."""
        best, furthest = self.best(), max(trial.share for trial in self.trials.values())
        others = [f for f, trial in self.trials.items() if trial.share == furthest and f != best]
        return best * STEP if others[0] < best else best / STEP


def learning_rate_search(
    job: Job, name: str, on_progress: OnProgress = lambda event: None
) -> SearchedRate:
    """Try three rates; the best two for longer; one beyond the better one for as long.

    The best rate falls with length: the second round may end below all that led the first.

    Without a curriculum the best trial continues; with one a new trainer starts at step 0. No
    weights of the search have been saved, so none of them are the best so far, but those that have
    only counted may be. The budget shrinks by the time of all trials that are discarded.
    """
    search = LearningRateSearch(job, lambda progress: on_progress(job.event(name, progress)))
    counted = search.validate_counts()
    search.run_trial(RACE_FACTORS[0], FIRST_ROUND)
    search.adapt_scale()
    for factor in RACE_FACTORS:
        if factor not in search.trials:
            search.run_trial(factor, FIRST_ROUND)
    for factor in search.two_best():
        search.run_trial(factor, SECOND_ROUND)
    beyond = search.beyond()
    if beyond not in search.trials:
        search.run_trial(beyond, FIRST_ROUND)
    search.run_trial(beyond, SECOND_ROUND)
    best = search.trials[search.best()]
    trainer, curriculum = best.trainer, job.training.curriculum or 0.0
    if LengthCurriculum(trainer.streams, curriculum).ends:
        trainer = search.new_trainer(best.rate, curriculum)
    discarded = [trial for trial in search.trials.values() if trial.trainer is not trainer]
    seconds = sum(t.trainer.seconds + t.trainer.counting_seconds for t in discarded)
    trainer.shorten(seconds, sum(trial.share for trial in discarded))
    trainer.early_stopping = EarlyStopping(trainer.settings.patience)
    counted = counted if trainer.step else None  # at step 0 the trainer validates by itself
    race = [trial.to_json() for trial in search.trials.values()]
    race.sort(key=lambda entry: float(entry["rate"]))
    tokens = sum(t.trainer.tokens for t in discarded)
    return SearchedRate(trainer, tokens, seconds, tuple(race), counted)
