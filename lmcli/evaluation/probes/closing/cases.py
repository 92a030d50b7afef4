"""Pairs of a text -> pairs of its tokens, by gap, and what is exchanged in each.

**In:** a tokenizer, held-out documents, documents in which tokens are counted.
**Out:** `Case`s: where opener and closer stand, other tokens for the opener, and for the control
another word for one before the opener.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmcli.evaluation.probes.base import bucket_bound
from lmcli.evaluation.probes.closing.pairs import MARKS, Pair, find_pairs
from lmcli.evaluation.probes.sampling import Places, stretches
from lmcli.evaluation.state_batches import Ids
from lmcli.tokenizers.base import Offsets, Tokenizer

SIMILAR = 8
"""of the tokens with a letter or a digit those nearest in frequency, from which one is drawn"""
BEFORE = 16
"""tokens before the opener in which the word for the control is drawn, at the most"""
FEWEST, FEWEST_STRETCHES = 20, 8
"""pairs of a range of gaps, and stretches of text that they come from, at the least"""


@dataclass(frozen=True)
class TokenPair:
    """An opener and its closer in tokens."""

    ids: Ids
    """of the document, the start id first"""
    opener: int
    between: int
    """the first token after the opener"""
    closer: int
    end: int
    """the first token after the closer"""
    place: int
    """of the opener in the whole text"""

    @property
    def gap(self) -> int:
        """Tokens strictly between."""
        return self.closer - self.between


def find_token_pairs(
    tokenizer: Tokenizer, texts: Sequence[str], longest: int
) -> tuple[list[TokenPair], int, int]:
    """Those with 1 to `longest` tokens between; how many others were merged; tokens of the text.

    Merged: the token of the opener holds more than it. Pairs with an unknown token are left out.
    """
    found, merged, before = list[TokenPair](), 0, 0
    for text in texts:
        encoded = tokenizer.encode_with_ends(text)
        ids = np.concatenate([[tokenizer.start], encoded.ids]).astype(np.int64)
        for pair in find_pairs(text):
            begin, between = token_span(encoded.ends, *pair.opener)
            closer, end = token_span(encoded.ends, *pair.closer)
            if not is_alone(text, encoded.ends, pair, begin, between):
                merged += 1
            elif 1 <= closer - between <= longest:
                own = TokenPair(ids, begin + 1, between + 1, closer + 1, end + 1, before + begin)
                marks = [*ids[own.opener : own.between], *ids[own.closer : own.end]]
                if tokenizer.unknown is None or tokenizer.unknown not in marks:
                    found.append(own)
        before += len(ids)
    return found, merged, before


def token_span(ends: Offsets, begin: int, end: int) -> tuple[int, int]:
    """The tokens that hold some characters, the last not among them.

    A token without characters, such as the first bytes of a sign, belongs to what follows it.
    """
    first = int(np.searchsorted(ends, begin)) if begin else 0
    if begin and ends[first] == begin:
        first += 1
    return first, int(np.searchsorted(ends, end)) + 1


def is_alone(text: str, ends: Offsets, pair: Pair, begin: int, end: int) -> bool:
    """Whether these tokens hold the opener and blanks, and nothing else."""
    edge = int(ends[begin - 1]) if begin else 0
    return text[edge : int(ends[end - 1])].strip() == text[slice(*pair.opener)]


@dataclass(frozen=True)
class Range:
    """Pairs with similar gaps."""

    low: int
    high: int
    """gaps, both bounds of buckets"""
    pairs: list[TokenPair]
    stretches: Places
    """of text, that the pairs come from"""


def ranges(found: Sequence[TokenPair], total: int) -> list[Range]:
    """By gap: a bucket, or as many neighbours as it takes to have enough pairs.

    What is left over at the end is too few. `total` is the number of tokens of the text.
    """
    complete, pending, low = list[Range](), list[TokenPair](), 0
    for bound in sorted({bucket_bound(pair.gap) for pair in found}):
        low = low or bound // 2 + 1
        pending += [pair for pair in found if bucket_bound(pair.gap) == bound]
        blocks = stretches(np.array([pair.place for pair in pending]), total)
        if len(pending) >= FEWEST and len(np.unique(blocks)) >= FEWEST_STRETCHES:
            complete.append(Range(low, bound, pending, blocks))
            pending, low = [], 0
    return complete


# ------------------------------------------------------------------ what is exchanged


@dataclass(frozen=True)
class Case:
    """A pair, and what comes in place of its tokens."""

    pair: TokenPair
    others: Ids
    """in place of those of the opener"""
    place: int | None
    """of the word that is exchanged for the control; None where there is none"""
    word: int
    """what comes in its place"""

    @property
    def begin(self) -> int:
        """The first token that is exchanged in any way."""
        return self.pair.opener if self.place is None else self.place

    def rows(self) -> list[Ids]:
        """From there to the closer: as it is, without the opener, with another word."""
        begin, opener = self.begin, self.pair.opener - self.begin
        real, exchanged, control = (self.pair.ids[begin : self.pair.end].copy() for _ in range(3))
        exchanged[opener : opener + len(self.others)] = self.others
        if self.place is not None:
            control[0] = self.word
        return [real, exchanged, control]


class SimilarTokens:
    """Tokens that are about as frequent as another, have a letter or a digit, and no mark."""

    def __init__(self, counted: Sequence[Ids], tokenizer: Tokenizer) -> None:
        counts = np.bincount(np.concatenate(counted), minlength=tokenizer.size + 1)[:-1]
        texts = [tokenizer.decode([i]) for i in range(tokenizer.size)]
        self.words = np.array([any(map(str.isalnum, t)) and not MARKS & {*t} for t in texts])
        if tokenizer.unknown is not None:
            self.words[tokenizer.unknown] = False
        self.logs = np.log(np.maximum(counts, 1))
        some = np.flatnonzero(self.words & (counts > 0))
        self.pool = some[np.argsort(self.logs[some], kind="stable")]
        """the least frequent first"""

    @property
    def possible(self) -> bool:
        """Whether there is another token for each."""
        return len(self.pool) > 1

    def draw(self, token: int, rng: np.random.Generator) -> int:
        """One of the nearest in frequency."""
        middle = int(np.searchsorted(self.logs[self.pool], self.logs[token]))
        near = self.pool[max(0, middle - SIMILAR) : middle + SIMILAR + 1]
        near = near[near != token]
        apart = np.abs(self.logs[near] - self.logs[token])
        return int(rng.choice(near[np.argsort(apart, kind="stable")[:SIMILAR]]))

    def exchange(self, pair: TokenPair, rng: np.random.Generator) -> Case:
        """Others for the opener, and for a word that is as far back as it, or a little farther."""
        others = [self.draw(int(i), rng) for i in pair.ids[pair.opener : pair.between]]
        first = max(1, pair.opener - min(BEFORE, max(2, pair.gap // 2)))
        places = first + np.flatnonzero(self.words[pair.ids[first : pair.opener]])
        if not len(places):
            return Case(pair, np.array(others), None, 0)
        place = int(rng.choice(places))
        return Case(pair, np.array(others), place, self.draw(int(pair.ids[place]), rng))
