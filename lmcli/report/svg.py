"""A Figure as SVG for a page, or as PNG for slides.

**In:** a Figure.
**Out:** an ``<svg>`` element whose text stays text and whose colours are the page's CSS variables,
so that it follows light and dark; the same as PNG, on white.

Drawn by matplotlib: it is the plotting library that a reader of Python knows, it places ticks,
labels and legends, it needs no browser and no network, and one drawing gives both SVG and PNG.
Libraries that draw with JavaScript would put a script of some megabytes into every page.
Nothing of pyplot's global state is used; equal figures give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from lmcli.report.colors import COLORS, INK, MUTED, PLAIN, RULE, Look, looks
from lmcli.report.result import Figure, Metric, Point, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing

Size = Literal["wide", "narrow"]
SIZES: dict[Size, tuple[float, float]] = {"wide": (9.6, 4.6), "narrow": (4.9, 4.6)}
"""inches: on a screen or a slide, and on a phone"""
FONT, SMALL = 11, 9.5
TICKS: dict[Size, int] = {"wide": 13, "narrow": 6}
"""labels that fit below the axis"""
LONG_NAME = 26
LABEL_HEIGHT = 0.062
"""of a line of text, as a share of the axes"""
DODGE = 0.06
"""between the error bars of neighbouring series, as a share of the distance of two ticks"""
ONE_AT_A_TIME = threading.Lock()
DECADES = 8
"""powers of ten that a log scale shows, counted from the top; lines leave it below"""
CROWDED = 40
"""points from which on a series is drawn without markers"""
SVG, XLINK = "http://www.w3.org/2000/svg", "{http://www.w3.org/1999/xlink}href"
RC = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED[0],
    "axes.labelcolor": INK[0],
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE[0],
    "grid.linewidth": 0.8,
    "xtick.color": MUTED[0],
    "ytick.color": MUTED[0],
    "text.color": INK[0],
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


def svg(figure: Figure, size: Size = "wide") -> str:
    """The figure as an element of a page."""
    stream = io.BytesIO()
    key = "f" + hashlib.sha256(repr((figure, size)).encode()).hexdigest()[:10]
    with _settings({"svg.hashsalt": key}):
        metadata = {"Date": None, "Creator": None}
        _draw(figure, size).savefig(stream, format="svg", metadata=metadata)
    return _inline(stream.getvalue(), figure, key)


def png(figure: Figure) -> bytes:
    """The figure with its title, on white."""
    stream = io.BytesIO()
    with _settings({}):
        drawing = _draw(figure, "wide")
        drawing.suptitle(figure.title, x=0.02, ha="left", weight="bold")
        drawing.savefig(stream, format="png", dpi=200, metadata={"Software": None})
    return stream.getvalue()


@contextmanager
def _settings(more: dict[str, Any]) -> Iterator[None]:
    """Within, matplotlib draws with these settings; a sign that its font lacks is no warning.

    One thread draws at a time, as matplotlib's settings are those of the process.
    """
    import matplotlib

    chosen: Any = RC | more
    with ONE_AT_A_TIME, matplotlib.rc_context(chosen), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="constrained_layout not applied")  # a long legend
        yield


# ------------------------------------------------------------------ the drawing


def _draw(figure: Figure, size: Size) -> Drawing:
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=SIZES[size], layout="constrained")
    axes = drawing.add_subplot()
    places = _places(figure)
    chosen = looks([s.name for s in figure.series])
    for number, (series, look) in enumerate(zip(figure.series, chosen, strict=True)):
        shift = (number - (len(figure.series) - 1) / 2) * DODGE if figure.ticks else 0.0
        x = [place + shift for place in places] if figure.ticks else list(series.x)
        _draw_series(axes, series, look, x)
    if figure.reference is not None:
        axes.axhline(figure.reference, color=MUTED[0], linewidth=1.2, dashes=(2, 2), zorder=1.5)
    _set_y(axes, figure)
    _set_x(axes, figure, places, size)
    if size == "wide" and figure.ticks:
        _label_lines(drawing, axes, figure, chosen)
    else:
        _legend(drawing, axes, figure, size)
    return drawing


def _places(figure: Figure) -> list[float]:
    """Where the ticks are, the nearest two of them 1 apart: by size if they are sizes.

    A factor of two is as wide anywhere, as gaps and lags grow by factors.
    """
    numbers = [_number(tick) for tick in figure.ticks]
    sizes = [n for n in numbers if n is not None and n > 0]
    if len(sizes) < len(numbers) or len(sizes) < 3 or sorted(set(sizes)) != sizes:
        return [float(i) for i in range(len(figure.ticks))]
    logs = [math.log2(n) for n in sizes]
    least = min(b - a for a, b in itertools.pairwise(logs))
    return [log / least for log in logs]


def _number(tick: str) -> float | None:
    try:
        return float(tick.replace(",", ""))
    except ValueError:
        return None


def _draw_series(axes: Axes, series: Series, look: Look, x: Sequence[float]) -> None:
    """A line with markers; intervals as bars, or as a band where there are many points."""
    color = _color(look)
    y = [_drawable(p.value) for p in series.points]
    crowded = len(y) > CROWDED
    marker = "" if crowded else look.marker
    axes.plot(
        x, y, color=color, marker=marker, markersize=5.5, linewidth=1.8, label=_short(series.name),
        markerfacecolor=color if look.filled else "none", linestyle=(0, look.dash or None),
    )  # fmt: skip
    low, high = _interval(series.points)
    if crowded:
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
        return
    bars = zip(x, low, high, strict=True)
    if known := [bar for bar in bars if not math.isnan(sum(bar))]:
        axes.vlines(*zip(*known, strict=True), color=color, linewidth=1.1, alpha=0.75)


def _drawable(value: float | None) -> float:
    return math.nan if value is None or not math.isfinite(value) else value


def _interval(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [_drawable(p.low) for p in points], [_drawable(p.high) for p in points]


def _color(look: Look) -> str:
    return MUTED[0] if look.arch == PLAIN else COLORS[look.arch][0]


def _short(name: str) -> str:
    """A name with its middle left out where it is long."""
    if len(name) <= LONG_NAME:
        return name
    return f"{name[: LONG_NAME // 2 - 1]}…{name[-LONG_NAME // 2 :]}"


def _values(figure: Figure) -> list[float]:
    """Everything that is drawn, the line included."""
    points = [p for s in figure.series for p in s.points]
    found = [v for p in points for v in (p.value, p.low, p.high) if v is not None]
    found += [] if figure.reference is None else [figure.reference]
    return [v for v in found if math.isfinite(v)]


def _set_y(axes: Axes, figure: Figure) -> None:
    """The scale, its ends and its numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    values, metric = _values(figure), figure.metric
    if figure.scale == "log" and any(v > 0 for v in values):
        axes.set_yscale("log", nonpositive="mask")
        shown = [p.value for s in figure.series for p in s.points if p.value and p.value > 0]
        top = 2 * max(values)
        axes.set_ylim(max(0.5 * min(shown, default=0.1), top * 10.0**-DECADES), top)
        axes.yaxis.set_major_locator(LogLocator(numticks=7))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: power_of_ten(v)))
    elif figure.ticks:
        low, high = min([0.0, *values]), max([0.0, *values])
        if metric.kind == "percent" and high > 0.5:
            high = max(high, 1.0)
        room = 0.03 * ((high - low) or 1.0)
        axes.set_ylim(low - room * (low < 0), high + room)
    if metric.kind == "percent":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:.4g} %"))
    if heading := _y_label(metric):
        axes.set_ylabel(heading)


