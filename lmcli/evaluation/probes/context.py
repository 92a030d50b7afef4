"""What the past is worth: how much more a token surprises when only its last c tokens are known.

**In:** runs, held-out text.
**Out:** by context length c: mean extra loss, every token compared with itself; KL divergence.

One pass with the state carried gives l_full(t). Then reading restarts every K tokens, in eight
phases, from the start state (`reset`) or from a state saved elsewhere (`donor`):

    delta(c) = mean over t of [l_restart(t) - l_full(t)],   c = t - restart

so the whole curve costs a few passes and not one for each c. KL(full || restart) shows influence
that brings no use. A model that sees n - 1 tokens has delta = 0 exactly for c >= n - 1. The
*effective context* is where the upper limit has come down to 1 % of perplexity (ln 1.01).
Khandelwal, He, Qi and Jurafsky (2018); Dai et al. (2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmcli.data.batches import IGNORED
from lmcli.evaluation.probes.base import (
    CurveProbe,
    Row,
    Rows,
    bucket_bound,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.sampling import Mean, Places, powers, zero_noise
from lmcli.evaluation.state_batches import (
    ROWS,
    Ids,
    documents,
    padded,
    pairs,
    row_bytes,
    stack,
    take,
    token_nll,
)
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State
from lmcli.report.result import COUNT, Column, Figure, Metric, text
from lmcli.settings import setting

WORTH = math.log(1.01)
"""nats a token; less is taken for no use"""
PHASES = 8
MEMORY = 1 << 27
"""bytes of states saved"""
DENSE, CYCLE, SCORED = 128, 32, 8
"""the first 128 context lengths are all scored, then the last 8 of each 32"""
DONORS, COMPARED = 48, 48
"""how many states are saved to begin from elsewhere, and how many restarts get a KL divergence"""


@dataclass(frozen=True)
class ContextSettings:
    """How much text, and how far back."""

    tokens: int = setting(16_000, "tokens of held-out text that are read, at the most", least=64)
    longest: int = setting(1024, "longest context K, a power of two", least=16, most=65536)


class Context(CurveProbe):
    """The loss of reading from elsewhere."""

    name = "context"
    Settings = ContextSettings
    x = "context"
    picture = Figure(
        "what forgetting costs: nats a token, by how many tokens are known", (), (),
        Metric("nats", 0, "power"), "up to N tokens known", WORTH, "1 % of perplexity", "log",
    )  # fmt: skip
    columns = (
        Column("bucket", text("known")),
        *interval_columns("costs", Metric("", 4)),
        Column("donor", Metric("wrong past", 4)),
        Column("kl", Metric("KL", 4)),
        Column("count", COUNT),
    )
    note = (
        "costs: extra nats a token after a restart; wrong past: restarted with a state from "
        "elsewhere; the line is 1 % of perplexity"
    )

    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """One row a bucket of context lengths."""
        return measure(subject, data.held_out, settings, seed)

    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The effective context."""
        effective = effective_context(rows)
        return subject.row(effective=effective, figure=reach_words(effective))

    def verdict(self, row: Row) -> str:
        """How many tokens are of use."""
        return f"{row['model']} makes use of {row['figure']}"


