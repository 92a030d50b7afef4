"""The LSTM against its equations, one unit at a time, and against torch.nn.LSTM."""

import math

import pytest
import torch
from torch import nn

V, E, H = 5, 3, 4


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive(layer, xs):
    """Hidden vectors of one sequence by the equations in the module's docstring."""
    W, U, b = (p.tolist() for p in (layer.input_weight, layer.recurrent_weight, layer.bias))
    h, c, out = [0.0] * H, [0.0] * H, []
    for x in xs:
        total = [
            b[k] + sum(w * v for w, v in zip(W[k], x, strict=True))
            + sum(u * v for u, v in zip(U[k], h, strict=True))
            for k in range(4 * H)
        ]  # fmt: skip
        i, f, g, o = (total[k * H : (k + 1) * H] for k in range(4))
        c = [sigmoid(f[k]) * c[k] + sigmoid(i[k]) * math.tanh(g[k]) for k in range(H)]
        h = [sigmoid(o[k]) * math.tanh(c[k]) for k in range(H)]
        out.append(h)
    return torch.tensor(out)


def small(build, **changes):
    return build("lstm", V, **{"hidden": H, "embedding": E} | changes)


def test_hidden_vectors_are_those_of_the_equations(build):
    model = small(build)
    tokens = [0, 3, 1, 4, 4, 2, 0]
    hidden = naive(model.layers[0], model.embed.weight[tokens].tolist())
    logits, (h, _) = model(torch.tensor([tokens]), model.initial_state(1))
    assert torch.allclose(h[0], hidden[-1], atol=1e-6)
    assert torch.allclose(logits[0], model.output(hidden), atol=1e-5)


def test_with_copied_weights_it_is_torchs_lstm(build):
    model = small(build, layers=2)
    theirs = nn.LSTM(E, H, num_layers=2, batch_first=True)
    for i, layer in enumerate(model.layers):
        getattr(theirs, f"weight_ih_l{i}").data.copy_(layer.input_weight)
        getattr(theirs, f"weight_hh_l{i}").data.copy_(layer.recurrent_weight)
        getattr(theirs, f"bias_ih_l{i}").data.copy_(layer.bias)
        getattr(theirs, f"bias_hh_l{i}").data.zero_()
    tokens = torch.randint(V, (3, 11), generator=torch.Generator().manual_seed(0))
    y, (h, c) = theirs(model.embed(tokens))
    logits, state = model(tokens, model.initial_state(3))
    assert torch.allclose(logits, model.output(y), atol=1e-5)
    for found, right in zip(state, (h[0], c[0], h[1], c[1]), strict=True):
        assert torch.allclose(found, right, atol=1e-6)


@pytest.mark.parametrize("bias", [1.0, -0.5])
def test_only_the_forget_gate_begins_with_a_bias(build, bias):
    found = small(build, forget_bias=bias).layers[0].bias
    assert found.tolist() == [0.0] * H + [bias] * H + [0.0] * 2 * H


def test_reading_a_start_id_leaves_nothing_behind(build):
    model = small(build, forget_bias=20)
    _, state = model(torch.randint(V, (1, 50)), model.initial_state(1))
    _, (h, c) = model(torch.tensor([[V]]), state)
    assert max(h.abs().max(), c.abs().max()) < 1e-12


VARIANTS = [{}, {"peepholes": True}, {"coupled": True}, {"forget": False}]
VARIANTS += [{"peepholes": True, **variant} for variant in VARIANTS[2:4]]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_at_a_start_id_it_shows_the_first_step_of_one_that_has_read_nothing(build, variant):
    model = small(build, **variant)
    layer = model.layers[0]
    for parameter in layer.parameters():
        parameter.normal_()
    rows = layer.input_weight @ model.embed.weight[V] + layer.bias
    i, *_, g, o = rows.view(-1, H)
    c = i.sigmoid() * g.tanh()
    if variant.get("peepholes"):
        o = o + layer.recurrent_peepholes[-1] * c
    first = model.output(o.sigmoid() * c.tanh())
    tokens = torch.tensor([[3, 1, V, 2, V], [V, 0, 4, V, V]])
    logits, _ = model(tokens, model.initial_state(2))
    for row, place in (tokens == V).nonzero().tolist():
        assert torch.allclose(logits[row, place], first, atol=1e-5)


def test_a_forget_gate_that_is_open_keeps_the_cell(build):
    model = small(build)
    layer = model.layers[0]
    with torch.no_grad():
        layer.bias[:H] = -50  # nothing is written
        layer.bias[H : 2 * H] = 50  # all is kept
    cell = torch.tensor([[0.5, -1.0, 2.0, 0.1]])
    _, (_, c) = model(torch.randint(V, (1, 100)), (torch.zeros(1, H), cell))
    assert torch.allclose(c, cell, atol=1e-5)
