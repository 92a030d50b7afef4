"""Intervals: of shares, and by bootstrap over blocks of text, which are the independent units.

**In:** arrays: values, and for each the block of text (or the trial) it comes from.
**Out:** 95 % intervals, from 1,000 bootstrap replicates; one seed gives the same draws for every
model, so that differences are paired.

Wilson (1927); Student (1908) for means of few values; Efron (1979); blocks because neighbouring
words of one text are not independent.
"""

from __future__ import annotations

import math
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


def student_t(confidence: float, degrees: int) -> float:
    """How many standard errors around a mean have this confidence, for few values.

    P(|T| <= t) has a closed form in the angle atan(t / sqrt(degrees)), solved here by bisection:
    Abramowitz and Stegun (1964), 26.7.3 and 26.7.4.

    >>> round(student_t(0.95, 19), 4)
    2.093
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        cosine = math.cos(angle)
        term = series = cosine if degrees % 2 else 1.0
        for k in range(2 + degrees % 2, degrees, 2):
            term *= (k - 1) / k * cosine * cosine
            series += term
        share = math.sin(angle) * series
        if degrees % 2:
            share = 2 / math.pi * (angle + (share if degrees > 1 else 0.0))
        low, high = (angle, high) if share < confidence else (low, angle)
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


# ------------------------------------------------------------------ the block bootstrap


def block_counts(blocks: int, rng: np.random.Generator) -> Counts:
    """How often each block is drawn, in every replicate. Shapes: -> (REPLICATES, blocks)."""
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=REPLICATES)


def block_weights(blocks: npt.NDArray[np.int64], seed: int) -> Counts:
    """How often each value is drawn when whole blocks are. Shapes: (N,) -> (REPLICATES, N)."""
    _, number = np.unique(blocks, return_inverse=True)
    weights: Counts = block_counts(int(number.max()) + 1, np.random.default_rng(seed))[:, number]
    return weights


def resampled_rates(values: Floats, sizes: Floats) -> Floats:
    """Replicates of sum(values) / sum(sizes), a value and a size a block. Shapes: -> (R,)."""
    counts = block_counts(len(values), np.random.default_rng(0))
    rates: Floats = (counts @ values) / (counts @ sizes)
    return rates


def paired_rates(a: Floats, b: Floats, sizes: Floats) -> tuple[Floats, Floats]:
    """Replicates of the mean over seeds of sum(values) / sum(sizes), for two models.

    Blocks are drawn once for both; seeds are drawn for each, where it has several.
    Shapes: a (seeds, blocks), b (seeds, blocks), sizes (blocks,) -> (R,) each.
    """
    rng = np.random.default_rng(0)
    counts = block_counts(len(sizes), rng)

    def rates(values: Floats) -> Floats:
        totals = counts @ values.T  # (R, seeds)
        seeds = rng.integers(len(values), size=(REPLICATES, len(values)))
        mean: Floats = np.take_along_axis(totals, seeds, axis=1).mean(axis=1)
        return mean / (counts @ sizes)

    return rates(a), rates(b)


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
