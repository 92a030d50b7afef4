"""Seeds on splits of their own: paired by split, moderated, and how often a verdict is wrong."""

import math

import numpy as np
import pytest

from lmcli.evaluation.differences import Member, differences_to_best
from lmcli.evaluation.split_differences import (
    FAR_ABOVE,
    differences_over_splits,
    paired_estimates,
    splits_error,
)
from lmcli.evaluation.statistics import against_best, stretch_variance, student_t

CHARS = np.full(40, 1000.0)


def member(name, rate, seeds=1, noise=0.0, seed=0):
    """Seeds of this rate on 40 blocks."""
    apart = np.random.default_rng(seed).normal(0, 1, 40) * noise
    return Member(name, np.tile(1000 * (rate + apart - apart.mean()), (seeds, 1)), CHARS)


def row(name, *rates, first=0, **options):
    """A seed on each split."""
    return {
        split: member(name, rate, seed=split, **options) for split, rate in enumerate(rates, first)
    }


def test_two_rows_are_compared_by_a_paired_t_over_splits():
    hard = np.array([0.0, 0.4, -0.2])  # one split is harder than another, for both
    a, b = 2.0 + hard + [0.05, 0.07, 0.03], 2.0 + hard + [0.0, 0.01, -0.01]
    (found,) = differences_over_splits([row("b", *b), row("a", *a)])
    apart = a - b
    error = apart.std(ddof=1) / math.sqrt(3)
    assert found.bits_per_char == pytest.approx(0.05)
    assert found.high - found.bits_per_char == pytest.approx(student_t(0.95, 2) * error)
    assert (found.degrees, found.paired_splits, found.scope) == (2, 3, "architecture")
    assert found.seed_deviation == pytest.approx(apart.std(ddof=1) / math.sqrt(2))
    assert found.seed_errors is None
    assert found.verdict == "worse"


def test_of_three_rows_a_variance_is_averaged_with_the_middle_one_of_all_pairs():
    rates = np.array([[2.0, 2.0, 2.0], [2.10, 2.11, 2.12], [2.20, 2.24, 2.22]])
    pairs = [(rates[i] - rates[j]).var(ddof=1) for i, j in ((0, 1), (0, 2), (1, 2))]
    middle = np.median(pairs) / (1 - 2 / 18) ** 3
    found = paired_estimates(rates)
    expected = [(2 * middle + 2 * variance) / 4 / 3 for variance in pairs[:2]]
    assert (found.error**2).tolist() == pytest.approx(expected)
    assert found.degrees.tolist() == [4, 4]  # (3 - 2) rows x 2 of the prior, 2 of its own


def test_a_variance_far_above_the_middle_one_stands_for_itself():
    rates = np.array(
        [[2.0, 2.0, 2], [2.1, 2.1, 2.11], [2.2, 2.2, 2.19], [2.3, 2.3, 2.31], [3, 4, 5]]
    )
    found = paired_estimates(rates)
    own = (rates[4] - rates[0]).var(ddof=1)
    assert found.error[3] ** 2 == pytest.approx(own / 3)
    assert found.degrees[3] == 2
    assert found.degrees[0] == 5
    assert FAR_ABOVE > 1


def test_what_holds_for_these_runs_has_the_error_of_the_text_of_each_split():
    a, b = row("a", 2.1, 2.1, noise=0.2), row("b", 2.0, 2.0)
    (found,) = differences_over_splits([b, a])
    variances = [stretch_variance(a[s].bits[0] - b[s].bits[0], CHARS) for s in (0, 1)]
    assert found.text_error == pytest.approx(math.sqrt(sum(variances)) / 2)
    assert found.run_high - found.run_low == pytest.approx(
        2 * student_t(0.95, sum(variances) ** 2 / sum(v * v / 19 for v in variances))
        * found.text_error
    )  # fmt: skip


def test_on_one_split_nothing_changes():
    members = [member("b", 2.0, 3, noise=0.1), member("a", 2.1, 2, noise=0.2, seed=1)]
    assert differences_over_splits([{4: m} for m in members]) == differences_to_best(members)


