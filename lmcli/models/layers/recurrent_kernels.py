"""Recurrences over time with hand-written gradients, for cells that have no fused CPU kernel.

**In:** input pre-activations for all steps at once, the state before the first, recurrent weights.
**Out:** the hidden vectors of all steps.

torch runs a GRU or an Elman RNN on a CPU as a chain of small recorded operations and sums the
gradient of the weights step by step. Here a step is one matrix product and a few in-place
operations, and everything that does not depend on the previous step (the derivatives of the gates,
the gradient of the weights) is computed for all steps together. With `bf16` the matrix products run
in bfloat16; states and sums stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _product(states: Tensor, weight: Tensor, bf16: bool) -> Tensor:
    """states @ weight in bfloat16 or as is, float32 out."""
    if bf16:
        return (states.bfloat16() @ weight.bfloat16()).float()
    return states @ weight


class _Step:
    """x -> x @ weight for one fixed weight and shape, into one reused buffer."""

    def __init__(self, weight: Tensor, batch: int, bf16: bool) -> None:
        kind = torch.bfloat16 if bf16 else weight.dtype
        self.weight = weight.to(kind)
        self.bf16 = bf16
        self.input = torch.empty(batch, weight.shape[0], dtype=kind, device=weight.device)
        self.output = torch.empty(batch, weight.shape[1], dtype=kind, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if self.bf16:
            x = self.input.copy_(x)
        return torch.mm(x, self.weight, out=self.output)


class GRUScan(torch.autograd.Function):
    """h_t = n_t + z_t * (h_{t-1} - n_t), the GRU of Cho et al. (2014) as PyTorch computes it.

    Shapes: inputs (T, B, 3H) in the order r, z, n; before (B, H); weight (3H, H); bias (H)
    -> (T, B, H).
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, before: Tensor, weight: Tensor, bias: Tensor, bf16: bool
    ) -> Tensor:
        steps, batch, width = *inputs.shape[:2], before.shape[1]
        hidden = inputs.new_empty(steps + 1, batch, width)  # (T+1, B, H)
        hidden[0] = before
        gates = inputs.new_empty(steps, batch, 3 * width)  # r, z, n
        recurrent = inputs.new_empty(steps, batch, width)  # U_n h + b_n
        step = _Step(weight.t(), batch, bf16)
        for t in range(steps):
            product = step(hidden[t])  # (B, 3H)
            both = gates[t, :, : 2 * width]
            torch.add(inputs[t, :, : 2 * width], product[:, : 2 * width], out=both).sigmoid_()
            torch.add(product[:, 2 * width :], bias, out=recurrent[t])
            new = gates[t, :, 2 * width :]
            torch.addcmul(inputs[t, :, 2 * width :], both[:, :width], recurrent[t], out=new).tanh_()
            torch.lerp(new, hidden[t], both[:, width:], out=hidden[t + 1])
        ctx.save_for_backward(hidden, gates, recurrent, weight)
        ctx.bf16 = bf16
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, gates, recurrent, weight = ctx.saved_tensors
        steps, batch, width = grad.shape
        r, z, n = gates.split(width, dim=-1)
        gate_grad = hidden.new_empty(steps, batch, 2 * width)  # d h_t / d (r, z)'s inputs
        r_grad, z_grad = gate_grad.split(width, dim=-1)
        n_grad = _tanh_grad(1 - z, n)
        _sigmoid_grad(n_grad * recurrent, r, r_grad)
        _sigmoid_grad(hidden[:-1] - n, z, z_grad)
        inner = n_grad * r  # d h_t / d (U_n h)
        grad_preact = hidden.new_empty(steps, batch, 3 * width)  # gradient of U h
        grad_h = torch.zeros_like(hidden[0])  # (B, H) gradient of h_t from later steps
        grad_total = hidden.new_empty(steps, batch, width)
        step = _Step(weight, batch, ctx.bf16)
        gate_view = gate_grad.view(steps, batch, 2, width)
        grad_gates = grad_preact[..., : 2 * width].unflatten(-1, (2, width))
        for t in range(steps - 1, -1, -1):
            total = torch.add(grad[t], grad_h, out=grad_total[t])
            torch.mul(total.unsqueeze(1), gate_view[t], out=grad_gates[t])
            torch.mul(total, inner[t], out=grad_preact[t, :, 2 * width :])
            torch.addcmul(step(grad_preact[t]), total, z[t], out=grad_h)
        flat = grad_preact.flatten(0, 1)  # (TB, 3H)
        grad_weight = _product(flat.t(), hidden[:-1].flatten(0, 1), ctx.bf16)
        grad_bias = grad_preact[..., 2 * width :].sum((0, 1))
        torch.mul(n_grad, grad_total, out=grad_preact[..., 2 * width :])  # r, z: as of U h
        return grad_preact, grad_h, grad_weight, grad_bias, None


