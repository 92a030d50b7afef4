"""The search for a learning rate: the best of three, paid for out of the budget."""

import math
from dataclasses import replace

import pytest

from lmcli.training import lr_search
from lmcli.training.defaults import Budget
from lmcli.training.lr_search import RACE_RATES, learning_rate_search


@pytest.fixture
def search():
    """The search alone, without a name and a callback."""
    return lambda job: learning_rate_search(job, "gru", lambda event: None)


def test_the_rate_with_the_least_validation_loss_is_taken(job_of, search):
    job = job_of("gru")
    losses = {}
    for factor in RACE_RATES:
        rate = job.training.learning_rate * factor
        alone = replace(job, training=replace(job.training, learning_rate=rate)).trainer()
        for _ in alone.run(until=0.04):
            pass
        losses[rate] = alone.validate()
    best, (tokens, seconds) = search(job)
    assert best.settings.learning_rate == min(losses, key=losses.get)
    assert best.validate() == pytest.approx(min(losses.values()))  # it keeps what it has learnt
    assert len(set(losses.values())) == 3
    assert tokens == 2 * 4 * 4 * 12  # two others, 4 steps of 4 rows of 12
    assert seconds > 0


def test_the_search_is_paid_for_out_of_the_budget(job_of, search):
    best, _ = search(job_of("rnn"))
    assert best.step == 4
    assert best.total_steps + 2 * 4 == 100
    best, (_, seconds) = search(replace(job_of("rnn"), budget=Budget(minutes=0.05)))
    assert best.budget.minutes * 60 + seconds == pytest.approx(3.0)


def test_a_learning_rate_of_zero_is_not_taken_for_none(job_of, search):
    best, _ = search(job_of("rnn", learning_rate=0.0))
    assert best.settings.learning_rate == 0.0


def test_a_rate_that_explodes_is_not_taken(job_of, search, monkeypatch):
    monkeypatch.setattr(lr_search, "RACE_RATES", (1e7, 1.0, 1e6))
    best, _ = search(job_of("gru", learning_rate=0.004, clip=0.0))
    assert best.settings.learning_rate == 0.004
    assert math.isfinite(best.validate())


def test_the_callback_hears_of_all_three(job_of):
    events = []
    learning_rate_search(job_of("rnn"), "rnn#1", events.append)
    assert {event.name for event in events} == {"rnn#1"}
    assert len(events) == 3 * 4
