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

So the chances of all texts sum to one. Where a character has not been seen in any known token, one
symbol stands for all such characters, and they are equally likely.

Good (1953), "The population frequencies of species and the estimation of population parameters".
"""

from __future__ import annotations

import math
from collections import Counter
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

    def spelling_nats(
        self, text: str, encoded: Encoded, cache: SpellingCache | None = None
    ) -> Nats:
        """For each token of a text what its spelling costs, 0 where it is known.

        A `cache` makes it cost less where the same was spelt before.
        """
        nats = np.zeros(len(encoded.ids), np.float32)
        places = np.flatnonzero(encoded.ids == (-1 if self.excluded is None else self.excluded))
        if len(places):
            begins, ends = (
                np.append(0, encoded.ends)[places].tolist(),
                encoded.ends[places].tolist(),
            )
            pieces = [text[begin:end] for begin, end in zip(begins, ends, strict=True)]
            texts = [*map(self._tokenizer.unknown_text, pieces)]
            spelt = spelling(self._tokenizer)(texts)
            nats[places] = spelt if cache is None else cache.nats(texts, spelt)
        return nats


class SpellingCache:
    """Counts of the unknown texts read so far; each is scored, then counted.

    With c(s) how often s was read, n the sum and t the number of different ones, as in the cache of
    tokens (count_cache.py)::

        q'(s | u) = (max(c(s) - d, 0) + (theta + d t) q(s | u)) / (n + theta)

    which is q before the first. It sums to one over all unknown texts, as q does.
    """

    def __init__(self, discount: float, strength: float) -> None:
        self._discount, self._strength = discount, strength
        self._counts = Counter[str]()

    def nats(self, texts: Sequence[str], spelt: Floats) -> Floats:
        """-ln q' of each text, in their order, from -ln q. Shapes: (n,) -> (n,)."""
        nats, read, theta = np.empty(len(texts)), self._counts.total(), self._strength
        for i, text in enumerate(texts):
            counted = max(0.0, self._counts[text] - self._discount)
            backoff = theta + self._discount * len(self._counts)
            # in logarithms: a long text may have a q of 0 in floating point
            new = math.log(backoff) - spelt[i]
            both = np.logaddexp(math.log(counted), new) if counted else new
            nats[i] = math.log(read + theta) - both
            self._counts[text] += 1
            read += 1
        return nats


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
