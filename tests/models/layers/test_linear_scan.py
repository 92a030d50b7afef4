"""The linear recurrence against a loop over numbers, both ways to run it, and its gradient."""

import pytest
import torch

from lmcli.models.layers.linear_scan import LinearScan, in_rounds, step_by_step

B, H = 2, 3
both_ways = pytest.mark.parametrize("way", [step_by_step, in_rounds])


def arguments(steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(steps, B, H, generator=generator, dtype=torch.float64)
    added = torch.randn(steps, B, H, generator=generator, dtype=torch.float64)
    before = torch.randn(B, H, generator=generator, dtype=torch.float64)
    return kept, added, before


@both_ways
@pytest.mark.parametrize("steps", [1, 2, 7, 8, 33])
def test_states_are_those_of_the_recurrence(way, steps):
    kept, added, before = arguments(steps)
    states = way(kept, added, before)
    for b in range(B):
        for h in range(H):
            state = float(before[b, h])
            for t in range(steps):
                state = float(kept[t, b, h]) * state + float(added[t, b, h])
                assert float(states[t, b, h]) == pytest.approx(state, abs=1e-12)


@both_ways
def test_keeping_nothing_forgets_exactly(way):
    kept, added, before = arguments(20)
    kept[11] = 0
    once = way(kept, added, before)
    again = way(kept, torch.cat([added[:11] * 1e6, added[11:]]), before - 1e6)
    assert torch.equal(once[11], added[11])
    assert torch.allclose(once[11:], again[11:], atol=1e-12)


@both_ways
def test_many_steps_of_little_neither_overflow_nor_vanish(way):
    kept, added, before = arguments(500)
    states = way(kept.float() * 1e-30, added.float(), before.float())
    assert torch.allclose(states, added.float())
    states = way(torch.ones(500, B, H), torch.zeros(500, B, H), before.float())
    assert torch.equal(states[-1], before.float())


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_the_gradient_is_right(steps):
    inputs = [x.requires_grad_() for x in arguments(steps)]
    assert torch.autograd.gradcheck(LinearScan.apply, inputs)
