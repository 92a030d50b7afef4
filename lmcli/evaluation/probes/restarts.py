"""Reading that begins again in the middle of a text: what it costs at every token.

**In:** a model, documents as ids.
**Out:** nats of reading on and of reading from a restart, and how far apart the predictions are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lmcli.data.batches import IGNORED
from lmcli.evaluation.probes.base import zero_noise
from lmcli.evaluation.state_batches import ROWS, Ids, padded, pairs, row_bytes, stack, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State

PHASES = 8
MEMORY = 1 << 27
"""bytes of states saved"""
DENSE, CYCLE, SCORED = 128, 32, 8
"""the first 128 context lengths are all scored, then the last 8 of each 32"""
DONORS, COMPARED = 48, 48
"""how many states are saved to begin from elsewhere, and how many restarts get a KL divergence"""


@dataclass(frozen=True)
class Restart:
    """Reading that begins at token `begin` of document `row`, `place` tokens into the text."""

    row: int
    begin: int
    place: int


def spots(longest: int) -> list[int]:
    """Where scoring stops and goes on.

    >>> spots(192)
    [128, 152, 160, 184]
    """
    return [s for b in range(DENSE, longest, CYCLE) for s in (b, b + CYCLE - SCORED)]


def span(length: int, most: int) -> int:
    """K: the largest power of two that is at most half of the longest document."""
    return max(8, min(1 << (most.bit_length() - 1), 1 << max(3, (length // 2).bit_length() - 1)))


def restart_places(streams: Sequence[Ids], longest: int) -> list[Restart]:
    """Every K / 8 tokens of each document: eight phases of restarts that lie K apart."""
    step, place, restarts = max(1, longest // PHASES), 0, list[Restart]()
    for row, ids in enumerate(streams):
        restarts += [Restart(row, b, place + b) for b in range(step, len(ids) - 1, step) if b]
        place += len(ids)
    return restarts


def saved_places(
    model: LanguageModel, restarts: Sequence[Restart], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Some of the restarts, whose true state is kept."""
    most = int(max(2, min(DONORS + COMPARED, MEMORY // row_bytes(model), len(restarts))))
    return rng.permutation(len(restarts))[:most]


@torch.inference_mode()
def read_whole(
    model: LanguageModel,
    streams: Sequence[Ids],
    restarts: Sequence[Restart],
    saved: npt.NDArray[np.int64],
) -> tuple[list[Floats], State]:
    """-ln p of every token but the first of each document, and the states before some restarts."""
    inputs = padded([s[:-1] for s in streams], model.start_id)
    targets = padded([s[1:] for s in streams], IGNORED)
    due: dict[int, list[int]] = {}
    for number, k in enumerate(saved.tolist()):
        due.setdefault(restarts[k].begin, []).append(number)
    cuts = sorted({0, *due, inputs.shape[1]})
    state = model.initial_state(len(streams))
    nats, taken, whose = [], [], []
    for begin, end in zip(cuts, [*cuts[1:], cuts[-1]], strict=True):
        if begin in due:
            taken.append(take(state, [restarts[saved[n]].row for n in due[begin]]))
            whose += due[begin]
        piece = inputs[:, begin:end], targets[:, begin:end]
        for x, y in pairs(*piece, model.scoring_width):
            logs, state = model.log_probabilities(x, y, state)
            nats.append(-logs.double())
    table = torch.cat(nats, dim=1).numpy()
    full = [row[: len(s) - 1] for row, s in zip(table, streams, strict=True)]
    return full, take(stack(taken), np.argsort(whose))


def donors(
    restarts: Sequence[Restart],
    saved: npt.NDArray[np.int64],
    longest: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """For each restart one of the saved states, from 4 K tokens away or as far as there is."""
    places = np.array([restarts[k].place for k in saved])
    found = []
    for r in restarts:
        far = np.abs(places - r.place)
        enough = np.flatnonzero(far >= 4 * longest)
        found.append(int(rng.choice(enough)) if len(enough) else int(far.argmax()))
    return np.array(found)


@torch.inference_mode()
def donor_nats(
    model: LanguageModel,
    rows: Sequence[Ids],
    own: Sequence[Floats],
    states: State,
    which: npt.NDArray[np.int64],
) -> Floats:
    """Extra nats after c = 1, 2, 4, ... tokens read from a state of elsewhere; nan after the end.

    Shapes: -> (rows, buckets).
    """
    some = int(max(8, min(ROWS, MEMORY // row_bytes(model))))
    ends = powers(max(map(len, rows)) - 1)
    table = np.full((len(rows), len(ends)), np.nan)
    for first in range(0, len(rows), some):
        group = range(first, min(first + some, len(rows)))
        tokens = padded([rows[k] for k in group], model.start_id)
        state, begin = take(states, which[group]), 0
        for column, end in enumerate(ends):
            logits, state = model.last_logits(tokens[:, begin:end], state)
            nats = -logits.log_softmax(-1).gather(1, tokens[:, end : end + 1] % model.vocabulary)
            for k, value in zip(group, nats[:, 0].tolist(), strict=True):
                if len(rows[k]) > end:
                    table[k, column] = value - own[k][end - 1]
            begin = end
    return zero_noise(table)


def powers(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`.

    >>> powers(9)
    [1, 2, 4, 8]
    """
    return [1 << k for k in range(most.bit_length())]


@torch.inference_mode()
def divergences(model: LanguageModel, rows: Sequence[Ids], states: State) -> Floats:
    """KL(full || reset) after c = 1, 2, 4, ... tokens of each row, in nats; nan after its end.

    Shapes: -> (rows, buckets).
    """
    longest = max(map(len, rows)) - 1
    tokens = padded([row[:-1] for row in rows], model.start_id)
    full, reset = take(states, np.arange(len(rows))), model.initial_state(len(rows))
    found, begin = [], 0
    for end in powers(longest):
        a, full = model.last_logits(tokens[:, begin:end], full)
        b, reset = model.last_logits(tokens[:, begin:end], reset)
        a, b = a.double().log_softmax(-1), b.double().log_softmax(-1)
        apart = (a.exp() * (a - b)).sum(-1)
        there = torch.tensor([len(row) > end for row in rows])
        found.append(apart.masked_fill(~there, math.nan))
        begin = end
    return zero_noise(torch.stack(found, dim=1).numpy())
