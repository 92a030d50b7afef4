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
from lmcli.training.defaults import size
from lmcli.registry import MODELS
p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)
AdamW([([p], 0.1)], fused=True).step(0.1)
for name in MODELS.names():
    size(name, MODELS.load(name).Settings(), 50)
size("lstm", MODELS.load("lstm").Settings(softmax="adaptive"), 5000)
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
