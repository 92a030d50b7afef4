"""Figures as bars of text."""

import io

from rich.console import Console

from lmcli.report.bar_chart import print_figure
from lmcli.report.result import PERCENT, Figure, Metric, Point, Series


def shown(figure, width=80, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_figure(figure, Console(file=stream, width=width, legacy_windows=False))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding).splitlines()


def series(name, *values):
    return Series(name, [Point(v) for v in values])


def figure(**changes):
    some = {"title": "t", "ticks": ["1", "2", "4"], "metric": PERCENT, "x_label": "lag"}
    some |= {"series": [series("lstm", 1.0, 0.5, 0.0), series("rnn", 0.5, 0.25, None)]}
    return Figure(**(some | changes))


def test_a_bar_is_as_high_as_its_value():
    lines = shown(figure())
    rows = [line.partition("│")[2] for line in lines if "│" in line]
    heights = [sum(len(r) > place and r[place] != " " for r in rows) for place in (0, 1, 3, 4, 6)]
    assert heights == [9, 5, 5, 3, 0]


def test_letters_under_the_bars_name_the_series():
    lines = shown(figure())
    assert lines[1].startswith("a lstm   b rnn")
    assert any(line.split() == ["ab", "ab", "ab"] for line in lines)


def test_what_was_not_measured_is_a_question_mark():
    assert any("?" in line for line in shown(figure()))


def test_it_is_ascii_where_the_stream_is_and_no_wider_than_the_console():
    many = [series(f"model{i}", *([0.5] * 30)) for i in range(6)]
    wide = figure(series=many, ticks=[str(2**i) for i in range(30)], reference=0.2)
    lines = shown(wide, encoding="ascii")
    assert all(line.isascii() for line in lines)
    assert "#" in "".join(lines)
    assert max(map(len, lines[2:])) <= 80


def test_chance_is_a_line_through_the_empty_places():
    lines = shown(figure(reference=0.5))
    assert any("┄┄┄" in line for line in lines if "│" in line)


def test_the_legend_says_what_the_line_means():
    assert shown(figure(reference=0.5))[1].endswith("┄┄ 50.0 %: what knowing nothing gives")
    assert shown(figure(reference=0.5, line="half"))[1].endswith("┄┄ 50.0 %: half")


def test_a_log_scale_counts_decades():
    curve = figure(
        series=[series("a", 1.0, 1e-3, 1e-6)], scale="log", metric=Metric("", 0, kind="power")
    )
    rows = [line.partition("│")[2] for line in shown(curve) if "│" in line]
    heights = [sum(len(r) > place and r[place] != " " for r in rows) for place in (0, 3, 6)]
    assert heights[0] == 9
    assert heights[1] in (4, 5)
    assert heights[2] == 0


def test_ticks_in_a_second_unit_and_a_sentence_stand_below():
    more = {"second_ticks": ["0.2", "0.4", "0.8"], "second_label": "words", "note": "so it is"}
    lines = shown(figure(**more))
    assert [line.split() for line in lines[-5:]] == [
        ["1", "2", "4"], ["lag"], ["0.2", "0.4", "0.8"], ["words"], ["so", "it", "is"],
    ]  # fmt: skip
