"""Results as HTML: a page of its own, or a piece for a notebook.

**In:** a title and sections, or a Result.
**Out:** one file without scripts that loads nothing; light or dark as the reader's system is. All
text is escaped by Jinja2, numbers are shown by their Metric and by nothing else.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmcli.report.colors import css_variables
from lmcli.report.result import (
    RANGE,
    Column,
    Figure,
    Metric,
    Point,
    Result,
    Section,
    Strip,
    Strips,
    Table,
    text,
)
from lmcli.report.svg import svg

if TYPE_CHECKING:
    from jinja2 import Environment, Template
    from markupsafe import Markup

LEVELS = 5
"""of colour, in a text whose tokens are coloured"""
SHORT = 44
"""characters of a cell that stays on one line"""
LINE = 80
"""characters of a text in one line of strips"""


def page(title: str, sections: Sequence[Section | Result], lead: str = "", about: str = "") -> str:
    """A whole page; `lead` is said below the title, `about` at the very end."""
    parts = [s if isinstance(s, Section) else Section(s.command, s.blocks) for s in sections]
    headings = [part.heading for part in parts]
    template = _templates().get_template("page.html.j2")
    return template.render(
        title=title, lead=lead, about=about, sections=parts, slugs=slugs(headings), **_given()
    )


def fragment(result: Result) -> str:
    """All blocks of a result, with their style, for a page of somebody else such as a notebook."""
    template = _templates().get_template("fragment.html.j2")
    return template.render(blocks=result.blocks, **_given())


def _given() -> dict[str, Any]:
    """What every template needs: the style, and numbers that are different within a page."""
    return {"css": _css(), "unique": itertools.count(1).__next__}


def slugs(names: Sequence[str]) -> list[str]:
    """Names for ids and files, all different.

    >>> slugs(["Right answers, by gap", "x", "x", "?"])
    ['right-answers-by-gap', 'x', 'x-2', 'part']
    """
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60].strip("-") or "part"
        free = (f"{plain}-{n}" for n in itertools.count(2) if f"{plain}-{n}" not in found)
        found.append(next(free) if plain in found else plain)
    return found


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lmcli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "kind": lambda block: type(block).__name__,
        "svg": svg,
        "table_rows": table_rows,
        "numbers": numbers,
        "lines": lines,
        "marks": marks,
        "tint": tint,
        "prose": prose,
        "level": level,
        "is_short": lambda cell: len(cell) <= SHORT,
        "ends": lambda strip: f"{RANGE.show(strip.low)} to {RANGE.show(strip.high)}",
    }
    return environment


@functools.cache
def _css() -> str:
    template: Template = _templates().get_template("page.css.j2")
    return template.render(light=css_variables(dark=False), dark=css_variables(dark=True))


def prose(said: str) -> Markup:
    """Escaped text in which the name of an option is not broken after its first hyphen."""
    from markupsafe import Markup, escape

    whole = r'<span class="short">\g<0></span>'
    shown = re.sub(r"(?<![\w-])--[a-z][\w-]*", whole, str(escape(said)))
    return Markup(shown)  # noqa: S704 - escaped above


# ------------------------------------------------------------------ tables


def table_rows(table: Table) -> tuple[list[tuple[str, bool]], list[list[str]]]:
    """The headings, each with whether its column holds words, and the cells."""
    headings, *rows = table.cells()
    words = [column.metric.kind == "text" for column in table.columns]
    return list(zip(headings, words, strict=True)), rows


def numbers(figure: Figure) -> Table:
    """What a figure shows, as a table: a row a tick, a column a series.

    Of series with places of their own, a row each: the first value, the last and the best.
    """
    if not figure.ticks:
        return _ends(figure)
    rows = []
    for place, tick in enumerate(figure.ticks):
        row: dict[str, Any] = {"tick": tick}
        if figure.second_ticks:
            row["second"] = figure.second_ticks[place]
        for number, series in enumerate(figure.series):
            row[f"s{number}"] = with_interval(series.points[place], figure.metric)
        rows.append(row)
    columns = [Column("tick", text(figure.x_label or "at"))]
    columns += [Column("second", text(figure.second_label))] if figure.second_ticks else []
    columns += [Column(f"s{i}", text(s.name)) for i, s in enumerate(figure.series)]
    shown = any(p.low is not None for s in figure.series for p in s.points)
    note = "in brackets: 95 % intervals" if shown else ""
    if figure.reference is not None:
        line = f"{figure.line}: {figure.metric.show(figure.reference)}"
        note = f"{note}; {line}" if note else line
    return Table(figure.title, columns, rows, note)


def with_interval(point: Point, metric: Metric) -> str:
    """A value and its limits as a reader sees them."""
    shown = metric.show(point.value)
    if point.low is None or point.high is None or point.value is None:
        return shown
    low, high = metric.show(point.low), metric.show(point.high)
    return f"{shown} ({low.removesuffix(' %')} to {high})"


def _ends(figure: Figure) -> Table:
    rows = []
    for series in figure.series:
        known = [p.value for p in series.points if p.value is not None and math.isfinite(p.value)]
        if known:
            row = {"name": series.name, "points": len(known)}
            rows.append(row | {"first": known[0], "last": known[-1], "least": min(known)})
    ends = [Column(name, figure.metric, name) for name in ("first", "last", "least")]
    columns = [Column("name", text("series")), Column("points", Metric("points")), *ends]
    return Table(figure.title, columns, rows)


# ------------------------------------------------------------------ texts token by token


def level(strength: float) -> int:
    """The colour of a strength from 0 to 1."""
    return min(LEVELS - 1, max(0, int(strength * LEVELS)))


def lines(strips: Strips) -> Iterator[range]:
    """The tokens of each line; a line end of the text is one here too."""
    begin = used = 0
    for place, part in enumerate(strips.parts):
        if used and used + len(part) > LINE:
            yield range(begin, place)
            begin, used = place, 0
        used += len(part)
        if "\n" in part:
            yield range(begin, place + 1)
            begin, used = place + 1, 0
    if begin < len(strips.parts):
        yield range(begin, len(strips.parts))


def marks(row: Strip, place: int) -> Mapping[str, float]:
    """Where the bar of a value begins and how high it is, in percent of the row."""
    width = (row.high - row.low) or 1.0
    share = min(1.0, max(0.0, (row.values[place] - row.low) / width))
    zero = min(1.0, max(0.0, -row.low / width))
    low, high = sorted((share, zero))
    return {"bottom": round(100 * low, 1), "height": round(100 * (high - low), 1)}


def tint(strips: Strips, place: int) -> str:
    """The class of a token's colour."""
    if not strips.tint:
        return ""
    value = strips.tint[place]
    return f"{'warm' if value > 0 else 'cold'}{level(abs(value))}"
