"""The speed of a machine: measured without a trace, and worth budget."""

import itertools
import math
import time

import numpy as np
import pytest
import torch

from lmcli import api
from lmcli.training import job
from lmcli.training import machine_speed as module
from lmcli.training.job import prepare_job
from lmcli.training.machine_speed import machine_speed, nearest_power, tokens_per_second
from lmcli.training.problem_size import TOKENS_PER_SECOND, MachineSpeed, ProblemSize, width
from lmcli.training.training_settings import Budget


def test_measuring_draws_no_random_numbers_and_keeps_the_threads():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    speed = machine_speed("cpu", 1)
    assert math.log(speed.relative, 4) == pytest.approx(round(math.log(speed.relative, 4)))
    steps = 2 * math.log2(speed.tokens_per_second / TOKENS_PER_SECOND)
    assert steps == pytest.approx(round(steps))
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
    assert {nearest_power(ratio, 4) for ratio in np.linspace(0.51, 1.99)} == {1.0}


@pytest.mark.parametrize(
    ("threads", "measured", "relative", "tokens"),
    [(1, 1.05e5, 1.0, 84_853), (1, 3.5e4, 0.25, 30_000), (2, 1.25e5, 1.0, 120_000)],
)
def test_a_speed_is_relative_and_in_tokens_a_second(
    threads, measured, relative, tokens, monkeypatch
):
    """By hand: 0.85 of what updates alone reach, in steps of the root of two from 120,000."""
    monkeypatch.setattr(module, "tokens_per_second", lambda *_: measured)
    module._measured.cache_clear()
    speed = machine_speed("cpu", threads)
    module._measured.cache_clear()
    assert (speed.relative, round(speed.tokens_per_second)) == (relative, tokens)


def test_minutes_on_a_machine_half_as_fast_are_worth_half():
    ids = np.zeros(1_000_000, np.int64)
    slow = ProblemSize.of(ids, 65, Budget(minutes=2), speed=MachineSpeed(0.5))
    assert slow == ProblemSize.of(ids, 65, Budget(minutes=1))
    steps = [ProblemSize.of(ids, 65, Budget(steps=9), speed=MachineSpeed(s)) for s in (0.5, 4.0)]
    assert steps[0] == steps[1]


def test_the_passes_expected_are_those_of_the_measured_speed():
    """By hand: 30,000 tokens a second for 354 s, of a million tokens, at width 320."""
    ids, budget = np.zeros(1_000_000, np.int64), Budget(minutes=5.9)
    measured = ProblemSize.of(ids, 65, budget, speed=MachineSpeed(0.25, 3e4), cores=1)
    assert width(measured) == 320
    assert measured.expected_epochs() == pytest.approx(10.62 / (320 / 256) ** 1.5)
    assumed = ProblemSize.of(ids, 65, budget, speed=MachineSpeed(0.25), cores=1)
    assert assumed.expected_epochs() == pytest.approx(0.6 * measured.expected_epochs())


def test_a_training_whose_threads_are_given_is_measured_with_as_many(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(job, "machine_speed", lambda *of: asked.append(of) or MachineSpeed())
    (tmp_path / "text.txt").write_text("a few words of a line\n" * 1000)
    settings = {"threads": 1, "hidden": 8}
    options = {"minutes": 0.001, "device": "cpu", "output": tmp_path / "run"}
    api.train(str(tmp_path / "text.txt"), settings=settings, **options)
    assert asked == [("cpu", 1)]


def test_a_slow_machine_trains_a_narrower_net_with_less_dropout(job_of):
    ids = np.zeros(1_000_000, np.int64)
    slow, fast = (ProblemSize.of(ids, 65, Budget(3.0), speed=MachineSpeed(s)) for s in (0.25, 1.0))
    assert width(slow) < width(fast)
    dataset = job_of("lstm").dataset
    dropout = [
        prepare_job(dataset, "lstm", {}, Budget(3.0), 0, "cpu", speed=speed).settings.dropout
        for speed in (MachineSpeed(1e-4), MachineSpeed())
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
