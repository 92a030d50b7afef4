"""The adaptive output layer and embedding against their equations, written out."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lmcli.errors import UsageError
from lmcli.models.base import LanguageModel
from lmcli.models.layers import softmax
from lmcli.models.layers.softmax import (
    AdaptiveEmbedding,
    AdaptiveOutput,
    Embedding,
    cutoffs,
    shares,
)
from lmcli.registry import MODELS
from lmcli.settings import names

V, H = 70, 20
BOUNDS = [0, 1, 4, 17, V]
"""shortlist and clusters of so many words"""
members = pytest.mark.parametrize(
    "name", [n for n in MODELS.names() if "softmax" in names(MODELS.load(n).Settings)]
)


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch):
    """Few words are enough for several clusters."""
    monkeypatch.setattr(softmax, "SHORTEST", 1)


def layer(hidden=H, vocabulary=V):
    torch.manual_seed(0)
    made = AdaptiveOutput(hidden, vocabulary).double()
    torch.nn.init.normal_(made.head.bias)
    return made


def some(rows=6, seed=0):
    """Hidden vectors and targets from every cluster, one of them ignored."""
    torch.manual_seed(seed)
    targets = torch.tensor([[0, 1, 3, -1, 4, 69], [17, 16, 2, 40, -1, 0]])[:, :rows]
    return torch.randn(*targets.shape, H).double(), targets


def ids(seed=1, rows=3, length=11):
    """Tokens with a start id among them, and targets with ignored ones."""
    torch.manual_seed(seed)
    tokens = torch.randint(V + 1, (rows, length))
    targets = torch.randint(-1, V, (rows, length))
    targets[0, 0], tokens[0, 3] = -1, V
    return tokens, targets


# ------------------------------------------------------------------ how words are cut


@given(st.integers(2, 3_000_000))
def test_shortlist_and_clusters_have_words_and_grow(vocabulary):
    bounds = [0, *cutoffs(vocabulary), vocabulary]
    sizes = [high - low for low, high in pairwise(bounds)]
    assert min(sizes) >= 1
    assert sizes == sorted(sizes)


def test_the_words_of_this_test_are_cut_as_it_says():
    assert [0, *cutoffs(V), V] == BOUNDS


@pytest.mark.parametrize("vocabulary", [8_000, 99_171, 1_000_000])
def test_the_shortlist_is_not_too_short(monkeypatch, vocabulary):
    monkeypatch.setattr(softmax, "SHORTEST", 500)
    assert 500 <= cutoffs(vocabulary)[0] < 2000


def test_shares_are_those_of_zipfs_law():
    ranks = range(1, 10_001)
    whole = sum(1 / r for r in ranks)
    found = shares([100, 1000, 10_000])
    right = [sum(1 / r for r in ranks if low < r <= high) / whole
             for low, high in ((100, 1000), (1000, 10_000))]  # fmt: skip
    assert found == pytest.approx(right, rel=0.07)  # the sum of 1 / r is ln only nearly


# ------------------------------------------------------------------ output layer


@torch.no_grad()
def test_a_word_has_its_clusters_probability_times_its_own_in_it():
    made, (x, _) = layer(), some()
    for h, found in zip(x[0], made.logits(x)[0], strict=True):
        first = (made.head.weight @ h + made.head.bias).softmax(0)
        right = [float(first[0])]
        for k, (low, high) in enumerate(pairwise(BOUNDS[1:])):
            project, words = made.tail[k]
            within = (words.weight @ (project.weight @ h)).softmax(0)
            assert len(within) == high - low
            right += [float(first[1 + k] * p) for p in within]
        assert sum(right) == pytest.approx(1)
        assert found.exp().tolist() == pytest.approx(right, rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("block", [1, 60, 10**6])
def test_the_targets_alone_have_the_probabilities_they_have_among_all(monkeypatch, block):
    monkeypatch.setattr(softmax, "LOGITS", block)  # so many numbers at once
    made, (x, targets) = layer(), some()
    logits = made.logits(x)
    found = made.log_probabilities(x, targets)
    right = logits.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    right[targets < 0] = 0
    assert torch.allclose(found, right, atol=1e-6)
    assert (found[targets >= 0] < 0).all()


@torch.no_grad()
@pytest.mark.parametrize("excluded", [0, 3, V - 1], ids=["shortlist", "cluster", "last cluster"])
def test_without_one_word_the_others_share_what_it_had(excluded):
    made, (x, targets) = layer(), some()
    others = made.logits(x)
    others[..., excluded] = -torch.inf
    right = others.log_softmax(-1).gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    right[targets < 0] = 0
    assert (right == -torch.inf).any()
    assert torch.allclose(made.log_probabilities(x, targets, excluded), right, atol=1e-6)


@torch.no_grad()
def test_nothing_to_score_is_zero():
    made, (x, targets) = layer(), some()
    assert (made.log_probabilities(x, torch.full_like(targets, -1)) == 0).all()


def test_vectors_of_rarer_words_are_narrower_down_to_sixteen():
    made = AdaptiveOutput(250, 1000)
    widths = [250, *(project.out_features for project, _ in made.tail)]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == len(widths)
    assert widths[-1] in (15, 16)
    narrow = AdaptiveOutput(6, 1000)
    assert {project.out_features for project, _ in narrow.tail} == {6}


def test_operations_are_counted_for_the_average_target():
    made = AdaptiveOutput(H, V)
    whole = math.log(V + 1)
    right = 2 * H * (1 + 3)
    for (project, words), (low, high) in zip(made.tail, pairwise(BOUNDS[1:]), strict=True):
        share = (math.log(high + 1) - math.log(low + 1)) / whole
        right += share * 2 * project.out_features * (H + high - low)
        assert words.out_features == high - low
    assert made.flops() == round(right)


# ------------------------------------------------------------------ embedding


def test_every_token_has_its_own_row_widened():
    torch.manual_seed(0)
    made, tokens = AdaptiveEmbedding(V, H), torch.randperm(V + 1).view(1, V + 1)
    found = made(tokens)
    assert found.shape == (1, V + 1, H)
    for token, vector in zip(tokens[0].tolist(), found[0], strict=True):
        k = next(k for k, high in enumerate([*BOUNDS[1:-1], V + 1]) if token < high)
        rows, *widen = made.tables[k]
        right = rows.weight[token - BOUNDS[k]]
        for product in widen:
            right = product.weight @ right
        assert torch.allclose(vector, right, atol=1e-6)


@torch.no_grad()
def test_vectors_begin_equally_long_whatever_the_words_are():
    torch.manual_seed(0)
    made = AdaptiveEmbedding(4000, 128)
    for low, high in pairwise(made.bounds):
        spread = made(torch.arange(low, high)).std()
        assert spread == pytest.approx(1, abs=0.15)


# ------------------------------------------------------------------ in the models


@members
def test_the_loss_and_its_gradient_are_those_of_the_full_logits(build, name):
    model, (tokens, targets) = build(name, V, softmax="adaptive"), ids()
    found, after = model.loss(tokens, targets, model.initial_state(3))
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(found, parameters, materialize_grads=True)
    logits, state = model(tokens, model.initial_state(3))
    right = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    assert found.item() == pytest.approx(right.item(), rel=1e-5)
    for one, other in zip(
        gradients, torch.autograd.grad(right, parameters, materialize_grads=True), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-5)
    for one, other in zip(after, state, strict=True):
        assert torch.equal(one, other)


@members
@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_ignored_targets_do_not_count(build, name, softmax):
    model, (tokens, targets) = build(name, V, softmax=softmax), ids()
    logs, _ = model.log_probabilities(tokens, targets, model.initial_state(3))
    loss, _ = model.loss(tokens, targets, model.initial_state(3))
    assert loss.item() == pytest.approx(-logs.sum().item() / (targets >= 0).sum().item(), rel=1e-5)


@members
def test_clusters_without_a_target_have_a_gradient_of_zero(build, name):
    model = build(name, V, softmax="adaptive")
    tokens = torch.arange(V + 1).view(1, V + 1)
    loss, _ = model.loss(tokens, torch.zeros_like(tokens), model.initial_state(1))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all((p.grad == 0).all() for p in model.adaptive.tail.parameters())


class Biggest(TorchDispatchMode):
    """Notes the size of the biggest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@torch.no_grad()
