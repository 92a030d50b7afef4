"""A filled blank as a reader sees it: an example, tables of words, a sentence a run.

**In:** the rows of a `ClozeResult`.
**Out:** blocks of a `Result`, no wider than 80 columns for words and names of usual length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lmcli.report.result import PROBABILITY, Block, Column, Metric, Passage, Table
from lmcli.report.result import text as text_column

GAPS_A_TABLE = 4
Rows = Sequence[Mapping[str, Any]]


def blocks_of(
    rows: Rows, swap: tuple[str, str] | None, example: Mapping[str, Any] | None
) -> list[Block]:
    """The example, the tables, the sentences."""
    names = _names(rows)
    blocks: list[Block] = [] if example is None else [_example(example, names)]
    if swap:
        return [*blocks, _swap_table(rows, swap, names), _sentences(rows, names)]
    gaps = list(dict.fromkeys(row["gap"] for row in rows))
    for begin in range(0, len(gaps), GAPS_A_TABLE):
        blocks.append(_table(rows, gaps[begin : begin + GAPS_A_TABLE], names))
    return blocks


def _names(rows: Rows) -> dict[str, str]:
    """The folder of each run, or its whole path where folders have the same name."""
    paths = list(dict.fromkeys(row["run"] for row in rows))
    folders = [Path(path).name for path in paths]
    unique = len(set(folders)) == len(folders)
    return dict(zip(paths, folders if unique else paths, strict=True))


def _example(example: Mapping[str, Any], names: Mapping[str, str]) -> Passage:
    lines = [f"one of the texts, {example['gap']} words in the gap:", f"  {example['text']}"]
    width = max(map(len, names.values()))
    for answer in example["answers"]:
        words = ", ".join(_word(word) for word in answer["words"])
        lines.append(f"  {names[answer['run']]:{width}}  {words}")
    return Passage("\n".join(lines))


def _word(candidate: Mapping[str, Any]) -> str:
    return f"{candidate['text']} {PROBABILITY.show(candidate['probability'])}"


def _table(rows: Rows, gaps: Sequence[int | None], names: Mapping[str, str]) -> Table:
    """A row a word, the likeliest first; a column a gap."""
    lines: list[dict[str, Any]] = []
    for run, of_run in groupby(rows, key=lambda row: row["run"]):
        words = {row["gap"]: [_word(c) for c in row["candidates"]] for row in of_run}
        for place in range(max(len(words[gap]) for gap in gaps)):
            cells = {f"gap{g}": words[g][place] for g in gaps if place < len(words[g])}
            lines.append(cells | {"run": "" if place else names[run]})
    columns = [Column("run", text_column("run"))]
    for gap in gaps:
        heading = "in the blank" if gap is None else f"gap {gap}"
        columns.append(Column(f"gap{gap}", text_column(heading)))
    return Table("", columns, lines, _note(rows))


def _swap_table(rows: Rows, swap: tuple[str, str], names: Mapping[str, str]) -> Table:
    """A row a word; the probabilities with the true cue and with the other beside each other."""
    lines: list[dict[str, Any]] = []
    for row in rows:
        is_first = not lines or lines[-1]["path"] != row["run"]
        for place, c in enumerate(row["candidates"]):
            line = {"path": row["run"], "run": names[row["run"]] if is_first and not place else ""}
            line |= {"gap": row["gap"] if not place else ""}
            lines.append({**line, **c, "difference": _difference(c)})
    columns = [Column("run", text_column("run"))]
    if rows[0]["gap"] is not None:
        columns.append(Column("gap", text_column("gap")))
    columns += [
        Column("text", text_column("in the blank")),
        Column("probability", PROBABILITY, f"with {swap[0]}"),
        Column("probability_swapped", PROBABILITY, f"with {swap[1]}"),
        Column("difference", Metric("difference", kind="text")),
    ]
    return Table("", columns, lines, _note(rows, "; ±: 95 % interval of the difference"))


def _difference(candidate: Mapping[str, Any]) -> str:
    difference = candidate["probability"] - candidate["probability_swapped"]
    half = None
    if candidate["low"] is not None:  # one of the limits may be cut off at 1 or -1
        half = max(candidate["high"] - difference, difference - candidate["low"])
    rounds_to_zero = not PROBABILITY.show(difference).strip("0.")
    return "+" * (difference > 0 and not rounds_to_zero) + PROBABILITY.show(difference, half)


def _note(rows: Rows, intervals: str = "") -> str:
    """How many texts a probability is the mean of."""
    counts = sorted({row["count"] for row in rows if row["count"] > 1})
    if not counts:
        return "one text: no interval" if intervals else ""
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    single = list(dict.fromkeys(str(row["gap"]) for row in rows if row["count"] == 1))
    note = f"means over {many} texts a gap{intervals}"
    return note + (f"; {_gaps(single)}: one text" if single else "")


def _gaps(gaps: Sequence[str]) -> str:
    """Some gaps by name.

    >>> _gaps(["0"]), _gaps(["0", "10", "100"])
    ('gap 0', 'gaps 0, 10 and 100')
    """
    *others, last = gaps
    return f"gaps {', '.join(others)} and {last}" if others else f"gap {last}"


def _sentences(rows: Rows, names: Mapping[str, str]) -> Passage:
    """What each run says at each gap; gaps with the same sentence together."""
    lines = []
    for (run, sentence), same in groupby(rows, key=lambda row: (row["run"], row["sentence"])):
        gaps = [str(row["gap"]) for row in same if row["gap"] is not None]
        at = f", {_gaps(gaps)}" if gaps else ""
        lines.append(f"{names[run]}{at}: {sentence}")
    return Passage("\n".join(lines))
