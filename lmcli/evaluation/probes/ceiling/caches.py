"""What the words of the past are worth beyond an n-gram: caches by distance, on held-out text.

**In:** training ids for the n-gram, held-out documents.
**Out:** for every held-out token and c = 8, 16, 32, ...: ln mix(c) - ln KN, and the same where the
caches hold words from elsewhere.

The cache of an octave of distance (1-8, 9-16, 17-32, ...) gives a word its share among the words
that lie so far back in the same document; where there are none it stands back for KN:

    mix(c) = w_0 KN + sum over the octaves up to c of w_o cache_o

The weights are fitted by EM on one half of the held-out text and judged on the other, both ways.
In the null every cache is filled with words drawn from all held-out text but the target itself; of
a text whose words come in no order, mix and null gain the same. Unknown words are not scored: the
n-gram has never seen one, and any cache would seem to help. Kuhn and De Mori (1990); Jelinek and
Mercer (1980).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.state_batches import Ids
from lmcli.evaluation.statistics import Floats
from lmcli.models.ngram.kneser_ney import KneserNey

NEAREST = 8
"""upper edge of the first octave"""
NULLS = 2
"""draws of words from elsewhere"""
ROUNDS = 1000
"""of EM, at the most"""
SETTLED = 5e-5
"""nats a token that the fit may be below the best"""

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Documents end to end without their start ids. Shapes: (N,) each."""

    ids: Places
    inside: Places
    """how many tokens of its document stand before each"""

    @classmethod
    def of(cls, documents: Sequence[Ids]) -> Stream:
        """Documents that begin with a start id."""
        ids = np.concatenate([d[1:] for d in documents]).astype(np.int64)
        return cls(ids, np.concatenate([np.arange(len(d) - 1) for d in documents]))


def edges(longest: int) -> list[int]:
    """Upper edges of the octaves.

    >>> edges(100)
    [8, 16, 32, 64]
    """
    return [NEAREST << k for k in range(20) if NEAREST << k <= longest]


def kneser_ney(table: KneserNey, documents: Sequence[Ids]) -> Floats:
    """p of every token of the documents after those before it. Shapes: -> (N,)."""
    parts = [table.log_probabilities(d[None, :-1], d[None, 1:])[0] for d in documents if len(d) > 1]
    p: Floats = np.exp(np.concatenate(parts))
    return p


def octave_counts(stream: Stream, upper: Sequence[int]) -> tuple[Places, Places]:
    """How often each token stands in each octave before itself, and how many words that has.

    Shapes: -> (N, octaves) each.
    """
    place, length = np.arange(len(stream.ids)), len(stream.ids) + 1
    keys = np.sort(stream.ids * length + place)
    earlier = [np.zeros_like(place), *(np.minimum(stream.inside, edge) for edge in upper)]
    ranks = [np.searchsorted(keys, stream.ids * length + place - back) for back in earlier]
    counts = [near - far for near, far in pairwise(ranks)]
    sizes = [far - near for near, far in pairwise(earlier)]
    return np.stack(counts, axis=1), np.stack(sizes, axis=1)


def elsewhere_counts(stream: Stream, sizes: Places, rng: np.random.Generator) -> Places:
    """The same counts of octaves filled with words drawn from the text without the target.

    Without replacement, as in the text itself: caches may hold a good part of it.
    """
    alike = np.bincount(stream.ids)[stream.ids] - 1
    rest, drawn = len(stream.ids) - 1 - alike, np.zeros_like(sizes)
    for octave, size in enumerate(sizes.T):
        drawn[:, octave] = rng.hypergeometric(alike, rest, size)
        alike = alike - drawn[:, octave]
        rest = rest - (size - drawn[:, octave])
    return drawn


def fit_weights(parts: Floats, begin: Floats) -> Floats:
    """The weights of a mixture at which a text is likeliest, by EM. Shapes: (N, M), (M,) -> (M,).

    With g_m = mean of part_m / mixture, the best mixture gains at most max g - 1 nats a token more.
    """
    weights = begin
    for _ in range(ROUNDS):
        g: Floats = parts.T @ (1 / (parts @ weights)) / len(parts)
        if g.max() - 1 < SETTLED:
            break
        weights = weights * g
    return weights


def gains(base: Floats, counts: Places, sizes: Places) -> Floats:
    """ln mix(c) - ln KN of every token, by cross-fitting. Shapes: -> (N, octaves)."""
    caches = np.divide(counts, sizes, out=np.tile(base[:, None], sizes.shape[1]), where=sizes > 0)
    parts = np.concatenate([base[:, None], caches], axis=1)  # (N, 1 + octaves)
    half = np.arange(len(base)) < len(base) // 2
    gained = np.empty(sizes.shape)
    for judged in (half, ~half):
        fitted, others = parts[~judged], parts[judged]
        weights = np.ones(1)
        for octave in range(sizes.shape[1]):
            some = slice(octave + 2)
            weights = fit_weights(fitted[:, some], np.append(0.99 * weights, 0.01))
            gained[judged, octave] = np.log(others[:, some] @ weights) - np.log(others[:, 0])
    return gained


def worth(
    table: KneserNey,
    documents: Sequence[Ids],
    longest: int,
    unknown: int | None = None,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Nats gained by caches up to c = 8, 16, ..., and by the null, for each known word.

    Shapes: -> (N, octaves) each.
    """
    stream, base = Stream.of(documents), kneser_ney(table, documents)
    counts, sizes = octave_counts(stream, edges(longest))
    rng = np.random.default_rng(seed)
    filled = [counts, *(elsewhere_counts(stream, sizes, rng) for _ in range(NULLS))]
    known = slice(None) if unknown is None else np.flatnonzero(stream.ids != unknown)
    gained = [gains(base[known], one[known], sizes[known]) for one in filled]
    return gained[0], np.mean(gained[1:], axis=0)
