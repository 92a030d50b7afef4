"""The vanishing gradient, seen: how much the loss at t still feels what was read k tokens before.

**In:** runs with an input embedding, before and after training.
**Out:** by lag k: G(k) = median ||d l_t / d e_{t-k}|| / median ||d l_t / d e_t||, with intervals.

e is the embedding of the token read at a step and l_t the loss of the token after the last one.
A window has G = 0 exactly beyond itself. Gradients say what can still be learnt, not what is
remembered: a unit that has saturated has a vanished gradient *and* perfect memory (Bengio, Simard
and Frasconi 1994; Pascanu, Mikolov and Bengio 2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.evaluation.probes.base import (
    Probe,
    ProbeData,
    ProbedModel,
    ProbeResult,
    figure,
    labels,
    sentence,
)
from lmcli.evaluation.state_batches import documents, random_stretches
from lmcli.evaluation.statistics import REPLICATES, Floats, limits
from lmcli.models.base import LanguageModel
from lmcli.report.result import COUNT, Column, Metric, text
from lmcli.settings import setting

VANISHED = 1e-3
SHARE = Metric("", 0, kind="power")
WARM = 64
"""tokens read before: the very first one meets an empty state and leaves more than a later one"""
TIMES = ("initial", "trained")
AT_ONCE = 16
"""targets whose gradients are found in one go"""


@dataclass(frozen=True)
class GradientSettings:
    """How many targets, how far back."""

    targets: int = setting(64, "random targets", least=2)
    longest: int = setting(256, "largest lag K in tokens", least=1)


class Gradient(Probe):
    """Norms of gradients, against the distance they have come."""

    name = "gradient"
    Settings = GradientSettings

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only what embeds its tokens can be differentiated by them."""
        embeds = isinstance(getattr(subject.model, "embed", None), nn.Module)
        return None if embeds else f"{subject.arch} has no embedding, hence no gradient"

    def run(
        self, subjects: Sequence[ProbedModel], data: ProbeData, settings: Any, seed: int = 0
    ) -> ProbeResult:
        """The curves before and after training."""
        rows: list[dict[str, Any]] = []
        summary = []
        for subject in subjects:
            places = _targets(subject, data, settings, seed)
            if places is None:
                continue
            warm, read = places
            found: dict[str, Any] = {}
            for time in TIMES:
                model = subject.model if time == "trained" else subject.untrained()
                norms = gradient_norms(model, read, warm)
                curve = decay(norms)
                rows += [r | {"time": time} for r in _rows(subject, norms, seed)]
                found[time] = {"half_life": below(curve, 0.5), "vanished": below(curve, VANISHED)}
            summary.append(_summary(subject, found, read.shape[1] - 2))
        return _result(subjects, rows, summary)


