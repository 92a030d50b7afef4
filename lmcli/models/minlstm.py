"""Minimal LSTM: an input and a forget gate that sum to one, computed from the input alone.

**In:** tokens (B, T); state per layer: hidden h (B, H).
**Out:** logits (B, T, V), state.

    f_t = sigmoid(W_f u_t + b_f)          what would stay
    i_t = sigmoid(W_i u_t + b_i)          what would be written
    n_t = W_n u_t + b_n                   candidate
    h_t = f_t / (f_t + i_t) * h_{t-1} + i_t / (f_t + i_t) * n_t

u_t: layers/minimal.py. Feng et al. (2024). The state that is carried is h
itself and each step normalises its own gates, so a text may be cut anywhere. With l = ln f - ln i
the shares are sigmoid(l) and sigmoid(-l), without a division.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from lmcli.models.base import chrono_init_
from lmcli.models.layers.minimal import MinimalLayer, MinimalSettings
from lmcli.models.layers.recurrent import Recurrent
from lmcli.settings import setting


@dataclass(frozen=True)
class MinLSTMSettings(MinimalSettings):
    """Settings of the minimal LSTM."""

    forget_bias: float = setting(1.0, "initial bias of the forget gate", least=-20, most=20)


class MinLSTMLayer(MinimalLayer):
    """Gates in the order f, i, n."""

    gates = 3

    def __init__(self, inputs: int, hidden: int, settings: MinLSTMSettings) -> None:
        super().__init__(inputs, hidden, settings)
        self.bias.data[:hidden] = settings.forget_bias
        f, i, _ = self.bias.data.chunk(3)
        chrono_init_(f, settings.chrono, i)

    def gate_values(self, total: Tensor) -> dict[str, Tensor]:
        """The two shares and the candidate."""
        f, i, n = total.chunk(3, dim=-1)
        log_ratio = F.logsigmoid(f) - F.logsigmoid(i)
        keep, write = log_ratio.sigmoid(), (-log_ratio).sigmoid()
        return {"keep": keep, "write": write, "candidate": n}


class MinLSTM(Recurrent):
    """Minimal long short-term memory."""

    name = "minlstm"
    Settings = MinLSTMSettings
    learning_rate = 6e-3
    Layer = MinLSTMLayer
    keep_gate = "keep"


Member = MinLSTM
