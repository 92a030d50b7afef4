"""What ``lmcli inspect`` says: a text token by token, inside a model or between two.

**In:** a run, a text or a file of one, what to look at.
**Out:** an `Inspection`. Its JSON keys beside `run`, `arch`, `tokenizer`, `tokens` and `nats`:

- `gates`: their names, and ``items: [{text, nats, <gate>: value}]``, one a token. The value is
  the mean over units (for candidate, cell and hidden, whose signs would cancel, the mean of their
  size); with single units a mapping from unit to value.
- with another run ``versus: {run, arch, nats}`` and ``items: [{text, nats, versus, difference}]``,
  one a span that is whole tokens for both; difference = nats - versus, below 0 where RUN is ahead.
- with a pattern ``correlate: {regex, tokens, inside, candidates, chance, shifted, units}`` with
  ``units: [{gate, unit, above, threshold, fit, score, auc}]``, best fit first, and no `items`.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmcli.data.corpus import read_documents
from lmcli.data.text import TextOptions
from lmcli.errors import TextError, UsageError
from lmcli.evaluation.activations import (
    Activations,
    Correlation,
    correlate,
    loss_difference,
    read_inside,
    read_only,
)
from lmcli.report.progress import Message, OnProgress, warnings_only
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
    Reportable,
    Result,
    Strip,
    Strips,
    Table,
)
from lmcli.report.result import text as text_column
from lmcli.run import Run
from lmcli.settings import update

LONGEST = 20_000
"""characters that are read"""
SHOWN = 1000
"""tokens that are drawn; --json has all"""
FEW = 20
"""up to this many tokens a table has their numbers"""
UNITS = 8
NATS_PER_BIT = math.log(2)
SURPRISE, DECIDED = 10.0, 4.0
"""bits at which the strip of surprise is full, and at which a difference has its full colour"""


@dataclass(frozen=True)
class ReadRun:
    """A run and the text as it has read it."""

    run: str
    arch: str
    tokenizer: str
    read: Activations

    @property
    def nats(self) -> float:
        """The loss of the whole text."""
        return float(self.read.nats.sum())


@dataclass(frozen=True)
class Inspection(Reportable):
    """A text inside a run: averages of gates, single units, another run, or a pattern."""

    first: ReadRun
    text: str
    """as it was given, for the next command"""
    gates: Sequence[str] = ()
    units: Mapping[str, Sequence[int]] | None = None
    """single units of each gate; None for averages"""
    named: bool = False
    """whether the unit was named; else they are those that vary most"""
    second: ReadRun | None = None
    correlation: Correlation | None = None

    def result(self) -> Result:
        """Strips of marks below the text, tables, a verdict."""
        if self.second:
            return _two_runs(self._values(), self.first, self.second)
        values = {**self._values(), "gates": self.gates}
        if self.correlation:
            return _pattern(values, self.correlation, self._text_again())
        if self.units is None:
            return _averages(values, self.first.read, self._text_again())
        return _single_units(values, self.first.read, self.units, self.named)

    def _values(self) -> dict[str, Any]:
        first = self.first
        about = {"run": first.run, "arch": first.arch, "tokenizer": first.tokenizer}
        return {**about, "tokens": len(first.read.spans), "nats": first.nats}

    def _text_again(self) -> str:
        """The text as it was typed, if it is short and can be shown."""
        short = len(self.text) <= 40 and self.text.isprintable()
        return shlex.quote(self.text) if short else "TEXT"


def inspect_text(
    run: Run,
    text: str,
    gate: str | None = None,
    units: int | None = None,
    unit: int | None = None,
    regex: str | None = None,
    versus: Run | None = None,
    on_progress: OnProgress = warnings_only,
) -> Inspection:
    """Read a text, or the file that it names, and look at one of four things.

    That is another run (`versus`), a pattern (`regex`), single units (`unit`, or the `units` that
    vary most), or all gates, averaged.
    """
    _check_one(units=units, unit=unit, versus=versus)
    _check_one(unit=unit, correlate=regex, versus=versus)
    _check_one(gate=gate, versus=versus)
    documents = _documents(run, text, on_progress)
    first = _read(run, documents, inside=versus is None)
    read = first.read
    if read.unknown:
        warning = f"{read.unknown} of {len(read.spans)} tokens are unknown to '{run.path}'"
        on_progress(Message(warning, "warning"))
    if versus is not None:
        return Inspection(first, text, second=_read(versus, documents, inside=False))
    if regex is not None:
        gates = read.matching(gate)
        correlation = correlate(read, regex, gates, units or UNITS)
        return Inspection(first, text, gates, correlation=correlation)
    if units is None and unit is None:
        return Inspection(first, text, read.matching(gate))
    if gate is None:
        gate = "cell" if any(name.endswith("cell") for name in read.values) else "hidden"
    gates = read.matching(gate)
    chosen = {g: read.most_varying(g, units or UNITS) if unit is None else [unit] for g in gates}
    return Inspection(first, text, gates, chosen, named=unit is not None)


def _check_one(**options: object) -> None:
    """A UsageError for two options that ask for different things."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} at once", "give one of them")


