"""``lmcli probe`` from outside, and what `compare` takes from it."""

import json
import random

import pytest
from typer.testing import CliRunner

from lmcli.cli import app

SYLLABLES = [c + v for c in "bdfgklmnp" for v in "aeou"]
TINY = ("--steps", "8", "--set", "hidden=8", "--set", "embedding=6", "--quiet", "--json")
QUICK = ("--set", "longest=32")
APPLY = {
    "ceiling",
    "context",
    "copies",
    "echo",
    "gradient",
    "halflife",
    "influence",
    "order",
    "stored",
}
"""probes for which the text is long enough"""


def made_text(words, seed=0):
    draw = random.Random(seed)
    one = (draw.choice(SYLLABLES) + draw.choice(SYLLABLES) for _ in range(words))
    return "".join(word + ("\n" if i % 9 == 8 else " ") for i, word in enumerate(one))


def run(*args):
    done = CliRunner().invoke(app, [str(a) for a in args], prog_name="lmcli")
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def as_json(*args):
    done = run(*args, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout, parse_constant=lambda name: pytest.fail(name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a text and three runs on it."""
    folder = tmp_path_factory.mktemp("probed")
    text = folder / "text.txt"
    text.write_text(made_text(4000), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMCLI_CACHE", str(folder / "cache"))
        for name in ("lstm", "window"):
            done = run("train", text, "--arch", name, *TINY, "-o", folder / name)
            assert done.exit_code == 0, done.stderr
        done = run("train", text, "--arch", "ngram", "--quiet", "-o", folder / "ngram")
        assert done.exit_code == 0, done.stderr
        yield folder


def test_one_probe_over_several_runs(runs):
    found = as_json("probe", "context", runs / "ngram", runs / "lstm", *QUICK)
    assert found["command"] == "probe"
    assert found["probe"] == "context"
    assert {row["arch"] for row in found["rows"]} == {"ngram", "lstm"}
    keys = {"run", "arch", "context", "value", "low", "high", "count", "chance"}
    assert all(keys <= set(row) for row in found["rows"])
    assert "ngram makes use of" in found["verdict"]


def test_without_a_name_all_that_apply_are_run(runs):
    found = as_json("probe", runs / "window", runs / "lstm", runs / "ngram", *QUICK)
    probes = {p["probe"]: p for p in found["probes"]}
    assert set(probes) == APPLY
    assert {row["arch"] for row in probes["gradient"]["rows"]} == {"window", "lstm"}
    assert {row["arch"] for row in probes["halflife"]["rows"]} == {"lstm"}
    assert [row["arch"] for row in found["rows"]] == ["window", "lstm", "ngram"]


def test_the_picture_fits_into_80_columns_of_ascii(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = run("probe", runs / "lstm", runs / "ngram", "--quiet", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "a lstm" in done.stdout
    assert "summary" in done.stdout


def test_a_text_of_its_own_takes_the_place_of_the_held_out_part(runs, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(made_text(300, seed=3), encoding="utf-8")
    mine = as_json("probe", "context", runs / "lstm", *QUICK)
    theirs = as_json("probe", "context", runs / "lstm", other, *QUICK)
    assert mine["rows"] != theirs["rows"]


def test_recall_can_be_had_from_a_short_text_and_has_control_rows(runs):
    found = as_json("probe", "recall", runs / "ngram", "--set", "least_text=0")
    archs = {"ngram", "control", "placebo"}
    assert found["rows"] == [] or archs == {r["arch"] for r in found["rows"]}
    assert found["verdict"]


def test_the_same_seed_gives_the_same_numbers(runs):
    first, second = (as_json("probe", "echo", runs / "lstm", "--seed", "3", *QUICK) for _ in "ab")
    other = as_json("probe", "echo", runs / "lstm", "--seed", "4", *QUICK)
    assert first == second
    assert first["rows"] != other["rows"]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "no run to probe"),
        (("recal", "RUN"), 1, "did you mean 'recall'?"),
        (("context", "RUN", "--set", "nothing=1"), 2, "no setting named 'nothing'"),
        (("halflife", "NGRAM"), 1, "does not apply"),
        (("recall", "RUN"), 1, "too few for recall"),
        (("context", "missing/run"), 1, "no run at 'missing/run'"),
        (("context", "RUN", "missing.txt"), 1, "missing.txt"),
    ],
)
def test_what_is_wrong_is_said_in_two_lines(runs, args, code, said):
    places = {"RUN": runs / "lstm", "NGRAM": runs / "ngram"}
    done = run("probe", *(places.get(a, a) for a in args), "--quiet")
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "\nhint: " in done.stderr


def test_runs_on_different_texts_need_a_common_one(runs, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(made_text(600, seed=3), encoding="utf-8")
    run("train", other, "--arch", "ngram", "--quiet", "-o", tmp_path / "ngram")
    done = run("probe", "echo", runs / "ngram", tmp_path / "ngram", "--quiet")
    assert done.exit_code == 1
    assert "different texts" in done.stderr
    assert as_json("probe", "echo", runs / "ngram", tmp_path / "ngram", other, *QUICK)["rows"]


def test_compare_has_a_reach_for_every_row_and_probes_on_demand(runs, tmp_path):
    text = runs / "text.txt"
    budget = ("--steps", "6", "--set", "hidden=8", "--workers", "1", "--quiet")
    archs = ("--arch", "ngram,lstm")
    plain = as_json("compare", text, *archs, *budget, "-o", tmp_path / "a")
    assert all(row["reach"] == {"tokens": None, "at_least": False} for row in plain["rows"])
    probed = as_json("compare", text, *archs, *budget, "--probe", "-o", tmp_path / "b")
    assert {p["probe"] for p in probed["probes"]} == APPLY
