"""Numbers on their way to a reader.

**In:** raw values, as they were measured.
**Out:** `Result`: the values under their JSON names, and how to lay them out: tables, facts,
passages.

Values are rounded once, by `Metric.show`, at the very end; every renderer shows the same text for
the same number, because none of them formats numbers itself.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
MISSING = "-"
HUGE = 1e12
"""from here on only the first digits are shown, as of the perplexity of a word that is a line"""


@dataclass(frozen=True)
class Metric:
    """How one kind of number looks: its heading and its decimals.

    >>> PERPLEXITY.show(4.6789), PARAMETERS.show(351_809), SECONDS.show(None)
    ('4.679', '351,809', '-')
    """

    heading: str
    decimals: int = 0
    kind: Literal["number", "percent", "text", "factor", "power"] = "number"
    error: str | None = None
    """name of the value beside it that holds its standard error"""

    def show(self, value: Any, error: float | None = None) -> str:
        """The number as a reader sees it."""
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return MISSING
        if self.kind == "text":
            return str(value)
        if self.kind == "power":
            return f"{value:.{self.decimals}e}"
        number = 100 * value if self.kind == "percent" else value
        shown = (
            f"{number:,.{self.decimals}f}" if abs(number) < HUGE else f"{number:.{self.decimals}e}"
        )
        if not shown.strip("-0.,"):
            shown = shown.lstrip("-")  # what rounds to 0 has no sign
        if self.kind == "percent":
            shown += " %"
        if error is not None and math.isfinite(error):
            shown += f" ± {error:.{self.decimals}f}"
        return shown


def text(heading: str) -> Metric:
    """A column of words."""
    return Metric(heading, kind="text")


PERPLEXITY = Metric("perplexity", 3)
BITS_PER_CHAR = Metric("bits/char", 4, error="standard_error")
NATS = Metric("nats/token", 4)
PARAMETERS = Metric("parameters")
COUNT = Metric("count")
SECONDS = Metric("seconds", 1)
PER_SECOND = Metric("tokens/s")
EPOCHS = Metric("epochs", 1)
PERCENT = Metric("", 1, kind="percent")
WHOLE_PERCENT = Metric("", 0, kind="percent")
PROBABILITY = Metric("probability", 4)
BITS = Metric("bits", 2)
GATE = Metric("", 3)
RANGE = Metric("", 1)


@dataclass(frozen=True)
class Column:
    """One column: where a row keeps the value ("test.perplexity") and how it looks."""

    path: str
    metric: Metric
    heading: str | None = None
    needs_room: bool = False
    """it is left out where a line has no room for it"""

    @property
    def title(self) -> str:
        """The heading shown."""
        return self.metric.heading if self.heading is None else self.heading

    def raw(self, row: Mapping[str, Any]) -> Any:
        """The unrounded value of a row, None where there is none."""
        return dig(row, self.path)

    def cell(self, row: Mapping[str, Any]) -> str:
        """The value as shown, with its standard error where it has one."""
        error = None
        if self.metric.error:
            error = dig(row, f"{self.path.rpartition('.')[0]}.{self.metric.error}".lstrip("."))
        return self.metric.show(self.raw(row), error)


def dig(row: Mapping[str, Any], path: str) -> Any:
    """A value inside nested mappings.

    >>> dig({"test": {"perplexity": 4.5}}, "test.perplexity"), dig({}, "test.perplexity")
    (4.5, None)
    """
    value: Any = row
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True)
class Table:
    """Rows of values with a title; the rows are those of the JSON."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    read: str = ""
    """how to read it: a sentence for a page"""
    caution: str = ""
    """what not to conclude from it: a sentence for a page"""

    def cells(self) -> list[list[str]]:
        """The headings, then the values of each row as shown."""
        rows = [[column.cell(row) for column in self.columns] for row in self.rows]
        return [[column.title for column in self.columns], *rows]


@dataclass(frozen=True)
class Facts:
    """Single values with their names, one a line."""

    columns: Sequence[Column]
    values: Mapping[str, Any]

    def lines(self) -> list[tuple[str, str]]:
        """Name and value as shown."""
        return [(column.title, column.cell(self.values)) for column in self.columns]


