"""Recall of what a grammar has hidden in its text: items with known answers, by gap.

**In:** runs, the items that lie beside a grammar's text, the grammar's optimum.
**Out:** a row a run, kind and gap: forced choice, the loss at the target, PPL / PPL*.

The loss is -ln p of the answer among the candidates: 0 is perfect, ln of their number is amnesic.
PPL / PPL* is the run's perplexity over the best possible one, both per word: it ranks models and
hides memory, which shows at the targets only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lmcli.evaluation.forced_choice import first_unknown
from lmcli.evaluation.item_accuracy import CONTROL, group_items, item_accuracy
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
from lmcli.grammars.base import Item, read_items
from lmcli.report.result import COUNT, PERCENT, Column, Metric, text


def missing_word(subject: ProbedModel, data: ProbeData) -> str | None:
    """A candidate of the items that is not in the run's vocabulary."""
    assert data.items is not None
    words = {word for item in read_items(data.items) for word in item.candidates}
    return first_unknown(subject.tokenizer, sorted(words))


def recall_grammar_items(
    subjects: Sequence[ProbedModel], data: ProbeData, most: int
) -> ProbeResult:
    """Forced choice over at most `most` items of each kind and gap."""
    assert data.items is not None
    groups = group_items(read_items(data.items), most)
    rows, summary = [], []
    for subject in subjects:
        mine = [_row(subject, items) for items in groups.values()]
        share = _over_optimum(subject, data)
        rows += [row | {"over_optimum": share} for row in mine]
        summary.append(_summary(subject, mine, share))
    return _result(subjects, rows, summary)


def _row(subject: ProbedModel, items: Sequence[Item]) -> dict[str, Any]:
    found = item_accuracy(subject.model, subject.tokenizer, items)
    low, high = found.interval
    row = subject.row(gap=found.gap, kind=found.kind, value=found.accuracy, low=low, high=high)
    row |= {"count": found.count, "chance": found.chance, "target_nats": found.target_nats}
    return row | {"amnesic_nats": found.amnesic_nats}


def _over_optimum(subject: ProbedModel, data: ProbeData) -> float | None:
    """Perplexity per word token of the grammar (line ends count) over the best possible one.

    None where the optimum is not known, or not per word.
    """
    best = data.optimum.get("perplexity")
    tokens = sum(len(piece.split()) + piece.count("\n") for piece in data.held_out)
    if not best or not tokens:
        return None
    scored = score_documents(subject.model, subject.tokenizer, data.held_out)
    nats = math.fsum(float(s.nats.sum(dtype=np.float64)) for s in scored)
    return math.exp(min(700.0, nats / tokens)) / best


def main_kind(rows: Sequence[dict[str, Any]]) -> str:
    """The kind of item that comes at the most gaps."""
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
        Column("kind", text("kind")),
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
