"""Bars on a terminal, below them the learning curve of a training, above them its samples.

**In:** the events of a training that is alone.
**Out:** what rich draws again and again; bars and curve vanish in the end, samples stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from lmcli.report.charset import fitting
from lmcli.report.learning_curve import learning_curve
from lmcli.report.progress import SampleText, Training

CURVE_STEP = 0.005
"""share of the budget between two points of the learning curve"""


class TrainingBars(Progress):
    """rich's bars, and a curve where the terminal is high enough for it."""

    def __init__(self, console: Console) -> None:
        self.train: list[tuple[float, float]] = []
        self.valid: list[tuple[float, float]] = []
        name, status = TextColumn("{task.description:<7}"), TextColumn("{task.fields[status]}")
        super().__init__(name, BarColumn(bar_width=None), status, console=console, transient=True)

    def add_to_curve(self, event: Training) -> None:
        """A step of the training, not too near to the one before it; every validation."""
        if not self.train or event.fraction - self.train[-1][0] >= CURVE_STEP:
            self.train.append((event.fraction, event.loss))
        if event.valid is not None:
            self.valid.append((event.fraction, event.valid))

    def print_sample(self, event: SampleText) -> None:
        """A line above the bars, as much of the text as it holds."""
        line = Text(f"step {event.step}: ", style="dim")
        line.append(fitting(" ".join(event.text.split()), self.console), style="not dim")
        line.truncate(self.console.width - 1, overflow="crop")
        self.console.print(line)

    def get_renderables(self) -> Iterator[Any]:
        """The bars, then the curve."""
        yield self.make_tasks_table(self.tasks)
        if not self.valid:
            return
        plain = "utf" not in self.console.encoding.lower()
        lines = learning_curve(self.train, self.valid, self.console.width - 1, plain)
        if self.console.height > 2 * len(lines):
            yield Text("\n".join(lines), no_wrap=True)
