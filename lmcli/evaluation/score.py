"""The nats of every token -> sums -> every rate that is reported.

**In:** texts with the nats of their tokens.
**Out:** a `Score`: perplexities, bits per character and per byte, and how sure they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lmcli.tokenizers.base import Ids

Floats = npt.NDArray[np.float64]


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

    def spans(self) -> list[tuple[int, int]]:
        """Where each token begins and ends in the text."""
        begins = np.concatenate([[0], self.ends[:-1]])
        return list(zip(begins.tolist(), self.ends.tolist(), strict=True))

    def lines(self) -> list[ScoredText]:
        """Line by line; a token that crosses a line end belongs to the line it begins in."""
        breaks = np.cumsum([len(line) for line in self.text.splitlines(keepends=True)])
        begins = np.concatenate([[0], self.ends[:-1]])
        owner = np.searchsorted(breaks, begins, side="right")
        # a token of no width behind the last character belongs to the last line
        owner = np.minimum(owner, len(breaks) - 1)
        parts = []
        for i, stop in enumerate(breaks.tolist()):
            start = 0 if i == 0 else int(breaks[i - 1])
            mine = owner == i
            ends = np.clip(self.ends[mine], start, stop) - start
            line = self.text[start:stop]
            parts.append(ScoredText(line, self.ids[mine], ends, self.nats[mine], self.unknown))
        return parts

    def score(self) -> Score:
        """The sums."""
        return Score.of([self])


@dataclass(frozen=True)
class Score:
    """Sums over a text; every rate is derived from them. Nats unless the name says otherwise.

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
    block_nats: Floats
    block_chars: Floats

    @classmethod
    def of(cls, texts: Sequence[ScoredText]) -> Score:
        """Add up scored texts."""
        nats = np.concatenate([t.nats for t in texts]).astype(np.float64)
        unknown = np.concatenate([t.ids == (-1 if t.unknown is None else t.unknown) for t in texts])
        chars = sum(len(t.text) for t in texts)
        offsets = np.cumsum([0] + [len(t.text) for t in texts])
        ends = np.concatenate([t.ends + o for t, o in zip(texts, offsets, strict=False)])
        width = block_width(chars)
        block = np.minimum(np.maximum(ends - 1, 0) // width, max(0, chars // width - 1))
        count = max(1, chars // width)
        sizes = np.full(count, float(width))
        sizes[-1] = chars - width * (count - 1)
        return cls(
            nats=math.fsum(nats),
            tokens=len(nats),
            chars=chars,
            bytes=sum(len(t.text.encode("utf-8", "surrogatepass")) for t in texts),
            words=sum(len(t.text.split()) for t in texts),
            unknown_tokens=int(unknown.sum()),
            unknown_nats=math.fsum(nats[unknown]),
            block_nats=np.bincount(block, weights=nats, minlength=count).astype(np.float64),
            block_chars=sizes,
        )

    @property
    def nats_per_token(self) -> float:
        """Mean surprisal of a token."""
        return _ratio(self.nats, self.tokens)

    @property
    def perplexity(self) -> float:
        """exp of the mean nats of a token, unknown tokens counted like any other."""
        return _exp(self.nats_per_token)

    @property
    def perplexity_without_unknown(self) -> float:
        """The same over the tokens that are in the vocabulary."""
        return _exp(_ratio(self.nats - self.unknown_nats, self.tokens - self.unknown_tokens))

    @property
    def bits_per_char(self) -> float:
        """Bits a character: comparable between tokenizers."""
        return _ratio(self.nats / math.log(2), self.chars)

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of UTF-8."""
        return _ratio(self.nats / math.log(2), self.bytes)

    @property
    def word_perplexity(self) -> float:
        """exp of the nats that fall on one word (what stands between blanks)."""
        return _exp(_ratio(self.nats, self.words))

    @property
    def standard_error(self) -> float:
        """Standard error of bits_per_char, from a block bootstrap."""
        if len(self.block_nats) < 2:
            return math.nan
        rates = resample(self.block_nats, self.block_chars) / math.log(2)
        return float(rates.std(ddof=1))

    def to_json(self) -> dict[str, float | int]:
        """The keys of ``lmcli eval --json``."""
        return {name: getattr(self, name) for name in REPORTED}


REPORTED = (
    "tokens",
    "chars",
    "bytes",
    "words",
    "nats",
    "perplexity",
    "perplexity_without_unknown",
    "unknown_tokens",
    "bits_per_char",
    "bits_per_byte",
    "word_perplexity",
    "standard_error",
)
MOST_BLOCKS, LEAST_BLOCK = 2000, 20
RESAMPLES = 1000


def block_width(chars: int) -> int:
    """Characters in a block: about 1,000, less for a short text, more for a very long one."""
    return max(LEAST_BLOCK, min(1000, chars // 50), chars // MOST_BLOCKS)


def resample(values: Floats, sizes: Floats) -> Floats:
    """Bootstrap replicates of sum(values) / sum(sizes) over blocks drawn with replacement."""
    blocks = len(values)
    rng = np.random.default_rng(0)  # the same resamples for every model: differences are paired
    counts = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
    rates: Floats = (counts @ values) / (counts @ sizes)
    return rates


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan


def _exp(x: float) -> float:
    return math.inf if x >= 700 else math.exp(x)  # exp(NaN) is NaN
