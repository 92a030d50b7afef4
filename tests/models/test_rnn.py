"""The simple RNN against its equation, one unit at a time, and against torch.nn.RNN."""

import math

import pytest
import torch
from torch import nn

V, E, H = 5, 3, 4
both = pytest.mark.parametrize("activation", ["tanh", "relu"])
FUNCTIONS = {"tanh": math.tanh, "relu": lambda x: max(0.0, x)}


def naive(layer, xs, function):
    """Hidden vectors of one sequence by the equation in the module's docstring."""
    W, U, b = (p.tolist() for p in (layer.input_weight, layer.recurrent_weight, layer.bias))
    h, out = [0.0] * H, []
    for x in xs:
        h = [
            function(
                b[k]
                + sum(w * v for w, v in zip(W[k], x, strict=True))
                + sum(u * v for u, v in zip(U[k], h, strict=True))
            )
            for k in range(H)
        ]
        out.append(h)
    return torch.tensor(out)


def small(build, **changes):
    model = build("rnn", V, **{"hidden": H, "embedding": E} | changes)
    with torch.no_grad():
        for layer in model.layers:  # zero at the beginning; here they must show
            layer.bias.copy_(torch.linspace(-0.2, 0.5, H))
    return model


@both
def test_hidden_vectors_are_those_of_the_equation(build, activation):
    model = small(build, activation=activation)
    tokens = [0, 3, 1, 4, 4, 2, 0]
    xs = model.embed.weight[tokens].tolist()
    hidden = naive(model.layers[0], xs, FUNCTIONS[activation])
    logits, (h,) = model(torch.tensor([tokens]), model.initial_state(1))
    assert torch.allclose(h[0], hidden[-1], atol=1e-5)
    assert torch.allclose(logits[0], model.output(hidden), atol=1e-5)


@both
def test_with_copied_weights_it_is_torchs_rnn(build, activation):
    model = small(build, layers=2, activation=activation)
    theirs = nn.RNN(E, H, num_layers=2, batch_first=True, nonlinearity=activation)
    for i, layer in enumerate(model.layers):
        getattr(theirs, f"weight_ih_l{i}").data.copy_(layer.input_weight)
        getattr(theirs, f"weight_hh_l{i}").data.copy_(layer.recurrent_weight)
        getattr(theirs, f"bias_ih_l{i}").data.copy_(layer.bias)
        getattr(theirs, f"bias_hh_l{i}").data.zero_()
    tokens = torch.randint(V, (3, 11), generator=torch.Generator().manual_seed(0))
    y, h = theirs(model.embed(tokens))
    logits, state = model(tokens, model.initial_state(3))
    assert torch.allclose(logits, model.output(y), atol=1e-5)
    for found, right in zip(state, h, strict=True):
        assert torch.allclose(found, right, atol=1e-5)


def test_with_relu_it_begins_as_the_identity_and_with_tanh_not(build):
    relu = build("rnn", V, activation="relu").layers[0]
    assert torch.equal(relu.recurrent_weight, torch.eye(relu.hidden))
    assert relu.input_weight.abs().max() < 0.3
    tanh = build("rnn", V, activation="tanh").layers[0]
    assert not torch.allclose(tanh.recurrent_weight, torch.eye(tanh.hidden), atol=0.1)


@both
def test_at_a_documents_start_the_state_before_is_zero(build, activation):
    model = small(build, activation=activation)
    _, filled = model(torch.tensor([[V]]), (torch.full((1, H), 0.9),))
    _, empty = model(torch.tensor([[V]]), model.initial_state(1))
    assert torch.equal(filled[0], empty[0])
