"""Verdicts hold for other seeds and another text: known answers, and how often they are wrong."""

import math

import numpy as np
import pytest

from lmcli.evaluation.differences import (
    ASSUMED_DEVIATION,
    Member,
    Pair,
    differences_to_best,
    seed_variances,
    word_for_best,
)
from lmcli.evaluation.statistics import STRETCHES, against_best, stretch_variance, student_t

CHARS = np.full(400, 1000.0)


def member(name, *rates, noise=0.0, counts=False, seed=0):
    """Seeds of these bits per character, on 400 blocks whose noise the seeds share."""
    apart = np.random.default_rng(seed).normal(0, 1, 400) * noise
    bits = np.stack([1000 * (rate + apart - apart.mean()) for rate in rates])
    return Member(name, bits, CHARS, counts)


def difference(a, b):
    (found,) = differences_to_best([b, a])
    return found


# ------------------------------------------------------------------ one difference


def test_the_text_is_paired_and_its_error_is_that_of_the_stretches():
    hard = np.random.default_rng(0).normal(2000, 500, 400)
    one, other = (np.random.default_rng(i).normal(0, 20, 400) for i in (1, 2))
    a = Member("a", (hard + one + 10)[None], CHARS, is_count_based=True)
    b = Member("b", (hard + other)[None], CHARS, is_count_based=True)
    found = difference(a, b)
    apart = ((one + 10 - other) / 1000).reshape(STRETCHES, -1).mean(1)
    error = apart.std(ddof=1) / math.sqrt(STRETCHES)
    assert found.bits_per_char == pytest.approx(apart.mean())
    assert found.text_error == pytest.approx(error)
    assert found.high - found.bits_per_char == pytest.approx(2.0930 * error, rel=1e-4)
    assert (found.low, found.high) == (found.run_low, found.run_high)
    assert (found.a, found.b, found.verdict) == ("a", "b", "worse")
    assert (found.scope, found.seed_deviation, found.degrees) == ("architecture", 0, 19)
    assert found.text_error < 0.2 * min(a.error(), b.error())  # what is hard is hard for both


def test_turned_around_a_difference_changes_its_sign():
    a, b = member("a", 2.1, 2.2, 2.12), member("b", 2.0, 2.01, noise=0.1)
    there, back = difference(a, b), difference(b, a)
    assert there.bits_per_char == pytest.approx(-back.bits_per_char)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (there.verdict, back.verdict) == ("worse", "better")


