"""A Figure on a terminal: bars in groups, one group a tick, one column a series.

**In:** a Figure and a rich Console.
**Out:** lines of text no wider than the console; every bar has its series' letter under it, so
that neither colours nor block characters are needed to read it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from string import ascii_lowercase

from rich.console import Console
from rich.text import Text

from lmcli.report.charset import fitting
from lmcli.report.result import Figure, Point

HEIGHT = 9
EIGHTHS = " ▁▂▃▄▅▆▇█"
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
DECADES = 6
"""powers of ten that a log scale shows, counted from the top"""


class _Scale:
    """Values as heights from 0 to 1."""

    def __init__(self, figure: Figure) -> None:
        points = [p.value for s in figure.series for p in s.points]
        known = [v for v in points if v is not None and math.isfinite(v)]
        known += [] if figure.reference is None else [figure.reference]
        self.log = figure.scale == "log"
        self.top = max([v for v in known if v > 0], default=1.0)
        self.bottom = 0.0
        if self.log:
            least = min([v for v in known if v > 0], default=self.top / 10)
            decade = 10.0 ** math.ceil(math.log10(self.top) - 1e-9)
            self.top = decade
            floor = 10.0 ** math.floor(math.log10(least))
            self.bottom = max(min(floor, decade / 10), decade * 10.0**-DECADES)

    def height(self, value: float) -> float:
        """Where a value is, within the picture."""
        if not self.log:
            return min(1.0, max(0.0, value / self.top))
        if value <= 0:
            return 0.0
        share = math.log(value / self.bottom) / math.log(self.top / self.bottom)
        return min(1.0, max(0.0, share))

    def at(self, height: float) -> float:
        """The value at a height."""
        if self.log:
            return float(self.bottom * (self.top / self.bottom) ** height)
        return self.top * height


def print_figure(figure: Figure, console: Console) -> None:
    """Title, legend, bars; in several rows of groups where one is too wide."""
    scale = _Scale(figure)
    shown = [figure.metric.show(scale.at(h)) for h in (1.0, 0.5, 0.0)]
    margin = max(map(len, shown)) + 1
    ticks = [*figure.ticks, *figure.second_ticks]
    group = max(len(figure.series) + 1, *(len(t) + 2 for t in ticks))
    some = max(1, (console.width - margin - 2) // group)
    console.print(Text(fitting(figure.title, console), style="bold"))
    console.print(_legend(figure, console))
    for begin in range(0, len(figure.ticks), some):
        for line in _panel(figure, scale, slice(begin, begin + some), margin, group):
            console.print(_fitted(line, console), soft_wrap=True)
    if figure.note:
        console.print(Text(fitting(figure.note, console)))


def _legend(figure: Figure, console: Console) -> Text:
    line = Text()
    for i, series in enumerate(figure.series):
        line.append(f"{ascii_lowercase[i % 26]} {series.name}   ", COLOURS[i % len(COLOURS)])
    if figure.reference is not None:
        line.append(f"┄┄ {figure.metric.show(figure.reference)}: {figure.line}")
    return _fitted(line, console)


def _panel(figure: Figure, scale: _Scale, some: slice, margin: int, group: int) -> Sequence[Text]:
    """The lines of one row of groups, from the top to the labels."""
    ticks = figure.ticks[some]
    pad = group - len(figure.series)
    mark = None
    if figure.reference is not None:
        mark = min(HEIGHT - 1, int(scale.height(figure.reference) * HEIGHT))
    lines = []
    for row in range(HEIGHT - 1, -1, -1):
        label = {HEIGHT - 1: 1.0, HEIGHT // 2: 0.5}.get(row)
        name = "" if label is None else figure.metric.show(scale.at(label))
        empty = "┄" if row == mark else " "
        line = Text(f"{name:>{margin}}│")
        for i in range(len(ticks)):
            for number, series in enumerate(figure.series):
                cell = _cell(series.points[some][i], scale, row)
                line.append(empty if cell == " " else cell, COLOURS[number % len(COLOURS)])
            line.append(empty * pad)
        lines.append(line)
    bottom = figure.metric.show(scale.at(0.0))
    lines.append(Text(f"{bottom:>{margin}}└" + "─" * (group * len(ticks))))
    letters = "".join(ascii_lowercase[i % 26] for i in range(len(figure.series)))
    lines.append(Text(" " * (margin + 1) + (letters + " " * pad) * len(ticks)))
    scales = ((ticks, figure.x_label), (figure.second_ticks[some], figure.second_label))
    for names, unit in scales:
        named = "".join(f"{t:<{group}}" for t in names).rstrip()
        lines += [Text(" " * (margin + 1) + words) for words in (named, unit) if words]
    return lines


def _cell(point: Point, scale: _Scale, row: int) -> str:
    """What of a bar is seen in a row of the picture."""
    if point.value is None or not math.isfinite(point.value):
        return "?" if row == 0 else " "
    filled = scale.height(point.value) * HEIGHT - row
    return EIGHTHS[max(0, min(8, round(8 * filled)))]


def _fitted(line: Text, console: Console) -> Text:
    """The same with ASCII signs where the stream needs them; a sign stays one sign wide."""
    fitted = Text()
    for begin, end, style in _runs(line):
        fitted.append(fitting(line.plain[begin:end], console), style)
    return fitted


def _runs(line: Text) -> list[tuple[int, int, str]]:
    """Stretches of one style."""
    styles = [""] * len(line.plain)
    for span in line.spans:
        styles[span.start : span.end] = [str(span.style)] * (span.end - span.start)
    runs: list[tuple[int, int, str]] = []
    for place, style in enumerate(styles):
        if runs and runs[-1][2] == style:
            runs[-1] = (runs[-1][0], place + 1, style)
        else:
            runs.append((place, place + 1, style))
    return runs
