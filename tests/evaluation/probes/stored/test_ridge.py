"""The read-out against the closed form, and on labels that states do not hold."""

import numpy as np
import pytest

from lmcli.evaluation.probes.stored.ridge import PENALTIES, Ridge


def states(count, seed=0):
    draw = np.random.default_rng(seed).normal(size=(count, 6))
    return (draw * [1, 5, 0.1, 1, 1, 0] + 3).astype(np.float32)


def held(count):
    return np.arange(count) % 5 == 4


def test_the_weights_are_the_closed_form():
    x, rng = states(500), np.random.default_rng(1)
    labels = (rng.random((500, 3)) < 0.3).astype(np.float32)
    labels[:, 0] = x[:, 1] > 4
    fit = Ridge(x, held(500)).fit(labels)
    scale = np.where(x.std(0) > 1e-6, x.std(0), 1)
    z = (x - x.mean(0)) / scale
    weights = np.linalg.solve(
        z.T @ z + fit.penalty * 500 * np.eye(6), z.T @ (labels - labels.mean(0))
    )
    assert fit.weights == pytest.approx(weights, abs=1e-4)
    assert fit.scores(x) == pytest.approx(z @ weights + labels.mean(0), abs=1e-4)


def test_noise_gets_a_larger_penalty_than_what_states_hold():
    x = states(200)
    told = (x[:, :1] > 3).astype(np.float32)
    noise = (np.random.default_rng(2).random((200, 40)) < 0.5).astype(np.float32)
    ridge = Ridge(x, held(200))
    assert ridge.fit(noise).penalty == max(PENALTIES)
    assert ridge.fit(told).penalty < max(PENALTIES)
