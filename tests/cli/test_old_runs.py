"""Runs and a comparison made by an earlier version open, and say what they said then."""

import json
from pathlib import Path

import pytest

from lmcli.generation.numpy_models.base import open_numpy_model
from lmcli.run import Run

OLD = Path(__file__).parents[1] / "data" / "made_by_0.1.0"
EXPECTED = json.loads((OLD / "expected.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_scores_a_text_as_it_did(lmcli, name):
    done = lmcli("eval", OLD / name, OLD / "text.txt", "--documents", "line", "--json")
    found, expected = done.json, dict(EXPECTED[name])
    # on the machine that made them the figures are equal; another one sums in another order
    exact = found["arch"] == "ngram"
    del expected["standard_error"]  # its estimator is another one now: longer stretches of text
    assert found["spelling_nats"] == 0  # no unknown rate was saved: scored as it was then
    for key, value in expected.items():
        assert found[key] == (value if exact else pytest.approx(value, rel=1e-5)), key


@pytest.mark.parametrize("name", [n for n in EXPECTED if n != "attention"])
def test_an_old_run_is_sampled_without_torch(name):
    assert open_numpy_model(Run.open(OLD / name)) is not None


def test_an_old_comparison_is_compared_again(lmcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["--documents", "line", "--run", OLD / "comparison", "--json", "-o", "again"]
    found = lmcli("compare", OLD / "text.txt", *arguments).json
    old = json.loads((OLD / "comparison" / "comparison.json").read_text(encoding="utf-8"))

    def bits(comparison):
        return sorted(row["test"]["bits_per_char"] for row in comparison["rows"])

    assert bits(found) == pytest.approx(bits(old), rel=1e-5)
    assert {d["verdict"] for d in found["differences"]} == {
        d["verdict"] for d in old["differences"]
    }
