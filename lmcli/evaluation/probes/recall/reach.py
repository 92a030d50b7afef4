"""How far back memory shows: items with their scores -> figures by gap, intervals, a reach.

**In:** an `Evidence`: for every item its gap, its stretch of the held-out text, its scores.
**Out:** `Bucket`s of gaps, the figures of each (`measure`), and the reach.

A reach of R says: at some gap of at least R tokens memory shows. Buckets end at powers of two. One
with fewer items than are needed is tested together with the next farther one; the reach is the
*smallest* gap of the last bucket in the unbroken run of those in which it shows, so that joining
buckets never adds to it. What is left over at the far end is not measured, and not drawn.
Intervals are t intervals from a jackknife over stretches of text, at least eight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.probes.base import Rows, bucket_bound, leading_run
from lmcli.evaluation.statistics import (
    STRETCHES,
    Floats,
    Interval,
    stretch_variance,
    student_t,
    wilson,
)

SMALLEST = 8
"""upper bound of the first bucket"""
LEAST_STRETCHES = 8
"""with items; from fewer no interval is given"""
LEAST_STRETCH = 1000
"""characters of a stretch"""
USABLE = 0.1
"""nats of log-odds that count as a memory of use"""


@dataclass(frozen=True)
class Evidence:
    """What items have shown, an entry each. Shapes: (N,) each."""

    gaps: npt.NDArray[np.int64]
    """in tokens"""
    stretch: npt.NDArray[np.int64]
    """of the held-out text, that the target is in"""
    balanced: npt.NDArray[np.bool_]
    """whether the foils are fair rivals: only then forced choice and u have a known chance"""
    right: Floats
    """1 where the target beats all foils"""
    amnesic_right: Floats
    u: Floats
    """ln of the target's probability among the words"""
    gain: Floats
    """u less that with a foreign state after the cue"""
    log_odds: Floats
    """D: what the true cue adds to the odds of target against swapped word"""
    placebo: Floats
    """the same for another word near the cue; nan without one"""
    words: npt.NDArray[np.int64]
    """strictly between cue and target"""
    echo: npt.NDArray[np.bool_]

    def __getitem__(self, items: Any) -> Evidence:
        """Some of the items."""
        return Evidence(**{f.name: getattr(self, f.name)[items] for f in fields(self)})