def _y_label(metric: Metric) -> str:
    return metric.heading.replace("/", " per ")


def power_of_ten(value: float) -> str:
    """
    >>> power_of_ten(0.001), power_of_ten(1.0), power_of_ten(100.0)
    ('10⁻³', '1', '100')
    """
    if 0.1 <= value <= 1000:
        return f"{value:g}"
    exponent = str(round(math.log10(value)))
    return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _set_x(axes: Axes, figure: Figure, places: Sequence[float], size: Size) -> None:
    """The ticks, of two units one below the other, as many as fit."""
    label = figure.x_label
    if figure.ticks:
        names = list(figure.ticks)
        if figure.second_ticks:
            names = [f"{a}\n{b}" for a, b in zip(names, figure.second_ticks, strict=True)]
            label = f"{label}  (below: {figure.second_label})"
        kept = _kept(places, TICKS[size])
        axes.set_xticks([places[i] for i in kept], [names[i] for i in kept])
        axes.set_xlim(places[0] - 0.5, places[-1] + 0.5)
    axes.set_xlabel(label)
    axes.tick_params(labelsize=SMALL, length=3)


def _kept(places: Sequence[float], most: int) -> list[int]:
    """The ticks that get a label: both ends, and those between that have room."""
    room = (places[-1] - places[0]) / max(1, most - 1)
    kept = [0]
    for i in range(1, len(places) - 1):
        if places[i] - places[kept[-1]] >= room and places[-1] - places[i] >= room:
            kept.append(i)
    return [*kept, len(places) - 1] if len(places) > 1 else kept


# ------------------------------------------------------------------ which line is which


