"""Ratios of how frequent words are lately and on the whole: by hand."""

import math

import numpy as np
import pytest

from lmcli.evaluation.recent_words import RecentWords


def test_ratios_are_those_counted_by_hand():
    recent = RecentWords(4, (2, 10), strength=3.0)
    recent.add(np.array([0, 0, 1]))
    recent.add(np.array([2]))
    whole = [2.5 / 6, 1.5 / 6, 1.5 / 6, 0.5 / 6]
    last_two, last_ten = [0, 1, 1], [2, 1, 1]
    found = recent.log_ratios(np.array([0, 1, 2]))
    for ratios, counts, read in ((found[0], last_two, 2), (found[1], last_ten, 4)):
        wanted = [
            math.log((c + 3 * p) / ((read + 3) * p)) for c, p in zip(counts, whole, strict=False)
        ]
        assert ratios[:3] == pytest.approx(wanted)
        assert ratios[3] == pytest.approx(math.log(3 / (read + 3)))
    assert recent.tokens().tolist() == [0, 0, 1, 2]


def test_smoothed_frequencies_of_a_window_sum_to_one():
    recent, rng = RecentWords(50, (20,), strength=7.0), np.random.default_rng(0)
    tokens = rng.integers(30, size=200)
    recent.add(tokens)
    whole = (np.bincount(tokens, minlength=50) + 0.5) / 225
    ratios = np.exp(recent.log_ratios(np.arange(50))[0])
    assert (whole * ratios[:50]).sum() == pytest.approx(1)
    absent = [w for w in range(50) if w not in recent.tokens()]
    assert ratios[absent] == pytest.approx(ratios[50])


def test_before_anything_is_read_and_without_windows_nothing_changes():
    assert RecentWords(4, (2,), 3.0).log_ratios(np.arange(4)).tolist() == [[0.0] * 5]
    none = RecentWords(4, (), 3.0)
    none.add(np.array([1, 2]))
    assert none.log_ratios(np.arange(4)).shape == (0, 5)
    assert not len(none.tokens())
