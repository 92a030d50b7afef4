"""What two characters d apart tell of each other: mutual information without its bias.

**In:** documents in few symbols.
**Out:** by distance d: I(X_t; X_(t+d)) in nats minus the mean of 20 circular shifts, its interval,
and how far the shifts themselves reach above their mean.

I is the plug-in estimate from counts of pairs. It is above 0 even for independent symbols, by about
(V - 1)^2 / 2N; a text shifted against itself by at least an eighth of its length has the same bias
and no memory. Intervals: jackknife over 20 stretches. Cover and Thomas (2006); Ebeling and Pöschel
(1994); Quenouille (1956).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.state_batches import Ids
from lmcli.evaluation.statistics import Floats, student_t

SHIFTS = 20
STRETCHES = 20


def information(pairs: npt.NDArray[Any]) -> float:
    """I in nats from counts of pairs. Shapes: (V, V).

    >>> round(information(np.eye(16)), 4) == round(math.log(16), 4)
    True
    """
    p = pairs / max(1, pairs.sum())
    apart = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    there = p > 0
    return float((p[there] * np.log(p[there] / apart[there])).sum())


def pair_counts(a: Ids, b: Ids, width: int, stretches: int = 1) -> npt.NDArray[np.int64]:
    """How often each pair stands in each stretch. Shapes: (N,), (N,) -> (stretches, V, V)."""
    stretch = np.arange(len(a)) * stretches // max(1, len(a))
    keys = (stretch * width + a) * width + b
    counts = np.bincount(keys, minlength=stretches * width * width)
    return counts.reshape(stretches, width, width)


def shifted(a: Ids, b: Ids, width: int, seed: int = 0) -> Floats:
    """I of a and b shifted against each other. Shapes: (N,), (N,) -> (SHIFTS,)."""
    least = max(1, len(a) // 8)
    draws = np.random.default_rng(seed).integers(least, len(a) - least + 1, size=SHIFTS)
    return np.array([information(pair_counts(a, np.roll(b, d), width)[0]) for d in draws])


def by_distance(
    documents: Sequence[Ids], width: int, lags: Sequence[int], seed: int = 0
) -> list[dict[str, Any]]:
    """{"lag", "value", "low", "high", "chance", "count"} of each lag that documents are as long as.

    The documents begin with a start id. `chance` is the 97.5 % limit of the shifts above their
    mean.
    """
    stream = np.concatenate([d[1:] for d in documents]).astype(np.int64)
    number = np.repeat(np.arange(len(documents)), [len(d) - 1 for d in documents])
    null = shifted(stream, stream, width, seed)
    rows = []
    for lag in lags:
        near = np.flatnonzero(number[:-lag] == number[lag:])
        if len(near) < STRETCHES:
            break
        counts = pair_counts(stream[near], stream[near + lag], width, STRETCHES)
        total = counts.sum(0)
        raw = information(total)
        without = np.array([information(total - one) for one in counts])
        error = math.sqrt((STRETCHES - 1) * without.var()) * student_t(0.95, STRETCHES - 1)
        # the bias of I goes with 1 / N
        bias = float(null.mean()) * len(stream) / len(near)
        limit = float(np.quantile(null, 0.975)) * len(stream) / len(near)
        row = {"lag": lag, "value": raw - bias, "low": raw - bias - error}
        row |= {"high": raw - bias + error, "chance": limit - bias, "count": len(near)}
        rows.append(row)
    return rows
