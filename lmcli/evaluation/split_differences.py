"""Differences between rows whose seeds were trained and tested on different splits of a text.

**In:** for each row the `Member` of each split: its seeds, as tested on that split's test part.
**Out:** the `Difference` of each row to the best.

Where each seed holds out other blocks of the text, one number a seed carries the luck of training,
of what was trained on and of what was tested on, all at once, and the differences of two rows are
paired by split: a t interval over splits (Student 1908; k-fold in place of resampling: Dietterich
1998, Bouthillier et al. 2021). Two or three differences say little of their variance. Where there
are three rows or more, each variance is therefore taken together with the middle one of all pairs
of rows (moderated t: Smyth 2004), unless it is far above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmcli.evaluation.differences import (
    NEGLIGIBLE,
    Difference,
    Member,
    Pair,
    differences_to_best,
    seed_variances,
)
from lmcli.evaluation.statistics import (
    STRETCHES,
    Estimate,
    Floats,
    against_best,
    stretch_variance,
)

PRIOR_DEGREES = 3
"""degrees of freedom that the middle variance counts for, at the most"""
FAR_ABOVE = 2.5
"""a variance this many times the middle one is not averaged with it"""

Splits = Mapping[int, Member]
"""a row: its seeds on the test part of each split, by the number of the rotation"""


# ------------------------------------------------------------------ paired t, moderated


def paired_estimates(rates: Floats) -> Estimate:
    """Of each row but the first, the difference to the first.

    `rates` are bits per character of each row on each of two splits or more. Shapes:
    (..., rows, splits) -> (..., rows - 1).
    """
    apart = rates[..., 1:, :] - rates[..., :1, :]
    own = apart.var(-1, ddof=1)
    count, rows = apart.shape[-1], rates.shape[-2]
    df = count - 1
    degrees = np.full_like(own, df)
    if rows > 2:
        i, j = np.triu_indices(rows, 1)
        pairs = (rates[..., i, :] - rates[..., j, :]).var(-1, ddof=1)
        middle = (np.median(pairs, -1) / chi_square_median(df))[..., None]
        prior = min(PRIOR_DEGREES, (rows - 2) * df)
        alike = own <= FAR_ABOVE * middle
        own = np.where(alike, (prior * middle + df * own) / (prior + df), own)
        degrees = np.where(alike, prior + df, degrees)
    return Estimate(apart.mean(-1), np.sqrt(own / count), degrees)


def chi_square_median(degrees: int) -> float:
    """The median of a variance of normal values whose expectation is 1 (Wilson and Hilferty 1931).

    >>> round(chi_square_median(2), 2), round(chi_square_median(4), 3)
    (0.7, 0.842)
    """
    return (1 - 2 / (9 * degrees)) ** 3


@dataclass(frozen=True)
class PairedSplits:
    """Two rows on splits that both were tested on, and the difference."""

    a: Sequence[Member]
    b: Sequence[Member]
    estimate: Estimate

    @property
    def in_run(self) -> Estimate:
        """For these trainings: without what another training or another split would change."""
        pairs = list(zip(self.a, self.b, strict=True))
        values = [a.mean - b.mean for a, b in pairs]
        variances = [stretch_variance(a.bits.mean(-2) - b.bits.mean(-2), a.chars) for a, b in pairs]
        degrees = [max(1, min(STRETCHES, len(a.chars)) - 1) for a, _ in pairs]
        terms = [
            (variance / len(pairs) ** 2, np.array(float(df)))
            for variance, df in zip(variances, degrees, strict=True)
        ]
        return Estimate.of(np.mean(values, axis=0), terms)

    def difference(self, p_holm: float, run_p_holm: float) -> Difference:
        """With its intervals; the p-values are corrected for those of other pairs."""
        value, half = float(self.estimate.value), self.estimate.half_width()
        run, run_half = self.in_run, self.in_run.half_width()
        best = float(np.mean([member.mean for member in self.b]))
        return Difference(
            a=self.a[0].name,
            b=self.b[0].name,
            bits_per_char=value,
            low=value - half,
            high=value + half,
            p=float(self.estimate.p()),
            p_holm=p_holm,
            scope="architecture",
            run_low=value - run_half,
            run_high=value + run_half,
            run_p_holm=run_p_holm,
            seed_deviation=float(self.estimate.error) * math.sqrt(len(self.a) / 2),
            text_error=float(run.error),
            seed_errors=None,
            degrees=float(self.estimate.degrees),
            is_negligible=abs(value) < NEGLIGIBLE * best,
            paired_splits=len(self.a),
        )


# ------------------------------------------------------------------ rows of a comparison


def splits_error(row: Splits) -> float:
    """Standard error of a row's mean: by text and seeds, over its splits if there are several."""
    if len(row) == 1:
        return next(iter(row.values())).error()
    rates = np.array([float(member.mean) for member in row.values()])
    return float(rates.std(ddof=1)) / math.sqrt(len(rates))


