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

from lmcli.evaluation.convergence import measure_learning
from lmcli.evaluation.forced_choice import (
    ItemAccuracy,
    first_unknown,
    group_items,
    item_accuracy,
    main_kind,
)
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.probes.base import (
    Probe,
    ProbeResult,
    Row,
    Rows,
    interval_columns,
    leading_run,
)
from lmcli.evaluation.probes.data import ProbeData, ProbedModel, Subjects
from lmcli.grammars.base import read_items
from lmcli.report.result import COUNT, PERCENT, Column, Figure, Metric, text


class GrammarRecall(Probe):
    """Forced choice over the items beside the text, at most `items` of each kind and gap."""

    name = "recall"
    x = "gap"
    picture = Figure("", (), (), PERCENT, "gap")
    columns = (
        Column("kind", text("kind")),
        Column("gap", COUNT, "gap"),
        *interval_columns("right", PERCENT),
        Column("chance", PERCENT, "chance"),
        Column("target_nats", Metric("target nats", 3)),
        Column("over_optimum", Metric("PPL/PPL*", 3)),
        Column("count", COUNT),
    )

    def applies(self, subject: ProbedModel, data: ProbeData, settings: Any) -> str | None:
        """Only a run with all candidates in its vocabulary."""
        assert data.items is not None
        groups = group_items(read_items(data.items))
        words = {word for items in groups.values() for item in items for word in item.candidates}
        word = first_unknown(subject.tokenizer, sorted(words))
        return word and f"'{word}' of the items is not in the vocabulary of {subject.name}"

    def run(self, subjects: Subjects, data: ProbeData, settings: Any, seed: int = 0) -> ProbeResult:
        """A row a run, kind and gap; the curve is that of the main kind."""
        assert data.items is not None
        groups = group_items(read_items(data.items), settings.items)
        rows, summary = list[dict[str, Any]](), []
        for subject in subjects:
            model, tokenizer = subject.model, subject.tokenizer
            answers = {k: item_accuracy(model, tokenizer, group) for k, group in groups.items()}
            own = [_row(subject, answer) for answer in answers.values()]
            share = _over_optimum(subject, data)
            rows += [row | {"over_optimum": share} for row in own]
            asked = subject.run, model, tokenizer, groups, answers, data.train
            learning = measure_learning(*asked).to_json()
            summary.append(_summary(subject, own, share) | {"learning": learning})
        main = _of_main_kind(rows)[0]
        kind, amnesic = main["kind"], main["amnesic_nats"]
        note = f"target nats: 0 is perfect, {amnesic:.2f} is amnesic ({kind})"
        return self.result(subjects, rows, summary, notes=[note])

    def figures(self, subjects: Subjects, rows: Rows) -> list[Figure]:
        """The curve of the main kind."""
        main = _of_main_kind(rows)
        title = f"right answers by gap: {main[0]['kind']}"
        return [self.curve(subjects, main, title=title, reference=main[0]["chance"])]

    def verdict(self, row: Row) -> str:
        """The largest gap above chance; what a run is told that has not learnt the task."""
        shown = row["figure"] != "none shown"
        reach = f"above chance up to {row['figure']}" if shown else ""
        if remark := row["learning"]["remark"]:
            return f"{row['model']} {remark}{'; ' * shown}{reach}"
        return f"{row['model']}: {reach or 'not above chance at the smallest gap'}"


def _of_main_kind(rows: Rows) -> list[Row]:
    kind = main_kind([row["kind"] for row in rows])
    return [row for row in rows if row["kind"] == kind]


def _row(subject: ProbedModel, result: ItemAccuracy) -> dict[str, Any]:
    low, high = result.interval
    row = subject.row(gap=result.gap, kind=result.kind, value=result.accuracy, low=low, high=high)
    row |= {"count": result.count, "chance": result.chance, "target_nats": result.target_nats}
    return row | {"amnesic_nats": result.amnesic_nats}


def _over_optimum(subject: ProbedModel, data: ProbeData) -> float | None:
    """Perplexity per word token of the grammar (line ends count) over the best possible one.

    None where there is no optimum, or not one per word.
    """
    best = data.optimum.get("perplexity")
    tokens = sum(len(d.split()) + d.count("\n") for d in data.held_out)
    if not best or not tokens:
        return None
    scored = score_documents(subject.model, subject.tokenizer, data.held_out)
    nats = math.fsum(float(s.nats.sum(dtype=np.float64)) for s in scored)
    return math.exp(min(700.0, nats / tokens)) / best


def _summary(
    subject: ProbedModel, rows: Sequence[dict[str, Any]], share: float | None
) -> dict[str, Any]:
    """The largest gap up to which every lower limit is above chance."""
    kind = main_kind([row["kind"] for row in rows])
    mine = sorted((r for r in rows if r["kind"] == kind), key=lambda r: int(r["gap"]))
    above, at_least = leading_run(mine, lambda r: r["low"] > r["chance"])
    reached = above[-1]["gap"] if above else 0
    accuracy = max((r["value"] for r in mine if r["gap"] == reached), default=None)
    words = f"gap {reached:,}" if any(r["gap"] <= reached for r in mine) else "none shown"
    words = f"at least {words}" if at_least else words
    reach = {"tokens": reached, "at_least": at_least}
    return subject.row(reach=reach, kind=kind, accuracy=accuracy, over_optimum=share, figure=words)
