"""Data frames hold the raw numbers of what is shown, by its titles."""

import sys

import pytest

from lmcli.errors import LmcliError
from lmcli.report.frames import data_frames
from lmcli.report.result import (
    PERPLEXITY,
    Column,
    Facts,
    Figure,
    Passages,
    Point,
    Result,
    Series,
    Strip,
    Strips,
    Table,
    text,
)

NAME, SCORE = Column("name", text("model")), Column("test.perplexity", PERPLEXITY)
ROWS = [{"name": "a", "test": {"perplexity": 1.23456789}}, {"name": "b", "test": None}]


def test_a_table_has_raw_numbers_and_what_is_missing_is_missing():
    frame = data_frames(Result("x", {}, [Table("ranking", [NAME, SCORE], ROWS)]))["ranking"]
    assert [*frame.columns] == ["model", "perplexity"]
    assert frame["perplexity"][0] == 1.23456789
    assert frame["perplexity"].isna().tolist() == [False, True]


def test_tables_without_a_title_or_with_the_same_have_names_of_their_own():
    blocks = [Table("", [NAME], ROWS), Facts([NAME], {"name": "c"}), Table("t", [NAME], ROWS)]
    frames = data_frames(Result("eval", {}, [*blocks, Table("t", [NAME], ROWS[:1])]))
    assert {name: len(frame) for name, frame in frames.items()} == {
        "eval": 2, "eval (2)": 1, "t": 2, "t (2)": 1,
    }  # fmt: skip


def test_columns_with_the_same_heading_are_told_apart_by_their_path():
    columns = [Column("a", text("")), Column("b", text("")), Column("c", text("x"))]
    frame = data_frames(Result("x", {}, [Table("t", columns, [{"a": 1, "b": 2, "c": 3}])]))["t"]
    assert [*frame.columns] == ["a", "b", "x"]


def test_a_figure_has_a_row_a_tick_and_its_intervals():
    points = [Point(0.5, 0.25, 0.75), Point(None)]
    figure = Figure("by gap", ["0", "10"], [Series("rnn", points)], PERPLEXITY, "gap")
    frame = data_frames(Result("x", {}, [figure]))["by gap"]
    assert [*frame.columns] == ["gap", "rnn", "rnn low", "rnn high"]
    assert frame["rnn low"][0] == 0.25
    assert frame["rnn"].isna().tolist() == [False, True]


def test_a_figure_without_ticks_has_a_row_a_point():
    series = [Series("a", [Point(3.0), Point(2.0)], [1, 5]), Series("b", [Point(4.0)], [2])]
    frame = data_frames(Result("x", {}, [Figure("curve", [], series, PERPLEXITY, "step")]))["curve"]
    assert frame.to_numpy().tolist() == [["a", 1, 3.0], ["a", 5, 2.0], ["b", 2, 4.0]]


def test_texts_have_a_row_a_token():
    strips = Strips("inside", ["a", "b"], [Strip("bits", [1.5, 2.5], 0, 10)])
    passages = Passages("surprise", [("a", 0.5)])
    frames = data_frames(Result("x", {}, [strips, passages]))
    assert frames["inside"].to_dict("list") == {"token": ["a", "b"], "bits": [1.5, 2.5]}
    assert frames["surprise"].to_dict("list") == {"text": ["a"], "strength": [0.5]}


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LmcliError, match="needs pandas") as caught:
        data_frames(Result("x", {}, []))
    assert caught.value.hint == "pip install pandas"