def differences_over_splits(rows: Sequence[Splits]) -> list[Difference]:
    """Of each other row to the first, which is the best; nan where no split is common to both.

    Rows that share two splits or more with the best are paired over those that all of them share;
    the others are compared on one split.
    """
    splits = {split for row in rows for split in row}
    if len(splits) == 1:
        return differences_to_best([member for row in rows for member in row.values()])
    if len(rows) < 2:
        return []
    pairs = _paired(rows)
    ordered = [pairs.get(i) or _on_one_split(rows, i) for i in range(1, len(rows))]
    adjusted = against_best(np.array([_p(pair.estimate) for pair in ordered]))
    in_run = against_best(np.array([_p(pair.in_run) for pair in ordered]))
    return [
        pair.difference(float(p), float(r))
        for pair, p, r in zip(ordered, adjusted, in_run, strict=True)
    ]


def _p(estimate: Estimate) -> float:
    """A p-value that can be put in order; 1 where nothing is known."""
    p = float(estimate.p())
    return 1.0 if math.isnan(p) else p


def _paired(rows: Sequence[Splits]) -> dict[int, PairedSplits]:
    """The pairs with the best over common splits, by the number of the other row."""
    best = rows[0]
    several = [i for i, row in enumerate(rows) if i and len(row.keys() & best.keys()) > 1]
    common = sorted(set(best).intersection(*(rows[i] for i in several)))
    if not several or len(common) < 2:
        return {}
    members = [[rows[i][split] for split in common] for i in (0, *several)]
    both = paired_estimates(np.array([[float(m.mean) for m in row] for row in members]))
    return {
        i: PairedSplits(row, members[0], Estimate(both.value[n], both.error[n], both.degrees[n]))
        for n, (i, row) in enumerate(zip(several, members[1:], strict=True))
    }


def _on_one_split(rows: Sequence[Splits], i: int) -> Pair:
    """A row and the best on the split where most of their seeds are."""
    row, best = rows[i], rows[0]
    common = row.keys() & best.keys()
    if not common:  # the held-out blocks of one are not those of the other
        a, b = (_without_blocks(next(iter(members.values()))) for members in (row, best))
        return Pair(a, b, *seed_variances([a, b]))
    split = max(sorted(common), key=lambda s: min(row[s].seeds, best[s].seeds))
    present = [other[split] for other in rows if split in other]
    variances = dict(zip(map(id, present), seed_variances(present), strict=True))
    a, b = row[split], best[split]
    return Pair(a, b, variances[id(a)], variances[id(b)])


def _without_blocks(member: Member) -> Member:
    """The same in one block, which gives no error by the text."""
    bits, chars = member.bits.sum(-1, keepdims=True), member.chars.sum(keepdims=True)
    return Member(member.name, bits, chars, member.is_count_based)
