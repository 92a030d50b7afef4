"""A cache over any model: counts of the text read so far; a token is scored, then counted.

**In:** ln p of all V tokens at each place of a stream, in its order, and the stream.
**Out:** the nats of every token under a mixture of the model and the counts.

For contexts of several lengths k, with c(w) how often w followed the context before, n the sum and
t the number of different w, each distribution smooths the one below, the model at the bottom::

    p_k(w) = (max(c(w) - d, 0) + (theta + d t) p_k-1(w)) / (n + theta)        p_0 = the model

The model and all p_k are mixed in the logarithm: p(w) is proportional to the product of p_k(w)^a_k,
and in a large vocabulary of further powers, of how much more frequent w was lately than on the
whole (recent_words.py). The exponents a depend on how many contexts were found, on whether the
longest was always followed by the same token, on how sure the model is and, in a small vocabulary,
on the token before. They are learnt while reading, by gradient descent (Adagrad): a block of tokens
is scored, then they change. Counts are exact; everything that a token is scored by comes from
before it, and its distribution over all V tokens sums to one.

In a large vocabulary all tokens that never followed the contexts of a place and were not read
lately share one entry, in which they keep the proportions of the model. Kuhn & De Mori 1990;
Mahoney 2005, "Adaptive weighing of context models for lossless data compression" (PAQ).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.recent_words import RecentWords

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

LARGE = 512
"""tokens in a vocabulary of which a block looks at some only"""
SURENESS = 8
"""classes of how sure the model is"""
COUNTED = 4096
"""tokens counted at once"""


@dataclass(frozen=True)
class CacheSettings:
    """How counts become probabilities; the defaults were chosen on validation parts."""

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 12)
    """lengths of contexts in tokens"""
    discount: float = 0.7
    strength: float = 0.15
    """theta: how many counts the distribution below is worth"""
    rate: float = 0.03
    """step size of the exponents"""
    block: int = 32
    """tokens between two steps"""
    own_weight: float = 0.4
    """exponent of the model at the start; those of the contexts share the rest"""
    windows: tuple[int, ...] = ()
    """numbers of tokens read last, which are compared with all; each has an exponent"""
    window_strength: float = 1000.0
    """how many tokens of the whole a window is smoothed with"""
    window_weight: float = 0.2
    """exponent of each window at the start"""

    @classmethod
    def of(cls, vocabulary: int) -> CacheSettings:
        """For characters and bytes long contexts, for words short ones and what was read lately."""
        if vocabulary <= LARGE:
            return cls()
        return cls(orders=(1, 2, 3), rate=0.02, windows=(50, 200, 1000, 5000))

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self) | {"orders": list(self.orders), "windows": list(self.windows)}


class CountCache:
    """Counts and exponents; `nats` scores tokens and learns from them, in the order of the text.

    An `excluded` id is never predicted; ids from V on begin documents, which the counts go across.
    """

    def __init__(
        self, vocabulary: int, settings: CacheSettings, excluded: int | None = None
    ) -> None:
        self.vocabulary, self.settings, self.excluded = vocabulary, settings, excluded
        contexts, windows = len(settings.orders), len(settings.windows)
        self._tables: list[dict[bytes, int | dict[int, int]]] = [{} for _ in settings.orders]
        self._before = np.zeros(0, np.uint32)
        share = (1 - settings.own_weight) / contexts
        groups = [2 * contexts + 2, SURENESS] + [vocabulary + 1] * (vocabulary <= LARGE)
        self._exponents = [np.full((size, contexts + 1 + windows), 0.0) for size in groups]
        first = [settings.own_weight, *[share] * contexts, *[settings.window_weight] * windows]
        self._exponents[0][:] = first
        self._squares = [np.full((size, contexts + 1 + windows), 0.01) for size in groups]
        self._recent = RecentWords(vocabulary, settings.windows, settings.window_strength)

    def count(self, ids: Ids) -> None:
        """Count a stream without scoring it, such as what the model was trained on."""
        for begin in range(0, len(ids) - 1, COUNTED):
            some = ids[begin : begin + COUNTED + 1]
            scored = self._scored(some[1:])
            self._count(some, scored)
            self._recent.add(some[1:][scored])

    def nats(self, parts: Iterable[npt.NDArray[np.floating[Any]]], ids: Ids) -> Floats:
        """-ln p of every id but the first; 0 for start ids and the excluded one.

        Shapes: parts (n, V) of ln p, in all (N - 1, V); ids (N,) -> (N - 1,).
        """
        nats, place = np.zeros(len(ids) - 1), 0
        for some in _blocks(parts, self.settings.block):
            end = place + len(some)
            nats[place:end] = self._block(some.astype(np.float64), ids[place : end + 1])
            place = end
        return nats

    def _block(self, log_p: Floats, ids: Ids) -> Floats:
        """The nats of one block; then its counts and its gradient are added."""
        targets = ids[1:]
        scored = self._scored(targets)
        nats, cells, tokens, counts = np.zeros(len(targets)), *self._count(ids, scored)
        if not len(scored):
            return nats
        targets, log_p = targets[scored], log_p[scored]
        columns = self._columns(tokens)
        entries = len(columns) + (self.vocabulary > LARGE)  # with all other tokens together
        table = np.zeros((len(scored), len(self.settings.orders), entries))
        table.reshape(-1)[cells * entries + np.searchsorted(columns, tokens)] = counts
        has_entry = self._has_entry(table, columns)
        rows, place = np.arange(len(scored)), np.searchsorted(columns, targets)
        is_own = (np.append(columns, -1)[place] == targets) & has_entry[rows, place]
        place[~is_own] = len(columns)
        base = self._base(log_p, columns, has_entry)
        features, found = self._features(table, base, columns)
        groups = [found, self._sureness(log_p)]
        if self.vocabulary <= LARGE:
            groups.append(np.minimum(ids[:-1][scored], self.vocabulary))
        p = self._mixed(features, groups, has_entry)
        own = p[rows, place]
        other = np.flatnonzero(~is_own)
        own[other] *= np.exp(log_p[other, targets[other]]) / base[other, -1]
        nats[scored] = -np.log(own)
        self._learn(features, groups, p, place)
        self._recent.add(targets)
        return nats

    def _scored(self, targets: Ids) -> Ids:
        """The places of tokens that are neither start ids nor the excluded one."""
        return np.flatnonzero((targets < self.vocabulary) & (targets != self.excluded))

    # -------------------------------------------------------------- counts

    def _count(self, ids: Ids, scored: Ids) -> tuple[Ids, Ids, Floats]:
        """What followed the contexts of each token to be scored, which is counted after that.

        As cells (token of the block, context), tokens and counts, one entry each.
        """
        orders, stream = self.settings.orders, np.append(self._before, ids[:-1].astype(np.uint32))
        text, offset = stream.tobytes(), len(self._before)
        cells, sizes, tokens, counts = list[int](), list[int](), list[int](), list[int]()
        for row, i in enumerate(scored.tolist()):
            target, end = int(ids[i + 1]), 4 * (offset + i + 1)
            for k, (order, table) in enumerate(zip(orders, self._tables, strict=True)):
                if 4 * order > end:
                    break
                context = text[end - 4 * order : end]
                seen = table.get(context)
                if seen is None:
                    table[context] = target  # alone, which takes less memory than a dictionary
                    continue
                if isinstance(seen, int):
                    table[context] = seen = {seen: 1}
                cells.append(row * len(orders) + k)
                sizes.append(len(seen))
                tokens.extend(seen)
                counts.extend(seen.values())
                seen[target] = seen.get(target, 0) + 1
        self._before = stream[-orders[-1] :]
        return (
            np.repeat(np.array(cells, np.int64), np.array(sizes, np.int64)),
            np.array(tokens, np.int64),
            np.array(counts, np.float64),
        )

    def _columns(self, tokens: Ids) -> Ids:
        """The tokens that have an entry of their own anywhere in this block, sorted."""
        if self.vocabulary > LARGE:
            return np.unique(np.concatenate([tokens, self._recent.tokens()]))
        every = np.arange(self.vocabulary)
        return every if self.excluded is None else np.delete(every, self.excluded)

    def _has_entry(self, table: Floats, columns: Ids) -> Bools:
        """Which tokens have an entry of their own at each place: it must not depend on later ones.

        In a large vocabulary those that followed a context of the place or were read before the
        block, and all other tokens together, if there are any. Shapes: table (n, K, C), columns ->
        (n, C).
        """
        if self.vocabulary <= LARGE:
            return np.ones((len(table), table.shape[2]), np.bool_)
        always = np.append(np.isin(columns, self._recent.tokens()), True)
        found: Bools = table.any(axis=1) | always
        found[:, -1] = found[:, :-1].sum(1) < self.vocabulary - (self.excluded is not None)
        return found

    # -------------------------------------------------------------- distributions

    def _base(self, log_p: Floats, columns: Ids, has_entry: Bools) -> Floats:
        """The model's p of tokens with an entry, and last, if need be, of all others together."""
        p: Floats = np.exp(log_p[:, columns])
        if self.vocabulary <= LARGE:
            p /= p.sum(1, keepdims=True)
            return p
        p *= has_entry[:, :-1]
        rest: Floats = np.maximum(1 - p.sum(1, keepdims=True), 1e-9)
        return np.concatenate([p, rest], axis=1)

    def _features(self, table: Floats, base: Floats, columns: Ids) -> tuple[Floats, Ids]:
        """ln p_k and ln r of every column, and what was found.

        That is how many contexts, and whether the longest had one successor. Shapes: table
        (n, K, C), base (n, C) -> (n, K + 1 + windows, C), (n,).
        """
        d, theta = self.settings.discount, self.settings.strength
        total, types = table.sum(2), np.count_nonzero(table, axis=2)  # (n, K)
        ratios = self._recent.log_ratios(columns)[:, : table.shape[2]]
        contexts = table.shape[1] + 1
        features = np.empty((len(table), contexts + len(ratios), table.shape[2]))
        features[:, 0] = p = base
        taken = np.maximum(table - d, 0)
        for k in range(table.shape[1]):
            below = (theta + d * types[:, k]) / (total[:, k] + theta)
            p = taken[:, k] / (total[:, k] + theta)[:, None] + below[:, None] * p
            features[:, k + 1] = p
        depth = np.count_nonzero(total, axis=1)
        longest = np.where(total > 0, types, 0)[np.arange(len(table)), np.maximum(depth - 1, 0)]
        features[:, :contexts] = np.log(np.maximum(features[:, :contexts], 1e-30))
        features[:, contexts:] = ratios
        return features, 2 * depth + (longest == 1)

    def _sureness(self, log_p: Floats) -> Ids:
        """How sure the model is, from 0 to SURENESS - 1."""
        other = np.clip(1 - np.exp(log_p.max(1)), 1e-4, 1)
        classes: Ids = np.minimum(SURENESS - 1, (-2 * np.log(other)).astype(np.int64))
        return classes

    def _mixed(self, features: Floats, groups: Sequence[Ids], has_entry: Bools) -> Floats:
        """The product of the distributions to their exponents, normalised. Shapes: -> (n, C)."""
        pairs = zip(self._exponents, groups, strict=True)
        exponents: Floats = np.sum([e[group] for e, group in pairs], axis=0)
        logits = np.matmul(exponents[:, None], features)[:, 0]
        logits[~has_entry] = -np.inf
        p = np.exp(logits - logits.max(1, keepdims=True))
        normalised: Floats = p / p.sum(1, keepdims=True)
        return normalised

    def _learn(self, features: Floats, groups: Sequence[Ids], p: Floats, place: Ids) -> None:
        """One step of Adagrad down the nats of the block."""
        error = p.copy()
        error[np.arange(len(p)), place] -= 1
        gradient = np.matmul(features, error[:, :, None])[:, :, 0]  # (n, K + 1)
        for exponents, squares, group in zip(self._exponents, self._squares, groups, strict=True):
            step = np.zeros_like(exponents)
            np.add.at(step, group, gradient)
            squares += step * step
            exponents -= self.settings.rate * step / np.sqrt(squares)


def _blocks(parts: Iterable[npt.NDArray[np.floating[Any]]], size: int) -> Iterator[Floats]:
    """Rows of all parts, `size` at a time, wherever the parts end. Shapes: -> (size, V)."""
    held: list[npt.NDArray[np.floating[Any]]] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) < size:
            continue
        rows = np.concatenate(held) if len(held) > 1 else part
        whole = len(rows) // size * size
        yield from np.split(rows[:whole], whole // size)
        held = [rows[whole:].copy()] if len(rows) > whole else []
    if sum(map(len, held)):
        yield np.concatenate(held)