@dataclass(frozen=True)
class Passage:
    """A text for the reader."""

    text: str


@dataclass(frozen=True)
class Passages:
    """Stretches of text, each with a strength from 0 to 1 that decides its colour."""

    title: str
    parts: Sequence[tuple[str, float]]
    note: str = ""
    read: str = ""
    """how to read it: a sentence for a page"""
    caution: str = ""
    """what not to conclude from it: a sentence for a page"""


@dataclass(frozen=True)
class Strip:
    """One value a token, drawn as a row of marks that reach from `low` to `high`."""

    name: str
    values: Sequence[float]
    low: float
    high: float


@dataclass(frozen=True)
class Strips:
    """A text token by token, and below it a row of marks for each strip, in step with the text."""

    title: str
    parts: Sequence[str]
    rows: Sequence[Strip]
    tint: Sequence[float] = ()
    """colour of each token: from -1, blue, over 0, none, to 1, red"""
    note: str = ""
    read: str = ""
    """how to read it: a sentence for a page"""
    caution: str = ""
    """what not to conclude from it: a sentence for a page"""


@dataclass(frozen=True)
class Point:
    """A measured value with its 95 % interval; None where nothing was measured."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """One line of a figure: a point for each of its ticks."""

    name: str
    points: Sequence[Point]
    x: Sequence[float] = ()
    """where its points are, for a figure without ticks"""


@dataclass(frozen=True)
class Figure:
    """Several series over the same ticks, as bars or curves.

    Without ticks each series has places of its own, such as the steps of its training; only a page
    can draw that.
    """

    title: str
    ticks: Sequence[str]
    series: Sequence[Series]
    metric: Metric
    x_label: str = ""
    reference: float | None = None
    """where a line is drawn, such as at chance"""
    line: str = "what knowing nothing gives"
    """what that line means"""
    scale: Literal["linear", "log"] = "linear"
    second_ticks: Sequence[str] = ()
    """the ticks in another unit, such as words"""
    second_label: str = ""
    note: str = ""
    """a sentence below"""
    read: str = ""
    """how to read it: a sentence for a page"""
    caution: str = ""
    """what not to conclude from it: a sentence for a page"""


Block = Table | Facts | Passage | Passages | Strips | Figure


@dataclass(frozen=True)
class Result:
    """What a command found out: values by JSON name, and blocks that show some of them."""

    command: str
    values: Mapping[str, Any]
    blocks: Sequence[Block] = field(default_factory=tuple)
    next_commands: Sequence[str] = field(default_factory=tuple)
    """what a user may want to run next: shown on stderr, never part of the result"""

    def to_json(self) -> dict[str, Any]:
        """One object, every number raw; what is not finite becomes null."""
        return {"schema": SCHEMA, "command": self.command, **finite(self.values)}


def figure_from_json(values: Mapping[str, Any]) -> Figure:
    """A figure that was saved as `dataclasses.asdict` gives it."""
    series = [
        Series(one["name"], [Point(**point) for point in one["points"]], tuple(one["x"]))
        for one in values["series"]
    ]
    return Figure(**{**values, "series": series, "metric": Metric(**values["metric"])})


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading and what stands below it."""

    heading: str
    blocks: Sequence[Block]
    text: str = ""
    """said before the blocks"""


class Reportable(abc.ABC):
    """What a command found out: as JSON, and as a display in a notebook."""

    @abc.abstractmethod
    def result(self) -> Result:
        """The values by JSON name, and how to lay them out."""

    def to_json(self) -> dict[str, Any]:
        """The object that the command prints with ``--json``."""
        return self.result().to_json()

    def to_pandas(self) -> dict[str, pd.DataFrame]:
        """Raw numbers as data frames by title, where pandas is installed."""
        from lmcli.report.frames import data_frames

        return data_frames(self.result())

    def _repr_html_(self) -> str:
        """The display of a notebook."""
        from lmcli.report.html import fragment

        return fragment(self.result())


def finite(value: Any) -> Any:
    """Plain JSON values: NaN and infinities become None, numpy numbers plain ones.

    >>> finite({"a": float("nan"), "b": [1.5, float("inf")]})
    {'a': None, 'b': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