def test_a_row_that_shares_one_split_is_compared_there():
    rows = [row("b", 2.0, 2.3, 2.6), row("a", 2.1, 2.4, 2.7), {1: member("run", 2.5)}]
    first, single = differences_over_splits(rows)
    assert first.paired_splits == 3
    assert single.bits_per_char == pytest.approx(0.2)  # 2.5 - 2.3, not 2.5 - 2.3 on average
    assert (single.paired_splits, single.scope) == (0, "run")


def test_rows_without_a_common_split_are_not_told_apart():
    (found,) = differences_over_splits([row("b", 2.0), row("a", 3.0, first=1)])
    assert math.isnan(found.low)
    assert found.verdict == "no detectable difference"


def test_splits_that_a_training_failed_on_are_left_out_for_all():
    rows = [row("b", 2.0, 2.1, 2.2), row("a", 2.1, 2.2, 2.3), row("c", 2.3, 2.45)]
    found = differences_over_splits(rows)
    assert [d.paired_splits for d in found] == [2, 2]


def test_the_error_of_a_row_is_that_of_its_mean_over_splits():
    assert splits_error(row("a", 2.0, 2.2, 2.4)) == pytest.approx(0.2 / math.sqrt(3))
    one = member("a", 2.0, 2, noise=0.1)
    assert splits_error({0: one}) == one.error()


# ------------------------------------------------------------------ how often a verdict is wrong


def simulated(rng, deviations, splits, ratio, repetitions=800, apart=0.0):
    """Bits per character of rows that differ by chance alone; all but the first worse by `apart`.

    A split is hard or easy for all; `ratio`: deviation of a seed / that of a difference by text.
    """
    deviations = np.asarray(deviations, float)
    text = deviations.min() / ratio
    rates = rng.normal(0, 1, (repetitions, len(deviations), splits))
    rates *= np.sqrt(deviations**2 + text**2 / 2)[:, None]
    error = math.sqrt((2 * deviations[0] ** 2 + text**2) / splits)
    rates[:, 1:] += apart * error
    rates += rng.normal(0, 5, (repetitions, 1, splits))
    order = rates.mean(-1).argsort(1)
    return np.take_along_axis(rates, order[:, :, None], 1)


def told_apart(rates):
    """For each repetition and each row but the best, whether it is called worse."""
    return against_best(paired_estimates(rates).p()) < 0.05


@pytest.mark.parametrize("splits", [2, 3, 5])
@pytest.mark.parametrize("ratio", [0.2, 1, 5])
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_equal_rows_are_told_apart_in_at_most_7_of_100_comparisons(count, splits, ratio):
    rates = simulated(np.random.default_rng(0), [1.0] * count, splits, ratio)
    assert told_apart(rates).any(-1).mean() <= 0.07


@pytest.mark.parametrize("splits", [2, 3, 5])
def test_and_where_one_row_has_five_times_the_deviation_of_the_others(splits):
    for count in (2, 3, 5, 9):
        rates = simulated(np.random.default_rng(1), [1.0] * (count - 1) + [5.0], splits, 2.0, 3000)
        assert told_apart(rates).any(-1).mean() <= 0.07


@pytest.mark.parametrize("splits", [2, 3, 5])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_intervals_hold_the_truth_in_at_least_90_of_100(count, splits):
    rates = simulated(np.random.default_rng(2), [1.0] * count, splits, 1.0)
    assert (paired_estimates(rates).p() > 0.05).mean() >= 0.9  # the interval holds 0


def test_what_three_rows_or_more_gain():
    """Of five rows, three splits, differences of 6 errors: 9 of 10 are found, else 3 of 10."""
    rates = simulated(np.random.default_rng(3), [1.0] * 5, 3, 1.0, apart=6)
    assert told_apart(rates).mean() >= 0.85
    alone = paired_estimates(rates[:, [0, 1]])
    assert (alone.p() * 10 < 0.05).mean() <= 0.4


@pytest.mark.parametrize("count", [3, 5])
def test_a_difference_of_three_errors_is_found_with_five_splits_in_an_interval(count):
    rates = simulated(np.random.default_rng(4), [1.0] * count, 5, 1.0, apart=3)
    assert (paired_estimates(rates).p() < 0.05).mean() >= 0.7
