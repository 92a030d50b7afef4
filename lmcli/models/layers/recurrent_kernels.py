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
        slope = hidden.new_empty(steps, batch, 2 * width)  # d (r, z) / d h_t, elementwise
        slope_r, slope_z = slope.split(width, dim=-1)
        slope_n = _tanh_slope(1 - z, n)
        _sigmoid_slope(slope_n * recurrent, r, slope_r)
        _sigmoid_slope(hidden[:-1] - n, z, slope_z)
        inner = slope_n * r  # of n, as seen from the product U h
        into = hidden.new_empty(steps, batch, 3 * width)  # gradient at U h
        flow = torch.zeros_like(hidden[0])  # (B, H) gradient at h_t from behind
        ahead = hidden.new_empty(steps, batch, width)
        step = _Step(weight, batch, ctx.low)
        gate_view = slope.view(steps, batch, 2, width)
        into_gates = into[..., : 2 * width].unflatten(-1, (2, width))
        for t in range(steps - 1, -1, -1):
            here = torch.add(grad[t], flow, out=ahead[t])
            torch.mul(here.unsqueeze(1), gate_view[t], out=into_gates[t])
            torch.mul(here, inner[t], out=into[t, :, 2 * width :])
            torch.addcmul(step(into[t]), here, z[t], out=flow)
        flat = into.flatten(0, 1)  # (TB, 3H)
        grad_weight = _product(flat.t(), hidden[:-1].flatten(0, 1), ctx.low)
        grad_bias = into[..., 2 * width :].sum((0, 1))
        torch.mul(slope_n, ahead, out=into[..., 2 * width :])  # r and z: as at U h
        return into, flow, grad_weight, grad_bias, None


def _sigmoid_slope(grad: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    """grad * gate * (1 - gate) in one pass."""
    return torch.ops.aten.sigmoid_backward.grad_input(grad, gate, grad_input=out)  # type: ignore[no-any-return]


def _tanh_slope(grad: Tensor, value: Tensor) -> Tensor:
    """grad * (1 - value ** 2) in one pass, in the place of `grad`."""
    return torch.ops.aten.tanh_backward.grad_input(grad, value, grad_input=grad)  # type: ignore[no-any-return]


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


class LSTMScan(torch.autograd.Function):
    """c_t = f_t c_{t-1} + i_t g_t, h_t = o_t tanh(c_t): the LSTM in the variants of lstm.py.

    `keeping` says what f is: a "gate" of its own, "coupled" (1 - i) or "all" (1). Where `stay` is
    0 the step leaves h = c = 0 behind. `peepholes` are the weights from the cell to i, f and o.
    Shapes: inputs (T, B, GH) in the order i, f, g, o or i, g, o; hidden and cell before (B, H);
    weight (GH, H); peepholes (G - 1, H) or None; stay (T, B, 1) or None
    -> (T, B, H), the last cell (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        before: Tensor,
        cell: Tensor,
        weight: Tensor,
        peepholes: Tensor | None,
        stay: Tensor | None,
        keeping: str,
        low: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, width = *inputs.shape[:2], before.shape[1]
        hidden = torch.cat([before.unsqueeze(0), inputs.new_empty(steps, batch, width)])
        cells = torch.cat([cell.unsqueeze(0), inputs.new_empty(steps, batch, width)])
        gates = torch.empty_like(inputs)
        step = _Step(weight.t(), batch, low)
        for t in range(steps):
            total = torch.add(inputs[t], step(hidden[t]), out=gates[t])
            *early, g, o = total.chunk(len(weight) // width, dim=-1)  # i and perhaps f; g; o
            if peepholes is not None:
                for gate, seen in zip(early, peepholes, strict=False):
                    gate.addcmul_(seen, cells[t])
            total[:, : len(early) * width].sigmoid_()
            g.tanh_()
            if keeping == "coupled":
                c = torch.lerp(cells[t], g, early[0], out=cells[t + 1])
            else:
                c = torch.mul(early[0], g, out=cells[t + 1])
                c.addcmul_(cells[t], early[1]) if keeping == "gate" else c.add_(cells[t])
            if stay is not None:
                c.mul_(stay[t])
            if peepholes is not None:
                o.addcmul_(peepholes[-1], c)
            torch.mul(o.sigmoid_(), c.tanh(), out=hidden[t + 1])
        ctx.save_for_backward(hidden, cells, gates, weight, peepholes, stay)
        ctx.keeping, ctx.low = keeping, low
        return hidden[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, flow_cell: Tensor) -> tuple[Tensor | None, ...]:
        hidden, cells, gates, weight, peepholes, stay = ctx.saved_tensors
        steps, batch, width = grad.shape
        slope, shown, kept = _lstm_slopes(gates, cells, stay, ctx.keeping)
        into = torch.empty_like(gates)  # (T, B, GH) gradient at U h
        flow = torch.zeros_like(hidden[0])  # (B, H) gradient at h_t from behind
        step = _Step(weight, batch, ctx.low)
        for t in range(steps - 1, -1, -1):
            at_hidden = grad[t] + flow
            early, late = into[t, :, :-width], into[t, :, -width:]  # i, f, g; o
            torch.mul(at_hidden, slope[t, :, -width:], out=late)
            at_cell = torch.addcmul(flow_cell, at_hidden, shown[t])
            if peepholes is not None:
                at_cell.addcmul_(late, peepholes[-1])
            early = early.view(batch, -1, width)  # (B, G - 1, H)
            torch.mul(at_cell.unsqueeze(1), slope[t, :, :-width].view(batch, -1, width), out=early)
            flow_cell = at_cell * kept[t]
            if peepholes is not None:
                for index, seen in enumerate(peepholes[:-1]):
                    flow_cell.addcmul_(early[:, index], seen)
            flow.copy_(step(into[t]))
        grad_weight = _product(into.flatten(0, 1).t(), hidden[:-1].flatten(0, 1), ctx.low)
        grad_peepholes = None
        if peepholes is not None:
            at_gates = into.view(steps, batch, -1, width)  # (T, B, G, H)
            sees = [(i, cells[:-1]) for i in range(len(peepholes) - 1)] + [(-1, cells[1:])]
            grad_peepholes = torch.stack([(at_gates[:, :, i] * c).sum((0, 1)) for i, c in sees])
        return into, flow, flow_cell, grad_weight, grad_peepholes, None, None, None


def _lstm_slopes(
    gates: Tensor, cells: Tensor, stay: Tensor | None, keeping: str
) -> tuple[Tensor, Tensor, Tensor]:
    """What does not depend on later steps: derivatives by the gates' inputs, of h by c, c by c.

    Shapes: gates (T, B, GH), cells (T + 1, B, H) -> (T, B, GH), (T, B, H), (T, B, H).
    """
    width = cells.shape[-1]
    i, *f, g, o = gates.chunk(gates.shape[-1] // width, dim=-1)
    before, seen = cells[:-1], cells[1:].tanh()
    written = g - before if keeping == "coupled" else g
    slopes = [written * i * (1 - i), i * (1 - g * g)]
    if keeping == "gate":
        slopes.insert(1, before * f[0] * (1 - f[0]))
    kept = {"gate": f[0] if f else i, "coupled": 1 - i, "all": torch.ones_like(i)}[keeping]
    if stay is not None:
        slopes, kept = [s * stay for s in slopes], kept * stay
    return torch.cat([*slopes, seen * o * (1 - o)], dim=-1), o * (1 - seen * seen), kept
