"""The search for a learning rate: short trainings that are annealed, paid for out of the budget."""

import math
from dataclasses import replace

import pytest
import torch

from lmcli.training import lr_search
from lmcli.training.lr_search import (
    FIRST_ROUND,
    MEMORISED_SCALE,
    RACE_FACTORS,
    SECOND_ROUND,
    TRIAL_SCALE,
    learning_rate_search,
)
from lmcli.training.training_settings import Budget


@pytest.fixture
def few_epochs(monkeypatch):
    """No training reads its text too often for large rates."""
    monkeypatch.setattr(lr_search, "FEW_EPOCHS", math.inf)


@pytest.fixture
def search():
    """The search alone, without a name and a callback."""
    return lambda job: learning_rate_search(job, "gru", lambda event: None)


def annealed(job, factor, until=FIRST_ROUND, scale=TRIAL_SCALE):
    """The loss after a training to the end of the first round, whose last third falls to 0.

    It is with `scale` times the rate that it stands for.
    """
    rate = job.training.learning_rate * factor
    trainer = replace(job, training=replace(job.training, learning_rate=rate)).trainer()
    trainer.rate_factor = scale
    for progress in trainer.run(until):
        trainer.rate_factor = scale * min(1.0, 3 * (until - progress.fraction) / until)
    return trainer.validate()


def test_the_two_best_of_three_annealed_rates_go_on_with_one_beyond_and_the_best_is_taken(
    job_of, search, few_epochs
):
    job = job_of("gru", 300, curriculum=0.0)
    found = search(job)
    first = {factor: annealed(job, factor) for factor in RACE_FACTORS}
    trials = {round(e["rate"] / job.training.learning_rate, 6): e for e in found.race}
    assert set(trials) >= set(first)
    short = {f: e["loss"] for f, e in trials.items() if e["share"] == FIRST_ROUND}
    for factor, loss in short.items():
        if factor in first:
            assert loss == pytest.approx(first[factor])
    long = {f: e["loss"] for f, e in trials.items() if e["share"] == SECOND_ROUND}
    two = sorted(first, key=first.get)[:2]
    better, other = sorted(two, key=long.get)
    assert set(long) == {*two, better * 2 if better > other else better / 2}
    best = min(long, key=long.get)
    assert found.trainer.settings.learning_rate == pytest.approx(trials[best]["rate"])
    assert found.trainer.validate() == pytest.approx(long[best])  # it keeps what it has learnt
    assert found.trainer.rate_factor == 1.0


def test_a_step_beyond_is_tried_on_the_side_of_the_better_one(job_of, search, few_epochs):
    usual = job_of("gru", 300).training.learning_rate
    low = search(job_of("gru", 300, learning_rate=usual / 50)).race
    assert [round(e["rate"] / usual * 50, 3) for e in low] == [0.5, 1, 2, 4]
    high = search(job_of("gru", 300, learning_rate=usual * 100)).race
    assert [round(e["rate"] / usual / 100, 3) for e in high] == [0.25, 0.5, 1, 2]
    for race in (low, high):
        assert len([e for e in race if e["share"] == SECOND_ROUND]) == 3


def test_a_trial_stands_for_a_quarter_of_its_rate_where_the_text_will_be_memorised(
    job_of, search, monkeypatch
):
    job = job_of("gru", 300, curriculum=0.0)
    usual, epochs = job.training.learning_rate, 300 / job.trainer().streams.steps_per_epoch
    types = job.vocabulary / len(job.dataset.tokenized.train)
    cases = {(0.9, 0.9): MEMORISED_SCALE, (1.1, 0.9): TRIAL_SCALE, (0.9, 1.1): TRIAL_SCALE}
    for (more_epochs, more_types), scale in cases.items():
        monkeypatch.setattr(lr_search, "FEW_EPOCHS", more_epochs * epochs)
        monkeypatch.setattr(lr_search, "FEW_TYPES", more_types * types)
        found = search(job)
        trials = {round(e["rate"] / usual, 6): e for e in found.race}
        assert set(trials) >= set(RACE_FACTORS)
        for factor, entry in trials.items():
            if entry["share"] == FIRST_ROUND:
                assert entry["loss"] == pytest.approx(annealed(job, factor, scale=scale))
        best = min((e for e in found.race if e["share"] == SECOND_ROUND), key=lambda e: e["loss"])
        assert found.trainer.settings.learning_rate == pytest.approx(best["rate"])
        assert found.trainer.validate() == pytest.approx(best["loss"])


def test_the_search_is_paid_for_out_of_the_budget(job_of, search):
    found = search(job_of("rnn", 1000, curriculum=0.0))
    shares = sum(e["share"] for e in found.race)
    assert found.trainer.step == 90
    assert found.trainer.total_steps == pytest.approx(1000 * (1 - shares + SECOND_ROUND), abs=1)
    for curriculum in (0.0, 0.6):
        job = replace(job_of("rnn", curriculum=curriculum), budget=Budget(minutes=0.05))
        found = search(job)
        assert found.trainer.budget.minutes * 60 + found.seconds == pytest.approx(3.0)


def test_trials_read_the_whole_text_and_a_curriculum_begins_with_nothing_learnt(job_of, search):
    job = job_of("gru", 300, curriculum=0.6)
    found, untrained = search(job), job.trainer()
    assert found.trainer.step == 0
    assert found.trainer.settings.curriculum == 0.6
    assert found.trainer.batches.ends == untrained.batches.ends
    learnt, begin = found.trainer.model.tensors(), untrained.model.tensors()
    assert all(torch.equal(learnt[name], begin[name]) for name in begin)
    used = sum(e["share"] for e in found.race)
    assert found.trainer.total_steps == round(300 * (1 - used))
    tokens_per_step = job.training.batch * job.training.truncation
    assert found.tokens == pytest.approx(300 * used * tokens_per_step, rel=0.05)
    plain = search(job_of("gru", 300, curriculum=0.0))
    assert [e["loss"] for e in found.race] == [e["loss"] for e in plain.race]
    assert plain.trainer.step > 0


def test_what_a_hybrid_has_counted_is_the_loss_to_beat_after_its_search(job_of, search):
    job = job_of("hybrid", curriculum=0.0)
    begun, found = job.trainer(), search(job)
    assert found.trainer.step > 0
    loss, weights = found.counted
    counted = begun.model.tensors()
    assert loss == begun.validate()
    assert set(weights) == set(counted)
    assert all(torch.equal(weights[name], counted[name]) for name in counted)
    assert search(job_of("gru", curriculum=0.0)).counted is None
    assert search(job_of("hybrid", curriculum=0.6)).counted is None  # it begins at step 0


def test_a_learning_rate_of_zero_is_not_taken_for_none(job_of, search):
    found = search(job_of("rnn", learning_rate=0.0))
    assert found.trainer.settings.learning_rate == 0.0


def test_a_rate_that_explodes_is_not_taken(job_of, search, monkeypatch, few_epochs):
    monkeypatch.setattr(lr_search, "RACE_FACTORS", (1.0, 1e6, 1e7))
    found = search(job_of("gru", learning_rate=0.004, clip=0.0))
    assert found.trainer.settings.learning_rate <= 0.004
    assert math.isfinite(found.trainer.validate())
    assert found.race[-1]["loss"] is None  # JSON has no infinity


def test_the_callback_hears_of_all(job_of):
    events = []
    found = learning_rate_search(job_of("rnn", 300), "rnn#1", events.append)
    assert {event.name for event in events} == {"rnn#1"}
    assert len(events) == sum(round(300 * e["share"]) for e in found.race)
