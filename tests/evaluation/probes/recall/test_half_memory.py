"""Half-memory by hand, and its interval."""

import numpy as np

from lmcli.evaluation.probes.recall.half_memory import HalfMemory

GAPS, COUNTS, CHANCES = (3, 10, 30, 100), (200,) * 4, (1 / 16,) * 4
HALF = 107  # right of 200: skill (107/200 - 1/16) / (15/16) = 0.504


def test_it_is_the_largest_gap_up_to_which_half_of_the_skill_is_left():
    assert HalfMemory.of(GAPS, [[200, HALF, HALF - 2, 200]], COUNTS, CHANCES).gap == 10
    assert HalfMemory.of(GAPS, [[200, 200, 180, 20]], COUNTS, CHANCES).gap == 30
    assert HalfMemory.of(GAPS, [[200] * 4], COUNTS, CHANCES).to_json() == {
        "gap": 100,
        "low": 100,
        "high": 100,
        "at_least": True,
    }


def test_detectable_is_not_remembered():
    """10.5 % of 2,000 are above chance, at 1/16, and far from half."""
    found = HalfMemory.of(GAPS, [[2000, 210, 210, 210]], (2000,) * 4, CHANCES)
    assert (found.gap, found.low, found.high) == (3, 3, 3)


def test_who_knows_nothing_has_none():
    found = HalfMemory.of(GAPS, [[12] * 4], COUNTS, CHANCES)
    assert (found.gap, str(found)) == (None, "none shown")


def test_the_interval_spans_the_gaps_that_resampled_items_give():
    found = HalfMemory.of(GAPS, [[200, HALF, HALF, 20]], COUNTS, CHANCES)
    assert (found.low, found.gap, found.high) == (3, 30, 30)
    assert str(found) == "30 (3 to 30)"


def test_the_mean_of_the_seeds_decides():
    """One seed that knows all and one that knows nothing: half of it."""
    right = [[200, 200, 200, 12], [200, 200, 12, 12]]
    assert HalfMemory.of(GAPS, right, COUNTS, CHANCES).gap in (10, 30)
    more = [[200, 200, 200, 12], [200, 200, 40, 12]]
    assert HalfMemory.of(GAPS, more, COUNTS, CHANCES).gap == 30


def test_intervals_hold_the_true_half_memory():
    """True accuracies 1, 0.7, 0.45, 0.1: half-memory is 10."""
    rng, true = np.random.default_rng(0), np.array([1.0, 0.7, 0.45, 0.1])
    held = 0
    for _ in range(100):
        found = HalfMemory.of(GAPS, [rng.binomial(200, true)], COUNTS, CHANCES)
        held += found.low <= 10 <= found.high
    assert held >= 95
