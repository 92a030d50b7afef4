"""A cache over any model: counts of the text read so far; a token is scored, then counted.

**In:** ln p of all V tokens at each place of a stream, in its order, and the stream.
**Out:** the nats of every token under a mixture of the model and the counts.

For contexts of several lengths k, with c(w) how often w followed the context before, n the sum and
t the number of different w, each distribution smooths the one below, the model at the bottom::

    p_k(w) = (max(c(w) - d, 0) + (theta + d t) p_k-1(w)) / (n + theta)        p_0 = the model

The model and all p_k are mixed in the logarithm: p(w) is proportional to the product of p_k(w)^a_k.
The exponents a depend on how many contexts were found, on whether the longest was always followed
by the same token, on how sure the model is and, in a small vocabulary, on the token before. They
are learnt while reading, by gradient descent (Adagrad): a block of tokens is scored, then they
change. Counts are exact; everything that a token is scored by comes from before it, and its
distribution over all V tokens sums to one.

In a large vocabulary all tokens that followed none of a block's contexts share one entry, in which
they keep the proportions of the model; there p_0 itself is a mixture of the model and of how often
each word was read at all, whose weight is learnt too. Kuhn & De Mori 1990; Grave et al. 2017;
Mahoney 2005, "Adaptive weighing of context models for lossless data compression" (PAQ).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.integer[Any]]

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

    @classmethod
    def of(cls, vocabulary: int) -> CacheSettings:
        """For characters and bytes long contexts, for words short ones."""
        return cls() if vocabulary <= LARGE else cls(orders=(1, 2, 3), rate=0.02)

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self) | {"orders": list(self.orders)}


class CountCache:
    """Counts and exponents; `nats` scores tokens and learns from them, in the order of the text.

    An `excluded` id is never predicted; ids from V on begin documents, which the counts go across.
    """

    def __init__(
        self, vocabulary: int, settings: CacheSettings, excluded: int | None = None
    ) -> None:
        self.vocabulary, self.settings, self.excluded = vocabulary, settings, excluded
        contexts = len(settings.orders)
        self._tables: list[dict[bytes, int | dict[int, int]]] = [{} for _ in settings.orders]
        self._before = np.zeros(0, np.uint32)
        share = (1 - settings.own_weight) / contexts
        groups = [2 * contexts + 2, SURENESS] + [vocabulary + 1] * (vocabulary <= LARGE)
        self._exponents = [np.full((size, contexts + 1), 0.0) for size in groups]
        self._exponents[0][:] = [settings.own_weight, *[share] * contexts]
        self._squares = [np.full((size, contexts + 1), 0.01) for size in groups]
        self._read = np.zeros(vocabulary)  # how often each token was read
        self._word_weight = [2.0, 100.0]  # of how often it was read: expected uses, of how many

    def count(self, ids: Ids) -> None:
        """Count a stream without scoring it, such as what the model was trained on."""
        for begin in range(0, len(ids) - 1, COUNTED):
            some = ids[begin : begin + COUNTED + 1]
            self._count(some, self._scored(some[1:]))

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
        place = np.searchsorted(columns, targets)
        is_column = np.append(columns, -1)[place] == targets
        place[~is_column] = len(columns)
        base, target_p = self._base(log_p, columns, targets)
        shape = len(scored), len(self.settings.orders), base.shape[1]
        table = np.zeros(shape)
        table.reshape(-1)[cells * shape[2] + np.searchsorted(columns, tokens)] = counts
        features, found = self._features(table, base)
        groups = [found, self._sureness(log_p)]
        if self.vocabulary <= LARGE:
            groups.append(np.minimum(ids[:-1][scored], self.vocabulary))
        p = self._mixed(features, groups)
        rows = np.arange(len(scored))
        own = p[rows, place]
        own[~is_column] *= (target_p / base[rows, place])[~is_column]
        nats[scored] = -np.log(own)
        self._learn(features, groups, p, place)
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
        """The tokens that have an entry of their own in this block, sorted."""
        if self.vocabulary > LARGE:
            return np.unique(tokens)
        every = np.arange(self.vocabulary)
        return every if self.excluded is None else np.delete(every, self.excluded)

    # -------------------------------------------------------------- distributions

    def _base(self, log_p: Floats, columns: Ids, targets: Ids) -> tuple[Floats, Floats]:
        """p_0 of the columns, and last of all other tokens together; p_0 of each target.

        In a large vocabulary the weight of how often words were read is updated after it is used.
        """
        p, target_p = np.exp(log_p[:, columns]), np.exp(log_p[np.arange(len(targets)), targets])
        if self.vocabulary <= LARGE:
            return p / p.sum(1, keepdims=True), target_p
        if total := self._read.sum():
            used, of = self._word_weight
            weight, counted = used / of, self._read / total
            p = (1 - weight) * p + weight * counted[columns]
            mixed = (1 - weight) * target_p + weight * counted[targets]
            self._word_weight[0] += float((weight * counted[targets] / mixed).sum())
            self._word_weight[1] += len(targets)
            target_p = mixed
        np.add.at(self._read, targets, 1)
        rest = np.maximum(1 - p.sum(1, keepdims=True), 1e-9)
        return np.concatenate([p, rest], axis=1), target_p

    def _features(self, table: Floats, base: Floats) -> tuple[Floats, Ids]:
        """ln p_k of every column, and what was found: how many contexts, and whether it is sure.

        Shapes: table (n, K, C), base (n, C) -> (n, K + 1, C), (n,).
        """
        d, theta = self.settings.discount, self.settings.strength
        total, types = table.sum(2), np.count_nonzero(table, axis=2)  # (n, K)
        features = np.empty((len(table), table.shape[1] + 1, table.shape[2]))
        features[:, 0] = p = base
        taken = np.maximum(table - d, 0)
        for k in range(table.shape[1]):
            below = (theta + d * types[:, k]) / (total[:, k] + theta)
            p = taken[:, k] / (total[:, k] + theta)[:, None] + below[:, None] * p
            features[:, k + 1] = p
        depth = np.count_nonzero(total, axis=1)
        longest = np.where(total > 0, types, 0)[np.arange(len(table)), np.maximum(depth - 1, 0)]
        return np.log(np.maximum(features, 1e-30)), 2 * depth + (longest == 1)

    def _sureness(self, log_p: Floats) -> Ids:
        """How sure the model is, from 0 to SURENESS - 1."""
        other = np.clip(1 - np.exp(log_p.max(1)), 1e-4, 1)
        classes: Ids = np.minimum(SURENESS - 1, (-2 * np.log(other)).astype(np.int64))
        return classes

    def _mixed(self, features: Floats, groups: Sequence[Ids]) -> Floats:
        """The product of the distributions to their exponents, normalised. Shapes: -> (n, C)."""
        pairs = zip(self._exponents, groups, strict=True)
        exponents: Floats = np.sum([e[group] for e, group in pairs], axis=0)  # (n, K + 1)
        logits = np.matmul(exponents[:, None], features)[:, 0]
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
