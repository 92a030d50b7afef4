"""What caches gain on texts whose memory is known."""

import math

import numpy as np
import pytest

from lmcli.evaluation.probes.ceiling.caches import (
    Stream,
    edges,
    elsewhere_counts,
    fit_weights,
    octave_counts,
    worth,
)
from lmcli.models.ngram.kneser_ney import KneserNey

V = 1000


def opened(ids, length):
    """Documents of `length` ids after a start id."""
    return [np.append(V, ids[i : i + length]) for i in range(0, len(ids), length)]


def made(blocks, lag, seed):
    """Blocks of random words, each `lag` words long and said twice."""
    fresh = np.random.default_rng(seed).integers(V, size=(blocks, lag))
    return np.concatenate([fresh, fresh], axis=1).ravel()


def topical(count, seed):
    """Words of a topic of 20 words that changes every 100."""
    rng = np.random.default_rng(seed)
    topics = np.repeat(rng.integers(V // 20, size=count // 100), 100)
    return topics * 20 + rng.integers(20, size=count)


def shuffled(ids, size, seed):
    """Blocks of `size` ids in another order."""
    return np.random.default_rng(seed).permutation(ids.reshape(-1, size)).ravel()


def test_counts_of_an_octave_are_those_counted_by_hand():
    rng = np.random.default_rng(0)
    documents = [np.append(6, rng.integers(6, size=n)) for n in (70, 1, 33)]
    counts, sizes = octave_counts(Stream.of(documents), edges(64))
    row = 0
    for document in documents:
        ids = document[1:].tolist()
        for t, word in enumerate(ids):
            for k, (near, far) in enumerate(((0, 8), (8, 16), (16, 32), (32, 64))):
                cache = ids[max(0, t - far) : max(0, t - near)]
                assert (counts[row, k], sizes[row, k]) == (cache.count(word), len(cache))
            row += 1
    assert row == len(counts)


def test_words_drawn_from_elsewhere_are_not_the_target_itself():
    stream = Stream.of([np.arange(101)])
    assert not elsewhere_counts(stream, np.full((100, 1), 64), np.random.default_rng(0)).any()
    half = Stream.of([np.append(V, np.arange(400) // 2)])
    drawn = elsewhere_counts(half, np.full((400, 3), 100), np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(100 / 399, rel=0.1)
    every = elsewhere_counts(half, np.full((400, 3), 133), np.random.default_rng(0))
    assert (every.sum(1) == 1).all()  # without replacement


def test_weights_are_those_at_which_the_text_is_likeliest():
    parts = np.array([[1.0, 0.0]] * 30 + [[0.0, 1.0]] * 70)
    assert fit_weights(parts, np.array([0.5, 0.5])) == pytest.approx([0.3, 0.7], abs=0.01)
    useless = np.array([[0.5, 0.1]] * 100)
    assert fit_weights(useless, np.array([0.5, 0.5]))[1] < 0.001


def test_words_that_return_after_40_gain_what_the_closed_form_says_and_only_there():
    table = KneserNey.estimate(made(400, 40, 0).astype(np.int32), V, 1)
    gained, null = worth(table, opened(made(200, 40, 1), 8000), 256)
    net = (gained - null).mean(0)
    # Half of the words stand among the 32 of the third octave: p = w / 32 + (1 - w) / V.
    w = np.linspace(0.01, 0.99, 99)
    returned, new = np.log(w / 32 * V + 1 - w), np.log(1 - w)
    best = float(np.max((returned + new) / 2))
    assert net[1] == pytest.approx(0.0, abs=0.03)  # up to 16: none; up to 32: none
    assert net[2] == pytest.approx(0.0, abs=0.03)
    assert net[3] == pytest.approx(best, abs=0.1)
    assert net[-1] == pytest.approx(net[3], abs=0.03)
    assert best < math.log(V / 32) / 2


def test_a_text_in_shuffled_blocks_rewards_nothing_beyond_them():
    table = KneserNey.estimate(topical(60_000, 0).astype(np.int32), V, 5)
    text = topical(24_000, 1)
    whole, null = worth(table, opened(text, 6000), 256)
    assert (whole - null).mean(0)[-1] > 0.3
    for block in (1, 8):
        gained, null = worth(table, opened(shuffled(text, block, 2), 6000), 256)
        net = (gained - null).mean(0)
        reach = edges(256).index(max(8, block))
        beyond = net[-1] - (net[reach] if block > 1 else 0.0)
        assert beyond == pytest.approx(0.0, abs=0.01)


def test_unknown_words_are_not_scored():
    ids = np.where(np.arange(4000) % 2, 0, made(50, 40, 3))
    table = KneserNey.estimate(np.arange(1, V, dtype=np.int32), V, 5)
    with_unknown, _ = worth(table, opened(ids, 4000), 64)
    gained, null = worth(table, opened(ids, 4000), 64, unknown=0)
    assert with_unknown.mean(0)[0] > 1.0
    assert len(gained) == len(null) == (ids != 0).sum()
    assert abs(gained.mean(0)[0]) < 0.05
