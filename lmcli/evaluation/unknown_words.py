"""What an unknown token costs: its chance in closed form, and its spelling.

**In:** a tokenizer with its unknown rate; the nats of tokens, given that they are known.
**Out:** nats in which no model gains or loses by its unknown symbol; the nats of spellings.

With `min_count=1` no training example has the unknown symbol u, so what a model gives it is an
accident. In its place, the same for every model:

    q(u | h) = r              r = the unknown rate, by Good and Turing
    q(w | h) = (1 - r) p(w | h) / (1 - p(u | h))           for every known token w

An unknown token stands for one of the texts s that are no known token. P(s) is a Kneser-Ney model
of characters, counted on the known tokens, each once and ended by an end symbol:

    q(s | u) = P(s) / (1 - sum of P over all known tokens)          words
    q(s | u) = 1 / (1,112,064 - known characters)                   characters

So the chances of all texts sum to one. A cache starts from these chances, and counts unknown texts
like other tokens once they were read (`UnknownTexts`, count_cache.py). Where a character has not
been seen in any known token, one symbol stands for all such characters, and they are equally
likely.

Good (1953), "The population frequencies of species and the estimation of population parameters".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lmcli.models.ngram.kneser_ney import KneserNey
from lmcli.tokenizers.base import Encoded, Ids, Tokenizer

Nats = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
AnyNats = TypeVar("AnyNats", Nats, Floats)

ORDER = 6
CHARACTERS = 0x110000 - 0x800
"""all that Unicode can hold: its code points without the surrogates"""
_END, _OTHER, _FIRST = 0, 1, 2
"""ids of the end of a text, of a character of no known token, and of the first that has one"""


class UnknownWords:
    """The costs for one tokenizer; where it has no unknown rate, nothing is changed or added."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._rate = tokenizer.unknown_rate
        self.excluded = None if self._rate is None else tokenizer.unknown
        """the id that a model's own chances must leave out"""
        self.known_nats = 0.0 if self._rate is None else -math.log1p(-self._rate)
        """what it costs to say of a token that it is known"""

    def token_nats(self, ids: Ids, nats: AnyNats) -> AnyNats:
        """The nats of tokens, from those given that each is known."""
        if self._rate is None:
            return nats
        all_nats: AnyNats = nats + nats.dtype.type(self.known_nats)
        all_nats[ids == self.excluded] = -math.log(self._rate)
        return all_nats

    def spelling_nats(self, text: str, encoded: Encoded) -> Nats:
        """For each token of a text what its spelling costs, 0 where it is known."""
        nats = np.zeros(len(encoded.ids), np.float32)
        if self.excluded is not None:
            texts = unknown_texts(self._tokenizer, text, encoded)
            if texts:
                nats[encoded.ids == self.excluded] = spelling(self._tokenizer)(texts)
        return nats


class UnknownTexts:
    """The unknown texts of what is read, with ids of their own, and how often each was read so far.

    With c(s) how often s was read, n the sum and t the number of different ones, as in the cache of
    tokens (count_cache.py)::

        q'(s | u) = (max(c(s) - d, 0) + (theta + d t) q(s | u)) / (n + theta)

    which is q before the first. It sums to one over all unknown texts, as q does. A text that has
    an id is read only when it is added.
    """

    def __init__(self, tokenizer: Tokenizer, discount: float, strength: float) -> None:
        self._tokenizer = tokenizer
        self._discount, self._strength = discount, strength
        self._ids: dict[str, int] = {}
        self._spelt = np.zeros(0)
        self._counts = np.zeros(0)
        self.rate: float = tokenizer.unknown_rate or 0.0
        """r: the chance of an unknown token before anything is counted"""
        self.first = tokenizer.start + 1
        """the id of the first of them; the others follow in the order in which they are met"""

    def ids(self, text: str, encoded: Encoded) -> Ids:
        """The ids of a text, each unknown token with that of its text. Shapes: (N,) -> (N,)."""
        texts = unknown_texts(self._tokenizer, text, encoded) if self.rate else []
        if not texts:
            return encoded.ids
        numbers = [self._ids.setdefault(text, len(self._ids)) for text in texts]
        ids = encoded.ids.astype(np.int64)
        ids[ids == self._tokenizer.unknown] = self.first + np.array(numbers)
        return ids

    def add(self, ids: Ids) -> None:
        """Read tokens, of which the unknown ones are counted."""
        self._meet_all()
        np.add.at(self._counts, ids[ids >= self.first] - self.first, 1)

    def read(self) -> Ids:
        """The ids of those read so far, sorted."""
        return self.first + np.flatnonzero(self._counts)

    def log_chances(self, ids: Ids, text: Ids) -> Floats:
        """ln q' of some unknown texts at each token of the text read next, before it is read.

        Shapes: (U,), (n,) -> (n, U).
        """
        self._meet_all()
        is_unknown = text >= self.first
        is_new = np.zeros(len(text), np.bool_)
        is_new[np.unique(text, return_index=True)[1]] = True
        is_new[is_unknown] &= self._counts[text[is_unknown] - self.first] == 0
        counts = self._counts[ids - self.first] + count_above(text[:, None] == ids)
        types = np.count_nonzero(self._counts) + count_above(is_new & is_unknown)
        total, theta = self._counts.sum() + count_above(is_unknown), self._strength
        backoff = np.log(theta + self._discount * types)[:, None] - self._spelt[ids - self.first]
        with np.errstate(divide="ignore"):
            taken = np.log(np.maximum(counts - self._discount, 0))
        # in logarithms: a long text may have a q of 0 in floating point
        chances: Floats = np.logaddexp(taken, backoff) - np.log(total + theta)[:, None]
        return chances

    def _meet_all(self) -> None:
        """Spell the texts that have an id and no q yet: all at once, which is faster."""
        new = list(self._ids)[len(self._spelt) :] if len(self._ids) > len(self._spelt) else []
        if new:
            self._spelt = np.append(self._spelt, spelling(self._tokenizer)(new))
            self._counts = np.append(self._counts, np.zeros(len(new)))