def _read(run: Run, documents: Sequence[str], inside: bool) -> ReadRun:
    read = (read_inside if inside else read_only)(run.model(), run.tokenizer, documents)
    return ReadRun(str(run.path), run.record.arch, run.record.tokenizer, read)


def _documents(run: Run, text: str, on_progress: OnProgress) -> list[str]:
    """The documents of a file, or the text itself; what is too long is cut."""
    documents = [text]
    if _names_a_file(text):
        unit = run.record.corpus.get("options", {}).get("documents", "file")
        options = update(TextOptions(), {"documents": unit})
        documents = read_documents([text], options)
    if not "".join(documents):
        raise TextError("the text is empty", "give a few words, or a file")
    if sum(map(len, documents)) > LONGEST:
        warning = f"only the first {LONGEST:,} characters of '{text[:60]}' are read"
        on_progress(Message(warning, "warning"))
    begins = itertools.accumulate(map(len, documents), initial=0)
    cut = [d[: max(0, LONGEST - begin)] for d, begin in zip(documents, begins, strict=False)]
    return [document for document in cut if document]


def _names_a_file(text: str) -> bool:
    """Whether TEXT names a file: one that is there, or what can be nothing else."""
    with suppress(OSError, ValueError):
        if Path(text).is_file():
            return True
    if text == "-" or "://" in text:
        return True
    return not any(c.isspace() for c in text) and ("/" in text or text.endswith((".txt", ".gz")))


# ------------------------------------------------------------------ one run


def _averages(values: dict[str, Any], read: Activations, text: str) -> Result:
    """Every gate, averaged over its units."""
    gates = values["gates"]
    averages = {name: read.average(name).tolist() for name in gates}
    items = _items(read, averages)
    signed = [name for name in gates if read.values[name].min() < 0]
    shown = {name: f"|{name}|" if name in signed else name for name in gates}
    rows = [_strip(shown[name], averages[name], signed=False) for name in gates]
    title = "what happens while each token is read: means over units"
    if signed:
        title += "; |x|: of sizes, as values above and below 0 would cancel"
    blocks = [_drawn(title, read.tokens, [_surprise(read.nats), *rows])]
    if len(items) <= FEW:
        blocks.append(_numbers(shown, items))
    tried = f"lmcli inspect {values['run']} {text} --gate {gates[-1]} --units {UNITS}"
    return Result("inspect", {**values, "items": items}, blocks, [tried])


def _single_units(
    values: dict[str, Any], read: Activations, units: Mapping[str, Sequence[int]], named: bool
) -> Result:
    """Single units of each gate: the one that was named, or those that vary most."""
    rows, items = list[Strip](), dict[str, list[Any]]()
    for name, chosen in units.items():
        lines = {str(u): read.unit(name, u).tolist() for u in chosen}
        items[name] = [dict(zip(lines, v, strict=True)) for v in zip(*lines.values(), strict=True)]
        signed = bool(read.values[name].min() < 0)
        rows += [_strip(f"{name} {u}", line, signed) for u, line in lines.items()]
    tint: list[float] = []
    gates = list(units)
    gate = gates[0] if len(gates) == 1 else gates[0].partition(".")[2]  # of several layers
    title = f"the units of {gate} that vary most over the text, largest variance first"
    if named:
        low, high = min(rows[-1].values), max(rows[-1].values)
        tint = [2 * (v - low) / ((high - low) or 1.0) - 1 for v in rows[-1].values]
        title = f"{rows[-1].name} along the text: blue low, red high"
    block = _drawn(title, read.tokens, [_surprise(read.nats), *rows], tint)
    return Result("inspect", {**values, "items": _items(read, items)}, [block])


