"""Recall of what a grammar has hidden in its text: items with known answers, by gap.

**In:** runs, the items that lie beside a grammar's text, the grammar's optimum.
**Out:** a row a run, kind and gap: forced choice, the loss at the target, PPL / PPL*.

The loss is -ln p of the answer among the candidates: 0 is perfect, ln of their number is amnesic.
PPL / PPL* is the run's perplexity over the best possible one, both per word: it ranks models and
hides memory (MEMORY shows at the targets only).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmcli.evaluation.cloze import normalised
from lmcli.evaluation.forced_choice import choose_behind
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.probes.base import (
    ProbeData,
    ProbedModel,
    ProbeResult,
    figure,
    labels,
    leading_run,
    sentence,
)
from lmcli.evaluation.state_batches import row_bytes
from lmcli.evaluation.statistics import wilson
from lmcli.grammars.base import Item, read_items
from lmcli.report.result import COUNT, PERCENT, Column, Metric, text

CONTROL = "control"
MEMORY = 1 << 28
"""bytes of states held at once"""


def recall_by_rule(subjects: Sequence[ProbedModel], material: ProbeData, most: int) -> ProbeResult:
    """Forced choice over at most so many items of each kind and gap."""
    assert material.items is not None
    groups = _groups(read_items(material.items), most)
    rows, summary = [], []
    for subject in subjects:
        mine = [_row(subject, kind, gap, items) for (kind, gap), items in groups.items()]
        share = _over_optimum(subject, material)
        rows += [row | {"over_optimum": share} for row in mine]
        summary.append(_summary(subject, mine, share))
    return _result(subjects, rows, summary)


def _groups(items: Sequence[Item], most: int) -> dict[tuple[str, int], list[Item]]:
    """Items by kind and gap, the control first."""
    groups: dict[tuple[str, int], list[Item]] = {}
    for item in items:
        if len(item.candidates) > 1:
            group = groups.setdefault((item.kind, item.gap), [])
            if len(group) < most:
                group.append(item)
    order = sorted(groups, key=lambda key: (key[0] != CONTROL, *key))
    return {key: groups[key] for key in order}


def _row(subject: ProbedModel, kind: str, gap: int, items: Sequence[Item]) -> dict[str, Any]:
    some = max(8, MEMORY // (8 * row_bytes(subject.model)))
    right, losses = 0, []
    for begin in range(0, len(items), some):
        group = items[begin : begin + some]
        # candidates of one item may be fewer than another's: one group of equal number at a time
        for size in sorted({len(i.candidates) for i in group}):
            alike = [i for i in group if len(i.candidates) == size]
            words = [i.candidates for i in alike]
            scores = choose_behind(subject.model, subject.tokenizer, [i.text for i in alike], words)
            answers = np.array([i.candidates.index(i.answer) for i in alike])
            own = scores[np.arange(len(alike)), answers]
            rivals = scores.copy()
            rivals[np.arange(len(alike)), answers] = -np.inf
            right += int((own > rivals.max(1)).sum())
            p = np.stack([normalised(s) for s in scores])[np.arange(len(alike)), answers]
            losses += (-np.log(np.maximum(p, 1e-300))).tolist()
    low, high = wilson(right, len(items))
    chance = float(np.mean([1 / len(i.candidates) for i in items]))
    row = subject.row(gap=gap, kind=kind, value=right / len(items), low=low, high=high)
    row |= {"count": len(items), "chance": chance, "target_nats": float(np.mean(losses))}
    return row | {"amnesic_nats": float(np.mean([math.log(len(i.candidates)) for i in items]))}


def _over_optimum(subject: ProbedModel, material: ProbeData) -> float | None:
    """Perplexity per word token of the grammar (line ends count) over the best possible one."""
    best = material.optimum.get("perplexity")
    tokens = sum(len(piece.split()) + piece.count("\n") for piece in material.held_out)
    if best is None or not tokens:
        return None
    scored = score_documents(subject.model, subject.tokenizer, material.held_out)
    nats = math.fsum(float(s.nats.sum(dtype=np.float64)) for s in scored)
    return math.exp(min(700.0, nats / tokens)) / best


def main_kind(rows: Sequence[dict[str, Any]]) -> str:
    """The kind of item that is asked for at most gaps."""
    kinds: list[str] = [row["kind"] for row in rows if row["kind"] != CONTROL] or [CONTROL]
    return max(dict.fromkeys(kinds), key=kinds.count)


def _summary(
    subject: ProbedModel, rows: Sequence[dict[str, Any]], share: float | None
) -> dict[str, Any]:
    """The largest gap up to which every lower limit is above chance."""
    kind = main_kind(rows)
    mine = sorted((r for r in rows if r["kind"] == kind), key=lambda r: int(r["gap"]))
    held, at_least = leading_run(mine, lambda r: r["low"] > r["chance"])
    reached = held[-1]["gap"] if held else 0
    accuracy = max((r["value"] for r in mine if r["gap"] == reached), default=None)
    shown = f"gap {reached:,}" if any(r["gap"] <= reached for r in mine) else "none shown"
    if at_least:
        shown = "at least " + shown
    found = {"tokens": reached, "at_least": at_least}
    return subject.row(reach=found, kind=kind, accuracy=accuracy, over_optimum=share, figure=shown)


def _result(
    subjects: Sequence[ProbedModel], rows: list[dict[str, Any]], summary: list[dict[str, Any]]
) -> ProbeResult:
    names = labels(subjects)
    kind = main_kind(rows)
    mine = [row for row in rows if row["kind"] == kind]
    picture = figure(
        names, mine, "gap", f"right answers by gap: {kind}", "gap", PERCENT, mine[0]["chance"]
    )
    columns = [
        Column("model", text("model")),
        Column("kind", text("asked for")),
        Column("gap", COUNT, "gap"),
        Column("value", PERCENT, "right"),
        Column("low", PERCENT, "from"),
        Column("high", PERCENT, "to"),
        Column("chance", PERCENT, "chance"),
        Column("target_nats", Metric("target nats", 3)),
        Column("over_optimum", Metric("PPL/PPL*", 3)),
        Column("count", COUNT),
    ]
    verdict = [
        f"{names[row['run']]}: "
        + ("above chance up to " if row["figure"] != "none shown" else "")
        + str(row["figure"]).replace("none shown", "not above chance at the smallest gap")
        for row in summary
    ]
    note = f"target nats: 0 is perfect, {mine[0]['amnesic_nats']:.2f} is amnesic ({kind})"
    shown = [row | {"model": names[row["run"]]} for row in rows]
    return ProbeResult(
        "recall", rows, sentence(verdict), summary, columns, shown, [picture], [note]
    )
