"""Units that tell where a pattern matches: found on one half of a text, scored on the other.

**In:** `Activations`, a regular expression.
**Out:** the units that tell whether a token lies inside a match, and what such a search finds by
chance.

Karpathy, Johnson and Li (2015), "Visualizing and understanding recurrent networks", found cells
that count quotes by looking; `correlate` looks for them by number, and scores them on text that had
no part in the choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.errors import TextError, UsageError
from lmcli.evaluation.activations import Activations, Values
from lmcli.evaluation.statistics import Floats

Flags = npt.NDArray[np.bool_]

LEAST = 10
"""tokens inside and outside the matches that each half of a text needs"""
SHIFTS = 19
"""the best of 19 chance scores is beaten by chance once in 20 times"""


@dataclass(frozen=True)
class UnitClassifier:
    """A unit that tells inside from outside by a threshold found on the first half of the text.

    Scores are balanced accuracies, the mean of the shares right inside and right outside.
    """

    gate: str
    unit: int
    above: bool
    """whether inside means above the threshold, or below"""
    threshold: float
    fit: float
    """on the first half, where unit and threshold were chosen: never to be reported alone"""
    score: float
    """on the second half"""
    auc: float
    """on the second half: how often a token inside ranks before one outside, ties count half"""


@dataclass(frozen=True)
class Correlation:
    """The best units for a pattern, and what such a search finds by chance."""

    regex: str
    tokens: int
    """in the second half, on which all are scored"""
    inside: int
    candidates: int
    """units searched"""
    units: list[UnitClassifier]
    shifted: float
    """permutation baseline: the highest score of the best unit over 19 searches with the matches
    shifted along the text"""
    chance: float = 0.5


def correlate(
    read: Activations, regex: str, gates: Sequence[str], count: int, seed: int = 0
) -> Correlation:
    """The units that best tell whether a token ends inside a match, best first.

    Unit, side and threshold are chosen on the first half of the text alone, by balanced accuracy.
    """
    inside = within(read, regex)
    half = len(inside) // 2
    _check_both(regex, inside, half)
    rng, best = np.random.default_rng(seed), list[UnitClassifier]()
    moves = [rng.integers(half // 10, half - half // 10, 2).tolist() for _ in range(SHIFTS)]
    baseline = [(0.0, 0.0)] * SHIFTS  # fit and score of the best unit for shifted matches
    for gate in gates:
        search = _Search(gate, read.values[gate], half)
        best += search.best(inside, count)
        for i, (a, b) in enumerate(moves):
            shifted = np.concatenate([np.roll(inside[:half], a), np.roll(inside[half:], b)])
            chance = search.best(shifted, 1)[0]
            baseline[i] = max(baseline[i], (chance.fit, chance.score))
    best = sorted(best, key=lambda t: -t.fit)[:count]
    searched = sum(read.values[gate].shape[1] for gate in gates)
    rest, highest = inside[half:], max(score for _, score in baseline)
    return Correlation(regex, len(rest), int(rest.sum()), searched, best, highest)


def within(read: Activations, regex: str) -> Flags:
    """Whether the last character of each token lies inside a match. Shapes: -> (T,)."""
    try:
        pattern = re.compile(regex)
    except re.error as error:
        problem = f"--correlate {regex}: no regular expression ({error})"
        raise UsageError(problem, 'for example --correlate \'"[^"]*"\'') from None
    covered = np.zeros(len(read.text), np.bool_)
    for match in pattern.finditer(read.text):
        covered[match.start() : match.end()] = True
    begins, ends = np.array(read.spans).T
    # a byte within a character adds nothing to the text: it counts to the character it spells
    inside: Flags = covered[np.minimum(np.maximum(begins, ends - 1), len(covered) - 1)]
    return inside


def _check_both(regex: str, inside: Flags, half: int) -> None:
    for name, part in (("first", inside[:half]), ("second", inside[half:])):
        count = int(part.sum())
        if min(count, len(part) - count) < LEAST:
            raise TextError(
                f"'{regex}' matches {count} of {len(part)} tokens in the {name} half of the text",
                f"{LEAST} inside and {LEAST} outside are needed: give a longer text",
            )


class _Search:
    """All units of a gate, sorted once, to be searched with many labellings."""

    def __init__(self, gate: str, values: Values, half: int) -> None:
        self.gate = gate
        self.first, self.second = values[:half], values[half:]
        self.order = self.first.argsort(0)  # (half, H)
        self.sorted = np.take_along_axis(self.first, self.order, 0)
        self.tied = self.sorted[:-1] == self.sorted[1:]

    def best(self, inside: Flags, count: int) -> list[UnitClassifier]:
        """The units with the best fit on the first half, scored on the second."""
        half = len(self.first)
        labels, total = inside[:half], int(inside[:half].sum())
        below = np.cumsum(labels[self.order], axis=0, dtype=np.int32)[:-1]  # inside, at or below
        outside = np.arange(1, half)[:, None] - below
        gain = outside / (half - total) - below / total  # (half - 1, H): 1 if above is inside
        gain[self.tied] = 0.0
        cut, fits = np.abs(gain).argmax(0), (1 + np.abs(gain).max(0)) / 2
        chosen = np.argsort(-fits, kind="stable")[:count].tolist()
        return [
            self._scored(u, cut[u], gain[cut[u], u] > 0, fits[u], inside[half:]) for u in chosen
        ]

    def _scored(self, unit: int, cut: Any, above: Any, fit: Any, inside: Flags) -> UnitClassifier:
        low, high = self.sorted[cut : cut + 2, unit].astype(np.float64).tolist()
        threshold, values = (low + high) / 2, self.second[:, unit].astype(np.float64)
        right = ((values > threshold) == above) == inside
        score = (right[inside].mean() + right[~inside].mean()) / 2
        area = auc(values if above else -values, inside)
        return UnitClassifier(
            self.gate, unit, bool(above), threshold, float(fit), float(score), area
        )


def auc(values: Floats, inside: Flags) -> float:
    """The share of pairs, one inside and one outside, in which the inside has the larger value.

    >>> auc(np.array([1.0, 2.0, 3.0, 3.0]), np.array([False, True, False, True]))
    0.625
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places.reshape(-1)]
    ours = int(inside.sum())
    won = ranks[inside].sum() - ours * (ours + 1) / 2
    return float(won / (ours * (len(values) - ours)))
