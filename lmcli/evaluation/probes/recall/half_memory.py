"""Half-memory: the largest gap up to which a model keeps at least half of its skill.

**In:** right answers by gap, of one run or of several seeds.
**Out:** a `HalfMemory` with a 95 % interval by bootstrap over the items within each seed.

Skill is (accuracy - chance) / (1 - chance). Unlike the largest gap at which more than chance is
detectable, it does not grow with the number of items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.statistics import REPLICATES

HALF = 0.5


@dataclass(frozen=True)
class HalfMemory:
    """Gaps; None where not even the smallest is known."""

    gap: int | None
    low: int | None
    high: int | None
    at_least: bool
    """whether the skill is still there at the largest gap"""

    @classmethod
    def of(
        cls,
        gaps: Sequence[int],
        right: npt.ArrayLike,
        counts: Sequence[int],
        chances: Sequence[float],
        seed: int = 0,
    ) -> HalfMemory:
        """From right answers out of `counts` at ascending gaps. Shapes: right (seeds, gaps).

        >>> HalfMemory.of([3, 10, 100], [[200, 150, 20]], [200] * 3, [1 / 16] * 3)
        HalfMemory(gap=10, low=10, high=10, at_least=False)
        """
        total, chance = np.asarray(counts), np.asarray(chances)
        shares = np.asarray(right) / total  # (seeds, gaps)
        size = (REPLICATES, *shares.shape)
        # items drawn anew with replacement are right as often as a binomial says
        drawn = np.random.default_rng(seed).binomial(total, shares, size=size) / total
        both = np.concatenate([shares[None], drawn]).mean(1)  # (1 + REPLICATES, gaps)
        known = (both - chance) / (1 - chance) >= HALF
        reached = known.cumprod(1).sum(1)
        limits = np.percentile(reached[1:], [2.5, 97.5], method="inverted_cdf")
        numbers = [int(reached[0]), *map(int, limits)]
        gap, low, high = (gaps[n - 1] if n else None for n in numbers)
        return cls(gap, low, high, numbers[0] == len(gaps))

    def to_json(self) -> dict[str, int | bool | None]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        """Such as "200 (100 to 400)"."""
        if self.gap is None:
            return "none shown"
        low = "none" if self.low is None else f"{self.low:,}"
        interval = f" ({low} to {self.high:,})" if self.low != self.high else ""
        return f"{self.gap:,}{' or more' * self.at_least}{interval}"