def measure(
    subject: ProbedModel, texts: Sequence[str], settings: Any, seed: int = 0
) -> list[dict[str, Any]]:
    """One row a bucket of context lengths."""
    streams = [s for s in documents(subject.tokenizer, texts, settings.tokens) if len(s) > 2]
    if not streams:
        return []
    model, longest = subject.model, span(max(map(len, streams)), settings.longest)
    restarts = restart_places(streams, longest)
    rng = np.random.default_rng(seed)
    count = int(max(2, min(DONORS + COMPARED, MEMORY // row_bytes(model), len(restarts))))
    saved = rng.permutation(len(restarts))[:count]  # those whose true state is saved
    full, states = read_whole(model, streams, restarts, saved)
    rows = [streams[r.row][r.begin : r.begin + longest + 1] for r in restarts]
    own = [full[r.row][r.begin : r.begin + longest] for r in restarts]
    reset = token_nll(model, rows, model.initial_state(len(rows)), spots(longest))
    delta = np.full((len(rows), longest), np.nan)  # (rows, K); column c - 1
    for line, restarted, carried in zip(delta, reset, own, strict=True):
        line[: len(carried)] = restarted - carried
    donor = donor_nats(model, rows, own, states, donors(restarts, saved, longest, rng))
    kl = divergences(model, [rows[k] for k in saved[:COMPARED]], states)
    blocks = np.array([r.place // longest for r in restarts])
    return _buckets(subject, zero_noise(delta), {"donor": donor, "kl": kl}, blocks, seed)


# ------------------------------------------------------------------ by context length


def _buckets(
    subject: ProbedModel, delta: Floats, others: dict[str, Floats], blocks: Places, seed: int
) -> list[dict[str, Any]]:
    """Means and intervals by bucket."""
    edges = np.array([bucket_bound(c + 1) for c in range(delta.shape[1])])
    rows = []
    for number, upper in enumerate(powers(delta.shape[1])):
        inside = np.flatnonzero(edges == upper)
        mean = Mean.of(delta[:, inside], blocks, seed)
        if mean.count == 0:
            break
        row = subject.row(context=upper, context_from=int(inside[0]) + 1, **mean.row())
        row |= {"count": mean.count, "chance": 0.0}
        for name, table in others.items():
            there = table[:, number] if number < table.shape[1] else table[:0, 0]
            there = there[np.isfinite(there)]
            row[name] = float(there.mean()) if len(there) else None
        rows.append(row)
    return rows


def effective_context(rows: Rows) -> dict[str, Any]:
    """{"tokens": c, "at_least": whether more is of use}.

    c is the upper bound of the last bucket before the first whose upper limit is within 1 %.
    """
    useful, at_least = leading_run(rows, lambda row: not row["high"] <= WORTH)  # nan: not known
    return {"tokens": useful[-1]["context"] if useful else 0, "at_least": at_least}


# ------------------------------------------------------------------ reading from a restart


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


@torch.inference_mode()
def read_whole(
    model: LanguageModel,
    streams: Sequence[Ids],
    restarts: Sequence[Restart],
    saved: Places,
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
        for x, y in pairs(inputs[:, begin:end], targets[:, begin:end], model.scoring_width):
            logs, state = model.log_probabilities(x, y, state)
            nats.append(-logs.double())
    table = torch.cat(nats, dim=1).numpy()
    full = [row[: len(s) - 1] for row, s in zip(table, streams, strict=True)]
    return full, take(stack(taken), np.argsort(whose))


def donors(
    restarts: Sequence[Restart],
    saved: Places,
    longest: int,
    rng: np.random.Generator,
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


@torch.inference_mode()
def divergences(model: LanguageModel, rows: Sequence[Ids], states: State) -> Floats:
    """KL(full || reset) in nats after 1, 2, 4, ... tokens. Shapes: -> (rows, buckets)."""
    longest = max(map(len, rows)) - 1
    tokens = padded([row[:-1] for row in rows], model.start_id)
    full, reset = take(states, np.arange(len(rows))), model.initial_state(len(rows))
    nats, begin = [], 0
    for end in powers(longest):
        a, full = model.last_logits(tokens[:, begin:end], full)
        b, reset = model.last_logits(tokens[:, begin:end], reset)
        a, b = a.double().log_softmax(-1), b.double().log_softmax(-1)
        apart = (a.exp() * (a - b)).sum(-1)
        there = torch.tensor([len(row) > end for row in rows])
        nats.append(apart.masked_fill(~there, math.nan))
        begin = end
    return zero_noise(torch.stack(nats, dim=1).numpy())


Member = Context
