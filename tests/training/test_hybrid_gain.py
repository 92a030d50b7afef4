"""What an n-gram beside a network would gain: measured, and said where it is worth saying."""

import numpy as np
import pytest

from lmcli.training.hybrid_gain import Gain, measure_gain, mixed_nats


def test_a_mixture_is_better_than_both_where_each_knows_what_the_other_does_not():
    rng = np.random.default_rng(0)
    one = rng.uniform(0.5, 4, 2000).astype(np.float32)
    mixed = mixed_nats(one, one[::-1])
    assert mixed < one.mean() - 0.2
    half = -np.log(0.5 * np.exp(-one) + 0.5 * np.exp(-one[::-1])).mean()
    assert mixed == pytest.approx(half, rel=0.02)


def test_a_member_that_knows_nothing_does_no_harm():
    one = np.random.default_rng(0).uniform(0.5, 4, 2000)
    assert mixed_nats(one, np.full(2000, 9.0)) == pytest.approx(one.mean(), rel=0.005)


def test_it_is_said_that_a_text_is_too_small_for_a_network():
    said = Gain(network=2.0, counts=1.9, mixed=1.8).sentence()
    assert "too small for a network" in said
    assert all(figure in said for figure in ("2.0000", "1.9000", "1.8000", "--arch hybrid"))


def test_a_gain_is_said_from_one_percent_on():
    assert "about 1.9700 nats" in Gain(2.0, 2.1, 1.97).sentence()
    assert Gain(2.0, 2.1, 1.99).sentence() is None


def test_an_untrained_network_is_compared_with_counts(job_of):
    job = job_of("lstm")
    found = measure_gain(job.dataset, job.model())
    assert found.counts < 0.7 * found.network
    assert found.mixed <= found.counts + 0.01


@pytest.mark.parametrize("arch", ["ngram", "hybrid"])
def test_nothing_is_measured_of_a_model_that_counts(job_of, arch):
    job = job_of(arch)
    assert measure_gain(job.dataset, job.model()) is None
