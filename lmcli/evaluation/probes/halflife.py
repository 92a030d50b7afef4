"""The gates' own clock: after how many tokens a unit has let go half of what it held.

**In:** runs whose gates say how much a step keeps (forget gate, keep gate).
**Out:** the half-lives of all units: how many lie in each octave, before and after training.

A unit that keeps r_t at step t has a half-life of -ln 2 / mean_t ln r_t tokens (the geometric mean
of what it keeps). A gate at bias b has r = sigmoid(b): b = 0 gives 1.0, 1: 2.2, 2: 5.5, 3: 14,
4: 38, 5: 103, 7: 760 tokens. A cell may also hold on to a value by writing it anew, so this is a
lower bound of memory, and says nothing of whether what is held is of use. Tallec and Ollivier
(2018); Mahto, Vo, Turek and Huth (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmcli.evaluation.probes.base import Probe, ProbeResult, Row
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.evaluation.state_batches import documents, random_chunks
from lmcli.evaluation.statistics import Floats
from lmcli.models.base import ActivationRecorder, LanguageModel
from lmcli.report.result import PERCENT, Column, Figure, Metric
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
    x = "lag"
    picture = Figure(
        "how long units hold what they hold: share of units by half-life", (), (),
        PERCENT, "half-life up to N tokens",
        read=(
            "Each point is the share of units whose gate lets half of what they hold go within "
            "that many tokens; more weight at the right means longer memory. Only gated models "
            "(gru, lstm) have such numbers."
        ),
        caution=(
            "A unit that could hold something for long need not hold anything useful: this reads "
            "the gates, not the answers."
        ),
    )  # fmt: skip
    columns = (
        Column("tenth", Metric("fastest tenth", 1)),
        Column("median", Metric("median", 1)),
        Column("ninth", Metric("slowest tenth", 1)),
        Column("longest", Metric("slowest", 1)),
        Column("initial_median", Metric("median untrained", 1)),
        Column("units", Metric("units")),
    )
    one_row_a_run = True
    note = (
        "half-lives in tokens, from the gates alone: a lower bound of what is kept; the units of "
        "one net are no sample, so there are no intervals"
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only a model with such a gate."""
        token = torch.zeros(1, 1, dtype=torch.long)
        gated = len(half_lives(subject.model, token)) > 0
        return None if gated else f"{subject.arch} has no gate that says what it keeps"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """The distributions before and after training."""
        rows: list[dict[str, Any]] = []
        summary = []
        for subject in subjects:
            stream = np.concatenate(documents(subject.tokenizer, data.held_out))
            length = min(settings.length, len(stream))
            tokens = random_chunks(stream, length, settings.rows, seed)  # (B, T)
            lives = half_lives(subject.model, tokens)
            before = half_lives(subject.untrained(), tokens)
            rows += _rows(subject, lives, before)
            summary.append(_summary(subject, lives, before))
        return self.result(subjects, rows, summary)

    def size(self, row: Row) -> float:
        """The median half-life."""
        return float(row["median"])

    def verdict(self, row: Row) -> str:
        """The median and the slowest tenth."""
        half = f"half of {row['model']}'s units let go half within {row['median']:.1f} tokens"
        return f"{half}, the slowest tenth hold it for {row['ninth']:.1f} or more"


@torch.inference_mode()
def half_lives(model: LanguageModel, tokens: Tensor) -> Floats:
    """The half-life of every unit in tokens. Shapes: tokens (B, T) -> (units,)."""
    recorder = ActivationRecorder()
    model(tokens, model.initial_state(len(tokens)), recorder)
    retention = model.retention(recorder)
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
    """One row an octave of half-lives; the units of one net are no sample, hence no interval."""
    rows, untrained = [], shares(before)
    for lag, count in shares(lives).items():
        row = subject.row(lag=lag, value=count / len(lives), low=None, high=None)
        row |= {"count": len(lives), "units": count, "chance": None}
        rows.append(row | {"initial": untrained[lag] / len(before)})
    return rows


def _summary(subject: ProbedModel, lives: Floats, before: Floats) -> dict[str, Any]:
    tenth, middle, ninth = (float(q) for q in np.quantile(lives, [0.1, 0.5, 0.9]))
    shown = f"median {middle:.1f}, slowest tenth from {ninth:.1f} tokens on"
    row = subject.row(median=middle, tenth=tenth, ninth=ninth, longest=float(lives.max()))
    return row | {"initial_median": float(np.median(before)), "units": len(lives), "figure": shown}


Member = Halflife
