"""Words of a held-out text that came once before: items for `probe recall`, with fair rivals.

**In:** the training part (for an n-gram of three words of context), the held-out
part, the tokenizers under test.
**Out:** blocks of text, the state being reset at the start of each, and `RecallItem`s in them: cue,
target, four foils, a placebo; the same for every model.

A target is a word that stands exactly once before in its block and that its last three words do not
give away. Its foils are as frequent, written alike and absent from the block so far. They are
*balanced* where they are also about as likely after those three words, r of them likelier and 4 - r
less likely than the target, with r drawn from 0 to 4: a model that knows just the three words is
then right in 20 % of all items. Only balanced items are used for forced choice; the swap of the cue
compares a model with itself and needs no balance. The placebo is another content word near the cue.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.probes.base import bucket_bound
from lmcli.models.ngram.model import NGram
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.base import Tokenizer

ORDER, FOILS = 4, 4
FREQUENT = 150
"""types that are no content words"""
LEAST_COUNT, MOST_SHARE = 5, 1e-3
SURPRISING = 0.01
"""what the n-gram may give a target at the most"""
OCTAVE, NEPER = 0.5, 1.0
"""how far a foil's frequency (log2) and n-gram probability (ln) may be from the target's"""
PER_TYPE = 3
AT_ONCE = 256
TRIED = 8
"""candidates that are looked at for each item wanted, at the most"""
NEAREST, FARTHEST = ORDER, 32
"""words between which a placebo lies from the cue; nearer ones are read with the cue as one"""

Flags = npt.NDArray[np.bool_]
Span = tuple[int, int]


@dataclass(frozen=True)
class Placebo:
    """A word near the cue that is exchanged in its stead."""

    span: Span
    word: str
    """what takes its place"""


@dataclass(frozen=True)
class RecallItem:
    """One item. Spans are offsets in its block's text."""

    block: int
    cue: Span
    target: Span
    words: tuple[str, ...]
    """the target, then four foils; the first of them takes the cue's place in a swapped text"""
    between: int
    """words strictly between cue and target"""
    echo: bool
    """whether the word before is the same both times"""
    balanced: bool
    """whether the foils are fair rivals by the n-gram; others may repeat themselves"""
    placebo: Placebo | None


