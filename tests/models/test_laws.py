"""The laws that every architecture obeys; a new file in lmcli/models is covered by existing."""

import math

import numpy as np
import pytest
import torch

from lmcli.evaluation.log_likelihood import stream_nats
from lmcli.models import base
from lmcli.models.base import ActivationRecorder
from lmcli.registry import MODELS
from lmcli.settings import names
from lmcli.tensor_files import read_tensors, write_tensors
from lmcli.training.trainer import Trainer
from lmcli.training.training_settings import Budget, TrainingSettings

V, B, T = 7, 3, 23
CLOSE = 1e-5
ADAPTIVE = [
    f"{name} softmax=adaptive"
    for name in MODELS.names()
    if "softmax" in names(MODELS.load(name).Settings)
]
BLOCKS = [
    f"{name} block={not MODELS.load(name).Settings.block}".lower()
    for name in MODELS.names()
    if "block" in names(MODELS.load(name).Settings)
]
every_architecture = pytest.mark.parametrize("name", [*MODELS.names(), *ADAPTIVE, *BLOCKS])


def ids(rows=B, length=T, seed=1, starts=0.1):
    """Random tokens with a start id here and there."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(V, size=(rows, length))
    tokens[rng.random((rows, length)) < starts] = V
    return torch.from_numpy(tokens)


def same(one, other):
    return all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=CLOSE, rtol=0)
        for a, b in zip(one, other, strict=True)
    )


@every_architecture
@pytest.mark.parametrize("cuts", [(1, 2, 9, 10, 22), tuple(range(1, T))], ids=["chunks", "tokens"])
@torch.no_grad()
def test_reading_whole_is_reading_in_pieces(build, name, cuts):
    model, tokens = build(name), ids()
    whole, after_whole = model(tokens, model.initial_state(B))
    state, parts = model.initial_state(B), []
    for begin, end in zip((0, *cuts), (*cuts, T), strict=True):
        logits, state = model(tokens[:, begin:end], state)
        parts.append(logits)
    assert same([torch.cat(parts, 1)], [whole])
    assert same(state, after_whole)


@every_architecture
@pytest.mark.parametrize("place", [1, 11, T - 1])
@torch.no_grad()
def test_the_future_is_not_seen(build, name, place):
    model, tokens = build(name), ids()
    logits, _ = model(tokens, model.initial_state(B))
    for seed in range(2, 5):
        other = torch.cat([tokens[:, :place], ids(length=T - place, seed=seed)], 1)
        changed, _ = model(other, model.initial_state(B))
        assert same([changed[:, :place]], [logits[:, :place]])


@every_architecture
@torch.no_grad()
def test_sequences_in_a_batch_do_not_touch(build, name):
    model, tokens = build(name), ids(starts=0.2)
    together, after = model(tokens, model.initial_state(B))
    for row in range(B):
        alone, state = model(tokens[row : row + 1], model.initial_state(1))
        assert same([alone[0]], [together[row]])
        assert same(state, [part[row : row + 1] for part in after])


@every_architecture
@torch.no_grad()
def test_axis_zero_of_every_state_is_the_batch(build, name):
    model = build(name)
    assert all(len(part) == 5 for part in model.initial_state(5))
    _, state = model(ids(rows=5), model.initial_state(5))
    assert all(len(part) == 5 for part in state)
    picked = tuple(part[[3, 0]] for part in state)
    expected, _ = model(ids(rows=5, seed=2), state)
    assert same([model(ids(rows=5, seed=2)[[3, 0]], picked)[0]], [expected[[3, 0]]])


@every_architecture
@torch.no_grad()
def test_a_start_id_in_the_middle_forgets_all_that_came_before(build, name):
    model = build(name)
    before, behind = ids(length=40, starts=0), ids(length=12, seed=2, starts=0)
    start = torch.full((B, 1), model.start_id)
    _, filled = model(before, model.initial_state(B))
    for state in (filled, tuple(part.flip(0) for part in filled)):
        old_logits, old = model(start, state)
        new_logits, new = model(start, model.initial_state(B))
        assert same([old_logits], [new_logits])
        assert same(old, new)
    stream, _ = model(torch.cat([before, start, behind], 1), model.initial_state(B))
    is_start, _ = model(torch.cat([start, behind], 1), model.initial_state(B))
    assert same([stream[:, 40:]], [is_start])


@every_architecture
@torch.no_grad()
def test_padding_on_the_left_with_start_ids_leaves_no_trace(build, name):
    model, tokens = build(name), ids(length=9, starts=0)
    start = torch.full((B, 1), model.start_id)
    plain, after_plain = model(torch.cat([start, tokens], 1), model.initial_state(B))
    padded, after_padded = model(
        torch.cat([start.expand(B, 17), tokens], 1), model.initial_state(B)
    )
    assert same([padded[:, 16:]], [plain])
    assert same(after_padded, after_plain)


@every_architecture
@torch.no_grad()
def test_the_token_read_last_matters(build, name):
    model = build(name)
    _, one = model(torch.tensor([[V, 1]]), model.initial_state(1))
    _, other = model(torch.tensor([[V, 4]]), model.initial_state(1))
    changed = not same(one, other)
    first, second = (
        model(torch.tensor([[V, token]]), model.initial_state(1))[0] for token in (1, 4)
    )
    assert changed or not same([first], [second])  # in the state, or at least in the prediction


@every_architecture
@torch.no_grad()
def test_tapping_changes_nothing_and_sees_every_step(build, name):
    model, tokens = build(name), ids()
    recorder = ActivationRecorder()
    recorded, after_recorded = model(tokens, model.initial_state(B), recorder)
    plain, after_plain = model(tokens, model.initial_state(B))
    assert same([recorded], [plain])
    assert same(after_recorded, after_plain)
    for seen in recorder.values:
        assert recorder[seen].shape[:2] == (B, T)


@every_architecture
@torch.no_grad()
def test_logits_are_finite_float32_and_make_probabilities_that_sum_to_one(build, name):
    model = build(name)
    logits, _ = model(ids(starts=0.3), model.initial_state(B))
    assert logits.shape == (B, T, V)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert same([logits.softmax(-1).sum(-1)], [torch.ones(B, T)])


@every_architecture
@torch.no_grad()
def test_log_probabilities_are_those_of_the_logits_and_ignored_targets_count_nothing(build, name):
    model, tokens = build(name), ids()
    targets = ids(seed=3)
    targets = targets.masked_fill(targets == V, -1)
    logits, after = model(tokens, model.initial_state(B))
    found, state = model.log_probabilities(tokens, targets, model.initial_state(B))
    naive = torch.zeros(B, T)
    for b in range(B):
        for t in range(T):
            if targets[b, t] >= 0:
                row = logits[b, t].double()
                naive[b, t] = row[targets[b, t]] - math.log(row.exp().sum())
    assert (targets < 0).any()
    assert found.dtype == torch.float32
    assert same([found], [naive])
    assert same(state, after)


@every_architecture
@pytest.mark.parametrize("excluded", [0, V - 1])
@torch.no_grad()
def test_an_excluded_token_leaves_its_share_to_the_others(build, name, excluded):
    model, tokens = build(name), ids()
    targets = ids(seed=3)
    targets = targets.masked_fill(targets == V, -1)
    logs, after = model.log_probabilities(tokens, targets, model.initial_state(B))
    given = model.log_probabilities(tokens, targets, model.initial_state(B), excluded)
    all_excluded = torch.full_like(targets, excluded)
    share, _ = model.log_probabilities(tokens, all_excluded, model.initial_state(B))
    expected = torch.where(targets < 0, logs, logs - torch.log1p(-share.exp()))
    assert same(given[1], after)
    assert (given[0][targets == excluded] == -torch.inf).all()
    assert (targets == excluded).any()
    if name != "hybrid softmax=adaptive":  # a mixture: each part of it does, tests/models/hybrid
        assert same([given[0][targets != excluded]], [expected[targets != excluded]])
    again, _ = model.log_probabilities(tokens, targets, model.initial_state(B))
    assert same([again], [logs])


@every_architecture
@pytest.mark.parametrize("excluded", [None, 3])
@torch.no_grad()
def test_the_chances_of_all_tokens_are_those_of_each_and_sum_to_one(build, name, excluded):
    model, tokens = build(name), ids()
    logs, after = model.all_log_probabilities(tokens, model.initial_state(B), excluded)
    assert torch.allclose(logs.exp().sum(-1), torch.ones(tokens.shape), atol=1e-5)
    for token in range(V):
        targets = torch.full_like(tokens, token)
        one = model.log_probabilities(tokens, targets, model.initial_state(B), excluded)
        assert same(one[1], after)
        assert same([one[0].exp()], [logs[..., token].exp()])


@every_architecture
def test_gradients_reach_every_parameter(build, name):
    model = build(name).train()
    tokens = torch.cat([torch.arange(V + 1).expand(B, -1), ids()], 1)
    logits, _ = model(tokens, model.initial_state(B))
    parameters = dict(model.named_parameters())
    if parameters:
        (logits * torch.randn(logits.shape)).sum().backward()
    for parameter in parameters.values():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@every_architecture
def test_what_a_document_begins_with_is_learnt_by_more_than_a_bias(build, name):
    model = build(name).train()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    logits, _ = model(torch.full((1, 1), model.start_id), model.initial_state(1))
    if matrices:
        logits[0, 0, 2].backward()
        reached = [p.grad.abs().max() for p in matrices if p.grad is not None]
        assert max(reached) > 1e-6


@every_architecture
@torch.no_grad()
def test_saved_and_loaded_gives_the_same_logits(build, small_settings, name, tmp_path):
    model = build(name)
    write_tensors(tmp_path / "weights", model.tensors(), {})
    tensors, _ = read_tensors(tmp_path / "weights")
    torch.manual_seed(5)
    again = MODELS.load(name.split()[0])(V, small_settings(name)).eval()
    assert not same(
        [again(ids(), again.initial_state(B))[0]], [model(ids(), model.initial_state(B))[0]]
    )
    again.load_tensors(tensors)
    assert torch.equal(
        again(ids(), again.initial_state(B))[0], model(ids(), model.initial_state(B))[0]
    )
    assert again.parameter_count() == model.parameter_count()


@every_architecture
@pytest.mark.parametrize("harm", ["missing", "misshapen"])
def test_tensors_that_do_not_fit_are_refused(build, name, harm):
    model = build(name)
    tensors = model.tensors()
    first = next(iter(tensors))
    if harm == "missing":
        del tensors[first]
    else:
        tensors[first] = torch.zeros(2, 3, 5)
    with pytest.raises((ValueError, KeyError)):
        model.load_tensors(tensors)


@every_architecture
def test_sizes_are_counted(build, name):
    model = build(name)
    assert 0 < model.body_parameters() <= model.parameter_count()
    assert model.flops_per_token() >= 0
    assert model.start_id == model.vocabulary == V


STATE = {
    "ngram": 0,
    "window": 7 * 8,  # embeddings of 7 tokens
    "rnn": 12,
    "gru": 12,
    "lstm": 2 * 12,
    "attention": 2 * 2 * 127 * 12,  # keys and values of 127 tokens in two layers
    "mingru": 2 * 12,  # two layers
    "minlstm": 2 * 12,
    "hybrid": 2 * 12,
    "lstm layers=3": 3 * 2 * 12,
    "lstm attend=5": 2 * 12 + 5 * 12,
    "rnn layers=2 block=true": 2 * 12,
    "attention layers=1 window=9 hidden=10 heads=4": 2 * 8 * 4 * 3,  # heads of size 3
    "window window=1": 0,
}


@pytest.mark.parametrize("name", STATE)
def test_floats_of_state_are_counted_by_hand(small_settings, name):
    assert MODELS.load(name.split()[0])(V, small_settings(name)).state_size == STATE[name]


def test_every_architecture_is_counted():
    assert set(MODELS.names()) <= set(STATE)


CONTEXT = {
    "ngram order=4": 3,
    "ngram order=1": 0,
    "window window=3": 3,
    "attention window=5 layers=1": 5,
    "attention window=4 layers=3": 10,  # three steps of 3 tokens back from the present one
}


@pytest.mark.parametrize(
    "name", [*CONTEXT, "lstm attend=2", "hybrid", "rnn", "gru", "mingru", "minlstm"]
)
@torch.no_grad()
def test_the_context_length_is_what_a_prediction_can_see(build, small_settings, name):
    model = build(name.split()[0], V, **vars(small_settings(name)))
    length = model.context_length
    assert length == CONTEXT.get(name)
    tokens = ids(length=T, starts=0)
    farthest = 0
    for ago in range(1, T + 1):
        other = tokens.clone()
        other[:, T - ago] = (other[:, T - ago] + 1 + torch.arange(B)) % V
        if not torch.equal(*(model(t, model.initial_state(B))[0][:, -1] for t in (tokens, other))):
            farthest = ago
    assert farthest == (T if length is None else length)


@every_architecture
def test_a_toy_text_is_learned(small_settings, name):
    torch.manual_seed(0)
    model = MODELS.load(name.split()[0])(V, small_settings(name))
    text = np.array([V, *[0, 1, 2, 3, 4, 5] * 60], np.uint16)
    before = stream_nats(model, text).mean()
    if model.is_count_based:
        model.fit_counts(text)
    else:
        training = TrainingSettings(batch=4, truncation=10, learning_rate=0.03, precision="float32")
        for progress in Trainer(model, text, text, training, Budget(steps=160)).run():
            assert math.isfinite(progress.loss)
    after = stream_nats(model, text).mean()
    assert before > 0.8 * math.log(V)
    assert after < 0.1 * math.log(V)


@every_architecture
@torch.no_grad()
def test_a_network_of_few_tokens_begins_with_their_frequencies(build, name, monkeypatch):
    """With output weights of 0 nothing else is left."""
    counts = torch.tensor([9, 0, 4, 3, 1, 0, 0])

    def changed(model):
        before = {key: tensor.clone() for key, tensor in model.tensors().items()}
        model.begin_with_frequencies(counts)
        return [
            key for key, tensor in model.tensors().items() if not torch.equal(before[key], tensor)
        ]

    model = build(name)
    has_bias = isinstance(model, base.NeuralLanguageModel) and model.adaptive is None
    if not has_bias or getattr(model, "mix", None) == "log":
        assert changed(model) == []
        return
    assert len(changed(model)) == 1
    weight = model.output_parameters()[0].zero_()
    expected = (counts + 1.0) / (counts + 1.0).sum()
    found = model.predict(torch.randn(2, 3, weight.shape[1])).softmax(-1)
    assert same([found], [expected.expand(2, 3, V)])
    monkeypatch.setattr(base, "SEVERAL_WORDS", V)
    assert changed(build(name)) == []
