"""What a comparison says of memory: a reach for every row, answers by gap, all probes if asked for.

**In:** the values of ``lmcli compare --json``, the text they belong to.
**Out:** the same with `reach` and, where the text has items with known answers, `recall`; blocks.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcli.cli.probe import all_results, material_from, probe_settings, run_probes

if TYPE_CHECKING:
    from lmcli.evaluation.probes.base import ProbeResult

UNMEASURED = {"tokens": None, "at_least": False}


def add_memory(values: dict[str, Any], dataset: Any, seed: int, every: bool) -> list[ProbeResult]:
    """Give each row of a comparison its `reach` and `recall`; with `every` run all probes as well.

    Where the text has items with known answers, all seeds are asked, else the first of each row.
    """
    from lmcli.evaluation.probes.base import ProbedModel
    from lmcli.registry import PROBES
    from lmcli.run import Run

    material = material_from(dataset.corpus)
    asked = None if material.items else 1
    paths = {row["name"]: [s["run"] for s in row["seeds"][:asked]] for row in values["rows"]}
    subjects = [ProbedModel.of(Run.open(Path(path))) for some in paths.values() for path in some]
    firsts = {some[0] for some in paths.values() if some}
    results = []
    for name, probe in probe_settings(PROBES.names() if every else ["recall"], {}).items():
        mine = [s for s in subjects if name == "recall" or s.name in firsts]
        if any(probe[0].applies(s, material, probe[1]) is None for s in mine):
            results += run_probes({name: probe}, mine, material, seed)
    recalled = next((r for r in results if r.probe == "recall"), None)
    for row in values["rows"]:
        _add_recall(row, set(paths[row["name"]]), recalled, bool(material.items))
    if every:
        values["probes"] = [r.to_json() for r in results]
    return results if every else []


def _add_recall(
    row: dict[str, Any], runs: set[str], recalled: ProbeResult | None, by_rule: bool
) -> None:
    """The median over the seeds of a row: its reach, and what it knows at each gap."""
    found = [] if recalled is None else [s for s in recalled.summary if s["run"] in runs]
    found.sort(key=lambda s: (s["reach"]["tokens"], s["reach"]["at_least"]))
    row["reach"] = found[(len(found) - 1) // 2]["reach"] if found else dict(UNMEASURED)
    if not by_rule or recalled is None:
        return
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in recalled.rows:
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


def with_memory(result: Any, results: Sequence[ProbeResult]) -> Any:
    """A comparison with right answers by gap below it, and the pictures of all probes."""
    blocks = [*result.blocks, *_by_gap(result.values["rows"])]
    if results:
        blocks += all_results(results).blocks
    return replace(result, blocks=blocks)


def _by_gap(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Rows of a comparison, a column a gap."""
    from lmcli.evaluation.probes.recall.grammar_items import CONTROL, main_kind
    from lmcli.report.result import WHOLE_PERCENT, Column, Table, text

    recalled = [row for row in rows if row.get("recall")]
    if not recalled:
        return []
    asked = recalled[0]["recall"]
    kind = main_kind(asked)
    gaps = {
        str(one["gap"]): one for one in sorted(asked, key=lambda o: o["gap"]) if one["kind"] == kind
    }
    shown = [{"name": row["name"], **_shown(row["recall"], kind)} for row in recalled]
    control = [one["chance"] for one in asked if one["kind"] == CONTROL]
    chance = {gap: one["chance"] for gap, one in gaps.items()}
    shown.append({"name": "chance", CONTROL: control[0] if control else None, **chance})
    columns = [Column("name", text("model"))]
    columns += [Column(CONTROL, WHOLE_PERCENT, CONTROL)] if control else []
    columns += [Column(gap, WHOLE_PERCENT, gap) for gap in gaps]
    seeds, count = asked[0]["seeds"], max(one["count"] for one in asked)
    note = f"{count} questions a gap" + (f"; median of {seeds} seeds" if seeds > 1 else "")
    return [Table(f"right answers by gap: {kind}", columns, shown, note)]


def _shown(recall: Sequence[Mapping[str, Any]], kind: str) -> dict[str, float]:
    from lmcli.evaluation.probes.recall.grammar_items import CONTROL

    mine = {str(one["gap"]): one["value"] for one in recall if one["kind"] == kind}
    return {one["kind"]: one["value"] for one in recall if one["kind"] == CONTROL} | mine
