"""Attention within a sliding window of tokens, and one head of it over a network's own outputs.

**In:** queries, keys and values, one a token; which of them belong to the current document.
**Out:** for each token the mean of the values in its window, weighted by how well the keys fit.

    w_{t,s} = softmax_s(q_t . k_s / sqrt(D) + b_{t-s})           over s with 0 <= t - s < W
    y_t = sum_s w_{t,s} v_s

The bias b has one learned number a head and distance, as in Raffel et al. (2020) but without their
buckets. `OutputAttention` is one head that a recurrent network reads its own last outputs with:
Bahdanau, Cho and Bengio (2015) attended to another text; Cheng, Dong and Lapata (2016) let an LSTM
attend to its own past, so that what the cell has lost can still be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, State, draw

BLOCK = 256
"""A longer chunk is read in blocks of this many tokens: the scores need room for T (W + T)."""
ALIGNED = 32
"""keys and sizes of heads are made multiples of this: softmax of 191 bfloat16 numbers takes 1.2 ms
where that of 192 takes 0.5 (4,096 rows, one thread of a Xeon)"""


def document_mask(marks: Tensor, is_start: Tensor) -> tuple[Tensor | None, Tensor]:
    """Which tokens each token must not see, and which of the last W - 1 later ones may still see.

    A token sees those of its own document. None: no token is masked.
    Shapes: marks (B, W - 1) of 0 and 1, is_start (B, T) bool
    -> mask (B, T, W - 1 + T) bool, marks (B, W - 1).
    """
    count = is_start.cumsum(1)  # (B, T)
    number = torch.cat([marks.to(count.dtype) - 1, count], dim=1)  # -1: of no document
    after = (number[:, is_start.shape[1] :] == count[:, -1:]).float()  # (B, W - 1)
    if bool(marks.all()) and not is_start.any():
        return None, after
    return number.unsqueeze(1) != count.unsqueeze(2), after


def relative_bias(bias: Tensor, steps: int) -> Tensor:
    """The bias of every pair of a token and one in its window; -inf outside the window.

    Shapes: bias (N, W) by distance -> (N, T, W - 1 + T).
    """
    nearest_last = F.pad(bias.flip(-1), (steps - 1, steps - 1), value=-math.inf)
    width = bias.shape[-1] - 1 + steps
    return nearest_last.unfold(-1, width, 1).flip(-2)  # (N, T, W - 1 + T)


def local_attention(
    query: Tensor,
    key: tuple[Tensor, Tensor],
    value: tuple[Tensor, Tensor],
    bias: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The equations above for N heads of size D; keys and values of earlier tokens come first.

    Shapes: query (B, T, N D), key and value (B, W - 1, N D) and (B, T, N D), bias (N, W),
    mask (B, T, W - 1 + T) or None -> (B, T, N D).
    """
    pairs = relative_bias(bias, query.shape[1])
    pairs = F.pad(pairs, (0, -pairs.shape[-1] % ALIGNED), value=-math.inf)
    scaled = query * (query.shape[-1] // len(bias)) ** -0.5
    return _attention(scaled, *key, *value, pairs.to(query.dtype), mask)


class _LocalAttention(torch.autograd.Function):
    """`local_attention` of scaled queries, with a gradient that keeps the precision of its inputs.

    torch's own computes scores and their gradients in float32 even where queries are bfloat16.
    K' and D', the number of keys and the size of a head, are multiples of ALIGNED: what is added to
    make them so is 0 and gets no weight.
    Shapes: query (B, T, N D), key and value (B, W - 1, N D) and (B, T, N D), bias (N, T, K'),
    mask (B, T, W - 1 + T) or None -> (B, T, N D).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key_before: Tensor,
        key: Tensor,
        value_before: Tensor,
        value: Tensor,
        bias: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        heads, steps, padded = bias.shape
        q = _by_head((query,), heads, steps)
        k, v = (_by_head(x, heads, padded) for x in ((key_before, key), (value_before, value)))
        scores = q @ k.transpose(1, 2)  # (B N, T, K')
        by_head = scores.view(-1, heads, steps, padded)
        by_head.add_(bias)
        if mask is not None:
            by_head[..., : mask.shape[-1]].masked_fill_(mask.unsqueeze(1), -math.inf)
        weights = scores.softmax(-1).to(v.dtype)
        ctx.save_for_backward(q, k, v, weights)
        ctx.heads, ctx.size, ctx.before = heads, query.shape[-1] // heads, key_before.shape[1]
        return _together(weights @ v, heads, ctx.size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        heads, size, before, steps = ctx.heads, ctx.size, ctx.before, q.shape[1]
        grad = _by_head((grad.to(v.dtype),), heads, steps)
        grad_weights = grad @ v.transpose(1, 2)
        grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
        grad_query = _together(grad_scores @ k, heads, size)
        grads: list[Tensor | None] = [grad_query]
        of_keys = grad_scores.transpose(1, 2) @ q, weights.transpose(1, 2) @ grad
        for of_all, needed in zip(of_keys, (1, 3), strict=True):
            earlier, own = of_all[:, :before], of_all[:, before : before + steps]
            is_needed = ctx.needs_input_grad[needed]
            grads.append(_together(earlier, heads, size) if is_needed else None)
            grads.append(_together(own, heads, size))
        grad_bias = grad_scores.view(-1, heads, *weights.shape[1:]).sum(0)
        return *grads, grad_bias, None


_attention: Callable[..., Tensor] = _LocalAttention.apply


def _by_head(parts: tuple[Tensor, ...], heads: int, tokens: int) -> Tensor:
    """The parts one after the other, each head apart, with zeros up to T' tokens and to size D'.

    Shapes: (B, T, N D) each -> (B N, T', D').
    """
    batch, _, inner = parts[-1].shape
    size = inner // heads
    apart = parts[-1].new_empty(batch, heads, tokens, size + -size % ALIGNED)
    end = 0
    for part in parts:
        begin, end = end, end + part.shape[1]
        apart[:, :, begin:end, :size] = part.view(batch, -1, heads, size).transpose(1, 2)
    apart[:, :, end:] = apart[:, :, :end, size:] = 0
    return apart.flatten(0, 1)


def _together(x: Tensor, heads: int, size: int) -> Tensor:
    """All heads of a token, without added zeros. Shapes: (B N, T, D') -> (B, T, N D)."""
    return x.view(-1, heads, *x.shape[1:])[..., :size].transpose(1, 2).flatten(2)


class OutputAttention(nn.Module):
    """A layer after the recurrent ones, y_t = x_t + head over x_{t-N} .. x_t.

    It adds two tensors to the state: the last N outputs (B, N, H), and which of them belong to the
    current document (B, N).
    """

    def __init__(self, hidden: int, last: int) -> None:
        super().__init__()
        self.hidden, self.last = hidden, last
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.key_value = nn.Linear(hidden, 2 * hidden, bias=False)
        self.distance_bias = nn.Parameter(torch.zeros(1, last + 1))
        for layer in (self.query, self.key_value):
            draw(layer.weight, hidden**-0.5)

    def initial_state(self, batch: int) -> State:
        """No outputs. Shapes: (B, N, H), (B, N)."""
        outputs = self.query.weight.new_zeros(batch, self.last, self.hidden)
        return outputs, outputs.new_zeros(batch, self.last)

    def forward(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """Attend from every step. Shapes: x (T, B, H), is_start (T, B) -> (T, B, H), state."""
        read = []
        for part, starts in zip(torch.split(x, BLOCK), torch.split(is_start, BLOCK), strict=True):
            y, state = self._attend(part.transpose(0, 1), starts.t(), *state)
            read.append(y.transpose(0, 1))
        return torch.cat(read), state

    def _attend(
        self, x: Tensor, is_start: Tensor, outputs: Tensor, marks: Tensor
    ) -> tuple[Tensor, State]:
        """The same for one block, batch first."""
        mask, marks = document_mask(marks, is_start)
        outputs = torch.cat([outputs.to(x.dtype), x], dim=1)  # (B, N + T, H)
        key, value = (
            part.tensor_split([self.last], dim=1)
            for part in self.key_value(outputs).chunk(2, dim=-1)
        )
        y = x + local_attention(self.query(x), key, value, self.distance_bias, mask)
        return y, (outputs[:, x.shape[1] :].float() * marks.unsqueeze(-1), marks)

    def forward_unrolled(
        self, x: Tensor, is_start: Tensor, state: State, recorder: ActivationRecorder, prefix: str
    ) -> tuple[Tensor, State]:
        """The same as forward; what is passed on is recorded."""
        y, state = self(x, is_start, state)
        recorder(prefix + "attended", y.transpose(0, 1))
        return y, state
