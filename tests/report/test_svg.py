"""Figures as SVG: text is text, colours are those of the page, equal figures are equal bytes."""

import itertools
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from lmcli.report.colors import COLORS
from lmcli.report.result import PERCENT, Figure, Metric, Point, Series
from lmcli.report.svg import png, spread, svg

CURVE = Figure(
    "right answers",
    ["3", "10", "100"],
    [
        Series("lstm", [Point(1.0, 0.9, 1.0), Point(0.9, 0.8, 1.0), Point(0.8, 0.7, 0.9)]),
        Series("rnn", [Point(1.0, 0.9, 1.0), Point(0.4, 0.3, 0.5), Point(None)]),
    ],
    PERCENT,
    "words between",
    reference=0.0625,
    line="chance",
)
sizes = pytest.mark.parametrize("size", ["wide", "narrow"])


def words(drawn):
    root = ElementTree.fromstring(drawn)
    return [e.text for e in root.iter() if e.tag.endswith("}text")]


@sizes
def test_names_ticks_and_the_line_are_text(size):
    assert {"lstm", "rnn", "chance", "3", "100", "words between", "100 %"} <= {
        *words(svg(CURVE, size))
    }


@sizes
def test_colours_are_variables_of_the_page(size):
    drawn = svg(CURVE, size)
    assert {"var(--c-lstm)", "var(--c-rnn)", "var(--muted)", "var(--ink)"} <= {
        *re.findall(r"var\(--[\w-]+\)", drawn)
    }
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn)


def test_it_has_a_name_and_a_description():
    root = ElementTree.fromstring(svg(CURVE))
    said = {e.get("id"): e.text for e in root if e.get("id")}
    title, description = (said[name] for name in root.get("aria-labelledby").split())
    assert (root.get("role"), title) == ("img", "right answers")
    assert "lstm: 100.0 % to 80.0 %" in description
    assert "The line at 6.2 % is chance." in description


def test_equal_figures_are_equal_and_no_date_is_in_them():
    assert svg(CURVE) == svg(replace(CURVE))
    assert png(CURVE) == png(replace(CURVE))
    assert "20" + "26-" not in svg(CURVE)


def test_two_figures_in_one_page_share_no_id():
    drawn = [svg(f, s) for f in (CURVE, replace(CURVE, title="b")) for s in ("wide", "narrow")]
    ids = [re.findall(r'id="([^"]+)"', one) for one in drawn]
    found = [name for some in ids for name in some]
    assert len(found) == len(set(found))
    for one, own in zip(drawn, ids, strict=True):
        assert {*re.findall(r'(?:href="|url\()#([^")]+)', one)} <= {*own}


def test_a_name_full_of_markup_and_formulas_is_shown_as_it_is():
    name = "runs/<script>alert(1)</script> $x^2$"
    drawn = svg(replace(CURVE, series=[Series("$a$<b>", CURVE.series[0].points)], title=name))
    assert "<script>" not in drawn
    assert "$a$<b>" in words(drawn)


def test_signs_that_the_font_lacks_are_no_warning():
    assert "语言" in words(svg(replace(CURVE, series=[Series("语言", CURVE.series[0].points)])))


def test_what_was_not_measured_is_not_drawn():
    nothing = [Series("lstm", [Point(None)] * 3)]
    drawn = svg(replace(CURVE, series=nothing, reference=None))
    assert "not measured" in drawn
    assert "lstm" not in words(drawn)


def test_a_log_scale_shows_powers_of_ten():
    falling = [Series("gru", [Point(1.0), Point(1e-4), Point(0.0)])]
    curve = replace(CURVE, scale="log", series=falling, metric=Metric("", 0, "power"))
    assert {"1", "10⁻⁴"} <= {*words(svg(replace(curve, reference=None)))}


def test_series_may_have_places_of_their_own():
    learning = Figure(
        "t", (), [Series("gru", [Point(3.0), Point(1.0)], [0.0, 50.0])], Metric("bits")
    )
    assert {"0", "50", "gru", "bits"} <= {*words(svg(learning))}


def test_labels_at_one_height_are_moved_apart():
    assert spread([0.1, 0.9], 0.1) == [0.1, 0.9]
    moved = spread([0.0, 0.01, 0.02, 0.9], 0.1)
    assert moved == pytest.approx([0.0, 0.1, 0.2, 0.9])
    assert all(b - a > 0.099 for a, b in itertools.pairwise(moved))


def test_every_architecture_is_drawn_in_its_own_colour():
    drawn = svg(replace(CURVE, series=[replace(CURVE.series[0], name=arch) for arch in COLORS]))
    assert all(f"var(--c-{arch})" in drawn for arch in COLORS)


def test_a_png_is_one():
    assert png(CURVE).startswith(b"\x89PNG")
