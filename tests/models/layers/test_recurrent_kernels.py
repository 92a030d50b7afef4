"""The recurrences with hand-written gradients against torch's own, in float64."""

import pytest
import torch
from torch import nn

from lmcli.models.layers.recurrent_kernels import BLOCK, ElmanScan, GRUScan, _can_pack, _Step

T, B, H = BLOCK + 1, 3, 4  # more than one block of the GRU's backward pass


def random(*shape, seed=0, dtype=torch.float64, scale=0.7):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return values.to(dtype).requires_grad_()


def gru_arguments(dtype=torch.float64):
    """inputs (T, B, 3H), state before (B, H), weight (3H, H), candidate bias (H)."""
    shapes = (T, B, 3 * H), (B, H), (3 * H, H), (H,)
    return [random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


def elman_arguments(dtype=torch.float64):
    """inputs (T, B, H), state before (B, H), weight (H, H)."""
    shapes = (T, B, H), (B, H), (H, H)
    return [random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


def some_kept():
    keep = torch.ones(T, B, 1, dtype=torch.float64)
    keep[0, 1] = keep[4, 0] = keep[4, 2] = keep[8, 1] = 0
    return keep


def torch_module(kind, weight, bias, **options):
    """torch's layer with the identity for its input weights."""
    module = kind(weight.shape[0], H, **options).double()
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.eye(weight.shape[0]))
        module.weight_hh_l0.copy_(weight)
        module.bias_ih_l0.zero_()
        module.bias_hh_l0.copy_(bias)
    return module


def gradients(outputs, wanted):
    weights = random(*outputs.shape, seed=9).detach()
    return torch.autograd.grad((outputs * weights).sum(), wanted)


def test_the_gru_scan_is_torchs_gru_in_values_and_gradients():
    inputs, before, weight, bias = gru_arguments()
    ours = GRUScan.apply(inputs, before, weight, bias, False)
    module = torch_module(nn.GRU, weight, torch.cat([torch.zeros(2 * H), bias.detach()]))
    theirs, _ = module(inputs, before.unsqueeze(0))
    assert torch.allclose(ours, theirs, atol=1e-12)
    mine = gradients(ours, [inputs, before, weight, bias])
    wanted = [inputs, before, module.weight_hh_l0, module.bias_hh_l0]
    *expected, both = gradients(theirs, wanted)
    for found, right in zip(mine, [*expected, both[2 * H :]], strict=True):
        assert torch.allclose(found, right, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_elman_scan_is_torchs_rnn_in_values_and_gradients(activation):
    inputs, before, weight = elman_arguments()
    ours = ElmanScan.apply(inputs, before, weight, None, activation, False)
    module = torch_module(nn.RNN, weight, torch.zeros(H), nonlinearity=activation)
    theirs, _ = module(inputs, before.unsqueeze(0))
    assert torch.allclose(ours, theirs, atol=1e-12)
    mine = gradients(ours, [inputs, before, weight])
    expected = gradients(theirs, [inputs, before, module.weight_hh_l0])
    for found, right in zip(mine, expected, strict=True):
        assert torch.allclose(found, right, atol=1e-12)


def test_gradients_of_the_gru_scan_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(lambda *a: GRUScan.apply(*a, False), gru_arguments())


@pytest.mark.parametrize("kept", [False, True])
def test_gradients_of_the_elman_scan_are_those_of_finite_differences(kept):
    keep = some_kept() if kept else None
    arguments = elman_arguments()
    assert torch.autograd.gradcheck(lambda *a: ElmanScan.apply(*a, keep, "tanh", False), arguments)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_where_keep_is_zero_the_elman_scan_begins_anew(activation):
    inputs, before, weight = elman_arguments()
    keep = some_kept()
    ours = ElmanScan.apply(inputs, before, weight, keep, activation, False)
    act = getattr(torch, activation)
    h, naive = before, []
    for t in range(T):
        h = act(inputs[t] + (h * keep[t]) @ weight.t())
        naive.append(h)
    naive = torch.stack(naive)
    assert torch.allclose(ours, naive, atol=1e-12)
    mine = gradients(ours, [inputs, before, weight])
    expected = gradients(naive, [inputs, before, weight])
    for found, right in zip(mine, expected, strict=True):
        assert torch.allclose(found, right, atol=1e-12)
    assert (mine[1][1] == 0).all()  # sequence 1 forgets at once: no gradient before it


@pytest.mark.parametrize("scan", ["gru", "elman"])
def test_bfloat16_products_come_close_to_float32_and_states_stay_float32(scan):
    if scan == "gru":
        arguments, low, high = gru_arguments(torch.float32), (True,), (False,)
        function = GRUScan
    else:
        arguments, function = elman_arguments(torch.float32), ElmanScan
        low, high = (None, "tanh", True), (None, "tanh", False)
    fast, exact = function.apply(*arguments, *low), function.apply(*arguments, *high)
    assert fast.dtype == torch.float32
    assert not torch.equal(fast, exact)
    assert torch.allclose(fast, exact, atol=0.05)
    weights = random(T, B, H, seed=9, dtype=torch.float32).detach()
    found = torch.autograd.grad((fast * weights).sum(), arguments)
    right = torch.autograd.grad((exact * weights).sum(), arguments)
    for one, other in zip(found, right, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("bf16", "error"), [(False, 1e-6), (True, 1e-2)])
def test_a_step_is_a_product_with_and_without_packed_weights(bf16, error, packs, has_bias):
    x, weight = random(B, H, dtype=torch.float32), random(H, 3 * H, seed=1, dtype=torch.float32)
    bias = random(3 * H, seed=2, dtype=torch.float32) if has_bias else None
    kind = torch.bfloat16 if bf16 else torch.float32
    if packs and not _can_pack(weight.to(kind)):
        pytest.skip("no packed weights here")
    with torch.no_grad():
        step = _Step(weight, B, bf16, bias, packs)
        product = step(x)
        right = x.double() @ weight.double() + (bias.double() if has_bias else 0)
    assert (step.packed is not None) == packs
    assert product.dtype == kind
    assert (product.double() - right).norm() < error * right.norm()


@pytest.mark.parametrize("scan", ["gru", "elman"])
def test_in_float32_the_scan_is_that_of_float64(scan):
    made, rest = (gru_arguments, ()) if scan == "gru" else (elman_arguments, (None, "tanh"))
    function = GRUScan if scan == "gru" else ElmanScan
    exact_arguments, arguments = made(), made(torch.float32)
    exact = function.apply(*exact_arguments, *rest, False)
    found = function.apply(*arguments, *rest, False)
    mine = gradients(found, arguments)
    assert torch.allclose(found.double(), exact, atol=1e-6)
    for one, other in zip(mine, gradients(exact, exact_arguments), strict=True):
        assert torch.allclose(one.double(), other, atol=1e-5)


@pytest.mark.parametrize("scan", ["gru", "elman"])
def test_inputs_in_bfloat16_have_the_gradients_of_the_same_in_float32(scan):
    made, rest = (gru_arguments, ()) if scan == "gru" else (elman_arguments, (None, "tanh"))
    function = GRUScan if scan == "gru" else ElmanScan
    inputs, *others = made(torch.float32)
    short = inputs.detach().bfloat16().requires_grad_()
    long = short.detach().float().requires_grad_()
    exact = function.apply(long, *others, *rest, True)
    found = function.apply(short, *others, *rest, True)
    assert torch.equal(found, exact)
    (grad,), (right,) = gradients(found, [short]), gradients(exact, [long])
    assert (grad.float() - right).norm() < 0.01 * right.norm()
