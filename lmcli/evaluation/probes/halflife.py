"""The gates' own clock: after how many tokens a unit has let go half of what it held.

**In:** runs whose gates say how much a step keeps (forget gate, keep gate).
**Out:** the half-lives of all units: how many lie in each octave, before and after training.

A unit that keeps r_t at step t has a half-life of -ln 2 / mean_t ln r_t tokens (the geometric mean
of what it keeps). A gate at bias b has r = sigmoid(b): b = 0 gives 1.0, 1: 2.2, 2: 5.5, 3: 14,
4: 38, 5: 103, 7: 760 tokens. What a cell holds may also be kept by writing it anew, so this is a
lower bound of memory, and says nothing of whether what is kept is of use. Tallec and Ollivier
(2018); Mahto, Vo, Turek and Huth (2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from lmcli.evaluation.statistics import Floats, wilson
from lmcli.models.base import ActivationRecorder, LanguageModel
from lmcli.report.result import PERCENT, Column, Metric, text
from lmcli.settings import setting

LAST = 1024
"""upper edge of the last bucket; what is longer is in it too"""
LEAST = 1e-30


@dataclass(frozen=True)
class HalflifeSettings:
    """How much text the gates are watched on."""

    rows: int = setting(16, "places of the text", least=1)
    length: int = setting(192, "tokens read at each", least=8)


class Halflife(Probe):
    """Half-lives from the gates."""

    name = "halflife"
    Settings = HalflifeSettings

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only a model with such a gate."""
        tap = ActivationRecorder()
        with torch.inference_mode():
            subject.model(torch.zeros(1, 1, dtype=torch.long), subject.model.initial_state(1), tap)
        told = subject.model.retention(tap) is not None
        return None if told else f"{subject.arch} has no gate that says what it keeps"

    def run(
        self, subjects: Sequence[ProbedModel], data: ProbeData, settings: Any, seed: int = 0
    ) -> ProbeResult:
        """The distributions before and after training."""
        rows: list[dict[str, Any]] = []
        summary = []
        for subject in subjects:
            tokens = _tokens(subject, data, settings, seed)
            lives = half_lives(subject.model, tokens)
            before = half_lives(subject.untrained(), tokens)
            rows += _rows(subject, lives, before)
            summary.append(_summary(subject, lives, before))
        return _result(subjects, rows, summary)


def _tokens(subject: ProbedModel, data: ProbeData, settings: Any, seed: int) -> Tensor:
    """Chunks of held-out text, documents laid end to end. Shapes: -> (B, T)."""
    stream = np.concatenate(documents(subject.tokenizer, data.held_out))
    return random_stretches(stream, min(settings.length, len(stream)), settings.rows, seed)


@torch.inference_mode()
def half_lives(model: LanguageModel, tokens: Tensor) -> Floats:
    """The half-life of every unit in tokens. Shapes: tokens (B, T) -> (units,)."""
    tap = ActivationRecorder()
    model(tokens, model.initial_state(len(tokens)), tap)
    retention = model.retention(tap)
    if retention is None:
        return np.empty(0)
    inside = (tokens != model.start_id).unsqueeze(-1)  # a document's start forgets by design
    logs = retention.double().clamp(LEAST, 1.0).log() * inside
    mean = logs.sum((0, 1)) / inside.sum()
    lives: Floats = (-math.log(2) / mean.clamp_max(-LEAST)).numpy()
    return lives


def shares(lives: Floats) -> dict[int, int]:
    """How many units have a half-life up to 1, 2, 4, ... tokens, each counted once."""
    edges = [1 << k for k in range(LAST.bit_length())]
    place = np.minimum(np.searchsorted(edges, lives, "left"), len(edges) - 1)
    return dict(zip(edges, np.bincount(place, minlength=len(edges)).tolist(), strict=True))


def _rows(subject: ProbedModel, lives: Floats, before: Floats) -> list[dict[str, Any]]:
    """One row an octave of half-lives."""
    rows, untrained = [], shares(before)
    for lag, count in shares(lives).items():
        low, high = wilson(count, len(lives))
        row = subject.row(lag=lag, value=count / len(lives), low=low, high=high)
        row |= {"count": len(lives), "units": count, "chance": None}
        rows.append(row | {"initial": untrained[lag] / len(before)})
    return rows


def _summary(subject: ProbedModel, lives: Floats, before: Floats) -> dict[str, Any]:
    tenth, middle, ninth = (float(q) for q in np.quantile(lives, [0.1, 0.5, 0.9]))
    shown = f"median {middle:.1f}, slowest tenth from {ninth:.1f} tokens on"
    row = subject.row(median=middle, tenth=tenth, ninth=ninth, longest=float(lives.max()))
    return row | {"initial_median": float(np.median(before)), "units": len(lives), "figure": shown}


def _result(
    subjects: Sequence[ProbedModel], rows: list[dict[str, Any]], summary: list[dict[str, Any]]
) -> ProbeResult:
    names = labels(subjects)
    picture = figure(
        names, rows, "lag", "how long units hold what they hold: share of units by half-life",
        "half-life up to N tokens", PERCENT,
    )  # fmt: skip
    shown = [row | {"model": names[row["run"]]} for row in summary]
    tokens = 1
    columns = [
        Column("model", text("model")),
        Column("tenth", Metric("fastest tenth", tokens)),
        Column("median", Metric("median", tokens)),
        Column("ninth", Metric("slowest tenth", tokens)),
        Column("longest", Metric("slowest", tokens)),
        Column("initial_median", Metric("median untrained", tokens)),
        Column("units", Metric("units")),
    ]
    verdict = [
        f"half of {names[row['run']]}'s units let go half within {row['median']:.1f} tokens, "
        f"the slowest tenth hold it for {row['ninth']:.1f} or more"
        for row in summary
    ]
    notes = ["half-lives in tokens, from the gates alone: a lower bound of what is kept"]
    return ProbeResult(
        "halflife", rows, sentence(verdict), summary, columns, shown, [picture], notes
    )


Member = Halflife
