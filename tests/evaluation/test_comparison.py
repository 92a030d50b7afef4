"""Comparing: differences are paired, verdicts follow from intervals, one protocol for all."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lmcli.data.corpus import CorpusSpec
from lmcli.data.dataset import load_dataset
from lmcli.data.text import TextOptions
from lmcli.evaluation.comparison import (
    Difference,
    Ranking,
    paired_difference,
    summary,
)
from lmcli.evaluation.optimum import made_by, optimum_row
from lmcli.evaluation.score import Score
from lmcli.evaluation.trial_result import TrialResult
from lmcli.grammars.base import companions
from lmcli.grammars.france.grammar import France
from lmcli.training.defaults import Budget
from lmcli.training.job import prepare_job
from lmcli.training.sweep import Trial, run_trial


def score(block_nats, block_chars=1000.0):
    """A score of blocks of equal length, a token a character."""
    nats = np.asarray(block_nats, float)
    chars = int(block_chars * len(nats))
    sizes = np.full(len(nats), float(block_chars))
    return Score(nats.sum(), chars, chars, chars, chars // 5, 0, 0.0, nats, sizes)


def outcome(name, test, valid=None, seed=0):
    return TrialResult(
        name, name, seed, f"runs/{name}", 10, 8, 20, 1000, 2.0, 0.01, valid or test, test
    )


# ------------------------------------------------------------------ paired differences


@pytest.fixture
def blocks():
    """Nats of 400 blocks of a text that is hard in some places for everybody."""
    rng = np.random.default_rng(0)
    hard = rng.normal(1500, 400, size=400)
    return hard, rng.normal(0, 20, size=400), rng.normal(0, 20, size=400)


def test_a_difference_and_its_interval_are_those_of_the_paired_blocks(blocks):
    hard, one, other = blocks
    a, b = score(hard + one + 10), score(hard + other)
    found = paired_difference("a", [a], "b", [b])
    apart = (one + 10 - other) / 1000 / math.log(2)  # bits a character in each block
    error = apart.std(ddof=1) / math.sqrt(400)
    assert found.bits_per_char == pytest.approx(apart.mean())
    assert found.low == pytest.approx(apart.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(apart.mean() + 1.96 * error, abs=0.15 * error)
    assert (found.a, found.b, found.verdict) == ("a", "b", "worse")


def test_what_is_hard_for_both_does_not_hide_a_difference(blocks):
    hard, one, other = blocks
    a, b = score(hard + one - 5), score(hard + other)
    unpaired = math.hypot(a.standard_error, b.standard_error)
    found = paired_difference("a", [a], "b", [b])
    assert abs(found.bits_per_char) < unpaired  # no chance without pairing
    assert found.verdict == "better"
    assert found.high - found.low < unpaired


def test_turned_around_a_difference_changes_its_sign(blocks):
    hard, one, other = blocks
    a, b = [score(hard + one)], [score(hard + other)]
    there, back = paired_difference("a", a, "b", b), paired_difference("b", b, "a", a)
    assert there.bits_per_char == -back.bits_per_char
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_a_model_does_not_differ_from_itself(blocks):
    found = paired_difference("a", [score(blocks[0])], "b", [score(blocks[0])])
    assert (found.bits_per_char, found.low, found.high) == (0, 0, 0)
    assert found.verdict == "no detectable difference"


def test_one_in_twenty_equal_models_is_told_apart():
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(150):
        hard = rng.normal(1500, 400, size=100)
        a, b = (score(hard + rng.normal(0, 50, size=100)) for _ in range(2))
        verdicts.append(paired_difference("a", [a], "b", [b]).verdict)
    wrong = sum(v != "no detectable difference" for v in verdicts)
    assert 1 <= wrong <= 17  # 7.5 of 150 expected; 3.5 standard deviations


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "worse"),
        (-0.2, -0.1, "better"),
        (-0.1, 0.2, "no detectable difference"),
        (0.0, 0.2, "no detectable difference"),
        (-0.2, 0.0, "no detectable difference"),
    ],
)
def test_a_verdict_says_on_which_side_of_zero_the_interval_lies(low, high, verdict):
    found = Difference("a", "b", (low + high) / 2, low, high)
    assert found.verdict == verdict
    assert found.to_json()["verdict"] == verdict


def test_seeds_that_disagree_widen_the_interval(blocks):
    hard, one, other = blocks
    b = [score(hard + other)] * 3
    alike = paired_difference("a", [score(hard + one)] * 3, "b", b)
    apart = paired_difference("a", [score(hard + one + shift) for shift in (-90, 0, 90)], "b", b)
    assert apart.bits_per_char == pytest.approx(alike.bits_per_char)
    assert apart.high - apart.low > 2 * (alike.high - alike.low)


# ------------------------------------------------------------------ the ranking


def test_rows_are_sorted_best_first_and_compared_with_the_best(blocks):
    hard = blocks[0]
    outcomes = [outcome(n, score(hard + shift)) for n, shift in (("b", 5), ("a", 0), ("c", 9))]
    found = Ranking.of(outcomes)
    assert [s.name for s in found.rows] == ["a", "b", "c"]
    assert [(d.a, d.b) for d in found.differences] == [("b", "a"), ("c", "a")]
    shifts = [d.bits_per_char for d in found.differences]
    assert shifts == pytest.approx([5 / 1000 / math.log(2), 9 / 1000 / math.log(2)])


def test_the_test_part_ranks_and_without_one_the_validation_part(blocks):
    easy, hard = score(blocks[0] - 500), score(blocks[0])
    tested = Ranking.of([outcome("a", hard, valid=easy), outcome("b", easy, valid=hard)])
    assert tested.rows[0].name == "b"
    untested = [replace(outcome(n, s), test=None) for n, s in (("a", easy), ("b", hard))]
    found = Ranking.of(untested)
    assert found.rows[0].name == "a"
    assert found.rows[0].to_json()["test"] is None


def test_seeds_of_one_name_are_one_row_with_their_means():
    a, b = score([1000.0] * 50), score([1400.0] * 50)
    row = Ranking.of([outcome("x", a), outcome("x", b, seed=1)]).rows[0].to_json()
    assert row["test"]["bits_per_char"] == pytest.approx(1.2 / math.log(2))
    assert row["test"]["perplexity"] == pytest.approx(math.exp(1.2))
    assert row["run"] is None
    assert [s["seed"] for s in row["seeds"]] == [0, 1]
    assert row["tokens_per_second"] == 500


def test_which_training_was_done_first_changes_nothing(blocks):
    hard, *noise = blocks
    found = [outcome("x", score(hard + n), seed=seed) for seed, n in enumerate(noise)]
    found += [outcome("y", score(hard + 9 + n), seed=seed) for seed, n in enumerate(noise)]
    one, other = Ranking.of(found), Ranking.of(found[::-1])
    assert [s.to_json() for s in one.rows] == [s.to_json() for s in other.rows]
    assert one.differences == other.differences


def test_the_error_of_several_seeds_holds_that_of_the_text_and_that_of_the_seeds(blocks):
    one, other = score(blocks[0]), score(blocks[0] + 100)
    text = (one.standard_error + other.standard_error) / 2
    seeds = abs(one.bits_per_char - other.bits_per_char) / 2  # std of two / sqrt(2)
    assert summary([one, other])["standard_error"] == pytest.approx(math.hypot(text, seeds))
    assert summary([one])["standard_error"] == one.standard_error


# ------------------------------------------------------------------ trainings


@pytest.fixture
def dataset(france_file):
    return load_dataset(CorpusSpec((str(france_file),), TextOptions(documents="line")), "word")


# ------------------------------------------------------------------ the optimum


@pytest.fixture
def made(france_file, dataset):
    """The same dataset with the grammar's about-file beside the text."""
    about = {"format": 1, "recipe": {"grammar": "france", "size": "small", "level": 0, "seed": 0}}
    companions(france_file)[1].write_text(json.dumps(about), encoding="utf-8")
    return dataset


