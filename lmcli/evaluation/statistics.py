"""Intervals: of shares, of means, of differences with several sources of error; the bootstrap.

**In:** arrays: values, and for each the block of text (or the trial) it comes from.
**Out:** 95 % intervals and p-values. One seed gives the same bootstrap draws for every model, so
that differences are paired.

Wilson (1927); Student (1908) for means of few values; Satterthwaite (1946) and Welch (1947) for
sums of variances; Holm (1979) for several tests; Efron (1979). Blocks and stretches because
neighbouring words of one text are not independent (batch means: Conway 1963; Schmeiser 1982).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

REPLICATES = 1000
Interval = tuple[float, float]


def wilson(right: int, count: int) -> Interval:
    """Wilson's 95 % score interval for a share.

    >>> [round(x, 4) for x in wilson(5, 10)]
    [0.2366, 0.7634]
    """
    z = 1.959963984540054
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def student_p(t: npt.ArrayLike, degrees: npt.ArrayLike) -> Floats:
    """P(|T| >= |t|) of Student's t; degrees of freedom may be fractions, of at least 1.

    With T = sqrt(degrees) tan(angle) the density is cos(angle)^(degrees - 1), integrated here by
    Gauss's rule over the part where it is not 0.

    >>> student_p([2.0930, -12.7062], [19, 1]).round(5).tolist()
    [0.05, 0.05]
    """
    df = np.asarray(degrees, dtype=np.float64)
    root = np.sqrt(df)

    def upper_part(angle: Floats) -> Floats:
        end = np.minimum(math.pi / 2, angle + 40 / root)
        places = angle[..., None] + (end - angle)[..., None] * _NODES
        density = np.abs(np.cos(places)) ** (df[..., None] - 1)
        part: Floats = (end - angle) * (density @ _WEIGHTS)
        return part

    angle, df = np.broadcast_arrays(np.arctan(np.abs(t) / root), df)
    root = np.sqrt(df)
    share: Floats = upper_part(angle) / upper_part(np.zeros_like(angle))
    return share


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2  # on [0, 1]


def student_t(confidence: float, degrees: float) -> float:
    """How many standard errors around a mean have this confidence, for few values.

    >>> round(student_t(0.95, 19), 4)
    2.093
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        inside = student_p(math.sqrt(degrees) * math.tan(angle), degrees) > 1 - confidence
        low, high = (angle, high) if inside else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def half_width(values: Floats, confidence: float = 0.95) -> Floats:
    """Of the t interval around the mean of each column. Shapes: (N, C), N > 1 -> (C,)."""
    count = len(values)
    half: Floats = values.std(0, ddof=1) / math.sqrt(count) * student_t(confidence, count - 1)
    return half


def limits(replicates: Floats) -> Interval:
    """The middle 95 % of the replicates.

    >>> limits(np.arange(1001.0))
    (25.0, 975.0)
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


# ------------------------------------------------------------------ several sources of error

STRETCHES = 20
"""of a held-out text; so long that what a model finds hard in one says little of the next"""


def stretch_variance(values: Floats, sizes: Floats) -> Floats:
    """Variance of sum(values) / sum(sizes) over the text: a jackknife over its stretches.

    Stretches are STRETCHES runs of neighbouring blocks, or the blocks themselves where they are
    fewer; nan for one block. Shapes: (..., blocks), (blocks,) -> (...).
    """
    totals, widths = stretch_sums(values, sizes)
    count = len(widths)
    if count < 2:
        return np.full(values.shape[:-1], np.nan)
    without = (totals.sum(-1, keepdims=True) - totals) / (widths.sum() - widths)
    variance: Floats = (count - 1) * without.var(-1)
    return variance


def stretch_sums(values: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Values and sizes of each stretch. Shapes: (..., blocks), (blocks,) -> (..., C), (C,)."""
    count = min(STRETCHES, len(sizes))
    begins = np.linspace(0, len(sizes), count, endpoint=False).round().astype(np.intp)
    return np.add.reduceat(values, begins, -1), np.add.reduceat(sizes, begins)


