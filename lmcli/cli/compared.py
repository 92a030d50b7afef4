"""What ``lmcli compare`` has found, as a Result."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmcli.data.dataset import Dataset
    from lmcli.evaluation.comparison import Comparison
    from lmcli.training.sweep import TrialResult


def values(comparison: Comparison, dataset: Dataset, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of ``lmcli compare --json``."""
    from lmcli.evaluation.comparison import optimum_row

    corpus, encoded = dataset.corpus, dataset.tokenized
    rows = [s.to_json() | {"reach": None} for s in comparison.standings]
    optimum = optimum_row(dataset)
    if optimum:
        rows.append(optimum | {"reach": None})
        rows.sort(key=lambda row: (row["test"] or row["valid"])["bits_per_char"])
    parts = [p for p in (corpus.train, corpus.valid, corpus.test) if p]
    streams = [s for s in (encoded.train, encoded.valid, encoded.test) if s is not None]
    return {
        "corpus": {
            "sha256": corpus.sha256,
            "chars": sum(p.chars for p in parts),
            "tokens": sum(map(len, streams)) - sum(len(p.documents) for p in parts),
            "tokenizer": dataset.tokenizer,
        },
        "protocol": protocol,
        "rows": rows,
        "differences": [d.to_json() for d in comparison.differences],
    }


def warn_unlike(outcomes: Sequence[TrialResult]) -> None:
    """Warnings where some lack tokens that others know, so that bits per character lie."""
    from lmcli.cli.console import warn_uncounted

    found = {o.name: o.held_out for o in outcomes}
    if len({score.unknown_tokens for score in found.values()}) > 1:
        for name, score in found.items():
            warn_uncounted(score, name)


def result(comparison: Comparison, values: dict[str, Any], folder: Path) -> Any:
    """The table and the next command."""
    from lmcli.cli.remembering import reach_text
    from lmcli.report.result import (
        BITS_PER_CHAR,
        PARAMETERS,
        PERPLEXITY,
        Column,
        Metric,
        Result,
        Table,
        text,
    )

    part = "test" if all(row["test"] for row in values["rows"]) else "valid"
    verdicts = {d["a"]: d for d in values["differences"]}
    best = comparison.standings[0].name
    shown = []
    for row in values["rows"]:
        against = verdicts.get(row["name"])
        verdict = "best" if row["name"] == best else ""
        if against:
            verdict = f"{against['verdict']} ({against['bits_per_char']:+.3f})"
        shown.append(row | {"verdict": verdict, "million": _million(row["tokens_seen"])})
        shown[-1]["reached"] = reach_text(row["reach"])
    columns = [
        Column("name", text("model")),
        Column("parameters", PARAMETERS),
        Column("million", Metric("M tokens", 1)),
        Column("seconds", Metric("s", 0)),
        Column(f"{part}.perplexity", PERPLEXITY),
        Column(f"{part}.bits_per_char", BITS_PER_CHAR),
        Column("reached", text("reach")),
        Column("verdict", text("against best")),
    ]
    what = "held-out text" if part == "test" else "validation text (there is no test part)"
    note = "± is one standard error; a verdict is a paired 95 % interval in bits/char"
    table = Table(f"{what}, best first", columns, shown, note)
    place = shlex.quote(str(folder))
    again = f"lmcli sample {shlex.quote(comparison.standings[0].outcomes[0].run)}"
    if any(row["arch"] == "optimum" for row in values["rows"]):
        again = f"lmcli cloze {place}/*"
    return Result("compare", values, [table], [again])


def _million(tokens: float | None) -> float | None:
    return None if tokens is None else tokens / 1e6
