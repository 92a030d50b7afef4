"""The hybrid: it begins as its n-gram, learns beside counts of the rest, mixes in two ways."""

import numpy as np
import pytest
import torch

from lmcli.errors import UsageError
from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.models.hybrid.model import Hybrid
from lmcli.models.lstm import LSTM
from lmcli.models.ngram.model import NGram, NGramSettings

V = 7


@pytest.fixture(scope="module")
def text(stream):
    return stream(600, V, 1, start_every=60)


@pytest.fixture
def hybrid(small_settings, text):
    def make(**changes):
        torch.manual_seed(0)
        model = Hybrid(V, small_settings("hybrid", order=4, **changes)).eval()
        model.fit_counts(text)
        return model

    return make


@pytest.mark.parametrize("mix", ["log", "linear"])
def test_before_training_it_is_as_good_as_its_n_gram(hybrid, text, stream, mix):
    counts = NGram(V, NGramSettings(order=4))
    counts.fit_counts(text)
    new = stream(500, V, 2, start_every=60)
    expected = stream_nats(counts, new).mean()
    assert stream_nats(hybrid(mix=mix), new).mean() == pytest.approx(expected, rel=0.02)
    assert expected < 0.95 * np.log(V)


def test_in_training_the_n_gram_does_not_know_the_text_that_it_is_asked_about(hybrid, text):
    model, N = hybrid(), len(text) - 1
    read, targets = (
        torch.from_numpy(part.astype(np.int64))[None] for part in (text[:-1], text[1:])
    )
    targets = targets.masked_fill(targets == V, -1)
    known, _ = model.loss(read, targets, model.initial_state(1))
    unknown, _ = model.training_loss(read, targets, model.initial_state(1), torch.arange(N)[None])
    assert unknown > known + 0.05


def test_what_it_learns_beside_is_that_of_the_place_whatever_the_state_has_seen(hybrid, text):
    model, places = hybrid(), torch.tensor([[100, 101], [300, 301]])
    read = torch.from_numpy(text.astype(np.int64))
    loss, _ = model.training_loss(read[places], read[places + 1], model.initial_state(2), places)
    swapped, _ = model.training_loss(
        read[places].flip(0), read[places + 1].flip(0), model.initial_state(2), places.flip(0)
    )
    other, _ = model.training_loss(
        read[places], read[places + 1], model.initial_state(2), places + 7
    )
    assert torch.equal(loss, swapped)
    assert not torch.isclose(loss, other)


def test_counts_can_be_shared_and_only_with_one_of_its_kind(hybrid, small_settings):
    one, other = hybrid(), Hybrid(V, small_settings("hybrid", order=4))
    other.share_counts(one)
    assert other.ngram.table is one.ngram.table
    assert other.cross_fitted is one.cross_fitted
    with pytest.raises(TypeError, match="lstm has no counts"):
        other.share_counts(LSTM(V, small_settings("lstm")))


@pytest.mark.parametrize(
    ("vocabulary", "changes", "expected"),
    [
        (65, {}, "log"),
        (5000, {}, "linear"),
        (65, {"softmax": "adaptive"}, "linear"),
        (65, {"mix": "linear"}, "linear"),
        (5000, {"mix": "log"}, "log"),
    ],
)
def test_how_it_mixes_follows_from_the_output_layer(small_settings, vocabulary, changes, expected):
    assert Hybrid(vocabulary, small_settings("hybrid", **changes)).mix == expected


def test_an_adaptive_softmax_cannot_be_corrected_token_by_token(small_settings):
    with pytest.raises(UsageError, match="mix=log needs a full softmax"):
        Hybrid(V, small_settings("hybrid", mix="log", softmax="adaptive"))


@torch.no_grad()
def test_a_linear_mixture_scores_targets_as_its_logits_do(hybrid, text):
    model = hybrid(mix="linear")
    model.gate.weight.normal_()
    read = torch.from_numpy(text[:40].astype(np.int64)).view(2, 20)
    targets = torch.arange(40).view(2, 20) % V
    quick, _ = model.log_probabilities(read, targets, model.initial_state(2))
    logits, _ = model(read, model.initial_state(2))
    assert torch.allclose(logits.exp().sum(-1), torch.ones(2, 20), atol=1e-5)
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(quick, expected, atol=1e-5)


@torch.no_grad()
def test_what_the_net_of_a_linear_mixture_says_of_an_excluded_token_changes_nothing(hybrid, text):
    model = hybrid(mix="linear")
    model.gate.weight.normal_()
    read = torch.from_numpy(text[:20].astype(np.int64)).view(1, 20)
    found = []
    for bias in (0.0, 5.0):
        model.output.bias[3] = bias
        every = [
            model.log_probabilities(read, torch.full_like(read, v), model.initial_state(1), 3)[0]
            for v in range(V)
        ]
        found.append(torch.stack(every).exp())
    assert (found[0][3] == 0).all()
    assert torch.allclose(found[0].sum(0), torch.ones(1, 20), atol=1e-5)
    assert torch.allclose(*found, atol=1e-6)


@pytest.mark.parametrize(("vocabulary", "order"), [(65, 8), (256, 8), (400, 5), (20_000, 5)])
def test_the_order_follows_the_vocabulary(small_settings, vocabulary, order):
    assert Hybrid(vocabulary, small_settings("hybrid")).ngram.order == order


def test_stored_n_grams_count_as_parameters(hybrid, small_settings):
    model = hybrid()
    gate = 12 + 3 + 1
    network = LSTM(V, small_settings("lstm")).parameter_count()
    assert model.parameter_count() == network + gate + model.ngram.table.size
