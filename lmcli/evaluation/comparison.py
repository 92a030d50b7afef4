"""Outcomes on one text under one protocol -> a ranking with paired differences.

**In:** what came of each member of a comparison, or of runs that exist.
**Out:** a `ComparisonRow` per architecture, the `Difference` of each to the best, and the optimum
where a grammar made the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmcli.data.dataset import Dataset
from lmcli.evaluation.score import RESAMPLES, Floats, Score
from lmcli.grammars.base import companions, read_about
from lmcli.registry import GRAMMARS
from lmcli.settings import update
from lmcli.training.job import Job
from lmcli.training.sweep import RACE_RATES, RACE_SHARE, TrialResult, share_cores
from lmcli.training.trainer import Budget

# ------------------------------------------------------------------ ranking


@dataclass(frozen=True)
class ComparisonRow:
    """One row of the ranking: an architecture over its seeds."""

    name: str
    arch: str
    outcomes: Sequence[TrialResult]

    def mean(self, value: Callable[[TrialResult], float]) -> float:
        """A value averaged over seeds."""
        return sum(map(value, self.outcomes)) / len(self.outcomes)

    @property
    def bits_per_char(self) -> float:
        """On the held-out part; what rows are sorted by."""
        return self.mean(lambda o: o.held_out.bits_per_char)

    def to_json(self) -> dict[str, Any]:
        """A row of ``compare --json``."""
        first, count = self.outcomes[0], len(self.outcomes)
        tested = all(o.test for o in self.outcomes)
        return {
            "name": self.name,
            "arch": self.arch,
            "parameters": first.parameters,
            "body_parameters": first.body_parameters,
            "tokens_seen": self.mean(lambda o: o.tokens_seen),
            "seconds": self.mean(lambda o: o.seconds),
            "tokens_per_second": self.mean(lambda o: o.tokens_seen / max(o.seconds, 1e-9)),
            "flops_per_token": first.flops_per_token,
            "learning_rate": first.learning_rate,
            "valid": summary([o.valid for o in self.outcomes]),
            "test": summary([o.held_out for o in self.outcomes]) if tested else None,
            "seeds": [
                {"seed": o.seed, "run": o.run, "bits_per_char": o.held_out.bits_per_char}
                for o in self.outcomes
            ],
            "run": first.run if count == 1 else None,
        }


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Means over seeds; the standard error holds both the text's and the seeds' share."""
    bits = [s.bits_per_char for s in scores]
    text_error = float(np.mean([s.standard_error for s in scores]))
    seed_error = float(np.std(bits, ddof=1) / math.sqrt(len(bits))) if len(bits) > 1 else 0.0
    nats = float(np.mean([s.nats_per_token for s in scores]))
    return {
        "nats_per_token": nats,
        "perplexity": math.exp(nats) if nats < 700 else math.inf,
        "bits_per_char": float(np.mean(bits)),
        "standard_error": math.hypot(text_error, seed_error),
    }


