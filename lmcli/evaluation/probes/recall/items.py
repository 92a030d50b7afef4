"""Words of a held-out text that came once before: items for `probe recall`, with fair rivals.

**In:** the training part (for an n-gram of three words of context), the held-out
part, the tokenizers under test.
**Out:** `Block`s of text and `RecallItem` items: cue, target, four foils; the same for every model.

A target is a word that stands exactly once before in its block and that its last three words do not
give away. Its foils are as frequent, written alike, absent from the block so far, and about as
likely after those three words; r of them are likelier and 4 - r less likely than the target, with r
drawn from 0 to 4, so that a model that knows just the three words is right in 20 % of all items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.data.token_cache import encode_documents
from lmcli.evaluation.probes.base import bucket_bound
from lmcli.models.ngram.kneser_ney import KneserNey
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

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """A stretch of held-out text; the state is reset at its start."""

    text: str


@dataclass(frozen=True)
class RecallItem:
    """One item. Places are offsets in its block's text."""

    block: int
    cue: tuple[int, int]
    target: tuple[int, int]
    words: tuple[str, ...]
    """the target, then four foils; the first of them takes the cue's place in a swapped text"""
    between: int
    """words strictly between cue and target"""
    echo: bool
    """whether the word before is the same both times"""
    ngram_right: bool
    """whether the n-gram of order 4 picks the target"""


def cut_blocks(pieces: Sequence[str], tokenizers: Sequence[Tokenizer], tokens: int) -> list[Block]:
    """Blocks of at most `tokens` tokens by every tokenizer, cut at white space."""
    blocks = []
    for piece in pieces:
        all_ends = [t.encode_with_ends(piece).ends for t in tokenizers]
        begin = 0
        while begin < len(piece):
            end = len(piece)
            for ends in all_ends:
                first = int(np.searchsorted(ends, begin, "right"))
                if first + tokens < len(ends):
                    end = min(end, int(ends[first + tokens - 1]))
            if end < len(piece):
                line, blank = piece.rfind("\n", begin, end), piece.rfind(" ", begin, end)
                end = (line if line - begin > (end - begin) // 2 else blank) + 1 or end
            blocks.append(Block(piece[begin:end]))
            begin = max(end, begin + 1)
    return blocks


class ItemMiner:
    """Words, their frequencies and an n-gram of order 4, all from the training part."""

    def __init__(self, train: Sequence[str]) -> None:
        cls = TOKENIZERS.load("word")
        self.words: Tokenizer = cls.train(train, cls.Settings())
        ids = encode_documents(self.words, train)
        size = self.words.size
        self.ngram = KneserNey.estimate(ids, size, ORDER)
        counts = np.bincount(ids, minlength=size + 1)[:size].astype(np.float64)
        self.symbols = [self.words.symbol(i) for i in range(size)]
        alphabetic = np.array([s.isalpha() for s in self.symbols])
        rank = np.empty(size, np.int64)
        rank[np.argsort(-counts, kind="stable")] = np.arange(size)
        self.content: Flags = alphabetic & (rank >= FREQUENT) & (counts >= LEAST_COUNT)
        self.target: Flags = self.content & (counts <= max(LEAST_COUNT, MOST_SHARE * len(ids)))
        self.log_count = np.log2(np.maximum(counts, 1e-9))
        self.spelling = np.array([_spelling(s) for s in self.symbols])
        self.alphabetic: Flags = alphabetic

    def candidates(self, number: int, block: Block) -> list[_Candidate]:
        """Every target of a block that came exactly once before."""
        encoded = self.words.encode_with_ends(block.text)
        ids = encoded.ids.tolist()
        padded = np.concatenate([np.full(ORDER - 1, self.words.start), encoded.ids])
        seen: dict[int, list[int]] = {}
        found = []
        for t, word in enumerate(ids):
            places = seen.setdefault(word, [])
            if len(places) == 1 and self.target[word] and t - places[0] > 1:
                j = places[0]
                spans = [(int(encoded.ends[p]) - len(self.symbols[word])) for p in (j, t)]
                cue, target = ((s, s + len(self.symbols[word])) for s in spans)
                echo = j > 0 and ids[j - 1] == ids[t - 1]
                before = padded[t : t + ORDER - 1]
                absent = np.array(sorted(seen))
                found.append(_Candidate(number, word, cue, target, t - j - 1, echo, before, absent))
            places.append(t)
        return found

    def items(self, candidates: Sequence[_Candidate], rng: np.random.Generator) -> list[RecallItem]:
        """Those candidates for which there are fair foils."""
        found: list[RecallItem] = []
        for begin in range(0, len(candidates), AT_ONCE):
            some = candidates[begin : begin + AT_ONCE]
            read = np.stack([c.before for c in some])
            logs = np.log(self.ngram.distributions(read, 1)[:, 0])  # (B, V)
            for candidate, row in zip(some, logs, strict=True):
                item = self._item(candidate, row, rng)
                if item:
                    found.append(item)
        return found

    def _item(
        self, c: _Candidate, logs: npt.NDArray[Any], rng: np.random.Generator
    ) -> RecallItem | None:
        """An item with foils on both sides of the target, None where there are not enough."""
        own = logs[c.word]
        if own >= math.log(SURPRISING):
            return None
        fit = self.alphabetic & (self.spelling == self.spelling[c.word])
        fit &= np.abs(self.log_count - self.log_count[c.word]) <= OCTAVE
        fit &= np.abs(logs - own) <= NEPER
        fit[c.seen] = False
        above = np.flatnonzero(fit & (logs > own))
        below = np.flatnonzero(fit & (logs < own))
        if min(len(above), len(below)) < FOILS:
            return None
        likelier = int(rng.integers(FOILS + 1))
        foils = np.concatenate(
            [
                rng.choice(above, likelier, replace=False),
                rng.choice(below, FOILS - likelier, replace=False),
            ]
        )
        rng.shuffle(foils)
        words = tuple(self.symbols[i] for i in (c.word, *foils))
        right = likelier == 0
        return RecallItem(c.block, c.cue, c.target, words, c.between, c.echo, right)


@dataclass(frozen=True)
class _Candidate:
    block: int
    word: int
    cue: tuple[int, int]
    target: tuple[int, int]
    between: int
    echo: bool
    before: npt.NDArray[np.int64]
    seen: npt.NDArray[np.int64]


def _spelling(word: str) -> int:
    """A number for capitals and for the article it takes: a or an."""
    capital = 0 if word.islower() else 1 if word[:1].isupper() and word[1:].islower() else 2
    if len(word) == 1 and word.isupper():
        capital = 1
    return 2 * capital + (word[:1].lower() in set("aeiou"))


def choose_items(
    items: Sequence[RecallItem], per_bucket: int, rng: np.random.Generator
) -> list[RecallItem]:
    """In random order, at most `per_bucket` a bucket of distance, and three of a word in each."""
    kept: list[RecallItem] = []
    buckets: dict[int, int] = {}
    types: dict[tuple[int, str], int] = {}
    for place in rng.permutation(len(items)).tolist():
        item = items[place]
        # counted in characters, which is fair to all tokenizers
        bucket = bucket_bound(item.target[0] - item.cue[1])
        key = bucket, item.words[0]
        if buckets.get(bucket, 0) < per_bucket and types.get(key, 0) < PER_TYPE:
            buckets[bucket] = buckets.get(bucket, 0) + 1
            types[key] = types.get(key, 0) + 1
            kept.append(item)
    return kept
