"""The figures of a page as PNG for slides, its figures and tables as CSV for other tools.

**In:** the sections of a page, a folder.
**Out:** one file a figure or table, named by its place and title; numbers in CSV are not rounded.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmcli.report.html import slugs
from lmcli.report.result import Figure, Section, Table
from lmcli.report.svg import png


def png_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """A picture for each figure, by file name."""
    return {f"{n}.png": png(block) for n, block in _named(sections) if isinstance(block, Figure)}


def csv_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """A table for each figure and each table, by file name."""
    files = {}
    for name, block in _named(sections):
        lines = _figure_lines(block) if isinstance(block, Figure) else _table_lines(block)
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(lines)
        files[f"{name}.csv"] = stream.getvalue().encode()
    return files


def _named(sections: Sequence[Section]) -> Iterator[tuple[str, Figure | Table]]:
    """Figures and tables with names that sort in the order of the page."""
    blocks = [
        (block.title or section.heading, block)
        for section in sections
        for block in section.blocks
        if isinstance(block, Figure | Table)
    ]
    names = slugs([title for title, _ in blocks])
    for place, (name, (_, block)) in enumerate(zip(names, blocks, strict=True), 1):
        yield f"{place:02}-{name}", block


def _figure_lines(figure: Figure) -> Iterator[Sequence[object]]:
    """One line a point: its series, its place, its value and its interval."""
    yield "series", figure.x_label or "x", "value", "low", "high"
    for series in figure.series:
        for place, point in zip(figure.ticks or series.x, series.points, strict=True):
            yield series.name, place, point.value, point.low, point.high


def _table_lines(table: Table) -> Iterator[Sequence[object]]:
    yield [column.title for column in table.columns]
    for row in table.rows:
        yield [column.raw(row) for column in table.columns]


def paths(folder: Path | None, files: dict[str, bytes]) -> dict[Path, bytes]:
    """Where the files go; none without a folder."""
    return {} if folder is None else {folder / name: content for name, content in files.items()}