def test_the_optimum_is_what_the_grammar_says_of_these_documents(made):
    row = optimum_row(made)
    grammar = France(France.Settings(size="small", level=0))
    for name, part in (("valid", made.corpus.valid), ("test", made.corpus.test)):
        lines = "".join(part.documents).splitlines()
        nats = -sum(sum(grammar.token_log_probabilities(line)) for line in lines)
        tokens = sum(len(line.split()) + 1 for line in lines)
        assert row[name]["bits_per_char"] == pytest.approx(nats / math.log(2) / part.chars)
        assert row[name]["perplexity"] == pytest.approx(math.exp(nats / tokens))
    assert (row["name"], row["parameters"], row["seeds"]) == ("optimum", None, [])


def test_no_model_is_better_than_the_optimum(made, tmp_path):
    job = prepare_job(made, "ngram", {}, Budget(steps=1), 0, "cpu")
    found = run_trial(Trial("ngram", job, tmp_path / "n", False), lambda event: None)
    assert found.test.bits_per_char > optimum_row(made)["test"]["bits_per_char"]


def test_a_text_that_no_grammar_made_or_that_was_edited_has_no_optimum(made, france_file):
    text = france_file.read_text().replace(" . ", " ! ")
    france_file.write_text(text)
    choice = CorpusSpec((str(france_file),), TextOptions(documents="line"))
    assert made_by(made) is not None
    assert optimum_row(load_dataset(choice, "word")) is None
    companions(france_file)[1].unlink()
    assert made_by(made) is None
    assert optimum_row(made) is None
