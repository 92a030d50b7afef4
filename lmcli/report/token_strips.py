"""Strips on a terminal: a text, and under each of its lines a row of marks for every value.

**In:** a Strips block and a rich Console.
**Out:** lines no wider than the console. A mark is one of eight heights, or a digit from 0 to 9
where the stream knows only ASCII; of values with a sign, 0 is in the middle. Colour repeats what
the marks say and is never needed to read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lmcli.report.charset import fitting
from lmcli.report.result import RANGE, Strip, Strips

HEIGHTS, DIGITS = "▁▂▃▄▅▆▇█", "0123456789"
WARM = ("", "color(166)", "color(160)", "bold color(160)")
COLD = ("", "color(31)", "color(27)", "bold color(27)")
"""orange, red; blues: each has a contrast of 3.8 or more to white and to black"""
LEAST_WIDTH = 16
"""columns for the text, however narrow the console"""


def print_strips(strips: Strips, console: Console) -> None:
    """The title, the text with its rows of marks line by line, the note."""
    ranges = {row.name: f"{RANGE.show(row.low)} to {RANGE.show(row.high)}" for row in strips.rows}
    names = {name: f"{name}  {span}" for name, span in ranges.items()}
    margin = max((len(name) for name in names.values()), default=0) + 2
    marks = HEIGHTS if "utf" in console.encoding.lower() else DIGITS
    parts = [_shown(part, console) for part in strips.parts]
    if strips.title:
        console.print(Text(fitting(strips.title, console), style="bold"))
    for begin, end in _lines(strips.parts, parts, max(LEAST_WIDTH, console.width - margin)):
        line = Text(" " * margin)
        for i in range(begin, end):
            line.append(parts[i], style=_style(strips.tint[i]) if strips.tint else "bold")
        console.print(line, crop=False, no_wrap=True, overflow="ignore")
        for row in strips.rows:
            line = Text(names[row.name].ljust(margin))
            for i in range(begin, end):
                line.append(*_marks(row, i, parts[i], marks))
            console.print(line, crop=False, no_wrap=True, overflow="ignore")
        if strips.rows:
            console.print()
    if strips.note:
        console.print(Text(fitting(strips.note, console)))


def _lines(raw: Sequence[str], parts: Sequence[str], width: int) -> Iterator[tuple[int, int]]:
    """Tokens from begin to end fit into the width; a line end of the text is one here too."""
    begin = used = 0
    for i, part in enumerate(parts):
        wide = cell_len(part)
        if used and used + wide > width:
            yield begin, i
            begin, used = i, 0
        used += wide
        if "\n" in raw[i]:
            yield begin, i + 1
            begin, used = i + 1, 0
    if begin < len(parts):
        yield begin, len(parts)


def _shown(part: str, console: Console) -> str:
    """A token on one line: what is not printable, such as a line end, becomes a blank."""
    return fitting("".join(c if c.isprintable() else " " for c in part), console)


def _marks(row: Strip, i: int, part: str, marks: str) -> tuple[str, str]:
    """The mark of one value, as wide as its token without the blanks before it, and its style."""
    word = part.lstrip(" ") or part
    share = (row.values[i] - row.low) / ((row.high - row.low) or 1.0)
    top = len(marks) - 1 - (row.low < 0)  # an odd number of marks has a middle
    mark = marks[min(top, max(0, round(share * top)))]
    blanks = " " * (cell_len(part) - cell_len(word))
    strength = 2 * share - 1 if row.low < 0 else share
    return blanks + mark * cell_len(word), _style(strength)


def _style(strength: float) -> str:
    """The colour of a strength from -1 to 1."""
    styles = WARM if strength > 0 else COLD
    return styles[min(len(styles) - 1, int(abs(strength) * len(styles)))]
