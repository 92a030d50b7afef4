"""A Result on a terminal: tables, facts, passages, in 80 columns and in ASCII where needed.

**In:** a Result and a rich Console.
**Out:** text. Numbers are shown by their Metric and by nothing else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lmcli.report.bar_chart import print_figure
from lmcli.report.charset import fit_all, fitting
from lmcli.report.result import Facts, Figure, Passage, Passages, Result, Strips, Table
from lmcli.report.token_strips import WARM, print_strips

LONG_WORD, GAP = 10, 2
"""characters: what a column of words may be narrowed to, and what lies between two columns"""
STYLES = ("", *WARM)
"""how surprising a stretch is, from not at all to very"""


NARROWEST = 20
"""columns; in fewer a table would be blank, so that its lines are left to the window to break"""


class Terminal(Console):
    """A console that leaves a closed pipe to its caller, where rich would exit with 1."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.width < NARROWEST:
            self.width = NARROWEST

    def on_broken_pipe(self) -> None:
        """The pipe is closed."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


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
    """A table; numbers to the right, words to the left. Where there is room no number is broken.

    Columns that need room are left out from the last one on, until the others have room.
    """
    while not _fits(table, console):
        spare = [column for column in table.columns if column.needs_room]
        if not spare:
            break
        kept = [column for column in table.columns if column is not spare[-1]]
        table = replace(table, columns=kept)
    wide = "utf" in console.encoding.lower()
    shown = RichTable(
        title=Text(fitting(table.title, console), style="bold") if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if wide else box.ASCII2,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    headings, *rows = [fit_all(cells, console) for cells in table.cells()]
    are_words = [column.metric.kind == "text" for column in table.columns]
    widths = [max(map(len, cells), default=0) for cells in zip(*rows, strict=True)]
    widths = widths or [0] * len(headings)
    roomy = _least_width(headings, widths, are_words) <= console.width
    for title, width, words in zip(headings, widths, are_words, strict=True):
        if roomy and not words and len(title) > width:
            title = title.replace(" ", "\n")
        justify: Literal["left", "right"] = "left" if words else "right"
        no_wrap = roomy and not words
        shown.add_column(Text(title), justify=justify, overflow="fold", no_wrap=no_wrap)
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)
    if table.note:
        console.print(Text(fitting(table.note, console)))


def _fits(table: Table, console: Console) -> bool:
    """Whether every number is whole and words have all the room that they want."""
    headings, *rows = [fit_all(cells, console) for cells in table.cells()]
    longest = [max(map(len, title.split()), default=0) for title in headings]
    widths = [max(map(len, cells), default=0) for cells in zip(*rows, strict=True)] or longest
    total = sum(max(a, b) + GAP for a, b in zip(longest, widths, strict=True))
    return total <= console.width


def _least_width(headings: Sequence[str], widths: Sequence[int], are_words: Sequence[bool]) -> int:
    """Characters in a line in which every number is whole and a text has room for a long word."""
    total = 0
    for title, width, words in zip(headings, widths, are_words, strict=True):
        longest = max(map(len, title.split()), default=0)
        total += max(longest, min(LONG_WORD, width) if words else width) + GAP
    return total


def print_facts(facts: Facts, console: Console) -> None:
    """Name and value, a line each."""
    names, values = (fit_all(texts, console) for texts in zip(*facts.lines(), strict=True))
    width = max(map(cell_len, names)) + 2
    for name, value in zip(names, values, strict=True):
        console.print(Text.assemble((name, "bold"), " " * (width - cell_len(name)), value))


def print_passages(passages: Passages, console: Console) -> None:
    """A text whose chunks are coloured by their strength."""
    if passages.title:
        console.print(Text(fitting(passages.title, console), style="bold"))
    line = Text()
    for part, strength in passages.parts:
        level = min(len(STYLES) - 1, int(strength * len(STYLES)))
        line.append(fitting(part, console), style=STYLES[level])
    console.print(line)
    if passages.note:
        console.print(Text(fitting(passages.note, console)))
