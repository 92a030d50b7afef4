"""Dynamic evaluation: distributions of what came before, from weights that follow the text."""

import numpy as np
import pytest
import torch

from lmcli.evaluation import dynamic
from lmcli.evaluation.dynamic import AdaptSettings, adapted_log_probabilities
from lmcli.evaluation.log_likelihood import stream_log_probabilities

SETTINGS = AdaptSettings(rate=0.01, chunk=10)


def read(model, ids, settings=SETTINGS, excluded=None):
    return np.concatenate([*adapted_log_probabilities(model, ids, settings, excluded)])


@pytest.mark.parametrize("arch", ["lstm", "rnn", "attention", "lstm softmax=adaptive"])
def test_each_distribution_sums_to_one_and_knows_nothing_of_what_follows(build, stream, arch):
    ids = stream(121, 7, 0, start_every=40)
    logs = read(build(arch), ids)
    assert logs.shape == (120, 7)
    assert np.exp(logs.astype(float)).sum(1) == pytest.approx(1, abs=1e-6)
    changed = ids.copy()
    changed[61] = (ids[61] + 1) % 7
    other = read(build(arch), changed)
    assert (other[:61] == logs[:61]).all()
    assert (other[61:] != logs[61:]).any()


def test_many_words_are_learnt_from_more_slowly():
    assert AdaptSettings.of(65) == AdaptSettings.of(1_999) == AdaptSettings()
    assert AdaptSettings.of(2_000) == AdaptSettings(rate=1e-4)


def test_a_rate_of_zero_is_the_model_as_it_was_trained(build, stream):
    ids = stream(101, 7, 0, start_every=40)
    plain = np.concatenate([*stream_log_probabilities(build("gru"), ids)])
    assert read(build("gru"), ids, AdaptSettings(rate=0)) == pytest.approx(plain, abs=1e-5)


def test_the_weights_follow_the_text_and_full_decay_brings_them_back(build):
    ids = np.concatenate([[7], np.tile([0, 1, 2, 3], 200)])
    cost = {}
    for decay in (0.0, 1.0):
        logs = read(build("gru"), ids, AdaptSettings(rate=0.01, decay=decay, chunk=10))
        cost[decay] = -logs[np.arange(400, 800), ids[401:]].mean()
    plain = np.concatenate([*stream_log_probabilities(build("gru"), ids)])
    untouched = -plain[np.arange(400, 800), ids[401:]].mean()
    assert cost[0.0] < untouched / 2
    assert cost[1.0] == pytest.approx(untouched, abs=0.05)


def test_an_excluded_token_has_no_chance(build, stream):
    ids = stream(101, 7, 0)
    logs = read(build("gru"), ids, excluded=3)
    assert (logs[:, 3] == -np.inf).all()
    assert np.exp(logs.astype(float)).sum(1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("device", "used"), [("cuda", False), ("cpu", True)])
def test_on_a_gpu_it_learns_without_cudnn_which_has_no_gradient_in_evaluation(
    build, stream, monkeypatch, device, used
):
    model, found = build("gru"), []
    monkeypatch.setattr(dynamic, "device_type", lambda weights: device)
    monkeypatch.setattr(
        model,
        "all_log_probabilities",
        lambda *args, own=model.all_log_probabilities: (
            found.append(torch.backends.cudnn.enabled) or own(*args)
        ),
    )
    before = torch.backends.cudnn.enabled
    read(model, stream(41, 7, 0))
    assert found == [before and used] * 4
    assert torch.backends.cudnn.enabled == before