def _label_lines(drawing: Drawing, axes: Axes, figure: Figure, chosen: Sequence[Look]) -> None:
    """Each line's name at its right end, moved apart where several end at one place."""
    drawing.draw_without_rendering()
    to_share = axes.transAxes.inverted().transform
    ends: list[tuple[float, float, str, str]] = []
    for series, look, line in zip(figure.series, chosen, axes.lines, strict=False):
        shares = to_share(axes.transData.transform(line.get_xydata())).tolist()
        known = [(y, x) for x, y in shares if math.isfinite(y) and y >= 0]
        if known:
            ends.append((*known[-1], _short(series.name), _color(look)))
    if figure.reference is not None:
        _, y = to_share(axes.transData.transform((0.0, figure.reference))).tolist()
        ends.append((y, 1.0, figure.line, MUTED[0]))
    ends.sort()
    for place, (y, x, name, color) in zip(spread([e[0] for e in ends]), ends, strict=True):
        axes.annotate(
            name, (x, y), (1.04, place), xycoords="axes fraction", textcoords="axes fraction",
            va="center", ha="left", fontsize=FONT, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 1.0, "shrinkA": 2,
                        "shrinkB": 5, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(wanted: Sequence[float], room: float = LABEL_HEIGHT) -> list[float]:
    """Heights in ascending order, each at least `room` above the one below, near those wanted.

    >>> [round(h, 2) for h in spread([0.0, 0.5, 0.5, 0.5], 0.1)]
    [0.0, 0.4, 0.5, 0.6]
    """
    groups: list[list[float]] = []  # heights that touch, each group around its mean
    for height in wanted:
        groups.append([height])
        while len(groups) > 1 and _top(groups[-2], room) + room > _bottom(groups[-1], room):
            last = groups.pop()
            groups[-1] += last
    return [_bottom(group, room) + i * room for group in groups for i in range(len(group))]


def _bottom(group: Sequence[float], room: float) -> float:
    middle = sum(group) / len(group)
    low = middle - room * (len(group) - 1) / 2
    return max(low, 0.0) if group[0] >= 0 else low


def _top(group: Sequence[float], room: float) -> float:
    return _bottom(group, room) + room * (len(group) - 1)


def _legend(drawing: Drawing, axes: Axes, figure: Figure, size: Size) -> None:
    """Names beside the axes, or below them where there is no room; for lines of any length."""
    handles, names = axes.get_legend_handles_labels()
    if figure.reference is not None:
        handles, names = [*handles, axes.lines[-1]], [*names, figure.line]
    if handles:
        more: Any = {"loc": "outside right upper", "ncols": 1}
        if size == "narrow":
            more = {"loc": "outside lower center", "ncols": 1 if max(map(len, names)) > 20 else 2}
        drawing.legend(handles, names, frameon=False, fontsize=FONT, **more)


# ------------------------------------------------------------------ an element of the page


def _inline(written: bytes, figure: Figure, key: str) -> str:
    """The file as an element: with a name and a description, ids of its own, colours by name."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(written)  # noqa: S314 - what matplotlib has just written
    for child in [c for c in root if c.tag == f"{{{SVG}}}metadata"]:
        root.remove(child)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", written.decode()))
    for element in root.iter():
        _clean(element, key, used)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-desc")
    for place, (tag, said) in enumerate({"title": figure.title, "desc": described(figure)}.items()):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{key}-{tag}"})
        element.text = said
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, key: str, used: set[str]) -> None:
    """Ids that are unique in the page, CSS variables for colours, the page's own font."""
    own = element.attrib.pop("id", None)
    if own in used:
        element.set("id", f"{key}-{own}")
    if target := element.attrib.pop(XLINK, None):
        element.set("href", f"#{key}-{target[1:]}")
    if clip := element.get("clip-path"):
        element.set("clip-path", clip.replace("#", f"#{key}-"))
    if style := element.get("style"):
        style = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", style)
        element.set("style", re.sub(r"#[0-9a-f]{6}", _variable, style))
    element.tail = None


def _variable(found: re.Match[str]) -> str:
    return f"var(--{VARIABLES[found[0]]})" if found[0] in VARIABLES else found[0]


VARIABLES = {INK[0]: "ink", MUTED[0]: "muted", RULE[0]: "rule", "#000000": "ink"}
VARIABLES |= {"#ffffff": "paper"} | {pair[0]: f"c-{arch}" for arch, pair in COLORS.items()}


def described(figure: Figure) -> str:
    """What is seen, for those who do not see it."""
    parts = []
    for series in figure.series:
        known = [p.value for p in series.points if p.value is not None]
        ends = [figure.metric.show(v) for v in known[:: max(1, len(known) - 1)][:2]]
        parts.append(f"{series.name}: {' to '.join(ends) if ends else 'not measured'}")
    line = ""
    if figure.reference is not None:
        line = f" The line at {figure.metric.show(figure.reference)} is {figure.line}."
    first, last = (figure.ticks[0], figure.ticks[-1]) if figure.ticks else ("", "")
    over = f" from {first} to {last} {figure.x_label}".rstrip() if first else ""
    return f"From the first to the last point{over}: {'; '.join(parts)}.{line}"
