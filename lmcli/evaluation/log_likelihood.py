"""Model + text -> the log-probability of every token.

**In:** a model, a tokenizer, pieces of text, each beginning from the start state.
**Out:** the nats of every token, each scored exactly once given all before it in its piece. The
numbers do not depend on how many rows are read side by side.

How one long stream is read in parallel and exactly: it is cut into rows; all rows are read at
once, each from the start state. Then each row is read again from the state in which the row before
it ended, until its state meets the one of the first reading. What follows that point is right as it
stands. A row that never meets it hands a new end to the next row, and so on until nothing changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmcli.data.batches import IGNORED
from lmcli.evaluation.score import ScoredText
from lmcli.models.base import LOGITS, LanguageModel, State
from lmcli.report.progress import ProgressCounter
from lmcli.tokenizers.base import Ids, Tokenizer

Reset = Literal["never", "line", "document"]

ROWS = 32
CHUNK, LONGEST_CHUNK = 128, 1024
MEETING = 1e-5
"""States that differ by less have met; what follows differs by far less than 1e-6 of the sum."""
ROUGH_MEETING = 0.05
"""The same for a rough reading, whose states may be in bfloat16 and are no finer than that."""


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
        meter: ProgressCounter | None = None,
    ) -> None:
        self.model = model
        self.meter = meter or ProgressCounter()
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
        every, done = torch.arange(self.rows), 0
        state = self.model.initial_state(self.rows)
        if self.state is not None:  # of what was read before; only the first row goes on with it
            pairs = zip(self.state, state, strict=True)
            state = tuple(torch.cat([given, part[1:]]) for given, part in pairs)
        for chunk in range(self.chunks):
            state = self.read(every, chunk, state)
            self.after.append(tuple(part.clone() for part in state))
            self.meter.add((chunk + 1) * self.length // self.chunks - done)
            done = (chunk + 1) * self.length // self.chunks

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
    meter: ProgressCounter | None = None,
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
        meter,
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
    meter: ProgressCounter | None = None,
) -> tuple[npt.NDArray[np.float32], State]:
    """The same for a part of a longer stream, with the state to read the next part from.

    The length must fill the rows with chunks: len(ids) - 1 is a multiple of rows * chunk.
    """
    was_training = model.training
    model.eval()
    reading = _Reading(model, ids, rows, chunk, MEETING, state, meter)
    reading.all_rows(rough=False)
    model.train(was_training)
    return reading.found(), tuple(part[-1:] for part in reading.after[-1])


# ------------------------------------------------------------------ texts


def score_documents(
    model: LanguageModel,
    tokenizer: Tokenizer,
    pieces: Sequence[str],
    reset: Reset = "document",
    rows: int = ROWS,
    meter: ProgressCounter | None = None,
) -> list[ScoredText]:
    """Score pieces of text; with reset="never" the state is carried from piece to piece.

    The meter counts tokens.
    """
    if reset == "line":
        pieces = [line for piece in pieces for line in piece.splitlines(keepends=True)]
    encoded = [tokenizer.encode_with_ends(piece) for piece in pieces]
    start = np.array([tokenizer.start], np.int32)
    parts: list[Ids] = []
    for i, e in enumerate(encoded):
        if i == 0 or reset != "never":
            parts.append(start)
        parts.append(e.ids)
    stream = np.concatenate(parts) if parts else start
    meter = meter or ProgressCounter()
    meter.begin("scoring", len(stream) - 1, "M tokens")
    nats = stream_nats(model, stream, rows, meter=meter)[stream[1:] != tokenizer.start]
    cuts = np.cumsum([len(e.ids) for e in encoded])[:-1]
    return [
        ScoredText(text, e.ids, e.ends, part, tokenizer.unknown)
        for text, e, part in zip(pieces, encoded, np.split(nats, cuts), strict=True)
    ]
