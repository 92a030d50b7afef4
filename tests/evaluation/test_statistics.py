"""Intervals against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcli.evaluation.statistics import (
    STRETCHES,
    Estimate,
    against_best,
    block_weights,
    half_width,
    paired_rates,
    stretch_variance,
    student_p,
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
        (0.95, 1.5, 6.0167),
        (0.99, 7.3, 3.4510),
        (0.95, 1e6, 1.9600),
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


@pytest.mark.parametrize(
    ("t", "degrees", "right"),
    [(2.0, 1.5, 0.224188), (-3.1, 4.7, 0.029166), (12, 3, 0.001245), (2.2, 300, 0.028569)],
)
def test_p_of_students_t_is_that_of_the_tables(t, degrees, right):
    assert student_p(t, degrees) == pytest.approx(right, abs=1e-6)
    assert student_p(0.0, degrees) == pytest.approx(1)
    assert student_p(np.inf, degrees) == 0


def test_the_bootstrap_of_blocks_is_the_error_of_a_ratio_of_sums():
    rng = np.random.default_rng(2)
    sizes = rng.integers(500, 1500, size=400).astype(float)
    values = 2 * sizes + rng.normal(scale=30, size=400)
    right = (values - values.sum() / sizes.sum() * sizes).std(ddof=1) * 20 / sizes.sum()
    rates, same = paired_rates(values, values, sizes)
    assert (rates == same).all()
    assert rates.std(ddof=1) == pytest.approx(right, rel=0.1)
    assert rates.mean() == pytest.approx(values.sum() / sizes.sum(), rel=1e-3)


# ------------------------------------------------------------------ several sources of error


def test_the_variance_over_stretches_is_that_of_a_ratio_of_sums():
    rng = np.random.default_rng(4)
    sizes = rng.integers(900, 1100, size=400).astype(float)
    values = 2 * sizes + rng.normal(scale=30, size=(500, 400))
    variances = stretch_variance(values, sizes)
    assert variances.shape == (500,)
    assert variances.mean() == pytest.approx((30 * 20 / sizes.sum()) ** 2, rel=0.05)
    spread = variances.std() / variances.mean()
    assert spread == pytest.approx((2 / (STRETCHES - 1)) ** 0.5, rel=0.1)  # of 19 degrees


def test_few_blocks_are_stretches_of_their_own_and_one_has_no_variance():
    values = np.array([2.0, 4.0, 9.0])
    assert stretch_variance(values, np.ones(3)) == pytest.approx(values.var(ddof=1) / 3)
    assert np.isnan(stretch_variance(values[:1], np.ones(1)))


def test_stretches_see_what_neighbouring_blocks_have_in_common():
    long = np.repeat(np.random.default_rng(5).normal(size=(500, 20)), 20, axis=1)
    found = stretch_variance(long, np.ones(400)).mean()
    assert found == pytest.approx(1 / 20, rel=0.1)  # as if independent: 1 / 400


def test_variances_add_up_and_one_term_keeps_its_degrees():
    one, nine = (np.array(1.0), np.array(4.0)), (np.array(9.0), np.array(9.0))
    both = Estimate.of(np.array(2.0), [one, nine])
    assert both.error**2 == pytest.approx(10)
    assert both.degrees == pytest.approx(100 / (1 / 4 + 81 / 9))
    assert Estimate.of(np.array(2.0), [nine]).degrees == pytest.approx(9)
    assert both.half_width() == pytest.approx(student_t(0.95, both.degrees) * 10**0.5)
    assert Estimate.of(np.array(2.0), [(np.array(0.0), np.array(1.0))]).p() == 0


def test_each_p_counts_for_the_pairs_of_rows_that_are_left():
    found = against_best(np.array([[0.9, 0.001, 0.01, 0.012], [0.01, 0.01, 0.01, np.nan]]))
    assert found[0] == pytest.approx([0.9, 0.01, 0.06, 0.06])  # 10, 6, 3 and 1 pairs
    assert found[1][:3] == pytest.approx([0.1, 0.1, 0.1])
    assert np.isnan(found[1][3])
    assert against_best(np.array([0.04])) == pytest.approx([0.04])