gru_scan: Callable[..., Tensor] = GRUScan.apply


def _sigmoid_grad(grad: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    """grad * gate * (1 - gate) in one pass."""
    done: Tensor = torch.ops.aten.sigmoid_backward.grad_input(grad, gate, grad_input=out)
    return done


def _tanh_grad(grad: Tensor, value: Tensor) -> Tensor:
    """grad * (1 - value ** 2) in one pass, in the place of `grad`."""
    done: Tensor = torch.ops.aten.tanh_backward.grad_input(grad, value, grad_input=grad)
    return done


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
        bf16: bool,
    ) -> Tensor:
        steps, batch, width = inputs.shape
        read = inputs.new_empty(steps, batch, width)  # h_{t-1} as read by the step
        hidden = inputs.new_empty(steps, batch, width)
        step, last = _Step(weight.t(), batch, bf16), before
        apply = torch.tanh_ if activation == "tanh" else torch.relu_
        for t in range(steps):
            read[t] = last
            if keep is not None:
                read[t] *= keep[t]
            last = torch.add(inputs[t], step(read[t]), out=hidden[t])
            apply(last)
        ctx.save_for_backward(hidden, read, weight, keep)
        ctx.activation, ctx.bf16 = activation, bf16
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, read, weight, keep = ctx.saved_tensors
        steps, batch = grad.shape[:2]
        tanh = ctx.activation == "tanh"
        act_grad = 1 - hidden * hidden if tanh else (hidden > 0).to(hidden.dtype)
        grad_preact = torch.empty_like(hidden)
        grad_h = torch.zeros_like(hidden[0])
        step = _Step(weight, batch, ctx.bf16)
        for t in range(steps - 1, -1, -1):
            torch.add(grad[t], grad_h, out=grad_preact[t]).mul_(act_grad[t])
            grad_h.copy_(step(grad_preact[t]))
            if keep is not None:
                grad_h.mul_(keep[t])
        grad_weight = _product(grad_preact.flatten(0, 1).t(), read.flatten(0, 1), ctx.bf16)
        return grad_preact, grad_h, grad_weight, None, None, None


elman_scan: Callable[..., Tensor] = ElmanScan.apply


