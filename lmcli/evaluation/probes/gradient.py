"""The vanishing gradient: how much the loss at t still feels what was read k tokens before.

**In:** runs with an input embedding, before and after training.
**Out:** by lag k: G(k) = median ||d l_t / d e_{t-k}|| / median ||d l_t / d e_t||, and the share of
the sum of the norms at all lags that lies at lags up to k; with intervals.

e is the embedding of the token read at a step and l_t the loss of the token after the last one, all
of one document. Where a path goes past the recurrence (attention, minGRU, minLSTM) lag 0 is large:
then look at shares of the total. A window has G = 0 exactly beyond itself. Gradients say what can
still be learnt, not what is remembered: a unit that has saturated has a vanished gradient *and*
perfect memory (Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.evaluation.probes.base import Probe, ProbeResult, Row, Rows
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.probes.sampling import Mean, Places, draw_targets, longest_span, powers
from lmcli.evaluation.state_batches import Ids, documents
from lmcli.evaluation.statistics import Floats, block_weights, limits, weighted_medians
from lmcli.models.base import LanguageModel
from lmcli.report.result import COUNT, PERCENT, Column, Figure, Metric
from lmcli.settings import setting

VANISHED = 1e-3
WARM = 64
"""tokens read before: the very first one meets an empty state and leaves more than a later one"""
TIMES = ("initial", "trained")
AT_ONCE = 16
"""targets differentiated side by side"""
LATCHED = (
    "a unit that has latched has a vanished gradient and perfect memory: gradients say what can "
    "still be learnt, not what is remembered"
)


@dataclass(frozen=True)
class GradientSettings:
    """How many targets, how far back."""

    targets: int = setting(64, "random targets", least=2)
    longest: int = setting(256, "largest lag K in tokens", least=1)


class Gradient(Probe):
    """Norms of gradients, against the distance they have come."""

    name = "gradient"
    Settings = GradientSettings
    x = "lag"
    picture = Figure(
        "", (), (), Metric("", 0, "power"), "tokens back", scale="log", note=LATCHED,
        read=(
            "A point says how strongly the error at one token reaches the token that many places "
            "before it while the model is trained: 0.01 means a hundredth of what reaches the "
            "present token. A line that falls steeply is a gradient that vanishes."
        ),
        caution=(
            "A small gradient says that a connection is hard to learn, not that nothing is "
            "remembered: compare it with what one token still does (influence)."
        ),
    )  # fmt: skip
    shares_picture = Figure(
        "gradient by lag, after training: share of the total over all lags", (), (),
        PERCENT, "up to N tokens back",
        read=(
            "A point says which share of the whole gradient falls on tokens up to N places back, "
            "counted from the point before; all points of a line add up to 100 %."
        ),
        caution=(
            "Small shares far back can still matter where many of them point the same way."
        ),
    )  # fmt: skip
    columns = (
        Column("initial.half_life", COUNT, "half at lag"),
        Column("initial.vanished", COUNT, "< 0.001 at lag"),
        Column("trained.half_life", COUNT, "trained: half"),
        Column("trained.vanished", COUNT, "< 0.001"),
        Column("trained.half_total", COUNT, "half of all up to"),
        Column("longest", COUNT, "tried to"),
    )
    one_row_a_run = True
    note = (
        "half, < 0.001: of the gradient at lag 0; half of all: of the sum over all lags, which is "
        "what to compare where a path goes past the recurrence (attention, minGRU, minLSTM)"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only what embeds its tokens can be differentiated by them."""
        embeds = isinstance(getattr(subject.model, "embed", None), nn.Module)
        return None if embeds else f"{subject.arch} has no embedding, hence no gradient"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """The curves before and after training."""
        rows, summary = list[dict[str, Any]](), list[dict[str, Any]]()
        for subject in subjects:
            chosen = choose_targets(documents(subject.tokenizer, data.held_out), settings, seed)
            if chosen is None:
                continue
            lags: dict[str, Any] = {}
            for time in TIMES:
                model = subject.model if time == "trained" else subject.untrained()
                norms = gradient_norms(model, chosen.read, chosen.warm)
                rows += [r | {"time": time} for r in _rows(subject, norms, chosen.stretch, seed)]
                lags[time] = _lags(norms)
            lags["longest"] = chosen.read.shape[1] - 2
            figure = "{}, trained {}".format(*_vanished(lags))
            summary.append(subject.row(**lags, figure=figure))
        if not rows:
            return ProbeResult("gradient", [], "the held-out text is too short")
        return self.result(subjects, rows, summary)

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """Shares of lag 0 before and after training, shares of the total after it."""
        figures, some = list[Figure](), list[Row]()
        for time, said in zip(TIMES, ("at initialisation", "after training"), strict=True):
            title = f"gradient by lag, {said}: share of that at lag 0"
            some = [row for row in rows if row["time"] == time]
            figures.append(self.curve(subjects, some, title=title))
        names = {"value": "share", "low": "share_low", "high": "share_high"}
        shares = [{**row, **{n: row[name] for n, name in names.items()}} for row in some]
        total = self.curve(subjects, shares)
        return [*figures, replace(self.shares_picture, ticks=total.ticks, series=total.series)]

    def size(self, row: Row) -> float:
        """The lag from which on the trained gradient has vanished."""
        return float(row["trained"]["vanished"] or row["longest"] + 1)

    def verdict(self, row: Row) -> str:
        """From which lag on the gradient has vanished."""
        before, after = _vanished(row)
        falls = f"{row['model']}'s gradient falls below 1/1000"
        return f"{falls} at lag {before} before and {after} after training"


