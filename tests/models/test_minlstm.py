"""The minimal LSTM against its equations, and the shares of its two gates at the extremes."""

import math

import pytest
import torch

from lmcli.models.base import ActivationRecorder
from lmcli.models.minlstm import MinLSTM, MinLSTMSettings

V, E, H = 5, 3, 4
TOKENS = [V, 0, 3, 1, V, 4, 4, 2, 0]


def small(seed=0, **changes):
    torch.manual_seed(seed)
    settings = MinLSTMSettings(**({"hidden": H, "embedding": E, "chrono": None} | changes))
    return MinLSTM(V, settings).double().eval()


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive(layer, xs, is_start):
    """h of one sequence by the equations in the module's docstring."""
    h, out = [0.0] * H, []
    for x, starts in zip(xs, is_start, strict=True):
        total = (layer.input_weight @ layer.norm(x) + layer.bias).tolist()
        for k in range(H):
            f, i, n = sigmoid(total[k]), sigmoid(total[H + k]), total[2 * H + k]
            h[k] = (0.0 if starts else f / (f + i)) * h[k] + i / (f + i) * n
        out.append(list(h))
    return torch.tensor(out, dtype=torch.float64)


@torch.no_grad()
def test_hidden_vectors_are_those_of_the_equations():
    model, recorder = small(layers=1, chrono=20), ActivationRecorder()
    model(torch.tensor([TOKENS]), model.initial_state(1), recorder)
    xs = model.embed(torch.tensor(TOKENS))
    expected = naive(model.layers[0], xs, [token == V for token in TOKENS])
    assert torch.allclose(recorder["hidden"][0], expected)
    _, (h,) = model(torch.tensor([TOKENS]), model.initial_state(1))
    assert torch.allclose(h[0], expected[-1])


@pytest.mark.parametrize("cut", range(1, len(TOKENS)))
@torch.no_grad()
def test_a_text_may_be_cut_anywhere(cut):
    model = small(layers=2)
    tokens = torch.tensor([TOKENS])
    whole, after = model(tokens, model.initial_state(1))
    first, state = model(tokens[:, :cut], model.initial_state(1))
    second, state = model(tokens[:, cut:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-6)
    assert all(torch.allclose(a, b) for a, b in zip(state, after, strict=True))


@torch.no_grad()
def test_what_is_kept_and_what_is_written_make_a_whole():
    model, recorder = small(layers=2), ActivationRecorder()
    model(torch.tensor([TOKENS[1:4]]), model.initial_state(1), recorder)
    kept = model.retention(recorder)
    assert kept.shape == (1, 3, 2 * H)
    assert torch.allclose(kept + recorder.across_layers("write"), torch.ones_like(kept))


@pytest.mark.parametrize(
    ("f", "i", "share"),
    [(0, 0, 1 / 2), (math.log(3), 0, 3 / 5), (300, -300, 1), (-300, 300, 0), (-900, -900, 1 / 2)],
)
@torch.no_grad()
def test_the_share_kept_is_f_over_f_plus_i_at_the_extremes_too(f, i, share):
    gates = small().layers[0].gate_values(torch.tensor([f, i, 0.0], dtype=torch.float32))
    assert float(gates["keep"]) == pytest.approx(share, abs=1e-6)
    assert float(gates["write"]) == pytest.approx(1 - share, abs=1e-6)


@torch.no_grad()
def test_chrono_gives_half_of_the_units_memories_of_all_lengths():
    layer = small(hidden=400, chrono=100.0, forget_bias=2.0).layers[0]
    f, i, n = layer.bias.chunk(3)
    steps = f[:200].exp()
    assert steps.min() >= 1
    assert steps.max() <= 99
    assert steps.mean() == pytest.approx(50, abs=8)
    assert torch.equal(i[:200], -f[:200])
    assert f[200:].tolist() == [2.0] * 200
    assert i[200:].tolist() == n[200:].tolist() == [0.0] * 200


@torch.no_grad()
def test_the_forget_bias_sets_the_first_half_life():
    layer = small(forget_bias=3.0).layers[0]
    keep = layer.gate_values(layer.bias)["keep"]
    expected = sigmoid(3) / (sigmoid(3) + sigmoid(0))
    assert keep.tolist() == pytest.approx([expected] * H)


@torch.no_grad()
def test_in_bfloat16_the_state_is_still_float32():
    model = small(layers=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = model(torch.tensor([TOKENS]), model.initial_state(1))
    assert {x.dtype for x in (logits, *state)} == {torch.float32}
