"""Places that are drawn, and means over them."""

import math

import numpy as np
import pytest

from lmcli.evaluation.probes.sampling import Mean, draw_targets


def test_targets_have_as_many_tokens_before_them_as_are_asked_for():
    streams = [np.arange(n) for n in (1, 4, 3, 9)]
    every = draw_targets(streams, 100, np.random.default_rng(0), before=2)
    found = list(zip(every.document.tolist(), every.place.tolist(), strict=True))
    assert found == [(1, 3), *((3, place) for place in range(3, 9))]
    some = draw_targets(streams, 3, np.random.default_rng(0), before=2)
    assert len(some) == 3
    assert len(draw_targets(streams, 3, np.random.default_rng(0), before=8)) == 0
    assert len(draw_targets([], 3, np.random.default_rng(0))) == 0


def test_a_mean_is_that_of_all_finite_values():
    values = np.array([[1.0, math.nan], [2.0, 3.0], [math.nan, math.nan]])
    mean = Mean.of(values, np.array([0, 0, 1]), 0)
    assert (mean.value, mean.count) == (2.0, 3)
    assert mean.low == mean.high == 2.0  # the only block
    assert math.isnan(Mean.of(values[2], np.zeros(2, np.int64), 0).value)


def test_limits_widen_with_what_blocks_share():
    rng, blocks = np.random.default_rng(0), np.arange(20_000) // 1000
    apart = rng.normal(size=20_000)
    shared = np.repeat(rng.normal(size=20), 1000)
    narrow, wide = (Mean.of(values, blocks, 0) for values in (apart, shared))
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 / math.sqrt(20_000), rel=0.5)
    assert wide.high - wide.low > 0.6