@contextmanager
def _embedded(model: LanguageModel, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (B, T) that stand for the same tokens within, each with a vector of its own (B T, E).

    Tokens are numbered beyond the vocabulary, so what tells ids apart (a start id) still works, and
    so do weights that embedding and output layer share.
    """
    embed = model.get_submodule("embed")
    first, looked_up = model.vocabulary + 1, list[Tensor]()
    with torch.no_grad():
        table = embed(torch.arange(first))
        vectors = embed(tokens.flatten()).clone()
    vectors.requires_grad_()

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        looked_up.append(inputs[0])
        return (torch.zeros_like(inputs[0]),)

    def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return F.embedding(looked_up.pop(), torch.cat([table, vectors]))

    hooks = [embed.register_forward_pre_hook(before), embed.register_forward_hook(after)]
    try:
        yield first + torch.arange(tokens.numel()).view(tokens.shape), vectors
    finally:
        for hook in hooks:
            hook.remove()


def gradient_norms(model: LanguageModel, read: Tensor, warm: Tensor | None = None) -> Floats:
    """||d l_t / d e_{t-k}|| for k = 0 .. K, after having read `warm`.

    Shapes: read (B, K + 2), warm (B, W) -> (B, K + 1).
    """
    model.eval()
    norms = []
    before = read[:, :0] if warm is None else warm
    for rows, earlier in zip(torch.split(read, AT_ONCE), torch.split(before, AT_ONCE), strict=True):
        tokens, targets = rows[:, :-1], rows[:, -1]
        state = model.initial_state(len(rows))
        if earlier.shape[1]:
            with torch.no_grad():
                _, state = model.last_logits(earlier, state)
        with torch.enable_grad(), _embedded(model, tokens) as (ids, vectors):
            logits, _ = model.last_logits(ids, state)
            loss = F.cross_entropy(logits, targets, reduction="sum")
            (grad,) = torch.autograd.grad(loss, vectors)
        by_place = grad.view(*tokens.shape, -1).double().norm(dim=-1)  # (B, K + 1)
        norms.append(by_place.flip(1))
    table: Floats = torch.cat(norms).numpy()
    return table


@dataclass(frozen=True)
class Chosen:
    """Targets and what is read before them, in one document each. Shapes: (B, ...)."""

    warm: Tensor
    read: Tensor
    stretch: Places


def choose_targets(streams: Sequence[Ids], settings: Any, seed: int) -> Chosen | None:
    """Random targets with K + 1 tokens and some more before them; None of too short documents."""
    room = longest_span(streams, WARM + settings.longest + 3) - 3
    before = min(WARM, room // 8)
    longest = min(settings.longest, room - before)
    if longest < 1:
        return None
    rng = np.random.default_rng(seed)
    targets = draw_targets(streams, settings.targets, rng, before + longest + 1)
    places = zip(targets.document.tolist(), targets.place.tolist(), strict=True)
    rows = np.stack([streams[d][t - longest - 1 - before : t + 1] for d, t in places])
    read = torch.from_numpy(rows)
    return Chosen(read[:, :before], read[:, before:], targets.stretch)


def _middle(norms: Floats) -> Floats:
    """The lower median over targets. Shapes: (B, K + 1) -> (K + 1,)."""
    middle: Floats = np.sort(norms, axis=0)[(len(norms) - 1) // 2]
    return middle


def decay(norms: Floats) -> Floats:
    """G(0 .. K). Shapes: (B, K + 1) -> (K + 1,)."""
    middle = _middle(norms)
    curve: Floats = middle / middle[0] if middle[0] > 0 else np.zeros_like(middle)
    return curve


def shares(norms: Floats) -> Floats:
    """The part of the sum over all lags, of each target. Shapes: (B, K + 1) -> (B, K + 1)."""
    total = norms.sum(1, keepdims=True)
    parts: Floats = np.divide(norms, total, out=np.zeros_like(norms), where=total > 0)
    return parts


def below(curve: Floats, level: float) -> int | None:
    """The first lag from which on G stays below a level; None if it does not.

    >>> below(np.array([1.0, 0.4, 0.6, 0.3, 0.2]), 0.5)
    3
    """
    over = np.flatnonzero(curve >= level)
    first = int(over[-1]) + 1 if len(over) else 0
    return first if first < len(curve) else None


def _lags(norms: Floats) -> dict[str, int | None]:
    """Where the gradient is half, where it has vanished, up to where half of the total lies."""
    curve, parts = decay(norms), shares(norms).mean(0).cumsum()
    half = int(np.searchsorted(parts, 0.5 * parts[-1]))
    return {"half_life": below(curve, 0.5), "vanished": below(curve, VANISHED), "half_total": half}


def _rows(subject: ProbedModel, norms: Floats, stretch: Places, seed: int) -> list[dict[str, Any]]:
    """G at lags 0, 1, 2, 4, ...; the share of the total from after the lag before up to this one.

    Intervals are those of stretches drawn again.
    """
    weights, curve, parts = block_weights(stretch, seed), decay(norms), shares(norms)
    now = weighted_medians(norms[:, 0], weights)
    rows, begin = list[dict[str, Any]](), 0
    for lag in [0, *powers(norms.shape[1] - 1)]:
        then = weighted_medians(norms[:, lag], weights)
        low, high = limits(np.divide(then, now, out=np.zeros_like(then), where=now > 0))
        row = subject.row(lag=lag, value=float(curve[lag]), low=low, high=high)
        row |= Mean.of(parts[:, begin : lag + 1].sum(1), stretch, seed).row("share")
        rows.append(row | {"count": len(norms), "chance": 0.0})
        begin = lag + 1
    return rows


def _vanished(lags: Row) -> list[str]:
    """From which lag on the gradient is below 1/1000, before and after training."""
    vanished = [lags[time]["vanished"] for time in TIMES]
    return [f"over {lags['longest']}" if lag is None else str(lag) for lag in vanished]


Member = Gradient
