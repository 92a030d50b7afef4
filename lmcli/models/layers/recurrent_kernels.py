"""Recurrences over time with hand-written gradients, for cells that have no fused CPU kernel.

**In:** input pre-activations (Elman network: inputs) of all steps at once, the state before the
first, recurrent weights.
**Out:** the hidden vectors of all steps.

torch runs a GRU or an Elman RNN on a CPU as a chain of small recorded operations and sums the
gradient of the weights step by step. Here a step is one matrix product and a few in-place
operations; the gradient of the weights is computed for all steps together, derivatives of gates for
several steps at a time (GRU) or for all (LSTM). With `bf16` matrix products, input pre-activations
and gradients of pre-activations are in bfloat16 (those of the LSTM are stored in float32). Hidden
states and their gradients stay in float32 where they are carried from step to step (GRU, LSTM);
those of an Elman network are made anew at each step and are in bfloat16, as the product reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lmcli.system import is_intel

BLOCK = 8
"""steps whose derivatives are computed together: few enough to stay in a core's cache"""
ALIGNED = 32
"""Products in bfloat16 are fastest at multiples of this: 16 x 605 x 541 takes 34 us, 16 x 608 x 544
26 (one thread of a Xeon with AMX)."""
MINUS_ONE = torch.tensor(-1.0)
"""a tensor, because torch.add takes no number first: -1 + 2 x in one pass"""


def _product(states: Tensor, weight: Tensor, bf16: bool) -> Tensor:
    """states @ weight in bfloat16 or as is, float32 out."""
    if bf16:
        return (states.bfloat16() @ weight.bfloat16()).float()
    return states @ weight


class _Step:
    """x -> f(x @ weight + bias) for one fixed weight and batch, in bfloat16 or as is.

    f is the identity or a given activation. oneDNN packs the weight once for all steps, where that
    is faster; a plain product packs it every time (width 256, 16 rows, one thread of an EPYC: 26
    instead of 34 us, in float32 43 instead of 83). `pack` is only for tests.
    """

    def __init__(
        self,
        weight: Tensor,
        batch: int,
        bf16: bool,
        bias: Tensor | None = None,
        activation: Literal["none", "tanh", "relu"] = "none",
        pack: bool = True,
    ) -> None:
        self.weight = weight.to(torch.bfloat16 if bf16 else weight.dtype)
        self.bias = None if bias is None else bias.to(self.weight.dtype)
        self.activation = activation
        self.packed: Tensor | None = None
        if pack and _can_pack(self.weight):
            transposed = self.weight.t().contiguous()
            self.packed = torch.ops.mkldnn._reorder_linear_weight(transposed, batch)
        else:
            self.weight = self.weight.contiguous()  # a transposed view takes half as long again

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if self.packed is not None:
            linear = torch.ops.mkldnn._linear_pointwise  # as torch.compile has it: no public name
            product: Tensor = linear(x, self.packed, self.bias, self.activation, [], "")
            return product
        y = x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
        return y if self.activation == "none" else _ACTIVATIONS[self.activation](y)

    def add(self, x: Tensor, added: Tensor) -> Tensor:
        """x @ weight + added, of a step without bias and activation."""
        if self.packed is not None:
            linear = torch.ops.mkldnn._linear_pointwise
            total: Tensor = linear.binary(x, added, self.packed, None, "add")
            return total
        return torch.addmm(added, x, self.weight)


_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


def _can_pack(weight: Tensor) -> bool:
    """Whether oneDNN has a product for this device and type, and a faster one than MKL.

    In float32 MKL's is faster on Intel's CPUs (16 x 541 x 541, two threads of a Xeon: 35 us, packed
    52), and slower on others.
    """
    is_there = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.enabled
    if not is_there or weight.device.type != "cpu":
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    is_slower = is_intel() and torch.backends.mkl.is_available()
    return weight.dtype == torch.float32 and torch.backends.mkldnn.is_available() and not is_slower


