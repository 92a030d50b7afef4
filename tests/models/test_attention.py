"""The Transformer against its equations, pair by pair of tokens, and what its window hides."""

import math

import pytest
import torch
from torch.nn import functional as F

from lmcli.models import attention
from lmcli.models.attention import Attention, AttentionSettings
from lmcli.models.layers import local_attention as local_attention_module
from lmcli.models.layers.local_attention import document_mask, local_attention, relative_bias

V = 5
TOKENS = [V, 0, 3, 1, 4, V, 2, 0, 1, 1, 3, 4]


def small(vocabulary=V, seed=0, **changes):
    torch.manual_seed(seed)
    settings = {"hidden": 10, "layers": 2, "heads": 3, "window": 4} | changes
    model = Attention(vocabulary, AttentionSettings(**settings)).double().eval()
    for layer in model.layers:
        torch.nn.init.normal_(layer.distance_bias)
    return model


def ids(rows, length, seed=1, starts=0.1):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (rows, length), generator=generator)
    return tokens.masked_fill(torch.rand(rows, length, generator=generator) < starts, V)


def naive_layer(layer, xs, places, heads, window):
    """Vectors of tokens through a layer; `places[t]` tokens of the same document lie before t."""
    read = [layer.query_key_value(layer.norm(x)).chunk(3) for x in xs]
    out = []
    for t, x in enumerate(xs):
        found = []
        for n in range(heads):
            q = read[t][0].chunk(heads)[n]
            sight = range(max(t - places[t], t - window + 1), t + 1)
            scores = [
                float(q @ read[s][1].chunk(heads)[n]) / math.sqrt(len(q))
                + float(layer.distance_bias[n, t - s])
                for s in sight
            ]
            total = sum(math.exp(score) for score in scores)
            pairs = zip(scores, sight, strict=True)
            found.append(sum(math.exp(w) / total * read[s][2].chunk(heads)[n] for w, s in pairs))
        x = x + layer.out_proj(torch.cat(found))
        out.append(x + layer.down(F.gelu(layer.up(layer.ffn_norm(x)))))
    return out


@pytest.mark.parametrize(("heads", "window"), [(1, 2), (3, 4), (2, 30)])
@torch.no_grad()
def test_logits_are_those_of_the_equations(heads, window):
    model = small(heads=heads, window=window)
    places = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]
    xs = list(model.embed(torch.tensor(TOKENS)))
    for layer in model.layers:
        xs = naive_layer(layer, xs, places, heads, window)
    expected = F.linear(model.norm(torch.stack(xs)), model.output_weight, model.output_bias)
    logits, _ = model(torch.tensor([TOKENS]), model.initial_state(1))
    assert torch.allclose(logits[0].double(), expected, atol=1e-5)


def test_the_bias_goes_by_distance_and_ends_with_the_window():
    bias = torch.tensor([[1.0, 2.0, 3.0]])
    out = -math.inf
    expected = [[3, 2, 1, out, out], [out, 3, 2, 1, out], [out, out, 3, 2, 1]]
    assert relative_bias(bias, 3).tolist() == [expected]


def test_a_token_sees_its_own_document_only():
    marks = torch.tensor([[0.0, 1.0, 1.0]])
    hidden, after = document_mask(marks, torch.tensor([[False, True, False]]))
    assert hidden.int().tolist() == [[[1, 0, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]]]
    assert after.tolist() == [[0, 1, 1]]


def test_nothing_is_hidden_within_one_long_document():
    hidden, after = document_mask(torch.ones(2, 3), torch.zeros(2, 5, dtype=torch.bool))
    assert hidden is None
    assert after.tolist() == [[1, 1, 1]] * 2


@torch.no_grad()
def test_layers_reach_back_their_windows_and_not_a_token_more():
    model = small(layers=3, window=4)
    tokens = ids(1, 30, starts=0)
    logits, _ = model(tokens, model.initial_state(1))
    for place in (5, 11):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % V
        changed = (model(other, model.initial_state(1))[0] != logits).any(-1)[0]
        assert changed.nonzero().flatten().tolist() == list(range(place, place + 3 * 3 + 1))


@torch.no_grad()
def test_what_is_read_does_not_depend_on_the_place():
    model = small(window=4)
    early, late = ids(1, 40, seed=2, starts=0), ids(1, 57, seed=3, starts=0)
    late[:, -20:] = early[:, -20:]
    one, other = (model(x, model.initial_state(1))[0][:, -10:] for x in (early, late))
    assert torch.allclose(one, other, atol=1e-6)


@torch.no_grad()
def test_a_long_chunk_is_read_in_pieces_without_a_trace(monkeypatch):
    model, tokens = small(window=6), ids(2, 50)
    whole, after = model(tokens, model.initial_state(2))
    monkeypatch.setattr(attention, "BLOCK", 7)
    pieces, state = model(tokens, model.initial_state(2))
    assert torch.allclose(pieces, whole, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(state, after, strict=True))


@torch.no_grad()
def test_the_last_logits_are_the_last_of_all():
    model, tokens = small(), ids(3, 20)
    logits, after = model(tokens, model.initial_state(3))
    last, state = model.last_logits(tokens, model.initial_state(3))
    assert torch.allclose(last, logits[:, -1])
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))


