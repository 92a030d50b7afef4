"""What rnn, gru and lstm share: their layers, dropout, tying, and how big they are."""

import pytest
import torch
from torch.nn import functional as F

from lmcli.errors import UsageError
from lmcli.models.layers.recurrent import locked_dropout
from lmcli.registry import MODELS

V, E, H = 7, 5, 6
BLOCKS = {"rnn": 1, "gru": 3, "lstm": 4}
members = pytest.mark.parametrize("name", sorted(BLOCKS))
TOKENS = torch.tensor([[V, 1, 2, 3, V, 3, 2, 6, 0], [2, 2, V, V, 1, 0, 4, 5, 6]])


def make(build, name, **changes):
    return build(name, V, **{"hidden": H, "embedding": E} | changes)


@members
@pytest.mark.parametrize("layers", [1, 3])
def test_forward_is_the_step_written_out_layer_upon_layer(build, name, layers):
    model = make(build, name, layers=layers)
    logits, after = model(TOKENS, model.initial_state(2))
    parts = len(after) // layers
    state = list(model.initial_state(2))
    naive = []
    for t in range(TOKENS.shape[1]):
        x, is_start = model.embed.weight[TOKENS[:, t]], TOKENS[:, t] == V
        for i, layer in enumerate(model.layers):
            mine = slice(i * parts, (i + 1) * parts)
            values, state[mine] = layer.step(x, is_start, tuple(state[mine]))
            x = values["hidden"]
        naive.append(x @ model.output.weight.t() + model.output.bias)
    assert torch.allclose(logits, torch.stack(naive, 1), atol=1e-5)
    for found, right in zip(after, state, strict=True):
        assert torch.allclose(found, right, atol=1e-5)


@members
def test_recurrent_weights_begin_orthogonal_and_biases_at_zero(build, name):
    layer = make(build, name).layers[0]
    for block in layer.recurrent_weight.chunk(BLOCKS[name]):
        assert torch.allclose(block @ block.t(), torch.eye(H), atol=1e-5)
    assert layer.input_weight.abs().max() <= H**-0.5
    assert (make(build, name).output.bias == 0).all()


@members
@pytest.mark.parametrize("layers", [1, 2])
def test_parameters_are_counted_by_hand(build, name, layers):
    model = make(build, name, layers=layers)
    blocks = BLOCKS[name]
    extra = H if name == "gru" else 0  # a bias inside the reset gate's reach
    body = blocks * (E * H + H * H + H) + extra
    body += (layers - 1) * (blocks * (2 * H * H + H) + extra)
    assert model.body_parameters() == body
    assert model.parameter_count() == body + (V + 1) * E + H * V + V
    weights = blocks * (E + H) * H + (layers - 1) * blocks * 2 * H * H + H * V
    assert model.flops_per_token() == 2 * weights


@members
def test_tied_weights_are_shared_and_count_once(build, name):
    model = make(build, name, tie=True, embedding=H)
    free = make(build, name, tie=False, embedding=H)
    assert free.parameter_count() - model.parameter_count() == H * V
    model.train()
    logits, _ = model(TOKENS, model.initial_state(2))
    h = torch.linalg.lstsq(model.embed.weight[:V], (logits - model.output.bias)[0, 0]).solution
    assert torch.allclose(model.embed.weight[:V] @ h, logits[0, 0], atol=1e-4)
    logits.sum().backward()
    assert model.output.weight.grad is None
    assert model.embed.weight.grad[:V].abs().sum(1).gt(0).all()


@members
def test_tying_unlike_sizes_is_refused_with_the_way_out(build, name):
    with pytest.raises(UsageError) as caught:
        make(build, name, tie=True)
    assert caught.value.hint == f"--set embedding={H}"


@members
def test_sizes_not_given_fall_back(build, name):
    model = MODELS.load(name)(V, MODELS.load(name).Settings())
    assert (model.embed.weight.shape, model.hidden) == ((V + 1, 64), 256)


def test_dropout_is_one_mask_for_all_steps_of_a_sequence():
    torch.manual_seed(0)
    x = torch.ones(11, 4, 500)
    dropped = locked_dropout(x, 0.25, training=True)
    assert torch.equal(dropped, dropped[:1].expand_as(x))
    assert not torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.06)
    assert torch.equal(locked_dropout(x, 0.25, training=False), x)
    assert torch.equal(locked_dropout(x, 0.0, training=True), x)


@members
@pytest.mark.parametrize("setting", ["dropout", "input_dropout"])
def test_dropout_acts_in_training_only(build, name, setting):
    model = make(build, name, **{setting: 0.5})
    still = model(TOKENS, model.initial_state(2))[0]
    assert torch.equal(still, model(TOKENS, model.initial_state(2))[0])
    assert torch.equal(still, make(build, name)(TOKENS, model.initial_state(2))[0])
    model.train()
    assert not torch.equal(still, model(TOKENS, model.initial_state(2))[0])


@members
def test_dropout_leaves_the_carried_state_whole(build, name):
    model = make(build, name, dropout=0.9).train()
    _, dropped = model(TOKENS, model.initial_state(2))
    _, whole = model.eval()(TOKENS, model.initial_state(2))
    for one, other in zip(dropped, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@members
def test_low_precision_comes_close_and_gives_float32(build, name):
    model = make(build, name)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = model(TOKENS, model.initial_state(2))
    assert low.dtype == torch.float32
    assert torch.allclose(low, model(TOKENS, model.initial_state(2))[0], atol=0.05)


@members
def test_gradients_are_those_of_the_step_written_out(build, name):
    model = make(build, name, layers=2).train()
    targets = torch.tensor([[1, 2, 3, 3, 3, 2, 6, 0, 1], [2, 1, 1, 1, 0, 4, 5, 6, 6]])
    fast = F.cross_entropy(
        model(TOKENS, model.initial_state(2))[0].flatten(0, 1), targets.flatten()
    )
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(fast, list(parameters.values()))
    state, parts = list(model.initial_state(2)), model.Layer.parts
    loss = 0.0
    for t in range(TOKENS.shape[1]):
        x, is_start = F.embedding(TOKENS[:, t], model.embed.weight), TOKENS[:, t] == V
        for i, layer in enumerate(model.layers):
            mine = slice(i * parts, (i + 1) * parts)
            values, state[mine] = layer.step(x, is_start, tuple(state[mine]))
            x = values["hidden"]
        loss = loss + F.cross_entropy(model.output(x), targets[:, t], reduction="sum")
    right = torch.autograd.grad(loss / targets.numel(), list(parameters.values()))
    for one, other in zip(found, right, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