def _targets(
    subject: ProbedModel, data: ProbeData, settings: Any, seed: int
) -> tuple[Tensor, Tensor] | None:
    """Chunks of held-out text: what is read before, and K + 1 tokens with the target after them.

    Shapes: -> (B, W), (B, K + 2).
    """
    stream = np.concatenate([d[1:] for d in documents(subject.tokenizer, data.held_out)])
    warm = min(WARM, len(stream) // 8)
    long = min(settings.longest, len(stream) // 2 - 2)
    if long < 1:
        return None
    read = random_stretches(stream, warm + long + 2, settings.targets, seed)
    return read[:, :warm], read[:, warm:]


class _Embedded:
    """While it is open, a model embeds every single token by a vector of its own.

    Tokens are numbered beyond the vocabulary, so what tells ids apart (a start id) still works, and
    so do weights that embedding and output layer share.
    """

    def __init__(self, model: LanguageModel, tokens: Tensor) -> None:
        self.embed: nn.Module = model.embed  # type: ignore[assignment]
        first = model.vocabulary + 1
        with torch.no_grad():
            whole = self.embed(torch.arange(first))
            mine = self.embed(tokens.flatten())
        self.vectors = mine.clone().requires_grad_()  # (B T, E)
        self.whole = whole
        self.ids = first + torch.arange(tokens.numel()).view(tokens.shape)  # (B, T)

    def __enter__(self) -> _Embedded:
        looked_up: list[Tensor] = []

        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            looked_up.append(inputs[0])
            return (torch.zeros_like(inputs[0]),)

        def after(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            return F.embedding(looked_up.pop(), torch.cat([self.whole, self.vectors]))

        self.hooks = [
            self.embed.register_forward_pre_hook(before),
            self.embed.register_forward_hook(after),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def gradient_norms(model: LanguageModel, read: Tensor, warm: Tensor | None = None) -> Floats:
    """||d l_t / d e_{t-k}|| for k = 0 .. K, after having read `warm`.

    Shapes: read (B, K + 2), warm (B, W) -> (B, K + 1).
    """
    model.eval()
    found = []
    before = read[:, :0] if warm is None else warm
    for rows, earlier in zip(torch.split(read, AT_ONCE), torch.split(before, AT_ONCE), strict=True):
        tokens, targets = rows[:, :-1], rows[:, -1]
        state = model.initial_state(len(rows))
        if earlier.shape[1]:
            with torch.no_grad():
                _, state = model.last_logits(earlier, state)
        with torch.enable_grad(), _Embedded(model, tokens) as embedded:
            logits, _ = model.last_logits(embedded.ids, state)
            loss = F.cross_entropy(logits, targets, reduction="sum")
            (grad,) = torch.autograd.grad(loss, embedded.vectors)
        norms = grad.view(*tokens.shape, -1).double().norm(dim=-1)  # (B, K + 1)
        found.append(norms.flip(1))
    table: Floats = torch.cat(found).numpy()
    return table


def decay(norms: Floats) -> Floats:
    """G(0 .. K). Shapes: (B, K + 1) -> (K + 1,)."""
    middle: Floats = np.median(norms, axis=0)
    curve: Floats = middle / middle[0] if middle[0] > 0 else np.zeros_like(middle)
    return curve


def below(curve: Floats, level: float) -> int | None:
    """The first lag from which on G stays below a level; None if it does not.

    >>> below(np.array([1.0, 0.4, 0.6, 0.3, 0.2]), 0.5)
    3
    """
    over = np.flatnonzero(curve >= level)
    first = int(over[-1]) + 1 if len(over) else 0
    return first if first < len(curve) else None


def _rows(subject: ProbedModel, norms: Floats, seed: int) -> list[dict[str, Any]]:
    """G at lags 0, 1, 2, 4, ... with intervals from targets drawn again."""
    drawn = np.random.default_rng(seed).integers(0, len(norms), size=(REPLICATES, len(norms)))
    lags = [0, *(1 << k for k in range(20) if 1 << k < norms.shape[1])]
    curve = decay(norms)
    now = np.median(norms[:, 0][drawn], axis=1)
    rows = []
    for lag in lags:
        then = np.median(norms[:, lag][drawn], axis=1)
        low, high = limits(np.divide(then, now, out=np.zeros_like(then), where=now > 0))
        row = subject.row(lag=lag, value=float(curve[lag]), low=low, high=high)
        rows.append(row | {"count": len(norms), "chance": 0.0})
    return rows


def _summary(subject: ProbedModel, found: dict[str, Any], longest: int) -> dict[str, Any]:
    shown = [_lag(found[time]["vanished"], longest) for time in TIMES]
    return subject.row(**found, longest=longest, figure=f"{shown[0]}, trained {shown[1]}")


def _lag(lag: int | None, longest: int) -> str:
    return f"over {longest}" if lag is None else str(lag)


def _result(
    subjects: Sequence[ProbedModel], rows: list[dict[str, Any]], summary: list[dict[str, Any]]
) -> ProbeResult:
    names = labels(subjects)
    if not rows:
        return ProbeResult("gradient", [], "the held-out text is too short")
    figures = []
    for time, said in zip(TIMES, ("at initialisation", "after training"), strict=True):
        title = f"gradient by lag, {said}: share of that at lag 0"
        some = [row for row in rows if row["time"] == time]
        figures.append(figure(names, some, "lag", title, "tokens back", SHARE, None, "log"))
    shown = [row | {"model": names[row["run"]]} for row in summary]
    columns = [
        Column("model", text("model")),
        Column("initial.half_life", COUNT, "half at lag"),
        Column("initial.vanished", COUNT, "< 0.001 at lag"),
        Column("trained.half_life", COUNT, "trained: half"),
        Column("trained.vanished", COUNT, "< 0.001"),
        Column("longest", COUNT, "tried to"),
    ]
    verdict = []
    for row in summary:
        lags = [_lag(row[time]["vanished"], row["longest"]) for time in TIMES]
        verdict.append(
            f"{names[row['run']]}'s gradient falls below 1/1000 at lag {lags[0]} before and "
            f"{lags[1]} after training"
        )
    notes = [
        "gradients say what can still be learnt, not what is remembered: a unit that has latched "
        "has a vanished gradient and perfect memory"
    ]
    return ProbeResult("gradient", rows, sentence(verdict), summary, columns, shown, figures, notes)


Member = Gradient
