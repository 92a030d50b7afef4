"""The LSTM's variants against written-out cells, the scan's gradient, and the first biases."""

import itertools
import math

import pytest
import torch

from lmcli.errors import UsageError
from lmcli.models.base import ActivationRecorder
from lmcli.models.gru import GRU, GRUSettings
from lmcli.models.layers.local_attention import OutputAttention
from lmcli.models.layers.recurrent_kernels import LSTMScan
from lmcli.models.lstm import LSTM, LSTMSettings

V, E, H = 5, 3, 4
TOKENS = [V, 0, 3, 1, V, 4, 4, 2, 0]
KINDS = {"gate": {}, "coupled": {"coupled": True}, "all": {"forget": False}}
every_kind = pytest.mark.parametrize("kind", KINDS)
with_or_without = pytest.mark.parametrize("peepholes", [False, True])


def small(seed=0, **changes):
    torch.manual_seed(seed)
    model = LSTM(V, LSTMSettings(**({"hidden": H, "embedding": E} | changes))).double().eval()
    for layer in model.layers:
        if changes.get("peepholes"):
            torch.nn.init.normal_(layer.recurrent_peepholes)
    return model


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive(layer, xs, is_start, kind, peepholes):
    """h shown and left in one sequence by the equations in the docstring, unit by unit."""
    W, U, b = layer.input_weight, layer.recurrent_weight, layer.bias
    names = "ifgo" if kind == "gate" else "igo"
    seen = dict.fromkeys(names, [0.0] * H)
    if peepholes:
        rows = layer.recurrent_peepholes.tolist()
        seen |= dict(zip(names.replace("g", ""), rows, strict=True))
    h, c, out = torch.zeros(H).double(), [0.0] * H, []
    for x, starts in zip(xs, is_start, strict=True):
        if starts:
            h, c = torch.zeros(H).double(), [0.0] * H
        blocks = (W @ x + U @ h + b).view(-1, H).tolist()
        total = dict(zip(names, blocks, strict=True))
        for k in range(H):
            i = sigmoid(total["i"][k] + seen["i"][k] * c[k])
            f = {"coupled": 1 - i, "all": 1.0}.get(kind)
            if f is None:
                f = sigmoid(total["f"][k] + seen["f"][k] * c[k])
            c[k] = f * c[k] + i * math.tanh(total["g"][k])
            h[k] = sigmoid(total["o"][k] + seen["o"][k] * c[k]) * math.tanh(c[k])
        out.append(h.clone())
        if starts:
            h, c = torch.zeros(H).double(), [0.0] * H
    return torch.stack(out), h


@every_kind
@with_or_without
@torch.no_grad()
def test_hidden_vectors_are_those_of_the_equations(kind, peepholes):
    model = small(peepholes=peepholes, **KINDS[kind])
    xs, is_start = model.embed(torch.tensor(TOKENS)), [token == V for token in TOKENS]
    hidden, left = naive(model.layers[0], xs, is_start, kind, peepholes)
    logits, (h, _) = model(torch.tensor([TOKENS]), model.initial_state(1))
    assert torch.allclose(h[0], left)
    assert torch.allclose(logits[0].double(), model.output(hidden), atol=1e-6)


@every_kind
@with_or_without
@torch.no_grad()
def test_the_written_out_step_is_the_scan(kind, peepholes):
    model, recorder = small(peepholes=peepholes, layers=2, **KINDS[kind]), ActivationRecorder()
    tokens = torch.tensor([TOKENS, TOKENS[::-1]])
    plain, after = model(tokens, model.initial_state(2))
    recorded, state = model(tokens, model.initial_state(2), recorder)
    assert torch.allclose(plain, recorded, atol=1e-6)
    assert all(torch.allclose(a, b) for a, b in zip(after, state, strict=True))
    assert ("1.forget" in recorder.values) == (kind != "all")


@every_kind
@with_or_without
@pytest.mark.parametrize("starts", [False, True])
def test_the_scan_has_the_right_gradient(kind, peepholes, starts):
    steps, batch, blocks = 4, 2, 4 if kind == "gate" else 3
    generator = torch.Generator().manual_seed(0)
    shapes = [(steps, batch, blocks * H), (batch, H), (batch, H), (blocks * H, H)]
    shapes += [(blocks - 1, H)] if peepholes else []
    stay = torch.ones(steps, batch, 1).double()
    stay[0, 1] = stay[2, 0] = 0
    inputs = [
        torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes
    ]

    def scan(x, h, c, weight, seen=None):
        return LSTMScan.apply(x, h, c, weight, seen, stay if starts else None, kind, False)

    assert torch.autograd.gradcheck(scan, inputs)


def test_the_scan_is_torchs_lstm_in_values_and_gradients():
    model = small()
    layer = model.layers[0]
    x = torch.randn(7, 2, E).double()
    state = torch.randn(2, H).double(), torch.randn(2, H).double()
    is_start = torch.zeros(7, 2, dtype=torch.bool)
    ways = [way(x, is_start, state) for way in (layer._fused, layer._scanned)]
    assert torch.allclose(ways[0][0], ways[1][0])
    assert torch.allclose(ways[0][1][1], ways[1][1][1])
    weights = [layer.input_weight, layer.recurrent_weight, layer.bias]
    pair = [torch.autograd.grad(y.square().sum() + c.sum(), weights) for y, (_, c) in ways]
    assert all(torch.allclose(a, b) for a, b in zip(*pair, strict=True))


