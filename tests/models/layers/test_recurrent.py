"""What rnn, gru and lstm share: their layers, dropout, tying, and how big they are."""

import math

import pytest
import torch
from torch.nn import functional as F

from lmcli.errors import UsageError
from lmcli.models.base import ActivationRecorder
from lmcli.models.layers.recurrent import Recurrent, locked_dropout, weight_dropout
from lmcli.registry import MODELS
from lmcli.settings import names

V, E, H = 7, 5, 6
BLOCKS = {"rnn": 1, "gru": 3, "lstm": 4}
members = pytest.mark.parametrize("name", sorted(BLOCKS))
TOKENS = torch.tensor([[V, 1, 2, 3, V, 3, 2, 6, 0], [2, 2, V, V, 1, 0, 4, 5, 6]])


def make(build, name, **changes):
    return build(name, V, **{"hidden": H, "embedding": E} | changes)


def written_out(layer, x, is_start, state):
    """A layer's output by one step of its recurrence and, where it has one, its block's equations.

    Shapes: x (B, E), is_start (B,) -> (B, H), state.
    """
    read = x
    if layer.settings.block:
        deviation = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        read = (x - x.mean(-1, keepdim=True)) / deviation * layer.norm.weight + layer.norm.bias
    values, state = layer.step(read, is_start, state)
    h = values["hidden"]
    if not layer.settings.block:
        return h, state
    y = h @ layer.out_proj.weight.t() + (x if x.shape == h.shape else 0)
    inner = layer.ffn_norm(y) @ layer.up.weight.t() + layer.up.bias
    inner = inner * (1 + torch.erf(inner / 2**0.5)) / 2
    return y + inner @ layer.down.weight.t() + layer.down.bias, state


with_block_or_without = pytest.mark.parametrize("block", [False, True])


@members
@with_block_or_without
@pytest.mark.parametrize("layers", [1, 3])
def test_forward_is_the_step_written_out_layer_upon_layer(build, name, layers, block):
    model = make(build, name, layers=layers, block=block)
    logits, after = model(TOKENS, model.initial_state(2))
    parts = len(after) // layers
    state = list(model.initial_state(2))
    naive = []
    for t in range(TOKENS.shape[1]):
        x, is_start = model.embed.weight[TOKENS[:, t]], TOKENS[:, t] == V
        for i, layer in enumerate(model.layers):
            mine = slice(i * parts, (i + 1) * parts)
            x, state[mine] = written_out(layer, x, is_start, tuple(state[mine]))
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
@with_block_or_without
@pytest.mark.parametrize("layers", [1, 2])
def test_parameters_are_counted_by_hand(build, name, layers, block):
    model = make(build, name, layers=layers, block=block)
    blocks = BLOCKS[name]
    extra = H if name == "gru" else 0  # a bias inside the reset gate's reach
    body = blocks * (E * H + H * H + H) + extra
    body += (layers - 1) * (blocks * (2 * H * H + H) + extra)
    products = layers * 5 * H * H * block  # H to H, H to 2H, 2H to H
    body += products + block * (2 * E + (layers - 1) * 2 * H + layers * (2 * H + 2 * H + H))
    assert model.body_parameters() == body
    assert model.parameter_count() == body + (V + 1) * E + H * V + V
    weights = blocks * (E + H) * H + (layers - 1) * blocks * 2 * H * H + H * V
    assert model.flops_per_token() == 2 * (weights + products)


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


