"""Weights of a mixture: the likeliest ones, by length of context, and proper distributions."""

import numpy as np
import pytest

from lmcli.evaluation.log_likelihood import stream_log_probabilities
from lmcli.evaluation.mixture import Mixture, found_lengths


def nats_of(seed, tokens=400):
    return np.random.default_rng(seed).gamma(2.0, 1.0, (2, tokens))


def test_the_weights_are_those_of_a_grid():
    nats = nats_of(0)
    weights = Mixture.fit(nats).weights
    grid = np.linspace(0.0005, 0.9995, 2000)
    p = np.exp(-nats)
    likelihood = [np.log(w * p[0] + (1 - w) * p[1]).sum() for w in grid]
    assert weights[0] == pytest.approx([grid[np.argmax(likelihood)], 1 - weights[0, 0]], abs=1e-3)


def test_where_each_token_is_known_to_one_member_alone_weights_are_shares():
    nats = np.full((2, 100), 800.0)
    nats[0, :30] = nats[1, 30:] = 1.0
    assert Mixture.fit(nats).weights[0] == pytest.approx([0.3, 0.7], abs=1e-6)


def test_each_length_has_weights_and_rare_ones_lean_on_all():
    lengths = np.repeat([0, 1, 3], [200, 199, 1])
    nats = np.ones((2, 400))
    nats[0, :200] = nats[1, 200:] = 5.0
    weights = Mixture.fit(nats, lengths).weights
    assert weights.shape == (4, 2)
    assert weights[0, 0] < 0.1
    assert weights[1, 0] > 0.9
    whole = Mixture.fit(nats).weights[0]
    assert weights[2] == pytest.approx(whole, abs=1e-6)  # no token has it
    assert weights[3] == pytest.approx(whole, abs=0.1)
    assert weights.sum(1) == pytest.approx(1)


def test_distributions_sum_to_one_and_give_the_nats(build, stream):
    ids = stream(300, 7, 3, start_every=50)
    models = [build("ngram"), build("gru")]
    logs = [np.concatenate([*stream_log_probabilities(m, ids)]) for m in models]
    lengths = found_lengths(models[0], ids)
    targets = ids[1:].astype(int)
    real = np.flatnonzero(targets < 7)
    nats = -np.stack([one[real, targets[real]] for one in logs])
    mixture = Mixture.fit(nats, lengths[real])
    mixed = mixture.log_probabilities(logs, lengths)
    assert np.exp(mixed).sum(1) == pytest.approx(1, abs=1e-6)
    assert mixture.nats(nats, lengths[real]) == pytest.approx(-mixed[real, targets[real]], abs=1e-6)
    assert mixture.nats(nats, lengths[real]).sum() < nats.sum(1).min()


def test_lengths_are_those_of_the_longest_counted_context(build):
    model = build("ngram", order=3)
    ids = np.array([7, 0, 1, 2])
    lengths = found_lengths(model, ids)
    assert lengths[0] == 1  # the start id alone
    assert set(lengths.tolist()) <= {1, 2}
    assert lengths[1] == 2  # it counted the start id with the first token
    assert found_lengths(build("gru"), ids) is None