def stretches(places: npt.NDArray[np.int64], chars: int) -> npt.NDArray[np.int64]:
    """The stretch that each place is in: 20 of equal length, fewer in a short text."""
    count = max(1, min(STRETCHES, chars // LEAST_STRETCH))
    return places * count // max(1, chars)


# ------------------------------------------------------------------ buckets


@dataclass(frozen=True)
class Bucket:
    """Items whose gaps are from `low` to `high` tokens."""

    low: int
    high: int
    items: npt.NDArray[np.int64]
    enough: bool = True
    """whether they are enough to be tested"""


def buckets_of(gaps: npt.NDArray[np.int64], fewest: int) -> list[Bucket]:
    """Powers of two, one with too few items joined to the next; last what is left over."""
    edges = np.array([bucket_bound(max(SMALLEST, int(g))) for g in gaps])
    buckets: list[Bucket] = []
    low, waiting = 1, np.empty(0, np.int64)
    for high in sorted(set(edges.tolist())):
        waiting = np.concatenate([waiting, np.flatnonzero(edges == high)])
        if len(waiting) >= fewest:
            buckets.append(Bucket(low, high, waiting))
            low, waiting = high + 1, np.empty(0, np.int64)
    rest = [Bucket(low, int(edges.max()), waiting, enough=False)] if len(waiting) else []
    return buckets + rest


# ------------------------------------------------------------------ figures and intervals


def stretch_mean(values: Floats, stretch: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean and half of its 95 % interval, nan where the stretches are too few."""
    _, number = np.unique(stretch, return_inverse=True)
    sizes = np.bincount(number).astype(np.float64)
    if len(sizes) < LEAST_STRETCHES:
        return float(values.mean()) if len(values) else math.nan, math.nan
    variance = float(stretch_variance(np.bincount(number, values).astype(np.float64), sizes))
    degrees = min(STRETCHES, len(sizes)) - 1
    return float(values.mean()), math.sqrt(variance) * _deviations(degrees)


@cache
def _deviations(degrees: int) -> float:
    return student_t(0.95, degrees)


def share_interval(values: Floats, stretch: npt.NDArray[np.int64]) -> tuple[float, Interval | None]:
    """A share of 0 or 1 values, and Wilson's interval for as many items as they are worth.

    Items of one stretch may be alike, which makes them worth fewer (Kish 1965: design effect).
    """
    mean, half = stretch_mean(values, stretch)
    if not math.isfinite(half):
        return mean, None
    degrees = min(STRETCHES, len(np.unique(stretch))) - 1
    variance = (half / _deviations(degrees)) ** 2
    effect = max(1.0, variance * len(values) / (mean * (1 - mean))) if 0 < mean < 1 else 1.0
    return mean, wilson(mean * len(values) / effect, len(values) / effect)


def _with_limits(name: str, mean: float, half: float) -> dict[str, float | None]:
    """The keys of a mean and of its limits; None for what is not known."""
    values = {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    known = {key: value if math.isfinite(value) else None for key, value in values.items()}
    return known | {f"{name}_half": half if math.isfinite(half) else None}


def measure(e: Evidence, bucket: Bucket, chance: float) -> dict[str, Any]:
    """The figures of the items of a bucket, as a row without its run."""
    e = e[bucket.items]
    fair = e[e.balanced]
    row: dict[str, Any] = {"gap": bucket.high, "gap_from": bucket.low, "chance": chance}
    row |= {"value": None, "low": None, "high": None, "count": len(fair.gaps)}
    row |= {"amnesic": None, "retained": None}
    if row["count"]:
        row["value"], interval = share_interval(fair.right, fair.stretch)
        row["low"], row["high"] = interval or (None, None)
        row["amnesic"] = float(fair.amnesic_right.mean())
        nothing = -math.log(chance)
        row |= _with_limits("retained", *stretch_mean(1 + fair.u / nothing, fair.stretch))
    flips = np.where(e.log_odds == 0, 0.5, e.log_odds > 0)
    row |= _with_limits("gain", *stretch_mean(e.gain, e.stretch))
    row |= _with_limits("log_odds", *stretch_mean(e.log_odds, e.stretch))
    row |= _with_limits("flip", *stretch_mean(flips, e.stretch)) | {"flip_chance": 0.5}
    row |= {"flip_rate": row.pop("flip"), "median_log_odds": float(np.median(e.log_odds))}
    row |= {"usable": float((e.log_odds > USABLE).mean()), "swaps": len(e.gaps)}
    row |= {"words": float(np.median(e.words)), "echo": float(e.echo.mean())}
    row |= {"shortest": int(e.gaps.min()), "longest": int(e.gaps.max())}
    row["stretches"] = len(np.unique(e.stretch))
    return row | {"measured": bucket.enough and row["stretches"] >= LEAST_STRETCHES}


def measure_placebo(e: Evidence) -> dict[str, Any]:
    """The row of the placebo: D of a word that is not the cue, over all items."""
    e = e[~np.isnan(e.placebo)]
    if len(e.gaps) == 0:
        return {}
    row: dict[str, Any] = {"gap": int(e.gaps.max()), "gap_from": int(e.gaps.min())}
    flips = np.where(e.placebo == 0, 0.5, e.placebo > 0)
    row |= _with_limits("log_odds", *stretch_mean(e.placebo, e.stretch))
    row |= dict.fromkeys(("value", "low", "high", "chance"))
    row |= {"flip_rate": float(flips.mean()), "median_log_odds": float(np.median(e.placebo))}
    return row | {"count": 0, "swaps": len(e.gaps)}


# ------------------------------------------------------------------ the reach


def reach_of(rows: Rows) -> dict[str, Any]:
    """How far back a run remembers, from its rows, the nearest first.

    {"tokens": R, "at_least": whether every bucket shows memory}; R is 0 where the first does not,
    and None where none can be measured.
    """
    tested = [row for row in rows if row["measured"]]
    if not tested:
        return {"tokens": None, "at_least": False}
    near, in_all = leading_run(tested, _shows)
    return {"tokens": near[-1]["shortest"] if near else 0, "at_least": bool(near) and in_all}


def _shows(row: Mapping[str, Any]) -> bool:
    return bool(row["gain_low"] > 0 and row["log_odds_low"] > 0)
