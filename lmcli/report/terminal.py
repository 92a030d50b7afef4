"""A Result on a terminal: tables, facts, passages, in 80 columns and in ASCII where needed.

**In:** a Result and a rich Console.
**Out:** text. Numbers are shown by their Metric and by nothing else.
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lmcli.report.bars import print_figure
from lmcli.report.letters import fitting
from lmcli.report.strips import print_strips
from lmcli.result import Facts, Figure, Passage, Passages, Result, Strips, Table

STYLES = ("", "", "yellow", "bright_red", "bold bright_red")
"""how surprising a stretch is, from not at all to very"""


def print_result(result: Result, console: Console) -> None:
    """All blocks, one after the other."""
    for block in result.blocks:
        if isinstance(block, Table):
            print_table(block, console)
        elif isinstance(block, Facts):
            print_facts(block, console)
        elif isinstance(block, Passages):
            print_passages(block, console)
        elif isinstance(block, Strips):
            print_strips(block, console)
        elif isinstance(block, Figure):
            print_figure(block, console)
        elif isinstance(block, Passage):
            console.print(Text(fitting(block.text, console)))


def print_table(table: Table, console: Console) -> None:
    """A table; numbers to the right, words to the left."""
    wide = "utf" in console.encoding.lower()
    shown = RichTable(
        title=Text(fitting(table.title, console), style="bold") if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if wide else box.ASCII2,
        pad_edge=False,
        padding=(0, 1),
    )
    for column in table.columns:
        words = column.metric.kind == "text"
        shown.add_column(
            Text(fitting(column.title, console)),
            justify="left" if words else "right",
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*(Text(fitting(c.cell(row), console)) for c in table.columns))
    console.print(shown)
    if table.note:
        console.print(Text(fitting(table.note, console)))


def print_facts(facts: Facts, console: Console) -> None:
    """Name and value, a line each."""
    width = max(len(c.title) for c in facts.columns)
    for column in facts.columns:
        name = fitting(column.title, console).ljust(width)
        console.print(
            Text.assemble((name, "bold"), "  ", fitting(column.cell(facts.values), console))
        )


def print_passages(passages: Passages, console: Console) -> None:
    """A text whose stretches are coloured by their strength."""
    if passages.title:
        console.print(Text(fitting(passages.title, console), style="bold"))
    line = Text()
    for part, strength in passages.parts:
        level = min(len(STYLES) - 1, int(strength * len(STYLES)))
        line.append(fitting(part, console), style=STYLES[level])
    console.print(line)
    if passages.note:
        console.print(Text(fitting(passages.note, console)))