def test_a_model_does_not_differ_from_itself():
    counted = member("n", 2.0, noise=0.1, counts=True)
    found = difference(counted, counted)
    assert (found.bits_per_char, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.verdict == "no detectable difference"
    assert found.in_words() == "best or tied (+0.0000 ± 0.0000)"


def test_seeds_have_the_error_and_the_degrees_of_welch_and_satterthwaite():
    a, b = member("a", 2.0, 2.1, 2.3, 2.2, noise=0.2), member("b", 2.0, 1.96, 2.02, seed=1)
    found = difference(a, b)
    text = float(stretch_variance((a.bits.mean(0) - b.bits.mean(0)), CHARS))
    terms = [(text, 19), (a.rates.var(ddof=1) / 4, 3), (b.rates.var(ddof=1) / 3, 2)]
    total = sum(v for v, _ in terms)
    degrees = total**2 / sum(v * v / df for v, df in terms)
    assert found.degrees == pytest.approx(degrees)
    assert found.high - found.low == pytest.approx(2 * student_t(0.95, degrees) * math.sqrt(total))
    assert found.text_error == pytest.approx(math.sqrt(text))
    assert found.seed_errors == pytest.approx([math.sqrt(v) for v, _ in terms[1:]])
    assert found.seed_deviation**2 == pytest.approx((4 * terms[1][0] + 3 * terms[2][0]) / 2)
    assert found.scope == "architecture"


def test_a_model_that_counts_has_no_error_of_its_seed():
    counted, trained = member("n", 2.0, counts=True), member("x", 2.1, 2.2, 2.3)
    zero, own = seed_variances([counted, trained])
    assert (float(zero.variance), zero.is_own) == (0, True)
    assert (float(own.variance), float(own.degrees)) == (pytest.approx(0.01), 2)
    assert difference(trained, counted).scope == "architecture"


def test_one_seed_has_an_assumed_deviation():
    a, b = member("a", 2.02, noise=0.01), member("b", 2.0, noise=0.01, seed=1)
    found = difference(a, b)
    assert found.seed_deviation == pytest.approx(ASSUMED_DEVIATION * 2.01, rel=1e-4)
    assert found.seed_errors == pytest.approx([0.011 * 2.02, 0.011 * 2.0])
    assert found.degrees == pytest.approx(4, abs=0.1)
    assert (found.scope, found.verdict) == ("run", "no detectable difference")
    assert found.run_low > 0 > found.low
    assert found.in_words().startswith("behind in this run (+0.0200 ± 0.00")
    assert difference(b, a).in_words().startswith("ahead in this run (-0.0200 ± 0.00")
    far = difference(member("a", 2.2, noise=0.01), b)
    assert (far.scope, far.verdict) == ("run", "worse")


def test_one_seed_beside_several_has_the_deviation_of_those():
    several = [member("a", 2.0, 2.3, 2.6), member("b", 2.0, 2.1)]
    found = seed_variances([*several, member("c", 2.0)])[2]
    assert (float(found.variance), float(found.degrees)) == (pytest.approx(0.185 / 3), 3)
    assert not found.is_own
    assert difference(member("c", 2.1), several[0]).scope == "run"


def test_two_seeds_that_agree_by_chance_have_the_deviation_of_all_members():
    agree, apart = member("a", 2.0, 2.0001), member("b", 2.0, 2.3, 2.6)
    floored, own = seed_variances([agree, apart])
    assert float(floored.variance) == pytest.approx((5e-9 + 2 * 0.09) / 3)
    assert (float(floored.degrees), float(own.degrees)) == (3, 2)
    assert float(own.variance) == pytest.approx(0.09)


def test_a_text_of_one_block_gives_no_verdict():
    one = [Member(n, np.array([[bits]]), np.array([20.0])) for n, bits in (("b", 40), ("a", 90))]
    (found,) = differences_to_best(one)
    assert math.isnan(found.low)
    assert found.verdict == "no detectable difference"
    assert found.in_words() == "best or tied (+2.5000)"


# ------------------------------------------------------------------ words and digits


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ((2.02, 2.021, 2.022), "worse (+0.0210 ± 0.0021)"),
        ((2.002, 2.0021, 2.0022), "worse, negligible (+0.0021 ± 0.0012)"),
        ((2.0002, 2.002, 2.0), "best or tied (+0.0007 ± 0.0023)"),
    ],
)
def test_two_digits_of_the_half_width_are_shown(rates, words):
    found = difference(member("a", *rates), member("b", 2.0, 2.0005, 1.9995))
    assert found.in_words() == words


def test_a_difference_that_is_detected_is_never_shown_as_zero():
    for apart in (1e-5, 3e-4, 2e-3, 0.04, 3.0):
        b = member("b", 2.0, noise=apart, counts=True)
        found = difference(member("a", 2.0 + apart, noise=apart, counts=True, seed=1), b)
        shown = found.in_words().partition("(")[2].split()[0]
        assert found.verdict == "worse"
        assert float(shown) == pytest.approx(apart, rel=0.05)


def test_the_best_row_is_best_only_where_all_others_are_told_apart():
    best = member("b", 2.0, 2.001, 1.999)
    near, far = member("a", 2.0005, 2.002, 1.9995), member("c", 2.5, 2.51, 2.52)
    assert word_for_best(differences_to_best([best, far])) == "best"
    assert word_for_best(differences_to_best([best, near, far])) == "best or tied"
    runs = [member(n, rate, noise=0.001, seed=i) for i, (n, rate) in enumerate(
        (("x", 2.0), ("y", 2.01), ("z", 2.5)))]  # fmt: skip
    assert word_for_best(differences_to_best(runs)) == "ahead in this run"
    assert word_for_best([]) == "best"


