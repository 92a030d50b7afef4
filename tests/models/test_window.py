"""The window model against a loop over positions, tokens and units."""

import math

import pytest
import torch
from torch import nn

from lmcli.models.window import Window, WindowSettings

V, N = 5, 4


def small(seed=0, **changes):
    torch.manual_seed(seed)
    return Window(V, WindowSettings(**{"window": N, "hidden": 7, "embedding": 3} | changes)).eval()


def naive(model, tokens):
    """Logits (T, V) by Bengio's equations, one position at a time."""
    rows = []
    for t in range(len(tokens)):
        seen = [V] * N + tokens[: t + 1]
        seen = seen[-N:]
        if V in seen:
            last = max(i for i, token in enumerate(seen) if token == V)
            seen = [V] * last + seen[last:]
        x = [v for token in seen for v in model.embed.weight[token].tolist()]
        h = [
            math.tanh(sum(w * v for w, v in zip(row, x, strict=True)) + bias)
            for row, bias in zip(
                model.hidden.weight.tolist(), model.hidden.bias.tolist(), strict=True
            )
        ]
        y = [
            sum(w * v for w, v in zip(row, h, strict=True)) + bias
            for row, bias in zip(
                model.output.weight.tolist(), model.output.bias.tolist(), strict=True
            )
        ]
        if model.direct is not None:
            for i, row in enumerate(model.direct.weight.tolist()):
                y[i] += sum(w * v for w, v in zip(row, x, strict=True))
        rows.append(y)
    return torch.tensor(rows)


@pytest.mark.parametrize("direct", [False, True])
def test_logits_are_those_of_the_equations(direct):
    model = small(direct=direct)
    tokens = [0, 3, 4, 1, 2, V, 2, 2, V, V, 0, 1, 2, 3, 4, 0]
    logits, _ = model(torch.tensor([tokens]), model.initial_state(1))
    assert torch.allclose(logits[0], naive(model, tokens), atol=1e-5)


def test_the_state_is_the_last_tokens_and_forgets_at_a_start():
    model = small()
    _, state = model(torch.tensor([[0, 1, 2, 3, 4], [0, 1, 2, V, 4]]), model.initial_state(2))
    assert state[0].tolist() == [[2, 3, 4], [V, V, 4]]


def test_nothing_further_back_than_the_window_is_seen():
    model = small()
    base = torch.tensor([[0, 1, 2, 3, 4, 0, 1]])
    logits, _ = model(base, model.initial_state(1))
    for t in range(7):
        other = base.clone()
        other[0, t] = (base[0, t] + 1) % V
        changed = (model(other, model.initial_state(1))[0] - logits).abs().amax(-1)[0] > 0
        assert changed.tolist() == [t <= i < t + N for i in range(7)]


def test_a_window_of_one_token_has_no_state_but_works():
    model = small(window=1)
    logits, state = model(torch.tensor([[1, 2, 1]]), model.initial_state(1))
    assert state[0].shape == (1, 0)
    assert torch.allclose(logits[0, 0], logits[0, 2], atol=1e-6)


def test_low_precision_gives_logits_in_float32():
    model = small()
    tokens = torch.tensor([[0, 1, 2]])
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = model(tokens, model.initial_state(1))
    assert low.dtype == torch.float32
    assert torch.allclose(low, model(tokens, model.initial_state(1))[0], atol=0.05)


def test_dropout_acts_in_training_only():
    model = small(dropout=0.5)
    tokens = torch.tensor([[0, 1, 2]])
    still = model(tokens, model.initial_state(1))[0]
    assert torch.equal(still, model(tokens, model.initial_state(1))[0])
    model.train()
    assert not torch.equal(still, model(tokens, model.initial_state(1))[0])


@pytest.mark.parametrize("direct", [False, True])
def test_parameters_are_counted_by_hand(direct):
    model = small(direct=direct)
    body = N * 3 * 7 + 7 + (N * 3 * V if direct else 0)
    assert model.body_parameters() == body
    assert model.parameter_count() == body + (V + 1) * 3 + 7 * V + V
    assert model.flops_per_token() == 2 * (N * 3 * 7 + 7 * V + (N * 3 * V if direct else 0))


def test_sizes_not_given_fall_back():
    model = Window(V, WindowSettings())
    assert model.hidden.weight.shape == (256, 8 * 64)


def test_a_rule_within_the_window_is_learned():
    model = small(hidden=16, embedding=4).train()
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(V, (8, 23), generator=rng)
    for t in range(3, 23):  # the token three back, again
        tokens[:, t] = tokens[:, t - 3]
    for _ in range(150):
        logits, _ = model(tokens[:, :-1], model.initial_state(8))
        loss = nn.functional.cross_entropy(logits[:, 2:].flatten(0, 1), tokens[:, 3:].flatten())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= gradient
    assert loss.item() < 0.1
