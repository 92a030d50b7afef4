"""Interpolated modified Kneser-Ney smoothing: n-gram probabilities from counts, in NumPy.

**In:** one stream of ids below V; the id V (`start`) begins a document and is never predicted.
**Out:** for every n-gram its probability, for every context its back-off weight; from
these ln p of given tokens, or p of all V tokens, after any context.

With a(h w) the adjusted count of the n-gram "h w", and h' = h without its first token::

    p(w | h) = (a(h w) - D(a(h w))) / sum_v a(h v)  +  gamma(h) p(w | h')
    gamma(h) = (D1 N1(h) + D2 N2(h) + D3 N3+(h)) / sum_v a(h v)       p(w | nothing) = 1 / V

    a(h w) = the count, where "h w" has the highest order or h begins with the start id,
             else how many different tokens stand before "h w"
    N_i(h) = how many w have a(h w) = i
    y = n1 / (n1 + 2 n2);  D1 = 1 - 2 y n2 / n1,  D2 = 2 - 3 y n3 / n2,  D3 = 3 - 4 y n4 / n3
             with n_i = how many n-grams of this order have a = i

Where "h w" was not counted, p(w | h) = gamma(h) p(w | h'), with gamma = 1 if h was not either. A
context ends at the start id: no token before it is read.

Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling"; Heafield
et al. 2013, "Scalable modified Kneser-Ney language model estimation", whose ``lmplz`` gives the
same numbers (with ``--discount_fallback``, and a line as a document whose end is a token).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
FALLBACK = (0.0, 0.5, 1.0, 1.5)
"""Discounts where the counts of counts give none: a very small text, or one unlike language."""


@dataclass(frozen=True, eq=False)
class Level:
    """All n-grams of one order, sorted by context and token. The position of an n-gram is its rank.

    A context is the rank of an n-gram one order below. Level 1 has one context, the empty one, and
    holds all ids, `start` last with probability 0.
    """

    children: Ids  # per context: how many n-grams continue it
    token: Ids  # per n-gram: its last token
    probability: Floats32  # per n-gram: p(token | context)
    backoff: Floats32  # per n-gram: gamma as a context; empty in the highest level
    width: int  # number of ids, with `start`
    first: Ids = field(init=False, repr=False)  # per context: the rank of its first n-gram
    keys: Ids = field(init=False, repr=False)  # per n-gram: context * width + token, ascending

    def __post_init__(self) -> None:
        if np.any(self.children < 0) or self.children.sum() != len(self.token):
            raise ValueError("n-grams and their contexts do not fit together")
        context = np.repeat(np.arange(len(self.children)), self.children)
        keys = np.append(context * self.width + self.token, np.iinfo(np.int64).max)
        object.__setattr__(self, "first", np.cumsum(self.children, dtype=np.int64) - self.children)
        object.__setattr__(self, "keys", keys)

    def find(self, context: Ids, token: Ids) -> Ids:
        """The rank of each n-gram "context token", -1 where it was not counted or context is -1."""
        keys = context * self.width + token  # negative where context is
        rank = np.searchsorted(self.keys, keys)
        return np.where(self.keys[rank] == keys, rank, -1)


@dataclass(frozen=True, eq=False)
class KneserNey:
    """A smoothed n-gram model, made by `estimate` or `from_arrays`.

    Shapes: B rows, T tokens, V vocabulary, C tokens of context before them.
    """

    vocabulary: int
    levels: tuple[Level, ...]

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.levels)

    @property
    def size(self) -> int:
        """The number of stored n-grams of all orders, without the start id alone."""
        return sum(len(level.token) for level in self.levels) - 1

    @classmethod
    def estimate(cls, ids: Ids, vocabulary: int, order: int) -> KneserNey:
        """Count a stream of ids; its first id begins a document, with or without a start id.

        An id outside 0 .. vocabulary, or an order below 1, raises a ValueError.
        """
        if order < 1 or vocabulary < 1:
            raise ValueError(f"order {order} and vocabulary {vocabulary} must be at least 1")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= vocabulary:
            raise ValueError(f"ids from {ids.min()} to {ids.max()}, not from 0 to {vocabulary}")
        return cls.from_counts([grams for grams, _ in count(ids, vocabulary, order)])

    @classmethod
    def from_counts(cls, grams: Sequence[Grams]) -> KneserNey:
        """The n-grams of orders 1, 2, ... as `count` gives them, smoothed."""
        made = zip(grams, *smooth(grams, [of_order.count for of_order in grams]), strict=True)
        return cls(grams[0].width - 1, tuple(_level(*one) for one in made))

    def contexts(self, read: Ids) -> list[Ids]:
        """Of each order below the highest: the rank of the n-gram that ends at each token, or -1.

        Shapes: read (B, C + T) -> order - 1 arrays (B, C + T).
        """
        ranks: list[Ids] = [read.astype(np.int64)] if self.order > 1 else []
        for level in self.levels[1:-1]:
            before = np.full(read.shape, -1, dtype=np.int64)
            before[:, 1:] = ranks[-1][:, :-1]
            ranks.append(level.find(before, read))
        return ranks

    def log_probabilities(self, read: Ids, targets: Ids, excluded: int | None = None) -> Floats:
        """ln p of a target after each of the last T tokens read.

        With `excluded`, an id: given also that the target is another one, -inf if it is not.
        Shapes: read (B, C + T), targets (B, T) -> (B, T) in nats.
        """
        contexts = [ranks[:, read.shape[1] - targets.shape[1] :] for ranks in self.contexts(read)]
        p = self._after(contexts, targets)
        if excluded is not None:
            others = 1 - self._after(contexts, np.full_like(targets, excluded))
            p = np.where(targets == excluded, 0.0, p / others)
        with np.errstate(divide="ignore"):
            return np.log(p)

    def _after(self, contexts: Sequence[Ids], targets: Ids) -> Floats:
        """p of each target after its context. Shapes: targets (B, T) -> (B, T)."""
        p = self.levels[0].probability[targets].astype(np.float64)  # (B, T)
        is_counted = self._counted[targets].any()
        for below, level, context in zip(self.levels, self.levels[1:], contexts, strict=False):
            counted = context >= 0
            p[counted] *= below.backoff[context[counted]]
            if is_counted:
                rank = level.find(context, targets)
                p[rank >= 0] = level.probability[rank[rank >= 0]]
        return p

    @cached_property
    def _counted(self) -> Array:
        """Which tokens were counted after any other. Shapes: -> (V,) bool."""
        counted = np.zeros(self.vocabulary, np.bool_)
        counted[self.levels[1].token if self.order > 1 else []] = True
        return counted

    def distributions(self, read: Ids, last: int) -> Floats:
        """p of every token after each of the last T tokens read.

        Shapes: read (B, C + T) -> (B, T, V); every row sums to one.
        """
        contexts = [ranks[:, read.shape[1] - last :].ravel() for ranks in self.contexts(read)]
        p = self.after_contexts(contexts, len(read) * last)
        return p.reshape(len(read), last, self.vocabulary)

    def after_contexts(self, contexts: Sequence[Ids], rows: int) -> Floats:
        """p of every token after contexts, given by their rank in each order, -1 if never counted.

        Shapes: order - 1 arrays (rows,) -> (rows, V); every row sums to one.
        """
        p = np.empty((rows, self.vocabulary))  # (rows, V)
        p[:] = self.levels[0].probability[: self.vocabulary]
        for below, level, context in zip(self.levels, self.levels[1:], contexts, strict=False):
            counted = np.flatnonzero(context >= 0)
            rank = context[counted]
            p[counted] *= below.backoff[rank, None]
            several = level.children[rank]
            skipped = np.cumsum(several, dtype=np.int64) - several
            grams = np.arange(several.sum()) + np.repeat(level.first[rank] - skipped, several)
            p[np.repeat(counted, several), level.token[grams]] = level.probability[grams]
        return p

    def arrays(self) -> dict[str, Array]:
        """The input of `from_arrays`: named arrays of int32 and float32."""
        return {
            f"{k}.{name}": getattr(level, name)
            for k, level in enumerate(self.levels, 1)
            for name in _STORED
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], vocabulary: int, order: int) -> KneserNey:
        """The model that gave these `arrays`; arrays that are no model raise a ValueError."""
        wanted = {f"{k}.{name}" for k in range(1, order + 1) for name in _STORED}
        if set(arrays) != wanted:
            strange = sorted(wanted ^ set(arrays))
            raise ValueError(f"n-gram arrays missing or too many: {', '.join(strange)}")
        for name, array in arrays.items():
            if array.ndim != 1 or array.dtype != _STORED[name.partition(".")[2]]:
                raise ValueError(f"array {name} is {array.dtype} {array.shape}")
        levels: list[Level] = []
        for k in range(1, order + 1):
            children, token, probability, backoff = (arrays[f"{k}.{name}"] for name in _STORED)
            levels.append(Level(children, token, probability, backoff, vocabulary + 1))
            _check(levels[-1], levels[-2] if k > 1 else None, highest=k == order)
        return cls(vocabulary, tuple(levels))


_STORED = {
    "children": np.int32,
    "token": np.int32,
    "probability": np.float32,
    "backoff": np.float32,
}


def _check(level: Level, below: Level | None, *, highest: bool) -> None:
    """Raise a ValueError if the arrays of a level do not fit those of the level `below`."""
    start = level.width - 1
    if below is None:
        if not np.array_equal(level.token, np.arange(level.width)) or len(level.children) != 1:
            raise ValueError("1-grams that are not the vocabulary")
    elif len(level.children) != len(below.token):
        raise ValueError(f"{len(level.children)} contexts above {len(below.token)} n-grams")
    elif np.any((level.token < 0) | (level.token >= start)) or np.any(np.diff(level.keys) < 1):
        raise ValueError("n-grams out of order or with a token outside the vocabulary")
    predicted = level.probability[:start] if below is None else level.probability
    for name, values in (("probability", predicted), ("back-off weight", level.backoff)):
        if not np.all((values > 0) & (values <= 1 + 1e-6)):  # false for nan
            raise ValueError(f"an n-gram's {name} is not between 0 and 1")
    sizes = len(level.probability), len(level.backoff)
    if sizes != (len(level.token), 0 if highest else len(level.token)):
        raise ValueError(f"{len(level.token)} n-grams with {sizes} probabilities and weights")


def _level(grams: Grams, probability: Floats, backoff: Floats) -> Level:
    """A level in compact arrays."""
    return Level(
        np.bincount(grams.context, minlength=grams.contexts).astype(np.int32),
        grams.token.astype(np.int32),
        probability.astype(np.float32),
        backoff.astype(np.float32),
        grams.width,
    )


@dataclass(frozen=True, eq=False)
class Grams:
    """The n-grams of one order as counted, sorted by context and token."""

    width: int  # number of ids
    contexts: int  # number of n-grams one order below
    context: Ids
    token: Ids
    count: Ids
    suffix: Ids  # rank of the n-gram without its first token, one order below
    starts: Array  # whether its first token is the start id


def count(ids: Ids, vocabulary: int, order: int) -> Iterator[tuple[Grams, Ids]]:
    """The n-grams of orders 1, 2, ...: each is the pair of a rank one order below and a token.

    With those of each order comes the rank of the n-gram that ends at each id, the first one a
    start id before the stream; -1 where it would contain a start id that is not its first.
    Shapes: ids (N,) -> ranks (N + 1,).
    """
    stream = np.empty(len(ids) + 1, dtype=np.int32)
    stream[0], stream[1:] = vocabulary, ids
    width = vocabulary + 1
    counts = np.bincount(stream, minlength=width)
    counts[vocabulary] = 0  # never predicted
    nothing = np.zeros(width, dtype=np.int64)
    starts = np.arange(width) == vocabulary
    rank = stream
    yield Grams(width, 1, nothing, np.arange(width), counts, nothing, starts), rank
    for _ in range(2, order + 1):
        ends = np.flatnonzero((rank[:-1] >= 0) & (stream[1:] < vocabulary)) + 1
        keys = rank[ends - 1].astype(np.int64) * width + stream[ends]
        places = np.argsort(keys)
        keys, ends = keys[places], ends[places]
        new = np.diff(keys, prepend=-1) > 0
        heads = np.flatnonzero(new)
        context, token = np.divmod(keys[heads], width)
        contexts, starts = len(starts), starts[context]
        counts = np.diff(heads, append=len(keys))
        suffix = rank[ends[heads]].astype(np.int64)
        rank = np.full(len(stream), -1, dtype=np.int32)
        rank[ends] = np.cumsum(new) - 1
        yield Grams(width, contexts, context, token, counts, suffix, starts), rank


def smooth(grams: Sequence[Grams], counts: Sequence[Ids]) -> tuple[list[Floats], list[Floats]]:
    """p of every n-gram and its back-off weight as a context, for each order; from `counts`.

    An n-gram may have a count of 0: its p is then that of the order below, weighted.
    """
    vocabulary = grams[0].width - 1
    probabilities, gammas = [np.full(1, 1 / vocabulary)], []
    for k, of_order in enumerate(grams):
        adjusted = counts[k]
        if k + 1 < len(grams):  # numbers of different tokens before the n-gram
            above = grams[k + 1].suffix[counts[k + 1] > 0]
            preceding = np.bincount(above, minlength=len(adjusted))
            adjusted = np.where(of_order.starts, adjusted, preceding)
        probability, gamma = _smooth(of_order, adjusted, probabilities[-1])
        if k == 0:
            probability[vocabulary] = 0.0
        probabilities.append(probability)
        gammas.append(gamma)
    return probabilities[1:], [*gammas[1:], np.empty(0)]


def _smooth(grams: Grams, adjusted: Ids, below: Floats) -> tuple[Floats, Floats]:
    """p of every n-gram, given p one order `below`; and gamma of every context."""
    taken = np.array(discounts(adjusted))[np.minimum(adjusted, 3)]
    total = np.bincount(grams.context, adjusted, minlength=grams.contexts)
    given = np.bincount(grams.context, taken, minlength=grams.contexts)
    gamma = np.divide(given, total, out=np.ones(grams.contexts), where=total > 0)
    p = (adjusted - taken) / np.maximum(total, 1)[grams.context]
    return p + gamma[grams.context] * below[grams.suffix], gamma


def discounts(adjusted: Ids) -> tuple[float, float, float, float]:
    """D(0) = 0, D(1), D(2) and D(3 and more), from the adjusted counts of one order."""
    _, n1, n2, n3, n4, _ = np.bincount(np.minimum(adjusted, 5), minlength=6).tolist()
    if not n1 or not n2 or not n3:
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    estimated = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    if any(not 0 < d <= i for i, d in enumerate(estimated, 1)):  # at 0 a token would have no chance
        return FALLBACK
    return (0.0, *estimated)
