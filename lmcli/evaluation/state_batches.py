"""Reading many rows of different lengths side by side, each from a state of its own.

**In:** a model, rows of ids, states.
**Out:** the states after the rows, or the nats of their tokens. What a row gets does not depend
on the rows beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmcli.data.batches import IGNORED
from lmcli.models.base import (
    LOGITS,
    FixedContext,
    LanguageModel,
    NeuralLanguageModel,
    State,
)
from lmcli.tokenizers.base import Tokenizer

Ids = npt.NDArray[np.integer[Any]]

ROWS = 256
LONGEST = 256
"""tokens read in one call, at the most"""


def take(state: State, rows: Any) -> State:
    """Some rows of a state, copied."""
    place = torch.as_tensor(rows)
    return tuple(part[place] for part in state)


def stack(states: Sequence[State]) -> State:
    """Several states as the rows of one."""
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def row_bytes(model: LanguageModel) -> int:
    """What the state of one row takes."""
    return sum(part.numel() * part.element_size() for part in model.initial_state(1))


def padded(rows: Sequence[Ids], filler: int) -> Tensor:
    """Rows of ids, padded at the end. Shapes: -> (B, T)."""
    table = np.full((len(rows), max(1, *map(len, rows), 1)), filler, np.int64)
    for row, ids in zip(table, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(table)


def documents(tokenizer: Tokenizer, texts: Sequence[str], most: int | None = None) -> list[Ids]:
    """The ids of each document after a start id; `most` tokens in all."""
    streams: list[Ids] = []
    left = most
    for text in texts:
        if left is not None and left <= 1:
            break
        ids = np.concatenate([[tokenizer.start], tokenizer.encode(text)]).astype(np.int64)[:left]
        streams.append(ids)
        left = None if left is None else left - len(ids)
    return streams


def random_chunks(stream: Ids, length: int, count: int, seed: int) -> Tensor:
    """`count` chunks of `length` ids from random places. Shapes: (N,) -> (count, length)."""
    rng = np.random.default_rng(seed)
    begins = rng.integers(0, len(stream) - length + 1, size=count)
    return torch.from_numpy(stream[begins[:, None] + np.arange(length)])


def skip(model: LanguageModel, tokens: Tensor, state: State) -> State:
    """The state after tokens (B, T), without the cost of predictions where there is a way."""
    if isinstance(model, FixedContext):
        return model.with_context(tokens, state)[1]
    if isinstance(model, NeuralLanguageModel):
        return model.hidden_vectors(tokens, state)[1]
    return model.last_logits(tokens, state)[1]


@torch.inference_mode()
def read_on(model: LanguageModel, tokens: Tensor, state: State) -> State:
    """The states after rows of one length, read in blocks. Shapes: tokens (B, T)."""
    ends = []
    for begin in range(0, len(tokens), ROWS):
        now = tuple(part[begin : begin + ROWS] for part in state)
        for part in torch.split(tokens[begin : begin + ROWS], LONGEST, dim=1):
            now = skip(model, part, now)
        ends.append(now)
    return stack(ends)


@torch.inference_mode()
def advance(model: LanguageModel, rows: Sequence[Ids], state: State) -> State:
    """The states after the rows.

    A row is read in parts of 256 and then of ever smaller powers of two, and all rows that need a
    part of one size get it together: nothing is padded, so nothing has to be undone.
    """
    lengths = np.array([len(row) for row in rows])
    done = np.zeros_like(lengths)
    after = tuple(part.clone() for part in state)
    size = LONGEST
    while size:
        due = np.flatnonzero(lengths - done >= size)
        for begin in range(0, len(due), ROWS):
            some = due[begin : begin + ROWS]
            tokens = np.stack([rows[i][done[i] : done[i] + size] for i in some]).astype(np.int64)
            new = skip(model, torch.from_numpy(tokens), take(after, some))
            for part, value in zip(after, new, strict=True):
                part[torch.from_numpy(some)] = value
        done[due] += size
        if len(due) == 0 or size < LONGEST:
            size //= 2
    return after


@torch.inference_mode()
def token_nll(
    model: LanguageModel, rows: Sequence[Ids], state: State, spots: Sequence[int] = ()
) -> list[npt.NDArray[Any]]:
    """-ln p of every id of each row but the first, given the state before the row.

    `spots` are places where scoring is switched off and on again, to save the cost of logits; nan
    stands for what is not scored.
    """
    scored: list[npt.NDArray[Any]] = []
    for begin in range(0, len(rows), ROWS):
        some = rows[begin : begin + ROWS]
        inputs = padded([row[:-1] for row in some], model.start_id)
        targets = padded([row[1:] for row in some], IGNORED)
        targets[targets == model.start_id] = IGNORED
        now = take(state, np.arange(begin, begin + len(some)))
        nats = []
        cuts = [0, *(s for s in spots if s < inputs.shape[1]), inputs.shape[1]]
        for number, (first, end) in enumerate(itertools.pairwise(cuts)):
            for part in pairs(inputs[:, first:end], targets[:, first:end], model.scoring_width):
                if number % 2:
                    _, now = model.last_logits(part[0], now)
                    nats.append(torch.full(part[0].shape, math.nan))
                else:
                    logs, now = model.log_probabilities(*part, now)
                    nats.append(-logs.float())
        table = torch.cat(nats, dim=1).numpy()
        scored += [line[: len(row) - 1] for line, row in zip(table, some, strict=True)]
    return scored


def pairs(inputs: Tensor, targets: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both (B, T), cut along T so that a part's `scoring_width` fits into the memory."""
    if inputs.shape[1]:
        most = max(1, min(LONGEST, LOGITS // (len(inputs) * width)))
        yield from zip(
            torch.split(inputs, most, dim=1), torch.split(targets, most, dim=1), strict=True
        )
