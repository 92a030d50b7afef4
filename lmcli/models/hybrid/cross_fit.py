"""Kneser-Ney probabilities for every place of a text, from counts of the rest of the text.

**In:** one stream of ids in which start ids begin documents.
**Out:** at each place, p of every token after what was read, and how far the longer contexts are
trusted.

What an n-gram model says of the text that it has counted is far too good: all of it has been seen.
So the stream is cut into K folds, and a place gets its probabilities from the counts of the other
folds (cross-fitting: Stone 1974). A model that learns beside them meets them as it will meet those
of a new text. A fold is one piece: of small blocks from all over the text, the names and topics
would have been counted nearby. Tiny Shakespeare's first 90 %, order 6, 7 folds: 1.39 nats a
character in blocks of 10,000 characters, 1.49 in one piece each; the last 10 %: 1.52.

The text is sorted once. All folds share the n-grams of the whole text; each has its own counts, of
which some are 0, and so its own probabilities and back-off weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lmcli.errors import TrainingError
from lmcli.models.ngram.kneser_ney import Floats32, Ids, KneserNey, Level, count, smooth
from lmcli.system import available_memory

FEWEST, MOST, TOKENS = 4, 20, 8_000_000
"""folds, and the tokens of a text times its folds, between these bounds"""
LEVEL_BYTES = 32
"""of an n-gram in a `Level`"""
MANY_TOKENS = 2_000
"""a vocabulary from which on p of every token takes longer to look up than a net to compute"""


def way_to_mix(chosen: str | None, adaptive: bool, vocabulary: int) -> str:
    """How a net and an n-gram are joined: as chosen, or else by what is quick.

    >>> way_to_mix(None, False, 65), way_to_mix(None, True, 65), way_to_mix("log", False, 9000)
    ('log', 'linear', 'log')
    """
    if chosen not in (None, "log", "linear"):
        raise ValueError(f"setting mix={chosen!r}: neither log nor linear")
    return chosen or ("linear" if adaptive or vocabulary >= MANY_TOKENS else "log")


@dataclass(frozen=True, eq=False)
class Tables:
    """Smoothed tables of the same n-grams, with counts of their own: F of them.

    Shapes: G n-grams of an order.
    """

    levels: Sequence[Level]
    """which n-grams there are"""
    probability: Sequence[Floats32]
    """of each n-gram of an order. Shapes: (F, G)"""
    backoff: Sequence[Floats32]
    """of each n-gram as a context. Shapes: (F, G)"""

    @classmethod
    def of(cls, table: KneserNey) -> Tables:
        """One table."""
        levels = table.levels
        probability = [level.probability[None] for level in levels]
        return cls(levels, probability, [level.backoff[None] for level in levels[:-1]])

    def weights(self, contexts: Sequence[Ids], fold: Ids) -> Floats32:
        """The back-off weight of each context, 1 where it was never counted.

        Shapes: order - 1 arrays (rows,), fold (rows,) -> (rows, order - 1).
        """
        weights = np.ones((len(fold), len(contexts)), np.float32)
        for k, context in enumerate(contexts):
            known = np.flatnonzero(context >= 0)
            weights[known, k] = self.backoff[k][fold[known], context[known]]
        return weights

    def distributions(self, contexts: Sequence[Ids], fold: Ids, weights: Floats32) -> Floats32:
        """p of every token after each context. Shapes: as in `weights` -> (rows, V)."""
        p = self.probability[0][fold, :-1]  # (rows, V), without the start id
        for k, context in enumerate(contexts, 1):
            level, known = self.levels[k], np.flatnonzero(context >= 0)
            several = level.children[context[known]]
            skipped = np.cumsum(several) - several
            begin = level.first[context[known]] - skipped
            grams = np.arange(several.sum()) + np.repeat(begin, several)
            rows = np.repeat(known, several)
            p *= weights[:, k - 1 : k]
            p[rows, level.token[grams]] = self.probability[k][fold[rows], grams]
        return p

    def of_targets(
        self, contexts: Sequence[Ids], fold: Ids, weights: Floats32, targets: Ids
    ) -> Floats32:
        """p of one token after each context. Shapes: targets (rows,) -> (rows,)."""
        p = self.probability[0][fold, targets]
        for k, context in enumerate(contexts, 1):
            p *= weights[:, k - 1]
            rank = self.levels[k].find(context, targets)
            rows = np.flatnonzero(rank >= 0)
            p[rows] = self.probability[k][fold[rows], rank[rows]]
        return p


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """A counted text: a table for each fold, and where in it each place is found."""

    tables: Tables
    ranks: Sequence[Ids]
    """for each order below the highest: the n-gram that ends at each place, -1 for none"""
    length: int
    folds: int

    def at(self, places: Ids) -> tuple[list[Ids], Ids]:
        """Contexts that end at some places, and the folds of the tokens after them.

        Shapes: (rows,) -> order - 1 arrays (rows,), (rows,).
        """
        after = fold_of((places + 1) % self.length, self.length, self.folds)
        return [rank[places] for rank in self.ranks], after


def fold_of(places: Ids, length: int, folds: int) -> Ids:
    """The fold whose table leaves a token out.

    >>> fold_of(np.arange(7), 7, 3)
    array([0, 0, 0, 1, 1, 2, 2])
    """
    return places.astype(np.int64) * folds // length


def number_of_folds(tokens: int) -> int:
    """Many for a small text, whose counts would be much fewer without a large part of it.

    >>> number_of_folds(2_000), number_of_folds(1_000_000), number_of_folds(10**8)
    (20, 8, 4)
    """
    return min(MOST, max(FEWEST, TOKENS // max(1, tokens)))


def cross_fit(ids: Ids, vocabulary: int, order: int) -> tuple[KneserNey, CrossFitted]:
    """The table of a whole stream, and one for each fold, from the counts of all others.

    n-grams for whose tables the free memory is too small are a TrainingError.
    """
    counted, folds = list(count(ids, vocabulary, order)), number_of_folds(len(ids))
    grams = [of_order for of_order, _ in counted]
    sizes = [len(of_order.token) for of_order in grams]
    needed = LEVEL_BYTES * sum(sizes) + 4 * folds * (sum(sizes) + sum(sizes[:-1]))
    if (available := available_memory()) is not None and needed > available:
        raise TrainingError(
            f"the tables of {sum(sizes):,} n-grams need {needed / 1e9:,.1f} GB of memory or more, "
            f"and {available / 1e9:,.1f} GB are free",
            f"for example --set order={max(1, order - 3)}, or name a part of the text",
        )
    table = KneserNey.from_counts(grams)
    bounds = -(-np.arange(folds + 1) * len(ids) // folds) + 1  # ranks begin before the stream
    stored = [*grams, *grams[:-1]]  # their probabilities, and their back-off weights
    kept = [np.empty((folds, len(of_order.token)), np.float32) for of_order in stored]
    for fold, (begin, end) in enumerate(pairwise(bounds.tolist())):
        counts = []
        for of_order, rank in counted:
            inside = rank[begin:end]
            left_out = np.bincount(inside[inside >= 0], minlength=len(of_order.count))
            counts.append(np.maximum(of_order.count - left_out, 0))  # a start id alone counts 0
        probability, backoff = smooth(grams, counts)
        for stack, found in zip(kept, [*probability, *backoff[:-1]], strict=True):
            stack[fold] = found
    tables = Tables(table.levels, kept[:order], kept[order:])
    return table, CrossFitted(tables, [rank[1:] for _, rank in counted[:-1]], len(ids), folds)
