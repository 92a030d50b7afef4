"""The speed of a machine: measured without a trace, and worth budget."""

import itertools
import math
import time

import numpy as np
import pytest
import torch

from lmcli.training.job import prepare_job
from lmcli.training.machine_speed import nearest_power_of_four, relative_speed, tokens_per_second
from lmcli.training.problem_size import ProblemSize, width
from lmcli.training.training_settings import Budget


def test_measuring_draws_no_random_numbers_and_keeps_the_threads():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    speed = relative_speed("cpu", 1)
    assert math.log(speed, 4) == pytest.approx(round(math.log(speed, 4)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_the_speed_is_that_of_the_median_update(job_of, monkeypatch):
    trainer = job_of("lstm").trainer()
    monkeypatch.setattr(trainer, "run", lambda: updates(trainer))
    ticks = itertools.accumulate([0.0, 9.0, 1.0, 1.0, 7.0, 1.0, 1.0])
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(ticks))
        assert tokens_per_second(trainer, 1000.0, updates=5) == 500.0
    assert trainer.tokens == 6 * 500


def updates(trainer):
    while True:
        trainer.tokens += 500
        yield


def test_noise_changes_nothing():
    assert {nearest_power_of_four(ratio) for ratio in np.linspace(0.51, 1.99)} == {1.0}


def test_minutes_on_a_machine_half_as_fast_are_worth_half():
    ids = np.zeros(1_000_000, np.int64)
    slow = ProblemSize.of(ids, 65, Budget(minutes=2), relative_speed=0.5)
    assert slow == ProblemSize.of(ids, 65, Budget(minutes=1))
    steps = [ProblemSize.of(ids, 65, Budget(steps=9), relative_speed=s) for s in (0.5, 4.0)]
    assert steps[0] == steps[1]


def test_a_slow_machine_trains_a_narrower_net_with_less_dropout(job_of):
    ids = np.zeros(1_000_000, np.int64)
    slow, fast = (ProblemSize.of(ids, 65, Budget(3.0), relative_speed=s) for s in (0.25, 1.0))
    assert width(slow) < width(fast)
    dataset = job_of("lstm").dataset
    dropout = [
        prepare_job(dataset, "lstm", {}, Budget(3.0), 0, "cpu", relative_speed=s).settings.dropout
        for s in (1e-4, 1.0)
    ]
    assert dropout[0] == 0 < dropout[1]


def test_a_training_with_one_thread_is_expected_to_read_the_text_less_often(job_of):
    dataset = job_of("lstm").dataset
    ids, vocabulary = dataset.tokenized.train, dataset.tokenized.tokenizer.size
    once = ProblemSize.of(ids, vocabulary, Budget(minutes=1e-3)).expected_epochs() * 1e3
    budget = Budget(minutes=8 / once)  # 8 passes on two cores, 4.8 on one

    def dropout(**pairs):
        return prepare_job(dataset, "lstm", pairs, budget, 0, "cpu").settings.dropout

    assert dropout(threads=1) == 0 < dropout() == dropout(threads=2)