@dataclass(frozen=True)
class Difference:
    """bits_per_char of a minus that of b on the same blocks, with a 95 % interval."""

    a: str
    b: str
    bits_per_char: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says of a."""
        if self.low > 0:
            return "worse"
        return "better" if self.high < 0 else "no detectable difference"

    def to_json(self) -> dict[str, Any]:
        """An entry of ``differences``."""
        return {**vars(self), "verdict": self.verdict}


def paired_difference(
    a: str, a_scores: Sequence[Score], b: str, b_scores: Sequence[Score]
) -> Difference:
    """Paired bootstrap over blocks of text, and over seeds where there are several."""
    rng = np.random.default_rng(0)
    sizes = a_scores[0].block_chars
    blocks = len(sizes)
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)

    def resampled(scores: Sequence[Score]) -> Floats:
        nats = counts @ np.stack([s.block_nats for s in scores]).T  # (RESAMPLES, seeds)
        seeds = rng.integers(len(scores), size=(RESAMPLES, len(scores)))
        mean: Floats = np.take_along_axis(nats, seeds, axis=1).mean(axis=1)
        return mean / (counts @ sizes) / math.log(2)

    apart = resampled(a_scores) - resampled(b_scores)
    low, high = np.percentile(apart, [2.5, 97.5])
    mean = np.mean([s.bits_per_char for s in a_scores]) - np.mean(
        [s.bits_per_char for s in b_scores]
    )
    return Difference(a, b, float(mean), float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """All standings, best first, and each one's difference to the best."""

    standings: Sequence[ComparisonRow]
    differences: Sequence[Difference] = field(default_factory=tuple)

    @classmethod
    def of(cls, outcomes: Sequence[TrialResult]) -> Comparison:
        """Rank outcomes; those of one name are seeds of one row, whichever was done first."""
        groups: dict[str, list[TrialResult]] = {}
        for outcome in sorted(outcomes, key=lambda o: (o.seed, o.run)):
            groups.setdefault(outcome.name, []).append(outcome)
        standings = [ComparisonRow(name, g[0].arch, g) for name, g in groups.items()]
        standings.sort(key=lambda s: s.bits_per_char)
        best = standings[0]
        return cls(standings, [_against(s, best) for s in standings[1:]])


def _against(standing: ComparisonRow, best: ComparisonRow) -> Difference:
    scores = [[o.held_out for o in s.outcomes] for s in (standing, best)]
    return paired_difference(standing.name, scores[0], best.name, scores[1])


def protocol(job: Job, budget: Budget, match: str, seeds: int, workers: int) -> Mapping[str, Any]:
    """The conditions that were the same for all members."""
    return {
        "minutes": budget.minutes,
        "steps": budget.steps,
        "epochs": budget.epochs,
        "match": match,
        "seeds": seeds,
        "batch": job.training.batch,
        "truncation": job.training.truncation,
        "side_by_side": workers,
        "cores_each": len(share_cores(workers)[0]),
        "learning_rates": list(RACE_RATES),
        "race_share": RACE_SHARE,
        "device": job.device,
        "split": job.dataset.spec.split,
    }


# ------------------------------------------------------------------ the known optimum


def optimum_row(dataset: Dataset) -> dict[str, Any] | None:
    """What nobody can beat on these very documents, where the text was made by a grammar.

    The grammar itself says how likely each held-out document is.
    """
    grammar = made_by(dataset)
    if grammar is None:
        return None
    row: dict[str, Any] = dict.fromkeys(NO_TRAINING) | {"name": "optimum", "arch": "optimum"}
    for name, held_out in (("valid", dataset.valid), ("test", dataset.test)):
        if held_out is None:
            row[name] = None
            continue
        part, tokens = held_out.part, held_out.targets
        lines = (line for piece in part.documents for line in piece.splitlines())
        try:
            nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        except ValueError:
            return None  # edited by hand: the optimum is not known any more
        row[name] = {
            "nats_per_token": nats / tokens,
            "perplexity": math.exp(nats / tokens),
            "bits_per_char": nats / math.log(2) / part.chars,
            "standard_error": None,
        }
    return row | {"seeds": []}


NO_TRAINING = (
    "parameters",
    "body_parameters",
    "tokens_seen",
    "seconds",
    "tokens_per_second",
    "flops_per_token",
    "learning_rate",
    "run",
)


def made_by(dataset: Dataset) -> Any:
    """The grammar that made the text, by the about-file beside it; None for any other text."""
    if len(dataset.spec.texts) != 1 or not Path(dataset.spec.texts[0]).name:
        return None
    _, about = companions(Path(dataset.spec.texts[0]))
    if not about.is_file():
        return None
    recipe = dict(read_about(about)["recipe"])
    cls = GRAMMARS.load(recipe.pop("grammar"))
    grammar = cls(update(cls.Settings(), recipe))
    return grammar if hasattr(grammar, "token_log_probabilities") else None
