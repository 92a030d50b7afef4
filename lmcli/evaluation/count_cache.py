"""A cache over any model: counts of the text read so far; a token is scored, then counted.

**In:** ln p of all V tokens at each place of a stream, in its order, and the stream.
**Out:** the nats of every token under a mixture of the model and the counts.

For contexts of several lengths k, with c(w) how often w followed the context before, n the sum and
t the number of different w, each distribution smooths the one below, the model at the bottom::

    p_k(w) = (max(c(w) - d, 0) + (theta + d t) p_k-1(w)) / (n + theta)        p_0 = the model

The first time that w follows a context adds 1 to c(w), later ones 2^-j, where j is the number of
longer contexts that it had followed before as well: so tokens that long contexts already predict
do not inflate the counts after shorter ones (partial update exclusion; in full, where only the
longest such context counts, it is that of Bell, Cleary and Witten 1990, "Text Compression").

The model and all p_k are mixed in the logarithm: p(w) is proportional to the product of p_k(w)^a_k,
and in a large vocabulary of further powers, of how much more frequent w was lately than on the
whole (recent_words.py). The exponents a depend on how many contexts were found, on whether the
longest was always followed by the same token, on how sure the model is and, in a small vocabulary,
on the token before. They are learnt while reading, by gradient descent (Adagrad): a block of tokens
is scored, then they change. Everything that a token is scored by comes from before it, and its
distribution over all V tokens sums to one.

With unknown tokens it is one over all texts: each unknown text that was read is a token of its own
from then on, and all others share one entry (unknown_words.py). In a large vocabulary so do all
tokens that never followed the contexts of a place and were not read lately, in blocks before the
present one. In a small one so do unknown texts that never followed the contexts of a place, where
the vocabulary and those read before the block are more than 512. Within the entry they keep the
proportions of the model. Kuhn & De Mori 1990; Mahoney 2005, "Adaptive weighing of context models
for lossless data compression" (PAQ).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.recent_words import RecentWords
from lmcli.evaluation.unknown_words import UnknownTexts, count_above
from lmcli.report.progress import ProgressCounter

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]

LARGE = 512
"""tokens in a vocabulary of which a block looks at some only"""
SURENESS = 8
"""classes of how sure the model is"""
COUNTED = 4096
"""tokens counted at once"""
TINY = 1e-300
"""what a chance that rounds to 0 is taken for"""


@dataclass(frozen=True)
class CacheSettings:
    """How counts become probabilities; the defaults were chosen on validation parts."""

    orders: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 12)
    """lengths of contexts in tokens"""
    discount: float = 0.7
    strength: float = 0.15
    """theta: how many counts the distribution below is worth"""
    update_exclusion: float = 0.5
    """what a token adds to its count after a context, relative to that after the next longer one
    that it had followed before"""
    rate: float = 0.02
    """step size of the exponents"""
    block: int = 32
    """tokens between two steps"""
    own_weight: float = 0.3
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
        return cls(orders=(1, 2, 3), own_weight=0.4, windows=(50, 200, 1000, 5000))

    def to_json(self) -> dict[str, Any]:
        """All of them."""
        return asdict(self) | {"orders": list(self.orders), "windows": list(self.windows)}


class TokenScores(NamedTuple):
    """Of each token the nats, and those of saying whether it is known. Shapes: (n,) each."""

    nats: Floats
    """-ln p; of an unknown one with its spelling"""
    unknown: Floats
    """-ln of the chance that a token is unknown"""
    known: Floats
    """-ln of the chance that it is known"""


class CountCache:
    """Counts and exponents; `nats` scores tokens and learns from them, in the order of the text.

    An `excluded` id is never predicted; the id V begins documents, which the counts go across.
    With `unknown` texts ids above V stand for them: once read they are tokens like others.
    """

    def __init__(
        self,
        vocabulary: int,
        settings: CacheSettings,
        excluded: int | None = None,
        unknown: UnknownTexts | None = None,
    ) -> None:
        self.vocabulary, self.settings, self.excluded = vocabulary, settings, excluded
        self._unknown = unknown
        contexts, windows = len(settings.orders), len(settings.windows)
        self._tables: list[dict[bytes, int | dict[int, float]]] = [{} for _ in settings.orders]
        self._before = np.zeros(0, np.uint32)
        share = (1 - settings.own_weight) / contexts
        groups = [2 * contexts + 2, SURENESS] + [vocabulary + 1] * (vocabulary <= LARGE)
        self._exponents = [np.full((size, contexts + 1 + windows), 0.0) for size in groups]
        first = [settings.own_weight, *[share] * contexts, *[settings.window_weight] * windows]
        self._exponents[0][:] = first
        self._squares = [np.full((size, contexts + 1 + windows), 0.01) for size in groups]
        self._recent = RecentWords(vocabulary, settings.windows, settings.window_strength)

    def count(self, ids: Ids, counter: ProgressCounter | None = None) -> None:
        """Count a stream without scoring it, such as what the model was trained on."""
        for begin in range(0, len(ids) - 1, COUNTED):
            some = ids[begin : begin + COUNTED + 1]
            scored = self._scored(some[1:])
            for _ in self._found(some, scored):
                pass
            self._add(some[1:][scored])
            if counter is not None:
                counter.add(len(some) - 1)

    def nats(self, parts: Iterable[npt.NDArray[np.floating[Any]]], ids: Ids) -> Floats:
        """-ln p of every id but the first; 0 for start ids and the excluded one.

        Shapes: parts (n, V) of ln p, in all (N - 1, V); ids (N,) -> (N - 1,).
        """
        return self.scores(parts, ids).nats

    def scores(self, parts: Iterable[npt.NDArray[np.floating[Any]]], ids: Ids) -> TokenScores:
        """The same, and what it says about each token being known; 0 where there are no nats."""
        scores, place = TokenScores(*np.zeros((3, len(ids) - 1))), 0
        for some in _blocks(parts, self.settings.block):
            end = place + len(some)
            read = ids[place : end + 1]
            scored = self._scored(read[1:])
            if len(scored):
                found = self._block(some[scored].astype(np.float64), read, scored)
                for all_of_them, new in zip(scores, found, strict=True):
                    all_of_them[place + scored] = new
            else:
                self._count(read, scored)
            place = end
        return scores

    def _block(self, log_p: Floats, ids: Ids, scored: Ids) -> TokenScores:
        """The scores of one block; then its counts and its gradient are added.

        Shapes: log_p (n, V), ids (N,), scored (n,), places of the tokens after the first.
        """
        targets = ids[1:][scored]
        cells, tokens, counts = self._count(ids, scored)
        columns = self._columns(tokens, targets)
        entries = len(columns) + self._has_others
        table = np.zeros((len(scored), len(self.settings.orders), entries))
        table.reshape(-1)[cells * entries + np.searchsorted(columns, tokens)] = counts
        has_entry = self._has_entry(table, columns, targets)
        rows, place = np.arange(len(scored)), np.searchsorted(columns, targets)
        is_own = (np.append(columns, -1)[place] == targets) & has_entry[rows, place]
        spelt = self._spelt(columns, targets)
        if self.vocabulary > LARGE:  # what float32 has rounded would be missing from the others
            log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
        base, others_unknown = self._base(log_p, columns, has_entry, spelt)
        own = self._log_base(log_p, spelt, targets, place - (len(columns) - spelt.shape[1]))
        place = np.where(is_own, place, len(columns))
        features, found = self._features(table, base, columns)
        groups = [found, self._sureness(log_p)]
        if self.vocabulary <= LARGE:
            before = ids[:-1][scored]
            spare = self.vocabulary if self.excluded is None else self.excluded
            groups.append(np.where(before > self.vocabulary, spare, before))
        p = self._mixed(features, groups, has_entry)
        nats = -np.log(p[rows, place])
        other = np.flatnonzero(~is_own)
        nats[other] += np.log(base[other, -1]) - own[other]
        unknown, known = self._is_known(p, columns, others_unknown, base[:, -1])
        self._learn(features, groups, p, place)
        self._add(targets)
        return TokenScores(nats, unknown, known)

    def _is_known(
        self, p: Floats, columns: Ids, others_unknown: Floats, others: Floats
    ) -> tuple[Floats, Floats]:
        """-ln of the chances that a token is unknown and that it is known.

        Each is a sum of its own: the difference of the other to 1 may be lost in rounding. The last
        two are what the model gives to all of the last entry, and to unknown texts in it. Shapes:
        (n, C), (C,), (n,), (n,) -> (n,).
        """
        if self._unknown is None:
            return np.full(len(p), np.inf), np.zeros(len(p))
        share = others_unknown / others
        first = int(np.searchsorted(columns, self.vocabulary))
        unknown = p[:, first:-1].sum(1) + p[:, -1] * share
        known = p[:, :first].sum(1) + p[:, -1] * (1 - share)
        return -np.log(np.maximum(unknown, TINY)), -np.log(np.maximum(known, TINY))

    def _scored(self, targets: Ids) -> Ids:
        """The places of tokens that are neither start ids nor the excluded one."""
        is_start = targets == self.vocabulary
        return np.flatnonzero(~is_start & (targets != self.excluded))

    def _add(self, tokens: Ids) -> None:
        """Tokens that were scored or counted."""
        self._recent.add(tokens)
        if self._unknown is not None:
            self._unknown.add(tokens)

    @property
    def _has_others(self) -> bool:
        """Whether there may be tokens without an entry of their own: together they are the last."""
        return self.vocabulary > LARGE or self._unknown is not None

    # -------------------------------------------------------------- counts

    def _count(self, ids: Ids, scored: Ids) -> tuple[Ids, Ids, Floats]:
        """What followed the contexts of each token to be scored, which is counted after that.

        As cells (token of the block, context), tokens and counts, one entry each.
        """
        cells, sizes, tokens, counts = list[int](), list[int](), list[int](), list[float]()
        for row, found in enumerate(self._found(ids, scored)):
            first = row * len(self.settings.orders)
            cells.extend(range(first, first + len(found)))
            for seen in found:
                sizes.append(len(seen))
                tokens.extend(seen)
                counts.extend(seen.values())
        return (
            np.repeat(np.array(cells, np.int64), np.array(sizes, np.int64)),
            np.array(tokens, np.int64),
            np.array(counts, np.float64),
        )

    def _found(self, ids: Ids, scored: Ids) -> Iterator[list[dict[int, float]]]:
        """For each token to be scored the counts after its contexts, the shortest context first.

        Those that were not read before are left out: they are the longest. The token is counted
        when the next one is asked for.
        """
        before, read = self._before, ids.astype(np.uint32)
        if len(before) and before[-1] == read[0]:  # a block of the same stream
            before = before[:-1]
        stream = np.append(before, read)
        text, offset = stream.tobytes(), len(before)
        lengths = [4 * order for order in self.settings.orders]
        for i in scored.tolist():
            target, end = int(ids[i + 1]), 4 * (offset + i + 1)
            found = list[dict[int, float]]()
            for length, table in zip(lengths, self._tables, strict=True):
                if length > end:
                    break
                context = text[end - length : end]
                seen = table.get(context)
                if seen is None:
                    table[context] = target  # alone, which takes less memory than a dictionary
                    continue
                if isinstance(seen, int):
                    table[context] = seen = {seen: 1.0}
                found.append(seen)
            yield found
            added = 1.0
            for seen in reversed(found):
                if target in seen:
                    seen[target] += added
                    added *= self.settings.update_exclusion
                else:
                    seen[target] = 1.0
        self._before = stream[-self.settings.orders[-1] - 1 :]

    def _columns(self, tokens: Ids, targets: Ids) -> Ids:
        """The tokens that have an entry of their own anywhere in this block, sorted."""
        unknown = targets[targets > self.vocabulary]
        return np.unique(np.concatenate([tokens, self._always(), unknown]))

    def _always(self) -> Ids:
        """The tokens that have an entry of their own at each place of this block.

        In a small vocabulary all, with all unknown texts read before it unless they are many, in a
        large one those read lately.
        """
        if self.vocabulary > LARGE:
            return self._recent.tokens()
        every = np.arange(self.vocabulary)
        known = every if self.excluded is None else np.delete(every, self.excluded)
        if self._unknown is None or self._groups_unknown:
            return known
        return np.concatenate([known, self._unknown.read()])

    @property
    def _groups_unknown(self) -> bool:
        """Whether so many unknown texts were read that a small vocabulary groups most of them."""
        read = 0 if self._unknown is None else len(self._unknown.read())
        return self.vocabulary <= LARGE < self.vocabulary - (self.excluded is not None) + read

    def _has_entry(self, table: Floats, columns: Ids, targets: Ids) -> Bools:
        """Which tokens have an entry of their own at each place: it must not depend on later ones.

        Those of `_always`, those that followed a context of the place, unknown texts that were read
        earlier in the block, and all other tokens together, if there are any. Shapes: table
        (n, K, C), columns, targets (n,) -> (n, C).
        """
        found: Bools = np.any(table, axis=1)
        found[:, : len(columns)] |= np.isin(columns, self._always())
        if self._unknown is not None:
            first = int(np.searchsorted(columns, self.vocabulary))
            is_it: Bools = targets[:, None] == columns[first:]
            if not self._groups_unknown:
                found[:, first:-1] |= count_above(is_it) > 0
            found[:, -1] = True  # there is always one that was not read yet
        elif self._has_others:
            found[:, -1] = found[:, :-1].sum(1) < self.vocabulary - (self.excluded is not None)
        return found

    # -------------------------------------------------------------- distributions

    def _spelt(self, columns: Ids, targets: Ids) -> Floats:
        """ln of what the model gives the unknown texts of the block. Shapes: -> (n, U)."""
        if self._unknown is None:
            return np.zeros((len(targets), 0))
        unknown = columns[columns > self.vocabulary]
        return math.log(self._unknown.rate) + self._unknown.log_chances(unknown, targets)

    def _base(
        self, log_p: Floats, columns: Ids, has_entry: Bools, spelt: Floats
    ) -> tuple[Floats, Floats]:
        """The model's p of tokens with an entry of their own and, last, of all others together.

        Also what part of the last belongs to unknown texts. Where there are no others there is no
        last one. Shapes: log_p (n, V), spelt (n, U) -> (n, C), (n,).
        """
        known = columns[columns < self.vocabulary]
        p = np.zeros(has_entry.shape)
        p[:, : len(known)] = np.exp(log_p[:, known])
        if self.vocabulary <= LARGE:
            p /= p.sum(1, keepdims=True)
        unknown, left = 0.0, np.zeros(len(p))
        if self._unknown is not None:
            unknown = self._unknown.rate
            p *= 1 - unknown
            p[:, len(known) : len(columns)] = np.exp(spelt)
        p *= has_entry
        if self._has_others:
            taken = p[:, : len(columns)]
            if self._unknown is not None:
                left = np.maximum(unknown - taken[:, len(known) :].sum(1), 1e-9 * unknown)
            rest = left if self.vocabulary <= LARGE else 1 - taken.sum(1)
            p[:, -1] = np.maximum(rest, np.maximum(left, 1e-9 * (self.vocabulary > LARGE)))
        return p, left

    def _log_base(self, log_p: Floats, spelt: Floats, targets: Ids, place: Ids) -> Floats:
        """The model's ln p of the targets. Shapes: (n, V), (n, U), (n,), (n,) -> (n,)."""
        rows, is_unknown = np.arange(len(targets)), targets > self.vocabulary
        own = log_p[rows, np.where(is_unknown, 0, targets)]
        if self._unknown is not None:
            own += math.log1p(-self._unknown.rate)
            own[is_unknown] = spelt[rows[is_unknown], place[is_unknown]]
        return own

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
