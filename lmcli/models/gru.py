"""Gated recurrent unit: one state, a gate that keeps and a gate that resets.

**In:** tokens (B, T); state per layer: hidden h (B, H).
**Out:** logits (B, T, V), state.

    r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)             reset gate: how much of the past n sees
    z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)             keep gate (1 = keep, as in PyTorch)
    n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + c_n))  candidate
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

Cho et al. (2014), in the variant of cuDNN and PyTorch (the reset gate acts after the product).
At a document's start r and z are closed, so h_t = tanh(W_n x_t + b_n), independent of the past.
`chrono` gives b_z the values ln U(1, T - 1), for memories of all lengths up to T (Tallec and
Ollivier 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmcli.models.base import State, chrono_init_
from lmcli.models.layers.recurrent import CHRONO_ABOUT, Layer, Recurrent, RecurrentWeightSettings
from lmcli.models.layers.recurrent_kernels import gru_scan
from lmcli.settings import setting


@dataclass(frozen=True)
class GRUSettings(RecurrentWeightSettings):
    """Settings of the GRU."""

    chrono: float | None = setting(None, CHRONO_ABOUT, least=3, most=1e9, unset="none")


class GRULayer(Layer):
    """Gates in the order r, z, n, as in torch's kernels."""

    gates = 3

    def __init__(self, inputs: int, hidden: int, settings: GRUSettings) -> None:
        super().__init__(inputs, hidden, settings)
        chrono_init_(self.bias.data[hidden : 2 * hidden], settings.chrono)
        self.candidate_bias = nn.Parameter(torch.zeros(hidden))  # c_n

    def scan(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        """`GRUScan` on a CPU, torch's fused kernel elsewhere."""
        if x.device.type != "cpu":
            return self._fused(x, is_start, state)
        inputs = F.linear(x, self.input_weight, self.bias)  # (T, B, 3H)
        if is_start.any():
            inputs = inputs + is_start.unsqueeze(-1) * self.closing
        bf16 = torch.is_autocast_enabled("cpu")
        y = gru_scan(inputs, state[0], self.dropped_weight(), self.candidate_bias, bf16)
        return y, (y[-1],)

    def _fused(self, x: Tensor, is_start: Tensor, state: State) -> tuple[Tensor, State]:
        column = is_start.unsqueeze(-1).to(x.dtype)
        x = torch.cat([x, column], dim=-1)  # (T, B, E + 1)
        weight = torch.cat([self.input_weight, self.closing.unsqueeze(-1)], dim=1)
        inner = torch.cat([self.bias.new_zeros(2 * self.hidden), self.candidate_bias])
        weights = [weight, self.dropped_weight(), self.bias, inner]
        train = self.training and torch.is_grad_enabled()
        y, h = torch.gru(x, state[0].unsqueeze(0), weights, True, 1, 0.0, train, False, False)
        return y, (h[0],)

    def step(self, x: Tensor, is_start: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        (h,) = state
        inputs = x @ self.input_weight.t() + self.bias + is_start.unsqueeze(-1) * self.closing
        from_x = inputs.chunk(3, dim=-1)
        from_h = (h @ self.recurrent_weight.t()).chunk(3, dim=-1)
        r, z = (from_x[gate].add(from_h[gate]).sigmoid() for gate in range(2))
        n = (from_x[2] + r * (from_h[2] + self.candidate_bias)).tanh()
        h = (1 - z) * n + z * h
        return {"reset": r, "keep": z, "candidate": n, "hidden": h}, (h,)


class GRU(Recurrent):
    """Gated recurrent unit."""

    name = "gru"
    Settings = GRUSettings
    learning_rate = 5e-3
    Layer = GRULayer
    keep_gate = "keep"


Member = GRU
