"""The minimal GRU against its equations, one unit at a time."""

import math

import pytest
import torch
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder
from lmcli.models.mingru import MinGRU, MinGRUSettings

V, E, H = 5, 3, 4
TOKENS = [V, 0, 3, 1, V, 4, 4, 2, 0]


def small(seed=0, **changes):
    torch.manual_seed(seed)
    settings = MinGRUSettings(**({"hidden": H, "embedding": E, "chrono": None} | changes))
    return MinGRU(V, settings).double().eval()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive(layer, xs, is_start):
    """h of one sequence by the equations in the module's docstring."""
    h, out = [0.0] * H, []
    for x, starts in zip(xs, is_start, strict=True):
        total = (layer.input_weight @ layer.norm(x) + layer.bias).tolist()
        for k in range(H):
            z, n = sigmoid(total[k]), total[H + k]
            h[k] = (0.0 if starts else 1 - z) * h[k] + z * n
        out.append(list(h))
    return torch.tensor(out, dtype=torch.float64)


def naive_layer(layer, xs, is_start):
    """What a layer passes on."""
    y = naive(layer, xs, is_start) @ layer.out_proj.weight.t()
    y = y + xs if xs.shape[-1] == H else y
    return y + layer.down(F.gelu(layer.up(layer.ffn_norm(y))))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("embedding", [E, H])
@torch.no_grad()
def test_logits_are_those_of_the_equations(layers, embedding):
    model = small(layers=layers, embedding=embedding, chrono=20)
    xs = model.embed(torch.tensor(TOKENS))
    is_start = [token == V for token in TOKENS]
    for layer in model.layers:
        before, xs = xs, naive_layer(layer, xs, is_start)
    logits, state = model(torch.tensor([TOKENS]), model.initial_state(1))
    assert torch.allclose(logits[0].double(), model.output(xs), atol=1e-6)
    assert len(state) == layers
    assert torch.allclose(state[-1][0], naive(model.layers[-1], before, is_start)[-1])


@torch.no_grad()
def test_the_gates_see_the_input_only():
    layer = small().layers[0]
    x, is_start = torch.randn(6, 2, E).double(), torch.zeros(6, 2, dtype=torch.bool)
    seen = []
    for state in (torch.zeros(2, H).double(), torch.randn(2, H).double()):
        recorder = ActivationRecorder()
        layer.forward_unrolled(x, is_start, (state,), recorder, "")
        seen.append(recorder)
    assert all(torch.equal(seen[0][n], seen[1][n]) for n in ("write", "keep", "candidate"))
    assert not torch.allclose(seen[0]["hidden"], seen[1]["hidden"])


@torch.no_grad()
def test_what_is_kept_is_what_is_not_written():
    model, recorder = small(layers=2), ActivationRecorder()
    model(torch.tensor([TOKENS[1:4] + TOKENS[5:]]), model.initial_state(1), recorder)
    assert sorted(recorder.values) == sorted(
        f"{layer}.{name}" for layer in (1, 2) for name in ("write", "keep", "candidate", "hidden")
    )
    written = recorder.across_layers("write")
    assert written.shape == (1, 7, 2 * H)
    assert torch.allclose(model.retention(recorder), 1 - written)
    hidden = recorder["2.hidden"]
    again = (
        recorder["2.keep"][:, 1:] * hidden[:, :-1]
        + (recorder["2.write"] * recorder["2.candidate"])[:, 1:]
    )
    assert torch.allclose(hidden[:, 1:], again)


@torch.no_grad()
def test_a_shut_write_gate_keeps_for_ever():
    model = small(layers=1)
    layer = model.layers[0]
    _, (h,) = model(torch.tensor([[V, 2, 3]]), model.initial_state(1))
    layer.input_weight[:H] = 0
    layer.bias[:H] = -60
    _, (after,) = model(torch.randint(V, (1, 500)), (h,))
    assert torch.allclose(after, h, atol=1e-12)


@torch.no_grad()
def test_chrono_gives_half_of_the_units_memories_of_all_lengths():
    layer = small(hidden=400, chrono=100.0, write_bias=-1.0).layers[0]
    steps = layer.bias[:200].neg().exp()  # a gate with bias -ln u keeps u / (1 + u) a step
    assert steps.min() >= 1
    assert steps.max() <= 99
    assert steps.mean() == pytest.approx(50, abs=8)
    assert layer.bias[200:400].tolist() == [-1.0] * 200
    assert layer.bias[400:].tolist() == [0.0] * 400


def test_the_layer_has_no_recurrent_weights():
    model = small(layers=2)
    assert not any("recurrent" in name for name, _ in model.named_parameters())
    first = 2 * H * E + 2 * H + 2 * E + H * H + 2 * H + 4 * H * H + 3 * H
    second = first + 2 * H * (H - E) + 2 * (H - E)
    assert model.body_parameters() == first + second
