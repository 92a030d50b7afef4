"""Model + token ids -> the log-probability of every token.

**In:** a model, a stream of ids in which a start id begins each document.
**Out:** the nats of every token, each scored exactly once given all before it in its document. The
numbers do not depend on how many rows are read side by side.

How one long stream is read in parallel and exactly: it is cut into rows; all rows are read at
once, each from the start state. Then each row is read again from the state in which the row before
it ended, until its state equals that of the first reading. What follows that point is right as it
stands. A row whose state stays different hands a new end to the next row, and so on until nothing
changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmcli.data.batches import IGNORED
from lmcli.models.base import LOGITS, ROWS, LanguageModel, State
from lmcli.report.progress import ProgressCounter

Integers = npt.NDArray[np.integer[Any]]
Nats = npt.NDArray[np.float32]

CHUNK, LONGEST_CHUNK = 128, 1024
STATE_TOLERANCE = 1e-5
"""States that differ by less are equal; what follows differs by far less than 1e-6 of the sum."""
APPROXIMATE_TOLERANCE = 0.05
"""The same for an approximate reading, whose states may be in bfloat16, which is no finer."""


class _Reading:
    """The stream as a table of chunks: which are read, with what outcome."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Integers,
        rows: int,
        chunk: int,
        state: State | None,
        counter: ProgressCounter | None,
        excluded: int | None,
        whole: bool = False,
    ) -> None:
        self.model, self.excluded = model, excluded
        self.counter = counter or ProgressCounter()
        self.state = state
        self.device = next(model.buffers(), next(model.parameters(), torch.empty(0))).device
        start, self.length = model.start_id, len(ids) - 1
        self.chunks = max(1, -(-self.length // (rows * chunk)))  # per row
        self.rows = -(-self.length // (self.chunks * chunk))
        shape = self.rows, self.chunks, chunk
        inputs, targets = np.full((2, *shape), start, np.int64)
        inputs.reshape(-1)[: self.length] = ids[:-1]
        targets.reshape(-1)[: self.length] = ids[1:]
        targets[targets == start] = IGNORED
        self.inputs, self.targets = torch.from_numpy(inputs), torch.from_numpy(targets)
        self.nats = torch.zeros(shape)
        self.is_whole = whole
        self.logs = torch.zeros(*shape, model.vocabulary if whole else 0)
        self.after: list[State] = []  # per chunk, the states of all rows after it

    @torch.inference_mode()
    def token_nll(self, approximate: bool = False) -> Nats:
        """The nats of the stream, in its order: every row is read from where the last one ended."""
        was_training = self.model.training
        self.model.eval()
        changed = torch.arange(1, self.rows)
        self.counter.expect(self.read_again(changed))
        self.read_all()
        while len(changed):
            ended = self.rescore_rows(
                changed, APPROXIMATE_TOLERANCE if approximate else STATE_TOLERANCE
            )
            changed = (ended + 1)[ended + 1 < self.rows] if not approximate else ended[:0]
            self.counter.expect(self.read_again(changed))
        self.model.train(was_training)
        nats: Nats = self.nats.flatten().numpy()[: self.length]
        return nats

    def all_logs(self) -> Nats:
        """ln p of all tokens in the order of the stream, once it is read. Shapes: -> (N - 1, V)."""
        logs: Nats = self.logs.flatten(0, 2).numpy()[: self.length]
        return logs

    def read_again(self, rows: Tensor) -> int:
        """Tokens of rows that are read again, at most: as far as a model can look back."""
        chunk, reach = self.inputs.shape[2], self.model.context_length
        chunks = self.chunks if reach is None else min(self.chunks, -(-reach // chunk))
        return len(rows) * chunks * chunk

    def read(self, rows: Tensor, chunk: int, state: State) -> State:
        """Score one chunk of some rows from a state."""
        inputs = self.inputs[rows, chunk].to(self.device)
        if self.is_whole:
            all_logs, state = self.model.all_log_probabilities(inputs, state, self.excluded)
            self.logs[rows, chunk] = all_logs.cpu()
            return state
        targets = self.targets[rows, chunk].to(self.device)
        logs, state = self.model.log_probabilities(inputs, targets, state, self.excluded)
        self.nats[rows, chunk] = -logs.float().cpu()
        return state

    def read_all(self) -> None:
        """All rows from the start state, the first one from the state that was given."""
        every, done = torch.arange(self.rows), 0
        state = self.model.initial_state(self.rows)
        if self.state is not None:
            pairs = zip(self.state, state, strict=True)
            state = tuple(torch.cat([given, part[1:]]) for given, part in pairs)
        for chunk in range(self.chunks):
            state = self.read(every, chunk, state)
            self.after.append(tuple(part.clone() for part in state))
            self.counter.add((chunk + 1) * self.length // self.chunks - done)
            done = (chunk + 1) * self.length // self.chunks

    def rescore_rows(self, rows: Tensor, tolerance: float) -> Tensor:
        """Read rows again from where the row before them ended; return those whose end changed."""
        state: State = tuple(part[rows - 1] for part in self.after[-1])
        left = self.read_again(rows)
        for chunk, old in enumerate(self.after):
            state = self.read(rows, chunk, state)
            some = min(left, len(rows) * self.inputs.shape[2])
            left -= some
            self.counter.add(some)
            apart = _apart(state, tuple(part[rows] for part in old), tolerance)
            for part, new in zip(old, state, strict=True):
                part[rows] = new
            rows, state = rows[apart], tuple(part[apart] for part in state)
            if len(rows) == 0:
                break
        self.counter.expect(-left)
        return rows


def _apart(new: State, old: State, tolerance: float) -> Tensor:
    """Which rows of two states differ. Shapes: (B, ...) -> (B,) bool."""
    far = torch.zeros(len(new[0]), dtype=torch.bool)
    for a, b in zip(new, old, strict=True):
        differs = (a - b).abs() > tolerance * (1 + b.abs()) if a.is_floating_point() else a != b
        far |= differs.flatten(1).any(1).cpu()
    return far


def stream_nats(
    model: LanguageModel,
    ids: Integers,
    rows: int | None = None,
    approximate: bool = False,
    state: State | None = None,
    counter: ProgressCounter | None = None,
    excluded: int | None = None,
) -> Nats:
    """-ln p of every id but the first, given all before it and the state; 0 for start ids.

    `rows` is how many places of the stream are read side by side: a matter of speed only. An
    `approximate` reading hands the state on to the next row once and leaves it at that. With
    `excluded`, an id: p given also that the token is another one.
    Shapes: (N,) -> (N - 1,), in nats.
    """
    if len(ids) < 2:
        return np.zeros(0, np.float32)
    rows = rows or (ROWS if approximate else model.scoring_rows)
    wanted = max(CHUNK, min(LONGEST_CHUNK, len(ids) // (32 * rows)))
    chunk = max(8, min(wanted, LOGITS // (rows * model.scoring_width)))
    rows = min(rows, max(1, len(ids) // (4 * chunk)))
    return _Reading(model, ids, rows, chunk, state, counter, excluded).token_nll(approximate)


def carried_nats(
    model: LanguageModel,
    ids: Integers,
    state: State | None,
    rows: int,
    chunk: int,
    counter: ProgressCounter | None = None,
    excluded: int | None = None,
) -> tuple[Nats, State]:
    """The same for a part of a longer stream, with the state to read the next part from.

    The length must fill the rows with chunks: len(ids) - 1 is a multiple of rows * chunk.
    """
    reading = _Reading(model, ids, rows, chunk, state, counter, excluded)
    return reading.token_nll(), tuple(part[-1:] for part in reading.after[-1])


def stream_log_probabilities(
    model: LanguageModel,
    ids: Integers,
    rows: int | None = None,
    counter: ProgressCounter | None = None,
    excluded: int | None = None,
) -> Iterator[Nats]:
    """ln p of all tokens after every id but the last, in the order of the stream, in parts.

    Shapes: (N,) -> parts (n, V), together (N - 1, V), in nats.
    """
    rows = min(rows or model.scoring_rows, max(1, len(ids) // (4 * CHUNK)))
    chunk = max(8, min(CHUNK, LOGITS // (rows * model.vocabulary)))
    size = rows * chunk * max(1, LOGITS // (2 * rows * chunk * model.vocabulary))
    state: State | None = None
    for begin in range(0, len(ids) - 1, size):
        part = ids[begin : begin + size + 1]
        reading = _Reading(model, part, rows, chunk, state, counter, excluded, whole=True)
        reading.token_nll()
        state = tuple(one[-1:] for one in reading.after[-1])
        yield reading.all_logs()
