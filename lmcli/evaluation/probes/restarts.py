"""Reading a text once with its whole past, and again from restarts.

**In:** a model, the documents of a text.
**Out:** `Restarts`: for each of them the nats of the tokens after it, read with all before it, from
the start state, and from a state of elsewhere; the divergence of the first two predictions.

The text is read in excerpts, evenly spread over it, of at most 3 K tokens. A restart has at least
K tokens of its excerpt before it, else what is called its whole past would be short.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmcli.data.batches import IGNORED
from lmcli.evaluation.probes.sampling import Places, powers, zero_noise
from lmcli.evaluation.state_batches import (
    Ids,
    padded,
    pairs,
    row_bytes,
    stack,
    take,
    token_nll,
)
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State

PHASES = 8
"""restarts in K tokens after which K are read, and as many between two of them, of which K / 8"""
EXCERPT = 3
"""K tokens before the first restart, and two from there on"""
MEMORY = 1 << 27
"""bytes of states saved"""
DENSE, CYCLE, SCORED = 128, 32, 8
"""the first 128 context lengths are all scored, then the last 8 of each 32"""
SAVED = 48
"""restarts whose true states are saved, to begin from elsewhere and to compare predictions"""


@dataclass(frozen=True)
class Excerpt:
    """Tokens of a document; `place` tokens of the text stand before them."""

    ids: Ids
    place: int


@dataclass(frozen=True)
class Restart:
    """Reading that begins at token `begin` of excerpt `row`, `place` tokens into the text."""

    row: int
    begin: int
    place: int
    length: int
    """tokens that are read; fewer where the excerpt ends before"""


@dataclass(frozen=True)
class Restarted:
    """What restarts cost. Column c - 1 of `delta` is nan where c is not scored."""

    delta: Floats
    """extra nats with the last c tokens known (restarts, K)"""
    targets: Places
    """where in the text the token of each column stands (restarts, K)"""
    donor: Floats
    """extra nats after 1, 2, 4, ... tokens from a state of elsewhere (restarts, buckets)"""
    divergence: Floats
    """KL(full || restart) after 1, 2, 4, ... tokens (some restarts, buckets)"""


def choose_excerpts(streams: Sequence[Ids], longest: int, most: int) -> list[Excerpt]:
    """Excerpts of at most 3 `longest` tokens, evenly spread, of about `most` tokens in all.

    Documents without a token after a restart are left out.
    """
    length, place, every = EXCERPT * longest, 0, list[Excerpt]()
    for ids in streams:
        if len(ids) > longest + 1:
            count = max(1, len(ids) // length)
            begins = np.linspace(0, max(0, len(ids) - length), count).astype(np.int64).tolist()
            every += [Excerpt(ids[b : b + length], place + b) for b in begins]
        place += len(ids)
    total = sum(len(e.ids) for e in every)
    count = max(1, len(every) * min(most, total) // max(1, total))
    return [every[(2 * k + 1) * len(every) // (2 * count)] for k in range(count)] if every else []


def restart_places(excerpts: Sequence[Excerpt], longest: int) -> tuple[list[Restart], ...]:
    """From K to 2 K tokens into each excerpt: every K / 8 tokens for K, every K / 64 for K / 8.

    Short contexts, which cost little to read, are so measured more often.
    """
    far, near = max(1, longest // PHASES), max(1, longest // PHASES**2)
    every = [
        Restart(row, begin, e.place + begin, far if (begin - longest) % far else longest)
        for row, e in enumerate(excerpts)
        for begin in range(longest, min(2 * longest + 1, len(e.ids) - 1), near)
    ]
    return [r for r in every if r.length == longest], [r for r in every if r.length != longest]


def spots(longest: int) -> list[int]:
    """Where scoring stops and goes on.

    >>> spots(192)
    [128, 152, 160, 184]
    """
    return [s for b in range(DENSE, longest, CYCLE) for s in (b, b + CYCLE - SCORED)]


def read_restarts(
    model: LanguageModel, excerpts: Sequence[Excerpt], longest: int, rng: np.random.Generator
) -> Restarted:
    """All that is measured on some excerpts."""
    far, near = restart_places(excerpts, longest)
    count = int(max(2, min(SAVED, MEMORY // row_bytes(model), len(far))))
    saved = rng.permutation(len(far))[:count]
    full, states = read_whole(model, excerpts, far, saved, longest)
    both = [*far, *near]
    rows = [excerpts[r.row].ids[r.begin : r.begin + r.length + 1] for r in both]
    own = [full[r.row][r.begin : r.begin + r.length] for r in both]
    reset = list[Floats]()
    for some in (rows[: len(far)], rows[len(far) :]):
        reset += token_nll(model, some, model.initial_state(len(some)), spots(longest))
    delta = np.full((len(rows), longest), np.nan)
    for line, restarted, carried in zip(delta, reset, own, strict=True):
        line[: len(carried)] = restarted - carried
    targets = np.array([r.place for r in both])[:, None] + np.arange(1, longest + 1)
    which = donors(far, saved, longest, rng)
    donor = donor_nats(model, rows[: len(far)], own, states, which)
    divergence = divergences(model, [rows[k] for k in saved], states)
    return Restarted(zero_noise(delta), targets, donor, divergence)


@torch.inference_mode()
def read_whole(
    model: LanguageModel,
    excerpts: Sequence[Excerpt],
    restarts: Sequence[Restart],
    saved: Places,
    longest: int,
) -> tuple[list[Floats], State]:
    """-ln p of all tokens of each excerpt but the first; the states before the `saved` restarts.

    Up to the first restart -ln p is not known, but nan.
    """
    inputs = padded([e.ids[:-1] for e in excerpts], model.start_id)
    targets = padded([e.ids[1:] for e in excerpts], IGNORED)
    due: dict[int, list[int]] = {}
    for number, k in enumerate(saved.tolist()):
        due.setdefault(restarts[k].begin, []).append(number)
    nats = [torch.full((len(excerpts), longest), math.nan, dtype=torch.float64)]
    _, state = model.last_logits(inputs[:, :longest], model.initial_state(len(excerpts)))
    taken, whose = list[State](), list[int]()
    cuts = sorted({longest, *due, inputs.shape[1]})
    for begin, end in itertools.pairwise([*cuts, cuts[-1]]):
        if begin in due:
            taken.append(take(state, [restarts[saved[n]].row for n in due[begin]]))
            whose += due[begin]
        for x, y in pairs(inputs[:, begin:end], targets[:, begin:end], model.scoring_width):
            logs, state = model.log_probabilities(x, y, state)
            nats.append(-logs.double())
    table = torch.cat(nats, dim=1).numpy()
    full = [row[: len(e.ids) - 1] for row, e in zip(table, excerpts, strict=True)]
    return full, take(stack(taken), np.argsort(whose))


def donors(
    restarts: Sequence[Restart], saved: Places, longest: int, rng: np.random.Generator
) -> Places:
    """For each restart one of the saved states, from 4 K tokens away or as far as there is."""
    places = np.array([restarts[k].place for k in saved])
    numbers = []
    for r in restarts:
        away = np.abs(places - r.place)
        enough = np.flatnonzero(away >= 4 * longest)
        numbers.append(int(rng.choice(enough)) if len(enough) else int(away.argmax()))
    return np.array(numbers)


@torch.inference_mode()
def donor_nats(
    model: LanguageModel,
    rows: Sequence[Ids],
    own: Sequence[Floats],
    states: State,
    which: Places,
) -> Floats:
    """Extra nats after 1, 2, 4, ... tokens from a donor's state. Shapes: -> (rows, buckets)."""
    some = int(max(8, min(len(rows), MEMORY // row_bytes(model))))
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


@torch.inference_mode()
def divergences(model: LanguageModel, rows: Sequence[Ids], states: State) -> Floats:
    """KL(full || reset) in nats after 1, 2, 4, ... tokens. Shapes: -> (rows, buckets)."""
    longest = max(map(len, rows)) - 1
    tokens = padded([row[:-1] for row in rows], model.start_id)
    both = stack([states, model.initial_state(len(rows))])
    nats, begin = [], 0
    for end in powers(longest):
        logits, both = model.last_logits(tokens[:, begin:end].repeat(2, 1), both)
        a, b = logits.double().log_softmax(-1).chunk(2)
        apart = (a.exp() * (a - b)).sum(-1)
        there = torch.tensor([len(row) > end for row in rows])
        nats.append(apart.masked_fill(~there, math.nan))
        begin = end
    return zero_noise(torch.stack(nats, dim=1).numpy())
