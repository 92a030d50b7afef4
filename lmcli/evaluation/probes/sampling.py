"""Which tokens of a text a probe looks at, and the mean over them with its interval.

**In:** documents as ids, a generator; values of tokens and the stretch of text each comes from.
**Out:** `Targets`; a `Mean` whose 95 % limits come from drawing whole stretches again (Efron 1979).

Stretches because what a model finds hard in one place it finds hard next to it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.state_batches import Ids
from lmcli.evaluation.statistics import Counts, Floats, block_counts, limits

Places = npt.NDArray[np.int64]

NOISE = 2e-5
"""nats; differences below are those of float32 sums taken in another order, and count as none"""
STRETCH = 1024
"""tokens drawn together, at the most"""
STRETCHES = 20
"""into which a shorter text is cut"""
SLICE = 8192
"""characters of a part of a text that is drawn at random, at the most"""
FEWEST_STRETCHES = 8
"""with fewer, what lies between them says too little for an interval"""
TENTH = 0.1
"""of the text, which documents must hold for what is measured over their length"""


def zero_noise(values: Floats) -> Floats:
    """The same with 0 for differences that come from rounding."""
    exact: Floats = np.where(np.abs(values) < NOISE, 0.0, values)
    return exact


def powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`.

    >>> powers(9)
    [1, 2, 4, 8]
    """
    return [1 << k for k in range(most.bit_length())]


@dataclass(frozen=True)
class Targets:
    """Tokens to be predicted. Shapes: (N,) each."""

    document: Places
    place: Places
    """in the document; 0 is the start id"""
    stretch: Places

    def __len__(self) -> int:
        return len(self.place)


def draw_targets(
    streams: Sequence[Ids], count: int, rng: np.random.Generator, before: int = 1
) -> Targets:
    """Random tokens that have `before` others before them in their document, in their order.

    The documents begin with a start id. As many targets as there are, if they are fewer.
    """
    sizes = np.array([max(0, len(s) - 1 - before) for s in streams])
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    drawn = np.sort(rng.choice(total, min(count, total), replace=False))
    document = np.searchsorted(ends, drawn, "right")
    place = drawn - (ends - sizes)[document] + 1 + before
    return Targets(document, place, stretches(drawn, total))


def longest_span(streams: Sequence[Ids], most: int) -> int:
    """The length, up to `most`, that the documents with a tenth of all tokens have or exceed.

    >>> longest_span([np.arange(9), np.arange(90), np.arange(300)], 1000)
    300
    >>> longest_span([np.arange(9)] * 99 + [np.arange(90)], 1000)
    9
    """
    sizes = np.sort([len(s) for s in streams])[::-1]
    if len(sizes) == 0:
        return 0
    enough = int(np.searchsorted(np.cumsum(sizes), TENTH * sizes.sum()))
    return min(most, int(sizes[enough]))


def stretches(places: Places, total: int, least: int = 1) -> Places:
    """The number of the stretch that each place of a text of `total` tokens is in.

    >>> stretches(np.array([0, 99, 100, 1999]), 2000).tolist()
    [0, 0, 1, 19]
    """
    numbers: Places = places // max(least, min(STRETCH, total // STRETCHES))
    return numbers


def random_slices(texts: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Parts of at most SLICE characters in random order; they begin after a blank."""
    places = [(k, b) for k, text in enumerate(texts) for b in range(0, len(text), SLICE)]
    for number in rng.permutation(len(places)).tolist():
        k, begin = places[number]
        part = texts[k][begin : begin + SLICE]
        yield part[part.find(" ") + 1 :] if begin else part


@functools.lru_cache(maxsize=8)
def draw_blocks(blocks: int, seed: int) -> Counts:
    """How often each block is drawn, in every replicate. Shapes: -> (REPLICATES, blocks)."""
    return block_counts(blocks, np.random.default_rng(seed))


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % limits; nan where there is nothing."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Floats, blocks: Places, seed: int) -> Mean:
        """Of the finite values; those of a block are drawn together.

        Shapes: values (N,) or (N, C), blocks like the values or (N,). One seed draws the same
        blocks each time, so the limits of a difference are paired.
        """
        sums, counts = _sums(values, blocks)
        if counts.sum() == 0:
            return cls(float("nan"), float("nan"), float("nan"), 0)
        drawn, total = drawn_sums(values, blocks, seed)
        means = np.divide(drawn, total, out=np.full(len(total), np.nan), where=total > 0)
        return cls(float(sums.sum() / counts.sum()), *limits(means), int(counts.sum()))

    def row(self, name: str = "") -> dict[str, Any]:
        """As values of a row.

        >>> Mean(2.0, 1.0, 3.0, 9).row("use")
        {'use': 2.0, 'use_low': 1.0, 'use_high': 3.0}
        """
        low, high = (f"{name}_{end}" if name else end for end in ("low", "high"))
        return {name or "value": self.value, low: self.low, high: self.high}


def drawn_sums(values: Floats, blocks: Places, seed: int) -> tuple[Floats, Floats]:
    """Sum and number of the finite values in each bootstrap sample of whole blocks.

    Shapes: those of `Mean.of` -> (R,) each.
    """
    sums, counts = _sums(values, blocks)
    drawn = draw_blocks(len(sums), seed)  # (R, blocks)
    return drawn @ sums, drawn @ counts


def _sums(values: Floats, blocks: Places) -> tuple[Floats, Floats]:
    """Sum and number of the finite values of each block."""
    if blocks.ndim < values.ndim:
        blocks = np.broadcast_to(blocks[:, None], values.shape)
    finite = np.isfinite(values).ravel()
    _, number = np.unique(blocks, return_inverse=True)
    columns = np.where(finite, values.ravel(), 0.0), finite
    sums, counts = (np.bincount(number.ravel(), c).astype(np.float64) for c in columns)
    return sums, counts