@torch.no_grad()
def test_the_state_is_zero_where_another_document_lies():
    model = small()
    _, filled = model(ids(2, 9, starts=0), model.initial_state(2))
    _, (marks, *rest) = model(torch.full((2, 1), V), filled)
    assert marks.tolist() == [[0, 0, 1]] * 2
    assert all((part[:, :2] == 0).all() for part in rest)
    assert all((part[:, 2] != 0).all() for part in rest)


def test_no_two_tensors_of_the_start_share_memory():
    start = small().initial_state(2)
    assert len({part.data_ptr() for part in start}) == len(start) == 5


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("window", [3, 30])  # with 30, zeros make the 31 keys 32
@pytest.mark.parametrize(("heads", "size"), [(2, 2), (1, 3)])
@pytest.mark.parametrize("is_masked", [True, False])
def test_attention_has_the_right_gradient(window, heads, size, is_masked):
    inner, keys = heads * size, window + 1
    marks = torch.ones(2, window - 1)
    marks[0, 0] = 0
    mask, _ = document_mask(marks, torch.tensor([[False, False], [False, True]]))

    def attend(query, key, value, bias):
        parts = key.split([window - 1, 2], dim=1)
        return local_attention(query, parts, [value], bias, mask if is_masked else None)

    arguments = [random(2, n, inner, seed=n) for n in (2, keys, keys)]
    assert torch.autograd.gradcheck(attend, (*arguments, random(heads, window)))


def test_zeros_after_the_keys_change_nothing(monkeypatch):
    model, tokens = small(window=30), ids(2, 34)
    padded, _ = model(tokens, model.initial_state(2))
    monkeypatch.setattr(local_attention_module, "ALIGNED", 1)
    exact, _ = model(tokens, model.initial_state(2))
    assert torch.allclose(padded, exact, atol=1e-12)


def test_in_bfloat16_gradients_come_close_to_those_of_the_same_numbers_in_float32():
    window, steps, heads, inner = 30, 12, 2, 16
    keys = window - 1 + steps
    shapes = (2, steps, inner), (2, keys, inner), (2, keys, inner), (heads, window)
    short = [random(*shape, seed=i, dtype=torch.float32) for i, shape in enumerate(shapes)]
    short = [x.detach().bfloat16().requires_grad_() for x in short]
    long = [x.detach().float().requires_grad_() for x in short]
    weights = random(2, steps, inner, seed=9, dtype=torch.float32).detach()

    def gradients(query, key, value, bias):
        with torch.autocast("cpu", torch.bfloat16, enabled=query.dtype == torch.bfloat16):
            y = local_attention(query, [key], [value], bias, None)
        assert y.dtype == query.dtype
        return torch.autograd.grad((y.float() * weights).sum(), (query, key, value, bias))

    for one, other in zip(gradients(*short), gradients(*long), strict=True):
        assert 0 < (one.float() - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("more", [2, 9])  # fewer and more than the window holds
def test_within_a_long_document_the_state_is_that_of_one_reading(more):
    model = small(window=6)
    tokens = ids(2, 8 + more, starts=0)
    whole, _ = model(tokens, model.initial_state(2))
    _, state = model(tokens[:, :8], model.initial_state(2))
    assert state[0].all()  # the window is full, so that nothing is masked
    rest, state = model(tokens[:, 8:], state)
    assert torch.allclose(rest, whole[:, 8:], atol=1e-12)
    _, after = model(tokens, model.initial_state(2))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(state, after, strict=True))
    assert len({part.data_ptr() for part in state}) == len(state)


def test_in_bfloat16_logits_and_state_are_still_float32():
    model = small().float()
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = model(ids(2, 12), model.initial_state(2))
        _, later = model(ids(2, 3, starts=0), state)  # nothing is masked
    exact, _ = model(ids(2, 12), model.initial_state(2))
    assert {x.dtype for x in (logits, *state, *later)} == {torch.float32}
    assert 0 < (logits - exact).abs().max() < 0.2


@pytest.mark.parametrize(("hidden", "heads", "inner"), [(10, 3, 12), (7, 4, 8), (3, 4, 4)])
def test_parameters_are_counted_at_any_width(hidden, heads, inner):
    model = small(hidden=hidden, heads=heads, layers=1)
    norms, biases = 4 * hidden, 5 * hidden
    products = 4 * hidden * inner + 8 * hidden**2
    body = norms + biases + products + heads * 4 + 2 * hidden  # the last: the norm at the end
    assert model.body_parameters() == body
    assert model.parameter_count() == body + (V + 1) * hidden + V * hidden + V
    assert model.flops_per_token() == 2 * (products + V * hidden) + 4 * 4 * inner


def test_tied_weights_are_one():
    tied = small(tie=True)
    assert tied.parameter_count() == small().parameter_count() - V * 10
    assert "output_weight" not in dict(tied.named_parameters())


def test_dropout_acts_in_training_only():
    model, tokens = small(dropout=0.5), ids(1, 20)
    read = [model(tokens, model.initial_state(1))[0] for _ in range(2)]
    assert torch.equal(*read)
    noisy = [model.train()(tokens, model.initial_state(1))[0] for _ in range(2)]
    assert not torch.allclose(*noisy)
