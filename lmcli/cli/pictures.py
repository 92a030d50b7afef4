"""What ``lmcli inspect`` shows: an inspected text as strips, tables and a verdict.

**In:** an `Activations`, and what the user wants to see of it.
**Out:** a Result; cli/inspect.py says what its JSON keys are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from lmcli.evaluation.activations import Activations, correlate, read_only, versus
from lmcli.report.result import (
    BITS,
    COUNT,
    GATE,
    PERCENT,
    Block,
    Column,
    Facts,
    Metric,
    Passage,
    Result,
    Strip,
    Strips,
    Table,
)
from lmcli.report.result import text as text_column
from lmcli.run import Run

SHOWN = 1000
"""tokens that are drawn; --json has all"""
FEW = 20
"""up to so many tokens their numbers are shown too"""
UNITS = 8
SURPRISE, DECIDED = 10.0, 4.0
"""bits at which the strip of surprise is full, and at which a difference has its full colour"""
NATS_PER_BIT = 0.6931471805599453


# ------------------------------------------------------------------ one run


def average(values: dict[str, Any], seen: Activations, gate: str | None, text: str) -> Result:
    """Every gate, averaged over its units."""
    gates = seen.matching(gate)
    averages = {name: seen.average(name).tolist() for name in gates}
    items = _items(seen, averages)
    rows = [_strip(name, averages[name], signed=False) for name in gates]
    title = "what happens while each token is read: means over units"
    if any(seen.values[name].min() < 0 for name in gates):
        title += ", of their size where they have signs"
    blocks = [_drawn(title, seen.tokens, [_surprise(seen.nats), *rows])]
    if len(items) <= FEW:
        blocks.append(_numbers(gates, items))
    tried = f"lmcli inspect {values['run']} {_again(text)} --gate {gates[-1]} --units {UNITS}"
    return Result("inspect", {**values, "gates": gates, "items": items}, blocks, [tried])


def single_units(
    values: dict[str, Any], seen: Activations, gate: str | None, count: int, unit: int | None
) -> Result:
    """Single units of a gate: the one asked for, or those that vary most."""
    if gate is None:
        gate = "cell" if any(name.endswith("cell") for name in seen.values) else "hidden"
    gates, rows, shown = seen.matching(gate), list[Any](), dict[str, list[Any]]()
    for name in gates:
        chosen = seen.telling(name, count) if unit is None else [unit]
        lines = {str(u): seen.unit(name, u).tolist() for u in chosen}
        shown[name] = [dict(zip(lines, v, strict=True)) for v in zip(*lines.values(), strict=True)]
        signed = bool(seen.values[name].min() < 0)
        rows += [_strip(f"{name} {u}", line, signed) for u, line in lines.items()]
    items = _items(seen, shown)
    if unit is None:
        title = f"the units of {gate} that vary most over the text, largest variance first"
        block = _drawn(title, seen.tokens, [_surprise(seen.nats), *rows])
    else:
        low, high = min(rows[-1].values), max(rows[-1].values)
        tint = [2 * (v - low) / ((high - low) or 1.0) - 1 for v in rows[-1].values]
        title = f"{gates[-1]} {unit} along the text: blue low, red high"
        block = _drawn(title, seen.tokens, [_surprise(seen.nats), *rows], tint)
    return Result("inspect", {**values, "gates": gates, "items": items}, [block])


def _items(seen: Activations, shown: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """One entry a token: its text, its loss, and what each gate shows."""
    rows = zip(seen.tokens, seen.nats.tolist(), *shown.values(), strict=True)
    return [{"text": t, "nats": n, **dict(zip(shown, v, strict=True))} for t, n, *v in rows]


def _numbers(gates: Sequence[str], items: list[dict[str, Any]]) -> Block:
    """A row a token."""
    columns = [Column("token", text_column("token")), Column("bits", BITS)]
    columns += [Column(f"values.{place}", GATE, name) for place, name in enumerate(gates)]
    rows = [
        {
            "token": repr(item["text"])[1:-1],
            "bits": item["nats"] / NATS_PER_BIT,
            "values": {str(place): item[name] for place, name in enumerate(gates)},
        }
        for item in items
    ]
    return Table("", columns, rows)


def _strip(name: str, line: list[float], signed: bool) -> Strip:
    """A row of marks from 0 to 1, from -1 to 1, or further where values go further."""
    most = max(1.0, *map(abs, line))
    return Strip(name, line, -most if signed else 0.0, most)


def _surprise(nats: Iterable[float], name: str = "bits") -> Strip:
    """What each token cost."""
    return Strip(name, [float(n) / NATS_PER_BIT for n in nats], 0.0, SURPRISE)


def _drawn(
    title: str, parts: Sequence[str], rows: Sequence[Strip], tint: Sequence[float] = ()
) -> Block:
    """The first tokens and their strips, coloured by `tint` or by surprise."""
    note = ""
    if len(parts) > SHOWN:
        of = f"{COUNT.show(SHOWN)} of {COUNT.show(len(parts))}"
        note = f"drawn: the first {of} tokens; --json has all"
    tint = tint or [bits / SURPRISE for bits in rows[0].values]
    return Strips(title, parts[:SHOWN], rows, tint, note)


def _again(text: str) -> str:
    """The text as it was typed, if it is short and can be shown."""
    return shlex.quote(text) if len(text) <= 40 and text.isprintable() else "TEXT"


# ------------------------------------------------------------------ two runs


def who_remembered(
    values: dict[str, Any], seen: Activations, other: Run, pieces: list[str]
) -> Result:
    """Who remembered: where one run expected the text more than the other."""
    theirs = read_only(other.model(), other.tokenizer, pieces)
    token_spans = versus(seen, theirs)
    items = [{**asdict(s), "difference": s.difference} for s in token_spans]
    total = float(theirs.nats.sum())
    about = {"run": str(other.path), "arch": other.record.arch, "nats": total}
    apart = [s.difference / NATS_PER_BIT for s in token_spans]
    rows = [
        _surprise([s.nats for s in token_spans], "first"),
        _surprise([s.versus for s in token_spans], "second"),
        _strip("first - second", apart, signed=True),
    ]
    title = f"who expected it more? blue: {values['run']} (first), red: {other.path} (second)"
    tint = [max(-1.0, min(1.0, bits / DECIDED)) for bits in apart]
    block = _drawn(title, [s.text for s in token_spans], rows, tint)
    sums = {"first": values["nats"] / NATS_PER_BIT, "second": total / NATS_PER_BIT}
    columns = [Column("first", Metric("", 1), f"first: bits of {values['run']}")]
    columns.append(Column("second", Metric("", 1), f"second: bits of {other.path}"))
    facts = Facts(columns, sums)
    return Result("inspect", {**values, "versus": about, "items": items}, [block, facts])


# ------------------------------------------------------------------ units that tell


def telltales(
    values: dict[str, Any], seen: Activations, regex: str, gate: str | None, count: int, text: str
) -> Result:
    """The units whose value best tells whether a token lies inside a match."""
    gates = seen.matching(gate)
    found = correlate(seen, regex, gates, count)
    rows = [{**asdict(u), "side": ">" if u.above else "<"} for u in found.units]
    columns = [Column("gate", text_column("value")), Column("unit", Metric("unit"))]
    columns += [Column("side", text_column("inside if")), Column("threshold", GATE, "threshold")]
    columns += [Column("score", PERCENT, "held-out"), Column("auc", GATE, "AUC")]
    columns += [Column("fit", PERCENT, "where chosen")]
    inside, tokens = COUNT.show(found.inside), COUNT.show(found.tokens)
    note = (
        f"held-out: balanced accuracy on the second half of the text ({inside} of {tokens} tokens "
        "inside); unit and threshold were chosen on the first. "
        f"Chance is {PERCENT.show(found.chance)}; with the matches shifted along the text the best "
        f"of {COUNT.show(found.candidates)} units came to {PERCENT.show(found.shifted)} in 19 tries"
    )
    best = found.units[0]
    said = f"tells: {PERCENT.show(best.score)} right on held-out text (balanced)"
    if best.score <= found.shifted:
        said = "is the best, and no better than the best on shifted matches: no unit tells"
    table = Table(f"units that tell where {regex} matches", columns, rows, note)
    tried = f"lmcli inspect {values['run']} {_again(text)} --gate {best.gate} --unit {best.unit}"
    verdict = Passage(f"{best.gate} {best.unit} {said}")
    values = {**values, "gates": gates, "correlate": asdict(found)}
    return Result("inspect", values, [table, verdict], [tried])
