"""One probe or all of them over runs, and what ``lmcli probe`` says of it.

**In:** names of probes, settings, runs, a text.
**Out:** a `ProbeResult` of each probe that applies; a `ProbeReport`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcli.errors import TextError
from lmcli.evaluation.probes.base import Probe, ProbeResult
from lmcli.evaluation.probes.data import ProbeData, Subjects
from lmcli.registry import PROBES
from lmcli.report.progress import Message, OnProgress, warnings_only
from lmcli.report.result import Block, Column, Passage, Reportable, Result, Table, text
from lmcli.settings import check_known, update

MEASURES = {
    "ceiling": "how far apart the text's own symbols tell of each other",
    "closing": "how far back an open bracket or quote is known",
    "context": "how many tokens before a word help to predict it",
    "copies": "how far back it remembers which word came after which",
    "echo": "whether a list is easier the second time",
    "gradient": "at which lag the gradient falls below 1/1000",
    "halflife": "after how many tokens a unit has lost half",
    "influence": "how long another token is felt in predictions",
    "order": "how far back words help, and their order",
    "recall": "how far back a word or fact still helps",
    "stored": "how far back a word can be read out of the state",
}
"""what the figure of each probe is"""
SUMMARY = "none shown: measured, and no effect was found; -: not measured on this run"


@dataclass(frozen=True)
class ProbeReport(Reportable):
    """The results of one probe, or of `all` that apply."""

    results: Sequence[ProbeResult]
    all: bool = True

    def result(self) -> Result:
        """Pictures, verdicts; a table of one probe, or a summary: a row a run, a column a probe."""
        return self._all() if self.all else self._one()

    def _one(self) -> Result:
        (result,) = self.results
        blocks = result.pictures()
        if result.table:
            blocks.append(Table("", result.columns, result.table, "\n".join(result.notes)))
        return Result("probe", result.to_json(), [*blocks, Passage(result.verdict)])

    def _all(self) -> Result:
        blocks: list[Block] = []
        rows: dict[str, dict[str, Any]] = {}
        for result in self.results:
            blocks += [*result.pictures(), *map(Passage, result.notes)]
            blocks.append(Passage(f"{result.probe}: {result.verdict}\n"))
            for row in result.middle or result.summary:
                mine = rows.setdefault(
                    row.get("model", row["run"]), {"run": row["run"], "arch": row["arch"]}
                )
                mine[result.probe] = row["figure"]
        blocks.append(self._summary(list(rows.values())))
        values = {
            "probe": "all",
            "rows": list(rows.values()),
            "verdict": ". ".join(f"{r.probe}: {r.verdict}" for r in self.results),
            "probes": [r.to_json() for r in self.results],
        }
        return Result("probe", values, blocks)

    def _summary(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """A row a probe, a column a run: a run has a few words from each."""
        columns = [Column("probe", text("probe")), Column("measures", text("measures"))]
        columns += [
            Column(str(place), text(Path(row["run"]).name)) for place, row in enumerate(rows)
        ]
        table = []
        for name in (result.probe for result in self.results):
            said = {str(place): row.get(name) for place, row in enumerate(rows)}
            table.append({"probe": name, "measures": MEASURES.get(name), **said})
        return Table("summary", columns, table, SUMMARY)


def load_probes(names: Sequence[str], pairs: Mapping[str, Any]) -> dict[str, tuple[Probe, Any]]:
    """Each probe with its settings; a pair that none of them has is a UsageError."""
    members = {name: PROBES.load(name) for name in names}
    check_known(pairs, *(m.Settings for m in members.values()))
    return {name: (m(), update(m.Settings(), pairs)) for name, m in members.items()}


def run_probes(
    probes: Mapping[str, tuple[Probe, Any]],
    subjects: Subjects,
    data: ProbeData,
    seed: int = 0,
    on_progress: OnProgress = warnings_only,
) -> list[ProbeResult]:
    """Every probe over the runs that it applies to; a single probe must apply to some."""
    results = []
    for name, (probe, settings) in probes.items():
        reasons = {s.name: probe.applies(s, data, settings) for s in subjects}
        left_out = list(dict.fromkeys(r for r in reasons.values() if r))
        mine = [s for s in subjects if reasons[s.name] is None]
        archs = ", ".join(s.arch for s in mine)
        on_progress(Message(f"probe {name}: {archs or 'left out'}"))
        if mine:
            result = probe.run(mine, data, settings, seed)
            results.append(replace(result, notes=[*result.notes, *left_out]))
        elif len(probes) == 1:
            raise TextError(
                f"probe {name} does not apply: {left_out[0]}", "lmcli probe RUN runs what does"
            )
        else:
            on_progress(Message(f"  {'; '.join(left_out)}"))
    return results
