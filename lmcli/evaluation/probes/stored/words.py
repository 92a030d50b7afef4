"""Which words came how long ago: labels for states, and pairs of texts that differ in one word.

**In:** training and held-out texts, a tokenizer.
**Out:** `Excerpts`: pieces of text as ids, and where words of middling frequency end in them;
`Swap`s: held-out places where such a word came once, N tokens ago, with another in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.probes.sampling import Places, powers, random_slices, stretches
from lmcli.evaluation.state_batches import Ids
from lmcli.registry import TOKENIZERS
from lmcli.tokenizers.base import Tokenizer

PIECE = 1024
"""tokens of a piece, at the most"""
FREQUENT, LEAST_COUNT = 150, 5
"""types that are no content words, at the most; how often others must come in the fitted text"""
WARM = 64
"""tokens read before a word that is exchanged"""
SHARE = 5
"""of as many pieces one chooses the penalty"""

Labels = npt.NDArray[np.float32]


class Vocabulary:
    """Words of middling frequency, numbered by it, the most frequent first."""

    def __init__(self, texts: Sequence[str], most: int) -> None:
        cls = TOKENIZERS.load("word")
        self.words: Tokenizer = cls.train(texts, cls.Settings())
        size = self.words.size
        ids = np.concatenate([self.words.encode(text) for text in texts])
        counts = np.bincount(ids, minlength=size)[:size]
        alphabetic = [i for i in range(size) if self.words.symbol(i).isalpha()]
        ranked = sorted(alphabetic, key=lambda i: -int(counts[i]))
        ranked = [i for i in ranked if counts[i] >= LEAST_COUNT]
        chosen = ranked[min(FREQUENT, len(ranked) // 4) :][:most]
        self.symbols = [self.words.symbol(i) for i in chosen]
        self.octave = np.log2(np.maximum(1, counts[chosen])).astype(np.int64)
        self.number = np.full(size + 1, -1)
        self.number[chosen] = np.arange(len(chosen))

    def __len__(self) -> int:
        return len(self.symbols)

    def find(self, text: str) -> tuple[Places, Places]:
        """The words of a text by number, and the characters they end at."""
        encoded = self.words.encode_with_ends(text)
        numbers = self.number[encoded.ids]
        return numbers[numbers >= 0], encoded.ends[numbers >= 0]


@dataclass(frozen=True)
class Excerpt:
    """A piece of text as a model reads it."""

    text: str
    ids: Ids
    """with the start id"""
    ends: Places
    """characters of the text up to each id"""
    words: Places
    last: Places
    """the place in `ids` of the last token of each word"""


def pieces(
    tokenizer: Tokenizer, texts: Sequence[str], most: int, rng: np.random.Generator
) -> list[tuple[str, Ids, Places]]:
    """Random pieces of the texts of `most` tokens in all: text, ids with the start id, ends."""
    found, total = list[tuple[str, Ids, Places]](), 0
    for part in random_slices(texts, rng):
        encoded, begin = tokenizer.encode_with_ends(part), 0
        for first in range(0, len(encoded.ids), PIECE):
            ids, ends = (a[first : first + PIECE] for a in (encoded.ids, encoded.ends))
            text = part[begin : int(ends[-1])]
            ids = np.append(tokenizer.start, ids).astype(np.int64)
            found.append((text, ids, np.append(0, ends - begin)))
            begin, total = int(ends[-1]), total + len(ids)
        if total >= most:
            break
    return found


def label(vocabulary: Vocabulary, some: Sequence[tuple[str, Ids, Places]]) -> list[Excerpt]:
    """Pieces with their words."""
    excerpts = []
    for text, ids, ends in some:
        words, chars = vocabulary.find(text)
        excerpts.append(Excerpt(text, ids, ends, words, np.searchsorted(ends, chars, "left")))
    return excerpts


def came(excerpts: Sequence[Excerpt], places: Places, low: int, high: int) -> tuple[Places, Places]:
    """Which words came `low` to `high` tokens ago, the token read last being 1 token ago.

    Shapes: places (N, 2), excerpt and token -> rows and words of the labels that are 1.
    """
    rows, columns = list[Places](), list[Places]()
    for number, excerpt in enumerate(excerpts):
        mine = np.flatnonzero(places[:, 0] == number)
        token = places[mine, 1]
        first = np.searchsorted(excerpt.last, token - high + 1, "left")
        end = np.searchsorted(excerpt.last, token - low + 1, "right")
        counts = end - first
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows.append(np.repeat(mine, counts))
        columns.append(excerpt.words[np.repeat(first, counts) + inside])
    return np.concatenate(rows), np.concatenate(columns)


def table(rows: Places, columns: Places, count: int, words: int) -> Labels:
    """Labels 0 and 1. Shapes: -> (count, words)."""
    labels = np.zeros((count, words), np.float32)
    labels[rows, columns] = 1.0
    return labels


# ------------------------------------------------------------------ pairs of texts


@dataclass(frozen=True)
class Swap:
    """A place at which `word` came once, `lag` tokens ago; and the same with `foil` in its stead.

    The texts are the same up to the word and after it.
    """

    stretch: int
    """of the held-out text"""
    lag: int
    bucket: int
    word: int
    foil: int
    before: Ids
    real: Ids
    swapped: Ids


def find_swaps(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    excerpts: Sequence[Excerpt],
    longest: int,
    most: int,
    rng: np.random.Generator,
) -> list[Swap]:
    """At most `most` for each bucket of lags 1, 2, 3-4, ... up to `longest`."""
    events = [(n, k) for n, e in enumerate(excerpts) for k in range(len(e.words))]
    begins = np.cumsum([0, *(len(e.ids) for e in excerpts)])
    swaps = list[Swap]()
    for high in powers(longest):
        found = list[Swap]()
        for number in rng.permutation(len(events)).tolist():
            excerpt, k = events[number]
            lag = int(rng.integers(high // 2 + 1, high + 1))
            swap = _swap(tokenizer, vocabulary, excerpts[excerpt], k, lag, longest, rng)
            if swap:
                place = begins[excerpt : excerpt + 1] + excerpts[excerpt].last[k]
                stretch = int(stretches(place, int(begins[-1]))[0])
                found.append(replace(swap, stretch=stretch))
            if len(found) == most:
                break
        swaps += found
    return swaps


def _swap(
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    excerpt: Excerpt,
    k: int,
    lag: int,
    longest: int,
    rng: np.random.Generator,
) -> Swap | None:
    """None where the piece ends before, the word came again, or no other is as frequent."""
    word, at = int(excerpt.words[k]), int(excerpt.last[k])
    token = at + lag - 1
    if token >= len(excerpt.ids):
        return None
    recent = excerpt.words[(excerpt.last > token - longest) & (excerpt.last <= token)]
    if (recent == word).sum() != 1:
        return None
    foils = np.flatnonzero(vocabulary.octave == vocabulary.octave[word])
    foils = np.setdiff1d(foils, recent)
    if not len(foils):
        return None
    foil = int(rng.choice(foils))
    chars = int(excerpt.ends[at])
    begin = _blank(excerpt.text, int(excerpt.ends[max(0, at - WARM)]))
    begin = begin if begin <= chars - len(vocabulary.symbols[word]) else 0
    left = excerpt.text[begin : chars - len(vocabulary.symbols[word])]
    right = excerpt.text[chars : int(excerpt.ends[token])]
    texts = (left + vocabulary.symbols[w] + right for w in (word, foil))
    real, swapped = (tokenizer.encode(text).astype(np.int64) for text in texts)
    shorter = min(len(real), len(swapped))
    same = int((real[:shorter] == swapped[:shorter]).cumprod().sum())
    same = min(same, shorter - 1)
    head = [tokenizer.start] if begin == 0 else []
    before = np.append(head, real[:same]).astype(np.int64)
    bucket = 1 << (lag - 1).bit_length()
    return Swap(0, lag, bucket, word, foil, before, real[same:], swapped[same:])


def _blank(text: str, begin: int) -> int:
    """The end of the first blank from a place on; 0 for the beginning."""
    found = text.find(" ", begin) if begin else -1
    return found + 1


def groups(places: Places) -> npt.NDArray[Any]:
    """Which places choose the penalty: those of every fifth piece."""
    held: npt.NDArray[Any] = places[:, 0] % SHARE == SHARE - 1
    return held