def count_above(is_it: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many true ones come before each entry of its column. Shapes: (n, ...) -> (n, ...)."""
    counts: npt.NDArray[np.int64] = np.cumsum(is_it, axis=0) - is_it
    return counts


def unknown_texts(tokenizer: Tokenizer, text: str, encoded: Encoded) -> list[str]:
    """What the unknown tokens of a text stand for, in their order."""
    places = np.flatnonzero(encoded.ids == tokenizer.unknown)
    begins, ends = np.append(0, encoded.ends)[places].tolist(), encoded.ends[places].tolist()
    pieces = (text[begin:end] for begin, end in zip(begins, ends, strict=True))
    return [tokenizer.unknown_text(piece) for piece in pieces]


@lru_cache(maxsize=2)
def spelling(tokenizer: Tokenizer) -> Callable[[Sequence[str]], Floats]:
    """-ln q(s | u) of texts, for a tokenizer: the validation and the test part share a model."""
    known = tokenizer.known_texts()
    if tokenizer.spells:  # an unknown token is one character
        nats = math.log(CHARACTERS - len(known))
        return lambda texts: np.full(len(texts), nats)
    return SpelledWords(known).nats


class SpelledWords:
    """Kneser-Ney over the characters of words, for all words but the known ones."""

    def __init__(self, known: Sequence[str]) -> None:
        self._codes = np.unique(_code_points("".join(known)))
        self.table = KneserNey.estimate(self._stream(known), len(self._codes) + _FIRST, ORDER)
        self._other = math.log(CHARACTERS - len(self._codes))
        taken = math.fsum(np.exp(-self._nats(known)))
        self._rest = math.log(max(1e-6, 1 - taken))

    def nats(self, texts: Sequence[str]) -> Floats:
        """-ln q(s | u) of each text, none of them known."""
        return self._nats(texts) + self._rest

    def _nats(self, texts: Sequence[str]) -> Floats:
        """-ln P of each text."""
        stream = self._stream(texts)
        start = self.table.vocabulary
        owner, targets = np.cumsum(stream == start)[1:] - 1, stream[1:]
        read, real = stream[:-1], targets != start
        logs = self.table.log_probabilities(read[None], np.where(real, targets, 0)[None])[0]
        nats = self._other * (targets == _OTHER) - logs
        return np.bincount(owner[real], nats[real], len(texts)).astype(np.float64)

    def _stream(self, texts: Sequence[str]) -> Ids:
        """All texts end to end, each between the start id and the end symbol."""
        codes = _code_points("".join(texts))
        place = np.searchsorted(self._codes, codes)
        is_known = np.append(self._codes, 0)[place] == codes
        ids = np.where(is_known & (place < len(self._codes)), place + _FIRST, _OTHER)
        edges = np.cumsum([0, *map(len, texts)])
        at = np.stack([edges[:-1], edges[1:]], axis=1).ravel()
        return np.insert(ids, at, np.tile([len(self._codes) + _FIRST, _END], len(texts)))


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
