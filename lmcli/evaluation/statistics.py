"""Intervals that take the text's blocks, not its tokens, for the independent units.

**In:** values, and for each the block of text (or the trial) it comes from.
**Out:** 95 % intervals from 1,000 bootstrap replicates; the same draws for every model, so that
differences are paired.

Efron (1979); blocks because neighbouring words of one text are not independent.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

REPLICATES = 1000
Interval = tuple[float, float]


def block_weights(blocks: Places, seed: int) -> npt.NDArray[np.int64]:
    """How often each value is drawn when whole blocks are, in every replicate.

    Shapes: (N,) -> (REPLICATES, N).
    """
    _, number = np.unique(blocks, return_inverse=True)
    count = int(number.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=REPLICATES)
    weights: npt.NDArray[np.int64] = drawn[:, number]
    return weights


def weighted_means(values: Floats, weights: npt.NDArray[Any]) -> Floats:
    """The mean of every replicate; nan where nothing was drawn.

    Shapes: (N,), (R, N) -> (R,).
    """
    total = weights.sum(1)
    means: Floats = np.divide(
        weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0
    )
    return means


def weighted_medians(values: Floats, weights: npt.NDArray[Any]) -> Floats:
    """The lower median of every replicate; nan where nothing was drawn.

    Shapes: (N,), (R, N) -> (R,).
    """
    order = np.argsort(values)
    reached = weights[:, order].cumsum(1)  # (R, N)
    total = reached[:, -1:]
    place = (2 * reached >= total).argmax(1)
    medians: Floats = np.where(total[:, 0] > 0, values[order][place], np.nan)
    return medians


def limits(replicates: Floats) -> Interval:
    """The middle 95 % of the replicates.

    >>> limits(np.arange(1001.0))
    (25.0, 975.0)
    """
    known = replicates[np.isfinite(replicates)]
    if len(known) == 0:
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
