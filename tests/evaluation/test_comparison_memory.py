"""What ``lmcli compare`` says of memory on a text with known answers."""

import json
import statistics

import pytest
from typer.testing import CliRunner

from lmcli.cli import app
from lmcli.evaluation.comparison_memory import reach_text


def run(*args):
    done = CliRunner().invoke(app, [str(a) for a in args], prog_name="lmcli")
    assert done.exit_code == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A tiny comparison on a text made by rule, as JSON and as shown; its runs, probed."""
    folder = tmp_path_factory.mktemp("france")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        patch.setenv("COLUMNS", "80")
        patch.chdir(folder)
        run("make", "france", "--size", "small", "-o", "f.txt")
        word = ("compare", "f.txt", "--tokenizer", "word", "--quiet")
        tiny = ("--arch", "ngram,rnn", "--seeds", "2", "--steps", "4", "--set", "hidden=8")
        values = json.loads(run(*word, *tiny, "--workers", "1", "--json", "-o", "out"))
        shown = run(*word, "--run", "out/ngram", "-o", "again")
        runs = [f"out/rnn-seed{seed}" for seed in (0, 1)]
        yield values, shown, json.loads(run("probe", "recall", *runs, "f.txt", "--json"))


def test_every_seed_is_asked_and_the_median_is_told(compared):
    values, _, probe = compared
    (rnn,) = (row for row in values["rows"] if row["name"] == "rnn")
    for one in rnn["recall"]:
        same = [
            row["value"]
            for row in probe["rows"]
            if (row["kind"], row["gap"]) == (one["kind"], one["gap"])
        ]
        assert one["seeds"] == len(same) == 2
        assert one["value"] == pytest.approx(statistics.median(same))
        assert one["least"] == min(same)
        assert one["low"] <= one["value"] <= one["high"]


def test_the_optimum_has_no_recall_of_its_own(compared):
    values, *_ = compared
    assert [row["name"] for row in values["rows"] if "recall" not in row] == []
    (best,) = (row for row in values["rows"] if row["name"] == "optimum")
    assert best["recall"] == []


def test_the_table_has_a_column_for_every_gap_and_a_row_for_chance(compared):
    _, shown, _ = compared
    table = shown.partition("right answers by gap: country")[2].splitlines()
    (header,) = (line.split() for line in table if line.strip().startswith("model"))
    assert header == ["model", "control", "3", "5", "10", "20", "30", "50", "100", "200"]
    (chance,) = (line for line in table if line.strip().startswith("chance"))
    assert chance.count("6 %") == 8
    assert "12 %" in chance


def test_a_reach_is_shown_with_what_is_known_of_it():
    assert reach_text({"tokens": 256, "at_least": True}) == "≥ 256"
    assert reach_text({"tokens": 0, "at_least": False}) == "0"
    assert reach_text({"tokens": None, "at_least": False}) is None