@pytest.mark.parametrize("name", [*sorted(BLOCKS), "lstm coupled=true"])
def test_weight_drop_leaves_out_the_same_recurrent_weights_in_all_steps(build, name):
    dropped, plain = (make(build, name, weight_drop=rate) for rate in (0.4, None))
    plain.load_state_dict(dropped.state_dict())
    torch.manual_seed(1)
    weight = plain.layers[0].recurrent_weight
    left = weight_dropout(weight, 0.4)  # the same random numbers
    assert 0.1 < (left == 0).float().mean() < 0.7
    with torch.no_grad():
        weight.copy_(left)
    torch.manual_seed(1)
    state = plain.initial_state(2)
    expected, _ = plain.train()(TOKENS, state)
    found, _ = dropped.train()(TOKENS, state)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    gradient = dropped.layers[0].recurrent_weight.grad
    assert torch.equal(gradient[left == 0], torch.zeros(int((left == 0).sum())))
    assert gradient[left != 0].abs().max() > 0
    scored, _ = dropped.eval()(TOKENS, state)
    assert not torch.allclose(scored, expected)  # all weights are there again


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_weight_dropout_leaves_out_its_share_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    weight = torch.rand(401, 301, requires_grad=True)
    found = weight_dropout(weight, rate)
    share = (found == 0).double().mean().item()
    assert share == pytest.approx(round(256 * rate) / 256, abs=0.004)  # 3 standard errors
    assert found.mean().item() == pytest.approx(weight.mean().item(), rel=0.03)
    found.sum().backward()
    scale = 256 / (256 - round(256 * rate))
    assert sorted(weight.grad.unique().tolist()) == pytest.approx([0.0, scale])
    assert torch.equal(found, weight * weight.grad)
    assert not torch.equal(found, weight_dropout(weight, rate))
    assert weight_dropout(weight, 0.0) is weight


def test_who_has_recurrent_weights_has_the_setting():
    with_weights = [
        name for name in MODELS.names() if "weight_drop" in names(MODELS.load(name).Settings)
    ]
    assert with_weights == ["gru", "hybrid", "lstm", "rnn"]


@members
def test_dropout_leaves_the_carried_state_whole(build, name):
    model = make(build, name, dropout=0.9).train()
    _, dropped = model(TOKENS, model.initial_state(2))
    _, whole = model.eval()(TOKENS, model.initial_state(2))
    for one, other in zip(dropped, whole, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@members
@with_block_or_without
def test_low_precision_comes_close_and_gives_float32(build, name, block):
    model = make(build, name, block=block)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = model(TOKENS, model.initial_state(2))
    assert low.dtype == torch.float32
    assert torch.allclose(low, model(TOKENS, model.initial_state(2))[0], atol=0.05)


@members
@with_block_or_without
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_gradients_are_those_of_the_step_written_out(build, name, block, dtype, tolerance):
    model = make(build, name, layers=2, block=block).train().to(dtype)
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
            x, state[mine] = written_out(layer, x, is_start, tuple(state[mine]))
        loss = loss + F.cross_entropy(model.output(x), targets[:, t], reduction="sum")
    right = torch.autograd.grad(loss / targets.numel(), list(parameters.values()))
    for one, other in zip(found, right, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------ memories at the beginning


GATED = [name for name in MODELS.names() if "chrono" in names(MODELS.load(name).Settings)]
LONGEST = 64


def test_all_recurrences_that_gate_what_is_kept_have_the_setting():
    recurrent = {name for name in MODELS.names() if issubclass(MODELS.load(name), Recurrent)}
    assert recurrent - set(GATED) == {"rnn"}


def initial_retention(build, name, width, chrono):
    """What the biases of a new network keep of each unit a step."""
    model = build(name, V, hidden=width, embedding=2, layers=1, block=False, chrono=chrono)
    for weight in model.layers[0].parameters():
        weight.mul_(weight.dim() < 2)
    recorder = ActivationRecorder()
    model(torch.tensor([[1, 2]]), model.initial_state(1), recorder)
    return model.retention(recorder)[0, 0].double()


@pytest.mark.parametrize("name", [*GATED, "lstm coupled=true"])
@torch.no_grad()
def test_chrono_begins_with_memories_of_all_lengths_in_half_of_the_units(build, name):
    """The half-life of a unit that keeps r a step is -ln 2 / ln r; here r = u / (1 + u)."""
    kept = initial_retention(build, name, 400, float(LONGEST))
    u = (kept / (1 - kept))[:200]  # uniform in 1 .. T - 1
    assert u.min() >= 0.999
    assert u.max() <= LONGEST - 0.999
    for share in (0.1, 0.5, 0.9):
        assert u.quantile(share) == pytest.approx(1 + share * (LONGEST - 2), abs=5)
    half_life = (-math.log(2) / kept.log())[:200].median()
    assert half_life == pytest.approx(math.log(2) * (LONGEST + 1) / 2, abs=4)
    assert torch.equal(kept[200:], initial_retention(build, name, 400, None)[200:])
