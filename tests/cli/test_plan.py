"""``lmcli compare --plan``: commands that make what the comparison would have made."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lmcli.run import Run
from lmcli.tensor_files import read_tensors

TINY = ("--steps", "6", "--set", "hidden=8", "--set", "validations=1")
RATE = ("--set", "learning_rate=0.003")


@pytest.fixture
def planned(lmcli, my_text):
    """The commands of a plan for my.txt, as words."""

    def plan(*arguments):
        done = lmcli("compare", "my.txt", *arguments, "--plan")
        assert done.code == 0, done.err
        return [shlex.split(line) for line in done.out.splitlines()]

    return plan


def carry_out(lmcli, commands):
    for program, *words in commands:
        assert program == "lmcli"
        done = lmcli(*words, "--quiet")
        assert done.code == 0, done.err


def test_a_plan_writes_nothing_and_has_a_command_for_each_member(planned, tmp_path):
    commands = planned("--arch", "ngram,rnn,gru", "--seeds", "2", "-o", "all", *TINY)
    assert not (tmp_path / "all").exists()
    names = {"ngram-seed0", "ngram-seed1", "rnn-seed0", "rnn-seed1", "gru-seed0", "gru-seed1"}
    assert {Path(words[words.index("-o") + 1]).name for words in commands} == names
    assert all(words[:3] == ["lmcli", "train", "my.txt"] for words in commands)
    assert all("--seed" in words for words in commands)


def test_the_runs_of_a_plan_are_those_of_the_comparison(planned, lmcli, tmp_path):
    more = ("--arch", "lstm,gru,window,ngram", "--tokenizer", "word", "--steps", "3", *RATE)
    more += (
        "--set",
        "order=3",
        "--set",
        "min_count=2",
        "--split",
        "tail",
        "--newlines",
        "lf",
        "--seed",
        "7",
    )
    carry_out(lmcli, planned(*more, "-o", "planned"))
    done = lmcli("compare", "my.txt", *more, "-o", "compared", "--workers", "1", "--json")
    assert done.code == 0
    for name in ("lstm", "gru", "window", "ngram"):
        one, other = (vars(Run.open(tmp_path / f / name).record) for f in ("planned", "compared"))
        trained = name != "ngram"
        left_out = ("command",) if trained else ("command", "training", "id")
        for key in one:
            assert one[key] == other[key] or key in left_out, (name, key)
        weights = [tmp_path / f / name / "weights.safetensors" for f in ("planned", "compared")]
        if trained:
            assert weights[0].read_bytes() == weights[1].read_bytes(), name
        (tensors, _), (others, _) = map(read_tensors, weights)
        assert all(torch.equal(tensors[k], others[k]) for k in tensors | others), name


def test_the_runs_of_a_plan_make_one_table_with_a_row_for_all_seeds(planned, lmcli, tmp_path):
    carry_out(lmcli, planned("--arch", "ngram,rnn", "--seeds", "2", "-o", "all", *TINY))
    values = lmcli("compare", "my.txt", "--run", "all", "-o", "all", "--json").json
    rows = {row["name"]: row for row in values["rows"]}
    assert set(rows) == {"all/ngram", "all/rnn"}
    rnn = rows["all/rnn"]
    assert [(seed["seed"], seed["run"]) for seed in rnn["seeds"]] == [
        (0, "all/rnn-seed0"),
        (1, "all/rnn-seed1"),
    ]
    bits = [seed["bits_per_char"] for seed in rnn["seeds"]]
    assert rnn["test"]["bits_per_char"] == pytest.approx(sum(bits) / 2)
    assert rnn["tokens_seen"] > 0
    assert rnn["learning_rate"] > 0
    assert len(values["differences"]) == 1
    assert [
        Run.open(tmp_path / seed["run"]).record.corpus["rotation"] for seed in rnn["seeds"]
    ] == ([0, 1])
    assert (tmp_path / "all" / "rnn-seed1" / "weights.safetensors").is_file()


def test_runs_named_one_by_one_are_the_same_table(planned, lmcli):
    carry_out(lmcli, planned("--arch", "rnn", "--seeds", "2", "-o", "all", *TINY))
    several = lmcli(
        *("compare", "my.txt", "--run", "all/rnn-seed0", "--run", "all/rnn-seed1", "--json")
    ).json
    whole = lmcli("compare", "my.txt", "--run", "all", "--json").json
    assert [row["name"] for row in several["rows"]] == ["all/rnn"]
    assert several["rows"] == whole["rows"]


def test_runs_that_differ_by_more_than_the_seed_are_rows_of_their_own(planned, lmcli):
    carry_out(lmcli, planned("--arch", "rnn", "-o", "one", *TINY))
    carry_out(lmcli, planned("--arch", "rnn", "-o", "two", *TINY, *RATE, "--seed", "1"))
    rows = lmcli("compare", "my.txt", "--run", "one", "--run", "two", "--json").json["rows"]
    assert {row["name"] for row in rows} == {"one/rnn", "two/rnn"}


def test_every_row_of_runs_goes_by_its_path(planned, lmcli):
    carry_out(lmcli, planned("--arch", "rnn", "--seeds", "2", "-o", "all", *TINY))
    assert lmcli("train", "my.txt", "--arch", "ngram", "-o", "one", "--quiet").code == 0
    words = ("--run", "one", "--run", "all/rnn-seed0", "--json")
    values = lmcli("compare", "my.txt", *words, "--run", "all/rnn-seed1").json
    assert {row["name"] for row in values["rows"]} == {"one", "all/rnn"}
    shutil.copytree("all/rnn-seed1", "other")
    values = lmcli("compare", "my.txt", *words, "--run", "other").json
    assert {row["name"] for row in values["rows"]} == {"one", "all/rnn-seed0 and 1 more"}


def test_a_plan_as_json_holds_the_same_lines(lmcli, my_text):
    words = ("compare", "my.txt", "--arch", "ngram,gru", "-o", "all", "--plan")
    values = lmcli(*words, "--json").json
    assert values == {"schema": 1, "command": "compare", "plan": lmcli(*words).out.splitlines()}


def test_names_with_blanks_and_quotes_survive_the_shell(lmcli, my_text, tmp_path):
    shutil.copy(my_text, tmp_path / "it's mine.txt")
    done = lmcli("compare", "it's mine.txt", "--arch", "rnn", "-o", "a b", "--plan", *TINY)
    (line,) = done.out.splitlines()
    words = shlex.split(line)
    assert words[2] == "it's mine.txt"
    assert words[words.index("-o") + 1] == "a b/rnn"
    assert "lmcli compare 'it'\"'\"'s mine.txt'" in done.err
    assert "--run 'a b'" in done.err


def test_what_cannot_be_planned_is_refused(lmcli, copied, my_text):
    copied("gru")
    lmcli("compare", "my.txt", "--run", "gru", "--plan").failed("nothing to plan", code=2)
    done = lmcli("compare", "-", "--plan", stdin=my_text.read_text())
    done.failed("standard input", code=2)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("xargs"), reason="there is no xargs")
def test_the_lines_of_a_plan_run_side_by_side_in_a_shell(lmcli, my_text, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    script = tmp_path / "bin" / "lmcli"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lmcli "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=":")
    plan = lmcli("compare", "my.txt", "--arch", "rnn,ngram", "-o", "all", "--plan", *TINY).out
    (tmp_path / "plan.txt").write_text(plan)
    each = "tr '\\n' '\\0' < plan.txt | xargs -0 -P 2 -n 1 sh -c"
    done = subprocess.run(each, shell=True, cwd=tmp_path, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(lmcli("compare", "my.txt", "--run", "all", "--json").out)["rows"]
    assert {row["name"] for row in rows} == {"all/rnn", "all/ngram"}


def test_a_plan_with_force_may_be_made_again_for_runs_that_are_there(planned, lmcli, tmp_path):
    more = ("--arch", "ngram", "-o", "all")
    carry_out(lmcli, planned(*more))
    lmcli("compare", "my.txt", *more, "--plan").failed("'all' exists")
    again = planned(*more, "--force")
    assert all(words[-1] == "--force" for words in again)
    carry_out(lmcli, again)


def test_beside_a_run_the_usual_names_are_trained_if_they_are_given(planned, lmcli, tmp_path):
    assert lmcli("train", "my.txt", "--arch", "ngram", "-o", "one", "--quiet").code == 0
    lmcli("compare", "my.txt", "--run", "one", "--plan").failed("nothing to plan", code=2)
    usual = "ngram,window,rnn,gru,lstm"
    assert len(planned("--run", "one", "--arch", usual, "-o", "all", *TINY)) == 5


def test_a_text_whose_name_looks_like_an_option_is_a_path_in_a_plan(lmcli, my_text, tmp_path):
    (tmp_path / "-dash.txt").write_text(my_text.read_text())
    done = lmcli("compare", "--plan", "--arch", "ngram", "-o", "p", "--", "-dash.txt")
    assert " ./-dash.txt " in done.out
    (tmp_path / "two\nlines.txt").write_text(my_text.read_text() + "more")
    plan = ("compare", "--plan", "--arch", "ngram", "-o")
    lmcli(*plan, "p", "two\nlines.txt").failed("a plan has a line a command", code=2)
    named = ("--valid", "two\nlines.txt", "--quiet")
    lmcli(*plan, "p", "my.txt", *named).failed("two lines", code=2)
    lmcli(*plan, "p\nq", "my.txt", "--quiet").failed("two lines", code=2)


def test_a_width_that_the_others_are_matched_to_is_said(lmcli, my_text):
    done = lmcli(
        *("compare", "my.txt", "--arch", "rnn", "--steps", "2", "--set", "hidden=16", "-o", "c")
    )
    assert "hidden=16 is the width of an LSTM" in done.err
    done = lmcli(
        *("compare", "my.txt", "--arch", "rnn", "--steps", "2", "--set", "hidden=16", "-o", "d"),
        *("--match", "width"),
    )
    assert "width of an LSTM" not in done.err