@dataclass(frozen=True)
class Estimate:
    """Values with their standard errors and degrees of freedom."""

    value: Floats
    error: Floats
    degrees: Floats

    @classmethod
    def of(cls, value: Floats, terms: Sequence[tuple[Floats, Floats]]) -> Estimate:
        """From the variances of independent terms and their degrees (Welch, Satterthwaite)."""
        total: Floats = np.sum([v for v, _ in terms], axis=0)
        spread = np.sum([v * v / degrees for v, degrees in terms], axis=0)
        exact = spread == 0  # nothing varies: of no consequence how many degrees
        degrees = np.where(exact, 1.0, total * total / np.where(exact, 1.0, spread))
        return cls(value, np.sqrt(total), degrees)

    def p(self) -> Floats:
        """Two-sided, of a true value of 0; nan where the error is unknown."""
        size = np.abs(self.value)
        t = np.divide(size, self.error, out=np.where(size > 0, np.inf, 0.0), where=self.error != 0)
        return student_p(t, self.degrees)

    def half_width(self) -> float:
        """Of the 95 % interval of a single value."""
        return float(self.error) * student_t(0.95, float(self.degrees))


def against_best(p: Floats) -> Floats:
    """P-values of the differences to the best row, corrected for how many there are.

    Holm's step-down. The best of k rows is known from the same data, so that any pair of rows could
    have been the one that is told apart: the smallest p counts k(k - 1)/2 times, and when r rows
    have been told apart, those that are left form (k - r)(k - r - 1)/2 pairs. Shapes: (..., k - 1).

    >>> against_best(np.array([0.2, 0.001, 0.02])).round(6).tolist()
    [0.2, 0.006, 0.06]
    """
    order = np.argsort(p, axis=-1)
    left = np.arange(p.shape[-1], 0, -1) + 1  # rows
    raised = np.take_along_axis(p, order, -1) * (left * (left - 1) / 2)
    raised = np.minimum(1.0, np.maximum.accumulate(raised, axis=-1))
    adjusted = np.empty_like(raised)
    np.put_along_axis(adjusted, order, raised, -1)
    return adjusted


# ------------------------------------------------------------------ the block bootstrap


def block_counts(blocks: int, rng: np.random.Generator) -> Counts:
    """How often each block is drawn, in every replicate. Shapes: -> (REPLICATES, blocks)."""
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=REPLICATES)


def block_weights(blocks: npt.NDArray[np.int64], seed: int) -> Counts:
    """How often each value is drawn when whole blocks are. Shapes: (N,) -> (REPLICATES, N)."""
    _, number = np.unique(blocks, return_inverse=True)
    weights: Counts = block_counts(int(number.max()) + 1, np.random.default_rng(seed))[:, number]
    return weights


def paired_rates(a: Floats, b: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Replicates of sum(values) / sum(sizes) for two models; blocks are drawn once for both.

    Shapes: (blocks,) each -> (REPLICATES,) each.
    """
    counts = block_counts(len(sizes), np.random.default_rng(0))
    total = counts @ sizes
    return counts @ a / total, counts @ b / total


def weighted_means(values: Floats, weights: npt.NDArray[Any]) -> Floats:
    """Mean of every replicate, nan where nothing was drawn. Shapes: (N,), (R, N) -> (R,)."""
    total = weights.sum(1)
    means: Floats = np.divide(
        weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0
    )
    return means


def weighted_medians(values: Floats, weights: npt.NDArray[Any]) -> Floats:
    """Lower median of every replicate, nan where none is drawn. Shapes: (N,), (R, N) -> (R,)."""
    order = np.argsort(values)
    reached = weights[:, order].cumsum(1)  # (R, N)
    total = reached[:, -1:]
    place = (2 * reached >= total).argmax(1)
    medians: Floats = np.where(total[:, 0] > 0, values[order][place], np.nan)
    return medians
