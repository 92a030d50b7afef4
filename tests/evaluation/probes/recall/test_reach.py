"""Reach and intervals on simulated items, where the truth is known."""

import numpy as np
import pytest

from lmcli.evaluation.probes.recall.reach import (
    Bucket,
    Evidence,
    buckets_of,
    measure,
    measure_placebo,
    reach_of,
    share_interval,
    stretch_mean,
    stretches,
)
from lmcli.evaluation.statistics import wilson

CHANCE = 0.2
FEWEST = 30
TIMES = 100


def gaps_between(rng, low, high, count):
    """Gaps that are log-uniform."""
    return np.floor(np.exp(rng.uniform(np.log(low), np.log(high + 1), count))).astype(np.int64)


def items(rng, gaps, memory, strength=1.0):
    """Items of a model that remembers up to `memory` tokens; stretches have a luck of their own."""
    count = len(gaps)
    stretch = rng.integers(0, 20, count)
    luck = rng.normal(0, 0.3, 20)[stretch]
    knows = strength * (gaps <= memory)
    nothing = np.zeros(count)
    return Evidence(
        gaps=gaps,
        stretch=stretch,
        balanced=np.ones(count, bool),
        right=nothing,
        amnesic_right=nothing,
        u=nothing - np.log(5),
        gain=knows * rng.exponential(0.8, count) + rng.normal(0, 0.6, count) + luck / 2,
        log_odds=knows * rng.exponential(1.5, count) + rng.normal(0, 1, count) + luck,
        placebo=rng.normal(0, 1, count) + luck,
        words=gaps,
        echo=np.zeros(count, bool),
    )


def reach(evidence, fewest=FEWEST):
    buckets = buckets_of(evidence.gaps, fewest)
    return reach_of([measure(evidence, bucket, CHANCE) for bucket in buckets])


def simulated(memory, *parts):
    """The evidence of each simulation; a part is (low, high, count) of its gaps."""
    for seed in range(TIMES):
        rng = np.random.default_rng(seed)
        yield items(rng, np.concatenate([gaps_between(rng, *part) for part in parts]), memory)


@pytest.mark.parametrize("beyond", [20, 300])
def test_a_memory_of_64_tokens_is_not_said_to_reach_further(beyond):
    parts = (1, 64, 180), (65, 1372, beyond)
    reached = [reach(e)["tokens"] for e in simulated(64, *parts)]
    assert np.mean(np.array(reached) <= 64) >= 0.975


def test_a_few_items_show_no_reach_beyond_the_memory():
    reached = {reach(e)["tokens"] for e in simulated(8, (1, 200, 26))}
    assert reached == {None}
    assert all((reach(e, 20)["tokens"] or 0) <= 8 for e in simulated(8, (1, 200, 26)))


@pytest.mark.parametrize("memory", [64, 10**6])
def test_a_true_memory_is_found(memory):
    """The largest reach that the buckets can state, in 95 % of simulations."""
    found = 0
    for evidence in simulated(memory, (1, 2000, 600)):
        buckets = [b for b in buckets_of(evidence.gaps, FEWEST) if b.enough]
        known = [b for b in buckets if evidence.gaps[b.items].max() <= memory]
        found += reach(evidence)["tokens"] == evidence.gaps[known[-1].items].min()
    assert found / TIMES >= 0.95


def test_without_memory_there_is_no_reach():
    reached = [reach(e)["tokens"] for e in simulated(0, (1, 2000, 600))]
    assert np.mean(np.array(reached) == 0) >= 0.975


def test_the_interval_of_a_placebo_holds_0_in_95_percent():
    rows = [measure_placebo(e) for e in simulated(64, (1, 2000, 600))]
    assert np.mean([row["log_odds_low"] <= 0 <= row["log_odds_high"] for row in rows]) >= 0.92


def test_small_buckets_join_the_next_farther_one_and_the_rest_is_not_measured():
    gaps = np.array([1] * 5 + [10] * 30 + [20] * 40 + [40] * 3)
    found = [(b.low, b.high, len(b.items), b.enough) for b in buckets_of(gaps, 30)]
    assert found == [(1, 16, 35, True), (17, 32, 40, True), (33, 64, 3, False)]


def test_reach_is_the_smallest_gap_of_the_last_bucket_before_one_without_memory():
    def row(shortest, gain, odds=0.1, measured=True):
        limits = {"gain_low": gain, "log_odds_low": odds}
        return {"shortest": shortest, "measured": measured, **limits}

    rows = [row(2, 0.1), row(9, 0.1), row(17, -0.1), row(40, 0.1)]
    assert reach_of(rows) == {"tokens": 9, "at_least": False}
    assert reach_of(rows[:2]) == {"tokens": 9, "at_least": True}
    assert reach_of(rows[2:]) == {"tokens": 0, "at_least": False}
    assert reach_of([row(2, 0.1), row(9, 0.1, -0.1)])["tokens"] == 2
    assert reach_of([row(2, None, None, False)]) == {"tokens": None, "at_least": False}


def test_from_fewer_than_eight_stretches_there_is_no_interval():
    values, stretch = np.arange(70.0), np.repeat(np.arange(7), 10)
    assert stretch_mean(values, stretch)[0] == 34.5
    assert np.isnan(stretch_mean(values, stretch)[1])
    assert share_interval(values % 2, stretch) == (0.5, None)


def test_the_interval_of_independent_values_is_that_of_student():
    values = np.random.default_rng(0).normal(size=20)
    mean, half = stretch_mean(values, np.arange(20))
    assert half == pytest.approx(2.0930 * values.std(ddof=1) / 20**0.5, rel=1e-4)
    assert mean == pytest.approx(values.mean())


def test_items_that_are_alike_within_a_stretch_widen_the_interval_of_a_share():
    stretch = np.repeat(np.arange(20), 10)
    alike = np.repeat(np.arange(20) % 2, 10).astype(float)
    mean, (low, high) = share_interval(alike, stretch)
    assert mean == 0.5
    assert (low, high) == pytest.approx(wilson(9.5, 19), abs=1e-9)  # n - 1: one worth per stretch
    apart = np.tile([0.0, 1.0], 100)
    assert share_interval(apart, stretch)[1] == wilson(100, 200)


def test_stretches_have_equal_length_and_are_not_shorter_than_a_thousand_characters():
    assert stretches(np.array([0, 2_999, 3_000, 59_999]), 60_000).tolist() == [0, 0, 1, 19]
    assert stretches(np.array([0, 4_999]), 5_000).tolist() == [0, 4]
    assert stretches(np.array([0, 400]), 500).tolist() == [0, 0]


def test_retained_information_is_1_where_all_is_known_and_0_where_nothing_is():
    evidence = items(np.random.default_rng(0), np.full(40, 9), 0)
    bucket = Bucket(9, 16, np.arange(40))
    assert measure(evidence, bucket, CHANCE)["retained"] == pytest.approx(0.0)
    evidence.u[:] = 0.0
    assert measure(evidence, bucket, CHANCE)["retained"] == 1.0
