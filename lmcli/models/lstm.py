"""Long short-term memory: a cell that gates write, keep and read.

**In:** tokens (B, T); state per layer: hidden h and cell c, both (B, H).
**Out:** logits (B, T, V), state.

    i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)     input gate: how much is written
    f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)     forget gate: how much is kept
    g_t = tanh(W_g x_t + U_g h_{t-1} + b_g)        candidate: what is written
    o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)     output gate: how much is shown
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

Hochreiter and Schmidhuber (1997); forget gate: Gers, Schmidhuber and Cummins (2000); a forget
bias of 1 so that a fresh cell keeps what it holds: Jozefowicz, Zaremba and Sutskever (2015). At a
document's start both i and f are closed, which leaves h = c = 0 behind, whatever went before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lmcli.models.base import State
from lmcli.models.recurrent import Layer, Recurrent, RecurrentSettings
from lmcli.settings import setting

CLOSED = -60.0
"""Added to a gate's input it shuts the gate: sigmoid(-60) = 9e-27."""


@dataclass(frozen=True)
class LSTMSettings(RecurrentSettings):
    """Settings of the LSTM."""

    forget_bias: float = setting(
        1.0, "bias of the forget gate at the beginning", least=-20, most=20
    )


class LSTMLayer(Layer):
    """Gates in the order i, f, g, o, as torch's fused kernel wants them."""

    blocks = 4
    parts = 2
    closing: Tensor
    no_bias: Tensor

    def __init__(self, inputs: int, hidden: int, settings: LSTMSettings) -> None:
        super().__init__(inputs, hidden, settings)
        self.bias.data[hidden : 2 * hidden] = settings.forget_bias
        closing = torch.zeros(4 * hidden, 1)
        closing[: 2 * hidden] = CLOSED
        self.register_buffer("closing", closing, persistent=False)
        self.register_buffer("no_bias", torch.zeros(4 * hidden), persistent=False)

    def forward(self, x: Tensor, fresh: Tensor, state: State) -> tuple[Tensor, State]:
        """torch's fused LSTM; one more input column, 1 at a document's start, shuts i and f."""
        weight: Tensor = self.input_weight
        if fresh.any():
            x = torch.cat([x, fresh.unsqueeze(-1).to(x.dtype)], dim=-1)  # (T, B, E + 1)
            weight = torch.cat([weight, self.closing], dim=1)
        weights = [weight, self.recurrent_weight, self.bias, self.no_bias]
        before = [part.unsqueeze(0) for part in state]  # (1, B, H)
        train = self.training and torch.is_grad_enabled()
        y, h, c = torch.lstm(x, before, weights, True, 1, 0.0, train, False, False)
        return y, (h[0], c[0])

    def step(self, x: Tensor, fresh: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One step by the equations above."""
        h, c = state
        total = x @ self.input_weight.t() + h @ self.recurrent_weight.t() + self.bias  # (B, 4H)
        total = total + fresh.unsqueeze(-1) * self.closing.squeeze(-1)
        i, f, g, o = total.chunk(4, dim=-1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        c = f * c + i * g
        h = o * c.tanh()
        names = {"input": i, "forget": f, "candidate": g, "output": o, "cell": c, "hidden": h}
        return names, (h, c)


class LSTM(Recurrent):
    """Long short-term memory."""

    name = "lstm"
    Settings = LSTMSettings
    Layer = LSTMLayer


Member = LSTM
