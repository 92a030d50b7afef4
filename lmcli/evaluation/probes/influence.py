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
from lmcli.evaluation.state_batches import Ids, documents, read_on, row_bytes, take
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import LanguageModel, State
from lmcli.report.result import COUNT, Column, Figure, Metric
from lmcli.settings import setting

DRAWS = 2
"""other tokens for each"""
NEAR, FAR = 128, 4
"""beyond a lag of NEAR one token is drawn for every FAR-th target: far ones take long to read"""
WARM = 64
"""tokens read before the farthest that is replaced"""
FELT = 1e-3
"""of KL at lag 1; less is taken for not felt"""
SMALLEST = 1e-9
"""nats; a smaller KL is that of float32 sums taken in another order, and counts as none"""
COUNTED = 200_000
"""tokens in which frequencies are counted, at the most"""
GROUP = 128
"""targets read side by side, at the most"""
MEMORY = 1 << 28
"""bytes of states, or of predictions, held at once"""
EQUAL = 1e-6
"""states that differ by less are equal but for rounding"""
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
        read=(
            "One token of the past is replaced by another: the line says how much the prediction "
            "moves, in nats of KL divergence, by how far back that token is. The scale is "
            "logarithmic: each step down is ten times less."
        ),
        caution=(
            "That a prediction moves does not mean that it becomes better: a model can be moved by "
            "what it cannot use."
        ),
    )  # fmt: skip
    columns = (
        Column("lag", COUNT, "lag"),
        *interval_columns("KL", Metric("", 5)),
        *interval_columns("use", Metric("", 4), "use"),
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
        drawn = draw_replacements(others, streams, targets, lags, rng)
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

    def draw(self, ids: Places, rng: np.random.Generator, count: int = DRAWS) -> Places:
        """Other tokens for each id that is one, -1 for those not drawn. Shapes: (N,) -> (N, DRAWS).

        `count` of the columns are drawn.
        """
        drawn = np.full((len(ids), DRAWS), -1, np.int64)
        for row, token in zip(drawn, ids.tolist(), strict=True):
            if token >= 0:
                pool = self.members[int(self.octave[token])]
                pool = pool[pool != token]
                row[:count] = pool[rng.integers(len(pool), size=count)]
        return drawn


def draw_replacements(
    others: Replacements,
    streams: Sequence[Ids],
    targets: Targets,
    lags: Sequence[int],
    rng: np.random.Generator,
) -> list[Places]:
    """Other tokens by lag, fewer where they cost most: see `NEAR`."""
    drawn = []
    for lag in lags:
        ids = lagged(streams, targets, lag)
        if lag > NEAR:
            ids[np.arange(len(ids)) % FAR > 0] = -1
        drawn.append(others.draw(ids, rng, DRAWS if lag <= NEAR else 1))
    return drawn


@torch.inference_mode()
def influences(
    model: LanguageModel,
    streams: Sequence[Ids],
    targets: Targets,
    lags: Sequence[int],
    drawn: Sequence[Places],
) -> tuple[Floats, Floats]:
    """KL and extra loss of each target and lag, means over draws; nan where nothing was drawn.

    Shapes: drawn (N, DRAWS) for each lag, from the nearest on -> (N, lags) each.
    """
    asked = np.stack(drawn, axis=1)  # (N, lags, DRAWS)
    farthest = ((asked >= 0).any(2) * np.array(lags)).max(1)
    most = max(8, MEMORY // max(row_bytes(model), 8 * model.vocabulary) // asked[0].size)
    moved, cost = np.full((2, *asked.shape), np.nan)
    order = np.argsort(farthest, kind="stable")
    for group in np.array_split(order, -(-len(order) // min(GROUP, most))):
        some = [k for k, lag in enumerate(lags) if lag <= farthest[group].max()]
        if some:
            depth = lags[some[-1]] + WARM
            read = before(model, streams, targets, group, depth)
            goals = [int(streams[targets.document[n]][targets.place[n]]) for n in group]
            fork = _Fork(model, read, [lags[k] for k in some], asked[group][:, some])
            places = np.ix_(group, np.array(some))
            moved[places], cost[places] = fork.compare(torch.tensor(goals))
    with np.errstate(invalid="ignore"):
        there = np.isfinite(moved)
        count = np.where(there.any(2), there.sum(2), np.nan)
        kl = np.where(there, moved, 0).sum(2) / count
        return np.where(kl < SMALLEST, 0.0, kl), zero_noise(np.where(there, cost, 0).sum(2) / count)


def before(
    model: LanguageModel, streams: Sequence[Ids], targets: Targets, group: Places, depth: int
) -> torch.Tensor:
    """The `depth` tokens before each target; start ids, which a model forgets, where it has fewer.

    Shapes: group (B,) -> (B, depth).
    """
    read = np.full((len(group), depth), model.start_id, np.int64)
    for row, n in zip(read, group, strict=True):
        end = targets.place[n]
        some = streams[targets.document[n]][max(0, end - depth) : end]
        row[depth - len(some) :] = some
    return torch.from_numpy(read)


class _Fork:
    """Targets side by side: the text as it is, and from every replacement on a row of its own.

    All rows are read together, up to the next lag at a time. A replaced row whose state has come to
    equal that of the text as it is, but for rounding, is not read on.
    """

    def __init__(
        self, model: LanguageModel, read: torch.Tensor, lags: Sequence[int], asked: Places
    ) -> None:
        self.model, self.read, self.lags = model, read, lags
        self.asked = asked  # (B, lags, DRAWS)
        self.real = np.arange(len(read))
        self.whose = self.real
        """the target of each row; those of the text as it is come first"""
        self.slot = np.full((len(read), 2), -1)
        """lag and draw of each row"""

    def compare(self, goals: torch.Tensor) -> tuple[Floats, Floats]:
        """KL and extra loss of each replacement, nan where none was asked for."""
        count, depth = self.read.shape
        state = self.model.initial_state(count)
        state = read_on(self.model, self.read[:, : depth - self.lags[-1]], state)
        moved = np.where(self.asked >= 0, 0.0, np.nan)
        cost = moved.copy()
        for k in range(len(self.lags) - 1, -1, -1):
            begin, end = depth - self.lags[k], depth - (self.lags[k - 1] if k else 0)
            new, draw = np.nonzero(self.asked[:, k] >= 0)
            state = take(state, np.append(np.arange(len(self.whose)), new))
            self.whose = np.append(self.whose, new)
            self.slot = np.append(self.slot, np.stack([np.full_like(new, k), draw], 1), axis=0)
            tokens = self.read[self.whose, begin:end]
            tokens[len(tokens) - len(new) :, 0] = torch.from_numpy(self.asked[new, k, draw])
            if k:
                state = self._without_equal(read_on(self.model, tokens, state))
        logits, _ = self.model.last_logits(tokens, state)
        logs = logits.double().log_softmax(-1)  # (rows, V)
        own, other = logs[self.whose[count:]], logs[count:]
        at = (self.whose[count:], *self.slot[count:].T)
        moved[at] = (own.exp() * (own - other)).sum(-1).numpy()
        wanted = goals[self.whose[count:]].unsqueeze(1)
        cost[at] = (own - other).gather(1, wanted).squeeze(1).numpy()
        return moved, cost

    def _without_equal(self, state: State) -> State:
        """The rows that are left."""
        apart = torch.zeros(len(self.whose), dtype=torch.bool)
        for part in state:
            own = part[self.whose]
            near = torch.isclose(part, own, rtol=EQUAL, atol=EQUAL)
            apart |= ~near.flatten(1).all(1)
        apart[self.real] = True
        left = apart.numpy().nonzero()[0]
        self.whose, self.slot = self.whose[left], self.slot[left]
        return take(state, left)


Member = Influence