@members
def test_neither_scoring_nor_the_loss_makes_all_logits(build, name):
    words, rows, length = 4000, 3, 40
    model = build(name, words, softmax="adaptive")
    tokens = torch.arange(rows * length).view(rows, length) % words
    for read in (model.log_probabilities, model.loss):
        with Biggest() as biggest:
            read(tokens, tokens, model.initial_state(rows))
        assert 0 < biggest.numbers < rows * length * words / 3
    assert model.scoring_width < words / 3


@members
def test_training_in_bfloat16_comes_close(build, name):
    model, (tokens, targets) = build(name, V, softmax="adaptive").train(), ids()
    right, _ = model.loss(tokens, targets, model.initial_state(3))
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = model.loss(tokens, targets, model.initial_state(3))
        logits, _ = model(tokens, model.initial_state(3))
    low.backward()
    assert low.dtype == logits.dtype == torch.float32
    assert low.item() == pytest.approx(right.item(), rel=0.02)
    assert logits.exp().sum(-1).tolist() == [[pytest.approx(1, abs=1e-4)] * 11] * 3


@members
def test_many_words_cost_far_fewer_parameters_and_the_body_stays(build, name):
    full, adaptive = (build(name, 4000, softmax=s, hidden=32) for s in ("full", "adaptive"))
    assert adaptive.body_parameters() == full.body_parameters()
    counted = adaptive.ngram.parameter_count() if name == "hybrid" else 0
    trained = sum(p.numel() for p in adaptive.parameters())
    assert adaptive.parameter_count() == trained + counted
    assert adaptive.parameter_count() < full.parameter_count()
    assert adaptive.flops_per_token() < full.flops_per_token()