def cut_blocks(texts: Sequence[str], tokenizers: Sequence[Tokenizer], tokens: int) -> list[str]:
    """Blocks of at most `tokens` tokens by every tokenizer, cut at white space."""
    blocks = []
    for text in texts:
        all_ends = [t.encode_with_ends(text).ends for t in tokenizers]
        begin = 0
        while begin < len(text):
            end = len(text)
            for ends in all_ends:
                first = int(np.searchsorted(ends, begin, "right"))
                if first + tokens < len(ends):
                    end = min(end, int(ends[first + tokens - 1]))
            if end < len(text):
                line, blank = text.rfind("\n", begin, end), text.rfind(" ", begin, end)
                end = (line if line - begin > (end - begin) // 2 else blank) + 1 or end
            blocks.append(text[begin:end])
            begin = max(end, begin + 1)
    return blocks


@dataclass(frozen=True)
class _Candidate:
    """A target that came exactly once before: words by their place among those of the block."""

    block: int
    cue: int
    target: int
    distance: int
    """bucket, in characters, which is fair to all tokenizers"""


@dataclass(frozen=True)
class _Block:
    ids: npt.NDArray[Any]
    ends: npt.NDArray[np.int64]


class ItemMiner:
    """Words, their frequencies and an n-gram of order 4, all from the training part."""

    def __init__(self, train: Sequence[str]) -> None:
        cls = TOKENIZERS.load("word")
        self.words: Tokenizer = cls.train(train, cls.Settings())
        ids = encode_documents(self.words, train)
        size = self.words.size
        self.ngram = NGram(size, NGram.Settings(order=ORDER))
        self.ngram.fit_counts(ids)
        counts = np.bincount(ids, minlength=size + 1)[:size].astype(np.float64)
        self.symbols = [self.words.symbol(i) for i in range(size)]
        self.alphabetic: Flags = np.array([s.isalpha() for s in self.symbols])
        rank = np.empty(size, np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(size)
        self.content: Flags = self.alphabetic & (rank >= FREQUENT) & (counts >= LEAST_COUNT)
        self.target: Flags = self.content & (counts <= max(LEAST_COUNT, MOST_SHARE * len(ids)))
        self.log_count = np.log2(np.maximum(counts, 1e-9))
        self.spelling = np.array([_spelling(s) for s in self.symbols])

    def mine(
        self,
        blocks: Sequence[str],
        per_bucket: int,
        fits: Callable[[str], bool],
        rng: np.random.Generator,
    ) -> list[RecallItem]:
        """At most `per_bucket` items a bucket of distance, balanced ones first.

        At most three of a word in each. `fits` says whether a word can be asked at all.
        """
        read = [_Block(e.ids, e.ends) for e in map(self.words.encode_with_ends, blocks)]
        found = [c for number, block in enumerate(read) for c in self._candidates(number, block)]
        buckets: dict[int, list[_Candidate]] = {}
        for place in rng.permutation(len(found)).tolist():
            buckets.setdefault(found[place].distance, []).append(found[place])
        items: list[RecallItem] = []
        for _, candidates in sorted(buckets.items()):
            types, balanced, others = Counter[str](), list[RecallItem](), list[RecallItem]()
            for item in self._items(read, candidates[: TRIED * per_bucket], rng):
                if types[item.words[0]] < PER_TYPE and all(map(fits, item.words)):
                    types[item.words[0]] += 1
                    (balanced if item.balanced else others).append(item)
                if len(balanced) == per_bucket:
                    break
            items += [*balanced, *others][:per_bucket]
        return items

    def _candidates(self, number: int, block: _Block) -> Iterator[_Candidate]:
        earlier: dict[int, list[int]] = {}
        for t, word in enumerate(block.ids.tolist()):
            places = earlier.setdefault(word, [])
            if len(places) == 1 and self.target[word] and t - places[0] > 1:
                length = len(self.symbols[word])
                chars = int(block.ends[t]) - length - int(block.ends[places[0]])
                yield _Candidate(number, places[0], t, bucket_bound(max(1, chars)))
            places.append(t)

    def _items(
        self, blocks: Sequence[_Block], candidates: Sequence[_Candidate], rng: np.random.Generator
    ) -> Iterator[RecallItem]:
        """Those that the last three words do not give away."""
        start = np.full(ORDER - 1, self.words.start)
        for begin in range(0, len(candidates), AT_ONCE):
            some = candidates[begin : begin + AT_ONCE]
            padded = [np.concatenate([start, blocks[c.block].ids[: c.target]]) for c in some]
            read = np.stack([ids[-ORDER + 1 :] for ids in padded])
            logs = np.log(self.ngram.table.distributions(read, 1)[:, 0])  # (B, V)
            for c, row in zip(some, logs, strict=True):
                if item := self._item(c, blocks[c.block], row, rng):
                    yield item

    def _item(
        self, c: _Candidate, block: _Block, logs: npt.NDArray[Any], rng: np.random.Generator
    ) -> RecallItem | None:
        """An item, None where the n-gram expects the target or no other word is like it."""
        word = int(block.ids[c.target])
        if logs[word] >= math.log(SURPRISING):
            return None
        alike = self._alike(word)
        alike[block.ids[: c.target]] = False
        foils = _balanced_foils(alike, logs, word, rng)
        balanced = foils is not None
        if foils is None:
            rest = np.flatnonzero(alike)
            if len(rest) == 0:
                return None
            foils = np.resize(rng.permutation(rest)[:FOILS], FOILS)
        length = len(self.symbols[word])
        cue, target = ((int(e) - length, int(e)) for e in block.ends[[c.cue, c.target]])
        echo = c.cue > 0 and block.ids[c.cue - 1] == block.ids[c.target - 1]
        words = tuple(self.symbols[i] for i in (word, *foils))
        placebo = self._placebo(c, block, foils, rng)
        between = c.target - c.cue - 1
        return RecallItem(c.block, cue, target, words, between, bool(echo), balanced, placebo)

    def _alike(self, word: int) -> Flags:
        """Words as frequent as this one and written alike."""
        alike: Flags = self.alphabetic & (self.spelling == self.spelling[word])
        alike &= np.abs(self.log_count - self.log_count[word]) <= OCTAVE
        return alike

    def _placebo(
        self, c: _Candidate, block: _Block, foils: npt.NDArray[Any], rng: np.random.Generator
    ) -> Placebo | None:
        """The content word nearest to the cue, and another one for its place."""
        for distance in range(NEAREST, FARTHEST):
            for place in (c.cue + distance, c.cue - distance):
                if not 0 <= place < c.target - ORDER + 1:
                    continue
                word = int(block.ids[place])
                if self.content[word] and word != block.ids[c.target]:
                    alike = self._alike(word)
                    alike[block.ids[: c.target + 1]] = alike[foils] = False
                    if alike.any():
                        end = int(block.ends[place])
                        other = self.symbols[int(rng.choice(np.flatnonzero(alike)))]
                        return Placebo((end - len(self.symbols[word]), end), other)
        return None


def _balanced_foils(
    alike: Flags, logs: npt.NDArray[Any], word: int, rng: np.random.Generator
) -> npt.NDArray[Any] | None:
    """Four words on both sides of the target's probability, None where there are not enough."""
    near = alike & (np.abs(logs - logs[word]) <= NEPER)
    above = np.flatnonzero(near & (logs > logs[word]))
    below = np.flatnonzero(near & (logs < logs[word]))
    if min(len(above), len(below)) < FOILS:
        return None
    likelier = int(rng.integers(FOILS + 1))
    sides = ((above, likelier), (below, FOILS - likelier))
    foils = np.concatenate([rng.choice(ids, n, replace=False) for ids, n in sides])
    rng.shuffle(foils)
    return foils


def _spelling(word: str) -> int:
    """A number for capitals and for the article it takes: a or an."""
    capital = 0 if word.islower() else 1 if word[:1].isupper() and word[1:].islower() else 2
    if len(word) == 1 and word.isupper():
        capital = 1
    return 2 * capital + (word[:1].lower() in set("aeiou"))
