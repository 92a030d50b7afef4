"""Comparing: differences are paired, verdicts follow from intervals, one protocol for all."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

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
from lmcli.evaluation.perplexity import score_documents
from lmcli.evaluation.score import Score
from lmcli.evaluation.trial_result import TrialResult, score_parts
from lmcli.grammars.base import companions
from lmcli.grammars.france.grammar import France
from lmcli.run import TRAINING, Run
from lmcli.training import sweep
from lmcli.training.job import prepare_job
from lmcli.training.sweep import (
    RACE_RATES,
    Trial,
    learning_rate_search,
    run_trial,
    run_trials,
    share_cores,
)
from lmcli.training.trainer import Budget

SMALL = {"hidden": 8, "embedding": 8, "batch": 4, "truncation": 12}


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


def job_of(dataset, arch, steps=100, **pairs):
    return prepare_job(dataset, arch, SMALL | pairs, Budget(steps=steps), 0, "cpu")


def test_the_race_is_won_by_the_rate_with_the_least_validation_loss(dataset):
    job = job_of(dataset, "gru")
    losses = {}
    for factor in RACE_RATES:
        rate = job.training.learning_rate * factor
        alone = replace(job, training=replace(job.training, learning_rate=rate)).trainer()
        for _ in alone.run(until=0.04):
            pass
        losses[rate] = alone.measure()
    winner, spent = learning_rate_search(job)
    assert winner.settings.learning_rate == min(losses, key=losses.get)
    assert winner.measure() == pytest.approx(min(losses.values()))  # it keeps what it has learnt
    assert len(set(losses.values())) == 3
    assert spent > 0


def test_the_race_is_paid_for_out_of_the_budget(dataset):
    winner, _ = learning_rate_search(job_of(dataset, "rnn"))
    assert winner.step == 4
    assert winner.total_steps + 2 * 4 == 100
    minutes = replace(job_of(dataset, "rnn"), budget=Budget(minutes=0.05))
    winner, spent = learning_rate_search(minutes)
    assert winner.budget.minutes * 60 + spent == pytest.approx(3.0)


def test_a_learning_rate_of_zero_is_not_taken_for_none(dataset):
    winner, _ = learning_rate_search(job_of(dataset, "rnn", learning_rate=0.0))
    assert winner.settings.learning_rate == 0.0


def test_a_rate_that_explodes_loses_the_race(dataset, monkeypatch):
    monkeypatch.setattr(sweep, "RACE_RATES", (1e7, 1.0, 1e6))
    job = job_of(dataset, "gru", learning_rate=0.004, clip=0.0)
    winner, _ = learning_rate_search(job)
    assert winner.settings.learning_rate == 0.004
    assert math.isfinite(winner.measure())


def test_a_member_is_trained_scored_and_kept(dataset, tmp_path):
    member = Trial("gru", job_of(dataset, "gru"), tmp_path / "gru", learning_rate_search=True)
    *events, last = run_trial(member)
    found = last.outcome
    run = Run.open(tmp_path / "gru")
    assert events[-1].progress.done == "budget"
    assert run.record.training["learning_rate"] == found.learning_rate
    assert not (run.path / TRAINING).exists()  # nobody goes on with it
    valid, test = score_parts(run.model(), run.tokenizer, dataset)
    assert (found.valid.nats, found.test.nats) == (valid.nats, test.nats)
    pieces = score_documents(run.model(), run.tokenizer, dataset.corpus.test.documents)
    assert test.nats == pytest.approx(sum(p.nats.sum(dtype=np.float64) for p in pieces))
    assert found.parameters == run.model().parameter_count()
    assert found.tokens_seen == 4 * 12 * 92


def test_a_member_that_only_gets_worse_behind_its_race_is_kept_too(tmp_path):
    rng = np.random.default_rng(0)  # two words that never come again: all that is learnt is wrong
    (tmp_path / "words.txt").write_text("".join(rng.choice(list("abcdefgh"), 100_000)))
    dataset = load_dataset(CorpusSpec((str(tmp_path / "words.txt"),), TextOptions()), "word")
    member = Trial("gru", job_of(dataset, "gru"), tmp_path / "gru", learning_rate_search=True)
    *_, last = run_trial(member)
    losses = [
        entry["valid"]
        for entry in map(json.loads, (tmp_path / "gru" / "log.jsonl").read_text().splitlines())
        if entry["valid"] is not None
    ]
    assert losses == sorted(losses)
    assert last.outcome.valid.nats_per_token == pytest.approx(losses[0], rel=0.05)


def test_side_by_side_gives_what_one_after_the_other_gives(dataset, tmp_path):
    def outcomes(workers):
        members = [
            Trial(name, job_of(dataset, name, 25), tmp_path / f"{name}{workers}", True)
            for name in ("rnn", "gru")
        ]
        events = run_trials(members, workers)
        return {e.outcome.name: e.outcome for e in events if e.outcome}

    apart, together = outcomes(1), outcomes(2)
    assert set(apart) == set(together) == {"rnn", "gru"}
    for name, one in apart.items():
        other = together[name]
        assert one.learning_rate == other.learning_rate
        assert one.tokens_seen == other.tokens_seen
        assert one.test.nats == pytest.approx(other.test.nats, rel=1e-3)
        assert Run.open(tmp_path / f"{name}2").record.arch == name


@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_wrong_in_one_of_them_is_told_with_its_name_and_the_others_go_on(
    dataset, tmp_path, workers
):
    broken = job_of(dataset, "gru", learning_rate=1e6, clip=0.0)
    members = [
        Trial("gru", broken, tmp_path / "gru", False),
        Trial("rnn", job_of(dataset, "rnn"), tmp_path / "rnn", False),
    ]
    events = list(run_trials(members, workers))
    ((kind, problem, hint),) = [e.error for e in events if e.error]
    assert kind == "TrainingError"
    assert problem.startswith("gru: the loss")
    assert "learning_rate" in hint
    assert [e.member for e in events if e.outcome] == ["rnn"]


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_every_worker_has_a_core(workers):
    shares = share_cores(workers)
    assert len(shares) == workers
    assert all(shares)


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
    *_, last = run_trial(Trial("ngram", job_of(made, "ngram"), tmp_path / "n", False))
    assert last.outcome.test.bits_per_char > optimum_row(made)["test"]["bits_per_char"]


def test_a_text_that_no_grammar_made_or_that_was_edited_has_no_optimum(made, france_file):
    text = france_file.read_text().replace(" . ", " ! ")
    france_file.write_text(text)
    choice = CorpusSpec((str(france_file),), TextOptions(documents="line"))
    assert made_by(made) is not None
    assert optimum_row(load_dataset(choice, "word")) is None
    companions(france_file)[1].unlink()
    assert made_by(made) is None
    assert optimum_row(made) is None


def test_trainings_begin_from_the_seed_whatever_was_drawn_before(dataset):
    first = job_of(dataset, "lstm").model().tensors()
    torch.rand(100)
    for name, tensor in job_of(dataset, "lstm").model().tensors().items():
        assert torch.equal(tensor, first[name])
    other = replace(job_of(dataset, "lstm"), seed=1).model().tensors()
    assert not torch.equal(other["embed.weight"], first["embed.weight"])