@members
def test_the_default_is_the_full_softmax_with_its_old_names(build, name):
    default, full = build(name, V), build(name, V, softmax="full")
    tensors = default.tensors()
    assert {k: v.shape for k, v in tensors.items()} == {
        k: v.shape for k, v in full.tensors().items()
    }
    dot = "_" if name == "attention" else "."
    assert tensors[f"output{dot}weight"].shape[0] == V
    assert tensors[f"output{dot}bias"].shape == (V,)
    assert tensors["embed.weight"].shape[0] == V + 1
    assert isinstance(default, LanguageModel)
    assert default.scoring_width == V


@members
@pytest.mark.parametrize("name_of_it", ["tie", "direct"])
def test_what_needs_all_words_at_once_is_refused(build, name, name_of_it):
    if name_of_it in names(MODELS.load(name).Settings):
        changes = {name_of_it: True, "hidden": 8}  # as wide as the embedding, for tie
        with pytest.raises(UsageError, match=f"{name_of_it}=true needs a full softmax") as caught:
            build(name, V, softmax="adaptive", **changes)
        assert "softmax=full" in caught.value.hint


def test_the_embedding_has_the_rows_and_the_gradient_of_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Embedding(9, 4), torch.nn.Embedding(9, 4)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.tensor([[3, 3, 8], [0, 3, 5]])
    weights = torch.randn(2, 3, 4)
    for layer in (ours, theirs):
        (layer(tokens) * weights).sum().backward()
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=0, atol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert not ours.weight.grad[[1, 2, 4, 6, 7]].any()
