"""The nats of every token -> sums -> every rate that is reported.

**In:** texts with the nats of their tokens.
**Out:** a `Score`: perplexities, bits per character and per byte, and how sure they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from lmcli.evaluation.statistics import Floats, stretch_variance
from lmcli.report.progress import Message, OnProgress
from lmcli.tokenizers.base import Ids


@dataclass(frozen=True)
class ScoredText:
    """A text with the nats of each of its tokens.

    `ends` are offsets in `text`; the token before it ends where the next begins.
    """

    text: str
    ids: Ids
    ends: npt.NDArray[np.int64]
    nats: npt.NDArray[np.float32]
    unknown: int | None
    spelling: npt.NDArray[np.float32] | None = None
    """the nats of how unknown tokens are spelt, 0 for others; None where there is no such model"""
    known_nats: float | Floats = 0.0
    """how many of the nats of each known token say that it is known: of all or of each"""

    def spans(self) -> list[tuple[int, int]]:
        """Where each token begins and ends in the text."""
        begins = np.append(0, self.ends)[:-1]
        return list(zip(begins.tolist(), self.ends.tolist(), strict=True))

    def lines(self) -> list[ScoredText]:
        """Line by line; a token that crosses a line end belongs to the line it begins in."""
        stops = np.cumsum([len(line) for line in self.text.splitlines(keepends=True)])
        begins = np.append(0, self.ends)[:-1]
        # a token of no width after the last character belongs to the last line
        owner = np.minimum(np.searchsorted(stops, begins, side="right"), len(stops) - 1)
        parts = []
        for i, (start, stop) in enumerate(pairwise([0, *stops.tolist()])):
            mine = owner == i
            ends = np.clip(self.ends[mine], start, stop) - start
            spelling = None if self.spelling is None else self.spelling[mine]
            known = np.broadcast_to(self.known_nats, self.nats.shape)[mine]
            tokens: Any = {"ids": self.ids[mine], "ends": ends, "nats": self.nats[mine]}
            tokens |= {"spelling": spelling, "known_nats": known}
            parts.append(replace(self, text=self.text[start:stop], **tokens))
        return parts


@dataclass(frozen=True)
class Score:
    """Sums over a text; every rate is derived from them. Nats, not bits.

    Blocks are chunks of the text of equal length in characters, the same for every tokenizer, so
    that two models can be compared block by block.
    """

    nats: float
    tokens: int
    chars: int
    bytes: int
    words: int
    unknown_tokens: int
    unknown_nats: float
    """of unknown tokens, and what says of the others that they are known"""
    block_nats: Floats
    """with those of the spelling"""
    block_chars: Floats
    spelling_nats: float = 0.0
    """of unknown tokens, beside `nats`; 0 where they are not spelt"""

    @classmethod
    def of(cls, texts: Sequence[ScoredText]) -> Score:
        """Of scored texts, taken end to end."""
        lengths = [len(t.text) for t in texts]
        sums = ScoreAccumulator(sum(lengths), texts[0].unknown)
        for text in texts:
            sums.add_text(text.text)
        ends = [t.ends + o for t, o in zip(texts, np.cumsum([0, *lengths]), strict=False)]
        spelling = [np.zeros_like(t.nats) if t.spelling is None else t.spelling for t in texts]
        known = [np.broadcast_to(t.known_nats, t.nats.shape) for t in texts]
        tokens = ([t.ids for t in texts], ends, [t.nats for t in texts], spelling, known)
        sums.add_tokens(*map(np.concatenate, tokens))
        return sums.score()

    def __add__(self, other: Score) -> Score:
        """The sums over both texts; the blocks of one follow those of the other."""
        sums: Any = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(Score)
            if not f.name.startswith("block_")
        }
        sums["block_nats"] = np.concatenate([self.block_nats, other.block_nats])
        sums["block_chars"] = np.concatenate([self.block_chars, other.block_chars])
        return Score(**sums)

    @property
    def nats_per_token(self) -> float:
        """Mean surprisal of a token."""
        return _ratio(self.nats, self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of the mean nats of a token; an unknown one counts, its spelling does not."""
        return _exp(self.nats_per_token)

    @property
    def perplexity_without_unknown(self) -> float:
        """The same over the tokens that are in the vocabulary, given that they are."""
        return _exp(_ratio(self.nats - self.unknown_nats, self.tokens - self.unknown_tokens))

    @property
    def text_nats(self) -> float:
        """Those of the tokens and of the spelling of unknown ones: together they give the text."""
        return self.nats + self.spelling_nats

    @property
    def bits_per_char(self) -> float:
        """Bits a character: comparable between tokenizers."""
        return _ratio(self.text_nats / math.log(2), self.chars)

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of UTF-8."""
        return _ratio(self.text_nats / math.log(2), self.bytes)

    @property
    def word_perplexity(self) -> float:
        """exp of the nats that fall on one word (what stands between blanks)."""
        return _exp(_ratio(self.text_nats, self.words))

    @property
    def standard_error(self) -> float:
        """Standard error of bits_per_char, from 20 stretches of the text; nan for one block."""
        return math.sqrt(stretch_variance(self.block_nats, self.block_chars)) / math.log(2)

    def to_json(self) -> dict[str, float | int]:
        """The keys of ``lmcli eval --json``."""
        return {name: getattr(self, name) for name in REPORTED}


REPORTED = (
    "tokens", "chars", "bytes", "words", "nats", "perplexity", "perplexity_without_unknown",
    "unknown_tokens", "spelling_nats", "bits_per_char", "bits_per_byte", "word_perplexity",
    "standard_error",
)  # fmt: skip
MOST_BLOCKS, LEAST_BLOCK = 2000, 20


def block_width(chars: int) -> int:
    """Characters in a block: about 1,000, less for a short text, more for a very long one."""
    return max(LEAST_BLOCK, min(1000, chars // 50), chars // MOST_BLOCKS)


class ScoreAccumulator:
    """Adds up a text of `chars` characters as it is scored, some tokens at a time."""

    def __init__(self, chars: int, unknown: int | None) -> None:
        self._chars = chars
        self._unknown = -1 if unknown is None else unknown
        self._width = block_width(chars)
        self._blocks = max(1, chars // self._width)
        self._block_nats = np.zeros(self._blocks)
        self._nats: list[float] = []
        self._unknown_nats: list[float] = []
        self._spelling_nats: list[float] = []
        self._tokens = self._unknown_tokens = self._bytes = self._words = 0

    def add_text(self, text: str, within_word: bool = False) -> None:
        """Count bytes and words; `within_word` says that the first word has been counted."""
        self._bytes += len(text.encode("utf-8", "surrogatepass"))
        self._words += len(text.split()) - within_word

    def add_tokens(
        self,
        ids: npt.NDArray[np.integer[Any]],
        ends: npt.NDArray[np.int64],
        nats: npt.NDArray[np.float32],
        spelling: npt.NDArray[np.float32],
        known_nats: float | Floats,
    ) -> None:
        """Scored tokens, and the characters of the whole text at which they end.

        `known_nats`: how many of the nats of each known token say that it is known.
        """
        exact, spelt = nats.astype(np.float64), spelling.astype(np.float64)
        block = np.minimum(np.maximum(ends - 1, 0) // self._width, self._blocks - 1)
        self._block_nats += np.bincount(block, weights=exact + spelt, minlength=self._blocks)
        is_unknown = ids == self._unknown
        unknown = exact[is_unknown]
        known = np.broadcast_to(known_nats, ids.shape)[~is_unknown]
        self._nats.append(math.fsum(exact))
        self._unknown_nats += [math.fsum(unknown), math.fsum(known)]
        self._spelling_nats.append(math.fsum(spelt))
        self._tokens += len(ids)
        self._unknown_tokens += len(unknown)

    def score(self) -> Score:
        """The sums so far."""
        sizes = np.full(self._blocks, float(self._width))
        sizes[-1] = self._chars - self._width * (self._blocks - 1)
        return Score(
            nats=math.fsum(self._nats),
            tokens=self._tokens,
            chars=self._chars,
            bytes=self._bytes,
            words=self._words,
            unknown_tokens=self._unknown_tokens,
            unknown_nats=math.fsum(self._unknown_nats),
            spelling_nats=math.fsum(self._spelling_nats),
            block_nats=self._block_nats,
            block_chars=sizes,
        )


MANY = 0.01
"""share of unknown tokens from which on their spelling matters"""


def warn_of_unknown(score: Score, run: object, on_progress: OnProgress) -> None:
    """A warning where many tokens are unknown: which figures hold how they are spelt."""
    if score.unknown_tokens > MANY * score.tokens:
        what = (
            "perplexity leaves out how they are spelt, bits/char holds it"
            if score.spelling_nats
            else "bits/char leaves out how they are spelt, and is no match for another tokenizer's"
        )
        known = f"{score.unknown_tokens:,} of {score.tokens:,} tokens are unknown to '{run}'"
        on_progress(Message(f"{known}: {what}", "warning"))


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan


def _exp(x: float) -> float:
    return math.inf if x >= 700 else math.exp(x)  # exp(NaN) is NaN
