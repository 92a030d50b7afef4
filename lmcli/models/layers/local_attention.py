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
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import ActivationRecorder, State, draw

BLOCK = 256
"""A longer chunk is read in blocks of this many tokens: the scores need room for T (W + T)."""
ALIGNED = 32
"""The softmax of 191 bfloat16 numbers takes 1.2 ms where that of 192 takes 0.5 (4,096 rows, one
thread of a Xeon)."""


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
    query: Tensor, key: Sequence[Tensor], value: Sequence[Tensor], bias: Tensor, mask: Tensor | None
) -> Tensor:
    """The equations above for N heads of size D, in the precision of the queries.

    Keys and values are given in parts, the oldest tokens first. In bfloat16 the bias is rounded to
    eight bits, so that far distances in a large window share theirs.
    Shapes: query (B, T, N D), key and value (B, W - 1 + T, N D) in all, bias (N, W),
    mask (B, T, W - 1 + T) or None -> (B, T, N D).
    """
    heads = len(bias)
    batch, steps, inner = query.shape
    size = inner // heads  # D
    pairs = relative_bias(bias, steps)
    if padding := _padding(pairs.shape[-1]):  # keys of 0 that get no weight
        zeros = query.new_zeros(batch, padding, inner)
        key, value = [*key, zeros], [*value, zeros]
        pairs = F.pad(pairs, (0, padding), value=-math.inf)
        mask = None if mask is None else F.pad(mask, (0, padding))

    def by_head(x: Tensor) -> Tensor:
        """(B, T, N D) -> (B, N, T, D), in the precision of the queries."""
        return x.to(query.dtype).view(batch, -1, heads, size).transpose(1, 2)

    k, v = (torch.cat([by_head(x) for x in parts], dim=2) for parts in (key, value))
    scores = by_head(query * size**-0.5) @ k.transpose(-1, -2)  # (B, N, T, K)
    scores.add_(pairs.to(scores.dtype))  # a float32 bias would make all that follows float32
    if mask is not None:
        with torch.no_grad():  # a weight of 0 has a gradient of 0 without being told
            scores.masked_fill_(mask.unsqueeze(1), -math.inf)
    mean: Tensor = scores.softmax(-1, dtype=scores.dtype) @ v  # (B, N, T, D)
    return mean.transpose(1, 2).flatten(2)


def _padding(keys: int) -> int:
    """How many keys make their number a multiple of ALIGNED, if these are few.

    >>> _padding(191), _padding(192), _padding(130)
    (1, 0, 0)
    """
    padding = -keys % ALIGNED
    return padding if 10 * padding <= keys else 0


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
        key, value = self.key_value(outputs).chunk(2, dim=-1)
        y = x + local_attention(self.query(x), [key], [value], self.distance_bias, mask)
        return y, (outputs[:, x.shape[1] :].float() * marks.unsqueeze(-1), marks)

    def forward_unrolled(
        self, x: Tensor, is_start: Tensor, state: State, recorder: ActivationRecorder, prefix: str
    ) -> tuple[Tensor, State]:
        """The same as forward; what is passed on is recorded."""
        y, state = self(x, is_start, state)
        recorder(prefix + "attended", y.transpose(0, 1))
        return y, state
