"""How far back each row of a comparison remembers.

**In:** rows as JSON with the runs of their seeds, the data that probes read for each seed.
**Out:** each row's `reach` and, where the text has items with known answers, its `recall`, whether
it has learnt their task (`learning`), and what planting them costs the text (`cost`); the table.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcli.evaluation.convergence import VERDICTS
from lmcli.evaluation.filler_cost import measure_cost, planted_texts
from lmcli.evaluation.forced_choice import CONTROL, main_kind
from lmcli.evaluation.probes.base import Probe, ProbeResult
from lmcli.evaluation.probes.data import ProbeData, ProbedModel
from lmcli.evaluation.probes.report import load_probes, run_probes
from lmcli.registry import PROBES
from lmcli.report.progress import OnProgress, warnings_only, without_notes
from lmcli.report.result import WHOLE_PERCENT, Column, Table, text
from lmcli.run import Run

UNMEASURED = {"tokens": None, "at_least": False}


@dataclass(frozen=True)
class Group:
    """Runs that are tested on the same text."""

    subjects: list[ProbedModel]
    data: ProbeData


def measure_memory(
    rows: Sequence[dict[str, Any]],
    data: Mapping[int, ProbeData],
    seed: int = 0,
    every: bool = False,
    on_progress: OnProgress = warnings_only,
) -> tuple[list[ProbeResult], str]:
    """Set each row's `reach`, and by items `recall`, `learning` and `cost`; all seeds are probed.

    `data` has the text of each rotation. Gives the results of recall, or
    with `every` of all probes, and what the text has too little of.
    """
    groups = _groups(rows, data)
    results, too_little = list[ProbeResult](), ""
    for name, probe in load_probes(PROBES.names() if every else ["recall"], {}).items():
        result, reason = _probe(name, probe, groups, seed, on_progress)
        if result:
            results.append(result)
        elif name == "recall" and not any(group.data.items for group in groups):
            too_little = reason
    recall = next((r for r in results if r.probe == "recall"), None)
    items = groups[0].data.items if groups else None
    planted = planted_texts(items) if items and recall else []
    models = {s.name: s for group in groups for s in group.subjects}
    for row in rows:
        runs = [s["run"] for s in row["seeds"]]
        _set_recall(row, set(runs), recall, by_items=bool(items))
        if planted:
            first = models.get(runs[0]) if runs else None
            cost = measure_cost(first.model, first.tokenizer, planted) if first else None
            row["cost"] = cost.to_json() if cost else None
    return results, recall.too_little if recall else too_little


def _groups(rows: Sequence[Mapping[str, Any]], data: Mapping[int, ProbeData]) -> list[Group]:
    """The runs of all rows by the text that they are tested on."""
    groups = dict[int, Group]()
    for row in rows:
        for one in row["seeds"]:
            text = data[one["rotation"]]
            group = groups.setdefault(id(text), Group([], text))
            group.subjects.append(ProbedModel.of(Run.open(Path(one["run"])), row["name"]))
    return list(groups.values())


def _probe(
    name: str,
    probe: tuple[Probe, Any],
    groups: Sequence[Group],
    seed: int,
    on_progress: OnProgress,
) -> tuple[ProbeResult | None, str]:
    """The result of all groups to which a probe applies, or why it applies to none."""
    member, settings = probe
    results, subjects, reason = list[ProbeResult](), list[ProbedModel](), ""
    for group in groups[:1] if member.is_of_text else groups:
        reasons = [member.applies(s, group.data, settings) for s in group.subjects]
        if all(reasons):
            reason = reasons[0] or ""
            continue
        told = without_notes(on_progress)
        results += run_probes({name: probe}, group.subjects, group.data, seed, told)
        subjects += group.subjects
    return (member.combine(subjects, results) if results else None), reason


def _set_recall(
    row: dict[str, Any], runs: set[str], recall: ProbeResult | None, by_items: bool
) -> None:
    """The median over the seeds of a row: its reach, and its right answers at each gap."""
    summaries = [] if recall is None else [s for s in recall.summary if s["run"] in runs]
    summaries.sort(key=lambda s: (s["reach"]["tokens"], s["reach"]["at_least"]))
    middle = (len(summaries) - 1) // 2
    row["reach"] = dict(summaries[middle]["reach"] if summaries else UNMEASURED)
    if len(summaries) > 1:
        ends = {"least": summaries[0], "most": summaries[-1]}
        row["reach"] |= {name: end["reach"]["tokens"] for name, end in ends.items()}
        row["reach"] |= {"seeds": len(summaries)}
    if not by_items or recall is None:
        return
    learnt = sorted((s["learning"] for s in summaries), key=_order_of_learning)
    row["learning"] = learnt[middle] if learnt else None
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in (one for one in recall.rows if one["run"] in runs):
        groups.setdefault((one["kind"], one["gap"]), []).append(one)
    row["recall"] = [
        {
            "kind": kind,
            "gap": gap,
            **{n: statistics.median(o[n] for o in some) for n in ("value", "low", "high")},
            "least": min(o["value"] for o in some),
            "count": some[0]["count"],
            "chance": some[0]["chance"],
            "seeds": len(some),
        }
        for (kind, gap), some in groups.items()
    ]


def _order_of_learning(learning: Mapping[str, Any]) -> tuple[int, float]:
    return VERDICTS.index(learning["verdict"]), learning["nearest"]["value"]


def has_not_learnt(row: Mapping[str, Any]) -> bool:
    return (row.get("learning") or {}).get("verdict") == VERDICTS[0]


def reach_text(reach: Mapping[str, Any]) -> str | None:
    """A reach as a table shows it, with its range over seeds; a reach of 0 tokens is one too.

    >>> reach_text({"tokens": 128, "at_least": True}), reach_text({"tokens": None})
    ('≥ 128', None)
    >>> reach_text({"tokens": 128, "at_least": False, "least": 64, "most": 256})
    '128 (64-256)'
    """
    if reach["tokens"] is None:
        return None
    least, most = reach.get("least"), reach.get("most")
    ends = f" ({least:,}-{most:,})" if least != most else ""
    return ("≥ " if reach["at_least"] else "") + f"{reach['tokens']:,}{ends}"


def recall_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Right answers of each row, a column a gap; no table where there are no items."""
    recalled = [row for row in rows if row.get("recall")]
    if not recalled:
        return []
    first = recalled[0]["recall"]
    kind = main_kind([one["kind"] for one in first])
    by_gap = sorted((one for one in first if one["kind"] == kind), key=lambda one: one["gap"])
    gaps = {str(one["gap"]): one["chance"] for one in by_gap}
    controls = {one["kind"]: one["chance"] for one in first if one["kind"] == CONTROL}
    table = [{"name": row["name"], **_cells(row["recall"], kind)} for row in recalled]
    table.append({"name": "chance", **controls, **gaps})
    columns = [Column("name", text("model"))]
    columns += [Column(path, WHOLE_PERCENT, path) for path in [*controls, *gaps]]
    seeds, count = first[0]["seeds"], max(one["count"] for one in first)
    note = f"{count} questions a gap" + (f"; median of {seeds} seeds" if seeds > 1 else "")
    told = [(row["name"], (row.get("learning") or {}).get("remark")) for row in recalled]
    note = "\n".join([note, *(f"{name} {remark}" for name, remark in told if remark)])
    return [Table(f"right answers by gap: {kind}", columns, table, note)]


def _cells(recall: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    cells = {str(one["gap"]): one["value"] for one in recall if one["kind"] == kind}
    return {one["kind"]: one["value"] for one in recall if one["kind"] == CONTROL} | cells
