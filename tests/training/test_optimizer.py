"""The optimiser against torch's own, step by step; and what it does not load."""

import subprocess
import sys

import pytest
import torch

from lmcli.training.optimizer import AdamW


def parameters():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(size)) for size in ((3, 4), (5,), (2, 2), (7,))]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("most", [0.5, 2.0, 1000.0])
def test_gradients_are_clipped_as_torch_does(fused, most):
    ours, theirs = parameters(), parameters()
    mine, reference = AdamW([(ours, 0.1)], fused), torch.optim.AdamW(theirs, 0.1, weight_decay=0.1)
    for step in range(4):
        for group in (ours, theirs):
            torch.manual_seed(step)
            for p in group:
                p.grad = torch.randn_like(p) * 3.0**-step
        torch.nn.utils.clip_grad_norm_(theirs, most)
        reference.step()
        mine.step(0.1, most)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("beta2", [0.999, 0.9])
@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_those_of_torch(fused, beta2):
    ours, theirs = parameters(), parameters()
    mine = AdamW([(ours[:2], 0.1), (ours[2:], 0.0), ([], 0.5)], fused, beta2)
    reference = torch.optim.AdamW(
        [
            {"params": theirs[:2], "weight_decay": 0.1},
            {"params": theirs[2:], "weight_decay": 0.0},
        ],
        betas=(0.9, beta2),
        fused=fused,
    )
    for step in range(5):
        for group in (ours, theirs):
            torch.manual_seed(step)
            for p in group:
                p.grad = torch.randn_like(p)
            group[1].grad = None if step == 2 else group[1].grad
        for group in reference.param_groups:
            group["lr"] = 0.1 / (step + 1)
        reference.step()
        mine.step(0.1 / (step + 1))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    state = reference.state_dict()["state"]
    for name, tensor in mine.tensors().items():
        index, _, what = name.partition(".")
        assert torch.equal(tensor, state[int(index)][what])


def test_moments_go_to_another_optimiser():
    ours = parameters()
    one, other = (AdamW([(ours, 0.0)], fused=True) for _ in range(2))
    for p in ours:
        p.grad = torch.ones_like(p)
    one.step(0.1)
    other.load_tensors(one.tensors())
    assert {k: v.tolist() for k, v in one.tensors().items()} == {
        k: v.tolist() for k, v in other.tensors().items()
    }
    for size in ((2, 3), (4,), (1, 4)):  # of which some could be stretched to (3, 4)
        with pytest.raises(ValueError, match="exp_avg"):
            other.load_tensors({"0.exp_avg": torch.ones(size)})


def test_neither_steps_nor_sizes_load_torch_compile():
    code = """
import sys, torch
from lmcli.training.optimizer import AdamW
from lmcli.training.model_size import size
from lmcli.registry import MODELS
p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)
AdamW([([p], 0.1)], fused=True).step(0.1)
for name in MODELS.names():
    size(name, MODELS.load(name).Settings(), 50)
size("lstm", MODELS.load("lstm").Settings(softmax="adaptive"), 5000)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def table_step(table, gradients, rate, decay, beta2, most):
    """Naive steps of a table with one mean of squares; gradients are clipped to the norm `most`."""
    mean, square = torch.zeros_like(table), 0.0
    for step, gradient in enumerate(gradients, 1):
        gradient = gradient / max(1.0, gradient.norm().item() / most)
        mean = 0.9 * mean + 0.1 * gradient
        square = beta2 * square + (1 - beta2) * gradient.square().mean().item()
        size = rate / (1 - 0.9**step) / ((square / (1 - beta2**step)) ** 0.5 + 1e-8)
        table = table * (1 - rate * decay) - size * mean
    return table


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("most", [0.5, 1000.0])
def test_a_table_has_one_mean_of_squared_gradients(fused, most):
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(6, 4))
    gradients = [torch.randn(6, 4) * 2.0**-n for n in range(5)]
    wanted = table_step(table.detach(), gradients, 0.1, 0.3, 0.99, most)
    optimizer = AdamW([([], 0.0)], fused, 0.99, [table], 0.3)
    for gradient in gradients:
        table.grad = gradient.clone()
        optimizer.step(0.1, most)
    torch.testing.assert_close(table.detach(), wanted)
    assert optimizer.tensors()["0.exp_avg_sq"].shape == ()


def test_rows_of_a_table_move_as_far_as_their_gradients_say():
    table, entries = (torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(2))
    one = AdamW([], True, tables=[table])
    other = AdamW([([entries], 0.0)], True)
    for p in (table, entries):
        p.grad = torch.tensor([[1.0] * 3, [0.01] * 3])
    one.step(0.1)
    other.step(0.1)
    moved, equal = table.detach(), entries.detach()
    assert (moved[1] / moved[0]).tolist() == pytest.approx([0.01] * 3)
    assert (equal[1] / equal[0]).tolist() == pytest.approx([1.0] * 3)


def test_a_table_that_has_no_gradient_stays():
    table = torch.nn.Parameter(torch.ones(2, 3))
    AdamW([], True, tables=[table], decay_of_tables=0.5).step(0.1)
    assert table.eq(1).all()


def test_only_matrices_decay_whatever_their_names_are():
    model = torch.nn.Module()
    shapes = {
        "weight": (2, 2),
        "recurrent_weight": (2, 2),
        "recurrent_peepholes": (3, 2),
        "recurrent_bias": (2,),
        "distance_bias": (2, 3),
        "bias": (2,),
    }
    for name, shape in shapes.items():
        model.register_parameter(name, torch.nn.Parameter(torch.ones(shape)))
    optimizer = AdamW.of(model, 0.5, 0.25, "cpu")
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    kept = {name: p.detach().unique().item() for name, p in model.named_parameters()}
    assert kept == pytest.approx(
        {
            "weight": 0.95,
            "recurrent_weight": 0.975,
            "recurrent_peepholes": 0.975,
            "recurrent_bias": 1.0,
            "distance_bias": 1.0,
            "bias": 1.0,
        }
    )


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn", "window", "attention", "hybrid"])
@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_tables_are_the_matrices_that_begin_or_end_with_tokens(build, name, softmax):
    model = build(name, vocabulary=2500, softmax=softmax)
    tables = model.token_tables()
    assert {p.dim() for p in tables} == {2}
    rows = sum(len(p) for p in tables if len(p) > 500)
    assert rows >= 2 * 2500
    optimizer = AdamW.of(model, 0.01, 0.0, "cpu", tables=tables)
    means = [t for n, t in optimizer.tensors().items() if n.endswith(".exp_avg_sq")]
    assert len(means) == len(list(model.parameters()))
    assert sum(m.dim() == 0 for m in means) == len(tables)
