"""One attention head over a recurrent network's own last outputs.

**In:** outputs x (T, B, H); state: the last N outputs (B, N, H) and which of them belong to the
current document (B, N).
**Out:** x_t + what the head found (T, B, H), state.

    w_{t,s} = softmax_s(Q x_t . K x_s / sqrt(H) + b_{t-s})       over s with 0 <= t - s <= N
    y_t = x_t + sum_s w_{t,s} V x_s

Bahdanau, Cho and Bengio (2015) looked back over another text; Cheng, Dong and Lapata (2016) let an
LSTM look back over itself. What it does not hold in its cell it may still find.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lmcli.models.attention import BLOCK, documents, look
from lmcli.models.base import ActivationRecorder, State, draw


class LookBack(nn.Module):
    """One more layer behind the recurrent ones; it adds two tensors to their state."""

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
        """Look back from every step. Shapes: x (T, B, H), is_start (T, B) -> (T, B, H), state."""
        found = []
        pieces = zip(torch.split(x, BLOCK), torch.split(is_start, BLOCK), strict=True)
        for part, starts in pieces:
            y, state = self._look(part.transpose(0, 1), starts.t(), *state)
            found.append(y.transpose(0, 1))
        return torch.cat(found), state

    def _look(
        self, x: Tensor, is_start: Tensor, outputs: Tensor, marks: Tensor
    ) -> tuple[Tensor, State]:
        """The same for a piece, batch first."""
        hidden, marks = documents(marks, is_start)
        outputs = torch.cat([outputs.to(x.dtype), x], dim=1)  # (B, N + T, H)
        key, value = self.key_value(outputs).chunk(2, dim=-1)
        y = x + look(self.query(x), key, value, self.distance_bias, hidden)
        return y, (outputs[:, x.shape[1] :].float() * marks.unsqueeze(-1), marks)

    def forward_unrolled(
        self, x: Tensor, is_start: Tensor, state: State, tap: ActivationRecorder, prefix: str
    ) -> tuple[Tensor, State]:
        """The same as forward, showing what is passed on to `tap`."""
        y, state = self(x, is_start, state)
        tap(prefix + "attended", y.transpose(0, 1))
        return y, state
