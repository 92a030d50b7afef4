"""Model + text -> the log-probability of every token -> Score.

**In:** a model, a tokenizer, pieces of text, each beginning from the start state.
**Out:** the nats of every token, each scored exactly once given all before it in its piece; sums
in a `Score`. The numbers do not depend on how many rows are read side by side.

How one long stream is read in parallel and exactly: it is cut into rows; all rows are read at
once, each from the start state. Then each row is read again from the state in which the row before
it ended, until its state meets the one of the first reading. What follows that point is right as it
stands. A row that never meets it hands a new end to the next row, and so on until nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmcli.batches import IGNORED
from lmcli.models.base import LanguageModel, State
from lmcli.tokenizers.base import Ids, Tokenizer

Floats = npt.NDArray[np.float64]
Reset = Literal["never", "line", "document"]

ROWS = 32
CHUNK, LONGEST_CHUNK = 128, 1024
MEETING = 1e-5
"""States that differ by less have met; what follows differs by far less than 1e-6 of the sum."""
ROUGH_MEETING = 0.05
"""The same for a rough reading, whose states may be in bfloat16 and are no finer than that."""
LOGITS = 1 << 25
"""Numbers in one block of logits, at the most (128 MiB)."""


# ------------------------------------------------------------------ the one primitive


class _Reading:
    """The stream as a table of chunks: which are read, with what outcome."""

    def __init__(
        self,
        model: LanguageModel,
        ids: npt.NDArray[np.integer[Any]],
        rows: int,
        chunk: int,
        meeting: float,
        state: State | None = None,
    ) -> None:
        self.model = model
        self.meeting = meeting
        self.state = state
        self.device = next(model.buffers(), next(model.parameters(), torch.empty(0))).device
        length = len(ids) - 1
        self.chunks = max(1, -(-length // (rows * chunk)))  # per row
        self.rows = -(-length // (self.chunks * chunk))
        padded = self.rows * self.chunks * chunk
        inputs = np.full(padded, model.start_id, np.int64)
        targets = np.full(padded, IGNORED, np.int64)
        inputs[:length] = ids[:-1]
        targets[:length] = ids[1:]
        targets[targets == model.start_id] = IGNORED
        self.length = length
        self.inputs = torch.from_numpy(inputs.reshape(self.rows, self.chunks, chunk))
        self.targets = torch.from_numpy(targets.reshape(self.rows, self.chunks, chunk))
        self.nats = torch.zeros(self.rows, self.chunks, chunk)
        self.after: list[State] = []  # per chunk, the states of all rows behind it

    def read(self, rows: Tensor, chunk: int, state: State) -> State:
        """Score one chunk of some rows from a state."""
        inputs = self.inputs[rows, chunk].to(self.device)
        targets = self.targets[rows, chunk].to(self.device)
        logs, state = self.model.log_probabilities(inputs, targets, state)
        self.nats[rows, chunk] = -logs.float().cpu()
        return state

    def first(self) -> None:
        """All rows from the start state."""
        every = torch.arange(self.rows)
        state = self.model.start(self.rows)
        if self.state is not None:  # of what was read before; only the first row goes on with it
            pairs = zip(self.state, state, strict=True)
            state = tuple(torch.cat([given, part[1:]]) for given, part in pairs)
        for chunk in range(self.chunks):
            state = self.read(every, chunk, state)
            self.after.append(tuple(part.clone() for part in state))

    def all_rows(self, rough: bool) -> None:
        """Every row from where the row before it ended."""
        self.first()
        changed = torch.arange(1, self.rows)
        while len(changed):
            ended = self.repair(changed)
            changed = (ended + 1)[ended + 1 < self.rows] if not rough else ended[:0]

    def found(self) -> npt.NDArray[np.float32]:
        """The nats of the stream, in its order."""
        nats: npt.NDArray[np.float32] = self.nats.flatten().numpy()[: self.length]
        return nats

    def repair(self, rows: Tensor) -> Tensor:
        """Read rows again from where the row before them ended; return those whose end changed."""
        state: State = tuple(part[rows - 1] for part in self.after[-1])
        for chunk in range(self.chunks):
            state = self.read(rows, chunk, state)
            old = self.after[chunk]
            apart = _apart(state, tuple(part[rows] for part in old), self.meeting)
            for part, new in zip(old, state, strict=True):
                part[rows] = new
            rows, state = rows[apart], tuple(part[apart] for part in state)
            if len(rows) == 0:
                break
        return rows


def _apart(new: State, old: State, meeting: float) -> Tensor:
    """Which rows of two states differ. Shapes: (B, ...) -> (B,) bool."""
    far = torch.zeros(len(new[0]), dtype=torch.bool)
    for a, b in zip(new, old, strict=True):
        differs = (a - b).abs() > meeting * (1 + b.abs()) if a.is_floating_point() else a != b
        far |= differs.flatten(1).any(1).cpu()
    return far


@torch.inference_mode()
def stream_nats(
    model: LanguageModel,
    ids: npt.NDArray[np.integer[Any]],
    rows: int = ROWS,
    rough: bool = False,
    state: State | None = None,
) -> npt.NDArray[np.float32]:
    """-ln p of every id but the first, given all before it and the state; 0 for start ids.

    `rows` is how many places of the stream are read side by side: a matter of speed only. A `rough`
    reading hands the state on to the next row once and leaves it at that.
    Shapes: (N,) -> (N - 1,), in nats.
    """
    if len(ids) < 2:
        return np.zeros(0, np.float32)
    was_training = model.training
    model.eval()
    wanted = max(CHUNK, min(LONGEST_CHUNK, len(ids) // (32 * rows)))
    chunk = max(8, min(wanted, LOGITS // (rows * model.scoring_width)))
    reading = _Reading(
        model,
        ids,
        min(rows, max(1, len(ids) // (4 * chunk))),
        chunk,
        ROUGH_MEETING if rough else MEETING,
        state,
    )
    reading.all_rows(rough)
    model.train(was_training)
    return reading.found()


@torch.inference_mode()
def carried_nats(
    model: LanguageModel,
    ids: npt.NDArray[np.integer[Any]],
    state: State | None,
    rows: int,
    chunk: int,
) -> tuple[npt.NDArray[np.float32], State]:
    """The same for a part of a longer stream, with the state to read the next part from.

    The length must fill the rows with chunks: len(ids) - 1 is a multiple of rows * chunk.
    """
    was_training = model.training
    model.eval()
    reading = _Reading(model, ids, rows, chunk, MEETING, state)
    reading.all_rows(rough=False)
    model.train(was_training)
    return reading.found(), tuple(part[-1:] for part in reading.after[-1])


# ------------------------------------------------------------------ texts


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


def score_pieces(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    reset: Reset = "document",
    rows: int = ROWS,
) -> list[ScoredText]:
    """Score pieces of text; with reset="never" the state is carried from piece to piece."""
    if reset == "line":
        pieces = [line for piece in pieces for line in piece.splitlines(keepends=True)]
    encoded = [tokenizer.encode_with_ends(piece) for piece in pieces]
    start = np.array([tokenizer.start], np.int32)
    parts: list[npt.NDArray[np.int32]] = []
    for i, e in enumerate(encoded):
        if i == 0 or reset != "never":
            parts.append(start)
        parts.append(e.ids)
    stream = np.concatenate(parts) if parts else start
    nats = stream_nats(model, stream, rows)[stream[1:] != tokenizer.start]
    cuts = np.cumsum([len(e.ids) for e in encoded])[:-1]
    return [
        ScoredText(text, e.ids, e.ends, part, tokenizer.unknown)
        for text, e, part in zip(pieces, encoded, np.split(nats, cuts), strict=True)
    ]


# ------------------------------------------------------------------ sums


@dataclass(frozen=True)
class Score:
    """Sums over a text; every rate is derived from them. Nats unless the name says otherwise.

    Blocks are stretches of the text of equal length in characters, the same for every tokenizer, so
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
