"""The recurrences with hand-written gradients against torch's own, in float64."""

import pytest
import torch
from torch import nn

from lmcli.models.layers import recurrent_kernels as kernels
from lmcli.models.layers.recurrent_kernels import BLOCK, ElmanScan, GRUScan, _can_pack, _Step

T, B, E, H = BLOCK + 1, 3, 5, 4  # more than one block of the GRU's backward pass


def random(*shape, seed=0, dtype=torch.float64, scale=0.7):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale
    return values.to(dtype).requires_grad_()


def gru_arguments(dtype=torch.float64):
    """inputs (T, B, 3H), state before (B, H), weight (3H, H), candidate bias (H)."""
    shapes = (T, B, 3 * H), (B, H), (3 * H, H), (H,)
    return [random(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


def elman_arguments(dtype=torch.float64):
    """x (T, B, E), state before (B, H), input weight (H, E), weight (H, H), bias (H)."""
    shapes = (T, B, E), (B, H), (H, E), (H, H), (H,)
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
    x, before, *weights = elman_arguments()
    ours = ElmanScan.apply(x, before, *weights, None, activation, False)
    module = nn.RNN(E, H, nonlinearity=activation).double()
    theirs_weights = [module.weight_ih_l0, module.weight_hh_l0, module.bias_ih_l0]
    with torch.no_grad():
        module.bias_hh_l0.zero_()
        for parameter, weight in zip(theirs_weights, weights, strict=True):
            parameter.copy_(weight)
    theirs, _ = module(x, before.unsqueeze(0))
    assert torch.allclose(ours, theirs, atol=1e-12)
    mine = gradients(ours, [x, before, *weights])
    expected = gradients(theirs, [x, before, *theirs_weights])
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
    arguments = elman_arguments()
    x, before, input_weight, weight, bias = arguments
    keep = some_kept()
    ours = ElmanScan.apply(*arguments, keep, activation, False)
    act = getattr(torch, activation)
    h, naive = before, []
    for t in range(T):
        h = act(x[t] @ input_weight.t() + (h * keep[t]) @ weight.t() + bias)
        naive.append(h)
    naive = torch.stack(naive)
    assert torch.allclose(ours, naive, atol=1e-12)
    mine = gradients(ours, arguments)
    expected = gradients(naive, arguments)
    for found, right in zip(mine, expected, strict=True):
        assert torch.allclose(found, right, atol=1e-12)
    assert (mine[1][1] == 0).all()  # sequence 1 forgets at once: no gradient before it


def keep_for(scan, dtype):
    """What a scan takes between its tensors and bf16; in the Elman scan documents begin."""
    return () if scan == "gru" else (some_kept().to(dtype), "tanh")


@pytest.mark.parametrize(("scan", "kind"), [("gru", torch.float32), ("elman", torch.bfloat16)])
def test_bfloat16_products_come_close_to_float32(scan, kind):
    """Only states that are carried from step to step stay in float32."""
    function, made = (GRUScan, gru_arguments) if scan == "gru" else (ElmanScan, elman_arguments)
    arguments, rest = made(torch.float32), keep_for(scan, torch.float32)
    fast, exact = (function.apply(*arguments, *rest, bf16) for bf16 in (True, False))
    assert (fast.dtype, exact.dtype) == (kind, torch.float32)
    assert not torch.equal(fast, exact)
    assert torch.allclose(fast.float(), exact, atol=0.05)
    weights = random(T, B, H, seed=9, dtype=torch.float32).detach()
    found = torch.autograd.grad((fast * weights).sum(), arguments)
    right = torch.autograd.grad((exact * weights).sum(), arguments)
    for one, other in zip(found, right, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.03 * other.norm()


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize(("bf16", "error"), [(False, 1e-6), (True, 1e-2)])
def test_a_step_is_a_product_with_and_without_packed_weights(
    monkeypatch, bf16, error, packs, has_bias
):
    monkeypatch.setattr(kernels, "is_intel", lambda: False)
    x, weight = random(B, H, dtype=torch.float32), random(H, 3 * H, seed=1, dtype=torch.float32)
    bias = random(3 * H, seed=2, dtype=torch.float32) if has_bias else None
    kind = torch.bfloat16 if bf16 else torch.float32
    if packs and not _can_pack(weight.to(kind)):
        pytest.skip("no packed weights here")
    with torch.no_grad():
        step = _Step(weight, B, bf16, bias, pack=packs)
        right = x.double() @ weight.double() + (bias.double() if has_bias else 0)
        expected = {"none": right, "tanh": right.tanh(), "relu": right.relu()}
        for activation, values in expected.items():
            product = _Step(weight, B, bf16, bias, activation, pack=packs)(x)
            assert product.dtype == kind
            assert (product.double() - values).norm() < error * values.norm()
        if not has_bias:
            added = random(B, 3 * H, seed=3, dtype=torch.float32).detach().to(kind)
            total = step.add(x.to(kind), added)
            assert total.dtype == kind
            assert (total.double() - right - added.double()).norm() < error * right.norm()
    assert (step.packed is not None) == packs


@pytest.mark.parametrize("scan", ["gru", "elman"])
def test_in_float32_the_scan_is_that_of_float64(scan):
    function, made = (GRUScan, gru_arguments) if scan == "gru" else (ElmanScan, elman_arguments)
    rest = () if scan == "gru" else (None, "tanh")
    exact_arguments, arguments = made(), made(torch.float32)
    exact = function.apply(*exact_arguments, *rest, False)
    found = function.apply(*arguments, *rest, False)
    mine = gradients(found, arguments)
    assert torch.allclose(found.double(), exact, atol=1e-6)
    for one, other in zip(mine, gradients(exact, exact_arguments), strict=True):
        assert torch.allclose(one.double(), other, atol=1e-5)


@pytest.mark.parametrize("scan", ["gru", "elman"])
def test_inputs_in_bfloat16_have_the_gradients_of_the_same_in_float32(scan):
    function, made = (GRUScan, gru_arguments) if scan == "gru" else (ElmanScan, elman_arguments)
    rest = () if scan == "gru" else (None, "tanh")
    inputs, *others = made(torch.float32)
    short = inputs.detach().bfloat16().requires_grad_()
    long = short.detach().float().requires_grad_()
    exact = function.apply(long, *others, *rest, True)
    found = function.apply(short, *others, *rest, True)
    assert torch.equal(found, exact)
    (grad,), (right,) = gradients(found, [short]), gradients(exact, [long])
    assert (grad.float() - right).norm() < 0.01 * right.norm()


@pytest.mark.parametrize("maker", ["Intel", "another"])
def test_float32_weights_are_packed_where_mkl_is_slower(monkeypatch, maker):
    monkeypatch.setattr(kernels, "is_intel", lambda: maker == "Intel")
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkl.is_available():
        pytest.skip("no oneDNN or no MKL here")
    assert _can_pack(torch.zeros(2, 2)) == (maker == "another")
