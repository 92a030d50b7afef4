"""Recurrences over time with hand-written gradients, for cells that have no fused CPU kernel.

**In:** input pre-activations for all steps at once, the state before the first, recurrent weights.
**Out:** the hidden vectors of all steps.

torch runs a GRU or an Elman RNN on a CPU as a chain of small recorded operations and adds up the
weights' gradient step by step. Here a step is one matrix product and a few in-place operations,
and everything that does not depend on the step before (the derivatives of the gates, the gradient
of the weights) is done for all steps together. On processors with bfloat16 arithmetic the matrix
products run in it where the caller asks; states and sums stay in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _product(states: Tensor, weight: Tensor, low: bool) -> Tensor:
    """states @ weight in bfloat16 or as is, float32 out."""
    if low:
        return (states.bfloat16() @ weight.bfloat16()).float()
    return states @ weight


class _Step:
    """x -> x @ weight for one fixed weight and shape, into one reused buffer."""

    def __init__(self, weight: Tensor, batch: int, low: bool) -> None:
        kind = torch.bfloat16 if low else weight.dtype
        self.weight = weight.to(kind)
        self.low = low
        self.input = torch.empty(batch, weight.shape[0], dtype=kind, device=weight.device)
        self.output = torch.empty(batch, weight.shape[1], dtype=kind, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if self.low:
            x = self.input.copy_(x)
        return torch.mm(x, self.weight, out=self.output)


class GRUScan(torch.autograd.Function):
    """h_t = n_t + z_t * (h_{t-1} - n_t), the GRU of Cho et al. (2014) as PyTorch computes it.

    Shapes: inputs (T, B, 3H) in the order r, z, n; before (B, H); weight (3H, H); bias (H)
    -> (T, B, H).
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, before: Tensor, weight: Tensor, bias: Tensor, low: bool
    ) -> Tensor:
        steps, batch, width = *inputs.shape[:2], before.shape[1]
        hidden = inputs.new_empty(steps + 1, batch, width)  # (T+1, B, H)
        hidden[0] = before
        gates = inputs.new_empty(steps, batch, 3 * width)  # r, z, n
        recurrent = inputs.new_empty(steps, batch, width)  # U_n h + b_n
        step = _Step(weight.t(), batch, low)
        for t in range(steps):
            product = step(hidden[t])  # (B, 3H)
            both = gates[t, :, : 2 * width]
            torch.add(inputs[t, :, : 2 * width], product[:, : 2 * width], out=both).sigmoid_()
            torch.add(product[:, 2 * width :], bias, out=recurrent[t])
            new = gates[t, :, 2 * width :]
            torch.addcmul(inputs[t, :, 2 * width :], both[:, :width], recurrent[t], out=new).tanh_()
            torch.lerp(new, hidden[t], both[:, width:], out=hidden[t + 1])
        ctx.save_for_backward(hidden, gates, recurrent, weight)
        ctx.low = low
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, gates, recurrent, weight = ctx.saved_tensors
        steps, batch, width = grad.shape
        r, z, n = gates.split(width, dim=-1)
        slope = hidden.new_empty(steps, batch, 3 * width)  # d gates / d h_t, elementwise
        slope_r, slope_z, slope_n = slope.split(width, dim=-1)
        torch.mul(1 - z, 1 - n * n, out=slope_n)
        torch.mul(slope_n * recurrent, r * (1 - r), out=slope_r)
        torch.mul(hidden[:-1] - n, z * (1 - z), out=slope_z)
        inner = slope.clone()  # as above, seen from the product U h: n passes through r
        inner[..., 2 * width :] *= r
        into = torch.empty_like(slope)  # (T, B, 3H) gradient at U h
        flow = torch.zeros_like(hidden[0])  # (B, H) gradient at h_t from behind
        ahead = hidden.new_empty(steps, batch, width)
        step = _Step(weight, batch, ctx.low)
        for t in range(steps - 1, -1, -1):
            here = torch.add(grad[t], flow, out=ahead[t])
            torch.mul(
                here.unsqueeze(1),
                inner[t].view(batch, 3, width),
                out=into[t].view(batch, 3, width),
            )
            torch.addcmul(step(into[t]), here, z[t], out=flow)
        outer = (slope.view(steps, batch, 3, width) * ahead.unsqueeze(2)).flatten(2)
        flat = into.flatten(0, 1)  # (TB, 3H)
        grad_weight = _product(flat.t(), hidden[:-1].flatten(0, 1), ctx.low)
        return outer, flow, grad_weight, into[..., 2 * width :].sum((0, 1)), None


class ElmanScan(torch.autograd.Function):
    """h_t = f(inputs_t + U h_{t-1}) with f = tanh or relu (Elman 1990).

    Where `keep` is 0 the state before the step is forgotten.
    Shapes: inputs (T, B, H); before (B, H); weight (H, H); keep (T, B, 1) -> (T, B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        before: Tensor,
        weight: Tensor,
        keep: Tensor | None,
        activation: str,
        low: bool,
    ) -> Tensor:
        steps, batch, width = inputs.shape
        read = inputs.new_empty(steps, batch, width)  # h_{t-1} as the step saw it
        hidden = inputs.new_empty(steps, batch, width)
        step = _Step(weight.t(), batch, low)
        last = before
        for t in range(steps):
            if keep is None:
                read[t] = last
            else:
                torch.mul(last, keep[t], out=read[t])
            last = torch.add(inputs[t], step(read[t]), out=hidden[t])
            last = last.tanh_() if activation == "tanh" else last.relu_()
        ctx.save_for_backward(hidden, read, weight, keep)
        ctx.activation, ctx.low = activation, low
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, read, weight, keep = ctx.saved_tensors
        steps, batch = grad.shape[:2]
        slope = 1 - hidden * hidden if ctx.activation == "tanh" else (hidden > 0).to(hidden.dtype)
        into = torch.empty_like(hidden)
        flow = torch.zeros_like(hidden[0])
        step = _Step(weight, batch, ctx.low)
        for t in range(steps - 1, -1, -1):
            torch.add(grad[t], flow, out=into[t]).mul_(slope[t])
            product = step(into[t])
            flow = flow.copy_(product) if keep is None else torch.mul(product, keep[t], out=flow)
        grad_weight = _product(into.flatten(0, 1).t(), read.flatten(0, 1), ctx.low)
        return into, flow, grad_weight, None, None, None
