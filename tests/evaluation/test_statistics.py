"""Intervals against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.evaluation.statistics import (
    block_weights,
    half_width,
    resampled_rates,
    student_t,
    weighted_means,
    weighted_medians,
    wilson,
)


@given(count=st.integers(1, 1000), share=st.floats(0, 1))
def test_wilsons_bounds_are_where_the_share_is_just_rejected(count, share):
    right, z = round(share * count), 1.959963984540054
    low, high = wilson(right, count)
    assert 0 <= low <= right / count + 1e-12
    assert right / count - 1e-12 <= high <= 1
    for bound in (low, high):
        distance = (right / count - bound) ** 2
        assert distance == pytest.approx(z * z * bound * (1 - bound) / count, abs=1e-9)


@pytest.mark.parametrize(
    ("confidence", "degrees", "right"),
    [
        (0.95, 1, 12.7062),
        (0.99, 2, 9.9248),
        (0.95, 3, 3.1824),
        (0.95, 4, 2.7764),
        (0.9, 19, 1.7291),
        (0.95, 19, 2.0930),
        (0.999, 19, 3.8834),
        (0.95, 120, 1.9799),
    ],
)
def test_students_t_is_that_of_the_tables(confidence, degrees, right):
    assert student_t(confidence, degrees) == pytest.approx(right, abs=1e-4)


def test_95_of_100_t_intervals_hold_the_true_mean():
    values = np.random.default_rng(0).normal(3, 2, size=(5, 4000))
    inside = np.abs(values.mean(0) - 3) <= half_width(values)
    assert inside.mean() == pytest.approx(0.95, abs=0.01)


def test_replicates_of_means_and_medians_are_those_of_the_drawn_values():
    rng = np.random.default_rng(0)
    values, blocks = rng.normal(size=21), np.repeat(np.arange(7), 3)
    weights = block_weights(blocks, 0)
    for w, mean, median in zip(
        weights[:50],
        weighted_means(values, weights),
        weighted_medians(values, weights),
        strict=False,
    ):
        drawn = np.sort(np.repeat(values, w))
        assert mean == pytest.approx(drawn.mean())
        assert median == drawn[(len(drawn) - 1) // 2]


def test_the_bootstrap_of_blocks_is_the_error_of_a_ratio_of_sums():
    rng = np.random.default_rng(2)
    sizes = rng.integers(500, 1500, size=400).astype(float)
    values = 2 * sizes + rng.normal(scale=30, size=400)
    right = (values - values.sum() / sizes.sum() * sizes).std(ddof=1) * 20 / sizes.sum()
    rates = resampled_rates(values, sizes)
    assert rates.std(ddof=1) == pytest.approx(right, rel=0.1)
    assert rates.mean() == pytest.approx(values.sum() / sizes.sum(), rel=1e-3)
