"""Is one model better than another: differences in bits per character, and what they rest on.

**In:** for each row of a comparison the `Score` of each seed on the same text.
**Out:** the `Difference` of each to the best, with a verdict that is meant to hold for other seeds
and for another held-out part; with one seed, also what holds for these runs.

Three independent errors add up: of the text, of the seeds of the one and of the other. Seeds cannot
be resampled well when there are two or three; so this is a t interval, not a bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lmcli.evaluation.score import Score
from lmcli.evaluation.statistics import STRETCHES, Estimate, Floats, against_best, stretch_variance

ASSUMED_DEVIATION, ASSUMED_DEGREES = 0.011, 4.0
"""of a seed, as a share of bits/char, where no model of a comparison has two seeds"""
NEGLIGIBLE = 0.005
"""as a share of bits/char"""
LEVEL = 0.05

# ------------------------------------------------------------------ errors


@dataclass(frozen=True)
class Member:
    """One row of a comparison; further axes before these are simulated repetitions."""

    name: str
    bits: Floats
    """of each seed in each block of text: (..., seeds, blocks)"""
    chars: Floats
    """(blocks,)"""
    is_count_based: bool = False

    @classmethod
    def of(cls, name: str, scores: Sequence[Score], is_count_based: bool = False) -> Member:
        """From the scores of its seeds."""
        bits = np.stack([score.block_nats for score in scores]) / math.log(2)
        return cls(name, bits, scores[0].block_chars, is_count_based)

    @property
    def seeds(self) -> int:
        """How many were trained."""
        return int(self.bits.shape[-2])

    @property
    def rates(self) -> Floats:
        """Bits per character of each seed. Shapes: -> (..., seeds)."""
        rates: Floats = self.bits.sum(-1) / self.chars.sum()
        return rates

    @property
    def mean(self) -> Floats:
        """Bits per character, over the seeds."""
        mean: Floats = self.rates.mean(-1)
        return mean

    def error(self) -> float:
        """Standard error of the mean, by the text and by the seeds where there are several."""
        seeds = self.rates.var(-1, ddof=1) / self.seeds if self.seeds > 1 else 0.0
        return float(np.sqrt(stretch_variance(self.bits.mean(-2), self.chars) + seeds))


@dataclass(frozen=True)
class SeedVariance:
    """Of one seed of a member, with its degrees of freedom."""

    variance: Floats
    degrees: Floats
    is_own: bool
    """measured from seeds of its own; a model that counts has none to measure"""


def seed_variances(members: Sequence[Member]) -> list[SeedVariance]:
    """Of each member: its own; of one seed, that of all members together or an assumed one.

    That of two seeds may be small by chance: it is taken to be no less than that of all members.
    """
    several = [m for m in members if m.seeds > 1 and not m.is_count_based]
    own = [m.rates.var(-1, ddof=1) for m in several]
    degrees = sum(m.seeds - 1 for m in several)
    pooled: Floats | float = sum(
        ((m.seeds - 1) * v / degrees for m, v in zip(several, own, strict=True)), 0.0
    )
    found = []
    for m in members:
        one = np.ones_like(m.mean)
        if m.is_count_based:
            found.append(SeedVariance(0 * one, one, is_own=True))
        elif m.seeds > 1:
            mine = m.rates.var(-1, ddof=1)
            floored = (mine < pooled) & (m.seeds == 2)
            df = np.where(floored, degrees, m.seeds - 1)
            found.append(SeedVariance(np.where(floored, pooled, mine), df, is_own=True))
        elif several:
            found.append(SeedVariance(pooled * one, degrees * one, is_own=False))
        else:
            assumed = (ASSUMED_DEVIATION * m.mean) ** 2
            found.append(SeedVariance(assumed, ASSUMED_DEGREES * one, is_own=False))
    return found


@dataclass(frozen=True)
class Pair:
    """Two members, and how far the seeds of each differ."""

    a: Member
    b: Member
    a_seed: SeedVariance
    b_seed: SeedVariance

    @property
    def in_run(self) -> Estimate:
        """Bits per character of a minus that of b, for these runs."""
        return Estimate.of(self.a.mean - self.b.mean, [self._text()])

    @property
    def estimate(self) -> Estimate:
        """The same for any seeds."""
        seeds = [(v, s.degrees) for v, s in zip(self._seeds(), self._variances(), strict=True)]
        if not (self.a_seed.is_own or self.b_seed.is_own):  # one and the same estimate
            seeds = [(seeds[0][0] + seeds[1][0], self.a_seed.degrees)]
        return Estimate.of(self.a.mean - self.b.mean, [self._text(), *seeds])

    def _text(self) -> tuple[Floats, Floats]:
        """Variance of the difference over the text, and its degrees of freedom."""
        apart = self.a.bits.mean(-2) - self.b.bits.mean(-2)
        variance = stretch_variance(apart, self.a.chars)
        return variance, np.full_like(variance, max(1, min(STRETCHES, len(self.a.chars)) - 1))

    def _variances(self) -> tuple[SeedVariance, SeedVariance]:
        return self.a_seed, self.b_seed

    def _seeds(self) -> list[Floats]:
        """Variance of the mean over the seeds of each."""
        return [self.a_seed.variance / self.a.seeds, self.b_seed.variance / self.b.seeds]

    def difference(self, p_holm: float, run_p_holm: float) -> Difference:
        """With its intervals; the p-values are corrected for those of other pairs."""
        value, estimate, in_run = float(self.a.mean - self.b.mean), self.estimate, self.in_run
        half, run_half = estimate.half_width(), in_run.half_width()
        members = zip((self.a, self.b), self._variances(), strict=True)
        trained = [float(s.variance) for m, s in members if not m.is_count_based]
        a_error, b_error = (math.sqrt(float(variance)) for variance in self._seeds())
        return Difference(
            a=self.a.name,
            b=self.b.name,
            bits_per_char=value,
            low=value - half,
            high=value + half,
            p=float(estimate.p()),
            p_holm=p_holm,
            scope="architecture" if self.a_seed.is_own and self.b_seed.is_own else "run",
            run_low=value - run_half,
            run_high=value + run_half,
            run_p_holm=run_p_holm,
            seed_deviation=math.sqrt(sum(trained) / len(trained)) if trained else 0.0,
            text_error=float(in_run.error),
            seed_errors=(a_error, b_error),
            degrees=float(estimate.degrees),
            is_negligible=abs(value) < NEGLIGIBLE * float(self.b.mean),
        )


# ------------------------------------------------------------------ verdicts


@dataclass(frozen=True)
class Difference:
    """bits_per_char of a minus that of b, with 95 % intervals that are paired over the text."""

    a: str
    b: str
    bits_per_char: float
    low: float
    high: float
    p: float
    """of the interval"""
    p_holm: float
    """the same, corrected for the number of rows: what the verdict goes by"""
    scope: str
    """ "architecture", or "run" where a seed's deviation had to be taken from elsewhere"""
    run_low: float
    run_high: float
    """what holds for these runs: without the error of the seeds"""
    run_p_holm: float
    seed_deviation: float
    """of one seed: root mean square over the models of the two that are trained"""
    text_error: float
    """standard error by the text; `seed_errors` those by the seeds of a and of b, None where each
    seed has a split of its own"""
    seed_errors: tuple[float, float] | None
    degrees: float
    """of freedom of the interval"""
    is_negligible: bool
    paired_splits: int = 0
    """splits of the text over which it is paired; 0: all seeds were tested on the same text"""

    @property
    def verdict(self) -> str:
        """What is said of a."""
        if not self.p_holm < LEVEL:
            return "no detectable difference"
        return "worse" if self.bits_per_char > 0 else "better"

    @property
    def holds_in_run(self) -> bool:
        """Whether these runs of one seed differ by more than their text can explain."""
        return self.scope == "run" and self.run_p_holm < LEVEL

    def in_words(self) -> str:
        """The verdict in a table, whose best row is b."""
        said, half = self.verdict, (self.high - self.low) / 2
        if said == "no detectable difference":
            said = "best or tied"
            if self.holds_in_run:
                said = "behind in this run" if self.bits_per_char > 0 else "ahead in this run"
                half = (self.run_high - self.run_low) / 2
        if self.is_negligible and said != "best or tied":
            said += ", negligible"
        return f"{said} {self.shown(half)}"

    def shown(self, half: float | None = None) -> str:
        """The difference with half of its interval, of which two digits are shown."""
        half = (self.high - self.low) / 2 if half is None else half
        decimals = 1 - math.floor(math.log10(half)) if 0 < half < math.inf else 4
        decimals = min(6, max(0, decimals))
        plus_minus = f" ± {half:.{decimals}f}" if math.isfinite(half) else ""
        return f"({self.bits_per_char:+.{decimals}f}{plus_minus})"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Difference:
        """An entry of ``differences``, in which what is not finite is null."""
        ends = {"low": -math.inf, "run_low": -math.inf, "high": math.inf, "run_high": math.inf}
        ends |= {"degrees": math.inf}
        given = {f.name: values[f.name] for f in fields(cls)}
        missing = {name: ends.get(name, math.nan) for name, v in given.items() if v is None}
        return cls(**given | missing | {"seed_errors": given["seed_errors"]})

    def to_json(self) -> dict[str, Any]:
        """An entry of ``differences``."""
        return {**vars(self), "verdict": self.verdict}


def differences_to_best(members: Sequence[Member]) -> list[Difference]:
    """Of each other member to the first, which is the best."""
    variances = seed_variances(members)
    pairs = [
        Pair(member, members[0], seed, variances[0])
        for member, seed in zip(members[1:], variances[1:], strict=True)
    ]
    if not pairs:
        return []
    adjusted = against_best(np.array([pair.estimate.p() for pair in pairs]))
    in_run = against_best(np.array([pair.in_run.p() for pair in pairs]))
    return [
        pair.difference(float(p), float(r))
        for pair, p, r in zip(pairs, adjusted, in_run, strict=True)
    ]


def word_for_best(differences: Sequence[Difference]) -> str:
    """What a table says of the best row, by the differences of the others to it."""
    if all(d.verdict == "worse" for d in differences):
        return "best"
    if all(d.verdict == "worse" or d.holds_in_run for d in differences):
        return "ahead in this run"
    return "best or tied"
