"""How far back the rows of a comparison remember: a reach for each, answers by gap.

**In:** rows of a comparison as JSON, the text they belong to.
**Out:** for each row its `reach` and, where the text has items with known answers, its `recall`,
medians over the seeds; the results of the probes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmcli.evaluation.item_accuracy import CONTROL
from lmcli.evaluation.probes.base import ProbeData, ProbedModel, ProbeResult
from lmcli.evaluation.probes.recall.grammar_items import main_kind
from lmcli.evaluation.probes.suite import load_probes, run_probes
from lmcli.registry import PROBES
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import WHOLE_PERCENT, Column, Table, text
from lmcli.run import Run

UNMEASURED = {"tokens": None, "at_least": False}


def measure_memory(
    rows: Sequence[dict[str, Any]],
    data: ProbeData,
    seed: int = 0,
    every: bool = False,
    on_progress: OnProgress = warnings_only,
) -> list[ProbeResult]:
    """Set each row's `reach` and `recall`; the results of recall, or with `every` of all probes.

    Where the text has items with known answers, all seeds are asked, else the first of each row.
    """
    asked = None if data.items else 1
    paths = {row["name"]: [s["run"] for s in row["seeds"][:asked]] for row in rows}
    subjects = [ProbedModel.of(Run.open(Path(path))) for some in paths.values() for path in some]
    firsts = {some[0] for some in paths.values() if some}

    def warnings_on(event: object) -> object:
        remark = isinstance(event, Message) and event.level == "note"
        return None if remark else on_progress(event)

    results = []
    for name, probe in load_probes(PROBES.names() if every else ["recall"], {}).items():
        mine = [s for s in subjects if name == "recall" or s.name in firsts]
        if any(probe[0].applies(s, data, probe[1]) is None for s in mine):
            results += run_probes({name: probe}, mine, data, seed, warnings_on)
    recall = next((r for r in results if r.probe == "recall"), None)
    for row in rows:
        _set_recall(row, set(paths[row["name"]]), recall, by_items=bool(data.items))
    return results


def _set_recall(
    row: dict[str, Any], runs: set[str], recall: ProbeResult | None, by_items: bool
) -> None:
    """The median over the seeds of a row: its reach, and what it knows at each gap."""
    summaries = [] if recall is None else [s for s in recall.summary if s["run"] in runs]
    summaries.sort(key=lambda s: (s["reach"]["tokens"], s["reach"]["at_least"]))
    middle = (len(summaries) - 1) // 2
    row["reach"] = summaries[middle]["reach"] if summaries else dict(UNMEASURED)
    if not by_items or recall is None:
        return
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in recall.rows:
        if one["run"] in runs:
            groups.setdefault((one["kind"], one["gap"]), []).append(one)
    row["recall"] = [
        {
            "kind": kind,
            "gap": gap,
            "value": statistics.median(o["value"] for o in some),
            "low": statistics.median(o["low"] for o in some),
            "high": statistics.median(o["high"] for o in some),
            "least": min(o["value"] for o in some),
            "count": some[0]["count"],
            "chance": some[0]["chance"],
            "seeds": len(some),
        }
        for (kind, gap), some in groups.items()
    ]


def reach_text(reach: Mapping[str, Any]) -> str | None:
    """A reach as a table shows it; its 0 means that none was found.

    >>> reach_text({"tokens": 128, "at_least": True}), reach_text({"tokens": None})
    ('≥ 128', None)
    """
    if reach["tokens"] is None:
        return None
    return ("≥ " if reach["at_least"] else "") + f"{reach['tokens']:,}"


def recall_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Right answers of each row, a column a gap; no table where there are no items."""
    recalled = [row for row in rows if row.get("recall")]
    if not recalled:
        return []
    first = recalled[0]["recall"]
    kind = main_kind(first)
    by_gap = sorted((one for one in first if one["kind"] == kind), key=lambda one: one["gap"])
    gaps = {str(one["gap"]): one["chance"] for one in by_gap}
    table = [{"name": row["name"], **_cells(row["recall"], kind)} for row in recalled]
    control = [one["chance"] for one in first if one["kind"] == CONTROL]
    table.append({"name": "chance", CONTROL: control[0] if control else None, **gaps})
    columns = [Column("name", text("model"))]
    columns += [Column(CONTROL, WHOLE_PERCENT, CONTROL)] if control else []
    columns += [Column(gap, WHOLE_PERCENT, gap) for gap in gaps]
    seeds, count = first[0]["seeds"], max(one["count"] for one in first)
    note = f"{count} questions a gap" + (f"; median of {seeds} seeds" if seeds > 1 else "")
    return [Table(f"right answers by gap: {kind}", columns, table, note)]


def _cells(recall: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    cells = {str(one["gap"]): one["value"] for one in recall if one["kind"] == kind}
    return {one["kind"]: one["value"] for one in recall if one["kind"] == CONTROL} | cells
