"""A Result as data frames of pandas: raw numbers, by the titles that the terminal shows.

**In:** a Result.
**Out:** a dict of data frames. pandas is no dependency of lmcli: without it, an error that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmcli.errors import LmcliError
from lmcli.report.result import Facts, Figure, Passages, Result, Strips, Table

if TYPE_CHECKING:
    import pandas as pd

LIMITS = ("low", "high")
"""of the 95 % interval of a point"""


def data_frames(result: Result) -> dict[str, pd.DataFrame]:
    """A frame for each table, figure and text of the result; one without a title has its command's.

    Numbers are not rounded; what was not measured is missing.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        problem = "to_pandas() needs pandas, which is not installed"
        raise LmcliError(problem, "pip install pandas") from None
    frames: dict[str, pd.DataFrame] = {}
    for title, columns in _tables(result):
        numbers = (title if n == 1 else f"{title} ({n})" for n in range(1, len(frames) + 2))
        free = next(name for name in numbers if name not in frames)
        frames[free] = pd.DataFrame(columns)
    return frames


def _tables(result: Result) -> Iterator[tuple[str, dict[str, Sequence[Any]]]]:
    """Title and columns of all that has values."""
    for block in result.blocks:
        if isinstance(block, Table):
            titles = [column.title for column in block.columns]
            names = [
                column.title if column.title and titles.count(column.title) == 1 else column.path
                for column in block.columns
            ]
            columns = zip(names, block.columns, strict=True)
            yield (
                block.title or result.command,
                {name: [column.raw(row) for row in block.rows] for name, column in columns},
            )
        elif isinstance(block, Facts):
            yield result.command, {c.title: [c.raw(block.values)] for c in block.columns}
        elif isinstance(block, Figure):
            yield block.title, _figure(block)
        elif isinstance(block, Strips):
            rows = {row.name: list(row.values) for row in block.rows}
            yield block.title, {"token": list(block.parts), **rows}
        elif isinstance(block, Passages):
            texts, strengths = zip(*block.parts, strict=True) if block.parts else ((), ())
            yield block.title or result.command, {"text": texts, "strength": strengths}


def _figure(figure: Figure) -> dict[str, Sequence[Any]]:
    """Ticks, and for each series its values and where there are any its intervals.

    Without ticks each series has places of its own: then a row is a point.
    """
    if not figure.ticks:
        names = [series.name for series in figure.series for _ in series.points]
        places = [x for series in figure.series for x in series.x]
        values = [point.value for series in figure.series for point in series.points]
        return {"series": names, figure.x_label or "x": places, "value": values}
    columns: dict[str, Sequence[Any]] = {figure.x_label or "x": list(figure.ticks)}
    for series in figure.series:
        columns[series.name] = [point.value for point in series.points]
        for limit in LIMITS:
            values = [getattr(point, limit) for point in series.points]
            if any(value is not None for value in values):
                columns[f"{series.name} {limit}"] = values
    return columns
