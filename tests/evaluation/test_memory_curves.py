"""Right answers by gap: what a model still knows, as a table with intervals, as a chart."""

import pytest
from rich.console import Console

from lmcli.evaluation.memory_curves import MemoryTask, curves, recall_by_gap, recall_chart, skill
from lmcli.report.result import Result
from lmcli.report.terminal import print_result

OWN = MemoryTask("my.txt", 4.75, planted=True, order_free={3: 1.0, 10: 0.5, 200: 0.25})


def shown(blocks, width=80):
    console = Console(width=width, force_terminal=False)
    with console.capture() as captured:
        print_result(Result("demo", {}, blocks), console)
    return captured.get()


def test_the_table_has_a_row_a_gap_with_intervals_and_the_rows_of_comparison(memory_row):
    forgets = memory_row("rnn", {3: 1, 10: 0.06, 200: 0.06})
    rows = [memory_row("lstm", {3: 1, 10: 1, 200: 0.92}), forgets]
    (table,) = recall_by_gap(rows, OWN)
    headings, *cells = table.cells()
    assert headings == ["words", "lstm", "rnn", "order-free", "chance"]
    assert cells[0] == ["control", "100 ± 4", "100 ± 4", "-", "6"]
    assert cells[3] == ["200", "92 ± 7", "6 ± 6", "25", "6"]
    assert cells[-1] == ["shuffled", "6 ± 6", "6 ± 6", "-", "6"]
    assert [row[0] for row in cells] == ["control", "3", "10", "200", "shuffled"]


def test_the_note_says_how_many_texts_and_what_the_intervals_are_of(memory_row):
    row = memory_row("lstm", {3: 1, 10: 1, 200: 0.92}, seeds=3)
    for one, count in zip(row["recall"][1:4], (100, 90, 80), strict=True):
        one["count"] = count
    note = recall_by_gap([row], OWN)[0].note
    assert "80-100 texts a gap" in note
    assert "medians of 3 seeds; the intervals are of the texts, not of the seeds" in note


def test_an_interval_reaches_as_far_as_its_longer_side(memory_row):
    row = memory_row("lstm", {3: 0.92})
    (one,) = [one for one in row["recall"] if one["kind"] == "country"]
    assert one["value"] - one["low"] > one["high"] - one["value"]
    half = recall_by_gap([row], OWN)[0].rows[1]["m0"]["half"]
    assert half == pytest.approx(100 * (one["value"] - one["low"]))


def test_many_models_are_several_tables_that_fit_80_columns(memory_row):
    gaps = dict.fromkeys((3, 5, 10, 20, 30, 50, 100, 200, 400), 1)
    names = ("ngram", "window", "rnn", "gru", "lstm", "attention", "mingru")
    rows = [memory_row(name, gaps) for name in names]
    tables = recall_by_gap(rows, OWN)
    assert [len(table.columns) for table in tables] == [8, 5]
    text = shown([*tables, recall_chart(rows, OWN)])
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("order-free: a reader who takes the country named most often") == 1


def test_kinds_of_items_that_are_not_known_are_left_out(memory_row):
    row = memory_row("lstm", {3: 1, 10: 1})
    row["recall"].append(row["recall"][-1] | {"kind": "unknown", "gap": 7})
    assert (
        recall_by_gap([row], OWN)[0].cells()
        == recall_by_gap([memory_row("lstm", {3: 1, 10: 1})], OWN)[0].cells()
    )


def test_the_chart_has_a_bar_a_model_and_chance(memory_row):
    rows = [memory_row("lstm", {3: 1, 200: 0.92}), memory_row("rnn", {3: 1, 200: 0.06})]
    figure = recall_chart(rows, OWN)
    assert figure.ticks == ["3", "200"]
    assert [point.value for point in figure.series[1].points] == [1, 0.06]
    assert "a lstm   b rnn   ┄┄ 6 %: chance" in shown([figure])


def test_what_is_known_is_an_unbroken_run_from_the_shortest_gap_on(memory_row):
    (curve,) = curves([memory_row("lstm", {3: 1, 10: 0.6, 20: 0.4, 50: 0.9})], OWN)
    assert [one["gap"] for one in curve.known] == [3, 10]
    assert curve.next_gap["gap"] == 20
    assert skill({"value": 0.53125, "chance": 0.0625}) == 0.5


def test_only_a_planted_control_asks_for_what_was_in_the_cue(memory_row):
    row = memory_row("lstm", {3: 0.06}, control=1.0)
    assert curves([row], OWN)[0].has_learnt
    assert not curves([row], MemoryTask("france.txt", 1.75))[0].has_learnt


def test_a_verdict_goes_before_what_the_answers_look_like(memory_row):
    row = memory_row("lstm", {3: 0.06}) | {"learning": {"verdict": "forgets"}}
    assert curves([row], OWN)[0].has_learnt
    row = memory_row("lstm", {3: 1}) | {"learning": {"verdict": "not learnt"}}
    assert not curves([row], OWN)[0].has_learnt
