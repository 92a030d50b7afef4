"""The ranking of a comparison as tables, from what its JSON holds.

**In:** the values of ``lmcli compare --json``, measured now or read from comparison.json.
**Out:** the ranking with verdicts and notes; what each training cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmcli.evaluation.differences import ASSUMED_DEVIATION, Difference, word_for_best
from lmcli.evaluation.row_memory import has_not_learnt, reach_text
from lmcli.registry import MODELS
from lmcli.report.result import (
    BITS_PER_CHAR,
    PARAMETERS,
    PERPLEXITY,
    Column,
    Metric,
    Table,
    text,
)

Row = Mapping[str, Any]
COST_COLUMNS = (
    Column("name", text("model")),
    Column("parameters", PARAMETERS),
    Column("state", Metric("state", 0), needs_room=True),
    Column("steps", Metric("steps", 0), needs_room=True),
    Column("million", Metric("M tokens", 1)),
    Column("seconds", Metric("s", 0)),
)
SEEN = (
    "the sentences of this text stand in it several times, so that models have seen those of the "
    "held-out part; for sentences that none has seen, look at what planting costs"
)
ERRORS = (
    "bits/char: ± one standard error of {}; against best: bits/char, ± half of the 95 % interval"
)
REACH = (
    "reach: tokens (characters, words) back to the farthest word or fact that still helps; "
    "0: no help was shown, -: not measured"
)
SLOWER_KERNEL = 0.75
"""of the fastest one's operations a second: below it a row's kernel is told of"""
SEEDS = 3
"""what is advised where there is one"""
ENDED = "ended by: budget, epochs (read often enough), memory (items answered)"
READ = (
    "bits/char says how many bits a character of the held-out text costs: lower is better. A model "
    "is worse than the best only where the column against best says so: its difference is then "
    "larger than chance and the number of comparisons explain."
)
CAUTION = (
    "A better score here does not make an architecture better in general: it is this text, this "
    "budget and these sizes. Memory is a small part of the score, as most characters can be "
    "guessed from the last few."
)


def ranking_table(values: Mapping[str, Any]) -> Table:
    """The ranking: what each training cost, how it scores, against the best."""
    rows: Sequence[Row] = values["rows"]
    part = "test" if all(row["test"] for row in rows) else "valid"
    columns = [
        *COST_COLUMNS,
        Column(f"{part}.perplexity", PERPLEXITY),
        Column(f"{part}.bits_per_char", BITS_PER_CHAR),
        Column("stopped", text("ended"), needs_room=True),
        Column("reached", text("reach")),
        Column("verdict", text("against best")),
    ]
    held_out = {"test": "held-out text", "valid": "validation text (there is no test part)"}
    several = any(len(row["seeds"]) > 1 for row in rows)
    notes = [ERRORS.format("text and seeds" if several else "the text"), REACH]
    if (values["corpus"].get("times_used") or 1) > 1:
        notes.append(SEEN)
    rewards = (values.get("ceiling") or {}).get("sentence", "")
    notes += filter(None, [seeds_hint(values), kernel_note(values), rewards, values["too_little"]])
    title = f"{held_out[part]}, best first"
    return Table(title, columns, _table_rows(values), "\n".join(notes), READ, CAUTION)


def training_table(values: Mapping[str, Any]) -> Table:
    """What each training cost and how far back it reaches, without the ranking."""
    columns = [*COST_COLUMNS, Column("reached", text("reach"))]
    columns.append(Column("stopped", text("ended")))
    return Table("what was trained", columns, _table_rows(values), f"{ENDED}\n{REACH}")


def seeds_hint(values: Mapping[str, Any]) -> str:
    """What more seeds would cost and give, where there is one."""
    trained = _trained(values["rows"])
    if not values["differences"] or not trained or any(len(r["seeds"]) > 1 for r in trained):
        return ""
    seconds = sum(row["seconds"] for row in trained) * (SEEDS - 1)
    minutes = seconds / 60 / (values["protocol"].get("side_by_side") or 1)
    return (
        f"one seed: another is assumed to change a score by {100 * ASSUMED_DEVIATION:g} %. "
        f"--seeds {SEEDS} measures that, in {minutes:.1f} more minutes, and makes its share "
        f"of the intervals {math.sqrt(SEEDS):.1f} times smaller"
    )


def kernel_note(values: Mapping[str, Any]) -> str:
    """Whose kernels are slower than the fastest, where all were given the same time."""
    trained = [row for row in _trained(values["rows"]) if row["seconds"]]
    rates = {row["name"]: row["tokens_per_second"] * row["flops_per_token"] for row in trained}
    if not values["protocol"].get("minutes") or not rates:
        return ""
    fastest = max(rates, key=lambda name: rates[name])
    shares = {name: rate / rates[fastest] for name, rate in rates.items()}
    slower = [f"{n} at {share:.1g}" for n, share in shares.items() if share < SLOWER_KERNEL]
    said = f"times the speed of {fastest}: equal time compares kernels too"
    return f"per floating point operation {', '.join(slower)} {said}" if slower else ""


def ranked(rows: Sequence[Row]) -> list[Row]:
    """The rows of models: not that of the best possible score."""
    return [row for row in rows if row["arch"] != "optimum"]


def _trained(rows: Sequence[Row]) -> list[Row]:
    return [row for row in ranked(rows) if not MODELS.load(row["arch"]).is_count_based]


def _table_rows(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [Difference.from_json(one) for one in values["differences"]]
    differences, table = {d.a: d for d in found}, []
    best = ranked(values["rows"])[0]["name"]
    for row in values["rows"]:
        verdict = word_for_best(found) if row["name"] == best else ""
        if against := differences.get(row["name"]):
            verdict = against.in_words()
            if has_not_learnt(row):
                verdict = f"not learnt {against.shown()}"
        millions = None if row["tokens_seen"] is None else row["tokens_seen"] / 1e6
        reach = reach_text(row["reach"])
        table.append({**row, "verdict": verdict, "million": millions, "reached": reach})
    if mix := values.get("mix"):
        verdict = Difference.from_json(mix["difference"]).in_words()
        table.append({"name": "mix of these", "test": mix["test"], "verdict": verdict})
        table.sort(key=lambda row: (row["test"] or row["valid"])["bits_per_char"])
    return table
