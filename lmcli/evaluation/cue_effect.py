"""What another cue changes in the words that a model says, as numbers and as one sentence.

**In:** the probability of each word in several texts, with the cue and with another in its place.
**Out:** a `CueEffect`: differences with paired 95 % intervals, and a verdict.

The verdict, from the means over the texts:

==========  ====================================================================================
decides     another word is the likeliest with the other cue; both words change by >= 0.25, to at
            most half of their probability
difference  the word that changes most does so by more than its interval, by >= 0.1
small       the same, by less than 0.1
none        no word changes by 0.01, and every interval lies within +- 0.05
unclear     anything else: the texts differ too much
==========  ====================================================================================

The intervals of the verdict are wider than the 95 % intervals shown: the word that changes most is
one of many (Bonferroni). One text has no interval, and its changes are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lmcli.evaluation.statistics import Floats, half_width
from lmcli.report.result import PROBABILITY

Verdict = Literal["decides", "difference", "small", "none", "unclear"]
NO_CHANGE, SMALL_CHANGE, LARGE_CHANGE = 0.01, 0.1, 0.25
"""of a probability"""
SURE = 0.5
"""the probability from which on a model says a word"""
NARROW = 0.05
"""what the intervals of words that do not change stay below"""


def log_odds(p: Floats) -> Floats:
    """ln p / (1 - p), finite also for 0 and 1."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    odds: Floats = np.log(p) - np.log1p(-p)
    return odds


@dataclass(frozen=True)
class CueEffect:
    """Probabilities of words with a cue and with another. Shapes: (texts, words) each."""

    words: Sequence[str]
    true: Floats
    swapped: Floats

    @property
    def differences(self) -> Floats:
        """What the true cue adds to the mean probability of each word."""
        mean: Floats = (self.true - self.swapped).mean(0)
        return mean

    def half_widths(self, confidence: float = 0.95) -> Floats | None:
        """Of the intervals of the differences, paired over the texts; None for one text."""
        if len(self.true) == 1:
            return None
        return half_width(self.true - self.swapped, confidence)

    def intervals(self) -> list[tuple[float | None, float | None]]:
        """The limits of each difference."""
        half = self.half_widths()
        if half is None:
            return [(None, None)] * len(self.words)
        low, high = (np.clip(self.differences + sign * half, -1, 1) for sign in (-1, 1))
        return list(zip(low.tolist(), high.tolist(), strict=True))

    @property
    def most(self) -> int:
        """The word that changes most."""
        return int(np.abs(self.differences).argmax())

    @property
    def verdict(self) -> Verdict:
        """The first that holds of the list above."""
        change, wide = self.differences, self.half_widths(1 - 0.05 / len(self.words))
        half = np.zeros_like(change) if wide is None else wide
        before, after = (int(p.mean(0).argmax()) for p in (self.true, self.swapped))
        largest = abs(change[self.most])
        if largest < NO_CHANGE:
            return "none" if (np.abs(change) + half).max() < NARROW else "unclear"
        if largest <= half[self.most]:
            return "unclear"
        if before != after and self._flips(before, after):
            return "decides"
        return "difference" if largest >= SMALL_CHANGE else "small"

    def _flips(self, before: int, after: int) -> bool:
        """Whether each of two words is what the model says with its own cue only."""
        true, swapped = self.true.mean(0), self.swapped.mean(0)
        pairs = ((true[before], swapped[before]), (swapped[after], true[after]))
        return all(p - other >= LARGE_CHANGE and other <= p / 2 for p, other in pairs)

    def sentence(self, old: str, new: str) -> str:
        """The verdict in words."""
        before, after = (self.words[int(p.mean(0).argmax())] for p in (self.true, self.swapped))
        match self.verdict:
            case "decides":
                return f"it says {before}; with {new} instead it says {after}: the cue decides"
            case "none" if self.true.mean(0).max() >= SURE:
                said = f"it says {before}; with {new} instead it says {before} as well"
                return f"{said}: the cue makes no difference"
            case "none":
                return f"it is sure of no word, with {old} or {new}: the cue makes no difference"
            case "unclear":
                return f"the texts differ too much to say what {new} instead of {old} changes"
        most = self.most
        true, swapped = (PROBABILITY.show(p.mean(0)[most]) for p in (self.true, self.swapped))
        more = "less" if self.differences[most] > 0 else "more"
        said = f"with {new} instead {self.words[most]} is {more} likely ({swapped}, not {true})"
        if self.verdict == "small":
            return f"{said}: the cue makes a small difference"
        return f"{said}: the cue makes a difference, but does not decide"

    def candidates(self) -> list[dict[str, Any]]:
        """A row a word, as in ``cloze --json``; its limits are those of the difference."""
        odds = log_odds(self.true) - log_odds(self.swapped)
        means = (values.mean(0).tolist() for values in (self.true, self.swapped, odds))
        columns = zip(self.words, *means, self.intervals(), strict=True)
        return [
            {"text": word, "probability": p, "probability_swapped": q, "log_odds_swap": d}
            | {"low": low, "high": high}
            for word, p, q, d, (low, high) in columns
        ]
