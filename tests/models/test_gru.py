"""The GRU against its equations, one unit at a time, and against torch.nn.GRU."""

import math

import torch
from torch import nn

V, E, H = 5, 3, 4


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive(layer, xs):
    """Hidden vectors of one sequence by the equations in the module's docstring."""
    W, U, b = (p.tolist() for p in (layer.input_weight, layer.recurrent_weight, layer.bias))
    inner, h, out = layer.candidate_bias.tolist(), [0.0] * H, []
    for x in xs:
        from_x = [b[k] + sum(w * v for w, v in zip(W[k], x, strict=True)) for k in range(3 * H)]
        from_h = [sum(u * v for u, v in zip(U[k], h, strict=True)) for k in range(3 * H)]
        r = [sigmoid(from_x[k] + from_h[k]) for k in range(H)]
        z = [sigmoid(from_x[H + k] + from_h[H + k]) for k in range(H)]
        n = [math.tanh(from_x[2 * H + k] + r[k] * (from_h[2 * H + k] + inner[k])) for k in range(H)]
        h = [(1 - z[k]) * n[k] + z[k] * h[k] for k in range(H)]
        out.append(h)
    return torch.tensor(out)


def small(build, **changes):
    model = build("gru", V, **{"hidden": H, "embedding": E} | changes)
    with torch.no_grad():
        for layer in model.layers:  # zero at the beginning; here they must show
            layer.bias.copy_(torch.linspace(-0.5, 0.5, 3 * H))
            layer.candidate_bias.copy_(torch.linspace(0.7, -0.7, H))
    return model


def test_hidden_vectors_are_those_of_the_equations(build):
    model = small(build)
    tokens = [0, 3, 1, 4, 4, 2, 0]
    hidden = naive(model.layers[0], model.embed.weight[tokens].tolist())
    logits, (h,) = model(torch.tensor([tokens]), model.initial_state(1))
    assert torch.allclose(h[0], hidden[-1], atol=1e-6)
    assert torch.allclose(logits[0], model.output(hidden), atol=1e-5)


def test_with_copied_weights_it_is_torchs_gru(build):
    model = small(build, layers=2)
    theirs = nn.GRU(E, H, num_layers=2, batch_first=True)
    for i, layer in enumerate(model.layers):
        getattr(theirs, f"weight_ih_l{i}").data.copy_(layer.input_weight)
        getattr(theirs, f"weight_hh_l{i}").data.copy_(layer.recurrent_weight)
        getattr(theirs, f"bias_ih_l{i}").data.copy_(layer.bias)
        inner = torch.cat([torch.zeros(2 * H), layer.candidate_bias])
        getattr(theirs, f"bias_hh_l{i}").data.copy_(inner)
    tokens = torch.randint(V, (3, 11), generator=torch.Generator().manual_seed(0))
    y, h = theirs(model.embed(tokens))
    logits, state = model(tokens, model.initial_state(3))
    assert torch.allclose(logits, model.output(y), atol=1e-5)
    for found, right in zip(state, h, strict=True):
        assert torch.allclose(found, right, atol=1e-6)


def test_the_kernel_for_other_devices_gives_the_same(build):
    layer = small(build).layers[0]
    generator = torch.Generator().manual_seed(0)
    x, h = torch.randn(9, 2, E, generator=generator), torch.randn(2, H, generator=generator)
    is_start = torch.zeros(9, 2, dtype=torch.bool)
    is_start[0, 1] = is_start[5, 0] = True
    for found, right in zip(layer._fused(x, is_start, (h,)), layer(x, is_start, (h,)), strict=True):
        for one, other in zip(found, right, strict=True):
            assert torch.allclose(one, other, atol=1e-6)


def test_at_a_documents_start_only_the_token_counts(build):
    model = small(build)
    layer = model.layers[0]
    _, (h,) = model(torch.tensor([[V]]), (torch.full((1, H), 0.9),))
    x = model.embed.weight[V]
    expected = torch.tanh(layer.input_weight[2 * H :] @ x + layer.bias[2 * H :])
    assert torch.allclose(h[0], expected, atol=1e-6)


def test_a_keep_gate_that_is_shut_upon_the_new_keeps_the_state(build):
    model = small(build)
    with torch.no_grad():
        model.layers[0].bias[H : 2 * H] = 50
    before = torch.tensor([[0.5, -0.9, 0.2, 0.1]])
    _, (h,) = model(torch.randint(V, (1, 100)), (before,))
    assert torch.allclose(h, before, atol=1e-5)