def _items(read: Activations, gates: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """One entry a token: its text, its loss, and the value of each gate."""
    rows = zip(read.tokens, read.nats.tolist(), *gates.values(), strict=True)
    return [{"text": t, "nats": n, **dict(zip(gates, v, strict=True))} for t, n, *v in rows]


def _numbers(gates: Mapping[str, str], items: list[dict[str, Any]]) -> Block:
    """A row a token; gates with their headings."""
    columns = [Column("token", text_column("token")), Column("bits", BITS)]
    columns += [Column(f"values.{n}", GATE, shown) for n, shown in enumerate(gates.values())]
    rows = []
    for item in items:
        values = {str(place): item[name] for place, name in enumerate(gates)}
        bits = item["nats"] / NATS_PER_BIT
        rows.append({"token": repr(item["text"])[1:-1], "bits": bits, "values": values})
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


# ------------------------------------------------------------------ two runs


def _two_runs(values: dict[str, Any], first: ReadRun, second: ReadRun) -> Result:
    """Where one run expected the text more than the other."""
    spans = loss_difference(first.read, second.read)
    items = [{**asdict(s), "difference": s.difference} for s in spans]
    about = {"run": second.run, "arch": second.arch, "nats": second.nats}
    apart = [s.difference / NATS_PER_BIT for s in spans]
    rows = [
        _surprise([s.nats for s in spans], "first"),
        _surprise([s.versus for s in spans], "second"),
        _strip("first - second", apart, signed=True),
    ]
    title = f"who expected it more? blue: {first.run} (first), red: {second.run} (second)"
    tint = [max(-1.0, min(1.0, bits / DECIDED)) for bits in apart]
    block = _drawn(title, [s.text for s in spans], rows, tint)
    totals = {"first": first, "second": second}
    columns = [Column(n, Metric("", 1), f"{n}: bits of {r.run}") for n, r in totals.items()]
    facts = Facts(columns, {n: r.nats / NATS_PER_BIT for n, r in totals.items()})
    return Result("inspect", {**values, "versus": about, "items": items}, [block, facts])


# ------------------------------------------------------------------ units that tell


def _pattern(values: dict[str, Any], pattern: Correlation, text: str) -> Result:
    """The units whose value best tells whether a token lies inside a match."""
    rows = [{**asdict(u), "side": ">" if u.above else "<"} for u in pattern.units]
    columns = [
        Column("gate", text_column("value")),
        Column("unit", Metric("unit")),
        Column("side", text_column("inside if")),
        Column("threshold", GATE, "threshold"),
        Column("score", PERCENT, "held-out"),
        Column("auc", GATE, "AUC"),
        Column("fit", PERCENT, "where chosen"),
    ]
    inside, tokens = COUNT.show(pattern.inside), COUNT.show(pattern.tokens)
    chance, shifted = PERCENT.show(pattern.chance), PERCENT.show(pattern.shifted)
    note = (
        f"held-out: balanced accuracy on the second half of the text ({inside} of {tokens} tokens "
        f"inside); unit and threshold were chosen on the first. Chance is {chance}; with the "
        f"matches shifted along the text the best of {COUNT.show(pattern.candidates)} units came "
        f"to {shifted} in 19 tries"
    )
    best = pattern.units[0]
    said = f"tells: {PERCENT.show(best.score)} right on held-out text (balanced)"
    if best.score <= pattern.shifted:
        said = "is the best, and no better than the best on shifted matches: no unit tells"
    table = Table(f"units that tell where {pattern.regex} matches", columns, rows, note)
    tried = f"lmcli inspect {values['run']} {text} --gate {best.gate} --unit {best.unit}"
    verdict = Passage(f"{best.gate} {best.unit} {said}")
    values = {**values, "correlate": asdict(pattern)}
    return Result("inspect", values, [table, verdict], [tried])