@torch.no_grad()
def test_without_variants_it_is_the_lstm_of_old():
    names = [name for name, _ in small().named_parameters() if name.startswith("layers")]
    assert names == [f"layers.0.{n}" for n in ("input_weight", "recurrent_weight", "bias")]
    torch.manual_seed(0)
    torch.nn.Embedding(V + 1, E)
    expected = torch.empty(4 * H, E).uniform_(-(H**-0.5), H**-0.5)
    assert torch.equal(small().layers[0].input_weight.float(), expected)


@pytest.mark.parametrize("kind", ["coupled", "all"])
def test_a_variant_begins_with_the_plain_weights_of_its_gates(kind):
    plain, variant = small().layers[0], small(**KINDS[kind]).layers[0]
    for name in ("input_weight", "recurrent_weight"):
        i, _, g, o = getattr(plain, name).chunk(4)
        assert torch.equal(getattr(variant, name), torch.cat([i, g, o]))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [0, 1, 0, 0]),
        ({"peepholes": True, "forget_bias": 2.0}, [0, 2, 0, 0]),
        ({"coupled": True, "forget_bias": 2.0}, [-2, 0, 0]),
        ({"forget": False}, [0, 0, 0]),
    ],
)
def test_the_forget_bias_keeps_in_every_variant(changes, expected):
    bias = small(**changes).layers[0].bias
    assert bias.tolist() == [float(b) for b in expected for _ in range(H)]


@torch.no_grad()
def test_chrono_keeps_half_of_the_units_for_all_lengths():
    i, f, g, o = small(hidden=400, chrono=100.0).layers[0].bias.chunk(4)
    steps = f[:200].exp()
    assert (steps.min() >= 1, steps.max() <= 99) == (True, True)
    assert steps.mean() == pytest.approx(50, abs=8)
    assert torch.equal(i[:200], -f[:200])
    assert f[200:].tolist() == [1.0] * 200
    assert not any(part.any() for part in (i[200:], g, o))


@torch.no_grad()
def test_chrono_of_a_coupled_gate_shuts_the_input():
    bias = small(hidden=400, chrono=100.0, coupled=True).layers[0].bias[:400]
    steps = bias[:200].neg().exp()
    assert (steps.min() >= 1, steps.max() <= 99) == (True, True)
    assert bias[200:].tolist() == [-1.0] * 200


@torch.no_grad()
def test_chrono_of_a_gru_opens_the_keep_gate():
    torch.manual_seed(0)
    layer = GRU(V, GRUSettings(hidden=400, embedding=E, chrono=100.0)).layers[0]
    r, z, n = layer.bias.chunk(3)
    steps = z[:200].exp()
    assert (steps.min() >= 1, steps.max() <= 99) == (True, True)
    assert steps.mean() == pytest.approx(50, abs=8)
    assert not any(part.any() for part in (r, z[200:], n))


@torch.no_grad()
def test_retention_is_the_forget_gate_or_one_minus_the_input_gate():
    for kind, changes in KINDS.items():
        model, recorder = small(layers=2, **changes), ActivationRecorder()
        model(torch.tensor([TOKENS]), model.initial_state(1), recorder)
        kept = model.retention(recorder)
        if kind == "all":
            assert kept is None
        else:
            expected = [recorder[f"{n}.forget"] for n in (1, 2)]
            assert torch.equal(kept, torch.cat(expected, -1))
        if kind == "coupled":
            assert torch.allclose(kept, 1 - recorder.across_layers("input"))


@torch.no_grad()
def test_the_cell_of_1997_never_loses_what_it_holds():
    model = small(forget=False)
    _, (h, c) = model(torch.tensor([[V, 1, 2]]), model.initial_state(1))
    model.layers[0].bias[:H] = -500  # nothing is written
    _, (_, after) = model(torch.randint(V, (1, 300)), (h, c))
    assert torch.allclose(after, c, atol=1e-12)


def test_coupled_without_a_forget_gate_is_refused():
    with pytest.raises(UsageError, match="coupled"):
        small(coupled=True, forget=False)


@torch.no_grad()
def test_looking_back_is_a_softmax_over_the_last_outputs_of_the_document():
    torch.manual_seed(0)
    head = OutputAttention(H, 2).double()
    torch.nn.init.normal_(head.distance_bias)
    x = torch.randn(6, 1, H).double()
    is_start = torch.tensor([True, False, False, True, False, False]).unsqueeze(1)
    y, _ = head(x, is_start, head.initial_state(1))
    sights = [[0], [0, 1], [0, 1, 2], [3], [3, 4], [3, 4, 5]]
    key, value = head.key_value(x[:, 0]).chunk(2, -1)
    for t, sight in enumerate(sights):
        query = head.query(x[t, 0])
        scores = [
            float(query @ key[s]) / H**0.5 + float(head.distance_bias[0, t - s]) for s in sight
        ]
        weights = torch.tensor(scores).double().softmax(0)
        assert torch.allclose(y[t, 0], x[t, 0] + weights @ value[sight], atol=1e-6)


@pytest.mark.parametrize("cuts", [(1, 4), range(1, 9)], ids=["chunks", "tokens"])
@torch.no_grad()
def test_looking_back_goes_on_over_the_cuts_of_a_text(cuts):
    model, tokens = small(attend=3), torch.tensor([TOKENS])
    whole, after = model(tokens, model.initial_state(1))
    state, parts = model.initial_state(1), []
    for begin, end in itertools.pairwise((0, *cuts, 9)):
        logits, state = model(tokens[:, begin:end], state)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(state, after, strict=True))