def _aligned(width: int) -> int:
    """The next multiple of ALIGNED."""
    return -(-width // ALIGNED) * ALIGNED


def _tanh_of_half(x: Tensor, out: Tensor) -> Tensor:
    """tanh(x / 2) = 2 sigmoid(x) - 1, faster than torch's tanh on the CPU of docs/benchmarks.md.

    The absolute error is about 1e-7, so small values lose relative precision.
    """
    torch.sigmoid(x, out=out)
    return torch.add(MINUS_ONE, out, alpha=2, out=out)


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
        hidden = before.new_empty(steps + 1, batch, width)  # (T+1, B, H)
        hidden[0] = before
        gates = before.new_empty(steps, batch, 3 * width)  # r, z, U_n h + b_n
        new = 2 * inputs[..., 2 * width :].to(before.dtype)  # twice n's input, then n
        padded = torch.cat([bias.new_zeros(2 * width), bias])
        step = _Step(weight.t(), batch, bf16, padded)
        views = (gates, gates[..., : 2 * width], *gates.split(width, -1), new)
        loop = zip(inputs[..., : 2 * width], hidden[:-1], hidden[1:], *views, strict=True)
        for x, last, following, product, both, r, z, recurrent, n in loop:
            product.copy_(step(last))  # (B, 3H)
            both.add_(x).sigmoid_()
            _tanh_of_half(n.addcmul_(r, recurrent, value=2), n)
            torch.lerp(n, last, z, out=following)
        ctx.save_for_backward(hidden, gates, new, weight)
        ctx.bf16 = bf16
        return hidden[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, gates, new, weight = ctx.saved_tensors
        steps, batch, width = grad.shape
        kind = torch.bfloat16 if ctx.bf16 else hidden.dtype
        grad_preact = grad.new_empty(steps, batch, 3, width, dtype=kind)  # gradient of U h
        grad_new = grad.new_empty(steps, batch, width, dtype=kind)  # gradient of n's input
        # gradient of each state, complete once the step after it is done: (T+1, B, H)
        grad_hidden = torch.cat([torch.zeros_like(grad[:1]), grad])
        product = grad.new_empty(batch, 3, width)
        step = _Step(weight, batch, ctx.bf16)
        for first in range((steps - 1) // BLOCK * BLOCK, -1, -BLOCK):
            block = slice(first, first + BLOCK)
            z = gates[block, :, width : 2 * width]
            grad_after, grad_before = grad_hidden[1:][block], grad_hidden[:-1][block]
            gate_grad, n_grad = _gru_gate_grads(gates[block], new[block], hidden[:-1][block])
            views = gate_grad, z, grad_after, grad_before, grad_preact[block]
            backwards = (view.unbind()[::-1] for view in views)
            for by_gates, z_t, grad_h, grad_last, preact in zip(*backwards, strict=True):
                preact.copy_(torch.mul(grad_h.unsqueeze(1), by_gates, out=product))
                grad_last.addcmul_(grad_h, z_t).add_(step(preact.view(batch, -1)))
            grad_new[block] = n_grad.mul_(grad_after)
        flat = grad_preact.view(-1, 3 * width)  # (TB, 3H)
        grad_weight = _product(flat.t(), hidden[:-1].flatten(0, 1), ctx.bf16)
        grad_bias = grad_preact[:, :, 2].sum((0, 1), dtype=hidden.dtype)
        grad_preact[:, :, 2] = grad_new  # r, z: as of U h
        return grad_preact.flatten(2), grad_hidden[0], grad_weight, grad_bias, None


gru_scan: Callable[..., Tensor] = GRUScan.apply


def _gru_gate_grads(gates: Tensor, n: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of h_t that need no later step: by U h, and by the input of n.

    Shapes: (T, B, 3H), (T, B, H), (T, B, H) -> (T, B, 3, H), (T, B, H).
    """
    r, z, recurrent = gates.split(n.shape[-1], dim=-1)
    by_gates = n.new_empty(*n.shape[:2], 3, n.shape[-1])
    by_new = _tanh_grad(1 - z, n)
    _sigmoid_grad(by_new * recurrent, r, by_gates[:, :, 0])
    _sigmoid_grad(before - n, z, by_gates[:, :, 1])
    torch.mul(by_new, r, out=by_gates[:, :, 2])
    return by_gates, by_new


def _sigmoid_grad(grad: Tensor, gate: Tensor, out: Tensor) -> Tensor:
    """grad * gate * (1 - gate) in one pass."""
    done: Tensor = torch.ops.aten.sigmoid_backward.grad_input(grad, gate, grad_input=out)
    return done


def _tanh_grad(grad: Tensor, value: Tensor) -> Tensor:
    """grad * (1 - value ** 2) in one pass, in the place of `grad`."""
    done: Tensor = torch.ops.aten.tanh_backward.grad_input(grad, value, grad_input=grad)
    return done


class ElmanScan(torch.autograd.Function):
    """h_t = f(W x_t + U h_{t-1} + b) with f = tanh or relu (Elman 1990).

    One product a step reads [x_t, h_{t-1}], so that oneDNN can apply f before it writes the result;
    rows and columns of zeros make its widths multiples of ALIGNED (marked + below). Where `keep` is
    0 the state before the step is forgotten. With `bf16` all is in bfloat16 but the gradients of
    weights and `before`.
    Shapes: x (T, B, E); before (B, H); input_weight W (H, E); weight U (H, H); bias (H);
    keep (T, B, 1) -> (T, B, H).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        before: Tensor,
        input_weight: Tensor,
        weight: Tensor,
        bias: Tensor,
        keep: Tensor | None,
        activation: Literal["tanh", "relu"],
        bf16: bool,
    ) -> Tensor:
        steps, size, width = len(x), x.shape[2], before.shape[1]  # T, E, H
        kind = torch.bfloat16 if bf16 else before.dtype
        keep = None if keep is None else keep.to(kind)
        both = weight.new_zeros(_aligned(width), _aligned(size + width), dtype=kind)  # W, U
        both[:width, :size], both[:width, size : size + width] = input_weight, weight
        read = x.new_zeros(steps + 1, len(before), both.shape[1], dtype=kind)  # (T+1, B, (E+H)+)
        past = read[..., size : size + width]  # h_{t-1} as it is read
        read[:-1, :, :size] = x
        past[0] = before if keep is None else before * keep[0]
        bias = F.pad(bias, (0, len(both) - width))
        step = _Step(both.t(), len(before), bf16, bias, activation)
        hidden = []  # T of (B, H+)
        kept = (None,) * steps if keep is None else (*keep[1:], None)
        for seen, later, stays in zip(read[:-1], past[1:], kept, strict=True):
            h = step(seen)
            hidden.append(h)
            later.copy_(h[:, :width])
            if stays is not None:
                later.mul_(stays)
        states = torch.stack(hidden)
        ctx.save_for_backward(states, read, both, keep)
        ctx.size, ctx.tanh, ctx.bf16, ctx.kind = size, activation == "tanh", bf16, before.dtype
        return states[..., :width].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, read, both, keep = ctx.saved_tensors
        (steps, batch, width), size = grad.shape, ctx.size
        at_states = torch.zeros_like(states)  # (T, B, H+)
        at_states[..., :width] = grad
        grad_preact = torch.empty_like(states)
        recurrent = F.pad(both[:, size : size + width], (0, len(both) - width))  # U (H+, H+)
        step = _Step(recurrent, batch, ctx.bf16)
        aten = torch.ops.aten
        total = at_states[-1]  # gradient of h_t
        earlier = *at_states[:-1].unbind()[::-1], torch.zeros_like(total)
        kept = (None,) * steps if keep is None else keep.unbind()[::-1]
        views = (view.unbind()[::-1] for view in (states, grad_preact))
        for at_last, stays, h, preact in zip(earlier, kept, *views, strict=True):
            if ctx.tanh:
                aten.tanh_backward.grad_input(total, h, grad_input=preact)
            else:
                aten.threshold_backward.grad_input(total, h, 0, grad_input=preact)
            if stays is None:
                total = step.add(preact, at_last)
            else:
                total = torch.addcmul(at_last, step(preact), stays)
        flat = grad_preact.flatten(0, 1)  # (TB, H+)
        grad_both = (flat.t() @ read[:-1].flatten(0, 1))[:width].to(ctx.kind)
        grad_bias = flat.sum(0)[:width].to(ctx.kind)
        grad_weights = grad_both[:, :size], grad_both[:, size : size + width], grad_bias
        grad_x = (flat @ both[:, :size]).view(steps, batch, size)
        return grad_x, total[:, :width].to(ctx.kind), *grad_weights, None, None, None


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