class LSTMScan(torch.autograd.Function):
    """c_t = f_t c_{t-1} + i_t g_t, h_t = o_t tanh(c_t): the LSTM in the variants of lstm.py.

    `forget_mode` says what f is: a "gate" of its own, "coupled" (1 - i) or "all" (1). Where `stay`
    is 0 the state after the step is h = c = 0. `peepholes` are weights from the cell to i, f and o.
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
        forget_mode: str,
        bf16: bool,
    ) -> tuple[Tensor, Tensor]:
        steps, batch, width = *inputs.shape[:2], before.shape[1]
        hidden = torch.cat([before.unsqueeze(0), inputs.new_empty(steps, batch, width)])
        cells = torch.cat([cell.unsqueeze(0), inputs.new_empty(steps, batch, width)])
        gates = torch.empty_like(inputs)
        step = _Step(weight.t(), batch, bf16)
        for t in range(steps):
            total = torch.add(inputs[t], step(hidden[t]), out=gates[t])
            *early, g, o = total.chunk(len(weight) // width, dim=-1)  # i and perhaps f; g; o
            if peepholes is not None:
                for gate, weight_c in zip(early, peepholes, strict=False):
                    gate.addcmul_(weight_c, cells[t])
            total[:, : len(early) * width].sigmoid_()
            g.tanh_()
            if forget_mode == "coupled":
                c = torch.lerp(cells[t], g, early[0], out=cells[t + 1])
            else:
                c = torch.mul(early[0], g, out=cells[t + 1])
                c.addcmul_(cells[t], early[1]) if forget_mode == "gate" else c.add_(cells[t])
            if stay is not None:
                c.mul_(stay[t])
            if peepholes is not None:
                o.addcmul_(peepholes[-1], c)
            torch.mul(o.sigmoid_(), c.tanh(), out=hidden[t + 1])
        ctx.save_for_backward(hidden, cells, gates, weight, peepholes, stay)
        ctx.forget_mode, ctx.bf16 = forget_mode, bf16
        return hidden[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_cell: Tensor) -> tuple[Tensor | None, ...]:
        hidden, cells, gates, weight, peepholes, stay = ctx.saved_tensors
        steps, batch, width = grad.shape
        gate_grad, cell_grad, carried = _lstm_gate_grads(gates, cells, stay, ctx.forget_mode)
        grad_preact = torch.empty_like(gates)  # (T, B, GH) gradient of U h
        grad_h = torch.zeros_like(hidden[0])  # (B, H) gradient of h_t from later steps
        step = _Step(weight, batch, ctx.bf16)
        for t in range(steps - 1, -1, -1):
            at_hidden = grad[t] + grad_h
            early, late = grad_preact[t, :, :-width], grad_preact[t, :, -width:]  # i, f, g; o
            torch.mul(at_hidden, gate_grad[t, :, -width:], out=late)
            at_cell = torch.addcmul(grad_cell, at_hidden, cell_grad[t])
            if peepholes is not None:
                at_cell.addcmul_(late, peepholes[-1])
            early = early.view(batch, -1, width)  # (B, G - 1, H)
            early_grad = gate_grad[t, :, :-width].view(batch, -1, width)
            torch.mul(at_cell.unsqueeze(1), early_grad, out=early)
            grad_cell = at_cell * carried[t]
            if peepholes is not None:
                for index, weight_c in enumerate(peepholes[:-1]):
                    grad_cell.addcmul_(early[:, index], weight_c)
            grad_h.copy_(step(grad_preact[t]))
        grad_weight = _product(grad_preact.flatten(0, 1).t(), hidden[:-1].flatten(0, 1), ctx.bf16)
        grad_peepholes = None
        if peepholes is not None:
            at_gates = grad_preact.view(steps, batch, -1, width)  # (T, B, G, H)
            sees = [(i, cells[:-1]) for i in range(len(peepholes) - 1)] + [(-1, cells[1:])]
            grad_peepholes = torch.stack([(at_gates[:, :, i] * c).sum((0, 1)) for i, c in sees])
        return grad_preact, grad_h, grad_cell, grad_weight, grad_peepholes, None, None, None


lstm_scan: Callable[..., tuple[Tensor, Tensor]] = LSTMScan.apply


def _lstm_gate_grads(
    gates: Tensor, cells: Tensor, stay: Tensor | None, forget_mode: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives that need no later step: by the gates' inputs, of h by c, of c by the c before.

    Shapes: gates (T, B, GH), cells (T + 1, B, H) -> (T, B, GH), (T, B, H), (T, B, H).
    """
    width = cells.shape[-1]
    i, *f, g, o = gates.chunk(gates.shape[-1] // width, dim=-1)
    before, tanh_c = cells[:-1], cells[1:].tanh()
    written = g - before if forget_mode == "coupled" else g
    grads = [written * i * (1 - i), i * (1 - g * g)]
    if forget_mode == "gate":
        grads.insert(1, before * f[0] * (1 - f[0]))
    carried = {"gate": f[0] if f else i, "coupled": 1 - i, "all": torch.ones_like(i)}[forget_mode]
    if stay is not None:
        grads, carried = [g * stay for g in grads], carried * stay
    return torch.cat([*grads, tanh_c * o * (1 - o)], dim=-1), o * (1 - tanh_c * tanh_c), carried