def test_the_word_is_corrected_for_the_number_of_rows_and_the_interval_is_not():
    rows = [member("b", 2.0, noise=0.02, counts=True)]
    rows += [member(str(i), 2.004, noise=0.02, counts=True, seed=i) for i in range(1, 9)]
    alone, together = differences_to_best(rows[:2])[0], differences_to_best(rows)[0]
    assert (alone.low, alone.high, alone.p) == (together.low, together.high, together.p)
    assert (alone.verdict, together.verdict) == ("worse", "no detectable difference")
    assert together.low > 0


# ------------------------------------------------------------------ how often a verdict is wrong

BITS, BLOCKS = 2.0, 40
SEED_DEVIATION = ASSUMED_DEVIATION * BITS


def simulated(rng, count, seeds, ratio, repetitions=1000, apart=0.0, correlation=0.0):
    """Members that differ by nothing but chance; all but the first worse by `apart` errors.

    `ratio`: deviation of a seed / error of a difference by the text.
    """
    text = SEED_DEVIATION / ratio
    noise = rng.normal(0, 1, (repetitions, count, BLOCKS))
    for i in range(1, BLOCKS):
        noise[..., i] = (
            correlation * noise[..., i - 1] + math.sqrt(1 - correlation**2) * noise[..., i]
        )
    noise *= text * math.sqrt(BLOCKS / 2)
    runs = rng.normal(0, SEED_DEVIATION, (repetitions, count, seeds))
    runs[:, 1:] += apart * math.sqrt(text**2 + 2 * SEED_DEVIATION**2 / seeds)
    return BITS + noise[:, :, None, :] + runs[..., None]


def ranked(bits):
    """The pairs with the best of each repetition. Shape: (repetitions, members, seeds, blocks)."""
    order = bits.mean((2, 3)).argsort(1)
    bits = np.take_along_axis(bits, order[:, :, None, None], 1)
    rows = [Member("", bits[:, i], np.ones(bits.shape[-1])) for i in range(bits.shape[1])]
    variances = seed_variances(rows)
    return [
        Pair(row, rows[0], v, variances[0]) for row, v in zip(rows[1:], variances[1:], strict=True)
    ]


def told_apart(bits):
    """In which repetitions any row is called worse than the best."""
    p = np.stack([pair.estimate.p() for pair in ranked(bits)], axis=-1)
    return (against_best(p) < 0.05).any(-1)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("ratio", [0.2, 1, 5])
def test_equal_models_are_told_apart_in_at_most_7_of_100_comparisons(seeds, ratio):
    rng = np.random.default_rng(0)
    assert told_apart(simulated(rng, 2, seeds, ratio, 2000)).mean() <= 0.07


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("ratio", [0.2, 1, 5])
def test_of_nine_equal_models_any_is_worse_in_at_most_7_of_100_comparisons(seeds, ratio):
    rng = np.random.default_rng(1)
    assert told_apart(simulated(rng, 9, seeds, ratio, 500)).mean() <= 0.07


@pytest.mark.parametrize("ratio", [0.2, 1, 5])
def test_a_difference_of_three_errors_is_found_with_five_seeds(ratio):
    rng = np.random.default_rng(2)
    bits = simulated(rng, 2, 5, ratio, 2000, apart=3)
    assert told_apart(bits).mean() >= 0.7


@pytest.mark.parametrize("correlation", [0.3, 0.5, 0.7])
def test_intervals_hold_the_truth_where_neighbouring_blocks_are_alike(correlation):
    rng, blocks = np.random.default_rng(3), 400
    noise = rng.normal(0, 1, (1000, blocks))
    for i in range(1, blocks):
        noise[:, i] += correlation * noise[:, i - 1]
    counted = [Member("", x[:, None, :], np.ones(blocks), True) for x in (noise, 0 * noise)]
    pair = Pair(*counted, *seed_variances(counted))
    assert (pair.estimate.p() > 0.05).mean() >= 0.9  # the interval holds 0
