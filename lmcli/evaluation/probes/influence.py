"""What one token back then still does: it is replaced by another, and predictions are compared.

**In:** runs, held-out text.
**Out:** by lag k: KL(k), how far the prediction of x_t moves when x_(t-k) is replaced, and use(k),
what x_t costs more; with intervals.

    KL(k)  = mean KL(p(. | x_1 .. x_(t-1)) || p(. | the same with another x_(t-k)))
    use(k) = mean [l(t) with another x_(t-k) - l(t)]

The other token is as frequent, within a factor of 2, so that rare words are replaced by rare ones.
Causal, hence the same question for every member: exactly 0 beyond a window or the order of an
n-gram, and, unlike the gradient, above 0 for a unit that has latched. Khandelwal et al. (2018) and
O'Connor and Andreas (2021) disturb contexts in a like manner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lmcli.evaluation.probes.base import (
    CurveProbe,
    Row,
    Rows,
    interval_columns,
    leading_run,
    reach_words,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.sampling import Mean, Places, Targets, draw_targets, powers, zero_noise
from lmcli.evaluation.state_batches import Ids, advance, documents, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel
from lmcli.report.result import COUNT, Column, Figure, Metric
from lmcli.settings import setting

DRAWS = 2
"""other tokens for each"""
WARM = 64
"""tokens read before the farthest that is replaced"""
FELT = 1e-3
"""of KL at lag 1; less is taken for not felt"""
SMALLEST = 1e-9
"""nats; a smaller KL is that of float32 sums taken in another order, and counts as none"""
COUNTED = 200_000
"""tokens in which frequencies are counted, at the most"""
GROUP = 128
"""targets read side by side"""
FEWEST = 8
"""targets of a lag"""


@dataclass(frozen=True)
class InfluenceSettings:
    """How many targets, how far back."""

    targets: int = setting(256, "random targets", least=FEWEST)
    longest: int = setting(1024, "largest lag in tokens", least=1, most=65536)


class Influence(CurveProbe):
    """Divergence and loss after a replacement, against its distance."""

    name = "influence"
    Settings = InfluenceSettings
    x = "lag"
    picture = Figure(
        "what one token still does: KL in nats when it is replaced", (), (),
        Metric("", 0, "power"), "tokens back", scale="log",
    )  # fmt: skip
    columns = (
        Column("lag", COUNT, "lag"),
        *interval_columns("KL", Metric("", 5)),
        Column("use", Metric("use", 4)),
        Column("use_low", Metric("from", 4)),
        Column("use_high", Metric("to", 4)),
        Column("count", COUNT, "targets"),
    )
    note = (
        "KL: how far the prediction moves when the token so far back is another; use: what the "
        "real next token then costs more, in nats"
    )

    def measure(
        self, subject: ProbedModel, data: ProbeData, settings: Any, seed: int
    ) -> list[dict[str, Any]]:
        """The same targets and replacements for all runs with one tokenizer."""
        tokenizer = subject.tokenizer
        streams = documents(tokenizer, data.held_out)
        counted = documents(tokenizer, data.train or data.held_out, COUNTED)
        others = Replacements(counted, tokenizer)
        rng = np.random.default_rng(seed)
        targets = draw_targets(streams, settings.targets, rng)
        if len(targets) < FEWEST or not others.possible:
            return []
        lags = powers(settings.longest)
        drawn = [others.draw(lagged(streams, targets, lag), rng) for lag in lags]
        moved, cost = influences(subject.model, streams, targets, lags, drawn)
        rows = list[dict[str, Any]]()
        for lag, kl, use in zip(lags, moved.T, cost.T, strict=True):
            mean = Mean.of(kl, targets.stretch, seed)
            if mean.count < FEWEST:
                break
            row = subject.row(lag=lag, chance=0.0, count=mean.count, **mean.row())
            rows.append(row | Mean.of(use, targets.stretch, seed).row("use"))
        return rows

    def verdict(self, row: Row) -> str:
        """How far back a token is felt, and how far it is of use."""
        if not row["felt"]["tokens"]:
            return f"{row['model']} feels no single token"
        felt = f"{row['model']} feels a single token {reach_words(row['felt'])} later"
        used = f"up to {reach_words(row['use'])}" if row["use"]["tokens"] else "nowhere"
        return f"{felt}, and uses it {used}"

    def summary(self, subject: ProbedModel, rows: Rows) -> dict[str, Any]:
        """The largest lag with a thousandth of the KL at lag 1; that up to which it is of use."""
        least = FELT * rows[0]["value"]
        moving = [row for row in rows if row["value"] > 0 and row["value"] >= least]
        felt = {
            "tokens": moving[-1]["lag"] if moving else 0,
            "at_least": bool(moving) and moving[-1] is rows[-1],
        }
        useful, at_least = leading_run(rows, lambda row: row["use_low"] > 0)
        use = {"tokens": useful[-1]["lag"] if useful else 0, "at_least": at_least}
        figure = f"of use up to {reach_words(use)}" if useful else "of no use"
        return subject.row(felt=felt, use=use, figure=f"{figure}, felt up to {reach_words(felt)}")


def lagged(streams: Sequence[Ids], targets: Targets, lag: int) -> Places:
    """The token `lag` before each target, -1 where that is before its document."""
    places = zip(targets.document.tolist(), targets.place.tolist(), strict=True)
    return np.array([streams[d][t - lag] if t > lag else -1 for d, t in places])


class Replacements:
    """Other tokens within a factor of 2 of as frequent; few frequent ones go with the next."""

    def __init__(self, counted: Sequence[Ids], tokenizer: Any) -> None:
        counts = np.bincount(np.concatenate(counted), minlength=tokenizer.size + 1)
        counts = counts[: tokenizer.size]
        self.octave = np.log2(np.maximum(counts, 1)).astype(np.int64)
        self.members: dict[int, Places] = {}
        pool = np.empty(0, np.int64)
        merged = list[int]()
        for octave in range(int(self.octave.max()), -1, -1):
            pool = np.append(pool, np.flatnonzero((self.octave == octave) & (counts > 0)))
            merged.append(octave)
            if len(pool) > 1:
                self.members |= dict.fromkeys(merged, pool)
                pool, merged = pool[:0], []
        if self.members and merged:  # the last one alone
            last = self.members[merged[0] + 1]
            self.members |= dict.fromkeys(merged, np.append(last, pool))
        self.possible = bool(self.members)

    def draw(self, ids: Places, rng: np.random.Generator) -> Places:
        """Two other tokens for each id that is one. Shapes: (N,) -> (N, DRAWS)."""
        drawn = np.zeros((len(ids), DRAWS), np.int64)
        for row, token in zip(drawn, ids.tolist(), strict=True):
            if token >= 0:
                pool = self.members[int(self.octave[token])]
                pool = pool[pool != token]
                row[:] = pool[rng.integers(len(pool), size=DRAWS)]
        return drawn


@torch.inference_mode()
def influences(
    model: LanguageModel,
    streams: Sequence[Ids],
    targets: Targets,
    lags: Sequence[int],
    drawn: Sequence[Places],
) -> tuple[Floats, Floats]:
    """KL and extra loss of each target and lag, nan where the document begins later.

    Shapes: drawn (N, DRAWS) for each lag -> (N, lags) each.
    """
    moved = np.full((len(targets), len(lags)), np.nan)
    cost = moved.copy()
    for first in range(0, len(targets), GROUP):
        group = np.arange(first, min(first + GROUP, len(targets)))
        rows = [streams[d] for d in targets.document[group]]
        ends = targets.place[group]
        begins = np.maximum(0, ends - max(lags) - WARM)
        goals = torch.tensor([int(row[t]) for row, t in zip(rows, ends, strict=True)])
        initial = model.initial_state(len(rows))
        read = [row[b:t] for row, b, t in zip(rows, begins, ends, strict=True)]
        real = _after(model, read, initial)  # (B, V)
        state, place = initial, begins.copy()
        for k in range(len(lags) - 1, -1, -1):
            at = ends - lags[k]
            due = np.flatnonzero(at >= np.maximum(begins, 1))
            if not len(due):
                continue
            to = np.where(at >= np.maximum(begins, 1), at, place)
            state = advance(model, [r[p:q] for r, p, q in zip(rows, place, to, strict=True)], state)
            place = to
            # (due x DRAWS) rows, those of one target side by side
            twice = np.repeat(due, DRAWS)
            new = drawn[k][group[due]].ravel()
            read = [
                np.concatenate([[w], rows[i][at[i] + 1 : ends[i]]])
                for i, w in zip(twice, new, strict=True)
            ]
            other = _after(model, read, take(state, twice))
            apart = (real[twice].exp() * (real[twice] - other)).sum(-1)
            more = (real[twice] - other).gather(1, goals[twice].unsqueeze(1)).squeeze(1)
            kl = apart.view(-1, DRAWS).mean(1).numpy()
            moved[group[due], k] = np.where(kl < SMALLEST, 0.0, kl)
            cost[group[due], k] = zero_noise(more.view(-1, DRAWS).mean(1).numpy())
    return moved, cost


def _after(model: LanguageModel, rows: Sequence[Ids], state: Any) -> torch.Tensor:
    """ln p of every token after rows, given the states before them. Shapes: -> (B, V)."""
    state = advance(model, [row[:-1] for row in rows], state)
    last = torch.tensor([[int(row[-1])] for row in rows])
    logits, _ = model.last_logits(last, state)
    return logits.double().log_softmax(-1)


Member = Influence
